"""The calls of the four kinds: from JSON to a method and back."""
from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _tensors
from ._aggregator import Cohort, Reply, Update
from ._channel import Outgoing
from ._context import Context
from ._data import Message, Params, Table, TaskSpec, message
from ._dataset import loaded
from ._errors import DataError, FedplugError
from ._model import Epoch, Evaluation, Setup, Trained
from ._wire import Reader, Writer, spec

Json = dict[str, Any]
VALIDATION = "fedplug.validation"


def new(cls: type, kind: str, config: Any, args: Json, ctx: Context) -> Any:
    found: Any = object.__new__(cls)
    if kind == "model":
        given = args["setup"]
        setup = Setup(tuple(map(spec, given["tasks"])), tuple(given["held"]), given["rounds"], given["local_epochs"])
        found._prepare_model(config, setup)
        found.__init__(config, setup, ctx)
        if found.module is not None and not hasattr(found.module, "state_dict"):
            raise FedplugError("`module` is no module of torch")
    else:
        found._prepare(config)
        found.__init__(config, ctx)
    return found


def overridden(cls: type, kind: str) -> list[str]:
    """The optional methods that the class has."""
    return [name for name in ("evaluate",) if kind == "model" and getattr(cls, name) is not getattr(_base(cls), name)]


def _base(cls: type) -> type:
    return next(base for base in cls.__mro__ if base.__module__ == "fedplug._model")


def call(target: Any, name: str, args: Json, incoming: Any, ctx: Context) -> tuple[Outgoing, Any]:
    """Makes a call. Returns its answer and the memory of it."""
    reader, writer = Reader(incoming, type(target).arrays), Writer()
    value = _CALLS[name](target, args, ctx, reader, writer)
    return writer.outgoing, value


