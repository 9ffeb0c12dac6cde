"""Tests of the minimisers of the objectives, and of the noise levels."""

import math

import pytest
import torch
from torch import Tensor

from scoresde.models import EDM, MLP, EnergyGradient, Oracle, Score, ScoreModel, UNet
from scoresde.sde_lib import EDM as KarrasSDE
from scoresde.sde_lib import VE, VP, Draws
from scoresde.training import (
    DenoisingScoreMatching,
    ExplicitScoreMatching,
    ImplicitScoreMatching,
    SlicedScoreMatching,
    levels,
)

from .conftest import SHAPES, GaussianScore, choices, draw_mixture, make, make_sde, mixture, per_sample

LOSSES = [name for name in choices("training/loss") if name != "binary"]  # a chain of bits has no score
LEVELS = choices("training/loss/levels")
SLICED = {
    f"{law}-{'vr' if reduced else 'plain'}": SlicedScoreMatching(levels.Clean(), law=law, variance_reduced=reduced)
    for law in ("rademacher", "gaussian")
    for reduced in (False, True)
}


def make_loss(name: str, sde: str = "ve", shape: tuple[int, ...] = (2,), *overrides: str):
    return make("training.loss", f"sde={sde}", "training=vectors", f"training/loss={name}", *overrides, shape=shape)


def make_levels(name: str):
    return make("training.loss.levels", "training=vectors", "training/loss=implicit", f"training/loss/levels={name}")


def gaussian_data(count: int, shape: tuple[int, ...], std: float) -> Tensor:
    """Points whose mean is 0 and whose covariance is std^2 I exactly, so that population formulas hold for them."""
    x = torch.randn(count, math.prod(shape), dtype=torch.float64)
    x = x - x.mean(0)
    covariance = x.T @ x / count
    return (std * torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), x.T, upper=False).T).reshape(
        count, *shape
    )


def linear(slope: Tensor):
    """The score -slope x, the same at all times."""
    return lambda x, t: -slope * x


def best_slope(loss, sde, x: Tensor) -> float:
    """The slope that minimises a loss which is quadratic in it, by one Newton step with the same random numbers."""

    def value(slope: float) -> float:
        torch.manual_seed(0)
        return float(loss(sde, linear(torch.tensor(slope, dtype=torch.float64)), x).mean().detach())

    low, middle, high = value(-1.0), value(0.0), value(1.0)
    return (low - high) / (2 * (low - 2 * middle + high))


# --- what they recover ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_implicit_finds_the_clean_score_exactly(shape):
    x, std = gaussian_data(500, shape, 0.5), 0.5
    assert best_slope(ImplicitScoreMatching(levels.Clean()), VE(), x) == pytest.approx(1 / std**2, rel=1e-9)


@pytest.mark.parametrize("name", SLICED)
def test_sliced_finds_the_clean_score(name):
    """For a linear score and random signs the variance-reduced form has no variance; the others have."""
    x, std = gaussian_data(40_000, (3,), 0.5), 0.5
    close = 1e-9 if name == "rademacher-vr" else 0.06
    assert best_slope(SLICED[name], VE(), x) == pytest.approx(1 / std**2, rel=close)


@pytest.mark.parametrize("k", [0.1, 0.5, 2.0])
def test_denoising_finds_the_noisy_score(k):
    """At one level the minimiser for data from N(0, s^2) is the score of N(0, s^2 + k^2), not that of the data."""
    x, std = gaussian_data(200_000, (1,), 0.5), 0.5
    found = best_slope(DenoisingScoreMatching(levels.One(k)), VE(), x)
    assert found == pytest.approx(1 / (std**2 + k**2), rel=0.03)
    if k >= 0.5:
        assert abs(found - 1 / std**2) > 1


def test_perturbed_implicit_finds_the_noisy_score_too():
    x = gaussian_data(100_000, (1,), 0.5)
    for loss in (ImplicitScoreMatching(levels.One(0.5)), SlicedScoreMatching(levels.One(0.5), directions=2)):
        assert best_slope(loss, VE(), x) == pytest.approx(1 / (0.25 + 0.25), rel=0.02)


