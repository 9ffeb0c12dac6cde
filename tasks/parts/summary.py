"""The summary of a sweep: one table over its jobs, on the screen, as summary.csv and as summary.png."""

import csv
import json
import os
from pathlib import Path
from typing import Any


def summarise(folder: Path, since: float = 0.0) -> bool:
    """Reads the folders of a sweep's jobs, writes the table and prints it; returns True if there are jobs and none
    failed.

    A job with metrics.jsonl and without metrics.json has failed. Jobs that wrote nothing after ``since``, in seconds
    since the epoch, belong to an earlier sweep in the same folder and are left out.
    """
    jobs = [path for path in folder.glob("[0-9]*-*") if (path / "metrics.jsonl").exists()]
    # a second of tolerance, since some file systems round times to it
    jobs = [path for path in jobs if (path / "metrics.jsonl").stat().st_mtime >= since - 1]
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
