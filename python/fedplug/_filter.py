"""Filters, which change messages in transit."""
from __future__ import annotations

from ._component import Component
from ._context import Context
from ._data import Message


class Filter(Component):
    """Changes messages between server and clients. There is one object for each client, and one for the server.

        class Clip(fedplug.Filter):
            @dataclass
            class Config:
                #: The largest change of a value.
                most: float

            def apply(self, message, base, ctx):
                for name, sent in message.params.items():
                    old = base.params.matching(name, sent)
                    message.params[name] = old + np.clip(sent - old, -self.config.most, self.config.most)
                return message
    """

    def __init__(self, config: object, ctx: Context):
        """`ctx.client` is the client that the object is for, and None at the server."""

    def apply(self, message: Message, base: Message, ctx: Context) -> Message:
        """The filtered message. `base` is the global model at the start of the round, as it is known here."""
        raise NotImplementedError

    def answer(self, question: Message, ctx: Context) -> Message | None:
        """The answer to an aggregator's question, or None if it is for another filter."""
        return None
