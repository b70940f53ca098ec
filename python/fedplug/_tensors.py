"""Arrays of NumPy and tensors of torch, and their types by the names of the Rust interface."""
from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ._errors import TensorError, Unsupported

NUMPY: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("<f4"),
    "f64": np.dtype("<f8"),
    "f16": np.dtype("<f2"),
    "i64": np.dtype("<i8"),
    "i32": np.dtype("<i4"),
    "i8": np.dtype("i1"),
    "u8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in NUMPY.items()}
_TORCH = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8"}
FLOATS = ("f32", "f64", "f16", "bf16")


def is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def dtype(value: Any) -> str:
    """The type of an array's elements, as Rust names it. Raises TypeError for one that does not travel."""
    if is_torch(value):
        name = _TORCH.get(str(value.dtype).replace("torch.", ""))
    else:
        name = "bf16" if value.dtype.name == "bfloat16" else _NAMES.get(value.dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(f"elements of type {value.dtype} cannot be sent; of {', '.join(NUMPY)} and bf16, each can")
    return name


def shape(value: Any) -> list[int]:
    return [int(size) for size in value.shape]


def plain(value: Any) -> np.ndarray:
    """The elements as a contiguous NumPy array in the CPU's memory, shared where that is possible. Those of bfloat16 are
    an array of 16-bit integers with the same bits. Numbers and lists become arrays as well."""
    if is_torch(value):
        torch = sys.modules["torch"]
        value = value.detach().cpu().contiguous()
        return value.view(torch.int16).numpy() if value.dtype == torch.bfloat16 else value.numpy()
    value = np.ascontiguousarray(value).reshape(np.shape(value))
    if value.dtype.name == "bfloat16":
        return value.view(np.int16)
    return value.astype(value.dtype.newbyteorder("="), copy=False)


def array(buffer: Any, offset: int, length: int, name: str, kind: str) -> Any:
    """The elements in a buffer, which is not copied, as one of NumPy's arrays or torch's tensors."""
    if name == "bf16":
        raw = np.frombuffer(buffer, np.int16, length // 2, offset) if length else np.empty(0, np.int16)
        if kind == "torch":
            import torch

            return torch.from_numpy(raw).view(torch.bfloat16)
        try:
            import ml_dtypes
        except ImportError as error:
            raise Unsupported("NumPy has no bfloat16: install `ml_dtypes`, or let the class say `arrays = \"torch\"`") from error
        return raw.view(ml_dtypes.bfloat16)
    of = NUMPY[name]
    raw = np.frombuffer(buffer, of, length // of.itemsize, offset) if length else np.empty(0, of)
    return as_kind(raw, kind)


def as_kind(value: np.ndarray, kind: str) -> Any:
    if kind != "torch":
        return value
    import torch

    return torch.from_numpy(value)


def fits(name: str, value: Any, like: Any) -> None:
    """Raises TensorError unless both have the same shape and type."""
    if shape(value) != shape(like):
        raise TensorError(name, f"has shape {shape(value)}, not {shape(like)}")
    if dtype(value) != dtype(like):
        raise TensorError(name, f"holds {dtype(value)}, not {dtype(like)}")


def write(into: Any, value: Any) -> None:
    """Copies elements into an array or a tensor that exists."""
    if is_torch(into):
        torch = sys.modules["torch"]
        with torch.no_grad():
            into.copy_(value if is_torch(value) else torch.from_numpy(np.ascontiguousarray(value)).reshape(into.shape))
    else:
        into[...] = value


def copy(value: Any) -> Any:
    """The same in memory of its own."""
    return value.detach().clone() if is_torch(value) else np.array(value)
