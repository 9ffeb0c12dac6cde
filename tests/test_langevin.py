"""Langevin dynamics: its stationary law, what it cannot do, and the published settings."""

import math

import pytest
import torch
from torch import Tensor

from scoresde.models import Oracle
from scoresde.samplers import AnnealedLangevin, Film, LangevinDynamics
from scoresde.sde_lib import SDE, VE, VP

from .conftest import SHAPES, GaussianScore, make_sampler


def walk(sampler, sde, score, count: int, std: float, shape=(1,)) -> Tensor:
    return sampler(sde, score, std * torch.randn(count, *shape, dtype=torch.float64), torch.randn_like)


@pytest.mark.parametrize("size", [0.2, 0.5, 1.0])
def test_the_stationary_variance_is_the_closed_form(size):
    """v/(1 - size/(2 v)) with v = s^2 + sigma(eps)^2, the bias of a finite step: and not v."""
    sde, s = VE(), 0.8
    v = s**2 + float(sde.sigma(torch.tensor(sde.eps, dtype=torch.float64))) ** 2
    x = walk(LangevinDynamics(steps=300, size=size, start=1.0), sde, GaussianScore(sde, 0.3, s), 40_000, sde.prior_std)
    expected = v / (1 - size / (2 * v))
    assert float(x.mean()) == pytest.approx(0.3, abs=5 * math.sqrt(expected / 40_000))
    assert float(x.var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / 40_000))


def test_it_walks_at_the_level_that_is_asked_for(sde):
    """At sigma/alpha = k the limit is N(m, s^2 + k^2), in the units of the data."""
    sampler = LangevinDynamics(steps=400, size=0.005, noise_to_signal=0.6, start=1.0)
    x = walk(sampler, sde, GaussianScore(sde, 0.3, 0.5), 4000, sde.prior_std)
    assert float(x.var()) == pytest.approx(0.25 + 0.36, rel=0.12)
    with pytest.raises(ValueError, match=r"sampler.noise_to_signal=1000000000.0 lies outside the SDE's levels"):
        LangevinDynamics(noise_to_signal=1e9)(sde, GaussianScore(sde), torch.zeros(1, 1), torch.randn_like)


