#!/usr/bin/env python3
"""Writes the folders beside this file: small random trunks and heads, and what training them must give.

    python reference.py        with torch 2.11.0, numpy and safetensors

It follows the published description of AMPLIFY and of the fine-tuning job, shares no code with the plugin, and leaves all
derivatives to torch's autograd and all steps to torch's AdamW, in fp64 from weights that are fp32. Sequences and labels are
random: they show that two programs compute the same, and nothing about proteins. In the heads' norms each of the eight
groups has several numbers: the norm of a single number is its bias, and hides whatever happens before it.

Each folder holds a checkpoint in the published formats and `expected.json`: what the untrained model computes, the losses,
gradient norms and rates of each training step, and what the model is at the end. Beside the right numbers stand those of
`MISTAKES`, training runs with one deliberate error each: a test that cannot tell these from the right ones shows nothing.
"""
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).parent
SPECIAL = ["<pad>", "<unk>", "<mask>", "<bos>", "<eos>"]
VOCABULARY = SPECIAL + list("|LAGVSERTIDPKQNFYMHWCB")
PAD, BOS, EOS = 0, 3, 4
GROUPS, NORM_EPS, LENGTH_EPS = 8, 1e-5, 1e-12
TRUNK_LR, HEADS_LR, WEIGHT_DECAY = 2e-3, 1e-2, 0.1
ROUNDS, BATCH = 3, 4
# Rows of the two tasks: the second one's last batch is a single row.
ROWS = (11, 5)

SHAPES = {
    "swiglu": dict(hidden_act="SwiGLU", rms_norm=True, layer_norm_after_embedding=False, att_bias=False, ffn_bias=False),
    "relu": dict(hidden_act="relu", rms_norm=False, layer_norm_after_embedding=True, att_bias=True, ffn_bias=True),
}
LAYER_SIZES = [48, 32]

# What is done wrong in each, as a change of the settings of `Run`.
MISTAKES = {
    "the trunk is not trained": dict(frozen=True),
    "no weight decay": dict(weight_decay=0.0),
    "weight decay added to the gradient": dict(coupled=True),
    "no weight decay of norms and biases": dict(decays=lambda name, p: p.dim() > 1),
    "the optimiser is reset each round": dict(resets=True),
    "momentum of 0.8": dict(betas=(0.8, 0.999)),
    "no bias correction": dict(bias_correction=False),
    "gradients of unused heads are zeros": dict(zeros=True),
    "the heads' rate for the trunk": dict(rates=(HEADS_LR, HEADS_LR)),
    "the trunk's rate for the heads": dict(rates=(TRUNK_LR, TRUNK_LR)),
    "no schedule": dict(schedule="none"),
    "a schedule from the first round on": dict(schedule="from the start"),
    "a schedule over the first task's batches": dict(schedule="first task"),
    "a rate that is one step early": dict(schedule="early"),
    "the sum of squares as the loss": dict(loss=lambda p, y: ((p - y) ** 2).sum()),
    "the absolute error as the loss": dict(loss=lambda p, y: (p - y).abs().mean()),
    "one head for all tasks": dict(one_head=True),
    "the mean over tokens": dict(all_positions=False),
    "the sum over positions": dict(summed=True),
    "positions of their own length": dict(directions=False),
    "attention to padding": dict(masked=False),
    "no rotary embedding": dict(rotary="none"),
    "rotary pairs half a head apart": dict(rotary="halves"),
    "norms after attention and feed-forward": dict(pre_norm=False),
    "the last norm before pooling": dict(final_norm=True),
    "a norm over all features of the heads": dict(groups=1),
    "batches in another order": dict(reverse=True),
    "an embedding of padding that learns": dict(pad_learns=True),
}


def swiglu_size(intermediate):
    return math.ceil(int(2 * intermediate / 3) / 8) * 8


