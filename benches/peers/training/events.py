#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard's own reader and compares every scalar and step with train.jsonl.

    python3 -m venv venv && venv/bin/pip install tensorboard
    venv/bin/python benches/peers/training/events.py runs/shop
"""

import json
import sys
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main():
    run = Path(sys.argv[1])
    log = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    compared = 0
    for tag in events.Tags()["scalars"]:
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        wanted = [(line["step"], float(np.float32(line[tag]))) for line in log if tag in line]
        if found != wanted:
            sys.exit(f"{tag}: {len(found)} values are read, {len(wanted)} were logged, or they differ")
        compared += len(found)
    logged = {key for line in log for key in line if key not in ("step", "best")}
    if logged != set(events.Tags()["scalars"]):
        sys.exit(f"logged were {sorted(logged)}, read {sorted(events.Tags()['scalars'])}")
    print(f"{compared} values of {', '.join(sorted(logged))} agree, steps and all")


if __name__ == "__main__":
    main()
