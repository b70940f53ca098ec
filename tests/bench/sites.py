#!/usr/bin/env python3
"""Rounds over a SuperLink: fedplug's server and sites, or Flower's own server and nodes with the same arrays.

Each measurement is a process in a network namespace of its own (`unshare`), with a SuperLink of its own on loopback, without
TLS. So the namespace's loopback device counts every byte that crosses, with the heads of TCP and HTTP, in both directions.
The time of a round is that from its start to the next one's, so without the run's begin and end.

    sites.py fedplug|flower JSON     the work of one measurement, in its namespace; prints a line of JSON
"""
import dataclasses
import fcntl
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import data
from flower_app import bundle, start_run
from measure import Unavailable, last_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
TASKS = ["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm"]
LARGE = (118, 1_000_000)  # tensors, elements: 472 MB
LEAST_FREE = 1 << 31  # bytes of the machine's memory, below which a measurement is given up


class Watch:
    """The most memory that groups of processes had together, and what stood on the clock when each round began."""

    def __init__(self, starts, limit):
        self.groups, self.most, self.starts, self.marks = {}, {}, starts, []
        self.next, self.until = 0.0, time.monotonic() + limit

    def look(self):
        """Looks once; an error if the measurement must end."""
        lines = self.starts.read_text().count("\n") if self.starts.exists() else 0
        while len(self.marks) < lines:
            self.marks.append((time.perf_counter(), loopback()))
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + 0.25  # To look at all processes costs some milliseconds.
        processes = table()
        for group, find in self.groups.items():
            self.most[group] = max(self.most.get(group, 0), max(map(sum, find(processes)), default=0))
        if available() < LEAST_FREE:
            raise Unavailable("the machine has not enough memory")
        if time.monotonic() > self.until:
            raise Unavailable("not done in time")

    def result(self, rounds):
        (begun, before), (ended, after) = self.marks[0], self.marks[rounds]
        memory = {group: most / 1e6 for group, most in self.most.items()}
        return {"seconds": (ended - begun) / rounds, "wire": (after - before) / rounds / 1e6, **memory}


def loopback():
    """Bytes that have gone over the loopback device."""
    line = next(line for line in pathlib.Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def available():
    return next(int(line.split()[1]) << 10 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))


def table():
    """Parent, resident bytes and command line of each process."""
    processes = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                pages = int((entry / "statm").read_text().split()[1])
                processes[int(entry.name)] = (parent, pages * os.sysconf("SC_PAGE_SIZE"), (entry / "cmdline").read_text(errors="replace"))
        except OSError:
            pass  # It has ended meanwhile.
    return processes


def below(processes, pid):
    """A process and all that it began."""
    return [pid, *(deeper for child, (parent, _, _) in processes.items() if parent == pid for deeper in below(processes, child))]


def tree(pid, holding=None, without=None):
    """The memory of a process and of those below it whose command line holds a text, or does not hold one."""
    def find(processes):
        found = [processes[one] for one in below(processes, pid) if one in processes]
        return [memory for _, memory, line in found
                if (holding is None or holding in line) and (without is None or without not in line)]
    return find


class Programs:
    """Programs that end with the measurement."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def start(self, name, command, env=None):
        with open(self.folder / f"{name}.log", "w") as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env={**os.environ, **(env or {})})
        self.running.append(process)
        return process

    def end(self):
        for process in self.running:
            for pid in below(table(), process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            process.wait()

    def tail(self, name):
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines() or ["no message"]
        return next((line for line in reversed(lines) if "rror" in line), lines[-1])


def loopback_up():
    """A new namespace has a loopback device that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        SIOCGIFFLAGS, SIOCSIFFLAGS, UP = 0x8913, 0x8914, 1
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | UP))


def flower(options):
    """The environment in which Flower's programs start."""
    packages = options["flower"]
    return {"PYTHONPATH": packages, "PATH": f"{packages}/bin:{os.environ['PATH']}", "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1"}


def superlink(options, programs, *words):
    env = {**flower(options), "FLWR_HOME": str(programs.folder / "superlink")}
    process = programs.start("superlink", [sys.executable, f"{options['flower']}/bin/flower-superlink", "--insecure", *words], env)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 8000)) == 0:
                return process
        time.sleep(0.1)
    raise Unavailable(f"no SuperLink: {programs.tail('superlink')}")


def measure_fedplug(options, folder, programs, watch):
    fedplug, names = options["fedplug"], TASKS[-options["sites"]:]
    link = superlink(options, programs, "--isolation", "process")
    keys, sites = [], []
    for name in names:
        made = subprocess.run([fedplug, "keys", name, "--output", folder / f"{name}.pem"], capture_output=True, text=True, check=True)
        print_of_key = next(word for word in made.stdout.replace('"', " ").split() if word.startswith("sha256:"))
        keys.append(f'{name} = "{print_of_key}"')
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\ndevice = "cpu"\nthreads = 1\n[data]\nfolder = "{ROOT}"\n[allow]\nconfirm = false\n')
        sites.append(programs.start(name, [fedplug, "join", folder / f"{name}.toml", "--superlink", "http://127.0.0.1:8000"]))
    data.experiment(folder / "experiment.toml", name="bench", root=os.path.relpath(ROOT / "configs" / "sample", ROOT),
                    rounds=options["rounds"] + 1, tasks=json.dumps(names), dataset='clients = "by-task"', model=options["model"],
                    federation=options.get("federation", ""), more=options.get("more", "") + "\n[federation.sites]\n" + "\n".join(keys))
    server = programs.start("server", [fedplug, "serve", folder / "experiment.toml", "--superlink", "http://127.0.0.1:8000",
                                       "--output", folder / "runs"])
    watch.groups = {"server": lambda p: [tree(server.pid)(p)], "superlink": lambda p: [tree(link.pid)(p)],
                    "site": lambda p: [tree(site.pid)(p) for site in sites]}
    while server.poll() is None:
        watch.look()
        time.sleep(0.02)
    if server.returncode:
        raise Unavailable(f"fedplug serve: {programs.tail('server')}")


