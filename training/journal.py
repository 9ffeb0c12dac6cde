"""The story of a training: one event a line, kept beside the checkpoints, so that the loss curve outlives the run that
trained.
"""

import json
from pathlib import Path


def append(folder: Path, event: dict) -> None:
    """Adds an event; its ``step`` orders it."""
    with (folder / "log.jsonl").open("a+b") as file:
        if file.seek(0, 2) and file.seek(-1, 2) is not None and file.read() != b"\n":
            file.write(b"\n")  # after a line that a kill cut short
        file.write((json.dumps(event) + "\n").encode())


def read(folder: Path) -> list[dict]:
    """The events in order. After a resume some steps were taken twice, with equal values: each is kept once; a line
    cut short by a kill is left out.
    """
    path, events = folder / "log.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        events[event["step"], "held_out_loss" in event] = event
    return [events[key] for key in sorted(events)]
