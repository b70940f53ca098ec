"""Compare a run's TensorBoard events, read by TensorBoard's own reader, with its metrics.jsonl.

usage: read_events.py RUN
"""
import json
import math
import struct
import sys
from collections import defaultdict
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])
events = {}
for folder in sorted((run / "events").iterdir()):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    for tag in reader.Tags()["scalars"]:
        assert tag.startswith(folder.name + "/"), tag
        events[tag] = [(e.step, e.value) for e in reader.Scalars(tag)]
        print(f"{tag}: {len(events[tag])}")

metrics = defaultdict(list)
for line in (run / "metrics.jsonl").read_text().splitlines():
    row = json.loads(line)
    value = math.nan if row["value"] is None else struct.unpack("f", struct.pack("f", row["value"]))[0]
    metrics[f"{row['client']}/{row['tag']}"].append((row["step"], value))

assert events.keys() == metrics.keys(), events.keys() ^ metrics.keys()
same = lambda a, b: a[0] == b[0] and (a[1] == b[1] or (math.isnan(a[1]) and math.isnan(b[1])))
for tag, rows in metrics.items():
    assert len(rows) == len(events[tag]) and all(map(same, rows, events[tag])), tag
print(sum(map(len, metrics.values())), "scalars agree")