def test_implicit_is_explicit_less_a_constant():
    """Gradients agree in every entry of a linear score's matrix (Hyvarinen 2005, theorem 1)."""
    x, std, sde = gaussian_data(300, (3,), 0.7), 0.7, VE()
    W = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    class Truth(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return -x / std**2

    gradients, values = [], []
    for loss in (ExplicitScoreMatching(Truth(), levels.Clean()), ImplicitScoreMatching(levels.Clean())):
        value = loss(sde, lambda x, t: x @ W.T, x).mean()
        gradients.append(torch.autograd.grad(value, W)[0])
        values.append(float(value.detach()))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    assert values[0] - values[1] == pytest.approx(1 / std**2, rel=1e-9)  # E |grad log p|^2 / D


@pytest.mark.parametrize("shape", [(2,), (2, 3, 2)], ids=SHAPES)
def test_sliced_is_implicit_in_the_mean(shape):
    """With many directions the sliced loss of a batch equals the implicit loss, within its standard error."""
    sde, x = VP(), torch.randn(4, *shape)
    net = MLP(shape, width=16, depth=2) if len(shape) == 1 else UNet(shape, channels=(4,), attention=())
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    score = ScoreModel(sde, net, EDM(1.0)).double()
    x = x.double()
    exact = ImplicitScoreMatching(levels.One(0.5))
    z = torch.randn_like(x)
    t = exact.times(sde, x)
    whole = exact.objective(sde, score, sde.perturb(x, t, z), t, z)
    for reduced in (True, False):
        loss = SlicedScoreMatching(levels.One(0.5), directions=100, law="gaussian", variance_reduced=reduced)
        draws = torch.stack([loss.objective(sde, score, sde.perturb(x, t, z), t, z).detach() for _ in range(12)])
        error = (draws.mean(0) - whole.detach()) / (draws.std(0) / math.sqrt(len(draws)))
        assert float(error.abs().max()) < 5


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "explicit"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_exact_score_minimises_every_loss(name, shape):
    """Scores that are three per cent too large or too small have a larger loss, with the same random numbers."""
    sde, overrides = make_sde("vp"), ["training.loss.directions=8"] if "sliced" in name else []
    loss = make_loss(name, "vp", shape, *overrides)
    # Eight directions suffice; the exact divergence of an image costs D backward passes.
    count = 60 if name == "implicit" and len(shape) == 3 else 4000
    x, oracle = draw_mixture(mixture(shape), count, shape), Oracle(sde, mixture(shape)).double()

    def mean(factor: float) -> float:
        torch.manual_seed(0)
        return float(loss(sde, lambda x, t: factor * oracle(x, t), x).mean().detach())

    best = mean(1.0)
    assert mean(0.9) > best and mean(1.1) > best


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_explicit_is_the_distance_to_the_truth(shape, sde):
    truth = GaussianScore(sde, 0.3, 0.5)
    loss, x = ExplicitScoreMatching(Oracle(sde, mixture(shape))), draw_mixture(mixture(shape), 64, shape)
    oracle = Oracle(sde, mixture(shape)).double()
    assert float(loss(sde, oracle, x).abs().max()) == 0
    draws = Draws(1, len(x))
    found = loss(sde, truth, x, draws)
    t, z = loss.times(sde, x, draws), draws.normal("noise", x)
    x_t = sde.perturb(x, t, z)
    by_hand = (per_sample(sde.sigma(t), x) * (truth(x_t, t) - oracle(x_t, t))).square().flatten(1).mean(1)
    torch.testing.assert_close(found, by_hand)


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LEVELS if name not in ("one", "clean", "blend")])
def test_levels_are_within_reach_and_monotone(sde, name, dtype):
    """The quantile function is monotone, and its values lie in [eps, T]."""
    unit = torch.linspace(0, 1 - torch.finfo(dtype).eps, 1001, dtype=dtype)
    t = make_levels(name).times(sde, unit)
    assert t.dtype == dtype and float(t.min()) >= sde.eps * (1 - 1e-6) and float(t.max()) <= sde.T * (1 + 1e-6)
    gaps = t.diff()
    assert bool((gaps >= 0).all()) or bool((gaps <= 0).all())


