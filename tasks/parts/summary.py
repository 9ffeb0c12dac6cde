"""The summary of a sweep: one table over its jobs, on the screen, as summary.csv and as summary.png.

A sweep writes a token to the file ``.sweep`` of its folder, and each of its jobs copies it to its own folder. The
summary recognises its jobs by it: the clocks of machines and of file servers may differ, or go back.
"""

import csv
import json
import os
import uuid
from pathlib import Path
from typing import Any

TOKEN = ".sweep"


def begin(folder: Path) -> None:
    """Writes a new token to a sweep's folder, so that jobs of an earlier sweep there are none of this one."""
    (folder / TOKEN).write_bytes(uuid.uuid4().hex.encode())


def join(job: Path) -> None:
    """Copies the token of a sweep to a job's folder; does nothing for a folder that lies in no sweep's."""
    if (token := token_of(job.parent)) is not None:
        (job / TOKEN).write_bytes(token)


def token_of(folder: Path) -> bytes | None:
    """Returns the token in a folder, or None."""
    try:
        return (folder / TOKEN).read_bytes()
    except FileNotFoundError:
        return None


def summarise(folder: Path) -> bool:
    """Reads the folders of a sweep's jobs, writes the table and prints it; returns True if there are jobs and none
    failed.

    A job without metrics.json has failed. Jobs without the sweep's token belong to an earlier sweep in the same folder
    and are left out.
    """
    token = token_of(folder)
    jobs = [path for path in folder.glob("[0-9]*-*") if token is not None and token_of(path) == token]
    rows = [row(path) for path in sorted(jobs, key=lambda path: int(path.name.split("-")[0]))]
    if not rows:
        print(f"no job of this sweep has left anything in {folder}")
        return False
    columns = list(dict.fromkeys(key for line in rows for key in line))
    with (folder / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    from scoresde import figures

    labels = figures.job_labels(rows)
    shown = [{**line, "choices": label} for line, label in zip(rows, labels, strict=True)]
    print("\n" + text(shown, [column for column in columns if column not in ("job", "error")]) + "\n")
    for line in shown:
        if "error" in line:
            print(f"failed: {line['choices']}: {line['error']}")
    print(os.path.relpath(folder / "summary.csv"))
    if any(line["status"] == "ok" for line in rows):
        print(os.path.relpath(figures.summary_plot(rows, folder / "summary.png")))
    return all(line["status"] == "ok" for line in rows)


def row(job: Path) -> dict[str, Any]:
    """Returns a line of the table: a job's number, what was typed for it, whether it finished, and its metrics or its
    error.
    """
    number = int(job.name.split("-")[0])
    overrides = job / ".hydra" / "overrides.yaml"
    lines = overrides.read_text().splitlines() if overrides.exists() else []
    choices = " ".join(line.removeprefix("- ").strip("'\"") for line in lines if line.startswith("- ")) or job.name
    metrics = job / "metrics.json"
    if metrics.exists():
        return {"job": number, "choices": choices, "status": "ok", **json.loads(metrics.read_text())}
    return {"job": number, "choices": choices, "status": "failed", "error": reason(job / "metrics.jsonl")}


def reason(events: Path) -> str:
    """Returns why a job failed: the last error in its metrics.jsonl, or a word on where to look."""
    lines = events.read_text().splitlines() if events.exists() else []
    return next(
        (event["error"] for event in map(json.loads, reversed(lines)) if "error" in event),
        "it ended before it began; see run.log",
    )


def text(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Returns the rows as an aligned table of some columns, with the columns' names in its first line."""
    from .record import show

    cells = [columns] + [[show(each.get(column, "")) for column in columns] for each in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )
