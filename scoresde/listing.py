"""``scoresde ls``: lists the trained networks of a store and the runs of an output folder, newest first.

    python run.py ls                                        of checkpoints/ and outputs/
    python run.py ls store=FOLDER outputs=FOLDER            of other folders
    python run.py ls verify=true                            compares every file of a network with its checksum, too

It reads files and imports no torch, so that it answers at once, and never fails for what it finds: a network or a run
that is not whole is listed with what is wrong with it. A file that is missing or cut off is always found, a flipped bit
in the weights with ``verify=true``.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDERS = {"store": "checkpoints", "outputs": "outputs"}
NETWORK = ("name", "status", "what", "data", "steps", "held-out loss", "size", "age")
RUN = ("run", "status", "task", "data", "metric", "size", "age")
LONGEST = 60  # characters of a cell
WORK = {"count", "draws", "frames", "nfe", "seconds", "samples_per_second"}
WORK |= {"samples_out_of_range", "draws_out_of_range", "known_deviation_data_units"}
"""Metrics that say how much was done, or that nothing went wrong; the first other number of a run is shown."""
SIZES = ("B", "kB", "MB", "GB", "TB")
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))  # of ages


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        cells: the text of each column by its title; columns without one are empty.
        written: when it was last written, in seconds since 1970.
    """

    cells: dict[str, str] = field(default_factory=dict)
    written: float = 0.0


def show(words: list[str]) -> str:
    """Returns the tables that ``ls`` prints.

    Arguments:
        words: those typed behind ``ls``.

    Raises:
        ValueError: a word is none of the options, or a folder does not exist that was asked for.
    """
    chosen = options(words)
    store, outputs = (Path(chosen[key]).expanduser() for key in FOLDERS)
    for key in FOLDERS:
        if chosen[key] != FOLDERS[key] and not Path(chosen[key]).expanduser().is_dir():
            raise ValueError(f"{key}={chosen[key]} is no folder; type {key}=FOLDER, or leave it out for {FOLDERS[key]}")
    parts = []
    for title, columns, rows, folder, key in (
        ("networks", NETWORK, networks(store, chosen["verify"] == "true"), store, "store"),
        ("runs", RUN, runs(outputs), outputs, "outputs"),
    ):
        found = sorted(rows, key=lambda row: row.written, reverse=True)
        lines = table(columns, [row.cells for row in found]) if found else f"  none; {key}=FOLDER names another folder"
        parts.append(f"{title} of {folder}\n{lines}")
    return "\n\n".join(parts)


def options(words: list[str]) -> dict[str, str]:
    """Returns the options with their values; raises a ValueError for a word that is none of them."""
    chosen = {**FOLDERS, "verify": "false"}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in chosen or not equals or not value or key == "verify" and value not in ("true", "false"):
            raise ValueError(f"ls {word} cannot be read; type ls, ls store=FOLDER, ls outputs=FOLDER or ls verify=true")
        chosen[key] = value
    return chosen


# --- networks ---------------------------------------------------------------------------------------------------------


def networks(store: Path, verify: bool) -> Iterator[Row]:
    """Yields the networks of a store: folders with a config.yaml or a checkpoint."""
    for folder in folders_in(store):
        steps = sorted(path for path in folders_in(folder) if path.name.startswith("step-"))
        if not steps and not (folder / "config.yaml").is_file():
            continue
        newest = steps[-1] if steps else None
        config = mapping(folder / "config.yaml")
        step = number_of(newest)
        cells = described(config) | {"name": folder.name, "status": status(newest, step, config, verify)}
        cells |= {"steps": "" if step is None else f"{step:,}", "held-out loss": held_out_loss(folder)}
        yield row(cells, folder, newest or folder / "config.yaml")


def described(config: dict | None) -> dict[str, str]:
    """Returns what a network is, and which data it learnt, from its config.yaml."""
    config = config or {}
    what = [class_of(config.get(key)) for key in ("model", "sde")]
    data, path = class_of(config.get("data")), None
    if isinstance(config.get("source"), dict):
        path = config["source"].get("path")
    name = f"{data} {Path(path).name}" if isinstance(path, str) else data
    return {"what": " ".join(filter(None, what)), "data": name}


def status(newest: Path | None, step: int | None, config: dict | None, verify: bool) -> str:
    """Returns whether a network is finished, unfinished or damaged, and why.

    Arguments:
        newest: the folder of its newest checkpoint; None without any.
        step: the number of updates of that checkpoint; None if its name holds none.
        config: its config.yaml; None if it cannot be read.
    """
    training = (config or {}).get("training")
    wanted = training.get("steps") if isinstance(training, dict) else None
    if not isinstance(wanted, int):
        return "damaged: config.yaml"
    if newest is None:
        return "unfinished: no checkpoint yet"
    if step is None:
        return f"damaged: {newest.name}"
    if fault := fault_of(newest, verify):
        return f"damaged: {newest.name}/{fault}"
    return f"unfinished: of {wanted:,}" if step < wanted else "finished"


def fault_of(checkpoint: Path, verify: bool) -> str | None:
    """Returns the name of a file of a checkpoint that is not what was written, or None.

    Arguments:
        verify: whether every checksum is computed, and not only that of state.json.
    """
    sums = mapping(checkpoint / "manifest.json")
    if not sums:
        return "manifest.json"
    for name, expected in sums.items():
        path = checkpoint / name
        try:
            if name.endswith(".safetensors") and cut_off(path):
                return name
            if (verify or not name.endswith(".safetensors")) and sha256(path) != expected:
                return name
        except OSError:
            return name
    return None if "state.json" in sums else "state.json"


