"""Copies a run to experiment trackers."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._runs import Run

# What a tracker keeps beside the curves.
FILES = ("experiment.toml", "manifest.json", "summary.json", "predictions.csv")
# The most metrics in one call, and the longest value of a parameter, that MLflow takes.
BATCH = 1000
LONGEST = 6000


def to_mlflow(run: Run, experiment: str, models: bool) -> str:
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
    except ImportError as error:
        raise ImportError("`to_mlflow` needs MLflow: pip install mlflow-skinny") from error
    client = MlflowClient()
    known = client.get_experiment_by_name(experiment)
    where = known.experiment_id if known else client.create_experiment(experiment)
    tags = {"fedplug.version": str(run.manifest["fedplug"]), "fedplug.path": str(run.path.absolute())}
    begun = int(run.manifest["begun"] * 1000)
    id = client.create_run(where, start_time=begun, run_name=run.name, tags=tags).info.run_id
    params = [Param(_plain(name), str(value)[:LONGEST]) for name, value in _leaves(run.experiment)]
    for start in range(0, len(params), 100):
        client.log_batch(id, params=params[start : start + 100])
    end, batch = begun, []
    for scalar in run.scalars():
        end = max(end, int(scalar["time"] * 1000))
        if _is_number(scalar["value"]):
            batch.append(Metric(_name(scalar), scalar["value"], int(scalar["time"] * 1000), scalar["step"]))
        if len(batch) == BATCH:
            client.log_batch(id, metrics=batch)
            batch = []
    client.log_batch(id, metrics=batch)
    for name in FILES:
        if (run.path / name).is_file():
            client.log_artifact(id, str(run.path / name))
    if models:
        for which in ("best", "global"):
            if (run.path / which).is_dir():
                client.log_artifacts(id, str(run.path / which), which)
    client.set_terminated(id, "FINISHED" if run.finished else "RUNNING", end)
    return id


def to_wandb(run: Run, options: Mapping[str, Any]) -> None:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("`to_wandb` needs Weights & Biases: pip install wandb") from error
    steps: dict[int, dict[str, float]] = {}
    for scalar in run.scalars():
        if _is_number(scalar["value"]):
            steps.setdefault(scalar["step"], {})[_name(scalar)] = scalar["value"]
    with wandb.init(**{"name": run.name, "config": run.experiment, **options}) as copy:
        # Steps only ever grow there, and those of several clients are the same.
        for step, values in sorted(steps.items()):
            copy.log(values, step=step)
        if run.finished:
            copy.summary.update({f"best/{name}": value for name, value in (run.summary.get("best") or {}).items()})


def _name(scalar: Mapping[str, Any]) -> str:
    return _plain(f"{scalar['client']}/{scalar['tag']}")


def _plain(name: str) -> str:
    """A name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of nested tables, with dots; the tables of a list are numbered."""
    for name, value in table.items():
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            value = {str(index): one for index, one in enumerate(value)}
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
