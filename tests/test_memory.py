"""The memory of a run is that of its batch, and of its samples once they are numbers in a file."""

import subprocess
import sys

from .conftest import ROOT

SCRIPT = """
import resource, sys
from pathlib import Path
from scoresde.cli import run
from tests.conftest import compose

folder, choices = Path(sys.argv[1]), {"task": "t", "data": "mixture", "sde": "ve", "sampler": "ddim", "model": "oracle"}
words = ["data=mixture", "model=oracle", "data.shape=[1,28,28]", "data.weights=[0.4,0.6]", "data.means=[-1,1]"]
words += ["data.stds=[0.5,0.4]", "data.count=2000", "data.test_count=2000", "task.batch=100", "sampler=ddim"]
words += ["sampler.steps=2", f"store={folder}/store"]
words += ["likelihood=hutchinson", "likelihood.method=torchdiffeq.euler", "likelihood.steps=2"]
for count in (200, 2000):
    for task in ("sample", "likelihood", "evaluate"):
        own = ["task/features=values"] if task == "evaluate" else []
        run(compose(f"task={task}", f"count={count}", *words, *own), choices, folder / "run")
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_more_samples_and_scores_take_what_they_are_and_no_more(tmp_path):
    """28 x 28 values in float64 are 6 KiB, of which a task holds some copies; states of a solver are more."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    few, many = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("PEAK"))
    copies = 12 * 8 * 784 * 1800 / 1024
    blocks = 100 * 1024  # of distances and of kernels, which few points do not fill
    assert many - few < copies + blocks, f"{many - few} KiB more for 1,800 more"
