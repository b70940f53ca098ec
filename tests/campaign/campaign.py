"""Interrupts runs in every way that happens to runs, resumes them, and compares all that they leave with healthy runs.

    python3 tests/campaign/campaign.py --kills 2000
    python3 tests/campaign/campaign.py --seconds 15 --experiments plain,memory --kinds call

Needs a C compiler for shim.c. Prints a table by kind of fault, and for each case that failed what it was and where its
files are. Exits with 1 if there is any. See docs/src/promise.md.
"""

import argparse
import collections
import concurrent.futures
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from damage import PowerLoss, complete, flip_bit
from experiments import EXPERIMENTS
from results import differences, leftovers, results

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CALLS = ["rename", "unlink", "mkdir", "fsync", "open", "truncate"]
SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"]
KINDS = ["random", "call", "error", "disk", "byte", "power", "signal"]

# How often a kind is chosen.
WEIGHTS = [25, 30, 12, 8, 8, 12, 5]

# No run of the campaign takes this long.
STUCK = 120


class Failure(Exception):
    """A run that did not come to the end that it should have."""


@dataclass
class Case:
    """A run that is interrupted, and what is known of it."""

    number: int
    experiment: object
    kind: str
    rng: random.Random
    folder: Path
    story: list = field(default_factory=list)
    interrupted: int = 0

    @property
    def runs(self):
        return self.folder / "runs"

    @property
    def run(self):
        return self.runs / self.experiment.name


