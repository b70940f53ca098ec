"""Federated learning with plugins: run fedplug's experiments from Python, read what they leave, and write plugins.

    import fedplug

    run = fedplug.run("experiment.toml", seed=7, federation={"rounds": 20})
    run.metrics        # a pandas DataFrame: client, round, step, tag, value
    run.summary        # a dict
    run = fedplug.load("runs/experiment")

The program itself is `fedplug` on the command line; `fedplug.program()` says where it is. Reading a run needs nothing
but the standard library; tables need pandas (`pip install 'fedplug[pandas]'`), parameters safetensors and NumPy
(`pip install 'fedplug[numpy]'`).

A plugin is a class: `Model`, `Dataset`, `Aggregator` and `Filter` are the classes to derive from, and an experiment names
the script and the class:

    [model]
    plugin = "python"
    script = "my_model.py"
    class = "MyModel"

Plugins need NumPy.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._errors import (
    ConfigError,
    DataError,
    FedplugError,
    RunFailed,
    RunStopped,
    Stopped,
    TensorError,
    Unsupported,
)

if TYPE_CHECKING:
    from ._aggregator import Aggregator, Cohort, Query, Reply, Update
    from ._config import Bounds
    from ._context import Context
    from ._data import Message, Params, State, Table, Task, TaskSpec
    from ._dataset import Dataset
    from ._experiment import run
    from ._filter import Filter
    from ._model import Epoch, Evaluation, Metric, Model, Setup, Trained, softmax
    from ._program import program
    from ._runs import Run, load
    from ._seed import Seed

# Loaded when they are first used: a process that runs a plugin starts for every few clients, and needs few of them.
_WHERE = {
    "_aggregator": ["Aggregator", "Cohort", "Query", "Reply", "Update"],
    "_config": ["Bounds"],
    "_context": ["Context"],
    "_data": ["Message", "Params", "State", "Table", "Task", "TaskSpec"],
    "_dataset": ["Dataset"],
    "_experiment": ["run"],
    "_filter": ["Filter"],
    "_model": ["Epoch", "Evaluation", "Metric", "Model", "Setup", "Trained", "softmax"],
    "_program": ["program"],
    "_runs": ["Run", "load"],
    "_seed": ["Seed"],
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), name)
    return value


__all__ = [
    "Aggregator", "Bounds", "Cohort", "ConfigError", "Context", "DataError", "Dataset", "Epoch", "Evaluation", "FedplugError",
    "Filter", "Message", "Metric", "Model", "Params", "Query", "Reply", "Run", "RunFailed", "RunStopped", "Seed", "Setup", "State",
    "Stopped", "Table", "Task", "TaskSpec", "TensorError", "Trained", "Unsupported", "Update", "load", "program", "run", "softmax",
]
