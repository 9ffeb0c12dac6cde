"""The events of a training, one a line in ``log.jsonl`` beside its checkpoints, for runs that load the network."""

import json
from pathlib import Path


def append(folder: Path, event: dict) -> None:
    """Appends an event, which has a key ``step``."""
    with (folder / "log.jsonl").open("a+b") as file:
        if file.seek(0, 2) and file.seek(-1, 2) is not None and file.read() != b"\n":
            file.write(b"\n")  # after a line that a kill cut off
        file.write((json.dumps(event) + "\n").encode())


def read(folder: Path) -> list[dict]:
    """Returns the events in order of their steps.

    A resumed training repeats some steps, with equal values: each step is returned once. A line that a kill cut off is
    left out.
    """
    path, events = folder / "log.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        events[event["step"], "held_out_loss" in event] = event
    return [events[key] for key in sorted(events)]
