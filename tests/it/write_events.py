"""Writes two jobs as NVFlare's simulator leaves them, with TensorBoard's own writer.

Each client's script writes into a folder with the time at which it started, in the client's workspace; the server keeps
what clients stream to it. Tags are `CLIENT/NAME`.
"""

import sys
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

jobs = Path(sys.argv[1])
CLIENTS = ["aggregation", "binding", "tm"]


def write(folder, tags, start):
    writer = EventFileWriter(str(folder))
    for step in range(60):
        for place, tag in enumerate(tags):
            value = start + 1 / (step + 1) + place
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.add_event(Event(wall_time=1.7e9 + step, step=step, summary=summary))
    writer.close()


for number, job in enumerate(["local", "fedavg"]):
    for second, client in enumerate(CLIENTS):
        tags = [f"{client}/RMSE/local_test", f"{client}/Loss/train"]
        write(jobs / job / client / f"run_Nov26_10-0{number}-0{second}" / "logs", tags, number / 2)
    # The server has one client's stream as well: the same numbers, and others that no script writes.
    streamed = jobs / job / "server" / "simulate_job" / "tb_events" / "tm"
    write(streamed, ["tm/RMSE/local_test", "tm/Accuracy"], number / 2)