class Campaign:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.shim = folder / "shim.so"
        self.healthy = {}
        self.counts = {}
        self.seconds = {}
        self.written = {}
        self.lock = threading.Lock()

    def prepare(self, experiments):
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", self.shim, HERE / "shim.c", "-ldl"], check=True)
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            list(pool.map(self.prepare_one, experiments))

    def prepare_one(self, experiment):
        """Runs an experiment without any fault, twice if it replaces a run."""
        name = experiment.name
        folder = self.folder / "healthy" / name
        folder.mkdir(parents=True)
        (self.folder / f"{name}.toml").write_text(experiment.text(self.options.data))
        case = Case(0, experiment, "healthy", random.Random(0), folder)
        counts = folder / "counts"
        for arguments in [[], ["--force"]] if experiment.replaces else [[]]:
            begun = time.monotonic()
            done = self.finish(self.start(case, arguments, CAMPAIGN_COUNTS=counts))
            self.seconds[name] = time.monotonic() - begun
            if done.returncode != 0:
                sys.exit(f"{name}: the healthy run failed:\n{done.stderr}")
        self.counts[name] = dict(line.split() for line in counts.read_text().splitlines())
        self.healthy[name] = results(case.run)
        self.written[name] = sum(path.stat().st_size for path in case.run.rglob("*") if path.is_file())

    def start(self, case, arguments, **shim):
        """Starts a process on the case's run."""
        command = [self.options.fedplug, "run", self.folder / f"{case.experiment.name}.toml", "--output", case.runs,
                   "--threads", str(case.experiment.threads), *arguments]
        environment = dict(os.environ, LD_PRELOAD=str(self.shim), CAMPAIGN_ROOT=str(case.runs))
        environment.update({key: str(value) for key, value in shim.items()})
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, process):
        try:
            process.stderr_text = process.communicate(timeout=STUCK)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure("it was stuck") from None
        return subprocess.CompletedProcess(process.args, process.returncode, "", process.stderr_text)

    def mode(self, case):
        """How a user goes on: with `--resume`, or in any way where nothing was started yet."""
        if (case.run / "manifest.json").is_file():
            # Whoever replaces a run may also start over again. A damaged checkpoint is for `--resume` to see.
            again = case.experiment.replaces and case.kind != "byte" and case.rng.random() < 0.3
            return ["--force" if again else "--resume"]
        if case.run.is_dir() and any(case.run.iterdir()):
            # A plain start would keep the replaced run.
            return case.rng.choice([["--resume"], ["--force"]] + ([] if case.experiment.replaces else [[]]))
        return ["--force"] if case.experiment.replaces else []

    def interrupt(self, case, arguments):
        """Lets a fault happen to a process. Returns whether the run is complete nevertheless."""
        name, rng = case.experiment.name, case.rng
        shim, delay, sent, loss = {}, None, "SIGKILL", None
        if case.kind in ("call", "error") or (case.kind == "power" and rng.random() < 0.6):
            call = rng.choice([call for call in CALLS if int(self.counts[name][call]) > 0])
            shim = {"CAMPAIGN_CALLS": call, "CAMPAIGN_AT": rng.randint(1, int(self.counts[name][call]))}
            if case.kind == "error":
                shim["CAMPAIGN_HOW"] = rng.choice([errno.ENOSPC, errno.EIO])
        elif case.kind == "disk":
            # Checkpoints come on top of what stays.
            shim = {"CAMPAIGN_QUOTA": rng.randint(0, 3 * self.written[name])}
        else:
            delay = rng.uniform(0.0, 1.05 * self.seconds[name])
            sent = rng.choice(SIGNALS) if case.kind == "signal" else "SIGKILL"
        if case.kind == "power":
            shim["CAMPAIGN_JOURNAL"] = case.folder / "journal"
            shim["CAMPAIGN_JOURNAL"].unlink(missing_ok=True)
            loss = PowerLoss(case.runs, self.options.disk_lies)
        case.story.append(f"{' '.join(arguments) or 'start'}: {shim or f'{sent} after {delay:.3f} s'}")
        process = self.start(case, arguments, **shim)
        if delay is not None:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, sent))
        done = self.finish(process)
        case.story[-1] += f" -> {done.returncode}"
        self.expect(case, done, sent if delay is not None else "SIGKILL")
        if done.returncode == 0:
            return True
        case.interrupted += 1
        if loss is not None:
            loss.strike(case.folder / "journal", rng)
        return False

    def expect(self, case, done, sent):
        """Whether the process ended as it may."""
        allowed = {"signal": [130], "error": [1], "disk": [1]}.get(case.kind, [-signal.SIGKILL])
        if case.kind == "signal" and not done.stderr:
            # It came before the process could watch for signals, and before it had written anything.
            allowed.append(-getattr(signal, sent))
        finished = done.returncode == 2 and "the run is finished" in done.stderr
        if done.returncode not in (0, *allowed) and not finished:
            raise Failure(f"exit code {done.returncode}:\n{done.stderr}")
        if case.kind in ("error", "disk") and done.returncode == 1 and "error: " not in done.stderr:
            raise Failure(f"no reason was given:\n{done.stderr}")

    def complete(self, case):
        """Resumes the run without any more faults."""
        for _ in range(2):
            arguments = self.mode(case)
            done = self.finish(self.start(case, arguments))
            case.story.append(f"{' '.join(arguments) or 'start'} -> {done.returncode}")
            if done.returncode == 0 or (done.returncode == 2 and "the run is finished" in done.stderr):
                return done.stderr
            if case.kind == "byte" and "every checkpoint is damaged" in done.stderr:
                # Only one had been written yet. It is not taken for a sound one, and the run starts over.
                shutil.rmtree(case.run)
                continue
            raise Failure(f"exit code {done.returncode}:\n{done.stderr}")
        raise Failure("it does not come to its end")

    def play(self, case):
        name = case.experiment.name
        case.runs.mkdir(parents=True)
        arguments = []
        if case.experiment.replaces:
            shutil.copytree(self.folder / "healthy" / name / "runs" / name, case.run)
            arguments = ["--force"]
        for _ in range(case.rng.choice([1, 1, 2, 3])):
            if self.interrupt(case, arguments):
                break
            arguments = self.mode(case)
        damaged = flip_bit(case.run, case.rng) if case.kind == "byte" else None
        before = len(complete(case.run)) if damaged else 0
        told = self.complete(case)
        if damaged and before > 1 and "damaged checkpoint" not in told:
            raise Failure(f"{damaged}: a changed bit was not seen:\n{told}")
        if left := leftovers(case.run):
            # What could not be removed is removed by the next `--resume`.
            self.complete(case) if case.kind == "error" else None
            if left := leftovers(case.run):
                raise Failure(f"it leaves {left}")
        if different := differences(results(case.run), self.healthy[name]):
            raise Failure(f"these differ: {different}")

    def one(self, case):
        try:
            self.play(case)
        except (Failure, OSError, ValueError) as failure:
            return f"case {case.number}, {case.kind}, {case.experiment.name}: {failure!s}\n  " + "\n  ".join(
                [*case.story, f"files: {case.folder}"])
        shutil.rmtree(case.folder)
        return None

    def cases(self, experiments):
        """Cases until enough processes were interrupted or time is over."""
        kinds = self.options.kinds or KINDS
        weights = [WEIGHTS[KINDS.index(kind)] for kind in kinds]
        chances = [experiment.weight for experiment in experiments]
        number = 0
        while True:
            number += 1
            rng = random.Random(f"{self.options.seed}.{number}")
            # Each experiment and each kind at least once.
            [experiment] = rng.choices(experiments, chances)
            experiment = experiments[number - 1] if number <= len(experiments) else experiment
            kind = kinds[number - 1] if number <= len(kinds) else rng.choices(kinds, weights)[0]
            yield Case(number, experiment, kind, rng, self.folder / f"case-{number}")

    def run(self, experiments):
        begun = time.monotonic()
        tried, interrupted, failed = (collections.Counter() for _ in range(3))
        failures, running = [], {}
        cases = self.cases(experiments)
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            while True:
                over = sum(interrupted.values()) >= self.options.kills or (
                    self.options.seconds and time.monotonic() - begun > self.options.seconds)
                while not over and len(running) < self.options.jobs:
                    case = next(cases)
                    if self.options.case and case.number < self.options.case:
                        continue
                    running[pool.submit(self.one, case)] = case
                if not running:
                    break
                finished, _ = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
                for future in finished:
                    case = running.pop(future)
                    tried[case.kind] += 1
                    interrupted[case.kind] += case.interrupted
                    if told := future.result():
                        failed[case.kind] += 1
                        failures.append(told)
                        print(told, file=sys.stderr)
                if self.options.case:
                    self.options.kills = 0
        self.show(tried, interrupted, failed, time.monotonic() - begun)
        return failures

    @staticmethod
    def show(tried, interrupted, failed, seconds):
        print(f"{'kind':10}{'runs':>8}{'interrupted':>14}{'failed':>8}")
        for kind in [kind for kind in KINDS if tried[kind]]:
            print(f"{kind:10}{tried[kind]:8}{interrupted[kind]:14}{failed[kind]:8}")
        total = [sum(counter.values()) for counter in (tried, interrupted, failed)]
        print(f"{'all':10}{total[0]:8}{total[1]:14}{total[2]:8}   in {seconds:.0f} s")


