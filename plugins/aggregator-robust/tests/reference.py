"""Writes reference.json, what tests/suite/reference.rs compares with: Flower's own strategies, run on made-up arrays.

    pip install flwr==1.42.0 numpy
    python3 reference.py > reference.json

Flower has no geometric median: that one is computed with NumPy, and its limit in another way than the plugin's, by Newton's
method on the sum of distances, whose gradient must vanish.
"""

import importlib.metadata
import json
import logging

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg, Krum, MultiKrum
from flwr.supercore.task_identity import TaskIdentity

logging.disable(logging.CRITICAL)
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a message needs them
ROUNDS, CLIENTS, SHAPES = 3, 8, {"w": (5, 3), "b": (4,)}


def flower(strategy, clients, examples=None):
    """The global model that a strategy makes of the clients' models."""
    examples = examples or [1] * len(clients)
    replies = [
        Message(
            RecordDict({
                "arrays": ArrayRecord({name: Array(np.asarray(x)) for name, x in model.items()}),
                "metrics": MetricRecord({"num-examples": n}),
            }),
            dst_node_id=0,
            message_type="train",
        )
        for model, n in zip(clients, examples)
    ]
    arrays, _ = strategy.aggregate_train(1, replies)
    return {name: array.numpy() for name, array in arrays.items()}


def krum(byzantine):
    return Krum(num_malicious_nodes=byzantine)


def multi_krum(byzantine, keep):
    return MultiKrum(num_malicious_nodes=byzantine, num_nodes_to_select=keep)


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


def by_numpy(fold, clients):
    x = np.array([np.concatenate([c["w"].ravel(), c["b"]]).astype(np.float64) for c in clients])
    point = fold(x)
    return {"w": point[:15], "b": point[15:]}


def flat(model):
    return {name: np.asarray(x).ravel().astype(float).tolist() for name, x in model.items()}


def scalars(values, dtype=np.float64):
    return [{"w": np.array([x], dtype)} for x in values]


def main():
    rng = np.random.default_rng(11)
    outlier = {2: 6.0, 5: 6.0}
    rounds = [
        [
            {n: (outlier.get(k, 1.0) * rng.standard_normal(s)).astype(np.float32).astype(t)
             for (n, s), t in zip(SHAPES.items(), (np.float32, np.float64))}
            for k in range(CLIENTS)
        ]
        for _ in range(ROUNDS)
    ]
    strategies = [
        ({"method": "median"}, FedMedian),
        ({"method": "trimmed-mean", "trim": 0.13}, lambda: FedTrimmedAvg(beta=0.13)),
        ({"method": "trimmed-mean", "trim": 0.25}, lambda: FedTrimmedAvg(beta=0.25)),
        ({"method": "trimmed-mean", "trim": 0.49}, lambda: FedTrimmedAvg(beta=0.49)),
        ({"method": "krum", "byzantine": 1}, lambda: krum(1)),
        ({"method": "krum", "byzantine": 2}, lambda: krum(2)),
        ({"method": "multi-krum", "byzantine": 2, "keep": 3}, lambda: multi_krum(2, 3)),
        ({"method": "multi-krum", "byzantine": 2, "keep": 4}, lambda: multi_krum(2, 4)),
    ]
    medians = [
        ({"method": "geometric-median", "iterations": 1}, lambda x: weiszfeld(x, 1, 1e-6)),
        ({"method": "geometric-median"}, lambda x: weiszfeld(x, 10, 1e-6)),
        ({"method": "geometric-median", "iterations": 4, "smoothing": 5.0}, lambda x: weiszfeld(x, 4, 5.0)),
        ({"method": "geometric-median", "iterations": 300}, geometric_median),
    ]
    # Where the rules differ: one number a client, and what Flower makes of them.
    examples = [1, 1, 5, 1, 1]
    near = [0.0, 1.0, 2.0, 3.0, 40.0]
    hundred = [float(x) for x in rng.standard_normal(100)]
    offset = [8192.0 + x for x in (1.5, 0.5, 0.0, 0.001, 0.002)]
    four = [0.0, 0.3, 5.0, 5.1]
    differences = {
        "weights": (near, examples, flower(multi_krum(1, 2), scalars(near), examples)),
        "rounding": (hundred, None, flower(FedTrimmedAvg(beta=0.29), scalars(hundred))),
        "cancellation": (offset, None, flower(krum(1), scalars(offset, np.float32))),
        "few": (four, None, flower(krum(1), scalars(four))),
        "none": (near, None, flower(FedTrimmedAvg(beta=0.1), scalars(near))),
    }
    print(json.dumps({
        "flwr": importlib.metadata.version("flwr"),
        "numpy": np.__version__,
        "rounds": [[flat(c) for c in clients] for clients in rounds],
        "flower": [
            {"config": c, "global": [flat(flower(make(), clients)) for clients in rounds]} for c, make in strategies
        ],
        "by-numpy": [
            {"config": c, "global": [flat(by_numpy(fold, clients)) for clients in rounds]} for c, fold in medians
        ],
        "differences": {
            name: {"clients": values, "examples": n, "global": float(model["w"][0])}
            for name, (values, n, model) in differences.items()
        },
    }, separators=(",", ":")))


main()
