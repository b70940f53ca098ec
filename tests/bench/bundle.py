#!/usr/bin/env python3
"""Build all that a machine with a GPU and nothing but PyTorch runs: FOLDER/run.sh and FOLDER/bundle.tar.gz.

usage: bundle.py FOLDER [--profile release] [--select ARGUMENTS]

It holds the program, plugins, test binaries and an example, all stripped, and their data. See the head of gpu.sh.
"""
import argparse
import gzip
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGES = "-p fedplug -p model-amplify -p dataset-flab -p aggregator-fedavg -p filter-exclude-params"
LIBRARIES = ["model-amplify", "dataset-flab", "aggregator-fedavg", "filter-exclude-params"]
TESTS = ["suite"]
DATA = ["configs/fedavg_multitask.toml", "configs/sample", "plugins/model-amplify/tests/parity", "tests/bench/torch_step.py"]
MOST = 64 * 2**20


def built(options):
    """Builds everything, and returns the files by their name in the bundle."""
    command = ["cargo", "build", "--profile", options.profile, *shlex.split(options.select), "--bins", "--lib", "--example", "step"]
    command += [word for name in TESTS for word in ("--test", name)]
    command += ["--message-format", "json-render-diagnostics"]
    print(shlex.join(command), file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    files = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] != "compiler-artifact":
            continue
        name, kinds, program = message["target"]["name"], message["target"]["kind"], message["executable"]
        package = pathlib.Path(message["manifest_path"]).parent.name
        if "cdylib" in kinds and package in LIBRARIES:
            library = next(file for file in message["filenames"] if file.endswith(".so"))
            files[f"bin/{os.path.basename(library)}"] = library
        elif program and (kinds, name) in ((["bin"], "fedplug"), (["example"], "step")):
            files[f"bin/{name}"] = program
        elif program and kinds == ["test"] and name in TESTS and package == "model-amplify":
            files[f"tests/{name}"] = program
    lacking = {f"tests/{name}" for name in TESTS} | {"bin/fedplug", "bin/step"} - files.keys()
    if lacking - files.keys() or sum(name.endswith(".so") for name in files) != len(LIBRARIES):
        sys.exit(f"error: cargo named no file for some of these: {', '.join(sorted(lacking))}, {', '.join(LIBRARIES)}")
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--profile", default="release", help="cargo's")
    parser.add_argument("--select", default=PACKAGES, help="the packages, as arguments of cargo")
    options = parser.parse_args()
    files = built(options)
    folder = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with gzip.GzipFile(folder / "bundle.tar.gz", "wb", 6, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as bundle:
        for name, path in sorted(files.items()):
            stripped = folder / "stripped"
            subprocess.run(["strip", "-o", stripped, path], check=True)
            size = stripped.stat().st_size
            print(f"{size / 2**20:7.1f} MiB  {name}")
            bundle.add(stripped, name)
            stripped.unlink()
        for name in DATA:
            bundle.add(ROOT / name, name)
    shutil.copy(ROOT / "tests/bench/gpu.sh", folder / "run.sh")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{size / 2**20:7.1f} MiB  {folder}, packed")
    if size > MOST:
        sys.exit(f"error: more than {MOST // 2**20} MiB")


if __name__ == "__main__":
    main()
