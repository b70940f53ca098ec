"""Starts SuperLinks as forks of one process that has imported Flower, an import that takes a processor three seconds.

A line of standard input has fields between tabs: `start`, a folder and the SuperLink's arguments, answered by the id of its
process, or `kill` and that id, answered by the same when the process is gone. Those that are left at the end of the input are
killed. The argument is Flower's own program.
"""

import importlib
import os
import pathlib
import runpy
import signal
import sys

program = sys.argv[1]


def superlink(folder, arguments):
    """Becomes a SuperLink, with its output at the end of the folder's `superlink.log`."""
    os.chdir(folder)
    os.environ["FLWR_HOME"] = str(pathlib.Path(folder, "home"))
    log = os.open("superlink.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(file, number)
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


def kill(process):
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


# What the program imports, some of it late.
for module in ("flwr.superlink.cli", "flwr.superlink.main"):
    importlib.import_module(module)
living = set()
for line in sys.stdin:
    order, *fields = line.rstrip("\n").split("\t")
    if order == "start":
        process = os.fork()
        if not process:
            superlink(fields[0], fields[1:])
            sys.exit()
        living.add(process)
    else:
        process = int(fields[0])
        kill(process)
        living.remove(process)
    print(process, flush=True)
for process in living:
    kill(process)
