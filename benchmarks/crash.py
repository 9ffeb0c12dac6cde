"""Kills (-9) and flipped bits: whatever is killed resumes, and no damage of a kept file passes unseen.

    python -m benchmarks.crash                           200 kills and 1,000 flips
    python -m benchmarks.crash --kills 8 --flips 60

A kill ends a process at a random moment, and the next process does the same job. The kinds, in turn:

    training          at a random time of a training that saves often
    mid-save          before a random operation of a training on the store's files, nearly all of them part of a save
    kept samples      before a random operation on the store's files while task=evaluate draws and keeps samples
    waiting           a training, or the second process that waits for it

The kill counts as resumed if the job ends, meets no damaged file, leaves no half-written one, and the weights, their
average, the optimiser's state, the losses, the samples and the metrics equal those of an undisturbed run bit for bit.

A flip changes one bit of one file of a copy of the store: of checkpoints, of the configuration (in a folder of its own
name and of another), of the journal, of the kept samples and of decoded pixels. What reads the file then reads it. The
flip counts as detected if that raises an error that names the damage or warns of it, as harmless if all that is read is
unchanged, and as silent otherwise. The exit code is 1 if a job did not resume or a flip was silent.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from tqdm import tqdm

from scoresde import load, run
from scoresde.data import decoded
from scoresde.tasks.parts.sample_cache import SampleCache
from scoresde.training import checkpoint, journal, store
from scoresde.training.checkpoint import Checkpoint

from .oracle import whole

CHOICES = {"task": "train", "data": "points", "sde": "ve", "sampler": "ddim", "model": "mlp"}
FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}
COLUMNS = ("tried", "resumed", "detected", "harmless", "silent")


def words(folder: Path, steps: int) -> list[str]:
    """Returns the command line of the network; its data are points that ``folder`` holds."""
    model = ["model=mlp", "model.width=16", "model.depth=2", "training=vectors", "training.batch=32"]
    training = [f"training.steps={steps}", "training.evaluate=5", "training.save_seconds=0.02", "training.warmup=5"]
    sampler = ["sampler=ddim", "sampler.steps=4"]
    return ["data=arrays", f"data.path={folder}/points.npy", *model, *training, *sampler, "sde=ve", "threads=1"]


# ---- kills ---------------------------------------------------------------------------------------------------------


def child(cfg: dict, folder: Path, end: int) -> None:
    """Does one job in this process, which kills itself before operation number ``end`` on a file of the store.

    Its messages go to ``folder/log``, and the number of such operations to ``folder/count``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # not a semaphore that a killed process would leave
    Figure.savefig = lambda self, path, **keys: Path(path).touch()  # most of a small run's time
    count, place = [0], str(cfg["store"])

    def hook(event: str, arguments: tuple) -> None:
        if event in FILE_EVENTS and isinstance(arguments[0], str | os.PathLike):
            if os.fspath(arguments[0]).startswith(place):
                count[0] += 1
                if count[0] == end:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run(cfg, CHOICES, folder)
    (folder / "count").write_text(str(count[0]))


