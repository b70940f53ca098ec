# The first thing that a worker runs. It takes the package `fedplug` from the first message, so that it is the one that the
# plugin was built with, whatever else is installed.
import json
import os
import socket
import sys
from importlib.machinery import ModuleSpec

sock = socket.socket(fileno=os.dup(0))
# What the user's code starts must not read the connection.
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.close(null)


def exactly(length):
    found = b""
    while len(found) < length:
        piece = sock.recv(length - len(found))
        if not piece:
            os._exit(1)
        found += piece
    return found


first = json.loads(exactly(int.from_bytes(exactly(8), "little")))


class Sources:
    def find_spec(self, name, path=None, target=None):
        if name in first["modules"]:
            return ModuleSpec(name, self, origin=f"<fedplug>/{name}", is_package=name == "fedplug")

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        module.__file__ = f"<fedplug>/{name.rpartition('.')[2]}.py"
        exec(compile(first["modules"][name], module.__file__, "exec"), module.__dict__)

    def get_source(self, name):
        return first["modules"][name]


sys.meta_path.insert(0, Sources())
sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd())]


def refuse(text, hint):
    answer = json.dumps({"refused": text, "hint": hint}).encode()
    sock.sendall(len(answer).to_bytes(8, "little") + answer)
    os._exit(1)


if sys.version_info < (3, 9):
    refuse(f"Python {sys.version.split()[0]} is too old", "the interpreter must be Python 3.9 or later")
try:
    import numpy
except ImportError as error:
    refuse(f"Python at {sys.executable} cannot import NumPy: {error}", f"{sys.executable} -m pip install numpy")
del numpy

from fedplug._worker import main

main(sock, first["settings"])
