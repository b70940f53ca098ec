"""Models, which clients train."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from . import _tensors
from ._component import Component
from ._context import Context
from ._data import Array, Message, Params, State, Table, Task, TaskSpec
from ._errors import TensorError

OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Setup:
    """What a model is made for."""

    #: All tasks of the experiment, in order.
    tasks: tuple[TaskSpec, ...]
    #: The names of the tasks that this object trains. The server's has all.
    held: tuple[str, ...]
    #: The rounds of the run.
    rounds: int
    #: The epochs that a client trains in a round.
    local_epochs: int

    def number(self, task: str) -> int:
        """The place of a task in `tasks`. A head that is named by it belongs to the same task at each client."""
        return [spec.name for spec in self.tasks].index(task)


@dataclass(frozen=True)
class Epoch:
    """Which epoch a call of `train` is, from 0."""

    round: int
    epoch: int


@dataclass(frozen=True)
class Trained:
    """What an epoch did."""

    #: Optimiser steps.
    steps: int
    #: Examples seen.
    examples: int


@dataclass(frozen=True)
class Metric:
    """A number that measures a model."""

    name: str
    value: float
    better: Literal["lower", "higher"]


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on the test rows of a task."""

    loss: float
    #: The higher the better, and without a unit: the best model has the highest.
    score: float
    metrics: Sequence[Metric] = field(default_factory=tuple)


