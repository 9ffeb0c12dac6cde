"""The shares of distant modes: plain Langevin dynamics keeps those of its start, others find those of the data."""

import json

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.metrics import belonging
from scoresde.tasks import Modes

from .conftest import compose, draw_mixture, mixture

CHOICES = {"task": "modes", "data": "mixture", "sde": "ve", "sampler": "pc", "model": "oracle"}


def job(folder, *overrides: str) -> dict:
    run(compose(*overrides, f"store={folder}/store"), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


@pytest.mark.painted
def test_slow_mixing(tmp_path):
    """The experiment at reduced length: 0.5 and 0.5 against 0.8 (arXiv 1907.05600, section 3.2.2)."""
    short = ["task.seeds=3", "count=1000", "data.count=1000", "task.samplers.langevin.steps=300"]
    short += [
        "task.samplers.langevin.size=5e-3",
        "task.samplers.annealed.count=30",
        "task.samplers.reverse_sde.steps=200",
    ]
    found = job(tmp_path, "experiment=slow_mixing", *short)
    assert found["true_share_of_the_heaviest"] == pytest.approx(0.8)
    assert found["langevin_share_of_the_heaviest"] == pytest.approx(0.5, abs=0.05)
    assert found["annealed_share_of_the_heaviest"] == pytest.approx(0.8, abs=0.05)
    assert found["reverse_sde_share_of_the_heaviest"] == pytest.approx(0.8, abs=0.03)
    assert found["ode_share_of_the_heaviest"] == pytest.approx(0.8, abs=0.03)
    assert 0 < found["langevin_share_std"] < 0.05 and found["reverse_sde_nfe"] == 201
    kept = np.load(tmp_path / "run" / "modes.npz")
    assert kept["langevin"].shape == (3, 2) and np.allclose(kept["langevin"].sum(1), 1)
    assert (tmp_path / "run" / "modes.png").stat().st_size > 10_000


def test_pictures_have_modes_too(tmp_path):
    """Data outside the plane are drawn as bars only, and the samples do not depend on the batch."""
    words = ["data=mixture", "data.means=[-1,0,1]", "data.stds=[0.2,0.2,0.2]", "data.shape=[1,2,2]", "data.count=200"]
    words += ["model=oracle", "task=modes", "task.seeds=2", "count=50", "~task.samplers.langevin"]
    words += ["~task.samplers.annealed", "task.samplers.reverse_sde.steps=20"]
    whole, cut = job(tmp_path / "a", *words), job(tmp_path / "b", *words, "task.batch=17")
    assert whole["reverse_sde_share_of_the_heaviest"] == cut["reverse_sde_share_of_the_heaviest"]
    assert "langevin_nfe" not in whole


@pytest.mark.parametrize("shape", [(2,), (3, 8, 6)], ids=str)
def test_samples_belong_to_whom_drew_them(shape):
    """The component of the largest posterior probability, computed from the mixture's own terms."""
    weights, means, stds = mixture(shape)
    means, stds = 0.1 * means, 2 * stds  # on top of each other, so that weights and widths decide too
    x = draw_mixture((weights, means, stds), 500, shape).flatten(1)
    terms = torch.stack(
        [
            weights[k].log() + torch.distributions.Normal(means[k], stds[k]).log_prob(x).sum(1)
            for k in range(len(weights))
        ]
    )
    assert torch.equal(belonging(x, (weights, means, stds)), terms.argmax(0))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="`seeds`=0 must be at least 1"):
        Modes({"em": None}, seeds=0)
    with pytest.raises(ValueError, match="`samplers` is empty"):
        Modes({})
    with pytest.raises(ValueError, match="task=modes needs data that are a mixture"):
        job(tmp_path, "data=moons", "task=modes", "model.width=8", "training.steps=1", "training.batch=8")
