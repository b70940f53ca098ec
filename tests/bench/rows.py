"""The rows of the table: what is measured of fedplug, and what stands beside it."""
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import data
from measure import Result, Unavailable, reported, run

HERE = pathlib.Path(__file__).parent
ALL_TASKS = '["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm"]'
OWN = "fedplug: its models' training and evaluation alone"
HEADS = '[[filter]]\nplugin = "exclude-params"\nat = "client-output"\ncontaining = "regressor"'
SHAPES = {"tiny": (64, 2, 4, 256), "120M": (640, 24, 10, 2560)}


@dataclasses.dataclass
class Row:
    group: str
    name: str
    ours: Callable[[], Result]
    theirs: Callable[[], Result] | None = None
    beside: str = ""  # what `theirs` is, where that is not plain
    unit: str = "s"
    full: bool = False  # only in full mode


class Bench:
    """Where things are, and how long and how often they are measured."""

    def __init__(self, options, folder):
        self.options, self.folder, self.made = options, folder, 0
        self.alone = None  # seconds of the last measured round in which models trained and evaluated
        self.sample = os.path.abspath(options.data)

    def fresh(self):
        self.made += 1
        return self.folder / str(self.made)

    def python(self, script, *words):
        if not self.options.torch_python:
            raise Unavailable("there is no Python with PyTorch (`make bench` installs one; or FEDPLUG_TORCH_PYTHON)")
        return [self.options.torch_python, HERE / script, *words]

    def step(self, size, batch, precision="fp32", evaluate=False, style=None):
        steps = {"tiny": 10, "120M": 3}[size] if self.options.full else 3
        words = ["--size", size, "--batch", batch, "--steps", steps, "--threads", self.options.threads,
                 "--precision", precision, *(["--evaluate"] if evaluate else [])]
        command = self.python("torch_step.py", *words, "--style", style) if style else [self.options.step, *words]
        return reported(command, self.options.limit, "median_s")

    def run_fedplug(self, **of):
        folder = self.fresh()
        folder.mkdir()
        file = data.experiment(folder / "experiment.toml", name="bench", **of)
        seconds, memory, _ = run([self.options.fedplug, "run", file, "--output", folder / "runs", "--quiet"], self.options.limit)
        summary = json.loads((folder / "runs" / "bench" / "summary.json").read_text())
        shutil.rmtree(folder)
        own, time = summary.get("peak-memory-bytes"), summary["time"]
        models = (time["training"] + time["evaluation"]) / time["workers"]
        return seconds, (time["rounds"], models), own / 2**20 if own else memory

    def a_round(self, rounds, **of):
        """Seconds a round: what more rounds take longer than one."""
        (_, one, _), (_, many, memory) = self.run_fedplug(rounds=1, **of), self.run_fedplug(rounds=1 + rounds, **of)
        took, self.alone = ((after - before) / rounds for before, after in zip(one, many))
        if took <= 0:
            raise Unavailable("more rounds took no longer than one: the machine is too busy")
        return Result(took, memory)

    def models_alone(self):
        """Of the round that was measured last."""
        return Result(self.alone, None)

    def besides(self, took):
        """A round without its models."""
        if took.seconds <= self.alone:
            raise Unavailable("nothing can be told apart from the models' own time")
        return Result(took.seconds - self.alone, took.memory)

    def prepare(self, root, tasks):
        output = self.fresh()
        output.mkdir()
        file = data.experiment(output / "experiment.toml", name="bench", root=root, rounds=1, tasks=tasks,
                               dataset="clients = { count = 6, alpha = 1.0 }", model='plugin = "linear"')
        seconds, memory, _ = run([self.options.fedplug, "prepare", file, "--output", output / "data"], self.options.limit)
        shutil.rmtree(output)
        return Result(seconds, memory)

    def pandas(self, root, tasks):
        output = self.fresh()
        seconds, memory, _ = run(self.python("pandas_prepare.py", root, output, 6, *json.loads(tasks)), self.options.limit)
        shutil.rmtree(output)
        return Result(seconds, memory)


def amplify(size, more=""):
    hidden, layers, heads, intermediate = SHAPES[size]
    table = f"hidden-size = {hidden}, layers = {layers}, heads = {heads}, intermediate-size = {intermediate}"
    return f'plugin = "amplify"\npretrained = {{ {table} }}\n{more}'


