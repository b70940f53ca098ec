#!/usr/bin/env python3
"""Installs a wheel where there is nothing else, and runs the small experiment with it, from another folder and with an empty
environment. `make wheel-test` uses pip in a venv; `--all` tries the other ways as well and prints a table of them.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What little an environment must have: a program of the system's Python asks for `env` or `sh`.
BARE = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def venv(folder, wheel):
    # The pip outside installs into it, which saves installing another one.
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    call(sys.executable, "-m", "pip", "--python", folder / "venv/bin/python", "install", *QUIET, "--no-index", wheel)
    return folder / "venv/bin/fedplug", {}


def user(folder, wheel):
    base = {"PYTHONUSERBASE": str(folder)}
    call(sys.executable, "-m", "pip", "install", *QUIET, "--user", "--break-system-packages", "--no-index", wheel, env=base)
    return folder / "bin/fedplug", base


def target(folder, wheel):
    call(sys.executable, "-m", "pip", "install", *QUIET, "--target", folder / "packages", "--no-index", wheel)
    return folder / "packages/bin/fedplug", {"PYTHONPATH": str(folder / "packages")}


def uv_venv(folder, wheel):
    call("uv", "venv", "--quiet", "--python", sys.executable, folder / "venv")
    call("uv", "pip", "install", "--quiet", "--no-index", "--python", folder / "venv/bin/python", wheel)
    return folder / "venv/bin/fedplug", {}


def uv_target(folder, wheel):
    call("uv", "pip", "install", "--quiet", "--no-index", "--python", sys.executable, "--target", folder / "packages", wheel)
    return folder / "packages/bin/fedplug", {"PYTHONPATH": str(folder / "packages")}


def uv_tool(folder, wheel):
    places = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    call("uv", "tool", "install", "--quiet", "--no-index", "--python", sys.executable, wheel, env=places)
    return folder / "bin/fedplug", {}


def pipx(folder, wheel):
    places = {"PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(folder / "bin"), "PIPX_MAN_DIR": str(folder / "man")}
    call("pipx", "install", "--quiet", "--python", sys.executable, wheel, env=places)
    return folder / "bin/fedplug", {}


WAYS = {
    "pip in a venv": venv,
    "pip --user": user,
    "pip --target": target,
    "uv in a venv": uv_venv,
    "uv --target": uv_target,
    "uv tool": uv_tool,
    "pipx": pipx,
}
QUIET = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--root-user-action=ignore")


def call(*command, env=None):
    done = subprocess.run([os.fspath(word) for word in command], env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def attempt(way, wheel):
    """Installs in a folder of its own. Returns the seconds of the installation and of the run."""
    with tempfile.TemporaryDirectory(prefix="fedplug-wheel-") as folder:
        folder = pathlib.Path(folder).resolve()
        shutil.copytree(ROOT / "configs/sample", folder / "project/sample")
        shutil.copy(ROOT / "configs/linear.toml", folder / "project")
        begun = time.monotonic()
        program, more = WAYS[way](folder, wheel)
        installed = time.monotonic()
        environment = {**BARE, **more, "HOME": str(folder)}
        run = subprocess.run([program, "run", folder / "project/linear.toml", "--output", "runs"], cwd=folder, env=environment,
                             capture_output=True, text=True)
        ended = time.monotonic()
        if run.returncode != 0:
            sys.exit(f"error: {way}: the run ended with {run.returncode}\n{run.stderr}")
        summary = json.loads((folder / "runs/linear/summary.json").read_text())
        if summary["rounds"] != 20 or len(summary["clients"]) != 6:
            sys.exit(f"error: {way}: not the results of the experiment: {summary['rounds']} rounds, {list(summary['clients'])}")
        # What needs torch says how to get it.
        text = (ROOT / "configs/quickstart.toml").read_text()
        (folder / "project/amplify.toml").write_text(text)
        bare = subprocess.run([program, "check", folder / "project/amplify.toml"], cwd=folder, env=environment, capture_output=True, text=True)
        if bare.returncode == 0 or "pip install 'fedplug[torch]'" not in bare.stderr:
            sys.exit(f"error: {way}: without torch, `amplify` does not say how to get it\n{bare.stderr}")
        return installed - begun, ended - installed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("--all", action="store_true", help="all ways of installing; needs uv and pipx")
    options = parser.parse_args()
    wheel = options.wheel.resolve(strict=True)
    print("| installed by | installation | run |\n|---|---|---|")
    for way in WAYS if options.all else [next(iter(WAYS))]:
        install, run = attempt(way, wheel)
        print(f"| {way} | {install:.1f} s | {run:.1f} s |", flush=True)


main()
