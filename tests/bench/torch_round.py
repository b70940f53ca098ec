#!/usr/bin/env python3
"""The parts of a round in plain PyTorch, in one process, without any framework: the yardstick of what a host adds.

usage: torch_round.py round SIZE CLIENTS ROWS TEST LENGTH ROUNDS THREADS
           each client evaluates, trains one epoch, evaluates; then the trunks are averaged; prints seconds a round
       torch_round.py exchange SIZE CLIENTS ROUNDS THREADS
           the state of one model is taken and averaged once for each client and put back; prints seconds a round
"""
import json
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F

from torch_step import SIZES, Amplify

BATCH = 64


def averaged(states):
    return {name: sum(state[name] for state in states) / len(states) for name in states[0]}


def exchange(model, clients):
    """As FedAvg goes one client after the other, so that one copy and one sum are in memory."""
    total = None
    for _ in range(clients):
        state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if total is None:
            total = {name: value / clients for name, value in state.items()}
        else:
            for name, value in state.items():
                total[name].add_(value, alpha=1 / clients)
    model.load_state_dict(total)


def client(size, rows, test, length):
    model = Amplify(*SIZES[size])
    trunk = [value for name, value in model.named_parameters() if not name.startswith("regressors")]
    groups = [{"params": trunk, "lr": 1e-4}, {"params": list(model.regressors.parameters()), "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    data = [(torch.randint(5, 27, (count, length)), torch.randn(count)) for count in (rows, test)]
    return model, optimizer, data


def evaluate(model, ids):
    model.eval()
    with torch.no_grad():
        for batch in ids.split(4 * BATCH):
            model(batch)


def round_of(clients):
    for model, optimizer, ((ids, values), (held, _)) in clients:
        evaluate(model, held)
        model.train()
        for rows in torch.randperm(len(ids)).split(BATCH):
            optimizer.zero_grad()
            F.mse_loss(model(ids[rows]), values[rows]).backward()
            optimizer.step()
        evaluate(model, held)
    with torch.no_grad():
        trunks = [{k: v for k, v in m.state_dict().items() if not k.startswith("regressors")} for m, _, _ in clients]
        mean = averaged(trunks)
        for model, _, _ in clients:
            model.load_state_dict(mean, strict=False)


def main(what, size, count, *numbers):
    *numbers, rounds, threads = map(int, numbers)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if what == "round":
        clients = [client(size, *numbers) for _ in range(int(count))]
        def once(): round_of(clients)
    else:
        model = Amplify(*SIZES[size])
        def once(): exchange(model, int(count))
    times = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        once()
        times.append(time.perf_counter() - begun)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": statistics.median(times[1:]), "peak_memory_MiB": round(memory)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
