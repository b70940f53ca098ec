"""What a run leaves, in a form that can be compared: models, metrics, events, summary, predictions and all other files."""

import json
import struct
from pathlib import Path

# What differs from one process to another.
VOLATILE = ["seconds", "time", "peak-memory-bytes"]

# What a finished run must not leave.
LEFTOVERS = ["checkpoint", "idle", "run.lock"]


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    """The fields of a Protocol Buffers message: number and value."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at:at + size], at + size
        else:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def scalars(path):
    """The scalars of an event file: tag, step and the value's bytes, in order."""
    data, at = path.read_bytes(), 0
    found = []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        if at + length + 16 > len(data):
            raise ValueError(f"{path}: cut in a record")
        step, summary = 0, None
        for number, value in fields(data[at + 12:at + 12 + length]):
            if number == 2:
                step = value
            elif number == 5:
                summary = value
        at += length + 16
        for _, entry in fields(summary or b""):
            parts = dict(fields(entry))
            found.append((parts[1].decode(), step, bytes(parts.get(2, b"\0\0\0\0"))))
    return found


def events(folder):
    """All scalars of a client, tag by tag, one file after the other: what is there twice is seen."""
    tags = {}
    for path in sorted(folder.iterdir()):
        for tag, step, value in scalars(path):
            tags.setdefault(tag, []).append((step, value))
    return tags


def rounds(path):
    """The rounds that were started. How often depends on the interruptions."""
    return sorted({json.loads(line)["round"] for line in path.read_text().splitlines()})


def results(run):
    """Everything in a run's directory, by its path there."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir():
            if path.parent.name == "events":
                found[name] = events(path)
        elif name.startswith("events/"):
            pass
        elif name == "metrics.jsonl":
            found[name] = [line.split(',"time"')[0] for line in path.read_text().splitlines()]
        elif name == "summary.json":
            summary = json.loads(path.read_text())
            found[name] = {key: value for key, value in summary.items() if key not in VOLATILE}
        elif name == "manifest.json":
            manifest = json.loads(path.read_text())
            found[name] = {key: manifest[key] for key in ["name", "seed", "plugins", "tasks", "clients", "data"]}
        elif name == "attempts.jsonl":
            found[name] = rounds(path)
        else:
            found[name] = path.read_bytes()
    return found


def leftovers(run):
    """What is in a finished run's directory, or beside it, and should not be."""
    beside = [path for path in Path(run).parent.iterdir() if path.name.startswith(run.name + ".")]
    inside = [path for path in run.rglob("*") if path.suffix == ".part" or path.name.startswith(".tmp")]
    return [path.name for path in beside + inside] + [name for name in LEFTOVERS if (run / name).exists()]


def differences(found, wanted):
    """The names of all that differs."""
    both = sorted(set(found) | set(wanted))
    return [name for name in both if found.get(name) != wanted.get(name)]
