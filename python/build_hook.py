"""Puts the program, its plugins and their licences into the wheel: `make wheel` has built them.

The platform's tag is the honest one: the newest version of glibc that one of the files asks for.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = pathlib.Path(__file__).resolve().parent
# Where PyTorch's libraries are, seen from the package's folder in the same site-packages.
RUNPATH = "$ORIGIN/../torch/lib"


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        release = pathlib.Path(os.environ["FEDPLUG_RELEASE"])
        stage = HERE.parent / "target" / "wheel" / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        plugins, packages = {}, metadata()
        for file in [release / "fedplug", *(release / f"lib{name}.so" for name in plugin_libraries(packages))]:
            copy = pathlib.Path(shutil.copy(file, stage / file.name))
            if runpath(copy):
                subprocess.run(["patchelf", "--set-rpath", RUNPATH, copy], check=True)
            if file.suffix:
                plugins[file.name] = {"sha256": hashlib.sha256(copy.read_bytes()).hexdigest(), "bytes": copy.stat().st_size}
        licences(stage / "licenses", packages)
        (stage / "plugins.json").write_text(json.dumps(plugins, indent=2, sort_keys=True) + "\n")
        files = sorted(file for file in stage.rglob("*") if file.is_file())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform(files)}"
        build_data["force_include"].update({str(file): f"fedplug/{file.relative_to(stage)}" for file in files})


def metadata():
    """All packages of the program and its plugins, as cargo describes them."""
    host = output("rustc", "-vV").split("host: ")[1].split()[0]
    return json.loads(output("cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host,
                             "--manifest-path", HERE.parent / "Cargo.toml"))["packages"]


def plugin_libraries(packages):
    folder = HERE.parent / "plugins"
    own = [package for package in packages if folder in pathlib.Path(package["manifest_path"]).parents]
    return sorted(target["name"] for package in own for target in package["targets"] if "cdylib" in target["kind"])


def licences(folder, packages):
    """Our licences, and those of all crates in the program and its plugins, each text once."""
    folder.mkdir()
    root = HERE.parent
    for file in root.glob("LICENSE-*"):
        shutil.copy(file, folder / file.name)
    texts = {}
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        if package["source"] is None:
            continue
        name = f"{package['name']} {package['version']} ({package['license'] or 'see the text'})"
        found = [file for file in sorted(pathlib.Path(package["manifest_path"]).parent.iterdir())
                 if re.match(r"(?i)(licen[cs]e|copying|notice|unlicense)", file.name) and file.is_file()]
        for text in {file.read_text(errors="replace").strip() for file in found} or {"(the crate has no file with its licence)"}:
            texts.setdefault(text, []).append(name)
    parts = ["\n".join(names) + "\n\n" + text for text, names in sorted(texts.items(), key=lambda item: item[1])]
    (folder / "THIRD-PARTY.txt").write_text(f"\n\n{'=' * 100}\n\n".join(parts) + "\n")


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def runpath(file):
    return output("patchelf", "--print-rpath", file).strip()


def platform(files):
    """manylinux's tag for these files, or this machine's where that is not Linux with glibc."""
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if not machine.startswith("linux_"):
        return machine
    versions = [re.findall(r"GLIBC_2\.(\d+)", output("objdump", "-T", file)) for file in files if file.suffix in ("", ".so") and file.parent.name == "stage"]
    newest = max(int(minor) for of_file in versions for minor in of_file)
    return f"manylinux_2_{newest}_{machine.removeprefix('linux_')}"
