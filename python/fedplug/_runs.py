"""Reads what a run leaves."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy
    import pandas

Which = Literal["best", "last"]


def load(path: str | os.PathLike[str]) -> Run:
    """Opens a run's directory. Raises FileNotFoundError if it holds no run, or none that has begun."""
    return Run(path)


class Run:
    """A run's directory. Files are read when they are asked for, and once: `load` it again to see what a run that goes on has added."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise FileNotFoundError(f"{self.path}: no fedplug run (it has no manifest.json)")

    def __repr__(self) -> str:
        return f"fedplug.load({os.fspath(self.path)!r})"

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.manifest["name"])

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").is_file()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What ran: versions, plugins and their hashes, data, seed, machine."""
        return self._json("manifest.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The results of a finished run. Raises FileNotFoundError before its end."""
        return self._json("summary.json")

    @cached_property
    def experiment(self) -> dict[str, Any]:
        """The experiment as it ran, overrides included."""
        import tomllib

        with (self.path / "experiment.toml").open("rb") as file:
            return tomllib.load(file)

    def scalars(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl: `client`, `round`, `step`, `tag`, `value` (None where it is undefined) and `time` in seconds since 1970."""
        with (self.path / "metrics.jsonl").open(encoding="utf-8") as file:
            for line in file:
                # The last line of a run that goes on may be half written.
                if line.endswith("\n"):
                    yield json.loads(line)

    @cached_property
    def metrics(self) -> pandas.DataFrame:
        """All scalars as a table, with `metric` and `split` taken from `tag`: `RMSE/local_test` is the metric RMSE of the
        split `local_test`. An undefined value is NaN. Needs pandas."""
        pd = _pandas()
        columns = ["client", "round", "step", "tag", "value", "time"]
        table = pd.DataFrame(list(self.scalars()), columns=columns)
        table["value"] = table["value"].astype(float)
        table["time"] = pd.to_datetime(table["time"], unit="s", utc=True)
        parts = table["tag"].str.partition("/")
        table.insert(4, "metric", parts[0])
        table.insert(5, "split", parts[2])
        return table

    @cached_property
    def results(self) -> pandas.DataFrame:
        """The first, best and last value of each metric, a row for each client, task, split and metric. Needs pandas."""
        rows = [
            {"client": client, "task": task["task"], "split": split, "metric": metric.pop("name"), **metric}
            for client, tasks in self._json("summary.json")["clients"].items()
            for task in tasks
            for split, metrics in task.items()
            if isinstance(metrics, list)
            for metric in metrics
            if isinstance(metric, dict) and "name" in metric
        ]
        return _pandas().DataFrame(rows, columns=["client", "task", "split", "metric", "first", "best", "last", "higher_is_better"])

    @cached_property
    def predictions(self) -> pandas.DataFrame | None:
        """predictions.csv, or None if the run made none. Needs pandas."""
        file = self.path / "predictions.csv"
        return _pandas().read_csv(file, dtype={"client": str, "task": str, "row": str}) if file.is_file() else None

    @property
    def clients(self) -> list[str]:
        """The names of the clients."""
        return list(self.summary["clients"])

    def model(self, client: str | None = None, which: Which = "best") -> Path:
        """The file of a model's parameters: the global model, the best or the last one, or that of a client."""
        if client is not None:
            file = self.path / "clients" / client / "model.safetensors"
        else:
            file = self.path / ("global" if which == "last" else which) / "model.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: the run left no such model")
        return file

    def parameters(self, client: str | None = None, which: Which = "best") -> dict[str, numpy.ndarray]:
        """A model's parameters by name. Needs safetensors and NumPy; bfloat16 needs `safetensors.torch` instead."""
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise ImportError("parameters need safetensors and NumPy: pip install 'fedplug[numpy]'") from error
        return load_file(self.model(client, which))

    def export(self, client: str | None = None, which: Which = "best") -> Path:
        """The folder of a model for other programs, such as Hugging Face's transformers, if its plugin makes one."""
        folder = self.model(client, which).parent / "export"
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: the model's plugin exports nothing")
        return folder

    def to_mlflow(self, experiment: str = "fedplug", *, models: bool = True) -> str:
        """Copies the run to MLflow, where its tracking URI says, and returns the id of the copy: curves as `CLIENT/TAG`, the keys
        of the experiment as parameters, the run's files and, with `models`, its best and last global model as artifacts."""
        from . import _trackers

        return _trackers.to_mlflow(self, experiment, models)

    def to_wandb(self, **options: Any) -> None:
        """Copies the run's curves, its experiment and its results to Weights & Biases. `options` are those of `wandb.init`."""
        from . import _trackers

        _trackers.to_wandb(self, options)

    def _json(self, name: str) -> dict[str, Any]:
        with (self.path / name).open(encoding="utf-8") as file:
            return json.load(file)

    def _repr_html_(self) -> str:
        """In a notebook: the results."""
        import html

        head = f"<b>{html.escape(self.name)}</b> <code>{html.escape(os.fspath(self.path))}</code>"
        if not self.finished:
            return f"{head}: not finished"
        best = self.summary.get("best") or {}
        head += f", best {html.escape(self.summary['score-name'])} {best['score']:.3f} after round {best['rounds']}" if best else ""
        try:
            return head + self.results.to_html(index=False, float_format="{:.3f}".format)
        except ImportError:
            return head


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("tables need pandas: pip install 'fedplug[pandas]'") from error
    return pandas
