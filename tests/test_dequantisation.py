"""Integers under a density: both dequantisations bound the exact probability of a bin, and reach it."""

import csv
import json
import logging
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm
from torch import Tensor

from scoresde.conf import identity
from scoresde.data import Data, Digits
from scoresde.likelihood import Likelihood, LogLikelihood, TruncatedNormalDequantisation, UniformDequantisation
from scoresde.likelihood.dequantisation import log_mean, truncated_normal
from scoresde.models import Oracle
from scoresde.sde_lib import BasisVectors, Rademacher
from scoresde.tasks import LikelihoodTask
from scoresde.tasks.parts.scoring import Scoring
from scoresde.training import Trainer
from scoresde.training.store import digest
from scoresde.training.trainer import Batches

from .conftest import compose, job_of, make, mixture
from .test_cli import TINY, command, job

KINDS = {"uniform": UniformDequantisation, "truncated_normal": TruncatedNormalDequantisation}
TAUS = [1e-6, 1e-3, 0.1, 0.39, 1.0, 2.5, 5.9, 50.0]
SDES = {
    "vp": ("sde=vp",),
    "subvp": ("sde=subvp",),  # sigma(eps) is 1e-4
    "coarse": ("sde=ve", "sde.sigma_min=0.15"),  # not below the half width of a bin
    "late": ("sde=vp", "sde.eps=0.15"),  # alpha(eps) is 0.89
}
# A truncated normal much narrower than a bin says something of data at the centres alone.
CASES = [
    ("uniform", "vp", False),
    ("uniform", "coarse", False),
    ("truncated_normal", "coarse", False),
    ("truncated_normal", "vp", True),
    ("truncated_normal", "subvp", True),
]


def integers() -> Data:
    """All pairs of 6 and 12 levels; a bin's width in model units is another in each coordinate."""
    k = torch.cartesian_prod(torch.arange(6), torch.arange(12)).to(torch.uint8)
    return Data(k, k, torch.tensor([3.0, 6.0]), torch.tensor([1.5, 3.0]), levels=12, shuffle=False)


def at_eps(sde) -> tuple[Tensor, Tensor]:
    eps = torch.tensor(sde.eps, dtype=torch.float64)
    return sde.alpha(eps), sde.sigma(eps)


def components(sde, centred: bool = False):
    """A mixture that is wide beside the bins, or one of components at centres of bins, no wider than sigma."""
    if not centred:
        return mixture((2,))
    means = integers().encode(torch.tensor([[1.5, 4.5], [2.5, 9.5], [4.5, 6.5]], dtype=torch.float64))
    return torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, 0.9 * at_eps(sde)[1].expand(3)


def mass(mixture, k: Tensor, sde=None) -> Tensor:
    """The mixture's exact probability of each bin, (N, 2) to (N,); of the bins at eps under an SDE."""
    weights, means, stds = mixture
    edges = torch.stack([integers().encode(k.double()), integers().encode(k.double() + 1)])
    if sde is not None:
        alpha, sigma = at_eps(sde)
        edges, means, stds = alpha * edges, alpha * means, (alpha**2 * stds**2 + sigma**2).sqrt()
    low, high = torch.special.erf((edges[..., None, :] - means) / (math.sqrt(2) * stds[:, None]))
    return (weights * (0.5 * (high - low)).prod(-1)).sum(-1)


def problem(kind: str, name: str, centred: bool):
    """An SDE, its oracle, the integers that carry some mass, and that mass."""
    sde = make("sde", *SDES[name])
    parts, k = components(sde, centred), integers().test
    exact = mass(parts, k, sde if kind == "truncated_normal" else None)
    likely = exact > 0.01
    return sde, Oracle(sde, parts), k[likely], exact[likely]


