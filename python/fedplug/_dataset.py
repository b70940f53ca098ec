"""Datasets: the clients of an experiment, and their data."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._component import Component
from ._context import Context
from ._data import Table, Task, TaskSpec


class Dataset(Component):
    """The data of an experiment: what the tasks are, who the clients are, and what each of them has."""

    def __init__(self, config: object, ctx: Context):
        """There is one object in an experiment."""

    def tasks(self, ctx: Context) -> Sequence[TaskSpec]:
        """The tasks."""
        raise NotImplementedError

    def clients(self, ctx: Context) -> Sequence[str]:
        """The names of the clients, in the order of aggregation."""
        raise NotImplementedError

    def load(self, client: str, ctx: Context) -> Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] | Sequence[Task]:
        """What a client has: for each of its tasks the columns to train on and those to evaluate on. It must be the same
        whenever it is asked."""
        raise NotImplementedError

    def files(self, ctx: Context) -> Mapping[str, int]:
        """The files that the data comes from, and how many of its rows are used. A run that is resumed refuses files that
        have changed."""
        return {}

    def read(self, file: str, ctx: Context) -> Mapping[str, Any]:
        """The rows of a file, without targets, for `fedplug predict`."""
        from ._errors import Unsupported

        raise Unsupported("this dataset does not implement `read`, so it cannot read rows to predict")


def loaded(tasks: Sequence[TaskSpec], given: Mapping[str, Any] | Sequence[Task]) -> list[Task]:
    """What `load` returned, as tasks in the experiment's order."""
    if not isinstance(given, Mapping):
        return list(given)
    found = {name: [part if isinstance(part, Table) else Table(part) for part in parts] for name, parts in given.items()}
    for name in found:
        if name not in [spec.name for spec in tasks]:
            from ._errors import DataError

            raise DataError(f"`load` returned the task `{name}`, which `tasks` does not have")
    return [Task(spec, *found[spec.name]) for spec in tasks if spec.name in found]
