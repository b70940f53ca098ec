"""Flower's own apps for the tests of sites: what runs at the other end, and NumPy's opinion of the result.

    flower.py initial OUTPUT                         writes the first global model of model-linear
    flower.py bundle KIND FOLDER OUTPUT              an app for clients (message, numpy) or of a server (a strategy)
    flower.py key KEY.pem OUTPUT                     a key in the form that SuperNodes read
    flower.py check FOLDER OWN GLOBAL WEIGHT WEIGHT  a round of FedAvg over a site of fedplug and an app
    flower.py run PORT BUNDLE                        starts a run and waits for its end
    flower.py same FOLDER GLOBAL                     a Python server's model and one of fedplug's
"""

import json
import pathlib
import runpy
import sys
import time
import urllib.request

APPS = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "host/superlink/tests/it/apps.py"), run_name="apps")

# An app that changes each array in its own way, and keeps what it received.
COMMON = """
import numpy as np

def note(kind, round, arrays):
    np.savez(f"{FOLDER}/{kind}-{round}.npz", *arrays)

def changed(arrays):
    # float64, whatever the model's type.
    return [2.0 * array.astype(np.float64) + place for place, array in enumerate(arrays)]
"""

MESSAGE = """
import pathlib
import time
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

def read(message):
    assert len(message.content.array_records) == 1
    record = message.content["arrays"]
    return list(record), [array.numpy() for array in record.values()], message.content["config"]

@app.train()
def train(message, context):
    names, arrays, config = read(message)
    assert config["local-epochs"] == 1
    # A test that kills the node at work holds it here.
    hold = pathlib.Path(FOLDER, "hold")
    if hold.exists():
        pathlib.Path(FOLDER, "held").touch()
        while hold.exists():
            time.sleep(0.1)
    note("train", config["server-round"], arrays)
    new = ArrayRecord({name: Array(array) for name, array in zip(names, changed(arrays))})
    metrics = MetricRecord({"num-examples": 10, "steps": 4, "drift": 0.5})
    return Message(content=RecordDict({"any": new, "name": metrics}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    _, arrays, config = read(message)
    note("evaluate", config["server-round"], arrays)
    metrics = MetricRecord({"num-examples": 3, "loss": 1.5, "RMSE": 2.0})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
"""

NUMPY = """
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

class Client(NumPyClient):
    def fit(self, parameters, config):
        note("train", config["server-round"], parameters)
        return changed(parameters), 10, {}

    def evaluate(self, parameters, config):
        note("evaluate", config["server-round"], parameters)
        return 1.5, 3, {"RMSE": 2.0}

app = ClientApp(client_fn=lambda context: Client().to_client())
"""

SERVER = """
import json
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp import strategy as s
from safetensors.numpy import load_file

app = ServerApp()

@app.main()
def main(grid, context):
    initial = load_file(f"{FOLDER}/initial.safetensors")
    nodes = {name: NODES for name in ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")}
    strategy = STRATEGY
    arrays = ArrayRecord({name: Array(array) for name, array in initial.items()})
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
    np.savez(f"{FOLDER}/result.npz", **{name: array.numpy() for name, array in result.arrays.items()})
    with open(f"{FOLDER}/result.json", "w") as file:
        json.dump({"train": {k: dict(v) for k, v in result.train_metrics_clientapp.items()},
                   "evaluate": {k: dict(v) for k, v in result.evaluate_metrics_clientapp.items()}}, file)
"""

# Each with the number of sites, and such parameters that fedplug has the same method.
STRATEGIES = {
    "fedavg": (2, "s.FedAvg(**nodes)"),
    "fedadam": (5, "s.FedAdam(eta=0.05, beta_1=0.0, beta_2=0.0, **nodes)"),
    "krum": (5, "s.Krum(num_malicious_nodes=1, **nodes)"),
}

