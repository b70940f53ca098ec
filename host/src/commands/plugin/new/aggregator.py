"""{{name}}: the mean of the clients' parameters, weighted by their work, until you make it something else."""
from dataclasses import dataclass
from typing import Literal

import numpy as np

import fedplug


class {{class}}(fedplug.Aggregator):
    @dataclass
    class Config:
        """The keys of the experiment's `[aggregator]` table: `weight_by` is `weight-by` there."""

        #: What weighs a client's update.
        weight_by: Literal["steps", "examples"] = "steps"

    def aggregate(self, updates, ctx):
        """The next global model, from the updates of the clients that trained."""
        mean = {}
        for name, old in self.current.params.items():
            ctx.check()  # stops here when the run is interrupted
            # A client may keep some of its parameters to itself.
            sent = [(update.params[name], getattr(update, self.config.weight_by)) for update in updates if name in update.params]
            if sent:
                values, weights = zip(*sent)
                mean[name] = np.average(np.stack(values).astype("f8"), axis=0, weights=weights)
        return mean