def test_it_does_not_find_the_weights_of_modes_that_are_far_apart():
    """From a symmetric start half of the walkers end in each mode, whatever the weights: the slow mixing of arXiv
    1907.05600, section 3.2.2.
    """
    components = torch.tensor([0.2, 0.8]), torch.tensor([[-3.0, 0.0], [3.0, 0.0]]), torch.tensor([0.5, 0.5])
    sde = VE(sigma_max=10.0)
    oracle, start = Oracle(sde, components), sde.prior_std * torch.randn(4000, 2)
    plain = LangevinDynamics(steps=500, size=0.02)(sde, oracle, start, torch.randn_like)
    assert float((plain[:, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.04)
    annealed = AnnealedLangevin(levels=20, count=30, size=0.1)(sde, oracle, start, torch.randn_like)
    assert float((annealed[:, 0] > 0).double().mean()) == pytest.approx(0.8, abs=0.04)


# Annealed


@pytest.mark.parametrize("largest, levels, published", [(50.0, 232, 6.2e-6), (90.0, 500, 3.3e-6)])
def test_the_published_rule_gives_the_published_steps(largest, levels, published):
    """CIFAR-10 and CelebA, with sigma_L = 0.01 and 5 steps a level (arXiv 2006.09011, appendix B)."""
    r = AnnealedLangevin(levels, 5).relative_size(largest / 0.01)
    assert r * 0.01**2 == pytest.approx(published, rel=0.02)


def test_the_recursion_of_the_rule():
    """On data of no extent the variance after a level's steps is the formula's."""
    gamma, r, count = 1.3, 0.1, 7
    variance, limit = gamma**2, 2 / (2 - r)
    for _ in range(count):  # x <- x + e s + sqrt(2 e) z with s = -x/k^2, e = r k^2, k = 1
        variance = (1 - r) ** 2 * variance + 2 * r
    assert variance == pytest.approx((1 - r) ** (2 * count) * (gamma**2 - limit) + limit, rel=1e-12)


def test_the_ladder_and_its_steps(sde):
    """L levels of one ratio, both ends included; epsilon_i in proportion to sigma_i^2, in the units of x."""
    t, sizes = (torch.tensor(each, dtype=torch.float64) for each in AnnealedLangevin(10, 100, size=0.1).ladder(sde))
    k = torch.exp(-sde.half_log_snr(t))
    assert float(t[0]) == sde.T and float(t[-1]) == sde.eps and len(t) == 10
    torch.testing.assert_close(k.log().diff(), k.log().diff().mean().expand(9), rtol=1e-6, atol=0)
    torch.testing.assert_close(sizes, 0.1 * sde.sigma(t) ** 2, rtol=1e-9, atol=0)


def test_first_published_settings():
    """epsilon = 2e-5 at sigma = 0.01, half of which is the step: 10 levels of 100 (arXiv 1907.05600, section 5)."""
    sampler, sde = make_sampler("ald_ncsn"), VE(sigma_min=0.01, sigma_max=1.0, eps=1e-9)
    _, sizes = sampler.ladder(sde)
    assert (sampler.levels, sampler.count) == (10, 100) and sizes[-1] == pytest.approx(2e-5 / 2, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_is_the_same_walk_under_every_sde(shape):
    """VE and VP over the same levels sigma/alpha, from the same noise: x/alpha agree to rounding."""
    first, second = VE(sigma_min=0.02, sigma_max=20.0, eps=1e-9), VP()
    low, high = 0.05, 15.0
    times = [[float(sde.time(-torch.tensor(k).double().log())) for k in (low, high)] for sde in (first, second)]
    pair = [VE(0.02, 20.0, T=1.0, eps=times[0][0]), VP(eps=times[1][0])]
    ends = []
    for sde, (_, T) in zip(pair, times, strict=True):
        torch.manual_seed(3)
        sde = Cut(sde, T)
        start = torch.randn(3, *shape, dtype=torch.float64) * float(sde.sigma(torch.tensor(T, dtype=torch.float64)))
        start = start / float(sde.alpha(torch.tensor(T, dtype=torch.float64)))
        alpha_T, alpha = (float(sde.alpha(torch.tensor(t, dtype=torch.float64))) for t in (T, sde.eps))
        x = AnnealedLangevin(5, 4, size=0.1)(sde, GaussianScore(sde, 0.3, 0.5), alpha_T * start, torch.randn_like)
        ends.append(x / alpha)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-9)


class Cut:
    """An SDE that ends at another T."""

    def __init__(self, sde, T: float):
        self.sde, self.T = sde, T

    def ends(self):
        return SDE.ends(self)

    def __getattr__(self, name: str):
        return getattr(self.sde, name)


def test_the_film_shows_every_level():
    sde, film = VE(), Film(rows=2, frames=11)
    x = AnnealedLangevin(10, 3)(sde, GaussianScore(sde), 50 * torch.randn(4, 2), torch.randn_like, film=film)
    assert len(film.times) == 11 and film.times[0] == film.times[1] == sde.T
    assert torch.equal(film.states[-1], x[:2])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: LangevinDynamics(steps=0), "`steps`=0 must be at least 1"),
        (lambda: LangevinDynamics(size=-1.0), "`size`=-1.0 must be positive"),
        (lambda: LangevinDynamics(start=0.0), "`start`=0.0 must be positive"),
        (lambda: AnnealedLangevin(levels=1), "`levels`=1 must be at least 2"),
        (lambda: AnnealedLangevin(count=0), "`count`=0 must be at least 1"),
        (lambda: AnnealedLangevin(size=1.5), "`size`=1.5 must lie between 0 and 1"),
    ],
)
def test_bad_values_name_the_key(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