def cut_off(path: Path) -> bool:
    """Returns whether a file of tensors is shorter or longer than its header says."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            return True
        try:
            tensors = json.loads(file.read(size))
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return True
    return path.stat().st_size != 8 + size + max(ends, default=0)


def sha256(path: Path) -> str:
    """Returns the hash of a file's content, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def held_out_loss(folder: Path) -> str:
    """Returns the last loss on held-out data in a training's events; nothing where there is none."""
    events = (event.get("held_out_loss") for event in reversed(lines_of(folder / "log.jsonl")))
    return next((shown(value) for value in events if value is not None), "")


def number_of(checkpoint: Path | None) -> int | None:
    """Returns the number of updates in the name of a checkpoint's folder; None if there is none."""
    digits = "" if checkpoint is None else checkpoint.name.partition("-")[2]
    return int(digits) if digits.isdecimal() else None


# --- runs -------------------------------------------------------------------------------------------------------------


def runs(outputs: Path) -> Iterator[Row]:
    """Yields the runs of an output folder: folders, at any depth, with the events or the configuration of a run."""
    waiting = [outputs]
    while waiting:
        folder = waiting.pop()
        inside = folders_in(folder)
        if (folder / "metrics.jsonl").is_file() or (folder / ".hydra").is_dir():
            yield run_of(folder, outputs)
        waiting += [path for path in inside if not path.name.startswith(".") and not path.is_symlink()]


def run_of(folder: Path, outputs: Path) -> Row:
    """Returns the row of one run."""
    path = folder / "metrics.json"
    metrics = mapping(path) if path.is_file() else {}
    events = lines_of(folder / "metrics.jsonl")
    if metrics is None:
        found = "damaged: metrics.json"
    elif path.is_file():
        found = "finished"
    else:
        found = next((f"failed: {event['error']}" for event in reversed(events) if "error" in event), "unfinished")
    numbers = ((key, value) for key, value in (metrics or {}).items() if isinstance(value, int | float))
    first = next((f"{key} {shown(value)}" for key, value in numbers if key not in WORK), "")
    try:
        name = folder.relative_to(outputs).as_posix()
    except ValueError:
        name = str(folder)
    cells = {"run": name, "status": found, "metric": first} | choices_of(folder, name)
    return row(cells, folder, path if path.is_file() else folder / "metrics.jsonl")


def choices_of(folder: Path, name: str) -> dict[str, str]:
    """Returns the task and the data of a run, from what was typed for it, else from its folder's name.

    Arguments:
        name: the folder below the outputs: TASK/DATA-SDE-SAMPLER/TIME, or sweeps/TIME/NUMBER-DATA-SDE-SAMPLER.
    """
    try:
        words = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        words = None
    typed = dict(word.split("=", 1) for word in words or () if isinstance(word, str) and "=" in word)
    parts = name.split("/")
    task = data = ""
    if parts[0] == "sweeps" and len(parts) == 3:
        data = parts[2].partition("-")[2].split("-")[0]
    elif len(parts) == 3:
        task, data = parts[0], parts[1].split("-")[0]
    if words is not None and "experiment" not in typed:  # the defaults of conf/config.yaml
        task, data = task or "sample", data or "digits"
    return {"task": typed.get("task", task), "data": typed.get("data", data)}


# --- files and text ---------------------------------------------------------------------------------------------------


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder; an empty list where it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def mapping(path: Path) -> dict | None:
    """Returns the content of a .json or .yaml file; None if it cannot be read or holds no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Returns the events of a .jsonl file, without lines that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def class_of(node: Any) -> str:
    """Returns the name of the class that a node of a configuration names; nothing where it names none."""
    target = node.get("_target_") if isinstance(node, dict) else None
    return target.rpartition(".")[2] if isinstance(target, str) else ""


def row(cells: dict[str, str], folder: Path, newest: Path) -> Row:
    """Returns a row with the size of a folder, and the age of the file or folder that was written last."""
    written = time_of(newest) or time_of(folder)
    return Row(cells | {"size": size_of(folder), "age": age(time.time() - written)}, written)


def time_of(path: Path) -> float:
    """Returns when a file or folder was written, in seconds since 1970; 0 where that is unknown."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def size_of(folder: Path) -> str:
    """Returns the size of all files in a folder, in words."""
    total, waiting = 0.0, [folder]
    while waiting:
        try:
            inside = list(waiting.pop().iterdir())
        except OSError:
            continue
        for path in inside:
            try:
                if path.is_dir() and not path.is_symlink():
                    waiting.append(path)
                else:
                    total += path.lstat().st_size
            except OSError:  # removed meanwhile
                continue
    power = next((power for power in range(4) if total < 1000 ** (power + 1)), 4)
    return f"{total / 1000**power:.3g} {SIZES[power]}"


def age(seconds: float) -> str:
    """Returns an age in its largest unit, at least 0 s: a clock may have gone back."""
    seconds = max(0.0, seconds)
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def shown(value: Any) -> str:
    """Returns a number as tables show it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(columns: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    """Returns rows as aligned text, with the columns' titles in the first line; long cells are cut."""
    lines = [columns, *(tuple(cells.get(column, "") for column in columns) for cells in rows)]
    cut = [[" ".join(cell.split())[:LONGEST] for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cut
    )
