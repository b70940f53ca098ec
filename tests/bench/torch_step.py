#!/usr/bin/env python3
"""Times a training step or an evaluation of AMPLIFY with a regression head in plain PyTorch, to stand beside fedplug's.

It prints one JSON line with the keys of `cargo run -p model-amplify --example step`: median, least and most seconds, tokens
a second, peak memory. A training step is forward, backward and optimiser; an evaluation is forward without gradients.

Three styles compute the same numbers:
  reference  as the published example does: an additive mask of -inf repeated over heads and rows, a mean over all
             positions, AdamW one parameter after the other on a CPU
  tuned      as one would write it for speed: a boolean mask of keys, a mean over real tokens, fused AdamW
  packed     tuned, with the sequences one after the other and no padding; on a GPU its attention needs bf16
With --check FOLDER it computes the predictions that FOLDER/expected.json holds in each style and fails if they differ.
"""
import argparse
import json
import math
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# Hidden size, layers, heads, intermediate size.
SIZES = {"tiny": (64, 2, 4, 256), "120M": (640, 24, 10, 2560), "350M": (960, 32, 15, 3840)}
VOCABULARY, PAD, LONGEST = 27, 0, 2048


class Norm(nn.Module):
    """RMSNorm, in 32 bits whatever comes in."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class FeedForward(nn.Module):
    """SwiGLU, with the gate and what it lets through in one matrix."""

    def __init__(self, width, intermediate):
        super().__init__()
        inner = math.ceil(int(2 * intermediate / 3) / 8) * 8
        self.w12 = nn.Linear(width, 2 * inner, bias=False)
        self.w3 = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Layer(nn.Module):
    def __init__(self, width, heads, intermediate):
        super().__init__()
        self.heads = heads
        for name in ("q", "k", "v", "wo"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        self.ffn = FeedForward(width, intermediate)
        self.attention_norm, self.ffn_norm = Norm(width), Norm(width)

    def forward(self, x, mask, turns):
        batch, length, width = x.shape
        normed = self.attention_norm(x)

        def split(project):
            return project(normed).view(batch, length, self.heads, width // self.heads)

        query, key, value = rotated(split(self.q), turns), rotated(split(self.k), turns), split(self.v)
        if isinstance(mask, Packed):
            seen = mask.attention(query[0], key[0], value[0])
        else:
            query, key, value = (one.transpose(1, 2) for one in (query, key, value))
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
        x = x + self.wo(seen.reshape(batch, length, width))
        return x + self.ffn(self.ffn_norm(x))


class Packed:
    """The sequences of a padded batch one after the other."""

    def __init__(self, ids):
        real = ids != PAD
        lengths = real.sum(dim=1)
        self.rows, self.positions = real.nonzero(as_tuple=True)
        self.ids, self.lengths, self.longest = ids[real][None], lengths, int(lengths.max())
        self.offsets = F.pad(lengths.cumsum(0), (1, 0)).int()
        self.mask = None if ids.is_cuda else self.rows[:, None] == self.rows[None]

    def attention(self, query, key, value):
        if self.mask is None:
            from torch.nn.attention.varlen import varlen_attn

            return varlen_attn(query, key, value, self.offsets, self.offsets, self.longest, self.longest)
        query, key, value = (one.transpose(0, 1)[None] for one in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)[0].transpose(0, 1)

    def mean(self, x):
        sums = x.new_zeros(len(self.lengths), x.shape[-1]).index_add(0, self.rows, x[0])
        return sums / self.lengths[:, None].to(x.dtype)


def rotated(x, turns):
    """Turns neighbouring pairs of features as complex numbers (rotary embedding)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2).to(x.dtype)


class Amplify(nn.Module):
    """The trunk up to its last layer, and a head for each task; parameters are named as the published files name them."""

    def __init__(self, width, layers, heads, intermediate, head_sizes=(128, 64, 32), tasks=1, dropout=0.1):
        super().__init__()
        self.heads = heads
        self.encoder = nn.Embedding(VOCABULARY, width, padding_idx=PAD)
        self.transformer_encoder = nn.ModuleList(Layer(width, heads, intermediate) for _ in range(layers))
        per_head = width // heads
        rates = 10000.0 ** (-torch.arange(0, per_head, 2).float() / per_head)
        angles = torch.arange(LONGEST).float()[:, None] * rates
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles), persistent=False)
        self.regressors = nn.ModuleList(head(width, head_sizes, dropout) for _ in range(tasks))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.uniform_(parameter, -0.02, 0.02)

    def forward(self, ids, task=0, style="tuned", all_positions=False):
        if isinstance(ids, Packed):
            x = self.encoder(ids.ids)
            for layer in self.transformer_encoder:
                x = layer(x, ids, self.turns[ids.positions])
            return self.regressors[task](ids.mean(F.normalize(x, dim=-1))).squeeze(-1)
        padding = ids == PAD
        if style == "reference":
            mask = torch.zeros(ids.shape, device=ids.device).masked_fill(padding, -torch.inf)
            mask = mask[:, None, None, :].repeat(1, self.heads, ids.shape[1], 1)
        else:
            mask = ~padding[:, None, None, :]
        x = self.encoder(ids)
        for layer in self.transformer_encoder:
            x = layer(x, mask, self.turns[: ids.shape[1]])
        x = F.normalize(x, dim=-1)
        if all_positions:
            pooled = x.mean(dim=1)
        else:
            real = (~padding)[:, :, None].to(x.dtype)
            pooled = (x * real).sum(dim=1) / real.sum(dim=1)
        return self.regressors[task](pooled).squeeze(-1)


