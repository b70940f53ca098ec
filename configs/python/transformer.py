"""A transformer of Hugging Face with a regression head for each task. It is small and random: nothing is downloaded."""
from dataclasses import dataclass
from typing import Annotated

import torch
from transformers import BertConfig, BertModel

import fedplug

LETTERS = "ACDEFGHIKLMNPQRSTVWY|"


class Transformer(fedplug.Model):
    arrays = "torch"

    @dataclass
    class Config:
        #: The step size of AdamW.
        learning_rate: Annotated[float, fedplug.Bounds(gt=0)] = 1e-3
        #: The size of the hidden states, a multiple of 4.
        hidden_size: Annotated[int, fedplug.Bounds(ge=4, multiple_of=4)] = 32
        #: The layers.
        layers: Annotated[int, fedplug.Bounds(ge=1)] = 2
        #: The longest text; the rest of a longer one is not read.
        length: Annotated[int, fedplug.Bounds(ge=2)] = 64

    def __init__(self, config, setup, ctx):
        torch.manual_seed(ctx.experiment_seed & (2**63 - 1))
        size, self.device = config.hidden_size, ctx.device
        trunk = BertConfig(vocab_size=len(LETTERS) + 2, hidden_size=size, num_hidden_layers=config.layers, num_attention_heads=4,
                           intermediate_size=4 * size, max_position_embeddings=config.length)
        # A head has its task's number, at each client the same. The filter `exclude-params` keeps the heads private.
        heads = {str(setup.number(task)): torch.nn.Linear(size, 1) for task in setup.held}
        self.module = torch.nn.ModuleDict({"trunk": BertModel(trunk, add_pooling_layer=False), "heads": torch.nn.ModuleDict(heads)})
        self.module.to(self.device)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=config.learning_rate)
        self.batch_size = 16

    def forward(self, task, rows):
        texts = [text[: self.config.length] for text in rows[task.inputs[0]]]
        tokens = torch.zeros(len(texts), max(2, *map(len, texts)), dtype=torch.long)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.tensor([LETTERS.find(letter) + 2 for letter in text])
        mask = (tokens > 0).to(self.device)
        hidden = self.module["trunk"](tokens.to(self.device), attention_mask=mask).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.module["heads"][str(self.setup.number(task.name))](mean)[:, 0]

    def step(self, task, batch, ctx):
        loss = torch.nn.functional.mse_loss(self.forward(task, batch), batch[task.target].to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def predict(self, task, rows, ctx):
        return self.forward(task, rows)
