"""Python values as TOML."""
from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence

BARE = re.compile(r"[A-Za-z0-9_-]+")


def key(name: str) -> str:
    """A key, in quotes if it needs them."""
    return name if BARE.fullmatch(name) else value(name)


def value(of: object) -> str:
    """A value on one line. Raises TypeError for what TOML has no value for."""
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, (str, os.PathLike)):
        # TOML has the escapes of JSON, except that it also refuses DEL.
        return json.dumps(os.fspath(of), ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(of, float):
        return repr(of)  # `inf` and `nan` are TOML's words too.
    if isinstance(of, (datetime.datetime, datetime.date, datetime.time)):
        return of.isoformat()
    if isinstance(of, Mapping):
        return "{ " + ", ".join(f"{key(name)} = {value(one)}" for name, one in of.items()) + " }"
    if isinstance(of, Sequence):
        return "[" + ", ".join(map(value, of)) + "]"
    if hasattr(of, "item"):
        return value(of.item())  # A number of NumPy or torch.
    if isinstance(of, int):
        return str(of)
    raise TypeError(f"TOML has no value for {of!r}")


def document(of: Mapping[str, object]) -> str:
    """A document with a line for each key of the top level."""
    return "".join(f"{key(name)} = {value(one)}\n" for name, one in of.items())


def leaves(of: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values, for `--set`. A table in a table is entered; a list is one value."""
    for name, one in of.items():
        # A name such as "federation.rounds" is a path already.
        path = f"{above}{name}"
        if isinstance(one, Mapping) and one:
            yield from leaves(one, f"{path}.")
        else:
            yield path, value(one)
