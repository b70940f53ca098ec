"""The version of the wheel is that of the workspace."""
import pathlib
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
__version__ = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
