#!/usr/bin/env python3
"""`make install` and `make uninstall`: the program, its plugins with libtorch, completions, manual pages and licences below a
prefix. Plugins go to lib/fedplug, where the program looks for them; what is installed is listed in share/doc/fedplug.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

import licences

COMPLETIONS = {
    "bash": "share/bash-completion/completions/fedplug",
    "zsh": "share/zsh/site-functions/_fedplug",
    "fish": "share/fish/vendor_completions.d/fedplug.fish",
}
MANUAL = "share/man/man1"
DOCUMENTS = "share/doc/fedplug"
LIST = "share/doc/fedplug/installed.txt"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefix", type=pathlib.Path)
    parser.add_argument("--built", type=pathlib.Path, help="the folder with the program and its plugins; without it, uninstall")
    parser.add_argument("--libtorch", type=pathlib.Path, help="the folder with libtorch's libraries")
    options = parser.parse_args()
    # An absolute path, as Python would look up a program without a `/` on the search path.
    prefix = options.prefix.absolute()
    uninstall(prefix)
    if options.built:
        install(prefix, options.built.absolute(), options.libtorch)
        print(f"{prefix}: installed; `{prefix / 'bin/fedplug'} --version` tries it", file=sys.stderr)


def install(prefix, built, libtorch):
    installed = []

    def put(source, target, mode):
        path = prefix / target
        path.parent.mkdir(parents=True, exist_ok=True)
        installed.append(target)
        path.unlink(missing_ok=True)
        if isinstance(source, str):
            path.symlink_to(source)
            return
        if isinstance(source, pathlib.Path):
            shutil.copyfile(source, path)
        else:
            path.write_bytes(source)
        path.chmod(mode)

    packages = licences.packages()
    plugins = [f"lib{name}.so" for name in licences.plugin_libraries(packages)]
    # Without libtorch, its plugin could not be opened.
    plugins = [name for name in plugins if libtorch or name != "libmodel_amplify.so"]
    put(built / "fedplug", "bin/fedplug", 0o755)
    for name in plugins:
        put(built / name, f"lib/fedplug/{name}", 0o644)
    if libtorch:
        # Of CUDA's build these are links into packages, whose libraries find one another by where they are.
        site = libtorch.parent / "site"
        for file in sorted([*site.glob("torch/lib/*.so*"), *site.glob("nvidia/**/*.so*")]):
            put(file, f"lib/fedplug/{file.relative_to(libtorch.parent)}", 0o644)
        # libtorch.so is a script for the linker.
        for file in sorted(set(libtorch.glob("*.so*")) - {libtorch / "libtorch.so"}):
            put(os.readlink(file).removeprefix("../") if file.is_symlink() else file, f"lib/fedplug/{file.name}", 0o644)
    program = prefix / "bin/fedplug"
    for shell, target in COMPLETIONS.items():
        put(subprocess.run([program, "completions", shell], check=True, capture_output=True).stdout, target, 0o644)
    manual = prefix / MANUAL
    manual.mkdir(parents=True, exist_ok=True)
    pages = subprocess.run([program, "man", manual], check=True, capture_output=True, text=True).stdout.split("\n")
    installed += [f"{MANUAL}/{pathlib.Path(page).name}" for page in pages if page]
    licences.write(prefix / DOCUMENTS, packages)
    installed += [f"{DOCUMENTS}/{file.name}" for file in (prefix / DOCUMENTS).iterdir()]
    put("".join(f"{target}\n" for target in [*sorted(installed), LIST]).encode(), LIST, 0o644)


def uninstall(prefix):
    """Removes what the list names, and the folders of fedplug alone."""
    if not (prefix / LIST).is_file():
        return
    for target in (prefix / LIST).read_text().splitlines():
        (prefix / target).unlink(missing_ok=True)
    for folder in ("lib/fedplug", DOCUMENTS):
        folders = [path for path in (prefix / folder).rglob("*") if path.is_dir() and not path.is_symlink()]
        for path in [*sorted(folders, reverse=True), prefix / folder]:
            # Somebody's own plugins may be there.
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


main()
