"""Writes reference.json, what reference.rs compares with, and ../../model-amplify/src/drift/reference.json, what
the client's side compares with: NVFlare's SCAFFOLD, run for several rounds on losses that are quadratic.

    pip install nvflare==2.9.0 torch numpy
    python3 reference.py

Client k has the loss `1/2 sum a_k (w - d_k)^2`, and takes plain gradient steps. NVFlare's helper corrects them; NVFlare's
controller averages.
"""

import copy
import importlib.metadata
import json
import logging
from pathlib import Path

import numpy as np
import torch
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_constant import AlgorithmConstants
from nvflare.app_common.workflows.scaffold import _add_control_delta, scaffold_aggregate_fn
from nvflare.app_opt.pt.fedproxloss import PTFedProxLoss
from nvflare.app_opt.pt.scaffold import PTScaffoldHelper

logging.disable(logging.CRITICAL)
HERE = Path(__file__).parent
ROUNDS, RATE = 4, 0.1
A = np.array([[1.0, 0.5, 2.0], [3.0, 1.0, 0.25], [0.5, 4.0, 1.5]])
D = np.array([[-1.0, 0.5, 2.0], [1.0, -2.0, 0.0], [0.25, 1.0, -1.0]])
START = np.array([0.5, -0.5, 1.0])


class Model(torch.nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(np.asarray(w), dtype=torch.float32))


def loss(model, k):
    a, d = (torch.tensor(x[k], dtype=torch.float32) for x in (A, D))
    return 0.5 * (a * (model.w - d) ** 2).sum()


def plain(tensor):
    return [float(x) for x in np.asarray(tensor.detach() if isinstance(tensor, torch.Tensor) else tensor)]


class Client:
    """What NVFlare's examples do with its helper."""

    def __init__(self, k, optimizer):
        self.k, self.model, self.helper = k, Model(START), PTScaffoldHelper()
        self.helper.init(self.model)
        self.optimizer = optimizer(self.model.parameters())

    def train(self, x, c, steps):
        self.helper.load_global_controls({"w": c})
        with torch.no_grad():
            self.model.w.copy_(torch.tensor(x))
        received = copy.deepcopy(self.model)
        c_global, c_local = self.helper.get_params()
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss(self.model, self.k).backward()
            self.optimizer.step()
            self.helper.model_update(self.model, RATE, c_global, c_local)
        self.helper.terms_update(self.model, RATE, c_global, c_local, received)
        return self.model.w.detach().numpy().copy(), self.helper.get_delta_controls()["w"]


def federated(steps, cohorts, optimizer=lambda p: torch.optim.SGD(p, lr=RATE)):
    """Rounds of these cohorts; of each the global model and control variate after it, and what its clients sent."""
    clients = [Client(k, optimizer) for k in range(len(A))]
    x, c, history = START.astype(np.float32), np.zeros(3, np.float32), []
    for t, cohort in enumerate(cohorts):
        sent = [(k, *clients[k].train(x, c, steps[k])) for k in cohort]
        results = [
            FLModel(
                params_type=ParamsType.FULL,
                params={"w": y},
                current_round=t,
                meta={
                    AlgorithmConstants.SCAFFOLD_CTRL_DIFF: {"w": change},
                    FLMetaKey.NUM_STEPS_CURRENT_ROUND: steps[k],
                    "client_name": f"c{k}",
                },
            )
            for k, y, change in sent
        ]
        merged = scaffold_aggregate_fn(results)
        x = np.asarray(merged.params["w"], np.float32)
        c = _add_control_delta(c, np.asarray(merged.meta[AlgorithmConstants.SCAFFOLD_CTRL_DIFF]["w"], np.float32))
        history.append({
            "sent": [{"client": k, "w": plain(y), "change": plain(change)} for k, y, change in sent],
            "w": plain(x),
            "control": plain(c.copy()),
        })
    return history


def proximal(mu):
    """The gradient of NVFlare's FedProx loss at two points."""
    here, there = Model(D[0]), Model(START)
    PTFedProxLoss(mu)(here, there).backward()
    return {"mu": mu, "w": plain(here.w), "received": plain(there.w), "gradient": plain(here.w.grad)}


def main():
    versions = {name: importlib.metadata.version(name) for name in ("nvflare", "torch")}
    everyone = [range(3)] * ROUNDS
    equal = federated([5, 5, 5], everyone)
    problem = {"rate": RATE, "a": A.tolist(), "d": D.tolist(), "start": START.tolist()}
    write = lambda path, value: path.write_text(json.dumps(value, separators=(",", ":")) + "\n")
    write(HERE / "reference.json", {
        **versions,
        "start": START.tolist(),
        "clients": len(A),
        "equal": {"steps": [5, 5, 5], "rounds": equal},
        "steps": {"steps": [2, 5, 9], "rounds": federated([2, 5, 9], everyone)},
        "partial": {"steps": [5, 5, 5], "rounds": federated([5, 5, 5], [[0, 1], [1, 2], [0, 2], [1, 2]])},
    })
    adamw = federated([5, 5, 5], everyone, lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.0))
    write(HERE / "../../model-amplify/src/drift/reference.json", {
        **versions, **problem, "steps": 5, "sgd": equal, "adamw": adamw, "proximal": [proximal(0.1), proximal(2.0)],
    })


main()