def rows(bench):
    """All rows, in the table's order."""
    yield from steps(bench)
    threads = bench.options.threads
    short = made_up(bench, 8, (8, 8))
    yield Row(
        "exchange", "what a round of two clients of the 120M shape takes besides its models",
        lambda: bench.besides(bench.a_round(4, root=short(), threads=1, dataset="clients = { count = 2, alpha = 1e6 }",
                                            model=amplify("120M"))),
        lambda: reported(bench.python("torch_round.py", "exchange", "120M", 2, 3, threads), bench.options.limit, "seconds"),
        "PyTorch: state_dict copied, averaged, put back", full=True)
    few = made_up(bench, 3, (120, 108), json.loads(ALL_TASKS))
    yield Row(
        "exchange", "six clients of the 120M shape, two samples and private heads each, idle-memory 8.6 GB",
        lambda: bench.a_round(2, root=few(), tasks=ALL_TASKS, federation='idle-memory = "8.6 GB"',
                              dataset='clients = "by-task"\ntest-fraction = 0.3', model=amplify("120M"), more=HEADS),
        bench.models_alone, OWN, full=True)
    yield Row(
        "start", "from nothing to the end of a run of one step, tiny",
        lambda: whole(bench.run_fedplug(root=short(), rounds=1, dataset="max-samples = 1", model=amplify("tiny"))),
        lambda: started(bench, "--size", "tiny", "--batch", 1, "--length", 20, "--steps", 1, "--warm-up", 0),
        "PyTorch: Python, import and one step")
    yield Row(
        "round", "six tiny clients, one task and private heads each",
        lambda: bench.a_round(3, root=bench.sample, tasks=ALL_TASKS, dataset='clients = "by-task"', model=amplify("tiny"), more=HEADS),
        lambda: reported(bench.python("torch_round.py", "round", "tiny", 6, 51, 13, 232, 3, threads), bench.options.limit, "seconds"),
        "PyTorch: the same training and evaluation alone; 64 rows a task")
    yield Row(
        "round", "the same, beside fedplug's own models",
        lambda: bench.a_round(6, root=bench.sample, tasks=ALL_TASKS, dataset='clients = "by-task"', model=amplify("tiny"), more=HEADS),
        bench.models_alone, OWN)
    yield Row("prepare", "six tasks", lambda: bench.prepare(bench.sample, ALL_TASKS), lambda: bench.pandas(bench.sample, ALL_TASKS),
              "pandas, without pictures")
    many = made_up(bench, 100_000)
    yield Row("prepare", "one task of 100,000 rows", lambda: bench.prepare(many(), '["tm"]'), lambda: bench.pandas(many(), '["tm"]'),
              "pandas, without pictures")
    for count in (10, 100, 1000, 10_000):
        yield scale(bench, count)
    hundred = made_up(bench, 420)
    yield Row("scale", "100 clients of the tiny trunk, a round",
              lambda: bench.a_round(2, root=hundred(), dataset="clients = { count = 100, alpha = 1e6 }\ntest-fraction = 0.048",
                                    model=amplify("tiny")), bench.models_alone, OWN, full=True)
    yield Row("size", "the program", lambda: size(bench.options.fedplug), unit="MiB")
    for plugin in ("libmodel_amplify.so", "libdataset_flab.so"):
        yield Row("size", plugin, lambda plugin=plugin: size(pathlib.Path(bench.options.fedplug).with_name(plugin)), unit="MiB")
    yield Row("help", "`fedplug --help`", lambda: time_of([bench.options.fedplug, "--help"]),
              lambda: time_of([*bench.python("torch_step.py")[:1], "-c", "import torch"]), "`import torch`")


def steps(bench):
    for evaluate in (False, True):
        for shape, batch, precision, styles, full in [
            ("tiny", 64, "fp32", ["reference", "tuned"], False),
            ("120M", 4, "fp32", ["reference", "tuned"], True),
            ("120M", 16, "fp32", ["reference", "tuned"], True),
        ]:
            if evaluate and batch == 16:
                continue
            for style in styles:
                what = dict(size=shape, batch=batch, precision=precision, evaluate=evaluate)
                yield Row("evaluation" if evaluate else "step", f"{shape}, batch {batch}, {precision}",
                          lambda what=what: bench.step(**what), lambda what=what, style=style: bench.step(**what, style=style),
                          f"PyTorch, {style} style", full=full)


def scale(bench, count):
    root = made_up(bench, 4 * count + 20)
    of = dict(dataset=f"clients = {{ count = {count}, alpha = 1e6 }}\ntest-fraction = {20 / (4 * count + 20):.8f}", model='plugin = "linear"')
    return Row("scale", f"{count:,} clients of the linear model, a round", lambda: bench.a_round(max(4, 2000 // count), root=root(), **of),
               full=count > 1000)


def made_up(bench, rows, chain=(120, 108), tasks=("tm",)):
    """Data that is made when it is first asked for: not every row is run."""
    made = []

    def root():
        if not made:
            made.append(bench.fresh())
            for task in tasks:
                data.folder(made[0], rows, chain, task)
        return made[0]

    return root


def whole(measured):
    seconds, _, memory = measured
    return Result(seconds, memory)


def time_of(command):
    # No memory: of so short a process the system tells that of the one that began it.
    return Result(run(command, 60)[0], None)


def started(bench, *words):
    seconds, memory, _ = run(bench.python("torch_step.py", *words, "--threads", bench.options.threads), bench.options.limit)
    return Result(seconds, memory)


def size(path):
    try:
        return Result(os.path.getsize(path) / 2**20, None)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
