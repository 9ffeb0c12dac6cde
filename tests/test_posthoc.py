"""Tests of post-hoc averages: the profiles in closed form, the averages against direct sums, and the task."""

import json
import math
import os
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from scoresde.cli import run
from scoresde.likelihood import Likelihood
from scoresde.sde_lib import VE
from scoresde.tasks import EMALength
from scoresde.training import DenoisingScoreMatching, Snapshots, Trainer, checkpoint
from scoresde.training.posthoc import WIDEST, PowerAverages, combination, gamma_of, inner, width_of

from .conftest import compose
from .test_training import network, planar, trainer, weights

# --- the profiles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 6.94, 16.97, 200.0])
def test_the_width_is_the_standard_deviation_of_the_profile(gamma):
    """tau/t has the distribution Beta(gamma + 1, 1)."""
    assert width_of(gamma) == pytest.approx(stats.beta(gamma + 1, 1).std(), rel=1e-12)
    assert gamma_of(width_of(gamma)) == pytest.approx(gamma, rel=1e-8, abs=1e-6)


def test_the_published_exponents():
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005) and gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    assert gamma_of(WIDEST) == pytest.approx(0.0, abs=1e-9)
    for width in (0.0, -0.1, 0.2887, math.nan):
        with pytest.raises(ValueError, match="sigma_rel=.* must lie above 0 and be at most 0.2887"):
            gamma_of(width)


def profile(gamma: float, t: float):
    return lambda tau: (gamma + 1) / t * (tau / t) ** gamma if tau <= t else 0.0


@pytest.mark.parametrize("pair", [((16.97, 3.0), (6.94, 5.0)), ((0.3, 5.0), (6.94, 5.0)), ((30.0, 7.0), (0.0, 2.0))])
def test_inner_products_by_quadrature(pair):
    (a, s), (b, t) = pair
    f, g = profile(a, s), profile(b, t)
    expected, _ = integrate.quad(lambda tau: f(tau) * g(tau), 0, min(s, t), epsabs=1e-13, epsrel=1e-12)
    assert float(inner(*map(np.array, (a, s, b, t)))) == pytest.approx(expected, rel=1e-9)
    assert float(inner(*map(np.array, (b, t, a, s)))) == pytest.approx(expected, rel=1e-9)


def test_the_distance_is_that_of_the_profiles():
    kept = [(gamma_of(w), t) for t in (2.0, 4.0, 6.0) for w in (0.05, 0.1)]
    wanted = (gamma_of(0.08), 6.0)
    share, error = combination(kept, wanted)

    def apart(tau):
        return profile(*wanted)(tau) - sum(w * profile(*each)(tau) for w, each in zip(share, kept, strict=True))

    square = sum(integrate.quad(lambda tau: apart(tau) ** 2, a, a + 2, limit=200)[0] for a in (0, 2, 4))
    norm = integrate.quad(lambda tau: profile(*wanted)(tau) ** 2, 0, 6)[0]
    assert share.sum() == pytest.approx(1.0, abs=1e-12)
    assert error == pytest.approx(math.sqrt(square / norm), rel=1e-3) and 0.001 < error < 0.2
    for k in range(len(kept)):  # no other weights that sum to one are nearer
        for step in (1e-3, -1e-3):
            other = share + step * (np.eye(len(kept))[k] - 1 / len(kept))
            gram = inner(*(np.array(v)[:, None] for v in zip(*kept, strict=True)), *np.array(kept).T)
            target = inner(*np.array(kept).T, *map(np.array, wanted))
            assert other @ gram @ other - 2 * other @ target > share @ gram @ share - 2 * share @ target


def test_a_profile_that_was_kept_is_given_back():
    kept = [(gamma_of(w), float(t)) for t in range(100, 1001, 100) for w in (0.05, 0.1)]
    for k in (0, 7, 19):
        share, error = combination(kept, kept[k])
        assert np.allclose(share, np.eye(len(kept))[k], atol=1e-6) and error < 1e-6


