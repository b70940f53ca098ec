"""Writes accountants.json, the epsilons of dp-accounting 0.6.0 and Opacus 1.6.0 that the tests compare with:

    pip install dp-accounting==0.6.0 scipy && pip download --no-deps opacus==1.6.0 && unzip opacus-1.6.0-*.whl -d opacus
    PYTHONPATH=opacus python3 accountants.py

Opacus' accountants need NumPy and SciPy alone; what the package itself imports besides is kept out.
"""

import importlib
import json
import pathlib
import sys
import types
import warnings

import dp_accounting
import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant
from dp_accounting.rdp import rdp_privacy_accountant

for name in ["opacus", "opacus.optimizers", "opacus.accountants"]:
    module = types.ModuleType(name)
    folders = [pathlib.Path(path) / name.replace(".", "/") for path in sys.path]
    module.__path__ = [str(folder) for folder in folders if folder.is_dir()]
    module.DPOptimizer = None
    sys.modules[name] = module
opacus_rdp = importlib.import_module("opacus.accountants.rdp").RDPAccountant
opacus_prv = importlib.import_module("opacus.accountants.prv").PRVAccountant

# Each case: parts of (noise multiplier, sampling rate, rounds), and delta.
CASES = [
    ([(1.0, 1 / 6, 20)], 1e-5),
    ([(1.0, 0.01, 20)], 1e-5),
    ([(1.0, 0.17, 20)], 1e-5),
    ([(1.1, 256 / 60_000, 14_062)], 1e-5),
    ([(0.7, 0.5, 20)], 1e-5),
    ([(4.0, 0.01, 1000)], 1e-6),
    ([(0.3, 1e-4, 600)], 1e-5),
    ([(0.5, 0.9, 3)], 1e-3),
    ([(1.0, 0.999, 3)], 1e-3),
    # Where the best order is below 2.
    ([(0.3, 0.01, 100)], 1e-5),
    ([(0.25, 0.01, 30)], 1e-5),
    ([(0.4, 1 / 3, 50)], 1e-5),
    # Of small delta.
    ([(1.0, 0.01, 1000)], 1e-10),
    ([(2.0, 0.1, 50)], 1e-12),
    # Without sampling, and of unlike rounds.
    ([(1.0, 1.0, 20)], 1e-5),
    ([(1.0, 0.1, 20), (0.5**0.5, 0.1, 2)], 1e-5),
    ([(2.0, 0.25, 30), (1.5, 1.0, 1)], 1e-5),
    ([(0.5, 0.01, 40), (3.0, 0.5, 40)], 1e-6),
]


def by_dp_accounting(parts, delta, accountant):
    for sigma, rate, rounds in parts:
        event = dp_event.GaussianDpEvent(sigma)
        accountant.compose(event if rate == 1 else dp_event.PoissonSampledDpEvent(rate, event), rounds)
    return float(accountant.get_epsilon(delta))


def by_opacus(parts, delta, accountant, **options):
    accountant.history = [(sigma, rate, rounds) for sigma, rate, rounds in parts]
    try:
        return float(accountant.get_epsilon(delta, **options))
    except Exception as error:
        print("Opacus:", parts, delta, error)
        return None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    cases = []
    for parts, delta in CASES:
        rdp = by_dp_accounting(parts, delta, rdp_privacy_accountant.RdpAccountant())
        interval = min(1e-3, max(1e-4, rdp * 1e-5)) if sum(part[2] for part in parts) < 2000 else 1e-4
        pld = by_dp_accounting(parts, delta, pld_privacy_accountant.PLDAccountant(value_discretization_interval=interval))
        case = {
            "parts": parts,
            "delta": delta,
            "dp-accounting": {"pld": pld, "rdp": rdp},
            "opacus": {
                "rdp": by_opacus(parts, delta, opacus_rdp()),
                "prv": by_opacus(parts, delta, opacus_prv(), eps_error=0.01, delta_error=delta * 1e-3),
            },
        }
        print(case)
        cases.append(case)
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"versions": {{"dp-accounting": "0.6.0", "opacus": "1.6.0"}}, "cases": [\n{lines}\n]}}\n'
    pathlib.Path(__file__).with_name("accountants.json").write_text(text)
