"""A bundle for Flower's own server and nodes that moves arrays: FedAvg over clients that change every element."""
import hashlib
import io
import urllib.request
import zipfile

PROJECT = """\
[project]
name = "app"
version = "0.1.0"
dependencies = ["flwr>=1.40"]

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"
"""

SERVER = """
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

def note(line):
    with open(STARTS, "a") as file:
        file.write(f"{line}\\n")

class Noted(FedAvg):
    def configure_train(self, server_round, *rest):
        note(server_round)
        return super().configure_train(server_round, *rest)

@app.main()
def main(grid, context):
    strategy = Noted(fraction_evaluate=0.0, min_train_nodes=SITES, min_available_nodes=SITES)
    arrays = {f"layer{i}": Array(np.full(ELEMENTS, i, np.float32)) for i in range(TENSORS)}
    strategy.start(grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=ROUNDS)
    note("end")
"""

CLIENT = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    change = (np.arange(ELEMENTS) % 13 * 1e-3).astype(np.float32)
    new = {name: Array(array.numpy() + change) for name, array in message.content["arrays"].items()}
    content = RecordDict({"arrays": ArrayRecord(new), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)
"""


def bundle(constants):
    """What `flwr build` would make, with these constants."""
    head = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    files = {"pyproject.toml": PROJECT, "app/__init__.py": "", "app/server.py": head + SERVER, "app/client.py": head + CLIENT}
    listed = "\n".join(f"{name},{hashlib.sha256(text.encode()).hexdigest()},{len(text.encode()) * 8}" for name, text in sorted(files.items()))
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        for name, text in sorted({**files, ".info/CONTENT": listed}.items()):
            archive.writestr(zipfile.ZipInfo(name), text)
    return output.getvalue()


def start_run(port, content):
    """Has the SuperLink run a bundle."""
    def field(number, value):
        length, size = len(value), b""
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + value
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/control/start-run", field(1, field(2, content)), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
