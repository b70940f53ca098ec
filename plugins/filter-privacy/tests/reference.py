"""Writes reference.json, what the tests compare with: python3 reference.py (needs numpy 2).

Updates are changed by NumPy, from recorded noise where there is some.
"""

import json
import pathlib

import numpy as np


def update(rng, scale):
    """Two tensors of f32 with their global values."""
    shapes = {"a": (40,), "b": (8, 5)}
    base = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    sent = {name: (x + scale * rng.normal(size=x.shape)).astype(np.float32) for name, x in base.items()}
    return base, sent


def lists(tensors):
    return {name: tensor.astype(float).ravel().tolist() for name, tensor in tensors.items()}


def difference(base, sent):
    return {name: sent[name].astype(np.float64) - base[name].astype(np.float64) for name in base}


def added(base, changed):
    return {name: (base[name].astype(np.float64) + changed[name]).astype(np.float32) for name in base}


def clipping(rng):
    base, sent = update(rng, 0.3)
    change = difference(base, sent)
    norm = np.linalg.norm(np.concatenate([x.ravel() for x in change.values()]))
    clip = 0.75
    clipped = added(base, {name: x * min(1.0, clip / norm) for name, x in change.items()})
    return {"base": lists(base), "sent": lists(sent), "clip": clip, "norm": float(norm), "clipped": lists(clipped)}


def percentiles(rng):
    cases = []
    for percentile, gamma in [(0.0, 0.2), (10.0, 1e9), (37.5, 0.2), (90.0, 0.3), (100.0, 1e9)]:
        base, sent = update(rng, 0.3)
        change = difference(base, sent)
        cutoff = np.percentile(np.concatenate([np.abs(x).ravel() for x in change.values()]), percentile)
        kept = {name: np.where(np.abs(x) >= cutoff, np.clip(x, -gamma, gamma), 0.0) for name, x in change.items()}
        case = {"percentile": percentile, "gamma": gamma, "base": lists(base), "sent": lists(sent)}
        cases.append({**case, "cutoff": float(cutoff), "changed": lists(added(base, kept))})
    return cases


def sparse_vectors(rng, epsilon_of):
    cases = []
    for fraction, replace, tau in [(0.1, True, 1e-3), (0.1, False, 1e-3), (1.0, False, 0.0), (0.013, True, 0.01)]:
        keys = {"fraction": fraction, "epsilon": 0.4, "noise-var": 1.5, "gamma": 0.01, "tau": tau, "replace": replace, "epsilon-of": epsilon_of}
        values = rng.normal(size=150) * 0.02
        laplace, below = [], []

        def noise(scale, size):
            drawn = rng.laplace(size=size)
            laplace.extend(drawn.tolist())
            return drawn * scale

        gamma, eps = keys["gamma"], keys["epsilon"]
        n = int(min(np.ceil(values.size * fraction), values.size))
        ratio = (2 * n) ** (2 / 3)
        if epsilon_of == "threshold":
            threshold_scale, scale, selection = 2 * gamma / eps, 4 * gamma * n / (eps * ratio), eps + eps * ratio
        else:
            # As NVFlare 2.9.0: eps is split in the proportion 1 : ratio, and a query's sensitivity is gamma.
            eps_threshold = eps / (1 + ratio)
            threshold_scale, scale, selection = gamma / eps_threshold, 2 * gamma * n / (eps - eps_threshold), eps
        threshold = tau + noise(threshold_scale, 1)[0]
        magnitude = np.minimum(np.abs(values), gamma)
        rest, accepted, passes = np.arange(values.size), np.array([], dtype=int), 0
        while accepted.size < n:
            above = magnitude[rest] + noise(scale, rest.size) >= threshold
            accepted, rest, passes = np.concatenate([accepted, rest[above]]), rest[~above], passes + 1
        if replace:
            places = rng.integers(accepted.size, size=n)
            below.extend(places.tolist())
            chosen = accepted[places]
        else:
            pool = accepted.tolist()
            for i in range(n):
                j = int(rng.integers(len(pool) - i))
                below.append(j)
                pool[i], pool[i + j] = pool[i + j], pool[i]
            chosen = np.array(pool[:n])
        chosen = np.unique(chosen)
        shared = np.zeros_like(values)
        shared[chosen] = np.clip(np.clip(values[chosen], -gamma, gamma) + noise(2 * gamma / 1.5, chosen.size), -gamma, gamma)
        textbook = selection + n * 1.5
        cases.append({
            "keys": keys, "values": values.tolist(), "laplace": laplace, "below": below, "passes": passes,
            "shared": shared.tolist(), "textbook": textbook,
        })  # fmt: skip
    return cases


if __name__ == "__main__":
    rng = np.random.default_rng(2024)
    reference = {
        "clipping": clipping(rng),
        "percentiles": percentiles(rng),
        "sparse-vectors": sparse_vectors(rng, "threshold"),
        "sparse-vectors-selection": sparse_vectors(rng, "selection"),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in reference.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    pathlib.Path(__file__).with_name("reference.json").write_text(text)
