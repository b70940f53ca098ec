"""Writes reference.json, what the tests compare with: python3 reference.py (needs numpy 2 and mpmath).

Epsilons are computed with 50 digits from the published sums and, for some orders, by integrating the definition of the
Rényi divergence. Updates are changed by NumPy, from recorded noise where there is some.
"""

import json
import pathlib

import mpmath as mp
import numpy as np

mp.mp.dps = 50
mpf = mp.mpf


def sampled(order, sigma, rate):
    """Mironov, Talwar and Zhang 2019: the binomial sum as it stands in the paper."""
    sigma, rate = mpf(sigma), mpf(rate)
    terms = (
        mp.binomial(order, k) * (1 - rate) ** (order - k) * rate**k * mp.exp((k * k - k) / (2 * sigma**2))
        for k in range(order + 1)
    )
    return mp.log(mp.fsum(terms)) / (order - 1)


def integrated(order, sigma, rate):
    """The same by its definition, ln E[(mixture / N(0, sigma^2))^order] / (order - 1) under N(0, sigma^2)."""
    sigma, rate = mpf(sigma), mpf(rate)
    likelihood = lambda x: 1 - rate + rate * mp.exp((2 * x - 1) / (2 * sigma**2))
    inner = lambda x: mp.npdf(x, 0, sigma) * likelihood(x) ** order
    points = [-20 * sigma, -5 * sigma, 0, order / 2, order, order + 5 * sigma, order + 20 * sigma]
    return mp.log(mp.quad(inner, points)) / (order - 1)


def converted(order, rdp, delta):
    """Canonne, Kamath and Steinke 2020, Proposition 12."""
    return rdp + mp.log((order - 1) / order) - (mp.log(delta) + mp.log(order)) / (order - 1)


def epsilon(sigma, rate, delta, rounds):
    integers = [mpf(order) for order in range(2, 513)]
    if rate < 1:
        curve = [(order, sampled(int(order), sigma, rate)) for order in integers]
    else:
        between = [1 + mpf(2) ** (mpf(k) / 8) for k in range(-32, 73)]
        curve = [(order, order / (2 * mpf(sigma) ** 2)) for order in integers + between]
    return max(mpf(0), min(converted(order, rounds * rdp, mpf(delta)) for order, rdp in curve))


def exact(sigma, delta, rounds):
    """Balle and Wang 2018, Theorem 8, solved for epsilon: `rounds` times a Gaussian is one of sigma / sqrt(rounds)."""
    sigma = mpf(sigma) / mp.sqrt(rounds)
    phi = lambda x: mp.erfc(-x / mp.sqrt(2)) / 2
    loss = lambda eps: phi(1 / (2 * sigma) - eps * sigma) - mp.exp(eps) * phi(-1 / (2 * sigma) - eps * sigma)
    low, high = mpf(0), mpf(20000)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) > delta else (low, middle)
    return high


def accounts():
    cases = []
    for sigma in [0.3, 1.0, 2.5, 20.0]:
        for rounds in [1, 20, 600]:
            for delta in [1e-3, 1e-5, 1e-9]:
                values = {"epsilon": float(epsilon(sigma, 1, delta, rounds)), "exact": float(exact(sigma, delta, rounds))}
                cases.append({"sigma": sigma, "rate": 1.0, "delta": delta, "rounds": rounds, **values})
    for sigma, rate, delta, rounds in [
        (1.1, 256 / 60000, 1e-5, 14062),
        (0.7, 0.5, 1e-5, 20),
        (4.0, 0.01, 1e-6, 1000),
        (0.3, 1e-4, 1e-5, 600),
        (1.0, 0.999, 1e-3, 3),
    ]:
        case = {"sigma": sigma, "rate": rate, "delta": delta, "rounds": rounds}
        cases.append({**case, "epsilon": float(epsilon(sigma, rate, delta, rounds))})
    return cases


def divergences():
    cases = [(2, 1.0, 0.1), (3, 0.7, 0.5), (8, 1.1, 256 / 60000), (32, 2.5, 0.01), (64, 20.0, 1e-3), (5, 0.5, 1e-6)]
    return [{"order": o, "sigma": s, "rate": q, "rdp": float(integrated(o, s, q))} for o, s, q in cases]


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
        "accounts": accounts(),
        "divergences": divergences(),
        "clipping": clipping(rng),
        "percentiles": percentiles(rng),
        "sparse-vectors": sparse_vectors(rng, "threshold"),
        "sparse-vectors-selection": sparse_vectors(rng, "selection"),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in reference.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    pathlib.Path(__file__).with_name("reference.json").write_text(text)
