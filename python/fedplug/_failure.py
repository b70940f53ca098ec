"""Exceptions as errors of a run, with the place in the user's own code."""
from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from typing import Any

from ._errors import ConfigError, DataError, FedplugError, Stopped, TensorError, Unsupported

FRAMES = 6
_HERE = os.path.dirname(__file__)
_LIBRARIES = {os.path.abspath(path) for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))}


def told(error: BaseException, script: str | None) -> dict[str, Any]:
    """An exception as the plugin in Rust reads it."""
    if isinstance(error, Stopped):
        return {"kind": "cancelled", "message": "stopped on request"}
    kind, own = "python", isinstance(error, FedplugError)
    for of, word in ((ConfigError, "config"), (DataError, "data"), (TensorError, "tensor"), (Unsupported, "unsupported")):
        if isinstance(error, of):
            kind = word
    if isinstance(error, NotImplementedError):
        kind = "unsupported"
    found: dict[str, Any] = {"kind": kind, "message": str(error.args[0]) if own else _said(error)}
    for name in ("key", "hint"):
        found[name] = getattr(error, name, None) if own else None
    if isinstance(error, ModuleNotFoundError):
        found["hint"] = f"the interpreter is {sys.executable}"
    found["tensor"] = error.name if isinstance(error, TensorError) else None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(("<frozen", _HERE))]
    frames = [frame for frame in frames if frame.name != "<module>" or not frame.filename.startswith("<")]
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        found["file"], found["line"] = _shown(error.filename, script), error.lineno
        found["message"] = f"SyntaxError: {error.msg}"
    else:
        users = [frame for frame in frames if _is_users(frame.filename)]
        if users:
            found["file"], found["line"] = _shown(users[-1].filename, script), users[-1].lineno
    causes: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and len(causes) < FRAMES:
        causes.append(_said(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    # An error that the classes of this package raise for the user says enough.
    if kind == "python" or kind == "data":
        for frame in reversed(frames[-FRAMES:]):
            code = f": `{frame.line}`" if frame.line else ""
            causes.append(f"in {frame.name}, {_shown(frame.filename, script)}:{frame.lineno}{code}")
    found["causes"] = causes
    return found


def _said(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    name = type(error).__name__
    return name if text == f"{name}()" else f"{name}: {text}"


def _is_users(path: str) -> bool:
    path = os.path.abspath(path)
    return not path.startswith(tuple(_LIBRARIES)) and "site-packages" not in path and not path.startswith("<")


def _shown(path: str, script: str | None) -> str:
    """A path as the user writes it."""
    if script and os.path.abspath(script) == os.path.abspath(path):
        return script
    near = os.path.relpath(path)
    return path if near.startswith("..") else near

