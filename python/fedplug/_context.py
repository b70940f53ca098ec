"""What the program lends to each call."""
from __future__ import annotations

from typing import Any

from ._errors import Stopped
from ._seed import Seed


class Context:
    """Lent to every call: log lines, scalars, progress, whether to stop, the client, the device, the threads and the seed.
    It is of no use after the call."""

    #: The client of the call; None at the server.
    client: str | None
    #: The round of the call, from 0; None outside the rounds.
    round: int | None
    #: The device to compute on: `cpu` or `cuda:0`. What a model gets is in the CPU's memory.
    device: str
    #: How many threads the call may use. NumPy and torch are set to it.
    threads: int
    #: The seed of this call: another for each client, round, method and epoch, the same in each run. `random`,
    #: `numpy.random` and torch are seeded with it before the call.
    seed: Seed
    #: The experiment's seed, the same at all clients.
    experiment_seed: Seed

    def __init__(self, given: dict[str, Any], channel: Any, call: int):
        self.client = given["client"]
        self.round = given["round"]
        self.device = given["device"]
        self.threads = given["threads"]
        self.seed = Seed(given["seed"])
        self.experiment_seed = Seed(given["experiment_seed"])
        self._channel = channel
        self._call = call

    def check(self) -> None:
        """Ends the call if the run is being stopped, by raising Stopped. Call it in every step."""
        if self._channel.stopped(self._call):
            raise Stopped

    def info(self, line: object) -> None:
        """A line of the log. So is what is printed."""
        self._log("info", line)

    def warn(self, line: object) -> None:
        """A warning."""
        self._log("warn", line)

    def debug(self, line: object) -> None:
        """A line that `fedplug run --log-level debug` shows."""
        self._log("debug", line)

    def _log(self, level: str, line: object) -> None:
        self._channel.send({"log": [level, str(line)]})

    def scalar(self, tag: str, step: int, value: float) -> None:
        """Records a number under a tag, such as `Loss/train`, at a step."""
        # As text, since JSON knows no NaN and no infinity.
        self._channel.send({"scalar": [str(tag), int(step), repr(float(value))]})

    def progress(self, done: int, total: int) -> None:
        """Reports progress."""
        self._channel.send({"progress": [int(done), int(total)]})

    def note(self, key: str, text: str) -> None:
        """Keeps a sentence for the run's summary, in place of an earlier one under the same key."""
        self._channel.send({"note": [str(key), str(text)]})

    def property(self, key: str) -> Any:
        """What the program knows under this key, or None: see `Context::property` in the Rust interface."""
        return self._channel.ask({"property": str(key)})["property"]
