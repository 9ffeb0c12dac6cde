"""The events of a training, one a line in ``log.jsonl`` beside its checkpoints, for runs that load the network.

Each line is a JSON object. Its last key ``sum`` holds a checksum of the others, which finds flipped bits; lines of
earlier versions have none.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def append(folder: Path, event: dict) -> None:
    """Appends an event, which has a key ``step``, to the folder's ``log.jsonl``."""
    with (folder / "log.jsonl").open("a+b") as file:
        if file.seek(0, os.SEEK_END):  # the size, 0 for a new file
            file.seek(0)
            *_, last = (content := file.read()).split(b"\n")
            if last and parsed(last):
                file.write(b"\n")
            elif last:  # a kill cut it off; a resumed training repeats its step
                file.truncate(len(content) - len(last))
        file.write((json.dumps(event | {"sum": checksum(event)}) + "\n").encode())


def read(folder: Path) -> list[dict]:
    """Returns the events in order of their steps.

    A step may have two events, one with the training loss and one with ``held_out_loss``. A resumed training repeats
    some steps: of an event that occurs twice the later one is returned. A damaged line is left out, with a warning.
    """
    path, events = folder / "log.jsonl", {}
    lines = [line for line in (path.read_bytes().split(b"\n") if path.exists() else []) if line]
    found = [event for line in lines if (event := parsed(line))]
    if len(found) < len(lines):
        log.warning("%s: %s of %s lines are damaged and left out", path, len(lines) - len(found), len(lines))
    for event in found:
        events[event["step"], "held_out_loss" in event] = event
    return [events[key] for key in sorted(events)]


def parsed(line: bytes) -> dict | None:
    """Returns the event in a line; None if the line is cut off or damaged."""
    try:
        event = json.loads(line)
        total = event.pop("sum", None)
        return event if type(event.get("step")) is int and total in (None, checksum(event)) else None
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None


def checksum(event: dict) -> str:
    """Returns eight hexadecimal digits of a hash of an event."""
    return hashlib.sha256(json.dumps(event).encode()).hexdigest()[:8]
