"""Writes reference.json: each robust method in NumPy, for tests/robust.rs.

    python3 reference.py > reference.json

Written from the papers' formulas with whole vectors in float64. The geometric median is found in another way than the
plugin's: by 20,000 iterations, and then by Newton's method on the sum of distances, whose gradient must vanish.
"""

import json

import numpy as np

CLIENTS, SHAPES = 8, {"w": (5, 3), "b": (4,)}


def krum_order(x, f):
    n = len(x)
    d = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)
    scores = [np.sort(np.delete(d[i], i))[: n - f - 2].sum() for i in range(n)]
    return np.argsort(scores, kind="stable").tolist(), scores


def weiszfeld(x, iterations, nu):
    z = np.median(x, axis=0)
    for _ in range(iterations):
        w = 1 / np.maximum(nu, np.linalg.norm(x - z, axis=1))
        z = (w[:, None] * x).sum(0) / w.sum()
    return z


def geometric_median(x):
    z = weiszfeld(x, 20_000, 1e-12)
    for _ in range(5):
        r = z - x
        d = np.linalg.norm(r, axis=1)
        u = r / d[:, None]
        hessian = sum((np.eye(len(z)) - np.outer(a, a)) / b for a, b in zip(u, d))
        z = z - np.linalg.solve(hessian, u.sum(0))
    assert np.abs(((z - x) / np.linalg.norm(z - x, axis=1)[:, None]).sum(0)).max() < 1e-12
    return z


def main():
    rng = np.random.default_rng(11)
    clients = []
    for k in range(CLIENTS):
        scale = 6.0 if k in (2, 5) else 1.0
        clients.append({n: (scale * rng.standard_normal(s)).astype(np.float32) for n, s in SHAPES.items()})
    x = np.array([np.concatenate([c["w"].ravel(), c["b"]]).astype(np.float64) for c in clients])
    ordered = np.sort(x, axis=0)
    krum, scores = krum_order(x, 2)
    assert min(np.diff(np.sort(scores))) > 1e-3  # no tie
    split = lambda v: {"w": v[:15].tolist(), "b": v[15:].tolist()}
    cases = [
        ({"method": "median"}, np.median(x, axis=0)),
        ({"method": "trimmed-mean", "trim": 0.13}, ordered[1:-1].mean(0)),
        ({"method": "trimmed-mean", "trim": 0.25}, ordered[2:-2].mean(0)),
        ({"method": "trimmed-mean", "trim": 0.49}, ordered[3:-3].mean(0)),
        ({"method": "krum", "byzantine": 2}, x[krum[0]]),
        ({"method": "krum", "byzantine": 1}, x[krum_order(x, 1)[0][0]]),
        ({"method": "multi-krum", "byzantine": 2, "keep": 3}, x[krum[:3]].mean(0)),
        ({"method": "multi-krum", "byzantine": 2, "keep": 4}, x[krum[:4]].mean(0)),
        ({"method": "geometric-median", "iterations": 1}, weiszfeld(x, 1, 1e-6)),
        ({"method": "geometric-median"}, weiszfeld(x, 10, 1e-6)),
        ({"method": "geometric-median", "iterations": 4, "smoothing": 5.0}, weiszfeld(x, 4, 5.0)),
        ({"method": "geometric-median", "iterations": 300}, geometric_median(x)),
    ]
    flat = lambda c: {n: a.ravel().astype(float).tolist() for n, a in c.items()}
    print(json.dumps({
        "clients": [flat(c) for c in clients],
        "cases": [{"config": c, "global": split(v)} for c, v in cases],
    }, separators=(",", ":")))


main()