# A strategy of NumPyClients, whose arrays have an order and no names.
OLD_SERVER = """
import json
import numpy as np
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp
from safetensors import safe_open

with safe_open(f"{FOLDER}/order.safetensors", "np") as file:
    ORDER = json.loads(json.loads(file.metadata()["fedplug"])["order"])

with safe_open(f"{FOLDER}/initial.safetensors", "np") as file:
    INITIAL = [file.get_tensor(name) for name in ORDER]

class Strategy(FedAvg):
    def aggregate_fit(self, server_round, results, failures):
        assert not failures, failures
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        np.savez(f"{FOLDER}/result.npz", **dict(zip(ORDER, parameters_to_ndarrays(parameters))))
        self.found = {"train": {str(server_round): dict(results[0][1].metrics)}}
        return parameters, metrics

    def aggregate_evaluate(self, server_round, results, failures):
        assert not failures, failures
        first = results[0][1]
        self.found["evaluate"] = {str(server_round): {"loss": first.loss, **first.metrics}}
        with open(f"{FOLDER}/result.json", "w") as file:
            json.dump(self.found, file)
        return super().aggregate_evaluate(server_round, results, failures)

def server_fn(context):
    nodes = {name: NODES for name in ("min_fit_clients", "min_evaluate_clients", "min_available_clients")}
    strategy = Strategy(initial_parameters=ndarrays_to_parameters(INITIAL), **nodes)
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=2))

app = ServerApp(server_fn=server_fn)
"""


def initial(output):
    import numpy as np
    from safetensors.numpy import save_file

    draw = np.random.default_rng(1)
    shapes = {"trunk.weight": (2, 27), "regressors.0.weight": (2,), "regressors.0.bias": (1,)}
    model = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file({**model, "regressors.0.scale": np.array([0, 1], np.float32)}, output)


def bundle(kind, folder, output):
    client = COMMON + (NUMPY if kind == "numpy" else MESSAGE)
    nodes, strategy = STRATEGIES.get(kind, (5, ""))
    server = f"NODES = {nodes}\n" + (SERVER.replace("STRATEGY", strategy) if strategy else OLD_SERVER)
    APPS["pack"](*(f"FOLDER = {folder!r}\n{text}" for text in (client, server)), output)


def check(folder, own, model, own_weight, app_weight):
    import numpy as np
    from safetensors.numpy import load_file

    first, own, model = (load_file(path) for path in (f"{folder}/initial.safetensors", own, model))
    seen = [list(np.load(f"{folder}/{name}.npz").values()) for name in ("train-1", "evaluate-0", "train-2", "evaluate-2")]
    assert all(array.dtype == np.float32 for array in seen[0] + seen[2])
    # The first round brings the initial model; in which order, its values tell.
    names = [next(name for name, own in first.items() if np.array_equal(own, array)) for array in seen[0]]
    assert sorted(names) == sorted(first) == sorted(model), names
    assert all(map(np.array_equal, seen[0], seen[1]))
    for place, name in enumerate(names):
        before, weights = seen[2][place].astype(np.float64), (float(own_weight), float(app_weight))
        new = (2.0 * before + place).astype(np.float32)
        expected = np.average([own[name].astype(np.float64), new.astype(np.float64)], axis=0, weights=weights)
        assert np.abs(own[name] - before).max() > 0 or name.endswith("scale"), f"{name} was not trained"
        np.testing.assert_allclose(model[name], expected, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(model[name], seen[3][place])


def post(port, path, body):
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/{path}", body, headers)
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def run(port, path):
    def field(number, body):
        length, head = len(body), bytes([number << 3 | 2])
        while length > 127:
            head, length = head + bytes([length & 127 | 128]), length >> 7
        return head + bytes([length]) + body

    started = post(port, "control/start-run", field(1, field(2, pathlib.Path(path).read_bytes())))
    # The run's id is field 1 here and in the request for the run.
    end = next(place for place in range(1, 12) if started[place] < 128)
    until = time.time() + 150
    while b"finished" not in (found := post(port, "control/list-runs", started[: end + 1])):
        assert time.time() < until, found
        time.sleep(1)


def same(folder, model):
    import numpy as np
    from safetensors.numpy import load_file

    result, model = np.load(f"{folder}/result.npz"), load_file(model)
    assert sorted(result) == sorted(model), list(result)
    for name, array in model.items():
        np.testing.assert_allclose(result[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    {"initial": initial, "bundle": bundle, "check": check, "run": run, "same": same, "key": APPS["key"]}[name](*arguments)