class Run:
    """A model and its training, with the settings that a mistake changes."""

    frozen = coupled = resets = zeros = one_head = summed = final_norm = reverse = pad_learns = False
    bias_correction = all_positions = directions = masked = pre_norm = True
    weight_decay, betas, rates, schedule, rotary, groups = WEIGHT_DECAY, (0.9, 0.999), (TRUNK_LR, HEADS_LR), "right", "pairs", GROUPS
    decays = staticmethod(lambda name, p: True)
    loss = staticmethod(F.mse_loss)

    def __init__(self, config, tensors, **settings):
        for name, value in settings.items():
            setattr(self, name, value)
        self.config = config
        self.p = {name: tensor.double().requires_grad_() for name, tensor in tensors.items()}

    def linear(self, name, x):
        return F.linear(x, self.p[f"trunk.{name}.weight"], self.p.get(f"trunk.{name}.bias"))

    def norm(self, name, x):
        weight, eps = self.p[f"trunk.{name}.weight"], self.config["norm_eps"]
        if self.config["rms_norm"]:
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight
        return F.layer_norm(x, x.shape[-1:], weight, self.p[f"trunk.{name}.bias"], eps)

    def turned(self, x):
        """Rotary position embedding of (batch, heads, length, features)."""
        length, size = x.shape[-2:]
        if self.rotary == "none":
            return x
        angle = torch.arange(length)[:, None] * (10000.0 ** (-torch.arange(0, size, 2) / size))[None]
        cos, sin = angle.double().cos(), angle.double().sin()
        if self.rotary == "halves":
            a, b = x.chunk(2, -1)
            return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    def attention(self, block, x, real):
        heads = self.config["num_attention_heads"]
        q, k, v = (self.linear(f"{block}.{n}", x).unflatten(-1, (heads, -1)).transpose(1, 2) for n in "qkv")
        scores = self.turned(q) @ self.turned(k).transpose(-1, -2) / q.shape[-1] ** 0.5
        if self.masked:
            scores = scores.masked_fill(~real[:, None, None], -math.inf)
        return self.linear(f"{block}.wo", (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))

    def feed_forward(self, block, x):
        if self.config["hidden_act"] == "SwiGLU":
            gate, value = self.linear(f"{block}.ffn.w12", x).chunk(2, -1)
            return self.linear(f"{block}.ffn.w3", F.silu(gate) * value)
        return self.linear(f"{block}.ffn.2", F.relu(self.linear(f"{block}.ffn.0", x)))

    def hidden(self, ids):
        """The last block's output, before the final norm."""
        real = ids != PAD
        x = F.embedding(ids, self.p["trunk.encoder.weight"], padding_idx=None if self.pad_learns else PAD)
        if self.config["layer_norm_after_embedding"]:
            x = self.norm("layer_norm_1", x)
        for number in range(self.config["num_hidden_layers"]):
            block = f"transformer_encoder.{number}"
            attention = lambda x: self.attention(block, x, real)
            feed_forward = lambda x: self.feed_forward(block, x)
            for layer, norm in ((attention, f"{block}.attention_norm"), (feed_forward, f"{block}.ffn_norm")):
                x = x + (layer(self.norm(norm, x)) if self.pre_norm else self.norm(norm, layer(x)))
        return x

    def logits(self, hidden):
        return self.linear("decoder", self.norm("layer_norm_2", hidden))

    def pooled(self, ids, all_positions):
        hidden = self.hidden(ids)
        if self.final_norm:
            hidden = self.norm("layer_norm_2", hidden)
        if self.directions:
            hidden = hidden / hidden.norm(dim=-1, keepdim=True).clamp_min(LENGTH_EPS)
        counted = torch.ones_like(ids, dtype=torch.double) if all_positions else (ids != PAD).double()
        total = (hidden * counted[..., None]).sum(1)
        return total if self.summed else total / counted.sum(1, keepdim=True)

    def predict(self, task, ids, all_positions):
        x, head = self.pooled(ids, all_positions), f"regressors.{0 if self.one_head else task}"
        for layer in range(len(LAYER_SIZES)):
            name = lambda offset: (self.p[f"{head}.{4 * layer + offset}.{part}"] for part in ("weight", "bias"))
            x = F.gelu(F.group_norm(F.linear(x, *name(0)), self.groups, *name(1), NORM_EPS))
        last = f"{head}.{4 * len(LAYER_SIZES)}"
        return F.linear(x, self.p[f"{last}.weight"], self.p[f"{last}.bias"]).squeeze(-1)

    def optimizer(self):
        groups = []
        for prefix, rate in zip(("trunk.", "regressors."), self.rates):
            named = [(name, p) for name, p in self.p.items() if name.startswith(prefix)]
            for decays in (True, False):
                chosen = [p for name, p in named if self.decays(name, p) == decays]
                decay = self.weight_decay if decays else 0.0
                groups.append(dict(params=chosen, lr=rate, base=rate, weight_decay=decay, trunk=prefix == "trunk."))
        kind = torch.optim.Adam if self.coupled else torch.optim.AdamW
        return kind([group for group in groups if group["params"]], betas=self.betas, eps=1e-8)

    def left(self, number, step_round, batches):
        """What is left of the rates at a step."""
        a_round, first_task = sum(batches), batches[0]
        right = (number - a_round, a_round * (ROUNDS - 1))
        done, total = {
            "right": right,
            "none": (0, 1),
            "from the start": (number, a_round * ROUNDS),
            "first task": (right[0], first_task * (ROUNDS - 1)),
            "early": (right[0] + 1, right[1]),
        }[self.schedule]
        return 1.0 if step_round == 0 and self.schedule != "from the start" else max(0.0, 1 - done / total)

    def train(self, steps, batches):
        """Takes the steps, and says of each what it did."""
        optimizer, told = self.optimizer(), []
        if self.frozen:
            for name, p in self.p.items():
                p.requires_grad_(not name.startswith("trunk."))
        order = list(steps)
        if self.reverse:
            for number in range(ROUNDS):
                a_round = sum(batches)
                order[number * a_round:(number + 1) * a_round] = order[number * a_round:(number + 1) * a_round][::-1]
        for number, step in enumerate(order):
            if self.resets and step["round"] > 0 and order[number - 1]["round"] != step["round"]:
                optimizer = self.optimizer()
            left = self.left(number, step["round"], batches)
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * left
            optimizer.zero_grad(set_to_none=not self.zeros)
            if self.zeros and number == 0:
                for p in self.p.values():
                    p.grad = torch.zeros_like(p)
            predicted = self.predict(step["task"], encode(step["sequences"]), self.all_positions)
            loss = self.loss(predicted, torch.tensor(step["labels"], dtype=torch.double))
            loss.backward()
            squares = [p.grad.square().sum() for p in self.p.values() if p.grad is not None]
            norm = torch.stack(squares).sum().sqrt().item()
            if not self.bias_correction:
                for group in optimizer.param_groups:
                    self.uncorrected(optimizer, group)
            else:
                optimizer.step()
            rates = (self.rates[0] * left, self.rates[1] * left)
            told.append(dict(loss=loss.item(), grad_norm=norm, lr_trunk=rates[0], lr_regressor=rates[1]))
        return told

    def uncorrected(self, optimizer, group):
        """AdamW that takes the moments as they are."""
        with torch.no_grad():
            for p in (p for p in group["params"] if p.grad is not None):
                state = optimizer.state[p]
                m, v = state.setdefault("m", torch.zeros_like(p)), state.setdefault("v", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - self.betas[0])
                v.mul_(self.betas[1]).addcmul_(p.grad, p.grad, value=1 - self.betas[1])
                p.mul_(1 - group["lr"] * group["weight_decay"]).addcdiv_(m, v.sqrt() + 1e-8, value=-group["lr"])