# --- the averages -----------------------------------------------------------------------------------------------------


def walk(steps: int) -> torch.Tensor:
    """Draws weights (steps, 6) like those of a training: a drift that slows down, and noise."""
    generator = torch.Generator().manual_seed(0)
    drift = torch.randn(6, generator=generator, dtype=torch.float64) * (torch.arange(steps) + 30.0)[:, None].log()
    return drift + 0.3 * torch.randn(steps, 6, generator=generator, dtype=torch.float64)


def follow(folder, steps: int, count: int, widths: tuple[float, ...] = (0.07, 0.15)):
    """Returns the averages of the walk at some widths, computed directly, and the snapshots of the usual two."""
    model = nn.Linear(5, 1).double()
    model.register_buffer("fixed", torch.rand(3))
    with torch.no_grad():
        model.weight.fill_(1e3), model.bias.fill_(1e3)  # the initial weights must have no share
    direct, kept, paths = PowerAverages(model, widths), PowerAverages(model), {}
    snapshots = {round((i + 1) * steps / count) for i in range(count)}
    for t, values in enumerate(walk(steps), start=1):
        with torch.no_grad():
            model.weight[0], model.bias[:] = values[:5], values[5:]
        direct.update(t), kept.update(t)
        if t in snapshots:
            paths[t] = checkpoint.save(folder, checkpoint.Checkpoint(t, kept.tensors(), {}), kind="power")
    return direct, Snapshots(paths, lambda state: state, {}), model


def test_the_average_is_the_integral(tmp_path):
    """The share of an update is the integral of the profile over its unit of time."""
    steps, (gamma,) = 40, (gamma_of(0.07),)
    direct, _, _ = follow(tmp_path, steps, 1)
    k = torch.arange(1, steps + 1, dtype=torch.float64)
    shares = (k / steps) ** (gamma + 1) - ((k - 1) / steps) ** (gamma + 1)
    expected = (shares[:, None] * walk(steps)).sum(0)
    found = direct.models[0.07]
    assert torch.allclose(torch.cat([found.weight[0], found.bias]), expected, rtol=1e-10)


@pytest.mark.parametrize("width", [0.07, 0.15])
def test_a_length_made_afterwards_is_the_one_followed_directly(tmp_path, width):
    errors, told = [], []
    for count in (4, 8, 16, 32):
        direct, kept, model = follow(tmp_path / str(count), 320, count)
        found = kept.state(width)
        truth = direct.models[width].state_dict()
        difference = torch.cat([(found[key] - truth[key]).flatten() for key in ("weight", "bias")])
        errors.append(float(difference.norm()))
        told.append(kept.error(width))
        assert torch.equal(found["fixed"], model.fixed), "what no training changes is as it was"
    assert all(after < 0.8 * before for before, after in pairwise(errors)), errors
    assert errors[-1] < 0.03 * errors[0], errors
    assert all(after < 0.5 * before for before, after in pairwise(told)), told
    spread = float(walk(320)[160:].std(0).norm())
    assert errors[-1] < 3e-3 * spread


def test_what_does_not_change_is_given_back(tmp_path):
    _, kept, _ = follow(tmp_path, 60, 3)
    for width in (0.02, 0.2):
        share, _ = kept._solve(width)
        assert share.sum() == pytest.approx(1.0, abs=1e-12)


# --- the training -----------------------------------------------------------------------------------------------------


def snapshots_of(folder) -> dict[str, torch.Tensor]:
    found = {path.name: checkpoint.load(path).tensors for path in sorted(folder.glob("power-*"))}
    return {
        name: torch.cat([groups[g][key].flatten() for g in sorted(groups) for key in sorted(groups[g])])
        for name, groups in found.items()
    }