def test_a_blend_is_the_sum_of_its_parts(sde, dtype):
    """The mean over the quantiles of the weight times a function is the mixture of two means, for two shares."""
    unit = ((torch.arange(8_000, dtype=torch.float64) + 0.5) / 8_000).to(dtype)

    def mean(law) -> float:
        t = law.times(sde, unit)
        assert t.dtype == dtype and float(t.min()) >= sde.eps * (1 - 1e-6) and float(t.max()) <= sde.T * (1 + 1e-6)
        k = torch.exp(-sde.half_log_snr(t.double()))
        return float((law.weight(sde, t).double() * (1 + 0.3 * torch.cos(2 * k.log())) / (1 + k.square())).mean())

    for share in (0.5, 0.1):
        t = levels.Blend(share, -0.5, 0.8, 0.7).times(sde, unit)
        first, second = (gaps.diff() for gaps in (t[unit < 1 - share], t[unit >= 1 - share]))
        assert bool((first <= 0).all() or (first >= 0).all()) and bool((second <= 0).all() or (second >= 0).all())
        parts = mean(levels.LogSNR()), mean(levels.LogNormal(-0.5, 0.8, 0.7))
        assert abs(parts[1] - parts[0]) > 0.05
        found = mean(levels.Blend(share, -0.5, 0.8, 0.7))
        assert found == pytest.approx((1 - share) * parts[0] + share * parts[1], rel=2e-4)


def test_a_blend_has_some_of_both():
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"`share`=.* must lie between 0 and 1; type `share`=0.75"):
            levels.Blend(share)
    with pytest.raises(ValueError, match=r"`std`=0.0 must be positive"):
        levels.Blend(0.5, std=0.0)


def test_clean_and_one_level(sde, dtype):
    unit = torch.rand(5, dtype=dtype)
    assert torch.equal(levels.Clean().times(sde, unit), torch.full_like(unit, sde.eps))
    t = levels.One(0.3).times(sde, unit)
    torch.testing.assert_close(sde.sigma(t) / sde.alpha(t), torch.full_like(t, 0.3), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match=r"`noise_to_signal`=1000000000.0 lies outside the SDE's levels"):
        levels.One(1e9).times(sde, unit)


