"""Runs one process to its end and tells how long it took, how much memory it had, and what it printed."""
import dataclasses
import json
import os
import subprocess
import tempfile
import time


class Unavailable(Exception):
    """Why a row cannot be measured here."""


@dataclasses.dataclass
class Result:
    seconds: float
    memory: float | None  # MiB


def run(command, limit, env=None):
    """Seconds, peak memory in MiB (of the process alone), and stdout of a command that must succeed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.perf_counter()
        try:
            process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=err, env={**os.environ, **(env or {})})
        except OSError as error:
            raise Unavailable(f"cannot run {command[0]}: {error.strerror}") from None
        # Of each child its own memory, which `resource` tells of all children together.
        usage = None
        while usage is None:
            done, status, used = os.wait4(process.pid, os.WNOHANG)
            if done:
                usage = used
            elif time.perf_counter() - begun > limit:
                process.kill()
                os.wait4(process.pid, 0)
                process.returncode = -9
                raise Unavailable(f"not done after {limit} s")
            else:
                time.sleep(0.0005)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            told = err.read().decode(errors="replace").strip().splitlines() or ["no message"]
            first = next((line for line in told if "rror" in line), told[-1])
            raise Unavailable(f"{os.path.basename(str(command[0]))} ended with code {process.returncode}: {first.strip()}")
        return seconds, usage.ru_maxrss / 1024, out.read().decode()


def last_json(text):
    for line in reversed(text.splitlines()):
        try:
            return json.loads(line)
        except ValueError:
            continue
    raise Unavailable("it printed no line of JSON")


def reported(command, limit, key, env=None):
    """What a command says of itself in its last line; its memory is what the system says."""
    _, memory, text = run(command, limit, env)
    line = last_json(text)
    if not isinstance(line.get(key), (int, float)):
        raise Unavailable(f"its line of JSON has no number `{key}`")
    return Result(line[key], line.get("peak_memory_MiB") or memory)
