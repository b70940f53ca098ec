"""Runs all tests of the workspace: two programs of tests at a time, the longest first, then the examples in the documentation.

`cargo test` runs one program after the other. Many tests wait for other programs, and some programs have one test, so half of the
machine would be idle. The build is cargo's own, of the same packages with the same features.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

AT_A_TIME = 2
# Those that drive other programs take minutes.
FIRST = ("it", "suite", "conformance")

cargo = os.environ.get("CARGO", "cargo")


def programs():
    """The programs of tests as (package's folder, program), the longest first."""
    command = [cargo, "test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        sys.exit(built.returncode)
    found = []
    for line in built.stdout.splitlines():
        artifact = json.loads(line)
        if artifact["reason"] == "compiler-artifact" and artifact["profile"]["test"] and artifact["executable"]:
            folder, name = pathlib.Path(artifact["manifest_path"]).parent, artifact["target"]["name"]
            found.append((FIRST.index(name) if name in FIRST else len(FIRST), folder, artifact["executable"]))
    if not found:
        sys.exit("error: cargo built no tests")
    return [(folder, program) for _, folder, program in sorted(found)]


def run(folder, program):
    """The exit code, the seconds that it took, and what it said."""
    env = {**os.environ, "CARGO": cargo, "CARGO_MANIFEST_DIR": str(folder)}
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        code = subprocess.run([program], cwd=folder, env=env, stdout=said, stderr=subprocess.STDOUT).returncode
        said.seek(0)
        return code, time.monotonic() - begun, said.read().decode(errors="replace")


def main():
    here, failed = pathlib.Path.cwd(), []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {pool.submit(run, *program): program for program in programs()}
        for done in as_completed(running):
            folder, program = running[done]
            code, seconds, said = done.result()
            name = f"{os.path.relpath(folder, here)}: {pathlib.Path(program).name.rsplit('-', 1)[0]}"
            print(f"\n{name}, {seconds:.1f} s\n{said.strip()}", flush=True)
            if code:
                failed.append(f"{name} ended with {code}")
    if subprocess.run([cargo, "test", "--workspace", "--doc"]).returncode:
        failed.append("the examples in the documentation")
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1 if failed else 0)


main()
