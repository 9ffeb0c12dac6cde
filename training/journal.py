"""The events of a training, one a line in ``log.jsonl`` beside its checkpoints, for runs that load the network."""

import json
import os
from pathlib import Path


def append(folder: Path, event: dict) -> None:
    """Appends an event, which has a key ``step``, to the folder's ``log.jsonl``."""
    with (folder / "log.jsonl").open("a+b") as file:
        if file.seek(0, os.SEEK_END):  # the size, 0 for a new file
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # a kill cut the last line off
                file.write(b"\n")
        file.write((json.dumps(event) + "\n").encode())


def read(folder: Path) -> list[dict]:
    """Returns the events in order of their steps.

    A step may have two events, one with the training loss and one with ``held_out_loss``. A resumed training repeats
    some steps: of an event that occurs twice the later one is returned. A line that is no
    event, such as one that a kill cut off, is left out.
    """
    path, events = folder / "log.jsonl", {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and type(event.get("step")) is int:
            events[event["step"], "held_out_loss" in event] = event
    return [events[key] for key in sorted(events)]
