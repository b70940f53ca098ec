"""What can go wrong, with the words of the program."""


class FedplugError(Exception):
    """The program ended with an error. Its text is what the program printed; `code` is its exit code."""

    def __init__(self, text: str, code: "int | None" = None):
        super().__init__(text)
        self.code = code


class ConfigError(FedplugError):
    """The experiment or the call is wrong, and nothing has run (exit code 2)."""


class RunFailed(FedplugError):
    """The run failed (exit code 1), or a signal ended the program (a negative code)."""


class RunStopped(FedplugError):
    """The run was stopped on request and can be resumed (exit code 130)."""
