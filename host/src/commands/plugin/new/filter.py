"""{{name}}: no number of a message is larger than `limit`, until you make it something else."""
from dataclasses import dataclass
from typing import Annotated

import numpy as np

import fedplug


class {{class}}(fedplug.Filter):
    @dataclass
    class Config:
        """The keys of the experiment's `[[filter]]` table, besides `plugin`, `script`, `class` and `at`."""

        #: The largest absolute value that is left.
        limit: Annotated[float, fedplug.Bounds(gt=0)]

    def apply(self, message, base, ctx):
        """`message` has `params`, dicts of arrays by name; `base` is the global model that it started from."""
        for name, value in message.params.items():
            if value.dtype.kind == "f":
                message.params[name] = np.clip(value, -self.config.limit, self.config.limit)
        return message
