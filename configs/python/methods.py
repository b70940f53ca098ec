"""An aggregator and a filter."""
from dataclasses import dataclass

import numpy as np

import fedplug


class Median(fedplug.Aggregator):
    """The median of each number over the clients that trained."""

    def aggregate(self, updates, ctx):
        return {name: np.median(sent, axis=0) for name, sent in self.by_name(updates)}


class Clip(fedplug.Filter):
    """No number of an update is farther from the global model than `most`."""

    @dataclass
    class Config:
        most: float  #: The largest change of a number.

    def apply(self, message, base, ctx):
        for name, sent in message.params.items():
            old = base.params.matching(name, sent)
            message.params[name] = old + np.clip(sent - old, -self.config.most, self.config.most)
        return message