def arguments():
    listed = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fedplug", type=Path, default=REPOSITORY / "target/debug/fedplug", help="the binary")
    parser.add_argument("--data", type=lambda path: Path(path).resolve(), default=REPOSITORY / "configs/sample", help="the folder of the data")
    parser.add_argument("--kills", type=int, default=2000, help="how many processes are interrupted")
    parser.add_argument("--seconds", type=float, help="stop after this time")
    parser.add_argument("--experiments", type=listed, help="only these, separated by commas")
    parser.add_argument("--kinds", type=listed, help=f"only these of {','.join(KINDS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many runs at a time")
    parser.add_argument("--seed", default="1", help="another number gives other cases")
    parser.add_argument("--disk-lies", action="store_true", help="lose what was forced to the disk as well: must fail")
    parser.add_argument("--case", type=int, help="only the case of this number; its chances are those of the run that had it, its moments are not")
    parser.add_argument("--folder", type=Path, help="where the runs are; a temporary folder by default")
    return parser.parse_args()


def main():
    options = arguments()
    chosen = [e for e in EXPERIMENTS if options.experiments is None or e.name in options.experiments]
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir=options.folder))
    campaign = Campaign(options, folder.resolve())
    campaign.prepare(chosen)
    failures = campaign.run(chosen)
    if failures:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
