"""Kills (-9) at random moments of a training that saves after every update: each resume must succeed, changing nothing.

    python -m benchmarks.crash                20 kills
    python -m benchmarks.crash --kills 3

A network is trained once undisturbed. The same training, in another store, is then killed at random moments, most of
them within a save; each time the next process resumes it. In the end both networks must be equal bit for bit.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from scoresde.training import checkpoint

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "task=train",
    "data=moons",
    "model.width=32",
    "training.batch=64",
    "training.evaluate=5",
    "training.save_seconds=1e-9",
    "threads=1",
]


def start(folder: Path, steps: int) -> subprocess.Popen:
    """Starts the training in a process of its own."""
    places = [f"store={folder}/store", f"hydra.run.dir={folder}/run", f"training.steps={steps}"]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *places, *WORDS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(folder: Path, steps: int) -> checkpoint.Checkpoint:
    """Returns the last checkpoint of a training that has run to its end."""
    (path,) = folder.glob(f"store/*/step-{steps:08d}")
    return checkpoint.load(path)


def crash(folder: Path, kills: int, steps: int, seed: int = 0, say=print) -> None:
    """Runs the whole experiment; raises an AssertionError if a resume fails or changes the network."""
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    process = start(undisturbed, steps)
    text = process.communicate()[0]
    assert process.returncode == 0, text

    rng = random.Random(seed)
    for kill in range(kills):
        process = start(killed, steps)
        before = newest(killed)
        while newest(killed) == before and process.poll() is None:  # until the training has begun or resumed
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.5))
        process.kill()
        text = process.communicate()[0]
        assert "set aside" not in text, f"a damaged checkpoint was met after kill {kill}:\n{text}"
        half_written = len(list(killed.glob("store/*/.partial-*")))
        say(
            f"kill {kill + 1:>2}: at step {newest(killed)}{', in the middle of a save' if half_written else ''}",
            flush=True,
        )
    process = start(killed, steps)
    text = process.communicate()[0]
    assert process.returncode == 0 and "set aside" not in text, text

    one, other = finished(undisturbed, steps), finished(killed, steps)
    for group in ("model", "ema", "optimiser"):
        assert one.tensors[group].keys() == other.tensors[group].keys()
        for name, tensor in one.tensors[group].items():
            assert torch.equal(tensor, other.tensors[group][name]), f"{group}: {name} differs"
    say(
        f"{kills} kills, {steps} updates: the weights, their average and the optimiser's state are equal bit for bit",
        flush=True,
    )


def newest(folder: Path) -> int:
    """Returns the step of the newest checkpoint, 0 without one."""
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("store/*/step-*")), default=0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        crash(Path(folder), options.kills, options.steps)


if __name__ == "__main__":
    main()
