"""What model-linear predicts, computed with NumPy in float64 from the equations of its page.

    python3 kmers.py > kmers.json
"""
import json
from collections import Counter

import numpy as np

MASK = 2**64 - 1
TEXTS = ["EVQLVESGG|DIQMTQ", "QVQLQQSGAELV", "EVQLVQSGAEVKKPG", "aé-EVQEVQ", "AV", ""]
TARGETS = [1.5, -0.25, 3.0, 0.5, 2.0, -1.0]
HIDDEN, RATE, EPOCHS, SEED = 3, 0.5, 4, 42


def mix(state):
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def of(seed, name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return mix(seed ^ (((value << 32) | (value >> 32)) & MASK))


def at(seed, number):
    return mix((mix(seed) + number) & MASK)


def features(text, k):
    """One row of counts of all 27^k words: 26 letters and a character that stands for all others."""
    letters = [byte - 65 if 65 <= byte <= 90 else 26 for byte in text.encode()]
    words = Counter(tuple(letters[i : i + k]) for i in range(len(letters) - k + 1))
    x = np.zeros((27,) * k)
    for word, count in words.items():
        x[word] = count
    x = x.ravel()
    if k == 1:
        return 27 * x / max(x.sum(), 1) - 1
    return x * np.sqrt(x.size) / np.linalg.norm(x) if words else x


def predictions(k):
    x = np.array([features(text, k) for text in TEXTS])
    y = np.array(TARGETS)
    mean, sd = y.mean(), y.std()
    seed = of(SEED, "trunk.weight")
    size = HIDDEN * x.shape[1]
    trunk = np.array([at(seed, i) / MASK * 2 - 1 for i in range(size)]).reshape(HIDDEN, -1) / np.sqrt(x.shape[1])
    weight, bias = np.zeros(HIDDEN), 0.0
    for _ in range(EPOCHS):
        hidden = x @ trunk.T
        error = hidden @ weight + bias - (y - mean) / sd
        norm = 1 + (hidden**2).sum(1) + (weight**2).sum() * (x**2).sum(1)
        step = RATE * error / norm / len(y)
        trunk, weight, bias = trunk - np.outer(weight, step @ x), weight - step @ hidden, bias - step.sum()
    return (mean + sd * ((x @ trunk.T) @ weight + bias)).tolist()


print(json.dumps({
    "hidden": HIDDEN, "rate": RATE, "epochs": EPOCHS, "seed": SEED, "texts": TEXTS, "targets": TARGETS,
    "predictions": {str(k): predictions(k) for k in (1, 2, 3)},
}, indent=1, ensure_ascii=False))
