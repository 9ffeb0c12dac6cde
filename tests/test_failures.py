"""The failures that noise cures, at reduced length: scores off a manifold, and where data are rare."""

import json

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.conf import schema
from scoresde.data import Line
from scoresde.tasks import LowDensity, Manifold

from .conftest import compose, standard

CHOICES = {"task": "manifold", "data": "line", "sde": "ve", "sampler": "pc", "model": "mlp"}


def job(folder, *overrides: str) -> dict:
    run(compose(*overrides, f"store={folder}/store"), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


def short(*names: str) -> list[str]:
    values = {"steps": 250, "batch": 128, "rate": 5e-3, "warmup": 20, "evaluate": 0}
    return [f"task.trainers.{name}.{key}={value}" for name in names for key, value in values.items()]


@pytest.mark.painted
def test_without_noise_the_score_blows_up_off_the_line(tmp_path):
    words = ["experiment=manifold", "data.count=2000", "model.width=32", "model.depth=2"]
    found = job(tmp_path, *words, *short("without_noise", "with_noise"))
    assert found["without_noise_final_loss"] < -100
    assert found["without_noise_score_off_the_line"] > 10 * found["with_noise_exact_score_off_the_line"]
    assert -1 < found["with_noise_final_loss"] < 0
    assert found["with_noise_score_off_the_line"] == pytest.approx(10.0, rel=0.3)
    kept = np.load(tmp_path / "run" / "manifold.npz")
    assert kept["across"].shape == kept["with_noise"].shape == (201,)
    assert (tmp_path / "run" / "manifold.png").stat().st_size > 10_000
    before = sorted(tmp_path.glob("store/*"))
    again = job(tmp_path, *words, *short("without_noise", "with_noise"))
    assert again == pytest.approx(found) and sorted(tmp_path.glob("store/*")) == before and len(before) == 2


@pytest.mark.painted
def test_scores_are_wrong_where_data_are_rare(tmp_path):
    words = ["experiment=low_density", "data.count=5000", "data.test_count=500", "model.width=32", "model.depth=2"]
    found = job(tmp_path, *words, *short("clean", "some_noise", "much_noise"))
    assert found["clean_error_in_the_plane"] > 3 * found["clean_error_at_the_data"]
    assert found["clean_error_in_the_plane"] > 2 * found["some_noise_error_in_the_plane"]
    assert found["some_noise_error_in_the_plane"] > found["much_noise_error_in_the_plane"]
    assert found["much_noise_error_in_the_plane"] < 0.05
    assert (tmp_path / "run" / "low_density.png").stat().st_size > 10_000


def test_the_line():
    """All points lie on the line, standard normal along it."""
    data = Line(count=20_000, test_count=100, degrees=30.0)
    u = data.train @ data.direction
    torch.testing.assert_close(data.train, u[:, None] * data.direction)
    assert float(u.mean()) == pytest.approx(0, abs=0.04) and float(u.std()) == pytest.approx(1, abs=0.03)
    assert data.direction.tolist() == pytest.approx([3**0.5 / 2, 0.5])
    assert not torch.equal(data.train[:100], data.test) and data.true_log_prob(data.test) is None


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["task=manifold", "data=moons"], "task=manifold looks across a line in the plane; type data=line"),
        (["task=low_density", "data=moons"], "task=low_density needs a mixture in the plane"),
        (["experiment=low_density", "model=oracle"], "this task trains several networks"),
        (["experiment=manifold", "~task.trainers.with_noise"], "task.trainers.with_noise is missing: this task"),
        (
            ["experiment=low_density", "task.trainers.clean.loss.levels._target_=training.levels.LogSNR"],
            "task.trainers.clean.loss.levels must be one level",
        ),
        (["experiment=manifold", "task.distance=0"], "task.distance=0.0 must lie between 0 and 10"),
        (
            ["experiment=manifold", "task.trainers.with_noise.rate=-1"],
            "^task.trainers.with_noise.rate=-1 must be positive",
        ),
        (
            ["experiment=manifold", "task.trainers.with_noise.loss.levels.noise_to_signal=1e9"],
            "^task.trainers.with_noise.loss.levels.noise_to_signal=1000000000.0 lies outside .* type task.trainers.",
        ),
        (["data=line", "data.degrees=1e9", "task=train"], "data.degrees=1000000000.0 must lie in"),
    ],
)
def test_mistakes_are_named(tmp_path, overrides, message):
    small = ["model.width=8"] if "model=oracle" not in overrides else []
    with pytest.raises(ValueError, match=message):
        job(tmp_path, *overrides, *small)
    assert not (tmp_path / "store").exists(), "a network was trained before the mistake was told"


def test_the_yamls_are_what_the_classes_take():
    for name, kind in (("manifold", Manifold), ("low_density", LowDensity)):
        cfg = schema.settle(compose(f"experiment={name}"), (2,), standard((2,)))
        assert isinstance(schema.build(cfg["task"], "task"), kind)
