"""Writes `reference.json`: rounds of FedEx-LoRA and FLoRA in NumPy, in double precision.

    python3 tests/reference.py > tests/reference.json      # of 2026-11-26, NumPy 2.2.6
"""
import json

import numpy as np

rng = np.random.default_rng(7)
OUTPUTS, INPUTS, RANK, SCALE, STEPS = 5, 4, 2, 1.5, [1, 2, 5]


def draw(*shape):
    """Numbers that f32 holds exactly."""
    return np.round(rng.normal(size=shape) * 64) / 64


def listed(arrays):
    return {name: array.ravel().tolist() for name, array in arrays.items()}


start = {"weight": draw(OUTPUTS, INPUTS), "a": draw(RANK, INPUTS), "b": draw(OUTPUTS, RANK)}
clients = [{"a": draw(RANK, INPUTS), "b": draw(OUTPUTS, RANK)} for _ in STEPS]
weights = np.array(STEPS) / sum(STEPS)
exact = start["weight"] + SCALE * sum(w * c["b"] @ c["a"] for w, c in zip(weights, clients))
mean_a, mean_b = (sum(w * c[name] for w, c in zip(weights, clients)) for name in "ab")
results = {
    "residual": {"weight": exact - SCALE * mean_b @ mean_a, "a": mean_a, "b": mean_b},
    # Stacked as in the paper: the factors beside each other, whose product is the sum of the products.
    "stack": {"weight": start["weight"] + SCALE * np.hstack([w * c["b"] for w, c in zip(weights, clients)])
              @ np.vstack([c["a"] for c in clients]), "a": start["a"], "b": np.zeros((OUTPUTS, RANK))},
}
print(json.dumps({"sizes": [OUTPUTS, INPUTS, RANK], "scale": SCALE, "steps": STEPS, "start": listed(start),
                  "clients": [listed(c) for c in clients], "exact": exact.ravel().tolist(),
                  "results": {name: listed(of) for name, of in results.items()}}, indent=1))
