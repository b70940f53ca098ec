"""Writes reference.json: metrics as scipy and scikit-learn compute them.

    pip install numpy scipy scikit-learn
    python reference.py

A metric is null where it has no value: where scipy or scikit-learn give NaN, or where the module's page says that
ours is undefined and theirs is a convention (their value then stands under "theirs").
"""

import json
import math
import pathlib
import warnings

import numpy as np
import scipy
import sklearn
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics

warnings.simplefilter("ignore")
rng = np.random.default_rng(7)


def f32(values):
    return np.asarray(values, dtype=np.float32)


def number(value):
    return float(value) if math.isfinite(value) else None


def regression(name, predictions, targets, training, undefined=()):
    p, t, s = (f32(x).astype(np.float64) for x in (predictions, targets, training))
    rmse, mae = metrics.root_mean_squared_error(t, p), metrics.mean_absolute_error(t, p)
    enough = len(t) > 1
    found = {
        "RMSE": rmse,
        "Spearman": spearmanr(p, t).statistic if enough else math.nan,
        "Pearson": pearsonr(p, t).statistic if enough else math.nan,
        "R2": metrics.r2_score(t, p) if enough else math.nan,
        "MAE": mae,
        "NRMSE": rmse / np.std(s),
        "NMAE": mae / np.std(s),
    }
    theirs = {key: number(found[key]) for key in undefined}
    found = {key: None if key in undefined else number(value) for key, value in found.items()}
    lists = dict(predictions=p.tolist(), targets=t.tolist(), training=s.tolist())
    return dict(name=name, **lists, metrics=found, theirs=theirs)


def classification(name, probabilities, targets, undefined=(), absent=()):
    """`absent`: classes without rows, which their macro means cannot leave out, so the means are taken here."""
    p, t = f32(probabilities), np.asarray(targets)
    classes = range(p.shape[1])
    chosen = p.argmax(axis=1)
    p64 = p.astype(np.float64)

    def each(metric):
        return np.mean([metric(t == k, p64[:, k]) for k in classes if k not in absent])

    if p.shape[1] == 2:
        auroc = metrics.roc_auc_score(t, p64[:, 1]) if len(set(t)) == 2 else math.nan
        ap = metrics.average_precision_score(t, p64[:, 1])
    elif absent:
        auroc, ap = each(metrics.roc_auc_score), each(metrics.average_precision_score)
    else:
        one_hot = np.eye(p.shape[1])[t]
        # The rows do not add up to exactly 1 in 32 bits, which `multi_class="ovr"` refuses; this is the same mean.
        auroc = metrics.roc_auc_score(one_hot, p64, average="macro")
        ap = metrics.average_precision_score(one_hot, p64, average="macro")
    found = {
        "AUROC": auroc,
        "AP": ap,
        "Balanced_accuracy": metrics.balanced_accuracy_score(t, chosen),
        "Log_loss": metrics.log_loss(t, np.maximum(p64, np.finfo(np.float32).eps), labels=list(classes)),
        "MCC": metrics.matthews_corrcoef(t, chosen),
    }
    theirs = {key: number(found[key]) for key in undefined}
    found = {key: None if key in undefined else number(value) for key, value in found.items()}
    return dict(name=name, probabilities=p.T.tolist(), targets=t.tolist(), metrics=found, theirs=theirs)


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def informed(rows, classes, ties=False, shares=None):
    """Probabilities that know a little about the targets."""
    targets = rng.choice(classes, rows, p=shares)
    p = softmax(rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[targets])
    if ties:
        p = np.round(4 * p) + 1
        p /= p.sum(axis=1, keepdims=True)
    return p, targets


x = rng.normal(size=60)
noisy = 0.7 * x + rng.normal(size=60)
numbers = [
    regression("noise", noisy, x, rng.normal(size=80)),
    regression("ties in both", np.round(noisy), np.round(x, 1), x),
    regression("most targets are equal", noisy[:20], [0] * 18 + [1, 2], x),
    regression("negative correlation, far from 0", -noisy * 100 - 5e4, x * 1e-6, x * 1e-6),
    regression("a large offset", noisy + 1e4, x + 1e4, x + 1e4),
    regression("the right answer", x, x, x),
    regression("two rows", [1, 2], [4, 3], [0, 1]),
    regression("two rows, equal predictions", [1, 1], [4, 3], [0, 1]),
    regression("one row", [1], [4], [0, 1]),
    regression("equal predictions", [0.3] * 5, [1, 2, 3, 4, 9], [0, 1]),
    regression("equal targets", [1, 2, 3, 4, 9], [0.3] * 5, [0, 1], undefined=["R2"]),
    regression("equal targets, met", [0.3] * 5, [0.3] * 5, [0, 1], undefined=["R2"]),
]
classes = [
    classification("two classes", *informed(60, 2)),
    classification("two classes, few positives", *informed(200, 2, shares=[0.95, 0.05])),
    classification("two classes with ties", *informed(60, 2, ties=True)),
    classification("four classes", *informed(90, 4)),
    classification("four classes with ties", *informed(90, 4, ties=True, shares=[0.7, 0.1, 0.1, 0.1])),
    classification("a class without rows", *informed(60, 4, shares=[0.5, 0.3, 0, 0.2]), absent=[2]),
    classification("the right answer", np.eye(3)[[0, 1, 2, 1]], [0, 1, 2, 1]),
    classification("the wrong answer", np.eye(2)[[1, 0, 0]], [0, 1, 1]),
    classification("equal predictions", [[0.25, 0.75]] * 4, [0, 1, 1, 0]),
    classification("one class", [[0.25, 0.75], [0.75, 0.25]], [1, 1], undefined=["AP", "MCC"]),
    classification("one row", [[0.25, 0.75]], [1], undefined=["AP", "MCC"]),
]
versions = {module.__name__: module.__version__ for module in (np, scipy, sklearn)}
file = pathlib.Path(__file__).with_name("reference.json")
file.write_text(json.dumps(dict(versions=versions, numbers=numbers, classes=classes)) + "\n")
