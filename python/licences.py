"""The licences of the program and its plugins: ours, and those of all crates in them."""
import json
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def packages():
    """All packages of the program and its plugins, as cargo describes them."""
    host = _output("rustc", "-vV").split("host: ")[1].split()[0]
    return json.loads(_output("cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host,
                              "--manifest-path", ROOT / "Cargo.toml"))["packages"]


def plugin_libraries(packages):
    """The names of the plugins' libraries."""
    folder = ROOT / "plugins"
    own = [package for package in packages if folder in pathlib.Path(package["manifest_path"]).parents]
    return sorted(target["name"] for package in own for target in package["targets"] if "cdylib" in target["kind"])


def write(folder, packages):
    """Writes our licences, and those of all crates, each text once."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ROOT.glob("LICENSE-*"):
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


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
