"""The process that runs plugins in Python: it answers the calls of the plugin in Rust that has started it."""
from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
import select
import signal
import socket
import sys
import threading
from types import ModuleType
from typing import Any

from . import _calls, _config, _failure
from ._channel import Channel
from ._context import Context
from ._errors import ConfigError, Stopped

Json = dict[str, Any]
KINDS = {"model": "Model", "dataset": "Dataset", "aggregator": "Aggregator", "filter": "Filter"}


def main(sock: socket.socket, settings: Json) -> None:
    """Serves until the other end closes the connection."""
    _die_with(settings["parent"], sock)
    channel = Channel(sock, settings["shared"])
    sys.stdout = Lines(channel, 1)
    sys.stderr = Lines(channel, 2)
    worker = Worker(channel, settings)
    channel.send({"ready": list(sys.version_info[:3])})
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            worker.serve()
    # Threads and handlers of the user's code do not hold up the end.
    os._exit(0)


def _die_with(parent: int, sock: socket.socket) -> None:
    """Ends this process with the one that started it, even if that is killed."""
    direct = os.getppid() == parent
    if direct and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        return
    # A script stands between them, such as a shim of pyenv, or the system has no such signal. The connection ends as well.
    poll = select.poll()
    poll.register(sock, 0)

    def watch() -> None:
        poll.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


class Lines(io.TextIOBase):
    """Passes on what is printed, as lines of the log."""

    def __init__(self, channel: Channel, fd: int):
        self._channel = channel
        self._fd = fd
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    @property
    def buffer(self) -> Any:
        """For bytes, which are lines of the log as well."""
        return open(self._fd, "wb", buffering=0, closefd=False)

    def write(self, text: str) -> int:
        if not self._channel.usable:
            return os.write(self._fd, text.encode(errors="replace"))
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            # A bar of progress writes over its line.
            line = line.rstrip("\r").rpartition("\r")[2].rstrip()
            if line:
                self._channel.send({"log": ["info", line]})
        return len(text)

    def end(self) -> None:
        """What was begun is a line as well."""
        if self._begun:
            self.write("\n")


class Worker:
    def __init__(self, channel: Channel, settings: Json):
        self._channel = channel
        self._deterministic = settings["deterministic"]
        self._modules: dict[str, ModuleType] = {}
        self._objects: dict[int, Any] = {}
        self._threads: int | None = None

    def serve(self) -> None:
        message, incoming = self._channel.receive()
        for number in message.get("drop", ()):
            self._objects.pop(number, None)
        if "call" not in message:
            return
        call = message["call"]
        answer = None
        try:
            answer, value = self._call(message, incoming)
            reply = {"done": call, "value": value}
        except (Exception, KeyboardInterrupt, SystemExit, Stopped) as error:
            answer = None
            reply = {"done": call, "error": _failure.told(error, message.get("script"))}
        incoming.close()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Lines):
                stream.end()
        if answer is not None:
            try:
                answer.send(self._channel, reply)
                return
            except (TypeError, ValueError) as error:
                # A value that JSON has not.
                reply = {"done": call, "error": _failure.told(error, message.get("script"))}
        reply["released"], self._channel.released[:] = list(self._channel.released), []
        self._channel.send(reply)

    def _call(self, message: Json, incoming: Any) -> tuple[Any, Any]:
        do = message["do"]
        if do == "schema":
            cls = self._class(message)
            return None, {"schema": _config.schema(cls)}
        ctx = Context(message["ctx"], self._channel, message["call"])
        self._set_up(ctx)
        if do != "new":
            return _calls.call(self._objects[message["object"]], do, message["args"], incoming, ctx)
        cls = self._class(message)
        # What the script has imported is seeded as well.
        self._set_up(ctx)
        found = _calls.new(cls, message["kind"], _config.make(cls, message["keys"]), message["args"], ctx)
        self._objects[message["object"]] = found
        return None, {"has": _calls.overridden(cls, message["kind"])}

    def _set_up(self, ctx: Context) -> None:
        """The same bits come of a call, whatever this process has computed before."""
        random.seed(int(ctx.seed))
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if numpy is not None:
            numpy.random.seed(ctx.seed & 0xFFFF_FFFF)
        if torch is not None:
            torch.manual_seed(ctx.seed & 0x7FFF_FFFF_FFFF_FFFF)
            if self._threads != ctx.threads:
                torch.set_num_threads(ctx.threads)
                self._threads = ctx.threads
            if self._deterministic:
                torch.use_deterministic_algorithms(True)

    def _class(self, message: Json) -> type:
        script, name = message["script"], message["class"]
        module = self._module(script)
        found = getattr(module, name, None)
        base = getattr(importlib.import_module("fedplug"), KINDS[message["kind"]])
        if not isinstance(found, type):
            known = [one for one, value in vars(module).items() if isinstance(value, type) and issubclass(value, base) and value is not base]
            hint = f"its classes of this kind: {', '.join(known)}" if known else f"a class of this kind derives from `fedplug.{base.__name__}`"
            raise ConfigError(f"{script} has no class `{name}`", key="class", hint=hint)
        if not issubclass(found, base):
            raise ConfigError(f"`{name}` is no `fedplug.{base.__name__}`", key="class", hint=f"class {name}(fedplug.{base.__name__})")
        return found

    def _module(self, script: str) -> ModuleType:
        if script in self._modules:
            return self._modules[script]
        path = os.path.abspath(script)
        name = os.path.splitext(os.path.basename(path))[0]
        if not name.isidentifier():
            raise ConfigError(f"{script} has a name that no module can have", key="script", hint="use letters, digits and `_`")
        if name in sys.modules:
            raise ConfigError(f"{script} has the name of another module, `{name}`", key="script", hint="rename the script")
        # As if the script were started: modules beside it are found.
        if os.path.dirname(path) not in sys.path:
            sys.path.insert(0, os.path.dirname(path))
        try:
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec")
        except OSError as error:
            raise ConfigError(f"{script} cannot be read: {error.strerror}", key="script") from None
        module = sys.modules[name] = ModuleType(name)
        module.__file__ = path
        try:
            exec(code, module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        self._modules[script] = module
        return module
