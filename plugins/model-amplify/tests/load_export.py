"""Loads a folder that the plugin exported, with nothing of the plugin.

    python load_export.py FOLDER [PREDICTIONS]

Reads the tensors with `safetensors`, checks their names and shapes against `config.json` and `fedplug.json`, the tokenizer's
settings against the tokenizer, and, where
`torch` can be imported, rebuilds trunk and heads from these two files and compares with the predictions of a JSON file:
`{"TASK": {"sequences": [...], "predictions": [...]}}`. Exits with 1 if anything differs.
"""

import json
import sys
from pathlib import Path

from safetensors.numpy import load_file

TOLERANCE = 1e-4


def trunk_shapes(config):
    """What `model.safetensors` has to hold."""
    width, vocabulary, inner = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    shapes = {"encoder.weight": (vocabulary, width), "decoder.weight": (vocabulary, width), "decoder.bias": (vocabulary,)}

    def norm(name):
        shapes[f"{name}.weight"] = (width,)
        if not config["rms_norm"]:
            shapes[f"{name}.bias"] = (width,)

    def linear(name, inputs, outputs, bias):
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    for number in range(config["num_hidden_layers"]):
        block = f"transformer_encoder.{number}"
        for name in ("q", "k", "v", "wo"):
            linear(f"{block}.{name}", width, width, config["att_bias"])
        if config["hidden_act"].lower() == "swiglu":
            half = -(-(2 * inner // 3) // 8) * 8
            linear(f"{block}.ffn.w12", width, 2 * half, config["ffn_bias"])
            linear(f"{block}.ffn.w3", half, width, config["ffn_bias"])
        else:
            linear(f"{block}.ffn.0", width, inner, config["ffn_bias"])
            linear(f"{block}.ffn.2", inner, width, config["ffn_bias"])
        norm(f"{block}.attention_norm")
        norm(f"{block}.ffn_norm")
    if config["layer_norm_after_embedding"]:
        norm("layer_norm_1")
    if config["layer_norm_before_last_layer"]:
        norm("layer_norm_2")
    return shapes


def head_shapes(config, heads):
    """What `regressors.safetensors` has to hold."""
    shapes = {}
    for task in heads["tasks"]:
        width = config["hidden_size"]
        for layer, size in enumerate([*heads["layer-sizes"], 1]):
            name = f"regressors.{task['regressor']}"
            shapes[f"{name}.{4 * layer}.weight"], shapes[f"{name}.{4 * layer}.bias"] = (size, width), (size,)
            if layer < len(heads["layer-sizes"]):
                shapes[f"{name}.{4 * layer + 1}.weight"] = shapes[f"{name}.{4 * layer + 1}.bias"] = (size,)
            width = size
    return shapes


def check_tokenizer(folder, read):
    """Whether the settings beside the tokenizer name tokens that it knows, and, where there are `transformers`, whether these
    load both and pad."""
    if not (folder / "tokenizer_config.json").exists():
        sys.exit("tokenizer_config.json: is missing")
    vocabulary, settings = read("tokenizer.json")["model"]["vocab"], read("tokenizer_config.json")
    tokens = {name: token for name, token in settings.items() if name.endswith("_token")}
    unknown = sorted(name for name, token in tokens.items() if token not in vocabulary)
    if unknown or "pad_token" not in tokens:
        sys.exit(f"tokenizer_config.json: no pad_token, or tokens that the tokenizer does not know: {unknown}")
    print(f"tokenizer_config.json: {len(tokens)} tokens")
    try:
        import transformers
    except ImportError:
        return
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(["LAG", "V|"], padding=True, pad_to_multiple_of=8)["input_ids"]
    word = lambda sequence: [vocabulary[token] for token in ("<bos>", *sequence, "<eos>")]
    expected = [word(sequence) + [vocabulary["<pad>"]] * (6 - len(sequence)) for sequence in ("LAG", "V|")]
    if rows != expected:
        sys.exit(f"transformers {transformers.__version__}: token ids are {rows}, not {expected}")
    print(f"transformers {transformers.__version__}: loads the tokenizer")


def check(file, tensors, expected):
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        sys.exit(f"{file}: " + ", ".join(f"{name} is {found.get(name)}, not {expected.get(name)}" for name in wrong))
    if any(tensor.dtype != "float32" for tensor in tensors.values()):
        sys.exit(f"{file}: not all tensors are float32")
    print(f"{file}: {len(found)} tensors")


class Model:
    """Trunk and heads in plain PyTorch, for one sequence at a time."""

    def __init__(self, torch, config, heads, tokenizer, tensors):
        self.torch, self.config, self.heads = torch, config, heads
        self.tensors = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        self.vocabulary = tokenizer["model"]["vocab"]

    def linear(self, name, x):
        return self.torch.nn.functional.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def norm(self, name, x):
        if not self.config["rms_norm"]:
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.config["norm_eps"]).sqrt() * self.tensors[f"{name}.weight"]
        return x + self.tensors.get(f"{name}.bias", 0)

    def attention(self, block, x):
        torch, (length, width), heads = self.torch, x.shape, self.config["num_attention_heads"]
        size = width // heads
        angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]

        def turned(name):
            pairs = self.linear(f"{block}.{name}", x).view(length, heads, size // 2, 2)
            even, odd = pairs.unbind(-1)
            return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).view(length, heads, size)

        scores = torch.einsum("qhd,khd->hqk", turned("q"), turned("k")) / size**0.5
        value = self.linear(f"{block}.v", x).view(length, heads, size)
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
        return self.linear(f"{block}.wo", mixed.reshape(length, width))

    def feed_forward(self, block, x):
        functional, act = self.torch.nn.functional, self.config["hidden_act"].lower()
        if act == "swiglu":
            gate, up = self.linear(f"{block}.w12", x).chunk(2, -1)
            return self.linear(f"{block}.w3", functional.silu(gate) * up)
        return self.linear(f"{block}.2", getattr(functional, act)(self.linear(f"{block}.0", x)))

    def predict(self, task, sequence):
        tokens = ["<bos>", *sequence, "<eos>"]
        x = self.tensors["encoder.weight"][[self.vocabulary[token] for token in tokens]]
        if self.config["layer_norm_after_embedding"]:
            x = self.norm("layer_norm_1", x)
        for number in range(self.config["num_hidden_layers"]):
            block = f"transformer_encoder.{number}"
            x = x + self.attention(block, self.norm(f"{block}.attention_norm", x))
            x = x + self.feed_forward(f"{block}.ffn", self.norm(f"{block}.ffn_norm", x))
        x = (x / x.norm(dim=-1, keepdim=True)).mean(0, keepdim=True)
        head = f"regressors.{task['regressor']}"
        sizes = self.heads["layer-sizes"]
        for layer in range(len(sizes)):
            norm = [self.tensors[f"{head}.{4 * layer + 1}.{part}"] for part in ("weight", "bias")]
            x = self.torch.nn.functional.group_norm(self.linear(f"{head}.{4 * layer}", x), 8, *norm)
            x = self.torch.nn.functional.gelu(x)
        return self.linear(f"{head}.{4 * len(sizes)}", x).item()


def main(folder, predictions=None):
    def read(name):
        return json.loads((folder / name).read_text())

    config = read("config.json")
    check_tokenizer(folder, read)
    trunk = load_file(folder / "model.safetensors")
    check("model.safetensors", trunk, trunk_shapes(config))
    if not (folder / "regressors.safetensors").exists():
        return print("no heads")
    heads = read("fedplug.json")
    regressors = load_file(folder / "regressors.safetensors")
    check("regressors.safetensors", regressors, head_shapes(config, heads))
    if predictions is None:
        return None
    try:
        import torch
    except ImportError:
        return print("predictions: not compared, there is no torch")
    model = Model(torch, config, heads, read("tokenizer.json"), {**trunk, **regressors})
    worst, count = 0.0, 0
    for task in heads["tasks"]:
        expected = json.loads(predictions.read_text())[task["name"]]
        for sequence, value in zip(expected["sequences"], expected["predictions"], strict=True):
            with torch.no_grad():
                worst, count = max(worst, abs(model.predict(task, sequence) - value)), count + 1
    print(f"predictions: {count} compared, largest difference {worst:.1e}")
    if count == 0 or not worst <= TOLERANCE:
        sys.exit(f"predictions: allowed is {TOLERANCE:.0e}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