class Model(Component):
    """A model that clients train. It is a constructor, a training step and a prediction:

        class Line(fedplug.Model):
            def __init__(self, config, setup, ctx):
                self.params = {"w": np.zeros(1, "f4")}

            def step(self, task, batch, ctx):
                x, y = batch[task.inputs[0]], batch[task.target]
                error = self.params["w"] * x - y
                self.params["w"] -= np.float32(0.1) * (error * x).mean()
                return (error**2).mean()

            def predict(self, task, rows, ctx):
                return self.params["w"] * rows[task.inputs[0]]

    Its parameters are `params`, arrays or tensors by name, or those of `module`, a module of torch. What is received is
    written into them. A checkpoint keeps them, `steps`, the state of `optimizer` if there is one, and `persistent`.
    """

    #: The parameters by name, unless there is a `module`.
    params: dict[str, Array]
    #: A module of torch, or None.
    module: Any = None
    #: An optimiser of torch, or None.
    optimizer: Any = None
    #: The rows of a training step.
    batch_size: int = 32
    #: The training steps so far.
    steps: int
    #: What the model is made for.
    setup: Setup

    def __init__(self, config: object, setup: Setup, ctx: Context):
        """Makes `params`, or `module` and `optimizer`. There is one object for each client, and one for the server, whose
        parameters are the first global model."""

    def _prepare_model(self, config: Any, setup: Setup) -> None:
        self._prepare(config)
        self.setup, self.steps, self.params = setup, 0, {}

    def parameters(self) -> Mapping[str, Array]:
        """All parameters, by default of `module` or in `params`. They are written in place: see `load`."""
        return self.module.state_dict() if self.module is not None else self.params

    def load(self, params: Mapping[str, Array]) -> None:
        """Writes some of the parameters, whose shapes and types are right."""
        own = self.parameters()
        for name, value in params.items():
            _tensors.write(own[name], value)

    def receive(self, message: Message, ctx: Context) -> tuple[list[str], list[str]]:
        """Loads what a message has of the parameters. Returns the names that it lacks, and those that the model lacks."""
        own = self.parameters()
        known = {name: value for name, value in message.params.items() if name in own}
        for name, value in known.items():
            _tensors.fits(name, value, own[name])
        self.load(known)
        return [name for name in own if name not in known], [name for name in message.params if name not in own]

    def send(self, ctx: Context) -> Message | Mapping[str, Array]:
        """What goes to the server after a round: by default the parameters."""
        return self.parameters()

    def step(self, task: TaskSpec, batch: Table, ctx: Context) -> float | None:
        """A training step on some rows of a task. What it returns is recorded as the loss."""
        raise NotImplementedError

    def train(self, tasks: Sequence[Task], epoch: Epoch, ctx: Context) -> Trained:
        """An epoch over tasks that have rows: by default a `step` for each batch of `batch_size` rows, in an order that the
        seed gives, task by task."""
        rng = np.random.default_rng(ctx.seed)
        batches = [
            (task, order[start:start + self.batch_size])
            for task in tasks
            for order in [rng.permutation(task.train.rows)]
            for start in range(0, len(order), self.batch_size)
        ]
        if self.module is not None:
            self.module.train()
        for done, (task, rows) in enumerate(batches):
            ctx.check()
            loss = self.step(task.spec, task.train.select(rows), ctx)
            if loss is not None:
                tag = "Loss/train" if len(self.setup.held) == 1 else f"Loss/train_{task.name}"
                ctx.scalar(tag, self.steps, float(loss))
            self.steps += 1
            ctx.progress(done + 1, len(batches))
        return Trained(len(batches), sum(task.train.rows for task in tasks))

    def predict(self, task: TaskSpec, rows: Table, ctx: Context) -> Array | Mapping[str, Array]:
        """Predictions for the rows of a table: a number for each; for classes, an array with a row for each and the
        probability of each class in it (see `softmax`); or columns by name, of which `predicted` and `deviation` are the
        number and its uncertainty."""
        raise NotImplementedError

    def evaluate(self, task: Task, ctx: Context) -> Evaluation:
        """How good the model is on `task.test`. A class that does not override it is measured by its predictions, with the
        loss, the score and the metrics of all plugins."""
        raise NotImplementedError

    def export(self, folder: str, ctx: Context) -> Sequence[str]:
        """Writes the model into a folder for other programs. Returns the names of the files."""
        return ()

    def state(self) -> State:
        """What `restore` needs: the parameters, `steps`, the state of `optimizer`, and `persistent`."""
        kept = super().state()
        own = self.parameters()
        state = State(Params(own), {**kept.values, "steps": self.steps, "parameters": list(own)})
        state.tensors.update(kept.tensors)
        if self.optimizer is not None:
            given = self.optimizer.state_dict()
            values: dict[str, Any] = {}
            for place, entries in given["state"].items():
                for name, value in entries.items():
                    if _tensors.is_torch(value):
                        state.tensors[f"{OPTIMIZER}{place}.{name}"] = value
                    else:
                        values[f"{place}.{name}"] = value
            state.values["optimizer"] = {"groups": given["param_groups"], "values": values}
        state.values["tensors"] = list(state.tensors)
        return state

    def restore(self, state: State) -> None:
        """Restores the state of an object of the same class, configuration and setup. After an error nothing has changed."""
        own = self.parameters()
        for name in own:
            if name not in state.tensors:
                raise TensorError(name, "is missing from the checkpoint")
            _tensors.fits(name, state.tensors[name], own[name])
        rest = State(Params({name: value for name, value in state.tensors.items() if name not in own}), dict(state.values))
        rest.values["tensors"] = [name for name in state.values.get("tensors", []) if name not in own]
        known = ("persistent", "torch", "tensors", "steps", "parameters", "optimizer")
        kept = self._restored(rest, known, (OPTIMIZER,))
        if self.optimizer is not None:
            self._restore_optimizer(rest)
        self.load({name: state.tensors[name] for name in own})
        self.persistent, self.steps = kept, state.values["steps"]

    def _restore_optimizer(self, state: State) -> None:
        import torch

        given = state.values["optimizer"]
        entries: dict[int, dict[str, Any]] = {}
        for path, value in given["values"].items():
            place, name = path.split(".", 1)
            entries.setdefault(int(place), {})[name] = value
        for path, value in state.tensors.items():
            if path.startswith(OPTIMIZER):
                place, name = path[len(OPTIMIZER):].split(".", 1)
                value = value if _tensors.is_torch(value) else torch.from_numpy(np.array(value))
                entries.setdefault(int(place), {})[name] = value.clone()
        self.optimizer.load_state_dict({"state": entries, "param_groups": given["groups"]})


def softmax(logits: Array) -> np.ndarray:
    """Probabilities from an array with a row of logits for each row of a table: exp z / Σ exp z."""
    logits = _tensors.plain(logits).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return odds / odds.sum(axis=1, keepdims=True)