def measure_flower(options, folder, programs, watch):
    link = superlink(options, programs, "--disable-runtime-dependency-installation")
    sites = []
    for number in range(options["sites"]):
        env = {**flower(options), "FLWR_HOME": str(folder / f"node{number}")}
        command = [sys.executable, f"{options['flower']}/bin/flower-supernode", "--insecure", "--superlink", "127.0.0.1:8000",
                   "--port", str(9000 + number)]
        sites.append(programs.start(f"node{number}", command, env))
    start_run(8000, bundle({"STARTS": str(watch.starts), "SITES": options["sites"], "ROUNDS": options["rounds"] + 1,
                            "TENSORS": options["tensors"], "ELEMENTS": options["elements"]}))
    # The SuperLink starts the server's app, and each node one of its own for each message.
    app = "flwr-serverapp"
    watch.groups = {"server": lambda p: [tree(link.pid, holding=app)(p)], "superlink": lambda p: [tree(link.pid, without=app)(p)],
                    "site": lambda p: [tree(site.pid)(p) for site in sites]}
    while not watch.starts.exists() or "end" not in watch.starts.read_text():
        if link.poll() is not None:
            raise Unavailable(f"SuperLink: {programs.tail('superlink')}")
        watch.look()
        time.sleep(0.02)


def measure(which, options):
    loopback_up()
    with tempfile.TemporaryDirectory(prefix="fedplug-sites-") as folder:
        folder = pathlib.Path(folder)
        starts = folder / ("runs/bench/attempts.jsonl" if which == "fedplug" else "starts")
        programs, watch = Programs(folder), Watch(starts, options["limit"])
        try:
            {"fedplug": measure_fedplug, "flower": measure_flower}[which](options, folder, programs, watch)
            print(json.dumps(watch.result(options["rounds"])))
        except Unavailable as why:
            print(json.dumps({"unavailable": str(why)}))
        finally:
            programs.end()


@dataclasses.dataclass
class SitesRow:
    """A line of the table of sites."""
    name: str
    bench: object
    which: str
    sites: int
    of: dict
    rounds: int = 3
    group: str = "sites"
    full: bool = False

    @property
    def beside(self):
        return f"{self.which}, {self.sites} site{'s' if self.sites > 1 else ''}"

    HEAD = ["| | sites | | a round | on the wire a round | server | a site | SuperLink |", "|---|---|---|---|---|---|---|---|"]

    def line(self):
        options = self.bench.options
        if not pathlib.Path(options.flower, "flwr").is_dir():
            raise Unavailable(f"no flwr in {options.flower} (`make bench` installs it)")
        of = {"fedplug": str(pathlib.Path(options.fedplug).resolve()), "flower": str(pathlib.Path(options.flower).resolve()),
              "limit": options.limit, "sites": self.sites, "rounds": self.rounds, **self.of}
        command = ["unshare", "--map-root-user", "--net", sys.executable, __file__, self.which, json.dumps(of)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        except OSError as error:
            raise Unavailable(f"cannot run unshare: {error.strerror}") from None
        if done.returncode:
            raise Unavailable((done.stderr.strip().splitlines() or ["no message"])[-1])
        result = last_json(done.stdout)
        if "unavailable" in result:
            raise Unavailable(result["unavailable"])
        cells = [self.name, str(self.sites), self.which, f"{result['seconds']:.3g} s", f"{result['wire']:.4g} MB",
                 *(f"{result[group]:.0f} MB" for group in ("server", "site", "superlink"))]
        return "| " + " | ".join(cells) + " |"


def rows(bench, tiny):
    """The rows of the table. `tiny`: the model's and the filters' tables of the tiny model."""
    tensors, elements = LARGE
    # The fixture's score never changes, so the best model is the first, which the server would keep in memory.
    large = {"tensors": tensors, "elements": elements, "federation": 'idle-memory = "0 B"',
             "model": f'plugin = "bulk"\ntensors = {tensors}\nelements = {elements}'}
    compress = '[[filter]]\nplugin = "compress"\nat = ["client-output", "server-input"]\nmethod = '
    model, more = tiny
    yield SitesRow("tiny AMPLIFY, private heads", bench, "fedplug", 6, {"model": model, "more": more}, rounds=10)
    yield SitesRow("the same tensors' number and size", bench, "flower", 6, {"tensors": 40, "elements": 2000}, rounds=3)
    for sites in (1, 6):
        for which in ("fedplug", "flower"):
            yield SitesRow(f"{tensors} tensors, {tensors * elements * 4 / 1e6:.0f} MB", bench, which, sites, large)
    for method in ('"int8"', '"top-k"\nkeep = 0.01'):
        name = method.replace('"', "").replace("\n", ", ")
        yield SitesRow(f"the same, compress {name} to the server", bench, "fedplug", 1, {**large, "more": compress + method})


if __name__ == "__main__":
    measure(sys.argv[1], json.loads(sys.argv[2]))
