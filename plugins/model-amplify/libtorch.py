#!/usr/bin/env python3
"""Install libtorch for model-amplify into this clone, and nothing outside it.

usage: libtorch.py [--cuda] [--check]

  (none)   the CPU build: `.libtorch/include` and `.libtorch/lib`, about 0.5 GB
  --cuda   the CUDA build (Linux x86-64): all of PyTorch's CUDA packages too, about 5.6 GB
  --check  say whether the install is complete, and change nothing

The files come from PyPI's `torch` wheel, the same on every run: the version is fixed below. The install is made in
a scratch directory beside the final one and renamed when it is whole, so an interrupted one leaves nothing that
could be mistaken for a good one. A second call finds the stamp and the files and returns at once.
"""
import argparse
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys

TORCH = "2.11.0"
# What libtorch_cpu.so of the CUDA wheel loads even where no GPU is used.
CUDA_RUNTIME = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"]
PYTHONS = ((3, 10), (3, 14))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOME = os.path.join(ROOT, ".libtorch")
STAMP = os.path.join(HOME, "stamp.json")


def fail(message):
    sys.exit(f"error: {message}")


def linux_x86():
    return sys.platform.startswith("linux") and platform.machine() in ("x86_64", "AMD64")


def wanted(cuda):
    return {"torch": TORCH, "cuda": cuda, "platform": f"{sys.platform}-{platform.machine()}"}


def installed():
    """The stamp of a complete install, or None."""
    try:
        with open(STAMP) as f:
            stamp = json.load(f)
    except (OSError, ValueError):
        return None
    for name, size in stamp.get("files", {}).items():
        path = os.path.join(HOME, name)
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            return None
    return stamp if stamp.get("files") else None


def check_python():
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        low, high = (".".join(map(str, v)) for v in PYTHONS)
        here = ".".join(map(str, sys.version_info[:2]))
        fail(f"PyTorch {TORCH} has wheels for Python {low} to {high} and this is Python {here}; "
             f"install one of those and name it: make PYTHON=python{high} quickstart")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        fail(f"`{sys.executable}` has no pip; install it (Debian, Ubuntu: `apt install python3-pip`; Fedora: "
             "`dnf install python3-pip`; elsewhere: `python3 -m ensurepip`) and try again")


def pip(target, packages, deps):
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet",
               "--root-user-action=ignore", "--no-compile", "--target", target, *([] if deps else ["--no-deps"]), *packages]
    if subprocess.run(command).returncode:
        fail(f"pip could not install {' '.join(packages)}; see its message above (is PyPI reachable, is the disk full?)")


def find(root, name):
    for folder, _, files in os.walk(root):
        if name in files:
            return os.path.join(folder, name)
    fail(f"the wheel of torch {TORCH} contains no `{name}`; this platform is not supported")


def lay_out(site, scratch, cuda):
    """Make include/ and lib/ in the shape that torch-sys expects of LIBTORCH."""
    torch = os.path.join(site, "torch")
    lib = os.path.join(scratch, "lib")
    os.makedirs(lib)
    if linux_x86():
        names = ["libc10.so", "libtorch_cpu.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"]
    else:
        names = sorted(n for n in os.listdir(os.path.join(torch, "lib")) if ".so" in n or n.endswith(".dylib"))
    for name in names:
        source = find(site, name)
        if cuda:
            os.symlink(os.path.relpath(source, lib), os.path.join(lib, name))
        else:
            shutil.move(source, os.path.join(lib, name))
    if linux_x86():
        # torch-sys asks for -ltorch; this linker script gives it the CPU library and leaves CUDA out of the link.
        with open(os.path.join(lib, "libtorch.so"), "w") as f:
            f.write("INPUT(-ltorch_cpu)\n")
    include = os.path.join(torch, "include")
    if cuda:
        os.symlink(os.path.relpath(include, scratch), os.path.join(scratch, "include"))
    else:
        shutil.move(include, os.path.join(scratch, "include"))
        shutil.rmtree(site)


def stamp_files(scratch):
    lib = os.path.join(scratch, "lib")
    files = {os.path.join("lib", n): os.path.getsize(os.path.join(lib, n)) for n in sorted(os.listdir(lib))}
    header = os.path.join("include", "torch", "csrc", "api", "include", "torch", "torch.h")
    files[header] = os.path.getsize(os.path.join(scratch, header))
    return files


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cuda", action="store_true", default=os.environ.get("FEDPLUG_CUDA") == "1")
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    if a.cuda and not linux_x86():
        fail("the CUDA build is available for Linux on x86-64 only; omit --cuda (FEDPLUG_CUDA)")
    with open(os.path.join(ROOT, ".libtorch.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second `make` waits for the first and then finds its work done
        stamp = installed()
        # A CUDA install serves CPU runs as well.
        if stamp and all(stamp.get(k) == v or (k == "cuda" and stamp[k]) for k, v in wanted(a.cuda).items()):
            return
        if a.check:
            fail("libtorch is not installed, or incomplete; `make setup` installs it")
        check_python()
        size = "5.6 GB" if a.cuda else "0.5 GB to fetch"
        print(f"installing libtorch {TORCH} into .libtorch ({size}, once)", file=sys.stderr, flush=True)
        scratch = HOME + ".partial"
        shutil.rmtree(scratch, ignore_errors=True)
        site = os.path.join(scratch, "site")
        os.makedirs(site)
        pip(site, [f"torch=={TORCH}"] + ([] if a.cuda or not linux_x86() else CUDA_RUNTIME), deps=a.cuda)
        lay_out(site, scratch, a.cuda)
        with open(os.path.join(scratch, "stamp.json"), "w") as f:
            json.dump({**wanted(a.cuda), "files": stamp_files(scratch)}, f, indent=1)
        shutil.rmtree(HOME, ignore_errors=True)
        os.rename(scratch, HOME)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted; nothing is half installed; run it again to continue")
    except OSError as e:
        fail(f"{e}; nothing is half installed, mend the cause and call again")