def encode(sequences):
    """Token ids, padded to the longest rounded up to 8."""
    rows = [[BOS, *(VOCABULARY.index(letter) for letter in sequence), EOS] for sequence in sequences]
    length = -(-max(map(len, rows)) // 8) * 8
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])


def tensors(config, generator):
    """Random weights, large enough that attention attends, and no two parameters alike."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    made = {}

    def put(name, *shape, scale, mean=0.0):
        made[name] = (mean + scale * (2 * torch.rand(shape, generator=generator) - 1)).float()

    def linear(name, inputs, outputs, bias, scale=0.4):
        put(f"{name}.weight", outputs, inputs, scale=scale)
        if bias:
            put(f"{name}.bias", outputs, scale=scale)

    def norm(name, bias=not config["rms_norm"], size=width):
        put(f"{name}.weight", size, scale=0.4, mean=1.0)
        if bias:
            put(f"{name}.bias", size, scale=0.4)

    put("trunk.encoder.weight", len(VOCABULARY), width, scale=1.0)
    if config["layer_norm_after_embedding"]:
        norm("trunk.layer_norm_1")
    for number in range(config["num_hidden_layers"]):
        block = f"trunk.transformer_encoder.{number}"
        for name in ("q", "k", "v", "wo"):
            linear(f"{block}.{name}", width, width, config["att_bias"])
        if config["hidden_act"] == "SwiGLU":
            linear(f"{block}.ffn.w12", width, 2 * swiglu_size(inner), config["ffn_bias"])
            linear(f"{block}.ffn.w3", swiglu_size(inner), width, config["ffn_bias"])
        else:
            linear(f"{block}.ffn.0", width, inner, config["ffn_bias"])
            linear(f"{block}.ffn.2", inner, width, config["ffn_bias"])
        norm(f"{block}.attention_norm")
        norm(f"{block}.ffn_norm")
    norm("trunk.layer_norm_2")
    linear("trunk.decoder", width, len(VOCABULARY), True)
    for task in range(len(ROWS)):
        inputs = width
        for layer, size in enumerate(LAYER_SIZES):
            linear(f"regressors.{task}.{4 * layer}", inputs, size, True, scale=1 / inputs**0.5)
            norm(f"regressors.{task}.{4 * layer + 1}", bias=True, size=size)
            inputs = size
        linear(f"regressors.{task}.{4 * len(LAYER_SIZES)}", inputs, 1, True, scale=1 / inputs**0.5)
    return made


def tokenizer():
    special = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, token in enumerate(SPECIAL)
    ]
    bos, eos = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<bos>", "<eos>"))
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}, eos],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                token: {"id": token, "ids": [VOCABULARY.index(token)], "tokens": [token]} for token in ("<bos>", "<eos>")
            },
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {t: i for i, t in enumerate(VOCABULARY)}, "unk_token": "<unk>"},
    }


def rounded(value):
    """Eight digits of every number, which is what fp32 can be compared by."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def trained(config, made, steps, batches, probe, **settings):
    """A training run: the model, what each step did, and what it predicts at the end."""
    run = Run(config, made, **settings)
    told = run.train(steps, batches)
    with torch.no_grad():
        predictions = [run.predict(task, probe, run.all_positions) for task in range(len(ROWS))]
    return run, told, torch.stack(predictions, -1)


