"""Writes noise.json, what the tests of the account compare with: python3 noise.py (needs mpmath).

From the papers alone, with 40 digits: Kairouz, Liu and Steinke 2021, Theorem 1 (the inflated norm, tau, and epsilon by
concentrated differential privacy); Canonne, Kamath and Steinke 2020, Proposition 12 (the conversion); Balle and Wang 2018,
Theorem 8 (continuous noise); and by definition, from the probabilities of sums of discrete Gaussians.
"""
import json
import pathlib

import mpmath as mp

mp.mp.dps = 40
mpf = mp.mpf


def tau(clients, variance):
    terms = (mp.exp(-2 * mp.pi**2 * variance * mpf(k) / (k + 1)) for k in range(1, clients))
    return 10 * mp.fsum(terms)


def inflated(norm, values):
    """The square of Delta_2 on the grid, with beta = exp(-1/2)."""
    norm, root = mpf(norm), mp.sqrt(values)
    return int(mp.floor(min((norm + root) ** 2, norm**2 + mpf(values) / 4 + norm + root / 2)))


def minimised(bound):
    """The least value over the orders above 1, by golden section on log(order - 1)."""
    low, high = mpf(-20), mpf(20)
    ratio = (mp.sqrt(5) - 1) / 2
    for _ in range(150):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if bound(a) < bound(b) else (a, high)
    return bound((low + high) / 2)


def renyi(norm, clients, variance, values, delta, rounds):
    scale = norm / mp.sqrt(clients * mpf(variance))
    epsilon = scale + tau(clients, variance) * mp.sqrt(values)

    def bound(x):
        order = 1 + mp.exp(x)
        rho = rounds * order * epsilon**2 / 2
        return rho + mp.log(1 - 1 / order) - mp.log(mpf(delta) * order) / (order - 1)

    return max(mpf(0), minimised(bound))


def continuous(norm, clients, variance, values, delta, rounds):
    """Continuous noise of the sum's variance less 9, with what the sum of discrete ones may differ by."""
    off = tau(clients, variance) * values * rounds
    if clients * variance <= 9:
        return None
    sigma = mp.sqrt(clients * mpf(variance) - 9) / (norm * mp.sqrt(rounds))
    delta = mpf(delta) * mp.exp(-off)
    phi = lambda x: mp.erfc(-x / mp.sqrt(2)) / 2
    spent = lambda e: phi(1 / (2 * sigma) - e * sigma) - mp.exp(e) * phi(-1 / (2 * sigma) - e * sigma)
    low, high = mpf(0), mpf(10000)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high + 2 * off


def account(multiplier, bits, threshold, colluding, values, delta, rounds):
    limit = 2 ** (bits - 1)
    clients = threshold - colluding
    variance = int(mp.ceil((mpf(multiplier) * limit) ** 2 / clients))
    square = inflated(limit, values)
    args = (mp.sqrt(square), clients, variance, values, delta, rounds)
    return {
        "multiplier": multiplier, "bits": bits, "threshold": threshold, "colluding": colluding, "values": values,
        "delta": delta, "rounds": rounds, "variance": variance, "square": square, "tau": float(tau(clients, variance)),
        "renyi": float(renyi(*args)), "continuous": None if (found := continuous(*args)) is None else float(found),
    }


def gaussian(variance, reach):
    weights = [mp.exp(-mpf(x * x) / (2 * variance)) for x in range(-reach, reach + 1)]
    total = mp.fsum(weights)
    return [w / total for w in weights]


def convolved(a, b):
    sums = [mpf(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            sums[i + j] += x * y
    return sums


def definition(norm, clients, variance, delta):
    """One value that moves by `norm`: how far the sum's probabilities are from one discrete Gaussian's, and epsilon."""
    variance = mpf(variance)
    reach = int(mp.ceil(12 * mp.sqrt(variance))) + 2
    p = gaussian(variance, reach)
    for _ in range(clients - 1):
        p = convolved(p, gaussian(variance, reach))
    half = len(p) // 2
    one = gaussian(clients * variance, half)
    near = range(half - int(5 * mp.sqrt(clients * variance)), half + int(5 * mp.sqrt(clients * variance)) + 1)
    apart = max(abs(mp.log(p[k] / one[k])) for k in near)
    moved = lambda k: p[k - norm] if 0 <= k - norm < len(p) else mpf(0)

    def spent(epsilon):
        return mp.fsum(max(mpf(0), p[k] - mp.exp(epsilon) * moved(k)) for k in range(len(p)))

    low, high = mpf(0), mpf(200)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return {
        "norm": norm, "clients": clients, "variance": float(variance), "delta": delta, "apart": float(apart),
        "epsilon": float(high),
    }


accounts = [
    account(*case)
    for case in [
        (1.0, 20, 5, 1, 421, 1e-5, 1),
        (1.0, 20, 5, 1, 421, 1e-5, 20),
        (1.0, 20, 4, 0, 10**6, 1e-5, 50),
        (0.5, 16, 100, 10, 10**8, 1e-6, 10),
        (4.0, 18, 20, 3, 10**5, 1e-6, 300),
        (0.3, 10, 3, 0, 10**4, 1e-3, 2),
        (1.0, 3, 5, 1, 30, 1e-5, 3),
        (0.3, 3, 3, 1, 2, 1e-5, 1),
    ]
]
definitions = [
    definition(*case)
    for case in [(1, 2, 0.5, 1e-5), (1, 3, 0.3, 1e-3), (2, 4, 1, 1e-5), (3, 3, 2, 1e-6), (4, 5, 4, 1e-5), (1, 2, 0.25, 1e-2)]
]
path = pathlib.Path(__file__).with_name("noise.json")
path.write_text(json.dumps({"accounts": accounts, "definitions": definitions}, indent=1) + "\n")
