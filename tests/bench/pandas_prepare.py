#!/usr/bin/env python3
"""What `fedplug prepare` does, as one writes it with pandas: the yardstick of data preparation. It draws no pictures.

usage: pandas_prepare.py ROOT OUTPUT CLIENTS TASK...
"""
import pathlib
import sys

import numpy as np
import pandas as pd


def main(root, output, clients, *tasks):
    for task in tasks:
        files = sorted(pathlib.Path(root, task).glob("*.csv"))
        rows = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
        rows["combined"] = rows["heavy"] + "|" + rows["light"]
        random = np.random.default_rng(42)
        order = random.permutation(len(rows))
        held = round(0.2 * len(rows))
        test, train = rows.iloc[order[:held]], rows.iloc[order[held:]]
        folder = pathlib.Path(output, task)
        folder.mkdir(parents=True)
        train.to_csv(folder / "train_data.csv", index=False)
        test.to_csv(folder / "test_data.csv", index=False)
        cuts = (random.dirichlet([1.0] * int(clients)).cumsum()[:-1] * len(train)).astype(int)
        for k, part in enumerate(np.split(np.arange(len(train)), cuts), 1):
            train.iloc[part].to_csv(folder / f"client{k}_train_data.csv", index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
