"""Writes reference.json: rounds of each server optimiser in NumPy, for tests/fedopt.rs.

    python3 reference.py > reference.json

Everything is computed in float64 from the formulas of Reddi et al. 2021, Algorithm 2, with whole arrays and no rounding
in between, so that only the plugin's own rounding (f32 moments and values for "w", none for "b") is left to differ.
"""

import json

import numpy as np

ROUNDS, CLIENTS = 6, 3
STEPS = np.array([1.0, 4.0, 2.0])
SHAPES = {"w": (2, 3), "b": (4,)}


def updates(rng, start):
    """Each client's model in each round: a drift away from the start, and noise. Rounded to f32, as it is sent."""
    return [
        [
            {n: (x + 0.05 * (r + 1) + 0.2 * rng.standard_normal(x.shape)).astype(np.float32) for n, x in start.items()}
            for _ in range(CLIENTS)
        ]
        for r in range(ROUNDS)
    ]


def run(config, start, rounds):
    kind, rate = config["optimizer"], config["learning-rate"]
    beta1 = config.get("beta1", 0.0 if kind == "adagrad" else 0.9)
    beta2, tau = config.get("beta2", 0.99), config.get("tau", 1e-3)
    corrected = config.get("bias-correction", False)
    x = {n: v.astype(np.float64) for n, v in start.items()}
    m = {n: np.zeros_like(v) for n, v in x.items()}
    v = {n: np.full_like(a, 0.0 if corrected else tau**2) for n, a in x.items()}
    history = []
    for t, clients in enumerate(rounds, 1):
        for n in x:
            mean = np.average([c[n].astype(np.float64) for c in clients], axis=0, weights=STEPS)
            d = mean - x[n]
            if kind == "momentum":
                m[n] = config.get("momentum", 0.9) * m[n] + d
                x[n] = x[n] + rate * m[n]
                continue
            m[n] = beta1 * m[n] + (1 - beta1) * d
            if kind == "adam":
                v[n] = beta2 * v[n] + (1 - beta2) * d**2
            elif kind == "yogi":
                v[n] = v[n] - (1 - beta2) * d**2 * np.sign(v[n] - d**2)
            elif kind == "adagrad":
                v[n] = v[n] + d**2
            mh, vh = (m[n] / (1 - beta1**t), v[n] / (1 - beta2**t)) if corrected else (m[n], v[n])
            x[n] = x[n] + rate * mh / (np.sqrt(vh) + tau)
        history.append({n: a.ravel().tolist() for n, a in x.items()})
    return history


def main():
    rng = np.random.default_rng(7)
    start = {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    rounds = updates(rng, start)
    configs = [
        {"optimizer": "adam", "learning-rate": 0.01},
        {"optimizer": "adam", "learning-rate": 0.05, "beta1": 0.5, "beta2": 0.9, "tau": 0.1},
        {"optimizer": "adam", "learning-rate": 0.05, "bias-correction": True, "tau": 1e-6},
        {"optimizer": "yogi", "learning-rate": 0.01},
        {"optimizer": "yogi", "learning-rate": 0.02, "beta2": 0.5, "tau": 0.3},
        {"optimizer": "yogi", "learning-rate": 0.02, "bias-correction": True},
        {"optimizer": "adagrad", "learning-rate": 0.1},
        {"optimizer": "adagrad", "learning-rate": 0.1, "beta1": 0.9, "tau": 0.01},
        {"optimizer": "momentum", "learning-rate": 1.0},
        {"optimizer": "momentum", "learning-rate": 0.3, "momentum": 0.5},
    ]
    flat = lambda model: {n: a.ravel().astype(float).tolist() for n, a in model.items()}
    print(json.dumps({
        "shapes": SHAPES,
        "steps": STEPS.astype(int).tolist(),
        "start": flat(start),
        "rounds": [[flat(c) for c in clients] for clients in rounds],
        "cases": [{"config": c, "global": run(c, start, rounds)} for c in configs],
    }, indent=None, separators=(",", ":")))


main()
