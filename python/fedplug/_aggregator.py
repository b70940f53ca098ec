"""Aggregators: how the clients' updates become the next global model."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ._component import Component
from ._context import Context
from ._data import Array, Message, Params
from ._errors import FedplugError, TensorError
from . import _tensors


@dataclass
class Update:
    """What a client sends at the end of a round."""

    client: str
    message: Message
    #: Optimiser steps in the round.
    steps: int
    #: Examples seen in the round.
    examples: int

    @property
    def params(self) -> Params:
        """The client's parameters: not a difference."""
        return self.message.params


@dataclass
class Cohort:
    """The clients of a round."""

    clients: list[str]
    #: The number of clients in the experiment.
    population: int


@dataclass
class Query:
    """A question to a client."""

    client: str
    message: Message


@dataclass
class Reply:
    """A client's answer."""

    client: str
    message: Message


class Aggregator(Component):
    """Combines the updates of a round. A method is its `aggregate`:

        class Median(fedplug.Aggregator):
            def aggregate(self, updates, ctx):
                return {name: np.median(sent, axis=0) for name, sent in self.by_name(updates)}

    A method that need not hold all updates at once overrides `add` and `finish` instead.
    """

    #: The global model at the start of the round.
    current: Message
    #: The clients of the round.
    cohort: Cohort
    #: The updates so far of clients that trained.
    updates: list[Update]

    def __init__(self, config: object, ctx: Context):
        """Before the first round."""

    def _begin(self, current: Message, cohort: Cohort) -> None:
        self.current, self.cohort, self.updates = current, cohort, []

    def begin(self, ctx: Context) -> None:
        """A round begins: `current` and `cohort` are set, and `updates` is empty."""

    def ask(self, stage: Literal["opening", "closing"], replies: list[Reply], ctx: Context) -> Sequence[Query]:
        """Questions to the clients, before they train or after the last update. By default there are none."""
        return ()

    def add(self, update: Update, ctx: Context) -> None:
        """Adds an update: by default to `updates`, if the client trained."""
        for name in update.message.extra:
            raise TensorError(name, f"client `{update.client}` sends it besides its parameters, but this aggregator does not use it")
        for name, value in update.params.items():
            if name in self.current.params:
                _tensors.fits(name, value, self.current.params[name])
        if update.steps == 0:
            ctx.debug(f"client `{update.client}` did not train")
        else:
            self.updates.append(update)

    def aggregate(self, updates: list[Update], ctx: Context) -> Mapping[str, Array] | Message:
        """The next global model, from at least one update. A parameter that it lacks keeps its value. Numbers are rounded
        to the type of the updates."""
        raise NotImplementedError

    def finish(self, ctx: Context) -> Mapping[str, Array] | Message:
        """The end of a round: by default `aggregate` of all updates."""
        if not self.updates:
            raise FedplugError("no client trained in this round")
        updates, self.updates = self.updates, []
        return self.aggregate(updates, ctx)

    @staticmethod
    def by_name(updates: list[Update]) -> Iterator[tuple[str, list[Array]]]:
        """Each parameter with the values of the clients that sent it."""
        names: dict[str, Any] = {name: None for update in updates for name in update.params}
        for name in names:
            yield name, [update.params[name] for update in updates if name in update.params]
