"""Writes baselines.json: made-up sequences with numbers, and what scikit-learn's Ridge, DummyRegressor and DummyClassifier
predict of them.

    pip install numpy scikit-learn
    python baselines.py
"""

import itertools
import json
import pathlib

import numpy as np
import sklearn
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import Ridge

rng = np.random.default_rng(16)
POSITIONS = [14, 9]
texts = [
    "|".join("".join(rng.choice(list("ACDEFW"), rng.integers(size - 4, size + 1))) for size in POSITIONS) for _ in range(70)
]
targets = np.float32([50 + 8 * text.count("W") - 3 * text.count("AC") + rng.normal() for text in texts])
classes = (targets > np.quantile(targets, 0.7)).astype(int)


def kmers(text, k):
    """Counts of words over A to Z and one symbol for every other character."""
    symbols = "".join(c if "A" <= c <= "Z" else "*" for c in text)
    return [symbols[i : i + k] for i in range(len(symbols) - k + 1)]


def counts(k):
    words = sorted(set(itertools.chain.from_iterable(kmers(text, k) for text in texts)))
    return np.array([[kmers(text, k).count(word) for word in words] for text in texts], dtype=float)


def one_hot():
    rows = []
    for text in texts:
        padded = "".join(chain.ljust(size, "-") for chain, size in zip(text.split("|"), POSITIONS))
        rows.append([float(c == letter) for c in padded for letter in "ACDEFW"])
    return np.array(rows)


cases = []
for features, x in [("1", counts(1)), ("2", counts(2)), ("one-hot", one_hot())]:
    for lamda in (1e-3, 0.5):
        model = Ridge(alpha=lamda * len(texts), solver="svd").fit(x, targets.astype(float))
        cases.append({
            "features": features,
            "lambda": lamda,
            "intercept": float(model.intercept_),
            "predictions": model.predict(x).tolist(),
        })
reference = {
    "versions": {"numpy": np.__version__, "sklearn": sklearn.__version__},
    "positions": POSITIONS,
    "texts": texts,
    "targets": targets.tolist(),
    "classes": classes.tolist(),
    "cases": cases,
    "mean": float(DummyRegressor(strategy="mean").fit(np.zeros((70, 1)), targets.astype(float)).predict([[0]])[0]),
    "shares": DummyClassifier(strategy="prior").fit(np.zeros((70, 1)), classes).predict_proba([[0]])[0].tolist(),
}
pathlib.Path(__file__).with_name("baselines.json").write_text(json.dumps(reference) + "\n")