def test_the_ladder_is_geometric(sde):
    """All levels are equally frequent, and neighbours have a constant ratio (arXiv 1907.05600)."""
    t = levels.Ladder(10).times(sde, (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    k = (sde.sigma(t) / sde.alpha(t)).unique_consecutive()
    assert len(k) == 10
    counts = [int((t == rung).sum()) for rung in t.unique()]
    assert counts == [100] * 10
    torch.testing.assert_close(k.log().diff(), k.log().diff().mean().expand(9), rtol=1e-3, atol=0)
    assert float(t.max()) == pytest.approx(sde.T) and float(t.min()) == pytest.approx(sde.eps, rel=1e-3)


def test_published_ladder():
    """The levels are the 10 sigmas from 1 to 0.01 of arXiv 1907.05600, section 5."""
    sde = VE(sigma_min=0.01, sigma_max=1.0, eps=1e-9)
    t = levels.Ladder(10).times(sde, (torch.arange(10, dtype=torch.float64) + 0.5) / 10)
    expected = torch.logspace(0, -2, 10, dtype=torch.float64)
    torch.testing.assert_close(sde.sigma(t), expected, rtol=1e-6, atol=0)


def test_the_chain_has_its_steps():
    sde = VP()
    t = levels.Chain(1000).times(sde, (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    torch.testing.assert_close(t, torch.arange(1, 1001, dtype=torch.float64) / 1000, rtol=1e-12, atol=0)


def test_log_normal_levels_have_their_law():
    """log sigma ~ N(-1.2, 1.2^2) for data of std 0.5, cut to [0.002, 80] (arXiv 2206.00364, table 1)."""
    sde, law = KarrasSDE(), levels.LogNormal(-1.2, 1.2, sigma_data=0.5)
    t = law.times(sde, (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    logs = t.log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=1e-3) and float(logs.std()) == pytest.approx(1.2, abs=2e-3)
    twice = levels.LogNormal(-1.2, 1.2, sigma_data=1.0).times(sde, torch.tensor([0.5], dtype=torch.float64))
    assert float(twice.log()) == pytest.approx(-1.2 + math.log(2), abs=1e-3)
    with pytest.raises(ValueError, match=r"`mean`=15.0 and `std`=0.1 put no level between"):
        levels.LogNormal(15.0, 0.1).times(sde, torch.rand(3))


def test_edm_loss_is_the_published_one():
    """lambda(sigma) |D(x) - x_0|^2 with lambda = (sigma^2 + s^2)/(sigma s)^2 (arXiv 2206.00364, table 1)."""
    sde, s = KarrasSDE(), 0.5
    loss, x = DenoisingScoreMatching(levels.LogNormal(-1.2, 1.2, s)), torch.randn(50, 2, 3, 4, dtype=torch.float64)
    score = GaussianScore(sde, 0.3, 0.8)
    draws = Draws(3, len(x))
    found = loss(sde, score, x, draws)
    sigma, z = loss.times(sde, x, draws), draws.normal("noise", x)
    x_t = x + per_sample(sigma, x) * z
    denoised = x_t + per_sample(sigma**2, x) * score(x_t, sigma)
    weight = (sigma**2 + s**2) / (sigma * s) ** 2
    torch.testing.assert_close(found, weight * (denoised - x).square().flatten(1).mean(1), rtol=1e-9, atol=0)
    # at initialisation an EDM network has loss 1 at every level
    network = ScoreModel(sde, MLP((2,)), EDM(s)).double()
    points = gaussian_data(20_000, (2,), s)
    for k in (0.01, 0.5, 20.0):
        t = torch.full((len(points),), k, dtype=torch.float64)
        z = torch.randn_like(points)
        with torch.no_grad():
            value = loss.levels.weight(sde, t) * loss.objective(sde, network, sde.perturb(points, t, z), t, z)
        assert float(value.mean()) == pytest.approx(1.0, rel=0.04)


@pytest.mark.parametrize("name", ["sigma2", "likelihood"])
def test_stratified_times_cover_each_share_once(name):
    sde, loss = VP(), make_loss(name, "vp")
    unit = (loss.times(sde, torch.zeros(64, 2, dtype=torch.float64)) - sde.eps) / (sde.T - sde.eps)
    if name == "likelihood":
        ends = sde.half_log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64))
        time = loss.times(sde, torch.zeros(64, 2, dtype=torch.float64))
        unit = (sde.half_log_snr(time) - ends[0]) / (ends[1] - ends[0])
    assert sorted((unit * 64).floor().clamp(0, 63).long().tolist()) == list(range(64))


def test_ncsn_loss_is_of_like_size_at_every_level():
    """With lambda = sigma^2 an untrained network's loss at the largest level is below 3 times that at the smallest."""
    sde, loss = VE(), make_loss("ncsn")
    score, x = ScoreModel(sde, MLP((2,)), Score()).double(), torch.randn(4000, 2, dtype=torch.float64)
    torch.nn.init.normal_(last_weight(score), std=0.1)
    sizes = []
    for unit in (torch.arange(10, dtype=torch.float64) + 0.5) / 10:
        t, z = loss.levels.times(sde, unit.expand(len(x))), torch.randn_like(x)
        with torch.no_grad():
            sizes.append(float(loss.objective(sde, score, sde.perturb(x, t, z), t, z).mean()))
    assert len(set(sizes)) == 10 and max(sizes) / min(sizes) < 3


def last_weight(model: torch.nn.Module) -> torch.nn.Parameter:
    return [parameter for name, parameter in model.named_parameters() if name.endswith("weight")][-1]


# --- with every network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "explicit"])
@pytest.mark.parametrize("shape", [(2,), (1, 6, 4)], ids=["vectors", "images"])
def test_energy_networks_learn_under_every_loss(name, shape):
    """Gradients of the loss with respect to the weights, against central differences."""
    sde, loss = make_sde("vp"), make_loss(name, "vp", shape)
    net = MLP(shape, width=8, depth=1, fourier=2) if len(shape) == 1 else UNet(shape, channels=(4,), attention=())
    score = ScoreModel(sde, EnergyGradient(net), EDM(1.0)).double()
    for parameter in score.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, weight = torch.randn(3, *shape, dtype=torch.float64), last_weight(score)

    def value() -> Tensor:
        torch.manual_seed(0)
        return loss(sde, score, x).mean()

    (slope,) = torch.autograd.grad(value(), weight)
    place, h = (0,) * weight.ndim, 1e-5
    with torch.no_grad():
        weight[place] += h
        above = value()
        weight[place] -= 2 * h
        below = value()
    assert float(slope[place]) == pytest.approx(float(above - below) / (2 * h), rel=1e-4)
    assert not value().isnan() and not above.requires_grad
