"""Latent-variable models by the command line: what tasks leave, the store, mistakes; coverage against known samples."""

import json
import math
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import chi2

import scoresde.figures.latent
import scoresde.tasks.studies.elbo
import scoresde.tasks.studies.generators
import scoresde.training.trainer
from scoresde import load, run
from scoresde.conf.assemble import build_data
from scoresde.latent import VAE, Bound, Dense, DiscretisedLogistic, Gaussian, ScorePrior, StandardNormal
from scoresde.metrics import Classes, mmd, mode_coverage, precision_recall, sliced_wasserstein
from scoresde.metrics.coverage import belonging, covered
from scoresde.models import MLP, Noise
from scoresde.tasks.studies.recipes import draw, in_data_units
from scoresde.training import Trainer

from .conftest import compose, make_sde, mixture

pytestmark = pytest.mark.usefixtures("few_shown")

CHOICES = {"task": "elbo", "data": "moons", "sde": "vp", "sampler": "unipc", "model": "mlp"}
SHORT = {"steps": 20, "batch": 16, "warmup": 2, "evaluate": 2}


@pytest.fixture(scope="module")
def few_shown():
    """Draws pictures of few points; other tests check what they show."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (scoresde.tasks.studies.elbo, scoresde.tasks.studies.generators):
            patch.setattr(module, "SHOWN", 64)
        yield


def composed(*words: str, late: tuple[str, ...] = ("store=", "data.path=", "task.batch=")) -> dict:
    """Returns what ``compose`` returns, in less time: words that begin with one of ``late``, to which no other key
    refers, are put into a configuration that is composed once.
    """
    put = [word for word in words if word.lstrip("~+").startswith(late)]
    cfg = compose(*[word for word in words if word not in put])
    for word in put:
        key, _, value = word.lstrip("~+").partition("=")
        *path, last = key.split(".")
        node = reduce(getitem, path, cfg)
        if word.startswith("~"):
            del node[last]
        else:
            node[last] = yaml.safe_load(value)
    return cfg


def job(folder, *overrides: str, models: str = "vae", picture: bool = False) -> dict:
    """Runs in this process with small models that are hardly trained, and returns the metrics."""
    words = [f"task.models.{name}.training.{key}={value}" for name in models.split() for key, value in SHORT.items()]
    made = [name for name in models.split() if not name.startswith("lsgm")]  # the others take over its networks
    words += [f"task.models.{name}.model.networks.width=8" for name in made]
    with pytest.MonkeyPatch.context() as patch:
        for name in () if picture else ("bounds", "generators"):  # a second or two each
            patch.setattr(
                scoresde.figures.latent, name, lambda *told: next(each for each in told if isinstance(each, Path))
            )
        run(composed(f"store={folder}/store", *words, *overrides), CHOICES, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


LSGM = ["experiment=lsgm", "task.models.lsgm.model.prior.net.width=8", "sampler.steps=4"]
LOOSE = ["task.likelihood.rtol=1e-2", "task.likelihood.atol=1e-2", "~task.models.vae_longer"]


@pytest.mark.painted
def test_the_bounds_of_one_run(tmp_path):
    """Terms that add up, the files, and a second run that trains nothing and finds the same, whatever its batches."""
    words = [*LSGM, *LOOSE, "data=8gaussians", "data.count=500", "count=20", "task.models.vae.model.latent=2"]
    found = job(tmp_path, *words, models="vae lsgm lsgm_joint", picture=True)
    kept = np.load(tmp_path / "run" / "elbo.npz")
    for name in ("vae", "lsgm", "lsgm_joint"):
        assert found[f"{name}_nll_nats"] == pytest.approx(
            found[f"{name}_divergence_nats"] - found[f"{name}_reconstruction_nats"]
        )
        assert kept[f"{name}_bound"].shape == (20,)
        assert -kept[f"{name}_bound"].mean() == pytest.approx(found[f"{name}_nll_nats"])
        assert found[f"{name}_gap_nats"] == pytest.approx(found[f"{name}_nll_nats"] - found["entropy_nats"])
    gain = kept["lsgm_bound"] - kept["vae_bound"]
    assert found["lsgm_gain_nats"] == pytest.approx(gain.mean())
    assert found["lsgm_gain_stderr"] == pytest.approx(gain.std(ddof=1) / 20**0.5)
    gain = kept["lsgm_joint_bound"] - kept["lsgm_bound"]
    assert found["lsgm_joint_gain_over_lsgm_nats"] == pytest.approx(gain.mean())
    assert "vae_denoising_nll_nats" not in found and "lsgm_denoising_nll_nats" in found
    assert (tmp_path / "run" / "elbo.png").stat().st_size > 10_000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/step-*/*")}
    assert len({path.parts[-3] for path in before}) == 3
    # the same noise for every model: lsgm's decoder is vae's, and is shown the same codes, but for the prior's blur
    np.testing.assert_allclose(kept["lsgm_reconstruction"], kept["vae_reconstruction"], atol=0.2)
    assert (kept["lsgm_reconstruction"] - kept["lsgm_denoising_bound"]).mean() > 0, "a divergence is not negative"
    again = job(tmp_path, *words, "task.batch=7", models="vae lsgm lsgm_joint")
    rerun = np.load(tmp_path / "run" / "elbo.npz")
    for key in ("vae_bound", "lsgm_reconstruction", "lsgm_denoising_bound"):
        np.testing.assert_allclose(rerun[key], kept[key], atol=2e-3)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/step-*/*")} == before
    for key in again:
        if not key.endswith("seconds"):
            assert again[key] == pytest.approx(found[key], abs=5e-2), key
    # the prior that was matched to codes has left encoder and decoder as they were, the one trained together has not
    states = {}
    for name in ("vae", "lsgm", "lsgm_joint"):
        (folder,) = tmp_path.glob(f"store/moons-{name}-*")
        _, model, data = load(folder)
        states[name] = model.encoder[1].weight
    assert torch.equal(states["vae"], states["lsgm"]) and not torch.equal(states["vae"], states["lsgm_joint"])


@pytest.mark.parametrize("shape", [(5,), (5, 7), (3, 4, 9)], ids=str)
def test_the_bound_of_integers_of_any_shape(tmp_path, shape):
    """On log P: an untrained law of 17 levels costs about log2(17) bits, and never less than none."""
    k = np.random.default_rng(0).integers(0, 17, (60, *shape))
    np.save(tmp_path / "mine.npy", k)
    words = ["data=arrays", f"data.path={tmp_path}/mine.npy", "data.levels=17", "task=elbo", "task.samples=3"]
    found = job(tmp_path, *words)
    assert 3 < found["vae_bits_per_dim"] < 6
    assert found["vae_importance_nll_nats"] <= found["vae_nll_nats"] + 1e-6
    dim = math.prod(shape)
    assert found["vae_bits_per_dim"] == pytest.approx(found["vae_nll_nats"] / dim / math.log(2))


def test_scaled_columns_are_scored_in_their_own_units(tmp_path):
    """Ten times the numbers give the same model of them, and a log-density lower by log 10 for each column."""
    x = np.random.default_rng(0).normal(size=(200, 3))
    found = []
    for factor in (1.0, 10.0):
        np.save(tmp_path / "mine.npy", x * factor)
        words = ["data=arrays", f"data.path={tmp_path}/mine.npy", "task=elbo", "task.samples=2"]
        found.append(job(tmp_path, *words))
    lower = found[0]["vae_importance_nll_nats"] + 3 * math.log(10)
    assert found[1]["vae_importance_nll_nats"] == pytest.approx(lower, abs=1e-2)
    assert found[1]["vae_nll_nats"] == pytest.approx(found[0]["vae_nll_nats"] + 3 * math.log(10), abs=1e-2)


ALL = "vae lsgm gan wae"
GENERATORS = ["task=generators", "task.seeds=2", "sampler=unipc", "sampler.steps=4", "model.width=8"]
GENERATORS += ["training.steps=20", "training.batch=16", "training.evaluate=0", "sde=vp"]
GENERATORS += ["task.models.lsgm.model.prior.net.width=8"]


@pytest.mark.painted
def test_generators_are_trained_and_measured_alike(tmp_path):
    words = [*GENERATORS, "data=8gaussians", "data.count=2000", "data.test_count=500", "count=200"]
    found = job(tmp_path, *words, models=ALL, picture=True)
    for name in (*ALL.split(), "score"):
        assert 0 <= found[f"{name}_modes_found"] <= 8 and found[f"{name}_collapsed_runs"] in (0, 1, 2)
        assert found[f"{name}_sliced_wasserstein"] > found["floor_sliced_wasserstein"]
        assert f"{name}_variation_std" in found
    assert found["modes"] == found["floor_modes_found"] == 8 and found["floor_good"] == pytest.approx(0.99, abs=0.03)
    kept = np.load(tmp_path / "run" / "generators.npz")
    assert kept["gan"].shape == (2, 8) and kept["good"].shape == (5, 2)
    for name, counts in zip(kept["names"], kept["modes_found"], strict=True):
        assert found[f"{name}_collapsed_runs"] == (counts < 8).sum()
    _, model, _ = load(next(tmp_path.glob("store/*-gan-*")))
    data = build_data(compose("data=8gaussians", "data.count=2000", "data.test_count=500"))
    assert found["floor_sliced_wasserstein"] == pytest.approx(sliced_wasserstein(data.train[:200], data.test))
    whole, parts = (draw(model, None, 20, size, 0, lambda *told: None) for size in (20, 7))
    torch.testing.assert_close(parts, whole)
    assert (tmp_path / "run" / "generators.png").stat().st_size > 10_000
    folders = sorted(tmp_path.glob("store/*"))
    assert len(folders) == 10
    again = job(tmp_path, *words, models=ALL)
    assert again == found and sorted(tmp_path.glob("store/*")) == folders


def test_generators_of_labelled_pictures(tmp_path):
    words = ["task=generators", "task.seeds=1", "task.score=false", "~task.models.lsgm", "count=40"]
    found = job(tmp_path, *words, models="vae gan wae")
    assert found["modes"] == 10 and found["classifier_accuracy"] > 0.95 and found["floor_modes_found"] == 10
    assert "gan_good" not in found and "score_recall" not in found and "gan_variation_std" not in found


# The trainer is the usual one: one loss, resumed bit for bit


@pytest.mark.parametrize("prior", ["normal", "score"])
def test_a_killed_training_ends_in_the_same_weights(tmp_path, prior, monkeypatch):
    from scoresde.data import Moons

    data, sde = Moons(count=200, test_count=20), make_sde("vp")
    trainer = Trainer(Bound(), steps=12, batch=16, warmup=2, evaluate=3, save_seconds=1e-9)

    def fresh():
        with trainer.seeded():
            made = ScorePrior(sde, MLP((2,), width=8, depth=1), Noise()) if prior == "score" else StandardNormal()
            return VAE((2,), 2, Dense(8, 1, dropout=0.1), Gaussian(), made)

    whole = trainer.fit(None, fresh(), data).state_dict()
    saved = scoresde.training.trainer.checkpoint.save

    def killed(folder, found, kind="step"):
        saved(folder, found, kind)
        if found.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(scoresde.training.trainer.checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(None, fresh(), data, tmp_path)
    monkeypatch.setattr(scoresde.training.trainer.checkpoint, "save", saved)
    resumed = trainer.fit(None, fresh(), data, tmp_path).state_dict()
    assert not [key for key in whole if not torch.equal(whole[key], resumed[key])]


# Coverage


def test_modes_are_counted():
    weights, means, stds = mixture((2,))
    z = torch.randn(40_000, 2, dtype=torch.float64)
    k = torch.multinomial(weights, len(z), replacement=True)
    x = means[k] + stds[k, None] * z
    found = mode_coverage(x, (weights, means, stds))
    assert found.found == 3 and found.variation < 0.01
    assert found.good == pytest.approx(0.99, abs=0.002)
    one = mode_coverage(means[0] + stds[0] * z, (weights, means, stds))
    assert one.found == 1 and one.variation == pytest.approx(0.5, abs=0.01)
    far = mode_coverage(x + 100, (weights, means, stds))
    assert far.found == 0 and far.good == 0 and far.variation == 1, "and not a half, which one mode of three has"
    spread = mode_coverage(means[k] + 2 * stds[k, None] * z, (weights, means, stds))
    inside = float(chi2.cdf(chi2.ppf(0.99, 2) / 4, 2))
    assert spread.good == pytest.approx(inside, abs=0.02)
    few = torch.cat([x[:1000], means[2] + 0.01 * z[:1]])[k[:1000].ne(2).nonzero()[:, 0]]
    assert mode_coverage(few, (weights, means, stds)).found == 2, "one stray sample is no mode"


def test_samples_belong_to_the_most_probable_component():
    weights, means, stds = torch.tensor([0.7, 0.2, 0.1]), 2 * torch.randn(3, 3), torch.tensor([0.4, 1.5, 0.8])
    x = 3 * torch.randn(2000, 3)
    law = torch.distributions.Normal(means, stds[:, None])
    assert torch.equal(
        belonging(x, (weights, means, stds)), (law.log_prob(x[:, None]).sum(2) + weights.log()).argmax(1)
    )


def test_a_mode_is_found_with_a_fifth_of_its_share():
    truth = torch.tensor([1.0, 3.0])
    for share, found in ((0.051, 2), (0.049, 1)):
        assert covered(torch.tensor([share, 1 - share]), truth).found == found


def test_a_run_that_misses_a_mode_has_collapsed():
    found = scoresde.tasks.Generators.described(None, "gan", [{"modes_found": k} for k in (8, 7, 8, 3)], 8)
    assert found["gan_collapsed_runs"] == 2 and found["gan_modes_found"] == 6.5


def test_samples_of_integers_are_those_of_their_bins():
    from scoresde.data import Digits

    data = Digits()
    k = data.train[:5]
    for place in (0.01, 0.5, 0.99):
        assert torch.equal(in_data_units(data, data.encode(k + place)), k.double())
    with pytest.raises(FloatingPointError, match="samples are not finite"):
        in_data_units(data, torch.full((1, 1, 8, 8), math.nan))


def test_classes_are_counted():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    labels = torch.arange(300) % 3
    x = centres[labels] + 0.3 * torch.randn(300, 2)
    judge = Classes(x, labels * 2)  # 0, 2, 4
    assert torch.equal(judge.predict(centres), torch.tensor([0, 2, 4]))
    found = judge.coverage(centres[torch.tensor([0, 0, 0, 1])])
    assert found.found == 2 and found.shares.tolist() == [0.75, 0.25, 0.0] and found.good is None
    assert found.variation == pytest.approx(0.75 - 1 / 3)
    with pytest.raises(ValueError, match="the labels are all the same"):
        Classes(x, torch.zeros(300))


def test_precision_and_recall():
    real, more = torch.randn(2, 500, 3, dtype=torch.float64)
    precision, recall = precision_recall(more, real)
    assert precision > 0.8 and recall > 0.8
    assert precision_recall(more + 50, real) == (0.0, 0.0)
    half = more[more[:, 0] > 0]  # a half of the data: all of it good, half of them missed
    precision, recall = precision_recall(half, real)
    assert precision_recall(real, half) == (recall, precision)
    assert precision > 0.8 and 0.4 < recall < 0.75
    noisy = torch.cat([more[:250], more[:250] + 50])
    precision, recall = precision_recall(noisy, real)
    assert precision == pytest.approx(0.45, abs=0.06) and recall > 0.7
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])  # to the third neighbour: 3, 2, 2, 2, 3
    assert precision_recall(torch.tensor([[7.0], [7.1], [-2.9], [2.0], [50.0]]), line)[0] == 0.6
    with pytest.raises(ValueError, match="more than 3 points"):
        precision_recall(real[:3], real)


def test_the_maximum_mean_discrepancy():
    x, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64) + 0.5

    def k(a, b):
        return sum(4 * c / (4 * c + float((a - b).square().sum())) for c in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))

    pairs = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (30 * 29)
    pairs += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (40 * 39)
    pairs -= 2 * sum(k(a, b) for a in x for b in y) / (30 * 40)
    assert float(mmd(x, y)) == pytest.approx(pairs, rel=1e-9)
    same = torch.stack([mmd(*torch.randn(2, 50, 2, dtype=torch.float64)) for _ in range(400)])
    assert abs(float(same.mean())) < 4 * float(same.std()) / 20


# Mistakes


LATE = ("store=", "checkpoint=", "points=", "data.", "task.")
LOGISTIC = "{_target_: latent.DiscretisedLogistic, bins: auto}"
GAUSSIAN = "{_target_: latent.Gaussian, std: null}"
THREE = ["task.models.lsgm.model.latent=3", "task.models.lsgm.model.prior.net.shape=[3]"]
SPOILT = ["task=elbo", "~task.models.vae.training.loss.beta"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["task=elbo", "~task.models.vae"], "task.models is empty; type for example"),
        (["task=elbo", "latent@task.models.vae=gan"], "task.models.vae is a GAN, which has no bound on log p"),
        (["task=elbo", "task.likelihood.start=corrected"], "task.likelihood.start=corrected gives no bound"),
        (["task=elbo", "task.samples=0"], "task.samples=0 must be at least 1"),
        (["task=elbo", "task.models.vae.model.latent=0"], "model.latent=0 must be at least 1"),
        (["task=elbo", "task.models.vae.training.rate=-1"], r"^task\.models\.vae\.training\.rate=-1 must be positive"),
        (["task=elbo", "task.models.vae.model.networks.width=x"], "networks.width=x must be a whole number"),
        (["task=elbo", "task.models.vae.start=other"], "^task.models.vae.start=other is none of the models before it"),
        (["task=elbo", "checkpoint=somewhere"], "leave checkpoint= out"),
        (["task=elbo", "+task.models.mine=3"], "task.models.mine=3 must be a recipe"),
        (["task=elbo", "data=heartbeat", "sde=binary"], "task=Elbo is for SDEs"),
        (["task=generators", "data=checkerboard"], "these data have neither components nor labels"),
        (["task=generators", "data=8gaussians", "task.seeds=0"], "task.seeds=0 must be at least 1"),
        (["task=generators", "+latent@task.models.score=vae"], "this is the name of the run's own score SDE"),
        (["task=elbo", "task.models.vae.model.networks.width=0"], r"task\.models\.vae\.model\.networks\.width=0 must"),
        (["task=elbo", "task.models.vae.training.loss.beta=-1"], r"type task\.models\.vae\.training\.loss\.beta=1"),
        (["task=elbo", "task.models.vae.model.latent=0"], r"type task\.models\.vae\.model\.latent=8"),
        ([*SPOILT, "task.models.vae.training.loss._target_=latent.Adversarial"], "Adversarial is no loss of a VAE"),
        ([*SPOILT, "task.models.vae.training.loss._target_=training.DenoisingScoreMatching"], "is no loss of a VAE"),
        (["experiment=lsgm", "task.models.lsgm_joint.start=typo"], "is none of the models before it .vae, vae_l"),
        (["experiment=lsgm", *THREE], r"^task\.models\.lsgm\.start=vae: its .*coder is not of the same sizes"),
        (["experiment=lsgm", "task.models.lsgm.model.prior.net.shape=[3]"], "is not the number of latents, .*latent=8"),
        (["task=elbo", f"task.models.vae.model.observation={GAUSSIAN}"], "no bound on log P"),
        (["task=elbo", "points=/none.npy", "task.points=/none.npy"], "there is no file"),
        (["task=generators", "data=8gaussians", "task.count=3"], "task.count=3 must be at least 4"),
        (["task=generators", "data=8gaussians", "data.test_count=3"], "3 held-out data are too few"),
        (["task=generators", "data=8gaussians", "task.models.wae.start=gan"], "a WAE and a GAN have no weights in c"),
        (
            ["task=elbo", "data=moons", "task.models.vae.model.networks={_target_: latent.Convolutional}"],
            "takes images",
        ),
        (["task=elbo", "data=moons", f"task.models.vae.model.observation={LOGISTIC}"], "bins"),
    ],
)
def test_mistakes_are_named(tmp_path, overrides, message):
    if any(word.startswith(("data=moons", "data=8")) for word in overrides):
        overrides = [*overrides, "data.count=100"]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cfg = composed(f"store={tmp_path}/store", *overrides, late=LATE)
        run(cfg, CHOICES, tmp_path / "run")
    assert not list(tmp_path.glob("store/*/step-*")), "a network was trained before the mistake was found"


def test_models_that_do_not_fit_each_other():
    small, large = (VAE((2,), latent, Dense(8, 1), Gaussian(), StandardNormal()) for latent in (2, 3))
    with pytest.raises(ValueError, match="is not of the same sizes"):
        large.start_from(small)
    integers = VAE((2,), 2, Dense(8, 1), DiscretisedLogistic([1.0, 1.0, 2]), StandardNormal())
    with pytest.raises(ValueError, match="is not of the same sizes"):
        integers.start_from(small)
    fixed = [VAE((2,), 2, Dense(8, 1), Gaussian(std), StandardNormal()) for std in (0.5, 0.2)]
    fixed[0].start_from(fixed[1])
    assert float(fixed[0].observation.log_std.exp()) == pytest.approx(0.5), "the std is configuration"
    assert torch.equal(fixed[0].encoder[1].weight, fixed[1].encoder[1].weight)
