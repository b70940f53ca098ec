"""What NVFlare's external client process costs, beside `cost.rs`: 472 MB to it and back.

    pip install nvflare==2.9.0 numpy
    python nvflare_cost.py FOLDER

One client in NVFlare's simulator, whose script does nothing but add 1 to an array. A round is from one call of
`flare.receive()` to the next: back to the server, which averages one client's array, and to the process again.
"""

import pathlib
import sys
import time

ELEMENTS = 450 * 2**20 // 4
ROUNDS = 5


def client():
    """The script of the client's process."""
    import nvflare.client as flare

    flare.init()
    got = []
    while flare.is_running():
        message = flare.receive()
        if message is None:
            break
        got.append(time.perf_counter())
        name, array = next(iter(message.params.items()))
        flare.send(flare.FLModel(params={name: array + 1}, metrics={"accuracy": 0.0}))
        rounds = sorted(b - a for a, b in zip(got, got[1:]))
        if rounds:
            print(f"NVFLARE a round: least {rounds[0]:.3f} s, greatest {rounds[-1]:.3f} s, of {len(rounds)}", flush=True)


def job(folder):
    """Runs the simulator."""
    import numpy
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
    from nvflare.recipe import SimEnv

    folder.mkdir(parents=True, exist_ok=True)
    initial = folder / "initial.npy"
    numpy.save(initial, numpy.zeros(ELEMENTS, numpy.float32))
    recipe = NumpyFedAvgRecipe(
        name="cost",
        initial_ckpt=str(initial.absolute()),
        min_clients=1,
        num_rounds=ROUNDS,
        train_script=__file__,
        launch_external_process=True,
        command=f"{sys.executable} -u",
    )
    run = recipe.execute(SimEnv(num_clients=1, num_threads=1, workspace_root=str(folder.absolute())))
    print(run.get_status(), run.get_result())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        job(pathlib.Path(sys.argv[1]))
    else:
        client()
