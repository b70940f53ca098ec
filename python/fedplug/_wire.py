"""Messages, tables and states as JSON, with their numbers beside it."""
from __future__ import annotations

from typing import Any

import numpy as np

from . import _tensors
from ._channel import Incoming, Outgoing
from ._data import Message, Params, State, Table, Task, TaskSpec

Json = dict[str, Any]
_NUMBERS = {"f32": "<f4", "i64": "<i8", "f64": "<f8", "bool": "?"}


class Reader:
    """Reads what a call brings."""

    # Texts by their place: they are the same as long as the lease is.
    _texts: dict[tuple[int, ...], tuple[str, ...]] = {}
    _KEPT = 64

    def __init__(self, incoming: Incoming, arrays: str):
        self._incoming = incoming
        self._arrays = arrays

    def params(self, given: list[Any]) -> Params:
        params = Params()
        for name, dtype, shape, place in given:
            buffer, offset, length = self._incoming.piece(place)
            params[name] = _tensors.array(buffer, offset, length, dtype, self._arrays).reshape(shape)
        return params

    def message(self, given: Json) -> Message:
        return Message(self.params(given["params"]), self.params(given["extra"]), given["values"])

    def state(self, given: Json) -> State:
        return State(self.params(given["tensors"]), given["values"])

    def task(self, given: Json) -> Task:
        return Task(spec(given["spec"]), self.table(given["train"]), self.table(given["test"]))

    def table(self, given: Json) -> Table:
        return Table({name: self._column(column) for name, column in given["columns"]}, given["rows"])

    def _raw(self, place: Any, dtype: str) -> np.ndarray:
        buffer, offset, length = self._incoming.piece(place)
        of = np.dtype(dtype)
        return np.frombuffer(buffer, of, length // of.itemsize, offset) if length else np.empty(0, of)

    def _column(self, given: Json) -> Any:
        kind = given["kind"]
        if kind in _NUMBERS:
            return _tensors.as_kind(self._raw(given["values"], _NUMBERS[kind]), self._arrays)
        if kind == "nullable":
            values, present = self._column(given["values"]), self._raw(given["present"], "u1") != 0
            if isinstance(values, tuple):
                return tuple(value if there else None for value, there in zip(values, present))
            values = np.where(present, _tensors.plain(values).astype(np.float64), np.nan)
            return _tensors.as_kind(values, self._arrays)
        if kind == "list":
            ends, items = self._raw(given["ends"], "<i8"), self._column(given["items"])
            return tuple(items[start:end] for start, end in _ranges(ends))
        if kind == "text":
            return self._text(given)
        ends, raw = self._raw(given["ends"], "<i8"), self._raw(given["values"], "u1").tobytes()
        return tuple(raw[start:end] for start, end in _ranges(ends))

    def _text(self, given: Json) -> tuple[str, ...]:
        place = given["values"]
        key = (*given["ends"], *place) if isinstance(place, list) and place[2] else None
        if key in self._texts:
            # The one used last goes last.
            found = self._texts[key] = self._texts.pop(key)
            return found
        ends, raw = self._raw(given["ends"], "<i8"), self._raw(place, "u1").tobytes()
        found = tuple(raw[start:end].decode() for start, end in _ranges(ends))
        if key is not None:
            self._texts[key] = found
            while len(self._texts) > self._KEPT:
                del self._texts[next(iter(self._texts))]
        return found


def _ranges(ends: np.ndarray) -> Any:
    ends = ends.tolist()
    return zip([0, *ends], ends)


def spec(given: Json) -> TaskSpec:
    classes = given["classes"]
    return TaskSpec(given["name"], tuple(given["inputs"]), given["target"], None if classes is None else tuple(classes))


class Writer:
    """Writes an answer."""

    def __init__(self) -> None:
        self.outgoing = Outgoing()

    def params(self, given: Any, like: Params | None = None) -> list[Any]:
        """`like` has the types that numbers are rounded to."""
        found = []
        for name, value in dict(given).items():
            if not hasattr(value, "dtype"):
                value = np.asarray(value)
            want = _tensors.dtype(like[name]) if like is not None and name in like else None
            if want in _tensors.NUMPY and not _tensors.is_torch(value) and value.dtype.kind == "f":
                value = value.astype(_tensors.NUMPY[want], copy=False)
            try:
                dtype = _tensors.dtype(value)
            except TypeError as error:
                from ._errors import TensorError

                raise TensorError(str(name), str(error)) from None
            found.append([str(name), dtype, _tensors.shape(value), self.outgoing.add(_tensors.plain(value))])
        return found

    def message(self, given: Message, like: Params | None = None) -> Json:
        return {"params": self.params(given.params, like), "extra": self.params(given.extra), "values": given.values}

    def state(self, given: State) -> Json:
        return {"tensors": self.params(given.tensors), "values": given.values}

    def table(self, given: Table, floats: tuple[str, ...] = ()) -> Json:
        """`floats` are the columns whose numbers are rounded to f32."""
        return {"rows": given.rows, "columns": [[name, self._column(name, given[name], name in floats)] for name in given]}

    def _column(self, name: str, values: Any, rounded: bool) -> Json:
        if not isinstance(values, tuple):
            numbers = _tensors.plain(values)
            if rounded:
                numbers = numbers.astype(np.float32)
            of = {"f": "f32" if numbers.dtype.itemsize <= 4 else "f64", "b": "bool", "i": "i64", "u": "i64"}[numbers.dtype.kind]
            return {"kind": of, "values": self.outgoing.add(np.ascontiguousarray(numbers, _NUMBERS[of]))}
        present = np.asarray([value is not None for value in values], np.uint8)
        if not present.all():
            empty = next((type(value)() for value in values if value is not None), "")
            filled = self._column(name, tuple(empty if value is None else value for value in values), False)
            return {"kind": "nullable", "present": self.outgoing.add(present), "values": filled}
        if values and not isinstance(values[0], (str, bytes)):
            lists = [np.asarray(value) for value in values]
            ends = np.cumsum([len(value) for value in lists], dtype="<i8")
            return {"kind": "list", "ends": self.outgoing.add(ends), "items": self._column(name, np.concatenate(lists), False)}
        raw = [value.encode() if isinstance(value, str) else value for value in values]
        ends = np.cumsum([len(value) for value in raw], dtype="<i8") if raw else np.empty(0, "<i8")
        joined = np.frombuffer(b"".join(raw), np.uint8)
        kind = "bytes" if values and isinstance(values[0], bytes) else "text"
        return {"kind": kind, "ends": self.outgoing.add(ends), "values": self.outgoing.add(joined)}

    def task(self, given: Task) -> Json:
        floats = () if given.spec.classes is not None else (given.spec.target,)
        return {
            "spec": {"name": given.spec.name, "inputs": list(given.spec.inputs), "target": given.spec.target,
                     "classes": None if given.spec.classes is None else list(given.spec.classes)},
            "train": self.table(given.train, floats),
            "test": self.table(given.test, floats),
        }