@pytest.mark.parametrize("stop", [4, 5, 9])
def test_snapshots_survive_interruption_and_change_nothing(tmp_path, stop):
    def fit(folder, snapshots, interrupt=None):
        def record(event):
            if event["step"] == interrupt and "gradient" in event:
                os.kill(os.getpid(), signal.SIGINT)

        torch.manual_seed(7)
        model = network()
        torch.manual_seed(8)
        try:
            return weights(trainer().fit(VE(), model, planar(), folder, record, snapshots=snapshots))
        except KeyboardInterrupt:
            torch.manual_seed(99)
            return fit(folder, ())  # the checkpoint contains the numbers of the snapshots

    plain = fit(tmp_path / "a", ())
    assert torch.equal(plain, fit(tmp_path / "b", (5, 9, 12)))
    assert torch.equal(plain, fit(tmp_path / "c", (5, 9, 12), stop))
    straight, broken = snapshots_of(tmp_path / "b"), snapshots_of(tmp_path / "c")
    assert list(broken) == ["power-00000005", "power-00000009", "power-00000012"]
    assert all(torch.equal(straight[name], broken[name]) for name in broken)
    assert not list((tmp_path / "a").glob("power-*"))


def test_a_training_begun_without_goes_on_without(tmp_path):
    def stop(event):
        if event["step"] == 4 and "gradient" in event:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer().fit(VE(), network(), planar(), tmp_path, stop)
    trainer().fit(VE(), network(), planar(), tmp_path, snapshots=(6, 12))
    assert not list(tmp_path.glob("power-*"))


def test_what_is_kept_is_the_average_of_the_updates(tmp_path):
    seen = []

    class Watched(Trainer):
        def gradient(self, sde, model, *rest):
            seen.append(weights(model))
            return super().gradient(sde, model, *rest)

    torch.manual_seed(0)
    model = network()
    keys = {"steps": 12, "batch": 16, "warmup": 3, "evaluate": 0}
    Watched(DenoisingScoreMatching(), **keys).fit(VE(), model, planar(), tmp_path, snapshots=(12,))
    seen = torch.stack([*seen[1:], weights(model)])
    k = torch.arange(1, 13, dtype=torch.float64)
    for width in (0.05, 0.10):
        power = gamma_of(width) + 1
        shares = (k / 12) ** power - ((k - 1) / 12) ** power
        found = checkpoint.load(tmp_path / "power-00000012").tensors[f"power-{width:.2f}"]
        found = torch.cat([found[key].flatten().double() for key in model.state_dict()])
        assert torch.allclose(found, (shares[:, None] * seen).sum(0), atol=1e-6)


# --- the task ---------------------------------------------------------------------------------------------------------

TINY = (
    "data=moons",
    "training.steps=60",
    "training.batch=32",
    "training.warmup=2",
    "training.evaluate=2",
    "model.width=16",
    "data.count=200",
    "data.test_count=50",
    "likelihood.rtol=1e-3",
    "likelihood.atol=1e-3",
    "count=12",
)
SHORT = ("task=ema", "task.snapshots=8", "task.widths=[0.1,0.2]")


