"""Writes python.json: what numpy, cryptography and flwr make of some data, for the tests beside it.

    PYTHONPATH=.python python3 host/superlink/src/tests/python.py > host/superlink/src/tests/python.json

Made with numpy 2.2.6, cryptography 50.0.2, flwr 1.42.0.
"""

import base64
import hashlib
import io
import json
import sys

import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects


def b64(data):
    return base64.b64encode(data).decode()


def stream(array, version):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version, allow_pickle=False)
    return b64(out.getvalue())


def plain(array):
    return b64(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())


rng = np.random.default_rng(0)
heads, streams = [], []
for dtype in ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]:
    for shape in [(), (1,), (0,), (7,), (2, 3), (123456789,), (4, 1, 0, 5), (1,) * 9]:
        array = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))
        out = io.BytesIO()
        np.lib.format._write_array_header(
            out, {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}, (1, 0))
        heads.append({"dtype": dtype, "shape": shape, "head": b64(out.getvalue())})
    if dtype not in ("bool", "int16", "float32", "float64", "uint64"):
        continue
    for shape in [(), (5,), (2, 3), (2, 3, 4), (3, 1, 2, 2), (0, 3)]:
        array = (rng.random(shape) * 100).astype(dtype)
        orders = [array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))]
        for version in [(1, 0), (2, 0), (3, 0)]:
            for a in orders:
                streams.append({"dtype": dtype, "shape": a.shape, "stream": stream(a, version), "data": plain(array)})

content = RecordDict({
    "z": ArrayRecord({"b": Array(np.arange(6, dtype=np.float32).reshape(2, 3)), "a": Array(np.zeros(())),
                      "same": Array(np.arange(6, dtype=np.float32).reshape(2, 3)), "ü": Array(np.array([1], ">i2"))}),
    "m": MetricRecord({"loss": 0.5, "n": -3, "list": [1, 2], "floats": [0.25]}),
    "c": ConfigRecord({"s": "ö", "b": True, "bytes": b"\x00\xff", "texts": ["", "x"], "flags": [True, False], "blobs": [b"", b"y"]}),
    "empty": ConfigRecord({}),
})
objects = {name: o.deflate() for name, o in get_all_nested_objects(content).items()}
# The head of a message; its body is of no matter here.
message = f"Message {content.object_id} 0\0".encode()
objects[hashlib.sha256(message).hexdigest()] = message
key = ec.generate_private_key(ec.SECP384R1())
json.dump({
    "heads": heads,
    "streams": streams,
    "message": hashlib.sha256(message).hexdigest(),
    "objects": {name: b64(o) for name, o in objects.items()},
    "private": key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                 serialization.NoEncryption()).decode(),
    "public": key.public_key().public_bytes(serialization.Encoding.PEM,
                                            serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
    "signature": b64(key.sign(b"2026-11-26T00:00:00.123456+00:00", ec.ECDSA(hashes.SHA256()))),
}, sys.stdout, separators=(",", ":"))
