"""Where the program is, and how it is started."""
from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAME = "fedplug.exe" if os.name == "nt" else "fedplug"
# Of these, in this order, model-amplify takes what it needs of PyTorch.
LIBTORCH = ("libc10.so", "libtorch_cpu.so")


def program() -> Path:
    """The path of the program: `FEDPLUG_PROGRAM`, the one in this package, or the one on the search path.

    Raises FileNotFoundError if there is none.
    """
    named = os.environ.get("FEDPLUG_PROGRAM")
    if named:
        return Path(named)
    own = FOLDER / NAME
    if own.is_file():
        return own
    found = shutil.which(NAME)
    # The script of this package is found as well, and would start itself.
    if found and not _is_script(Path(found)):
        return Path(found)
    raise FileNotFoundError("this installation of the package `fedplug` has no program, and there is none on the search path")


def environment() -> dict[str, str]:
    """The environment that the program starts in: this one, with this Python and with PyTorch's libraries, wherever they are."""
    env = dict(os.environ)
    env.setdefault("FEDPLUG_PYTHON", sys.executable)
    # The plugin looks beside this package by itself.
    if not (FOLDER.parent / "torch" / "lib").is_dir():
        libraries = [path for name in LIBTORCH if (path := _torch_folder() / "lib" / name).is_file()]
        if len(libraries) == len(LIBTORCH):
            env.setdefault("FEDPLUG_PRELOAD", os.pathsep.join(map(str, libraries)))
    return env


def main() -> None:
    """Replaces this process by the program: the console script."""
    try:
        path = program()
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    arguments = [str(path), *sys.argv[1:]]
    if os.name == "posix":
        os.execve(path, arguments, environment())
    else:
        import subprocess

        sys.exit(subprocess.run(arguments, env=environment(), check=False).returncode)


def _torch_folder() -> Path:
    # Finding a package does not import it.
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        spec = None
    return Path(spec.origin).parent if spec and spec.origin else Path("no-torch")


def _is_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True
