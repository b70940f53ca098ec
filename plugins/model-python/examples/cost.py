"""A model of 250 tensors, to measure what it costs to send them."""
from dataclasses import dataclass

import numpy as np

import fedplug


class Large(fedplug.Model):
    @dataclass
    class Config:
        mebibytes: int = 450  #: The size of all parameters.

    def __init__(self, config, setup, ctx):
        self.params = {f"tensor-{k}": np.zeros(config.mebibytes * (1 << 18) // 250, "f4") for k in range(250)}
        self.batch_size = 1000

    def step(self, task, batch, ctx):
        self.params = {name: array + 1 for name, array in self.params.items()}
        return 0.0

    def predict(self, task, rows, ctx):
        return np.zeros(rows.rows)

    def export(self, folder, ctx):
        """The cheapest call."""
        return ()


class LargeTorch(Large):
    def __init__(self, config, setup, ctx):
        super().__init__(config, setup, ctx)
        import torch

        self.params = {f"tensor-{k}": torch.zeros(config.mebibytes * (1 << 18) // 250) for k in range(250)}