def job(folder, *overrides: str) -> dict:
    choices = {"task": "ema", "data": "moons", "sde": "ve", "sampler": "em", "model": "mlp"}
    run(compose(f"store={folder}/store", *overrides), choices, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


def test_the_best_is_kept_as_a_network_and_is_what_it_was_said_to_be(tmp_path):
    found = job(tmp_path, *SHORT, *TINY)
    arrays = dict(np.load(tmp_path / "run" / "ema.npz"))
    assert arrays["sigma_rel"].tolist() == [0.1, 0.2] and arrays["nll"].shape == arrays["loss"].shape == (2, 12)
    best = int(arrays["nll"].mean(1).argmin())
    assert found["best_sigma_rel"] == arrays["sigma_rel"][best]
    gain = arrays["own_nll"] - arrays["nll"][best]
    assert found["gain_nats"] == pytest.approx(gain.mean())
    assert found["gain_stderr"] == pytest.approx(gain.std(ddof=1) / math.sqrt(12)) and found["gain_stderr"] > 0
    assert found["gain_stderr"] < 0.5 * found["nll_stderr"], "point by point"
    assert arrays["profile_error"][0] < 1e-6, "0.1 was kept as it is"
    own = job(tmp_path, "task=likelihood", *TINY)
    assert own["nll_nats"] == pytest.approx(found["own_nll_nats"], rel=1e-12)
    whole = job(tmp_path, "task=likelihood", f"checkpoint={found['network']}", *TINY)
    assert whole["nll_nats"] == pytest.approx(found["nll_nats"], rel=1e-12)
    (folder,) = (tmp_path / "store").iterdir()
    again = job(tmp_path, *SHORT, f"checkpoint={folder}", *TINY)
    assert again["nll_nats"] == found["nll_nats"] and again["own_nll_nats"] == found["own_nll_nats"]
    by_loss = job(tmp_path, *SHORT, "task.by=loss", *TINY)
    assert "nll_nats" not in by_loss and by_loss["own_loss"] == found["own_loss"]
    assert by_loss["best_sigma_rel"] == arrays["sigma_rel"][arrays["loss"].mean(1).argmin()]


def test_a_network_trained_without_is_trained_once_more(tmp_path, caplog):
    fresh = job(tmp_path / "a", *SHORT, *TINY)
    job(tmp_path / "b", "task=train", *TINY)
    (folder,) = (tmp_path / "b" / "store").iterdir()
    assert folder.name == next((tmp_path / "a" / "store").iterdir()).name, "it is no other network"
    assert job(tmp_path / "b", *SHORT, *TINY)["nll_nats"] == fresh["nll_nats"]
    assert "ended in other weights" not in caplog.text and not (folder / "again").exists()
    assert len(list(folder.glob("power-*"))) == 8


def test_a_short_length_of_few_snapshots_is_warned_about(tmp_path, caplog):
    caplog.set_level("WARNING")
    job(tmp_path, *SHORT, "task.widths=[0.02,0.1]", "task.by=loss", *TINY)
    assert "sigma_rel=0.02 cannot be made of 8 snapshots to within 5 %: type task.snapshots=16" in caplog.text


def test_pictures_are_measured_in_bits(tmp_path):
    small = ["data=digits", "model.channels=[8]", "model.attention=[]", "training.steps=20", "training.batch=16"]
    loose = ["likelihood.rtol=1e-1", "likelihood.atol=1e-1", "count=4"]
    found = job(tmp_path, "task=ema", "task.snapshots=4", "task.widths=[0.1,0.15]", *small, *loose)
    assert found["gain_bits_per_dim"] == pytest.approx(found["gain_nats"] / (64 * math.log(2))) and "bound" in found


@pytest.mark.parametrize(
    "words, message",
    [
        (["data=mixture", "model=oracle"], "task=ema makes averages of what was kept along a training, and there is"),
        (["task.widths=[0.1,0.3]", *TINY], "task.widths=[0.1, 0.3] must be shares of the training, each above 0"),
        (["task.widths=[]", *TINY], "task.widths=[] must be"),
        (["task.snapshots=1", *TINY], "task.snapshots=1 must be at least 2; type task.snapshots=32"),
        (["task.draws=0", *TINY], "task.draws=0 must be at least 1"),
        (["data.condition=labels", *TINY], "takes none of p(x | y)"),
    ],
)
def test_mistakes_name_the_key(words, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        job(tmp_path, "task=ema", *words)
    assert message in str(caught.value)


def test_a_checkpoint_without_its_way_is_refused(tmp_path):
    job(tmp_path, "task=train", *TINY)
    (folder,) = (tmp_path / "store").iterdir()
    with pytest.raises(ValueError, match="its checkpoint= has no power-"):
        job(tmp_path, "task=ema", f"checkpoint={folder}", *TINY)


def test_the_task_by_itself():
    with pytest.raises(ValueError, match="`by`=both must be likelihood or loss"):
        EMALength(Likelihood(), by="both")
