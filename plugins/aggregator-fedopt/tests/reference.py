"""Writes reference.json, what tests/suite/reference.rs compares with: Flower's strategies and NVFlare's FedOpt, run for several
rounds on made-up arrays.

    pip install flwr==1.42.0 nvflare==2.9.0 torch numpy
    python3 reference.py > reference.json

Everything is float64 there, so that only the plugin's own rounding (f32 moments and values for "w", none for "b") is left
to differ. Clients send what they drew around the start, whatever the global model is.
"""

import contextlib
import importlib.metadata
import json
import logging
import sys

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi
from flwr.supercore.task_identity import TaskIdentity
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_opt.pt.fedopt import PTFedOptModelShareableGenerator

logging.disable(logging.CRITICAL)
torch.set_default_dtype(torch.float64)
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a message needs them
ROUNDS, CLIENTS = 6, 3
STEPS, EXAMPLES = [1, 4, 2], [8, 2, 5]
SHAPES = {"w": (2, 3), "b": (4,)}


def flower(strategy, start, rounds):
    """The global models of a strategy, which weighs by examples."""
    x, history = {n: np.asarray(v, np.float64) for n, v in start.items()}, []
    for t, clients in enumerate(rounds, 1):
        arrays = ArrayRecord({n: Array(v) for n, v in x.items()})
        strategy.current_arrays = arrays if isinstance(strategy, FedAvgM) else x  # what `configure_train` keeps
        replies = [
            Message(
                RecordDict({
                    "arrays": ArrayRecord({n: Array(v.astype(np.float64)) for n, v in model.items()}),
                    "metrics": MetricRecord({"num-examples": n}),
                }),
                dst_node_id=0,
                message_type="train",
            )
            for model, n in zip(clients, EXAMPLES)
        ]
        arrays, _ = strategy.aggregate_train(t, replies)
        x = {n: array.numpy() for n, array in arrays.items()}
        history.append(x)
    return history


class Engine:
    """What the generator asks its engine for: to build a component from its path and arguments."""

    def build_component(self, config):
        return getattr(torch.optim, config["path"].rsplit(".", 1)[1])(**config["args"])


def nvflare(optimizer, args, start, rounds, buffer=None):
    """The global models of NVFlare's FedOpt, which weighs by steps. `buffer` names what the model does not train."""
    model = torch.nn.Module()
    for n, v in start.items():
        v = torch.tensor(np.asarray(v, np.float64))
        if n == buffer:
            model.register_buffer(n, v)
        else:
            model.register_parameter(n, torch.nn.Parameter(v))
    generator = PTFedOptModelShareableGenerator({"path": f"torch.optim.{optimizer}", "args": args}, None, model, "cpu")
    ctx = FLContext()
    ctx.get_engine = Engine
    with contextlib.redirect_stdout(sys.stderr):
        generator.handle_event(EventType.START_RUN, ctx)
    x, history = {n: np.asarray(v, np.float64) for n, v in start.items()}, []
    for t, clients in enumerate(rounds):
        helper = WeightedAggregationHelper()
        for k, (client, steps) in enumerate(zip(clients, STEPS)):
            helper.add({n: v.astype(np.float64) - x[n] for n, v in client.items()}, steps, f"c{k}", t)
        ctx.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(x, {}), private=True, sticky=False)
        difference = DXO(DataKind.WEIGHT_DIFF, helper.get_result()).to_shareable()
        learned = generator.shareable_to_learnable(difference, ctx)["weights"]
        x = {n: np.array(v) for n, v in learned.items()}
        history.append(x)
    return history


