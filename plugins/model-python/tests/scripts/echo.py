"""Classes that show what they get."""
import numpy as np

import fedplug


class Columns(fedplug.Dataset):
    """Columns of all kinds."""

    def tasks(self, ctx):
        return [fedplug.TaskSpec("t", ("x",), "y"), fedplug.TaskSpec("c", ("x",), "z", ("no", "yes"))]

    def clients(self, ctx):
        return ["a"]

    def load(self, client, ctx):
        table = {
            "x": ["ä", "", None],
            "y": np.array([1.0, np.nan, -0.0]),
            "z": [0, 1, 0],
            "f4": np.array([1, 2, 3], "f4"),
            "bool": [True, False, True],
            "bytes": [b"\x00\xff", b"", b"a"],
            "list": [[0.5], [], [1.5, 2.5]],
            "none": [1.5, None, 2.5],
        }
        return {"t": (table, {name: values[:0] for name, values in table.items()}), "c": (table, table)}


class Echo(fedplug.Model):
    """Says what it sees, and keeps what it is given."""

    def __init__(self, config, setup, ctx):
        self.params = {"w": np.zeros((2, 3), "f4"), "n": np.array(7, "i8")}
        self.kept = []

    def receive(self, message, ctx):
        # The memory of the arrays themselves, not a copy.
        self.kept.append(message.params["w"])
        if len(self.kept) == 2:
            self.kept[1][0, 0] = 100
        return super().receive(message, ctx)

    def step(self, task, batch, ctx):
        self.persistent["moment"] = self.persistent.get("moment", np.zeros(2)) + 1
        self.persistent["name"] = task.name

    def predict(self, task, rows, ctx):
        shown = [repr([values[row] if isinstance(values, tuple) else values[row].item() for values in rows.values()]) for row in range(rows.rows)]
        return {"seen": shown, "predicted": np.arange(rows.rows), "kept": [repr([float(kept[0, 0]) for kept in self.kept])] * rows.rows}


class Measured(fedplug.Model):
    """Measures itself, in tasks of classes."""

    def __init__(self, config, setup, ctx):
        self.params = {"w": np.zeros(1, "f4")}

    def predict(self, task, rows, ctx):
        return np.tile([0.25, 0.75], (rows.rows, 1)) * (1 if rows.rows < 3 else 2)

    def evaluate(self, task, ctx):
        return fedplug.Evaluation(float("inf"), -1.5, [fedplug.Metric("odd", float("nan"), "lower")])
