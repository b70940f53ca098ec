"""Runs experiments."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from . import _toml
from ._errors import ConfigError, FedplugError, RunFailed, RunStopped
from ._program import environment, program
from ._runs import Run, load

LAST_LINES = 400


def run(
    experiment: str | os.PathLike[str] | Mapping[str, object],
    /,
    *,
    output: str | os.PathLike[str] = "runs",
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
    arguments: tuple[str, ...] = (),
    **overrides: object,
) -> Run:
    """Runs an experiment and returns what it left.

    experiment: the path of a TOML file, or its content as a dict. Paths in a file are relative to it, those in a dict and in
                overrides to the current directory.
    output:     the folder of the run's directory, which has the experiment's name.
    resume:     continue an interrupted run of this name.
    force:      replace an earlier run of this name.
    progress:   pass on what the program says, as it says it.
    arguments:  further arguments of `fedplug run`, as on the command line.
    overrides:  keys in place of the file's: `seed=7`, `federation={"rounds": 20}`, or `**{"federation.rounds": 20}`.

    Raises ConfigError, RunFailed or RunStopped with the program's own text, and KeyboardInterrupt, after a checkpoint, if
    it was interrupted. `resume=True` continues a stopped run.
    """
    with tempfile.TemporaryDirectory(prefix="fedplug-") as folder:
        if isinstance(experiment, Mapping):
            file = Path(folder, "experiment.toml")
            # An absolute path, as the file is elsewhere.
            here = {"folder": os.path.abspath(str(experiment.get("folder", ".")))}
            file.write_text(_toml.document({**experiment, **here}), encoding="utf-8")
        else:
            file = Path(experiment)
        command = [program(), "run", file, "--output", output, *arguments]
        for name, value in _toml.leaves(overrides):
            command += ["--set", f"{name}={value}"]
        command += ["--resume"] * resume + ["--force"] * force
        code, text, interrupted = _follow([os.fspath(word) for word in command], progress)
    if interrupted and code != 0:
        raise KeyboardInterrupt(text)
    if code != 0:
        raise _error(code, text)
    return load(Path(output, _name(experiment, overrides, arguments)))


def _follow(command: list[str], progress: bool) -> tuple[int, str, bool]:
    """Runs the program. Returns its exit code, its last lines and whether it was interrupted."""
    lines: deque[str] = deque(maxlen=LAST_LINES)
    interrupted = False
    # A group of its own: an interrupt reaches this process alone, which passes it on once.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        while True:
            try:
                for line in process.stderr:
                    lines.append(line)
                    if progress:
                        print(line, end="", file=sys.stderr, flush=True)
                break
            except KeyboardInterrupt:
                # The first asks for a checkpoint, a second one ends it at once.
                interrupted = True
                process.send_signal(signal.SIGINT)
            except BaseException:
                process.kill()
                raise
        code = process.wait()
    return code, "".join(lines).strip(), interrupted


def _error(code: int, text: str) -> FedplugError:
    if code == 2:
        return ConfigError(text, code)
    if code == 130:
        return RunStopped(text, code)
    if code < 0:
        text = f"{text}\n{signal.Signals(-code).name} ended the program".strip()
    # What precedes the error was progress.
    start = text.find("error: ")
    return RunFailed(text[start:] if start > 0 else text, code)


def _name(experiment: str | os.PathLike[str] | Mapping[str, object], overrides: Mapping[str, object], arguments: tuple[str, ...]) -> str:
    """The run's name, as the program finds it."""
    if "--name" in arguments[:-1]:
        return arguments[arguments.index("--name") + 1]
    if "name" in overrides:
        return str(overrides["name"])
    if not isinstance(experiment, Mapping):
        import tomllib

        with open(experiment, "rb") as file:
            experiment = tomllib.load(file)
    return str(experiment["name"])