def main():
    rng = np.random.default_rng(7)
    start = {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    rounds = [
        [
            {n: (x + 0.05 * (r + 1) + 0.2 * rng.standard_normal(x.shape)).astype(np.float32) for n, x in start.items()}
            for _ in range(CLIENTS)
        ]
        for r in range(ROUNDS)
    ]
    flat = lambda model: {n: np.asarray(model[n]).ravel().astype(float).tolist() for n in SHAPES}
    by_flower = lambda config, strategy: {
        "config": {**config, "weight-by": "examples"}, "global": [flat(x) for x in flower(strategy, start, rounds)]
    }
    by_nvflare = lambda config, optimizer, args, buffer=None: {
        "config": {**config, "weight-by": "steps"},
        "global": [flat(x) for x in nvflare(optimizer, args, start, rounds, buffer)],
    }
    momentum = lambda rate, by: {"optimizer": "momentum", "learning-rate": rate, "momentum": by}
    adaptive = lambda kind, rate, tau, **more: {"optimizer": kind, "learning-rate": rate, "tau": tau, **more}
    print(json.dumps({
        "flwr": importlib.metadata.version("flwr"),
        "nvflare": importlib.metadata.version("nvflare"),
        "torch": torch.__version__,
        "shapes": SHAPES,
        "steps": STEPS,
        "examples": EXAMPLES,
        "start": flat(start),
        "rounds": [[flat(c) for c in clients] for clients in rounds],
        # The same rule. Flower's second moments begin at 0 and the plugin's at tau², which such a tau makes the same.
        "flower": [
            by_flower(momentum(1.0, 0.9), FedAvgM(server_learning_rate=1.0, server_momentum=0.9)),
            by_flower(momentum(0.3, 0.5), FedAvgM(server_learning_rate=0.3, server_momentum=0.5)),
            by_flower(adaptive("yogi", 0.01, 1e-9), FedYogi(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-9)),
            by_flower(
                adaptive("yogi", 0.02, 1e-9, beta1=0.5, beta2=0.5), FedYogi(eta=0.02, beta_1=0.5, beta_2=0.5, tau=1e-9)
            ),
            by_flower(
                adaptive("yogi", 0.02, 0.3, **{"bias-correction": True, "beta1": 0.0, "beta2": 0.0}),
                FedYogi(eta=0.02, beta_1=0.0, beta_2=0.0, tau=0.3),
            ),
            by_flower(adaptive("adagrad", 0.1, 1e-9), FedAdagrad(eta=0.1, tau=1e-9)),
        ],
        "nvflare": [
            by_nvflare(momentum(1.0, 0.9), "SGD", {"lr": 1.0, "momentum": 0.9}),
            by_nvflare(momentum(0.3, 0.5), "SGD", {"lr": 0.3, "momentum": 0.5}),
            by_nvflare(
                adaptive("adam", 0.05, 1e-6, **{"bias-correction": True}),
                "Adam",
                {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-6},
            ),
            by_nvflare(
                adaptive("adam", 0.05, 0.1, **{"bias-correction": True, "beta1": 0.5, "beta2": 0.9}),
                "Adam",
                {"lr": 0.05, "betas": (0.5, 0.9), "eps": 0.1},
            ),
            by_nvflare(
                adaptive("adagrad", 0.1, 0.01), "Adagrad", {"lr": 0.1, "eps": 0.01, "initial_accumulator_value": 1e-4}
            ),
        ],
        # Another rule.
        "differences": {
            "flower-adam": by_flower(
                adaptive("adam", 0.01, 1e-3), FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3)
            ),
            "flower-adam-factor": by_flower(
                adaptive("adam", 0.01, 1e-9), FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-9)
            ),
            "flower-yogi": by_flower(
                adaptive("yogi", 0.01, 1e-3), FedYogi(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3)
            ),
            "flower-adagrad": by_flower(adaptive("adagrad", 0.1, 0.1), FedAdagrad(eta=0.1, tau=0.1)),
            "nvflare-adam": by_nvflare(
                adaptive("adam", 0.01, 1e-3), "Adam", {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-3}
            ),
            "nvflare-buffer": by_nvflare(momentum(0.3, 0.5), "SGD", {"lr": 0.3, "momentum": 0.5}, "b"),
        },
    }, separators=(",", ":")))


main()
