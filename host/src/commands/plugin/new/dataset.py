"""{{name}}: random texts and how many W they have, until you read something else."""
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import fedplug


class {{class}}(fedplug.Dataset):
    @dataclass
    class Config:
        """The keys of the experiment's `[dataset]` table."""

        #: How many rows each client has.
        rows: Annotated[int, fedplug.Bounds(ge=2)] = 64

    def tasks(self, ctx):
        """What is learnt: a name, the input columns, the target."""
        return [fedplug.TaskSpec("tryptophan", ("text",), "count")]

    def clients(self, ctx):
        return ["north", "south"]

    def load(self, client, ctx):
        """Of each task the columns to train on and those to test on: dicts of lists or arrays do as well."""
        rng = np.random.default_rng(ctx.experiment_seed.of(client))
        texts = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 30)) for _ in range(self.config.rows)]
        table = fedplug.Table({"text": texts, "count": [text.count("W") for text in texts]})
        cut = max(1, self.config.rows * 4 // 5)
        return {"tryptophan": (table.select(range(cut)), table.select(range(cut, table.rows)))}
