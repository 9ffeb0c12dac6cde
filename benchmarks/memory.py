"""The peak memory of sampling, scoring and evaluating grey pictures of 28 x 28 pixels, by their number.

    python -m benchmarks.memory --counts 1000 10000
    python -m benchmarks.memory --tasks sample --channels 24 48 96 --counts 10000     a network of MNIST's size

Each run is a process of its own with two solver steps, whose largest resident size is read when it ends. The column of
6 pictures is the memory of Python, torch and the data. The others may exceed it by the batch's activations, which
task.batch bounds, and by the samples themselves, 31 MB for 10,000 in float32.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TASKS = {
    "sample": ["sampler=ddim", "sampler.steps=2"],
    "likelihood": ["likelihood.images.method=torchdiffeq.euler", "likelihood.images.steps=2"],
    "evaluate": ["sampler=ddim", "sampler.steps=2", "task.features.images.training.steps=5"],
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[6, 1000, 10_000])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--channels", type=int, nargs="+", default=[4, 8], help="of the U-Net")
    parser.add_argument("--oracle", action="store_true", help="the exact score of a mixture instead of a network")
    chosen = parser.parse_args(argv)
    counts = sorted(chosen.counts)
    print(f"| task | {' | '.join(f'{count:,} [MiB]' for count in counts)} |\n|---|{'---|' * len(counts)}")
    with tempfile.TemporaryDirectory() as folder:
        words = oracle(counts[-1]) if chosen.oracle else network(Path(folder), chosen.channels, 2 * counts[-1] + 2000)
        for task in chosen.tasks:
            peaks = [peak(Path(folder), task, count, words) for count in counts]
            print(f"| {task} | {' | '.join(f'{each:,.0f}' for each in peaks)} |", flush=True)


def oracle(count: int) -> list[str]:
    """Returns the overrides for a mixture of pictures with ``count`` held-out ones, and its exact score."""
    parts = [
        "data.count=1000",
        f"data.test_count={count}",
        "data.shape=[1,28,28]",
        "data.weights=[0.4,0.6]",
        "data.means=[-1,1]",
        "data.stds=[0.5,0.4]",
    ]
    return ["data=mixture", "model=oracle", *parts]


def network(folder: Path, channels: list[int], count: int) -> list[str]:
    """Writes pictures of blobs, of a byte per pixel and with two class labels, half of them held out; returns the
    overrides for them and a U-Net of a few updates.
    """
    random = np.random.default_rng(0)
    x = np.linspace(-1, 1, 28)
    centre, label = random.uniform(-0.5, 0.5, (count, 2, 1)), random.integers(0, 2, count)
    width = np.where(label, 0.05, 0.15)[:, None]
    lines = np.exp(-((x - centre) ** 2) / width[:, None])
    np.savez(folder / "blobs.npz", x=(255 * lines[:, 0, :, None] * lines[:, 1, None]).astype(np.uint8), label=label)
    data = [f"data.path={folder}/blobs.npz", "data.key=x", "data.labels=label", "data.test_fraction=0.5"]
    model = [f"model.images.channels=[{','.join(map(str, channels))}]", "model.images.attention=[]"]
    return ["data=arrays", *data, *model, "training.images.steps=2", "training.images.batch=32"]


def peak(folder: Path, task: str, count: int, words: list[str]) -> float:
    """Returns the largest resident size of one run in MiB."""
    places = [f"store={folder}/store", f"hydra.run.dir={folder}/run", "threads=1"]
    command = [sys.executable, str(ROOT / "run.py"), f"task={task}", f"count={count}", *words, *TASKS[task], *places]
    # the seed differs from run to run, or evaluate would take the last run's samples from the cache
    child = subprocess.Popen([*command, f"seed={count}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    text = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} failed:\n{text}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