@dataclass
class Kills:
    """Jobs in processes that a server forks, which has imported everything.

    Arguments:
        root: holds the data, the undisturbed runs and a folder for each trial.
        steps: the updates of a training.
        rng: draws the moments of kills.
    """

    root: Path
    steps: int
    rng: random.Random
    trials: int = 0
    cfgs: dict[str, dict] = field(default_factory=dict)

    def __post_init__(self):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["benchmarks.oracle", "scoresde.conf.assemble", "scoresde.figures"])
        network = words(self.root, self.steps)
        self.cfgs["train"] = whole("task=train", *network)
        kept = ["task/features=values", "count=400", "task.batch=50"]
        self.cfgs["evaluate"] = whole("task=evaluate", *network, *kept)
        # the undisturbed runs; the first of all also starts the server
        self.calm, self.seconds, self.operations = self.root / "undisturbed", {}, {}
        self.finish("train", self.root / "first")
        self.want = {}
        for task in self.cfgs:
            began = time.monotonic()
            self.finish(task, self.calm)
            self.seconds[task] = time.monotonic() - began
            self.operations[task] = int((self.calm / task / "count").read_text())
            self.want[task] = self.results(task, self.calm)

    def start(self, task: str, folder: Path, end: int = 0, name: str | None = None) -> Any:
        """Starts a job in a process, with its store in ``folder``, and returns the process."""
        cfg = self.cfgs[task] | {"store": str(folder / "store")}
        process = self.context.Process(target=child, args=(cfg, folder / (name or task), end))
        process.start()
        return process

    def finish(self, task: str, folder: Path) -> None:
        """Does a job to its end."""
        require_done(self.start(task, folder), folder / task / "log")

    def results(self, task: str, folder: Path) -> dict[str, Any]:
        """Returns what a job left in its store and its folder, without times."""
        (network,) = (folder / "store").glob("*-*")
        found = checkpoint.load(network / f"step-{self.steps:08d}")
        metrics = json.loads((folder / task / "metrics.json").read_text())
        samples = {}
        for path in sorted(network.glob("samples-*/*.npz")):
            with np.load(path) as file:
                samples[path.name] = torch.from_numpy(file["x"]), int(file["evaluations"])
        return {
            "tensors": found.tensors,
            "events": [{key: v for key, v in event.items() if key != "waiting"} for event in journal.read(network)],
            "samples": samples,
            "metrics": {key: v for key, v in metrics.items() if key not in ("seconds", "drawn_now")},
        }

    def trial(self, kind: str) -> str:
        """Kills once, resumes and compares; returns ``resumed``, or what went wrong."""
        task = "evaluate" if kind == "kept samples" else "train"
        share = 1.0
        while True:
            folder = self.root / f"trial-{self.trials}"
            self.trials += 1
            if task == "evaluate":
                (network,) = (self.calm / "store").glob("*-*")
                hidden = shutil.ignore_patterns("samples-*")
                shutil.copytree(network, folder / "store" / network.name, ignore=hidden)
            way = {"training": self.at_a_time, "waiting": self.waiting}.get(kind, self.at_an_operation)
            if way(task, folder, share):
                break
            shutil.rmtree(folder)  # it ended before it was killed
            share *= 0.8
        try:
            self.finish(task, folder)
            found, log = self.results(task, folder), "".join(path.read_text() for path in folder.glob("*/log"))
            assert "set aside" not in log and "is not what was written" not in log, "a damaged file was met"
            left = [path.name for path in (folder / "store").rglob(".partial-*")]
            assert not left, f"{', '.join(left)} stayed"
            for key, want in self.want[task].items():
                assert same(found[key], want), f"other {key}"
        except (AssertionError, OSError, ValueError) as error:
            return f"{kind}, {folder.name}: {error}"
        shutil.rmtree(folder)
        return "resumed"

    def at_a_time(self, task: str, folder: Path, share: float) -> bool:
        """Kills a job at a random time; returns whether it was still at work."""
        process = self.start(task, folder)
        time.sleep(self.rng.uniform(0, share * self.seconds[task]))
        return killed(process)

    def at_an_operation(self, task: str, folder: Path, share: float) -> bool:
        """The same before a random operation on a file."""
        process = self.start(task, folder, self.rng.randint(1, max(1, int(share * self.operations[task]))))
        process.join()
        return process.exitcode == -signal.SIGKILL

    def waiting(self, task: str, folder: Path, share: float) -> bool:
        """Kills one of two trainings of a network while the second waits for the first; the other must go on."""
        first = self.start(task, folder, name="first")
        while first.is_alive() and not list(folder.glob("store/*/.lock")):
            time.sleep(0.001)
        second, log = self.start(task, folder, name="second"), folder / "second" / "log"
        while first.is_alive() and not (log.exists() and "waiting for it" in log.read_text()):
            time.sleep(0.001)
        time.sleep(self.rng.uniform(0, 0.3 * share * self.seconds[task]))
        was_waiting = first.is_alive()
        ends, lives = (first, second) if self.rng.random() < 0.5 else (second, first)
        was_waiting &= killed(ends)
        require_done(lives, folder / ("second" if lives is second else "first") / "log")
        return was_waiting


def killed(process: Any) -> bool:
    """Kills a process; returns whether that ended it."""
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def require_done(process: Any, log: Path) -> None:
    """Waits for a job; raises an AssertionError with the end of its messages if it failed."""
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}: {log.read_text()[-2000:]}"


# ---- flips ---------------------------------------------------------------------------------------------------------


