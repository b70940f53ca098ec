"""A dataset: random texts, and how many W they have."""
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import fedplug


class Counts(fedplug.Dataset):
    @dataclass
    class Config:
        #: The rows of each client.
        rows: Annotated[int, fedplug.Bounds(ge=2)] = 40
        #: The clients.
        sites: tuple[str, ...] = ("north", "east", "south")

    def tasks(self, ctx):
        return [fedplug.TaskSpec("tryptophan", ("text",), "count")]

    def clients(self, ctx):
        return self.config.sites

    def load(self, client, ctx):
        rng = np.random.default_rng(ctx.experiment_seed.of(client))
        texts = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(self.config.rows)]
        table = fedplug.Table({"text": texts, "count": [text.count("W") for text in texts]})
        cut = self.config.rows * 4 // 5
        return {"tryptophan": (table.select(range(cut)), table.select(range(cut, table.rows)))}