@dataclass(frozen=True)
class ClosedForm:
    """A likelihood without a solver: the oracle at eps, or with ``start="corrected"`` the mixture's own density."""

    start: str = "corrected"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100

    def __call__(self, sde, score, x, randn_like=None, on_step=None) -> LogLikelihood:
        if self.start == "plain":
            log_prob = score.log_prob(x, torch.full((len(x),), sde.eps, dtype=x.dtype))
        else:
            normal = torch.distributions.Normal(score.means, score.variances.sqrt()[:, None])
            log_prob = torch.logsumexp(score.log_weights + normal.log_prob(x[:, None]).sum(-1), 1)
        none = torch.zeros_like(log_prob)
        return LogLikelihood(log_prob, x, none, none, none, 1.0)


def scored(kind: str, sde, score, k: Tensor, samples: int, likelihood=None, batch: int = 5000, seed: int = 0) -> dict:
    scoring = Scoring(likelihood or ClosedForm(), KINDS[kind](samples), batch, seed, dtype="float64")
    return scoring.score(sde, score, integers(), k)


# The bound


@pytest.mark.parametrize("kind, name, centred", [*CASES, ("truncated_normal", "late", False)])
def test_the_mean_weight_is_the_mass_of_the_bin(kind, name, centred):
    """E_q[p/q] = P, of every bin with some mass, under coordinates of unequal scales."""
    (sde, score, k, exact), count = problem(kind, name, centred), 10_000
    points = KINDS[kind]().draw(sde, integers(), k.repeat(count, 1), torch.rand(count * len(k), 2).double())
    likelihood = KINDS[kind]().scored_by(ClosedForm())
    weights = (likelihood(sde, score, points.x).model_log_prob - points.log_q).exp().reshape(count, len(k))
    error = (weights.mean(0) - exact) * math.sqrt(count) / weights.std(0)
    assert len(k) >= 3 and float(error.abs().max()) < 5
    assert float((weights.std(0) / weights.mean(0)).max()) < 5, "or the test could not fail"


@pytest.mark.parametrize("kind, name, centred", CASES)
def test_the_bound_lies_below_and_grows_to_the_truth(kind, name, centred):
    sde, score, k, exact = problem(kind, name, centred)
    exact, bounds, repeats = exact.log(), [], 600 // len(k)
    for samples in (1, 4, 32):
        found = scored(kind, sde, score, k.repeat(repeats, 1), samples)["log_prob"].reshape(repeats, -1)
        error = found.std(0) / math.sqrt(repeats)
        assert bool((found.mean(0) < exact + 4 * error).all()), f"above log P with {samples} samples"
        bounds.append(float(found.mean()))
    gaps = [float(exact.mean()) - bound for bound in bounds]
    assert gaps[0] > 0.01, "or there would be nothing to close"
    assert gaps[1] < 0.7 * gaps[0] and abs(gaps[2]) < 0.25 * gaps[0] + 0.01
    best = scored(kind, sde, score, k, 600)
    assert float((best["log_prob"] - exact).abs().max()) < 0.3
    assert float(best["gain"].mean()) == pytest.approx(gaps[0], abs=0.1 * gaps[0] + 0.03)


