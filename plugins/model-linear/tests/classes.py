"""Writes classes.json: made-up sequences with classes, one step of softmax regression by NumPy's formulas, and what
scikit-learn's LogisticRegression without a penalty predicts.

    pip install numpy scikit-learn
    python classes.py
"""

import json
import pathlib

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss

rng = np.random.default_rng(5)
letters = "ACDE"
texts = ["".join(rng.choice(list(letters), 12)) for _ in range(90)]


def features(text):
    """The share of each letter, times 27 and minus 1; the last feature is that of other characters."""
    counts = np.array([text.count(chr(65 + i)) for i in range(26)] + [0], dtype=float)
    return 27 * counts / counts.sum() - 1


x = np.stack([features(text) for text in texts])
logits = np.stack([0.15 * x[:, 0], 0.15 * x[:, 2], 0.1 * x[:, 3] - 0.3], axis=1) + rng.gumbel(size=(90, 3))
cases = {}
for name, y, weights in [
    ("two", logits[:, :2].argmax(axis=1), None),
    ("three", logits.argmax(axis=1), None),
    ("three, balanced", logits.argmax(axis=1), "balanced"),
]:
    model = LogisticRegression(C=np.inf, class_weight=weights, tol=1e-10, max_iter=100_000).fit(x, y)
    p = model.predict_proba(x)
    # A step on all rows, from zero heads: every class has the same probability.
    k = y.max() + 1
    counts = np.bincount(y)
    c = (len(y) / (k * counts))[y] if weights else np.ones(len(y))
    gradient = (c[:, None] * (1 / k - np.eye(k)[y])).sum(axis=0) / c.sum()
    cases[name] = dict(
        classes=y.tolist(),
        first_loss=float((c * np.log(k)).sum() / c.sum()),
        bias_gradient=gradient.tolist(),
        probabilities=p.tolist(),
        log_loss=log_loss(y, p),
        accuracy=accuracy_score(y, p.argmax(axis=1)),
    )
file = pathlib.Path(__file__).with_name("classes.json")
file.write_text(json.dumps(dict(versions={"numpy": np.__version__, "sklearn": sklearn.__version__}, texts=texts, cases=cases)) + "\n")
