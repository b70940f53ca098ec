"""Data in FLAb's layout that is made up for a measurement; it says nothing about antibodies."""
import pathlib
import random

LETTERS = "LAGVSERTIDPKQNFYMHWC"


def folder(root, rows, chain=(120, 108), task="tm"):
    path = pathlib.Path(root, task, "made_up.csv")
    path.parent.mkdir(parents=True)
    generator = random.Random(rows)
    with path.open("w") as file:
        file.write("heavy,light,fitness\n")
        for _ in range(rows):
            heavy, light = ("".join(generator.choices(LETTERS, k=length)) for length in chain)
            file.write(f"{heavy},{light},{generator.gauss(7, 1):.4f}\n")
    return path.parent.parent


def experiment(path, *, name, root, rounds, dataset, model, tasks='["tm"]', threads=0, federation="", more=""):
    """An experiment's file; `dataset`, `model` and `federation` are lines of their tables."""
    path.write_text(f"""name = "{name}"
seed = 42
[federation]
rounds = {rounds}
devices = ["cpu"]
threads = {threads}
{federation}
[dataset]
plugin = "flab"
root = "{root}"
tasks = {tasks}
{dataset}
[model]
{model}
[aggregator]
plugin = "fedavg"
{more}
""")
    return path
