"""A model that fails on request."""
import ctypes
import os
import subprocess
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

import fedplug


class Faulty(fedplug.Model):
    @dataclass
    class Config:
        how: Literal["not", "raise", "exit", "segfault", "hang", "ask", "start", "shape", "key"] = "not"  #: What happens.
        client: str = "east"  #: At whom.
        round: int = 1  #: In which round.

        def __post_init__(self):
            if self.round > 99:
                raise ValueError("there are never so many rounds")

    def __init__(self, config, setup, ctx):
        self.params = {"mean": np.zeros(1, "f4")}
        if config.how == "key":
            raise fedplug.ConfigError("cannot be `key`", key="how", hint="choose another")
        if config.how == "start":
            self.hang(ctx, asks=config.client == "asks")

    def step(self, task, batch, ctx):
        if ctx.client == self.config.client and ctx.round == self.config.round:
            self.fail(ctx)
        self.params["mean"] += np.float32(0.1) * (batch[task.target] - self.params["mean"]).mean()

    def fail(self, ctx):
        how = self.config.how
        if how == "raise":
            print("before it fails")
            try:
                {}["missing"]
            except KeyError as error:
                raise ValueError("no such thing") from error
        if how == "exit":
            os.write(2, b"a last word\n")
            os._exit(7)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "shape":
            self.params["mean"] = np.zeros(2, "f4")
        if how in ("hang", "ask"):
            self.hang(ctx, asks=how == "ask")

    def hang(self, ctx, asks):
        if self.config.how == "start" and not asks:
            subprocess.Popen(["sleep", "1000"])
        print("hangs")
        while True:
            if asks:
                ctx.check()
            time.sleep(0.001)

    def predict(self, task, rows, ctx):
        return np.full(rows.rows, self.params["mean"][0])