def write(name, switches, seed):
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    config = dict(
        model_type="AMPLIFY", architectures=["AMPLIFY"], hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, vocab_size=len(VOCABULARY), pad_token_id=PAD, unk_token_id=1, mask_token_id=2,
        bos_token_id=BOS, eos_token_id=EOS, max_length=64, dropout_prob=0, norm_eps=1e-5,
        embedding_init_range=0.02, decoder_init_range=0.02, layer_norm_before_last_layer=True, **switches,
    )
    made = tensors(config, generator)
    sequence = lambda low, high: "".join(rng.choices(VOCABULARY[6:], k=rng.randint(low, high)))
    chains = lambda: f"{sequence(3, 24)}|{sequence(3, 24)}"

    # Labels of mean 0 and deviation 1 in each task, as standardised ones are.
    data = []
    for rows in ROWS:
        labels = torch.randn(rows, generator=generator, dtype=torch.double)
        labels = (labels - labels.mean()) / labels.std(correction=0)
        data.append([(chains(), round(label, 6)) for label in labels.tolist()])
    steps, batches = [], [math.ceil(rows / BATCH) for rows in ROWS]
    for number in range(ROUNDS):
        for task, rows in enumerate(data):
            rows = rng.sample(rows, len(rows))
            for start in range(0, len(rows), BATCH):
                batch = rows[start:start + BATCH]
                sequences, labels = [s for s, _ in batch], [label for _, label in batch]
                steps.append(dict(round=number, task=task, sequences=sequences, labels=labels))

    cases = [[chains() for _ in range(3)], ["EVQLV|DIQMTQ", "A", sequence(50, 50)]]
    right = Run(config, made)
    forward = []
    with torch.no_grad():
        for sequences in cases:
            ids = encode(sequences)
            hidden = right.hidden(ids)
            predicted = lambda all_positions: torch.stack([right.predict(t, ids, all_positions) for t in range(len(ROWS))], -1)
            forward.append(dict(
                sequences=sequences, input_ids=ids, logits_row0=right.logits(hidden)[0], hidden_first_tokens=hidden[:, :3],
                pooled_mean_over_all_positions=right.pooled(ids, True), pooled_mean_over_tokens=right.pooled(ids, False),
                prediction_mean_over_all_positions=predicted(True), prediction_mean_over_tokens=predicted(False),
            ))
    probe = encode(cases[0])
    run, told, predictions = trained(config, made, steps, batches, probe)
    mistakes = {}
    for mistake, settings in MISTAKES.items():
        _, wrong, wrong_predictions = trained(config, made, steps, batches, probe, **settings)
        losses, norms = [step["loss"] for step in wrong], [step["grad_norm"] for step in wrong]
        mistakes[mistake] = dict(losses=losses, grad_norms=norms, final_predictions=wrong_predictions)
        apart = [abs(a["loss"] - b) / abs(a["loss"]) for a, b in zip(told, losses)]
        apart += [abs(a["grad_norm"] - b) / a["grad_norm"] for a, b in zip(told, norms)]
        apart += ((predictions - wrong_predictions).abs() / predictions.abs()).flatten().tolist()
        print(f"{name}: {mistake}: shows by {max(apart):.1e}")
    a_round = sum(batches)
    expected = dict(
        source="reference.py", layer_sizes=LAYER_SIZES, num_targets=len(ROWS), dropout=0.0, weight_decay=WEIGHT_DECAY,
        forward=forward, train=[{**step, **did} for step, did in zip(steps, told)],
        lr_decay_total_steps=a_round * (ROUNDS - 1),
        final_parameter_sums={name: p.sum().item() for name, p in run.p.items()},
        final_parameter_norms={name: p.norm().item() for name, p in run.p.items()},
        final_predictions=predictions,
    )

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    trunk = {n.removeprefix("trunk."): t for n, t in made.items() if n.startswith("trunk.")}
    save_file(trunk, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({n: t for n, t in made.items() if n not in {f"trunk.{t}" for t in trunk}}, folder / "regressors.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()) + "\n")
    text = ",\n".join(f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in expected.items() if key != "mistakes")
    wrong = ",\n".join(f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in mistakes.items())
    (folder / "expected.json").write_text("{\n" + text + ',\n"mistakes": {\n' + wrong + "\n}}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, (name, switches) in enumerate(SHAPES.items()):
        write(name, switches, seed=2026 + number)
