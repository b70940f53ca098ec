"""Starts SuperLinks as forks of one process that has imported Flower, because the import takes three seconds of CPU.

Usage: superlinks.py PROGRAM, the path of `flower-superlink`. Each line of standard input is a command, with tabs between its
fields: `start`, a folder and the SuperLink's arguments; or `kill` and a process id. The answer is the process id, of a killed
process once it is gone. At the end of the input all remaining SuperLinks are killed.
"""

import importlib
import os
import pathlib
import runpy
import signal
import sys

program = sys.argv[1]


def superlink(folder, arguments):
    """Turns this process into a SuperLink that appends its output to the folder's `superlink.log`."""
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


# What the program imports, in part only when it starts to serve.
for module in ("flwr.superlink.cli", "flwr.superlink.main"):
    importlib.import_module(module)
living = set()
for line in sys.stdin:
    command, *fields = line.rstrip("\n").split("\t")
    if command == "start":
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
