"""Loads a folder that the plugin exported with LoRA, with nothing of the plugin.

    python load_adapter.py PLAIN FOLDER

PLAIN is the export of the same trunk without adapters. Reads `adapter` as PEFT stores adapters, adds them to the plain trunk
with NumPy, and compares with the trunk in FOLDER. Where `torch` and `peft` can be imported, PEFT does the same: it loads the
folder `adapter` into modules of the published names, and merges. Exits with 1 if anything differs.
"""

import json
import sys
from pathlib import Path

import numpy
from safetensors.numpy import load_file

TOLERANCE = 1e-6
PREFIX = "base_model.model."


def compare(what, merged, exported):
    if sorted(merged) != sorted(exported):
        sys.exit(f"{what}: other names: {sorted({*merged} ^ {*exported})}")
    worst = max(abs(merged[name] - exported[name]).max() for name in merged)
    print(f"{what}: {len(merged)} tensors, largest difference {worst:.1e}")
    if not worst <= TOLERANCE:
        sys.exit(f"{what}: allowed is {TOLERANCE:.0e}")


def with_numpy(plain, config, adapters):
    merged = dict(plain)
    layers = {name.removesuffix(".lora_A.weight") for name in adapters if name.endswith(".lora_A.weight")}
    if len(adapters) != 2 * len(layers) or not all(name.startswith(PREFIX) for name in adapters):
        sys.exit(f"unexpected names: {sorted(adapters)}")
    modules = {layer.removeprefix(PREFIX) for layer in layers}
    targeted = {name.removesuffix(".weight") for name in plain}
    targeted = {name for name in targeted if any(name.endswith(f".{target}") for target in config["target_modules"])}
    if modules != targeted:
        sys.exit(f"target_modules selects {sorted(targeted)}, and the file has {sorted(modules)}")
    for layer in layers:
        a, b = adapters[f"{layer}.lora_A.weight"], adapters[f"{layer}.lora_B.weight"]
        if a.shape[0] != config["r"] or b.shape[1] != config["r"]:
            sys.exit(f"{layer}: shapes {a.shape} and {b.shape} with r = {config['r']}")
        name = f"{layer.removeprefix(PREFIX)}.weight"
        added = config["lora_alpha"] / config["r"] * (b.astype(float) @ a.astype(float))
        merged[name] = (plain[name] + added).astype(numpy.float32)
    return merged


def with_peft(torch, peft, plain, folder):
    """PEFT replaces modules by their names, so empty modules with linear layers of these names will do."""
    root = torch.nn.Module()
    for name, tensor in plain.items():
        *path, module, kind = name.split(".")
        if kind != "weight" or tensor.ndim != 2:
            continue
        at = root
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        linear = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
        linear.weight.data.copy_(torch.from_numpy(tensor))
        at.add_module(module, linear)
    model = peft.PeftModel.from_pretrained(root, folder)
    keys = peft.utils.get_peft_model_state_dict(model)
    stored = load_file(folder / "adapter_model.safetensors")
    if sorted(keys) != sorted(stored):
        sys.exit(f"peft has other names: {sorted({*keys} ^ {*stored})}")
    if any((keys[name].numpy() != stored[name]).any() for name in stored):
        sys.exit("peft did not load the adapters' values")
    merged = model.merge_and_unload()
    return {name: tensor.numpy() for name, tensor in merged.state_dict().items()}


def main(plain, folder):
    plain, exported = load_file(plain / "model.safetensors"), load_file(folder / "model.safetensors")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    adapters = load_file(folder / "adapter" / "adapter_model.safetensors")
    if config["peft_type"] != "LORA":
        sys.exit(f"peft_type is {config['peft_type']}")
    compare("NumPy", with_numpy(plain, config, adapters), exported)
    try:
        import peft
        import torch
    except ImportError as error:
        return print(f"peft: not compared, {error}")
    merged = with_peft(torch, peft, plain, folder / "adapter")
    compare(f"peft {peft.__version__}", merged, {name: exported[name] for name in merged})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