def head(width, sizes, dropout):
    parts = []
    for size in sizes:
        parts += [nn.Linear(width, size), nn.GroupNorm(8, size), nn.GELU(), nn.Dropout(dropout)]
        width = size
    return nn.Sequential(*parts, nn.Linear(width, 1))


def check(folder):
    from safetensors.torch import load_file

    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    with open(f"{folder}/expected.json") as file:
        expected = json.load(file)
    sizes = [config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")]
    tasks = expected["num_targets"]
    model = Amplify(*sizes, expected["layer_sizes"], tasks, dropout=0.0).eval()
    weights = load_file(f"{folder}/model.safetensors") | load_file(f"{folder}/regressors.safetensors")
    missing, _ = model.load_state_dict(weights, strict=False)
    if missing:
        sys.exit(f"error: {folder}: no weights for {', '.join(missing)}")
    worst = 0.0
    for case in expected["forward"]:
        ids = torch.tensor(case["input_ids"])
        for key, all_positions in (("prediction_mean_over_all_positions", True), ("prediction_mean_over_tokens", False)):
            for style in ("reference", "tuned", "packed"):
                if style == "packed" and all_positions:
                    continue
                batch = Packed(ids) if style == "packed" else ids
                with torch.no_grad():
                    got = torch.stack([model(batch, task, style, all_positions) for task in range(tasks)], dim=1)
                worst = max(worst, (got - torch.tensor(case[key])).abs().max().item())
    print(json.dumps({"checked": folder, "largest_difference": worst}))
    if not worst < 1e-4:
        sys.exit("error: the predictions differ from those of the published code")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=SIZES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=240, help="of the longest sequence; the others have up to 24 fewer")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3, help="steps that are not timed")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--style", default="tuned", choices=["reference", "tuned", "packed"])
    parser.add_argument("--compile", choices=["default", "max-autotune"], help="run it through torch.compile in this mode")
    parser.add_argument("--evaluate", action="store_true", help="time an evaluation in place of a training step")
    parser.add_argument("--check", metavar="FOLDER")
    return parser.parse_args()


def tokens(options):
    """Random sequences padded with zeros, the first of them at full length."""
    random = torch.Generator().manual_seed(1)
    shortest = max(options.length - 24, 1)
    lengths = torch.randint(shortest, options.length + 1, (options.batch,), generator=random)
    lengths[0] = options.length
    ids = torch.randint(5, VOCABULARY, (options.batch, options.length), generator=random)
    return ids.masked_fill(torch.arange(options.length) >= lengths[:, None], PAD), int(lengths.sum())


def work(options):
    """What is timed, and how many tokens it works on."""
    torch.manual_seed(0)
    model = Amplify(*SIZES[options.size]).to(options.device)
    on_gpu = options.device.startswith("cuda")
    trunk = [parameter for name, parameter in model.named_parameters() if not name.startswith("regressors")]
    groups = [{"params": trunk, "lr": 1e-4}, {"params": list(model.regressors.parameters()), "lr": 1e-2}]
    if options.style != "reference":
        kind = {"fused": True}
    else:
        kind = {} if on_gpu else {"foreach": False}
    ids, count = tokens(options)
    ids = ids.to(options.device)
    if options.style == "packed":
        ids = Packed(ids)
    values = torch.randn(options.batch, generator=torch.Generator().manual_seed(2)).to(options.device)
    called = torch.compile(model, mode=options.compile) if options.compile else model
    half = torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.precision == "bf16")

    def predict():
        with half:
            return called(ids, 0, options.style, options.style == "reference")

    def evaluation():
        with torch.no_grad():
            predict()

    if options.evaluate:
        model.eval()
        return evaluation, count
    model.train()
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, **kind)

    def step():
        optimizer.zero_grad()
        F.mse_loss(predict().float(), values).backward()
        optimizer.step()

    return step, count


def main():
    options = arguments()
    if options.check:
        return check(options.check)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    on_gpu = options.device.startswith("cuda")
    once, count = work(options)

    def timed():
        begun = time.perf_counter()
        once()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    for _ in range(options.warm_up):
        timed()
    times = [timed() for _ in range(max(options.steps, 1))]
    median = statistics.median(times)
    memory = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "size": options.size, "batch": options.batch, "length": options.length,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu", "threads": torch.get_num_threads(),
        "precision": options.precision, "style": options.style, "compile": options.compile, "evaluate": options.evaluate,
        "steps": len(times), "median_s": median, "min_s": min(times), "max_s": max(times),
        "tokens_per_s": round(count / median), "peak_memory_MiB": round(memory / 2**20), "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
