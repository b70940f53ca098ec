"""What crosses between the program and a plugin: tensors by name, messages, tables."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _tensors
from ._errors import DataError, TensorError

Array = Any  # A NumPy array, or a tensor of torch.


class Params(dict):  # type: ignore[type-arg]
    """Tensors by name, in order: a dict whose `matching` says what is wrong with another."""

    def matching(self, name: str, like: Array) -> Array:
        """The tensor of this name, if it has the shape and the type of `like`. Raises TensorError otherwise."""
        found = self.get(name)
        if found is None:
            raise TensorError(name, "is missing")
        _tensors.fits(name, like, found)
        return found


@dataclass
class Message:
    """A message between server and clients."""

    #: The model's parameters.
    params: Params = field(default_factory=Params)
    #: A method's other tensors, such as control variates.
    extra: Params = field(default_factory=Params)
    #: A method's small values, as JSON has them.
    values: dict[str, Any] = field(default_factory=dict)


def message(of: Message | Mapping[str, Array]) -> Message:
    """A message. A plain dict is one with these parameters."""
    return of if isinstance(of, Message) else Message(Params(of))


@dataclass
class State:
    """What a checkpoint keeps of a component."""

    tensors: Params = field(default_factory=Params)
    values: dict[str, Any] = field(default_factory=dict)


class Table(Mapping[str, Any]):
    """Columns of equal length by name. `table["x"]` is a NumPy array of numbers (a tensor, if the class says
    `arrays = "torch"`), a tuple of texts, of bytes or of arrays. A number that a row lacks is NaN, a text None.

    A dict of columns makes one: arrays, lists, or columns of pandas."""

    def __init__(self, columns: Mapping[str, Any] = {}, rows: int | None = None):
        self._columns = {name: column(name, values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self._columns.items()}
        self.rows = next(iter(lengths.values()), 0) if rows is None else rows
        for name, length in lengths.items():
            if length != self.rows:
                raise DataError(f"column `{name}` has {length} rows, but the others have {self.rows}")

    def __getitem__(self, name: str) -> Any:
        try:
            return self._columns[name]
        except KeyError:
            known = ", ".join(f"`{name}`" for name in self._columns)
            raise DataError(f"the table has no column `{name}`", hint=f"its columns: {known}") from None

    def get(self, name: str, default: Any = None) -> Any:
        """The column of this name, or `default`."""
        return self._columns.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """The number of columns; `rows` is that of the rows."""
        return len(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __repr__(self) -> str:
        return f"Table({list(self._columns)}, rows={self.rows})"

    def select(self, rows: Sequence[int] | np.ndarray) -> Table:
        """The rows with these numbers, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        return Table({name: _selected(values, rows) for name, values in self._columns.items()}, len(rows))


def _selected(values: Any, rows: np.ndarray) -> Any:
    if isinstance(values, tuple):
        return tuple(values[row] for row in rows)
    return values[_tensors.as_kind(rows, "torch")] if _tensors.is_torch(values) else values[rows]


def column(name: str, values: Any) -> Any:
    """A column as a table holds it."""
    if isinstance(values, tuple) or _tensors.is_torch(values):
        return values
    if isinstance(values, np.ndarray) and values.dtype != object and values.dtype.kind not in "US" and values.ndim == 1:
        return values
    # A column of pandas, or a list.
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    kinds = {type(value) for value in values if value is not None and value == value}
    if kinds <= {str} or kinds <= {bytes}:
        return tuple(None if value is None or value != value else value for value in values)
    if all(issubclass(kind, (bool, int, float, np.number, np.bool_)) for kind in kinds):
        return np.asarray([np.nan if value is None else value for value in values])
    if all(issubclass(kind, (list, tuple, np.ndarray)) for kind in kinds):
        return tuple(np.asarray(value) for value in values)
    raise DataError(f"column `{name}` holds {', '.join(sorted(kind.__name__ for kind in kinds))}, which is no kind of column")


@dataclass(frozen=True)
class TaskSpec:
    """A task: the columns that a model reads, and the one that it learns."""

    #: Its name, unique in the experiment.
    name: str
    #: The columns that a model reads.
    inputs: tuple[str, ...]
    #: The column that it predicts.
    target: str
    #: The names of the classes, if the target is one of these. It is a number otherwise.
    classes: tuple[str, ...] | None = None

    def class_indices(self, table: Table) -> np.ndarray:
        """The class of each row of a table, as an index of `classes`."""
        if self.classes is None:
            raise DataError(f"the targets of task `{self.name}` are numbers, not classes")
        places = {name: place for place, name in enumerate(self.classes)}
        found = [places.get(value, -1) if isinstance(value, str) else int(value) for value in table[self.target]]
        for row, place in enumerate(found, 1):
            if not 0 <= place < len(places):
                hint = f"its classes: {', '.join(self.classes)}"
                raise DataError(f"column `{self.target}`: row {row} has none of the classes of task `{self.name}`", hint=hint)
        return np.asarray(found, np.int64)


@dataclass
class Task:
    """A task at a client, with the rows to train on and those to evaluate on. Either table may be empty."""

    spec: TaskSpec
    train: Table
    test: Table

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name
