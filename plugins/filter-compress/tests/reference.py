"""Writes reference.json beside it: what the filter must give, by NumPy, and nf4 and 8 bits by bitsandbytes.

    pip install bitsandbytes==0.50.2 torch numpy
    python3 tests/reference.py

bitsandbytes is what NVFlare's quantiser calls for `normfloat4` and `blockwise8`. All arithmetic is in float32, as the crate's
page says; the levels of nf4 are also computed from the normal distribution.
"""

import importlib.metadata
import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from bitsandbytes import functional

f32 = np.float32
rng = np.random.default_rng(7)


def plain(array):
    return [float(str(x)) for x in np.asarray(array, dtype=f32).ravel()]


def bf16(x):
    """Round to the nearest bfloat16, ties to even, by an exact search among neighbours."""
    down = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(f32)
    up = ((x.view(np.uint32) & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view(f32)
    to_down = np.abs(x.astype(np.float64) - down)
    to_up = np.abs(up.astype(np.float64) - x)
    even = (down.view(np.uint32) >> 16) % 2 == 0
    return np.where((to_down < to_up) | ((to_down == to_up) & even), down, up)


def int8(x, block):
    out = np.empty_like(x)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        scale = f32(np.abs(part).max() / f32(127))
        codes = np.rint(part / scale).astype(np.int8)
        out[start : start + block] = codes.astype(f32) * scale
    return out


def nf4_levels():
    """QLoRA, appendix E: quantiles between 1 - d and d, with d the mean of 1 - 1/32 and 1 - 1/30; 0 stands once."""
    quantile, d = NormalDist().inv_cdf, (1 - 1 / 32 + 1 - 1 / 30) / 2
    positive = [quantile(p) for p in np.linspace(d, 0.5, 9)[:-1]]
    negative = [-quantile(p) for p in np.linspace(d, 0.5, 8)[:-1]]
    levels = np.array(sorted([*positive, 0.0, *negative]))
    return levels / levels.max()


def nf4(x, block):
    return functional.dequantize_4bit(*functional.quantize_4bit(torch.tensor(x), blocksize=block, quant_type="nf4")).numpy()


def blockwise8(x, block):
    return functional.dequantize_blockwise(*functional.quantize_blockwise(torch.tensor(x), blocksize=block)).numpy()


# 157 elements: two whole blocks of 64, and an odd rest. Some are tiny, so that fp16 has subnormal ones.
base = rng.normal(size=157).astype(f32)
x = base + (rng.normal(size=157) * 10.0 ** rng.integers(-6, 1, size=157)).astype(f32)
x[:8] *= f32(1e-6)
u = x - base
update = {
    "fp16": base + u.astype(np.float16).astype(f32),
    "bf16": base + bf16(u),
    "int8": base + int8(u, 64),
    "nf4": base + nf4(u, 64),
}
values = {"fp16": x.astype(np.float16).astype(f32), "bf16": bf16(x), "int8": int8(x, 64), "nf4": nf4(x, 64)}

# Top-k over rounds, where the global model moves as well. Updates are coarse, so that some are of equal magnitude.
owed, model, rounds = np.zeros(40, dtype=f32), rng.normal(size=40).astype(f32), []
for _ in range(5):
    client = model + (rng.integers(-6, 7, size=40) / 8).astype(f32)
    owed = (client - model) + owed
    order = sorted(range(40), key=lambda i: (-abs(owed[i]), i))[:6]
    chosen = np.zeros(40, dtype=bool)
    chosen[order] = True
    restored = model + np.where(chosen, owed, f32(0))
    owed = np.where(chosen, f32(0), owed)
    rounds.append({"base": plain(model), "x": plain(client), "restored": plain(restored), "owed": plain(owed)})
    model = model + (restored - model) * f32(0.5)

reference = {
    **{name: importlib.metadata.version(name) for name in ("bitsandbytes", "torch", "numpy")},
    "base": plain(base),
    "x": plain(x),
    "update": {method: plain(y) for method, y in update.items()},
    "values": {method: plain(y) for method, y in values.items()},
    "blockwise8": plain(blockwise8(x, 64)),
    "nf4": [float(level) for level in nf4_levels()],
    "top-k": {"keep": 0.15, "rounds": rounds},
}
lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in reference.items())
Path(__file__).with_name("reference.json").write_text("{\n" + lines + "\n}\n")
