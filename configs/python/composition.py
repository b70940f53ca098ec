"""A model in NumPy: linear regression on the share of each letter, with a private head for each task."""
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import fedplug

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


class Composition(fedplug.Model):
    @dataclass
    class Config:
        #: The size of a step.
        learning_rate: Annotated[float, fedplug.Bounds(gt=0, le=1)] = 0.1
        #: How many values are computed from the letters.
        hidden_size: Annotated[int, fedplug.Bounds(ge=1)] = 8

    def __init__(self, config, setup, ctx):
        rng = np.random.default_rng(ctx.experiment_seed)
        self.params = {"trunk": rng.normal(0, 0.3, (len(LETTERS), config.hidden_size)).astype("f4")}
        for name in setup.held:
            self.params[f"regressors.{setup.number(name)}"] = np.zeros(config.hidden_size + 1, "f4")

    def forward(self, task, rows):
        x = np.array([[text.count(letter) for letter in LETTERS] for text in rows[task.inputs[0]]], "f4")
        x *= len(LETTERS) / np.maximum(x.sum(axis=1, keepdims=True), 1)
        return x, np.c_[x @ self.params["trunk"], np.ones(len(x), "f4")], f"regressors.{self.setup.number(task.name)}"

    def step(self, task, batch, ctx):
        x, hidden, head = self.forward(task, batch)
        error = hidden @ self.params[head] - batch[task.target]
        rate = self.config.learning_rate / (len(x) * (1 + (hidden**2).sum(axis=1).max()))
        trunk = np.outer(x.T @ error, self.params[head][:-1])
        self.params[head] -= rate * (hidden.T @ error)
        self.params["trunk"] -= rate * trunk
        return (error**2).mean()

    def predict(self, task, rows, ctx):
        _, hidden, head = self.forward(task, rows)
        return hidden @ self.params[head]
