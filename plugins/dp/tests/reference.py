"""Writes reference.json, what the tests compare with: python3 reference.py (needs mpmath).

Epsilons are computed with 50 digits from the published sums and, for some orders, by integrating the definition of the
Rényi divergence.
"""

import json
import pathlib

import mpmath as mp

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


if __name__ == "__main__":
    reference = {"accounts": accounts(), "divergences": divergences()}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in reference.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    pathlib.Path(__file__).with_name("reference.json").write_text(text)