def test_what_is_scored_and_what_is_kept():
    """The uniform point by the likelihood as it is; the truncated normal's by p_eps, at alpha times the bin's point."""
    sde, data = make("sde", "sde=vp"), integers()
    score, k, (alpha, sigma) = Oracle(sde, components(sde)), data.test[20:40], at_eps(sde)
    for start in ("corrected", "plain"):
        found = scored("uniform", sde, score, k, 1, ClosedForm(start))
        assert torch.equal(found["x"].floor(), k.double())
        there = ClosedForm(start)(sde, score, data.encode(found["x"])).model_log_prob
        torch.testing.assert_close(found["log_prob"], there + data.log_det, rtol=0, atol=1e-12)
        assert not found["gain"].any()

        found = scored("truncated_normal", sde, score, k, 1, ClosedForm(start))
        assert torch.equal(found["x"].floor(), k.double())
        x = alpha * data.encode(found["x"])
        there = ClosedForm("plain")(sde, score, x).model_log_prob
        centre, half = alpha * data.encode(k.double() + 0.5), alpha * 0.5 / data.scale
        q = truncnorm.logpdf(x.numpy(), *(v.numpy() for v in (-half / sigma, half / sigma, centre, sigma)))
        torch.testing.assert_close(found["log_prob"], there - torch.tensor(q).sum(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_solver_agrees_with_the_closed_form(kind):
    sde, score, k, _ = problem(kind, "vp", kind == "truncated_normal")
    solver = Likelihood(BasisVectors(), rtol=1e-6, atol=1e-6, start="plain")
    ours = scored(kind, sde, score, k[:3], 2, solver)
    exact = scored(kind, sde, score, k[:3], 2, ClosedForm("plain"))
    torch.testing.assert_close(ours["log_prob"], exact["log_prob"], rtol=0, atol=0.01)  # the prior's cost
    torch.testing.assert_close(ours["x"], exact["x"], rtol=0, atol=0)
    assert float(ours["nfe"]) > 2 * 30, "every point of a bin is scored"


# The truncated normal


@pytest.mark.parametrize("tau", TAUS)
def test_the_truncated_normal_is_what_it_says(tau):
    """Against other quantiles and densities; moments, normalisation and entropy by the midpoint rule in u."""
    count = 100_001
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    z, log_q = truncated_normal(u, torch.tensor(tau, dtype=torch.float64))
    assert float(z.abs().max()) <= tau and float((z + z.flip(0)).abs().max()) < 1e-9 * min(1, tau)
    quantile = torch.from_numpy(truncnorm.ppf(u.numpy(), -tau, tau))
    torch.testing.assert_close(z, quantile, rtol=1e-9, atol=1e-9 * min(1, tau))
    torch.testing.assert_close(log_q, torch.from_numpy(truncnorm.logpdf(z.numpy(), -tau, tau)), rtol=1e-9, atol=1e-9)
    assert float(torch.trapezoid(log_q.exp(), z)) == pytest.approx(1, abs=3e-5)
    inside = math.erf(tau / math.sqrt(2))
    edge = tau * math.exp(-(tau**2) / 2) / (math.sqrt(2 * math.pi) * inside)
    if tau > 1e-3:  # below, 1 - 2 edge cancels: it is tau^2/3
        assert float(z.square().mean()) == pytest.approx(1 - 2 * edge, rel=2e-4)
    else:
        assert float(z.square().mean()) == pytest.approx(tau**2 / 3, rel=1e-6)
    entropy = 0.5 * (1 + math.log(2 * math.pi)) + math.log(inside) - edge  # arXiv 2305.03935
    assert float(-log_q.mean()) == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize("tau", TAUS)
def test_the_ends_of_the_uniform_numbers_are_harmless(tau):
    ends = torch.tensor([0.0, 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    z, log_q = truncated_normal(ends, torch.tensor(tau, dtype=torch.float64))
    assert bool(z.isfinite().all() and log_q.isfinite().all()) and float(z.abs().max()) <= tau
    assert float(log_q.min()) > -40, "an outlier of probability 1e-16, not of density exp(-tau^2/2)"


@pytest.mark.parametrize("name", SDES)
def test_the_entropy_of_a_bin_is_the_papers(name):
    """d/2 (1 + log 2 pi sigma^2) + sum_i [log Z_i - tau_i exp(-tau_i^2/2)/(sqrt(2 pi) Z_i)]  (arXiv 2305.03935)."""
    data, sde, count = integers(), make("sde", *SDES[name]), 20_001
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    points = TruncatedNormalDequantisation().draw(
        sde, data, data.test[:1].repeat(count, 1), torch.stack([u, u.flip(0)], 1)
    )
    alpha, sigma = map(float, at_eps(sde))
    entropy = 1 + math.log(2 * math.pi * sigma**2)
    for scale in (1.5, 3.0):
        tau = alpha * 0.5 / scale / sigma
        inside = math.erf(tau / math.sqrt(2))
        entropy += math.log(inside) - tau * math.exp(-(tau**2) / 2) / (math.sqrt(2 * math.pi) * inside)
    assert float(-points.log_q.mean()) == pytest.approx(entropy, abs=5e-4)
    assert torch.equal(points.r.floor(), data.test[:1].double().expand(count, 2))
    torch.testing.assert_close(points.x, alpha * data.encode(points.r), rtol=0, atol=1e-13)


def test_a_small_tau_is_the_uniform_density():
    data, sde = integers(), make("sde", "sde=ve", "sde.sigma_min=40", "sde.sigma_max=50")
    k, u = data.test, torch.rand(len(data.test), 2, dtype=torch.float64)
    one, other = (kind().draw(sde, data, k, u) for kind in KINDS.values())
    torch.testing.assert_close(one.r, other.r, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.log_q, other.log_q, rtol=0, atol=1e-3)


def test_the_log_of_a_mean_of_weights():
    weights = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    found, shares = log_mean(weights.log() - 2000)
    assert found.tolist() == pytest.approx([math.log(2) - 2000] * 3)
    torch.testing.assert_close(shares, weights / 4, rtol=0, atol=1e-12)


# Noise


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_does_not_depend_on_the_batch(kind):
    sde, k = make("sde", "sde=vp"), integers().test
    score = Oracle(sde, components(sde))
    whole = scored(kind, sde, score, k, 3)
    for batch in (1, 7, 64):
        cut = scored(kind, sde, score, k, 3, batch=batch)
        for name in ("x", "log_prob", "gain"):
            torch.testing.assert_close(cut[name], whole[name], rtol=0, atol=1e-10)
    assert not torch.equal(scored(kind, sde, score, k, 3, seed=1)["x"], whole["x"])


def test_the_points_of_a_bin_differ_and_meet_the_same_probes():
    seen = []

    @dataclass(frozen=True)
    class Looking(ClosedForm):
        def __call__(self, sde, score, x, randn_like=None, on_step=None):
            seen.append((x.clone(), randn_like(x)))
            return super().__call__(sde, score, x)

    sde = make("sde", "sde=vp")
    scored("uniform", sde, Oracle(sde, components(sde)), integers().test[:10], 3, Looking())
    (x, z), *others = seen
    assert len(others) == 2
    for other_x, other_z in others:
        assert not torch.equal(x, other_x) and torch.equal(z, other_z)


def test_errors_of_the_same_probes_add_up():
    """probe_stderr is the mean over the points, and not its root of a sum of squares."""

    @dataclass(frozen=True)
    class Unsure(ClosedForm):
        def __call__(self, sde, score, x, randn_like=None, on_step=None):
            found = super().__call__(sde, score, x)
            one = torch.ones_like(found.model_log_prob)
            return LogLikelihood(found.model_log_prob, x, 0.5 * one, 2 * one, 3 * one, 1.0)

    sde = make("sde", "sde=vp")
    found = scored("uniform", sde, Oracle(sde, components(sde)), integers().test[:10], 4, Unsure())
    for name, value in (("probe_stderr", 0.5), ("start_term", 2.0), ("prior_term", 3.0)):
        assert found[name].tolist() == pytest.approx([value] * 10)
    assert float(found["nfe"]) == 4


def test_terms_of_a_bin_are_weighted_by_the_shares_of_its_points():
    """A point's share is its weight p/q over the sum of them: that is how much the bound moves with its log p."""
    seen = []

    @dataclass(frozen=True)
    class Uneven(ClosedForm):
        def __call__(self, sde, score, x, randn_like=None, on_step=None):
            found = super().__call__(sde, score, x)
            terms = x[:, 0].square(), x[:, 1], x.sum(1)
            seen.append((found.model_log_prob, torch.stack(terms)))
            return LogLikelihood(found.model_log_prob, x, *terms, 1.0)

    sde, k = make("sde", "sde=vp"), integers().test[20:30]
    found = scored("uniform", sde, Oracle(sde, components(sde)), k, 4, Uneven())
    log_prob, terms = (torch.stack(values) for values in zip(*seen, strict=True))
    shares = torch.softmax(log_prob, 0)  # q is the same for all points of a bin
    assert float((shares - 0.25).abs().max()) > 0.1, "or the test could not fail"
    for name, value in zip(("probe_stderr", "start_term", "prior_term"), (shares[:, None] * terms).sum(0), strict=True):
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


class Record:
    def arrays(self, name, **arrays):
        self.kept = arrays

    def path(self, name):
        return name

    def picture(self, path):
        pass


@pytest.mark.parametrize(
    "probes, samples, warns",
    [(Rademacher(2), 2, True), (Rademacher(1), 2, True), (Rademacher(2), 1, False), (BasisVectors(), 2, False)],
)
def test_probes_in_an_exponent_are_warned_of(probes, samples, warns, caplog, monkeypatch):
    monkeypatch.setattr(LikelihoodTask, "show", lambda *arguments: None)
    sde, data = make("sde", "sde=vp"), integers()
    oracle, data.test = Oracle(sde, components(sde)), data.test[30:35]
    task = LikelihoodTask(Likelihood(probes, rtol=1e-2, atol=1e-2), UniformDequantisation(samples), dtype="float64")
    with caplog.at_level(logging.WARNING):  # under a score whose Jacobian is not diagonal
        metrics = task(job_of(sde, lambda x, t: oracle(x, t) + x.flip(1), data, Record()))
    assert any("dequantisation.samples=2 averages" in line.message for line in caplog.records) == warns
    assert ("sampling_gain_nats" in metrics) == (samples > 1)


# Training at the centres


def test_batches_at_the_centres():
    data = Digits()
    batch = data.decode(Batches(data, 32, seed=0, device=torch.device("cpu"), centres=True)(3))
    torch.testing.assert_close(batch, batch.floor() + 0.5, rtol=0, atol=2e-5)


def test_the_trainer_sees_the_centres_alone():
    """In training and in the held-out loss."""
    data, sde, seen = Digits(), make("sde", "sde=ve"), []

    class Loss:
        differentiates = False

        def __call__(self, sde, model, x, draws=None):
            seen.append(data.decode(x))
            return model(x).flatten(1).sum(1)

    for dequantise in ("none", "uniform"):
        Trainer(Loss(), steps=2, batch=8, warmup=0, evaluate=1, dequantise=dequantise).fit(
            sde, torch.nn.Conv2d(1, 1, 1), data
        )
        centred = [float((x - x.floor() - 0.5).abs().max()) < 1e-4 for x in seen]
        assert len(centred) >= 4 and all(each == (dequantise == "none") for each in centred)
        seen.clear()


@pytest.mark.parametrize("data, decides", [("digits", True), ("moons", False)])
def test_it_decides_the_network_where_there_are_bins(data, decides):
    """And the default is no part of the identity: networks older than the key stay what they were."""
    identities = []
    for dequantise in ("uniform", "none"):
        cfg = compose(f"data={data}", f"training.dequantise={dequantise}")
        identities.append(identity.identity_of(cfg, make("data", f"data={data}")))
    assert "dequantise" not in identities[0]["training"]
    assert (digest(identities[0]) != digest(identities[1])) == decides


# The command line

SMALL = ("data=digits", "model.channels=[8]", "model.attention=[]", "likelihood.rtol=1e-2", "likelihood.atol=1e-2")


def test_a_run_says_what_bounds_what(tmp_path, capsys):
    steps = ("training.steps=20", "training.dequantise=none")
    metrics = job(tmp_path, "task=likelihood", *SMALL, *TINY, *steps, "dequantisation=truncated_normal", "count=4")
    assert metrics["bound"] == "truncated-normal dequantisation, 1 sample: at most log P"
    assert metrics["bound"] in capsys.readouterr().out and "start_term_nats" not in metrics
    plain = job(tmp_path, "task=likelihood", *SMALL, *TINY, *steps, "count=4")
    assert plain["bound"] == "uniform dequantisation, 1 sample: at most log P"
    x = np.load(tmp_path / "run" / "likelihood.npz")["x"]
    more = job(tmp_path, "task=likelihood", *SMALL, *TINY, *steps, "dequantisation.samples=2", "count=4")
    assert more["bound"] == "uniform dequantisation, 2 samples: at most log P" and more["sampling_gain_nats"] > 0
    assert np.array_equal(np.load(tmp_path / "run" / "likelihood.npz")["x"], x), "x is the first point's"
    assert more["nfe"] > 1.5 * plain["nfe"] and len(list((tmp_path / "store").iterdir())) == 1


def test_a_sweep_over_the_bounds_ends_in_a_table(tmp_path):
    words = ("-m", "dequantisation=uniform,truncated_normal", "task=likelihood", *SMALL, *TINY, "count=3")
    done = command(*words, "training.steps=2", "training.dequantise=none", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "sweep" / "summary.csv").open()))
    assert [row["bound"].split()[0] for row in rows] == ["uniform", "truncated-normal"]
    assert all(row["bound"] in done.stdout and float(row["bits_per_dim"]) > 0 for row in rows)
    assert len(list((tmp_path / "store").iterdir())) == 1 and (tmp_path / "sweep" / "summary.png").exists()


@pytest.mark.parametrize("trained", ["uniform", "none"])
@pytest.mark.parametrize("bound", ["uniform", "truncated_normal"])
def test_a_bound_for_other_networks_is_warned_of(tmp_path, caplog, trained, bound):
    job(tmp_path, "task=likelihood", *SMALL, *TINY, "training.steps=2", f"training.dequantise={trained}", "count=2",
        f"dequantisation={bound}", "likelihood.rtol=0.1", "likelihood.atol=0.1")  # fmt: skip
    fits = (trained, bound) in (("uniform", "uniform"), ("none", "truncated_normal"))
    other = {"uniform": "truncated_normal", "truncated_normal": "uniform"}[bound]
    assert (f"type dequantisation={other}" in caplog.text) is not fits
    (network,) = (tmp_path / "store").iterdir()
    caplog.clear()
    job(tmp_path, "task=likelihood", *SMALL, *TINY, "count=2", f"checkpoint={network}",
        f"dequantisation={bound}", "likelihood.rtol=0.1", "likelihood.atol=0.1")  # fmt: skip
    assert (f"type dequantisation={other}" in caplog.text) is not fits


@pytest.mark.parametrize("sigma_min", [0.1, 0.02])
def test_noise_as_wide_as_a_bin_is_warned_of(tmp_path, caplog, sigma_min):
    words = ("training.dequantise=none", "dequantisation=truncated_normal", f"sde.sigma_min={sigma_min}", "count=2")
    job(
        tmp_path,
        "task=likelihood",
        *SMALL,
        *TINY,
        *words,
        "training.steps=2",
        "likelihood.rtol=0.1",
        "likelihood.atol=0.1",
    )
    warned = "is 0.85 bins wide" in caplog.text and "type sde=edm sde.eps=0.02, or" in caplog.text
    assert warned is (sigma_min == 0.1) and warned is ("bins wide" in caplog.text)


def test_of_continuous_data_nothing_changes(tmp_path):
    metrics = job(tmp_path, "task=likelihood", "data=mixture", "model=oracle", "count=20")
    assert "bound" not in metrics and json.dumps(metrics)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["dequantisation.samples=0"], "dequantisation.samples=0 must be at least 1; type dequantisation.samples=1"),
        (["dequantisation.samples=few"], "dequantisation.samples=few must be a whole number"),
        (["+dequantisation.width=2"], "dequantisation.width is not a key of UniformDequantisation"),
        (["training/loss=blend", "training.loss.levels.mean=19"], "training.loss.levels.mean=19.0 and training.loss"),
        (["training.dequantise=normal"], "training.dequantise=normal must be one of uniform, none"),
        (["data=mixture", "model=oracle", "dequantisation.samples=4"], "samples=4, is for integers"),
        (["data=moons", "dequantisation=truncated_normal"], "here truncated-normal with samples=1, is for integers"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(tmp_path, overrides, message):
    with pytest.raises(ValueError) as caught:
        job(tmp_path, "task=likelihood", *overrides)
    assert message in str(caught.value) and not (tmp_path / "store").exists()
