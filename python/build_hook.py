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
import sys
import sysconfig

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import licences  # noqa: E402
# Where PyTorch's libraries are, seen from the package's folder in the same site-packages.
RUNPATH = "$ORIGIN/../torch/lib"


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        built = pathlib.Path(os.environ["FEDPLUG_BUILT"])
        stage = HERE.parent / "target" / "wheel" / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        plugins, packages = {}, licences.packages()
        for file in [built / "fedplug", *(built / f"lib{name}.so" for name in licences.plugin_libraries(packages))]:
            copy = pathlib.Path(shutil.copy(file, stage / file.name))
            if os.environ.get("FEDPLUG_STRIP"):
                subprocess.run(["strip", copy], check=True)
            if runpath(copy):
                subprocess.run(["patchelf", "--set-rpath", RUNPATH, copy], check=True)
            if file.suffix:
                plugins[file.name] = {"sha256": hashlib.sha256(copy.read_bytes()).hexdigest(), "bytes": copy.stat().st_size}
        licences.write(stage / "licenses", packages)
        (stage / "plugins.json").write_text(json.dumps(plugins, indent=2, sort_keys=True) + "\n")
        files = sorted(file for file in stage.rglob("*") if file.is_file())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform(files)}"
        build_data["force_include"].update({str(file): f"fedplug/{file.relative_to(stage)}" for file in files})


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
