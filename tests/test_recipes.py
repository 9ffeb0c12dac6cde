"""The recipes of real images, at reduced length, on pictures made here; and a folder of one's own, not square."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoresde.cli import run

from .conftest import compose

SHORT = [
    "training.steps=2",
    "training.batch=4",
    "training.evaluate=1",
    "training.warmup=0",
    "sampler.steps=2",
    "count=2",
]
LIKELIHOOD = ["likelihood.rtol=0.5", "likelihood.atol=0.5", "likelihood.steps=4"]


def pictures(folder: Path, height: int, width: int, mode: str, split: str = "") -> Path:
    """Twelve pictures of a bright square somewhere."""
    rng = np.random.default_rng(0)
    place = folder / "pictures" / split
    place.mkdir(parents=True, exist_ok=True)
    for i in range(12):
        values = rng.integers(0, 60, (height, width, 3) if mode == "RGB" else (height, width), dtype=np.uint8)
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        values[top : top + 8, left : left + 8] = 200
        Image.fromarray(values).save(place / f"{i}.png")
    return folder / "pictures"


def job(folder: Path, name: str, *words: str) -> dict:
    choices = dict.fromkeys(("task", "data", "sde", "sampler", "model"), "x")
    run(compose(*words, f"store={folder / 'store'}"), choices, folder / name)
    return json.loads((folder / name / "metrics.json").read_text())


@pytest.mark.parametrize(
    "recipe, shape, small",
    [
        ("mnist", (1, 28, 28), ["model.channels=[8,8]", "model.attention=[]"]),
        ("cifar10", (3, 32, 32), ["model.width=8", "model.multipliers=[1,1]", "model.blocks=1", "model.attention=[]"]),
    ],
)
def test_a_recipe_ends_in_samples_and_bits(tmp_path, recipe, shape, small):
    """Reduced in length and width alone, on files where the Hub's would be."""
    for split in ("train", "test"):
        where = pictures(tmp_path, *shape[1:], "RGB" if shape[0] == 3 else "L", split)
    words = [f"experiment={recipe}", f"data.path={where}", *small, *SHORT]
    found = job(tmp_path, "sample", *words)
    x = np.load(tmp_path / "sample" / "samples.npz")["x"]
    assert x.shape == (2, *shape) and x.dtype == np.uint8 and found["nfe"] >= 2
    found = job(tmp_path, "likelihood", *words, "task=likelihood", *LIKELIHOOD)
    assert 0 < found["bits_per_dim"] < 12  # an untrained network's: the Gaussian's with the data's std has 6 to 9


@pytest.mark.painted
def test_a_folder_that_is_not_square(tmp_path):
    """20 x 36 pixels in colour: one command trains and draws, one scores; the second finds the network."""
    words = ["data=images", f"data.path={pictures(tmp_path, 20, 36, 'RGB')}", "data.test_fraction=0.2"]
    words += ["model.images.channels=[8,8]", "model.images.attention=[]"]
    words += [f"training.images.{word.removeprefix('training.')}" if "training" in word else word for word in SHORT]
    job(tmp_path, "sample", *words, "sampler=unipc")
    assert np.load(tmp_path / "sample" / "samples.npz")["x"].shape == (2, 3, 20, 36)
    assert (tmp_path / "sample" / "samples.png").stat().st_size > 10_000
    networks = {path.name for path in (tmp_path / "store").iterdir()}
    found = job(tmp_path, "score", *words, "sampler=unipc", "task=likelihood", "likelihood=hutchinson", *LIKELIHOOD)
    assert np.load(tmp_path / "score" / "likelihood.npz")["x"].shape == (2, 3, 20, 36)
    assert 0 < found["bits_per_dim"] < 12 and networks == {path.name for path in (tmp_path / "store").iterdir()}
