"""Writes what the tests need of Flower's own: bundles of small apps, and a key in the form that SuperNodes read.

    apps.py bundle message|numpy|server RESULT OUTPUT
    apps.py key KEY.pem OUTPUT
"""

import hashlib
import pathlib
import sys
import zipfile

PROJECT = """\
[project]
name = "app"
version = "0.1.0"
dependencies = ["flwr>=1.40"]

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"
"""

SERVER = """\
import json
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    strategy = FedAvg(fraction_evaluate=1.0, min_train_nodes=2, min_evaluate_nodes=2, min_available_nodes=2)
    arrays = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "t": Array(np.zeros((3, 2), np.float32).T)})
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
    with open(RESULT, "w") as file:
        json.dump({"w": result.arrays["w"].numpy().tolist(), "t": result.arrays["t"].numpy().tolist(),
                   "train": {k: dict(v) for k, v in result.train_metrics_clientapp.items()},
                   "evaluate": {k: dict(v) for k, v in result.evaluate_metrics_clientapp.items()}}, file)
"""

MESSAGE = """\
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    if message.content["config"]["server-round"] == 3:
        raise ValueError("no third round")
    # A transposed array is in Fortran's order, and a float64 one of another type than came.
    new = {name: Array(np.asarray(array.numpy() + 1).T.copy().T) for name, array in message.content["arrays"].items()}
    new["double"] = Array(np.array(0.5))
    new["big"] = Array(np.arange(3, dtype=">i4"))
    content = RecordDict({"arrays": ArrayRecord(new), "metrics": MetricRecord({"num-examples": 7, "loss": 0.25})})
    return Message(content=content, reply_to=message)

@app.evaluate()
def evaluate(message, context):
    return Message(content=RecordDict({"metrics": MetricRecord({"num-examples": 3, "loss": 1.5, "acc": 0.5})}), reply_to=message)
"""

NUMPY = """\
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

class Client(NumPyClient):
    def fit(self, parameters, config):
        return [array + config["add"] for array in parameters], 11, {"acc": 0.75, "note": "fine"}

    def evaluate(self, parameters, config):
        return float(parameters[0].sum()), 5, {"acc": 0.5}

app = ClientApp(client_fn=lambda context: Client().to_client())
"""


def bundle(kind, result, output):
    client = {"numpy": NUMPY, "message": MESSAGE, "server": MESSAGE}[kind]
    pack(client, f"RESULT = {result!r}\n" + SERVER, output)


def pack(client, server, output):
    """Writes a bundle of these two modules."""
    files = {"pyproject.toml": PROJECT, "app/__init__.py": "", "app/client.py": client, "app/server.py": server}
    lines = [f"{path},{hashlib.sha256(text.encode()).hexdigest()},{8 * len(text.encode())}" for path, text in files.items()]
    with zipfile.ZipFile(output, "w") as archive:
        for path, text in {**files, ".info/CONTENT": "\n".join(lines)}.items():
            archive.writestr(path, text)


def key(pem, output):
    from cryptography.hazmat.primitives import serialization as s

    private = s.load_pem_private_key(pathlib.Path(pem).read_bytes(), None)
    pathlib.Path(output).write_bytes(private.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption()))


if __name__ == "__main__":
    {"bundle": bundle, "key": key}[sys.argv[1]](*sys.argv[2:])
