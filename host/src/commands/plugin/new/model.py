"""{{name}}: a linear model of the share of each letter, until you make it another."""
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import fedplug

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def shares(texts):
    """The share of each letter in each text, and a 1 for the intercept."""
    counts = np.array([[text.count(letter) for letter in LETTERS] for text in texts], "f4").reshape(len(texts), len(LETTERS))
    return np.c_[counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), np.ones(len(texts), "f4")]


class {{class}}(fedplug.Model):
    @dataclass
    class Config:
        """The keys of the experiment's `[model]` table: `learning_rate` is `learning-rate` there."""

        #: The size of a step.
        learning_rate: Annotated[float, fedplug.Bounds(gt=0, le=1)] = 0.5

    def __init__(self, config, setup, ctx):
        # The parameters by name. The head of a task has the task's number, which is the same at every client.
        self.params = {f"heads.{setup.number(task)}": np.zeros(len(LETTERS) + 1, "f4") for task in setup.held}

    def step(self, task, batch, ctx):
        """A training step on some rows."""
        x, head = shares(batch[task.inputs[0]]), self.params[f"heads.{self.setup.number(task.name)}"]
        error = x @ head - batch[task.target]
        # In place. The parameters that a client gets are written here as well.
        head -= np.float32(self.config.learning_rate) * (x.T @ error) / len(x)
        return (error**2).mean()

    def predict(self, task, rows, ctx):
        """A number for each row."""
        return shares(rows[task.inputs[0]]) @ self.params[f"heads.{self.setup.number(task.name)}"]