@dataclass
class Flips:
    """Reads files of a store, each by what reads it in a run.

    Arguments:
        store: a store with one network, whose folder holds kept samples.
        copy: where flipped copies are made.
    """

    store: Path
    copy: Path

    def __post_init__(self):
        (network,) = self.store.glob("*-*")
        found = checkpoint.load_newest(network)
        for kind in ("kept", "power"):  # as the trainer writes them
            checkpoint.save(network, Checkpoint(found.step // 2, {"ema": found.tensors["ema"]}, {"loss": 0.5}), kind)
        self.network, (samples,) = network.name, network.glob("samples-*")
        self.described = yaml.safe_load((samples / "description.yaml").read_text())
        self.decoded = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8)
        self.pixels(self.store)
        self.count = int(sorted(samples.glob("*.npz"))[-1].stem.split("-")[1])
        self.drawn = SampleCache(network, self.described).found(self.count)
        files = [path.relative_to(self.store) for path in sorted(self.store.rglob("*")) if path.is_file()]
        self.files = [(self.kind(path), path) for path in files if (self.store / path).stat().st_size]
        self.files += [("config.yaml, renamed", path) for kind, path in self.files if kind == "config.yaml"]
        self.want = {}
        for kind, path in self.files:
            self.reset()
            self.want[kind, path] = self.read(kind, path)

    def kind(self, path: Path) -> str:
        """Returns the kind of a file of the store."""
        part = path.parts[0] if path.parts[0] == "pixels" else path.parts[1]
        for prefix in ("step-", "kept-", "power-", "samples-"):
            if part.startswith(prefix):
                return f"{prefix}*"
        return part

    def reset(self) -> None:
        """Makes a fresh copy of the store."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.store, self.copy)

    def read(self, kind: str, path: Path) -> Any:
        """Returns what a run reads from the copy, of which a file of this kind was flipped."""
        folder = self.copy / self.network
        if kind in ("step-*", "kept-*", "power-*"):
            place = self.copy / path.parent
            if kind == "power-*":
                return store.load_kept(place, store.read(folder)[0]).__dict__
            return store.read(place)[1].__dict__
        if kind.startswith("config.yaml"):
            if kind.endswith("renamed"):
                folder = folder.rename(self.copy / "mine")
            _, score, data = load(folder)
            identity = store.read(folder)[0]
            source = identity.pop("source")  # its path is verified by the content of the file
            units = {key: source.get(key) for key in ("shape", "shift", "scale", "levels")}
            return identity, units, score.state_dict(), data.train, data.test, data.shift, data.scale
        if kind == "log.jsonl":
            return journal.read(folder)
        if kind == "pixels":
            return self.pixels(self.copy)
        found = self.samples()
        return torch.from_numpy(found.x), found.evaluations

    def samples(self) -> Any:
        """Returns the kept samples; those that are drawn again are the same."""

        def draw(first: int, size: int) -> tuple[np.ndarray, int]:
            return self.drawn.x[first : first + size], round(self.drawn.evaluations * size / self.count)

        return SampleCache(self.copy / self.network, self.described).obtain(self.count, 50, draw, time.monotonic)

    def pixels(self, home: Path) -> tuple[torch.Tensor, list[str]]:
        """Returns decoded pixels and their notes, from the cache of a store."""
        long, decoded.LONG = decoded.LONG, 0.0
        try:
            pixels, notes = decoded.decoded_once(str(home / "pixels"), "key", lambda: (self.decoded, ["a note"]))
        finally:
            decoded.LONG = long
        return torch.from_numpy(pixels), notes

    def trial(self, kind: str, path: Path, bit: float) -> str:
        """Flips a bit, ``bit`` of the way through the file, and returns the verdict, or a silent flip's description."""
        self.reset()
        target = self.copy / path
        content = bytearray(target.read_bytes())
        place = int(bit * 8 * len(content))
        content[place // 8] ^= 1 << place % 8
        target.write_bytes(content)
        warnings: list[logging.LogRecord] = []
        listener = logging.Handler(logging.WARNING)
        listener.emit = warnings.append
        logging.getLogger().addHandler(listener)
        try:
            found = self.read(kind, path)
        except (ValueError, OSError):
            return "detected"
        except Exception as error:  # a traceback, which names no damage
            return f"{kind}: {path}, bit {place}: {type(error).__name__}: {error}"
        finally:
            logging.getLogger().removeHandler(listener)
        if warnings:
            return "detected"
        return "harmless" if same(found, self.want[kind, path]) else f"{kind}: {path}, bit {place}"


def same(one: Any, other: Any) -> bool:
    """Returns whether two trees of values and tensors are equal bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)  # NaN is itself, and -0.0 is not 0.0


# ---- the table -----------------------------------------------------------------------------------------------------


def attempt(rows: dict[str, Counter], faults: list[str], kind: str, trial: Callable[[], str]) -> None:
    """Does a trial, and adds its verdict to the row of its kind, and a fault to the list."""
    verdict = trial()
    rows.setdefault(kind, Counter())["tried"] += 1
    if verdict not in COLUMNS:
        faults.append(verdict)
        verdict = "silent"
    rows[kind][verdict] += 1


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200, help="of a training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    rng, rows, faults = random.Random(options.seed), {}, []
    with tempfile.TemporaryDirectory() as name, tqdm(total=options.kills + options.flips) as bar:
        root = Path(name)
        np.save(root / "points.npy", np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32))
        kills = Kills(root, options.steps, rng)
        for i in range(options.kills):
            kind = ("training", "mid-save", "kept samples", "waiting")[i % 4]
            attempt(rows, faults, f"kill: {kind}", lambda kind=kind: kills.trial(kind))
            bar.update()
        flips = Flips(kills.calm / "store", root / "copy")
        for i in range(options.flips):
            kind, path = flips.files[i % len(flips.files)]
            bit = rng.random()
            attempt(rows, faults, f"flip: {kind}", lambda kind=kind, path=path, bit=bit: flips.trial(kind, path, bit))
            bar.update()
    print(f"| kind | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for kind, row in rows.items():
        print(f"| {kind} | {' | '.join(str(row[key]) for key in COLUMNS)} |")
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main()
