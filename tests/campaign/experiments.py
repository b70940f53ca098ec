"""The experiments of the campaign: small, and together with all that a checkpoint has to hold."""

from dataclasses import dataclass

LINEAR = 'plugin = "linear"'
FEDAVG = 'plugin = "fedavg"'

# A model of a few thousand parameters.
AMPLIFY = """plugin = "amplify"
pretrained = { hidden-size = 8, layers = 1, heads = 2, intermediate-size = 16 }
layer-sizes = [8]
trunk-lr = 1e-3
regressor-lr = 1e-2
batch-size = 16
schedule = "constant"
"""

PRIVATE_HEADS = """
[[filter]]
plugin = "exclude-params"
at = "client-output"
containing = "regressor"
"""

TOP_K = """
[[filter]]
plugin = "compress"
method = "top-k"
keep = 0.1
at = ["client-output", "server-input"]
"""

SECURE = """
[[filter]]
plugin = "secure"
at = "client-output"
"""


@dataclass
class Experiment:
    """An experiment file, and how it is run."""

    name: str
    federation: str
    model: str = LINEAR
    aggregator: str = FEDAVG
    filters: str = PRIVATE_HEADS
    dataset: str = 'clients = "by-task"'
    threads: int = 2
    weight: int = 10  # How often it is chosen: the large ones take ten times as long.
    replaces: bool = False  # An earlier, finished run is in the directory, and `--force` replaces it.

    def text(self, root):
        return f"""name = "{self.name}"
seed = 42

[federation]
devices = ["cpu"]
{self.federation}

[dataset]
plugin = "flab"
root = "{root}"
{self.dataset}

[model]
{self.model}

[aggregator]
{self.aggregator}
{self.filters}"""


EXPERIMENTS = [
    Experiment("plain", "rounds = 8\ncheckpoint-every = 1"),
    Experiment("seldom", "rounds = 12\ncheckpoint-every = 4"),
    Experiment("memory", "rounds = 6\ncheckpoint-every = 1", filters=PRIVATE_HEADS + TOP_K,
               aggregator='plugin = "fedopt"\noptimizer = "adam"\nlearning-rate = 0.01'),
    Experiment("secure", "rounds = 4\ncheckpoint-every = 1", filters=PRIVATE_HEADS + SECURE,
               aggregator='plugin = "secure"\nthreshold = 4\nclip = 2.0'),
    Experiment("idle", 'rounds = 6\ncheckpoint-every = 2\nfraction = 0.4\nidle-memory = "0 B"\ncross-site = true'),
    Experiment("early", 'rounds = 40\ncheckpoint-every = 1\nearly-stopping = { patience = 2, min-delta = 0.05 }'),
    Experiment("lost", 'rounds = 6\ncheckpoint-every = 1\non-client-failure = "leave-out"', filters="",
               model='plugin = "misbehaving"\nhow = "panic-in-train"\nclient = "tm"\nround = 2'),
    Experiment("long-round", "rounds = 1\nlocal-epochs = 12\ncheckpoint-after = 0", threads=1),
    Experiment("long-rounds", "rounds = 3\nlocal-epochs = 4\ncheckpoint-after = 0", filters=PRIVATE_HEADS + TOP_K),
    Experiment("replaced", "rounds = 4\ncheckpoint-every = 1", replaces=True),
    Experiment("scaffold", "rounds = 2\ncheckpoint-every = 1", model=AMPLIFY + "scaffold = true", filters="", weight=1,
               aggregator='plugin = "scaffold"\nlearning-rate = 1.0'),
    Experiment("ditto", "rounds = 2\ncheckpoint-every = 1", model=AMPLIFY + "ditto-lambda = 0.1", weight=1),
]
