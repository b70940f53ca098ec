"""What can go wrong, with the words of the program."""
from __future__ import annotations


class FedplugError(Exception):
    """An error of a run or of a plugin. If the program ended with it, its text is what the program printed and `code` is
    the program's exit code."""

    def __init__(self, text: str, code: int | None = None):
        super().__init__(text)
        self.code = code


class ConfigError(FedplugError):
    """The experiment or the call is wrong, and nothing has run (exit code 2).

    A plugin raises it for a configuration that cannot work. `key` is the key at fault, and the run's error shows it with
    its line: `raise ConfigError("must be less than `trim`", key="keep")`.
    """

    def __init__(self, text: str, code: int | None = None, *, key: str | None = None, hint: str | None = None):
        super().__init__(text, code)
        self.key = key
        self.hint = hint


class RunFailed(FedplugError):
    """The run failed (exit code 1), or a signal ended the program (a negative code)."""


class RunStopped(FedplugError):
    """The run was stopped on request and can be resumed (exit code 130)."""


class DataError(FedplugError):
    """In a plugin: a table or a file is missing or unusable."""

    def __init__(self, text: str, *, hint: str | None = None):
        super().__init__(text)
        self.hint = hint


class TensorError(FedplugError):
    """In a plugin: the tensor `name` has the wrong shape, type or content."""

    def __init__(self, name: str, text: str):
        super().__init__(text)
        self.name = name

    def __str__(self) -> str:
        return f"tensor `{self.name}`: {self.args[0]}"


class Unsupported(FedplugError):
    """In a plugin: it does not offer this."""


class Stopped(BaseException):
    """The run is being stopped. `Context.check` raises it; let it pass. No `except Exception` catches it."""
