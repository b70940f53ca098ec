#!/usr/bin/env python3
"""fedplug beside PyTorch on this machine, as one table of ratios: `make bench`.

Each row alternates fedplug, PyTorch, fedplug, PyTorch, …, each in a process of its own with the same number of threads, and
gives the median of the pairs' ratios with the least and the greatest. Some rows stand beside what fedplug's own models take. stdout is the table in Markdown; progress goes to stderr.
"""
import argparse
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

from measure import Unavailable
import sites
from rows import HEADS, Bench, amplify, rows

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="groups of rows with commas between them; all without it")
    parser.add_argument("--only", default="", help="of these the rows whose name holds this text")
    parser.add_argument("--full", action="store_true", help="also what takes minutes: the 120M shape, 10,000 clients")
    parser.add_argument("--pairs", type=int, help="how often each is measured (5 in full mode, else 3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a process is ended and its row given up")
    parser.add_argument("--data", type=lambda path: pathlib.Path(path).resolve(), default=ROOT / "configs" / "sample", help="a folder in FLAb's layout with six tasks")
    parser.add_argument("--fedplug", default=ROOT / "target" / "release" / "fedplug")
    parser.add_argument("--step", default=ROOT / "target" / "release" / "examples" / "step")
    parser.add_argument("--flower", default=ROOT / ".flower", help="a folder with the Python packages of flwr")
    parser.add_argument("--torch-python", default=os.environ.get("FEDPLUG_TORCH_PYTHON"), help="a Python with PyTorch and pandas")
    parser.add_argument("--output", type=pathlib.Path, help="also write the table into this file")
    options = parser.parse_args()
    options.pairs = options.pairs or (5 if options.full else 3)
    return options


def machine(options):
    cpu = platform.processor() or platform.machine()
    memory = ""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, "
    except (OSError, StopIteration, ValueError):
        pass  # Not Linux: the table says less.

    def told(command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        return done.stdout.strip() or "version unknown"

    torch = "without PyTorch"
    if options.torch_python:
        torch = "PyTorch " + told([options.torch_python, "-c", "import torch; print(torch.__version__)"])
    load = f"load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    date = datetime.datetime.now(datetime.timezone.utc).date()
    return (f"{date}, {cpu}, {os.cpu_count()} cores, {memory}{platform.system()} {platform.release()}, {options.threads} threads, "
            f"{told([options.fedplug, '--version'])}, {torch}, {options.pairs} pairs, {load}")


def number(value, unit):
    if value is None:
        return ""
    if unit == "s" and value < 0.1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def measured(row, pairs):
    """The line of a row."""
    ours, theirs, failed = [], [], ""
    for _ in range(1 if row.unit == "MiB" else pairs):
        ours.append(row.ours())
        if row.theirs and not failed:
            try:
                theirs.append(row.theirs())
            except Unavailable as why:
                failed = str(why)

    def middle(results, key):
        values = [getattr(result, key) for result in results if getattr(result, key) is not None]
        return statistics.median(values) if values else None

    ratios = [b.seconds / a.seconds for a, b in zip(ours, theirs)]
    cells = [row.group, row.name, number(middle(ours, "seconds"), row.unit), number(middle(theirs, "seconds"), row.unit),
             f"{statistics.median(ratios):.2f}" if ratios else "", f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "",
             number(middle(ours, "memory"), "MiB"), number(middle(theirs, "memory"), "MiB"), row.beside]
    return "| " + " | ".join(cells) + " |", failed


def main():
    options = arguments()
    head = ["| | | fedplug | compared | compared ÷ fedplug | least–most | memory | of the compared | compared with |",
            "|---|---|---|---|---|---|---|---|---|"]
    lines, site_lines, missing = [], [], []
    with tempfile.TemporaryDirectory(prefix="fedplug-bench-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        all_rows = [*rows(bench), *sites.rows(bench, (amplify("tiny"), HEADS))]
        groups = list(dict.fromkeys(row.group for row in all_rows))
        wanted = [group for group in options.rows.split(",") if group] or groups
        unknown = [group for group in wanted if group not in groups]
        if unknown:
            sys.exit(f"error: there are no rows `{'`, `'.join(unknown)}`\nhint: there are {', '.join(groups)}")
        for row in all_rows:
            if row.group not in wanted or options.only not in row.name:
                continue
            name = f"{row.group}: {row.name}" + (f" ({row.beside})" if row.beside else "")
            if row.full and not options.full:
                missing.append(f"{name}: only in full mode")
                continue
            print(name, file=sys.stderr, flush=True)
            try:
                if isinstance(row, sites.SitesRow):
                    site_lines.append(row.line())
                    continue
                line, failed = measured(row, options.pairs)
                lines.append(line)
                if failed:
                    missing.append(f"{name}: no PyTorch side: {failed}")
            except Unavailable as why:
                missing.append(f"{name}: {why}")
    parts = [machine(options)]
    for table_head, table in ((head, lines), (sites.SitesRow.HEAD, site_lines)):
        parts += ["", *table_head, *table] if table else []
    if missing:
        parts += ["", "Not measured:", "", *(f"- {line}" for line in missing)]
    text = "\n".join(parts) + "\n"
    print(text, end="")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)


if __name__ == "__main__":
    main()
