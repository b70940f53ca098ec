"""Federated learning with plugins: run fedplug's experiments from Python and read what they leave.

    import fedplug

    run = fedplug.run("experiment.toml", seed=7, federation={"rounds": 20})
    run.metrics        # a pandas DataFrame: client, round, step, tag, value
    run.summary        # a dict
    run = fedplug.load("runs/experiment")

The program itself is `fedplug` on the command line; `fedplug.program()` says where it is. Reading a run needs nothing
but the standard library; tables need pandas (`pip install 'fedplug[pandas]'`), parameters safetensors and NumPy
(`pip install 'fedplug[numpy]'`).
"""
from ._errors import ConfigError, FedplugError, RunFailed, RunStopped
from ._experiment import run
from ._program import program
from ._runs import Run, load

__all__ = ["ConfigError", "FedplugError", "Run", "RunFailed", "RunStopped", "load", "program", "run"]