def _parameters(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    return writer.params(target.parameters())


def _receive(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    missing, unexpected = target.receive(reader.message(args["message"]), ctx)
    return {"missing": list(missing), "unexpected": list(unexpected)}


def _send(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    return writer.message(message(target.send(ctx)))


def _train(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    tasks = [reader.task(task) for task in args["tasks"]]
    tasks = [task for task in tasks if task.train.rows]
    for task in tasks:
        _has(task.train, (*task.spec.inputs, task.spec.target))
    if not tasks:
        return {"steps": 0, "examples": 0}
    if target.module is not None:
        target.module.train()
    trained = target.train(tasks, Epoch(*args["epoch"]), ctx)
    if not isinstance(trained, Trained):
        raise TypeError("`train` returns no `fedplug.Trained(steps, examples)`")
    return {"steps": int(trained.steps), "examples": int(trained.examples)}


@contextlib.contextmanager
def _without_gradients(target: Any) -> Any:
    if target.module is None:
        yield
        return
    import torch

    target.module.eval()
    with torch.no_grad():
        yield


def _predict(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    of, rows = spec(args["spec"]), reader.table(args["rows"])
    _has(rows, of.inputs)
    with _without_gradients(target):
        found = target.predict(of, rows, ctx)
    table = _predictions(of, rows, found)
    return writer.table(table, tuple(name for name in table if not isinstance(table[name], tuple) and table[name].dtype.kind == "f"))


def _predictions(of: TaskSpec, rows: Table, found: Any) -> Table:
    if not isinstance(found, Mapping):
        found = _tensors.plain(found)
        if found.shape == (rows.rows, 1) and of.classes is None:
            found = found[:, 0]
        wanted = (rows.rows,) if of.classes is None else (rows.rows, len(of.classes))
        if found.shape != wanted:
            raise ValueError(f"`predict` returned an array of shape {list(found.shape)} for task `{of.name}`, not {list(wanted)}")
        if of.classes is None:
            found = {"predicted": found.astype(np.float32)}
        else:
            if not np.allclose(found.sum(axis=1), 1, atol=1e-3) or (found < 0).any():
                raise ValueError(f"`predict` returned numbers for task `{of.name}` that are no probabilities: see `fedplug.softmax`")
            found = {name: found[:, place].astype(np.float32) for place, name in enumerate(of.classes)}
    columns = {name: _tensors.plain(values) if _tensors.is_torch(values) else values for name, values in found.items()}
    return Table(columns, None if columns else rows.rows)


def _evaluate(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    task = reader.task(args["task"])
    for table in (task.train, task.test):
        if table.rows:
            _has(table, (*task.spec.inputs, task.spec.target))
    if not task.test.rows:
        return {"loss": "nan", "score": "nan", "metrics": []}
    with _without_gradients(target):
        found = target.evaluate(task, ctx)
    if not isinstance(found, Evaluation):
        raise TypeError("`evaluate` returns no `fedplug.Evaluation`")
    metrics = [[metric.name, repr(float(metric.value)), metric.better] for metric in found.metrics]
    return {"loss": repr(float(found.loss)), "score": repr(float(found.score)), "metrics": metrics}


def _export(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    return {"files": [os.fspath(name) for name in target.export(args["folder"], ctx)]}


def _state(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    return writer.state(target.state())


def _restore(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    target.restore(reader.state(args["state"]))


def _begin(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    target._begin(reader.message(args["global"]), Cohort(args["clients"], args["population"]))
    target.begin(ctx)


def _ask(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    replies = [Reply(reply["client"], reader.message(reply["message"])) for reply in args["replies"]]
    return [{"client": query.client, "message": writer.message(query.message)} for query in target.ask(args["stage"], replies, ctx)]


def _add(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    target.add(Update(args["client"], reader.message(args["message"]), args["steps"], args["examples"]), ctx)


def _finish(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    like = Params({name: value for update in target.updates[:1] for name, value in update.params.items()})
    like.update(target.current.params)
    found = writer.message(message(target.finish(ctx)), like)
    target.current = Message()
    return found


def _apply(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    given = reader.message(args["message"])
    like = Params(given.params)
    found = target.apply(given, reader.message(args["base"]), ctx)
    if not isinstance(found, Message):
        raise TypeError("`apply` returns no message")
    return writer.message(found, like)


def _answer(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    found = target.answer(reader.message(args["question"]), ctx)
    return None if found is None else writer.message(found)


def _describe(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    tasks, clients = list(target.tasks(ctx)), []
    for client in target.clients(ctx):
        ctx.check()
        counts = []
        for task in loaded(tasks, target.load(client, ctx)):
            marks = task.train.get(VALIDATION)
            marked = 0 if marks is None else int(np.count_nonzero(marks))
            counts.append({"name": task.name, "train": task.train.rows - marked, "test": task.test.rows, "validation": marked})
        clients.append({"name": client, "tasks": counts})
    sources = []
    for path, rows in target.files(ctx).items():
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        sources.append({"path": os.fspath(path), "sha256": digest.hexdigest(), "rows": int(rows), "skipped": []})
    specs = [{"name": task.name, "inputs": list(task.inputs), "target": task.target,
              "classes": None if task.classes is None else list(task.classes)} for task in tasks]
    return {"tasks": specs, "clients": clients, "sources": sources}


def _load(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    if args["client"] not in target.clients(ctx):
        raise DataError(f"there is no client `{args['client']}`")
    return [writer.task(task) for task in loaded(list(target.tasks(ctx)), target.load(args["client"], ctx))]


def _open_rows(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    found = target.read(args["file"], ctx)
    target._rows = [found if isinstance(found, Table) else Table(found), 0]


def _next_rows(target: Any, args: Json, ctx: Context, reader: Reader, writer: Writer) -> Any:
    table, start = target._rows
    end = target._rows[1] = min(table.rows, start + args["at_most"])
    return writer.table(table.select(range(start, end)))


def _has(table: Table, columns: Sequence[str]) -> None:
    for name in columns:
        table[name]


_CALLS = {
    "parameters": _parameters, "receive": _receive, "send": _send, "train": _train, "predict": _predict, "evaluate": _evaluate,
    "export": _export, "state": _state, "restore": _restore, "begin": _begin, "ask": _ask, "add": _add, "finish": _finish,
    "apply": _apply, "answer": _answer, "describe": _describe, "load": _load, "open_rows": _open_rows, "next_rows": _next_rows,
}
