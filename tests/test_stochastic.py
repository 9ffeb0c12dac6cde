"""Heun with churn, Restart, the solvers for additive noise and the adaptive one: their orders and their exact laws."""

import inspect
import math
from functools import cache

import pytest
import torch
from torch import Tensor

from scoresde.models import EDM, MLP, Oracle, ScoreModel
from scoresde.samplers import (
    SEA,
    AdaptiveSDE,
    Centred,
    Film,
    Heun,
    Karras,
    LogSNR,
    PredictorCorrector,
    ProbabilityFlow,
    Restart,
    ShARK,
    adaptive,
)
from scoresde.sde_lib import SDE, Counted, affine

from .conftest import GaussianScore, draw_mixture, in_turn, make, make_sde, mixture
from .test_samplers import check_mixture, law, relative_errors, run_in_batches

THREE = ["ve", "vp", "subvp"]
CHURNED = Heun(churn=30.0, churn_min=0.05, churn_max=50.0)


def double(value) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def ratio(sde: SDE, t) -> Tensor:
    t = torch.as_tensor(t, dtype=torch.float64)
    return sde.sigma(t) / sde.alpha(t)


def slope(errors: dict[int, float]) -> float:
    """The order of convergence: minus the slope of log error over log steps, by least squares."""
    n, e = (torch.tensor(list(v), dtype=torch.float64).log() for v in (errors.keys(), errors.values()))
    n, e = n - n.mean(), e - e.mean()
    return float(-(n * e).sum() / (n * n).sum())


def smooth_mixture() -> tuple[Tensor, Tensor, Tensor]:
    """Three modes that overlap: no ridge between them from which a path could fall to either side."""
    weights, means, _ = mixture((2,))
    return weights, 0.6 * means, double([0.6, 0.5, 0.7])


def draws_of_prior(sde: SDE, components, count: int) -> Tensor:
    """Exact draws of p_T."""
    noise = torch.randn(count, components[1].shape[1], dtype=torch.float64)
    return sde.perturb(draw_mixture(components, count, noise.shape[1:]), double([sde.T]).expand(count), noise)


# --- Heun -------------------------------------------------------------------------------------------------------------


@cache
def flow(name: str) -> tuple[SDE, Oracle, Tensor, Tensor]:
    """An SDE, the score of a mixture, 64 draws of p_T and where the probability flow takes them."""
    torch.manual_seed(0)
    sde, components = make_sde(name), mixture((2,))
    score, x = Oracle(sde, components), draws_of_prior(sde, components, 64)
    return sde, score, x, ProbabilityFlow(rtol=1e-10, atol=1e-10, last="none")(sde, score, x, torch.randn_like)


@pytest.mark.parametrize("grid", [Karras(), LogSNR()])
@pytest.mark.parametrize("name", THREE)
def test_heun_is_of_order_two(name, grid):
    """Step halving converges to the probability flow; the median, since a sample on a ridge may fall to either side."""
    sde, score, x, exact = flow(name)
    errors = {}
    for n in (40, 80, 160, 320):
        found = PredictorCorrector(grid, n, Heun(), last="none")(sde, score, x, torch.randn_like)
        errors[n] = float((found - exact).norm(dim=1).median())
    assert 1.8 < slope(errors) < 2.5 and errors[320] < 2e-3


def test_heun_by_hand(sde):
    """EDM's algorithm 2, written in y = x/alpha and kappa with the denoised D, one churned step."""
    score, grid, N = Oracle(sde, mixture((2,))), Karras()(sde, 12), 12
    step = Heun(churn=2.0, churn_min=0.01, noise=1.01)
    n = 6
    t, s = grid[n], grid[n + 1]
    x, z = 0.8 * torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    row = step.prepare(sde, grid)[n]
    found, mean, _ = step(row, affine(score, []), x, [z], None)

    def denoise(y: Tensor, kappa: Tensor) -> Tensor:
        time = sde.time(-kappa.log())
        alpha, sigma = sde.alpha(time), sde.sigma(time)
        return (alpha * y + sigma**2 * score(alpha * y, time.expand(len(y)))) / alpha

    kappa, low = ratio(sde, t), ratio(sde, s)
    up = kappa * (1 + min(2.0 / N, math.sqrt(2) - 1))
    y = x / sde.alpha(t) + 1.01 * (up**2 - kappa**2).sqrt() * z
    d = (y - denoise(y, up)) / up
    trial = y + (low - up) * d
    y = y + (low - up) / 2 * (d + (trial - denoise(trial, low)) / low)
    torch.testing.assert_close(found, sde.alpha(s) * y, rtol=1e-6, atol=1e-8)
    assert torch.equal(found, mean) and step.draws(row) == 1


def test_churn_keeps_to_its_levels(sde):
    """Between churn_min and churn_max by at most sqrt(2), never above T; what is not churned draws no noise."""
    grid = Karras()(sde, 30)
    kappa, step = ratio(sde, grid), Heun(churn=1000.0, churn_min=0.1, churn_max=5.0)
    for n, (a, b, (start, *_)) in enumerate(step.prepare(sde, grid)):
        inside = 0.1 <= float(kappa[n]) <= 5.0
        assert step.draws((a, b, None)) == inside and (start in step.times(sde, grid))
        assert float(ratio(sde, start) / kappa[n]) == pytest.approx(2**0.5 if inside else 1.0, rel=1e-6)
    free = Heun(churn=1000.0)
    starts = free.starts(sde, grid)
    assert float(starts[0]) == sde.T and float(starts.max()) <= sde.T and bool((starts >= grid[:-1]).all())
    rows = free.prepare(sde, grid)
    assert [free.draws(row) for row in rows] == [0] + [1] * 29  # at T there is no way up
    assert all(Heun().draws(row) == 0 for row in Heun().prepare(sde, grid)) and Heun().normals == 0


@pytest.mark.parametrize("name", THREE)
def test_churn_has_the_law_of_the_reverse_process(name):
    """On a Gaussian: order two, the noise that is put back being exactly the noise that is taken off."""
    sde, errors = make_sde(name), {}
    for n in (80, 160, 320):
        sampler = PredictorCorrector(Karras(), n, CHURNED, last="none")
        errors[n] = sum(map(abs, relative_errors(sde, sampler, GaussianScore(sde, 0.7, 0.5))))
    assert 1.7 < slope(errors) < 2.4 and errors[320] < 3e-3


def test_churn_noise_is_inflated():
    """S_noise = 1.1 leaves more variance than 1, by less than 1.1^2 of it and what it was."""
    sde = make_sde("vp")
    variance = {
        noise: relative_errors(
            sde, PredictorCorrector(Karras(), 200, Heun(churn=30.0, noise=noise), last="none"), GaussianScore(sde)
        )[1]
        for noise in (1.0, 1.1)
    }
    assert abs(variance[1.0]) < 0.01 and 1e-4 < variance[1.1] - variance[1.0] < 0.25


# --- Restart ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", THREE)
def test_restart_has_the_exact_law(name):
    """On a Gaussian, as the grid and the rounds are refined together: order two."""
    sde, errors = make_sde(name), {}
    for n in (60, 120, 240):
        step = Restart(intervals=((0.06, 0.3, 3, n // 10), (0.5, 2.0, 2, n // 10)))
        sampler = PredictorCorrector(Karras(), n, step, last="none")
        errors[n] = sum(map(abs, relative_errors(sde, sampler, GaussianScore(sde, 0.7, 0.5))))
    assert 1.7 < slope(errors) < 2.4 and errors[240] < 3e-3


@pytest.mark.parametrize("name", THREE)
def test_restart_converges_in_the_grids_steps(name):
    """The yaml's own rounds, of as many steps as the grid takes between their levels: order two in N alone, with no
    floor left; four steps a round, as published, stop at 1.7 % of the std.
    """
    sde, made, errors = make_sde(name), make("sampler.predictor", "sampler=restart"), {}
    score = GaussianScore(sde, 0.7, 0.05)
    for n in (60, 120, 240, 480):
        errors[n] = sum(map(abs, relative_errors(sde, PredictorCorrector(Centred(), n, made, last="none"), score)))
    assert 1.7 < slope(errors) < 2.5 and errors[480] < 4e-4
    fixed = Restart(intervals=((0.06, 0.3, 2, 4),))
    _, variance = relative_errors(sde, PredictorCorrector(Centred(), 480, fixed, last="none"), score)
    assert variance > 0.03


def test_restart_forgets(sde):
    """A start whose variance is 1 % of the right one: rounds bring the law back that Heun alone has lost."""
    score = GaussianScore(sde, 0.0, 0.5)
    variance = float(score.moments(sde.T)[1])

    def lost(step) -> float:
        sampler = PredictorCorrector(LogSNR(), 60, step, last="none")
        return law(sde, sampler, score, 0.0, 0.01 * variance)[1] / float(score.moments(sde.eps)[1])

    high = 0.9 * float(ratio(sde, sde.T))
    assert lost(Heun()) < 0.05
    assert 0.8 < lost(Restart(intervals=((0.1, min(high, 5.0), 8, 40),))) < 1.2


def test_rounds_go_up_and_come_back(sde):
    """K fresh normals after the first step that ends at or below kappa_min; up to kappa_max, back to that very time."""
    grid, step = Karras()(sde, 18), Restart(intervals=((0.06, 0.3, 3, 5), (0.5, 0.9, 2, 4)))
    kappa, rows = ratio(sde, grid), step.prepare(sde, grid)
    assert sum(step.draws(row) for row in rows) == 5
    for low, high, count, steps in step.intervals:
        end = next(n for n in range(1, 19) if float(kappa[n]) <= low)
        down, rounds = rows[end - 1]
        assert len(rounds) == 1 and rounds[0][0] == count and len(rounds[0][3]) == steps
        times = [row[0] for row in rounds[0][3]] + [rounds[0][3][-1][1]]
        assert times[-1] == float(grid[end]) == down[1] and set(times) <= set(step.times(sde, grid))
        found = ratio(sde, times)
        assert float(found[0]) == pytest.approx(high, rel=1e-6)
        gaps = (found ** (1 / 7)).diff()
        torch.testing.assert_close(gaps, gaps.mean().expand(steps), rtol=1e-4, atol=1e-8)
        a, b = rounds[0][1:3]
        y_variance = (b / float(sde.alpha(double(times[0])))) ** 2
        assert y_variance == pytest.approx(high**2 - float(kappa[end]) ** 2, rel=1e-6)
        assert a == pytest.approx(float(sde.alpha(double(times[0])) / sde.alpha(grid[end])), rel=1e-9)


@pytest.mark.parametrize("low, high", [(1e-9, 0.3), (0.06, 1e9)])
def test_restart_beyond_the_way_is_refused(low, high):
    sde = make_sde("vp")
    with pytest.raises(ValueError, match="is not within the sampler's way"):
        Restart(intervals=((low, high, 1, 2),)).prepare(sde, Karras()(sde, 18))


@pytest.mark.parametrize("predictor", [CHURNED, Restart(), SEA(), ShARK(), SEA(eta=0.5), ShARK(eta=0.5)], ids=repr)
@pytest.mark.parametrize("name", THREE)
def test_draws_of_a_mixture(name, predictor):
    sde, components = make_sde(name), mixture((2,))
    start = draws_of_prior(sde, components, 4000)
    sampler = PredictorCorrector(Karras(), 100, predictor)
    x = sampler(sde, Oracle(sde, components).float(), start.float(), torch.randn_like)
    assert x.dtype == torch.float32
    check_mixture(x, components, 0.02, 0.05, 0.1)


# --- additive noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [SEA, ShARK])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sigma_data", [0.4, 1.0])
def test_steps_are_exact_on_the_gaussian_of_their_linear_part(sde, step, eta, sigma_data):
    """N(0, sigma_data^2), for every eta and however few the steps."""
    sampler = PredictorCorrector(Karras(), 3, step(eta, sigma_data), last="none")
    mean, variance = relative_errors(sde, sampler, GaussianScore(sde, 0.0, sigma_data))
    assert abs(mean) < 1e-9 and abs(variance) < 1e-7


@pytest.mark.parametrize("step", [SEA, ShARK])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_constant_remainder_is_integrated_exactly(sde, step, eta):
    """N(m, sigma_data^2) has M = m, whatever x: the mean comes out exactly, too."""
    sampler = PredictorCorrector(Karras(), 3, step(eta, 1.0), last="none")
    mean, variance = relative_errors(sde, sampler, GaussianScore(sde, 0.7, 1.0))
    assert abs(mean) < 1e-9 and abs(variance) < 1e-7


@pytest.mark.parametrize("step, eta, order", [(SEA, 1.0, 2), (SEA, 0.5, 1), (ShARK, 1.0, 2), (ShARK, 0.5, 2)])
@pytest.mark.parametrize("name", THREE)
def test_weak_order_on_a_gaussian(name, step, eta, order):
    """The errors of the mean and of the variance at eps fall with the weak order."""
    sde, errors = make_sde(name), {}
    for n in (80, 160, 320):
        sampler = PredictorCorrector(Karras(), n, step(eta), last="none")
        errors[n] = sum(map(abs, relative_errors(sde, sampler, GaussianScore(sde, 0.7, 0.5))))
    assert order - 0.2 < slope(errors) < order + 0.3


def coarser(h: Tensor, W: Tensor, H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The lengths, increments and Levy areas of pairs of steps: the area under the path is the sum of both halves'."""
    (h1, h2), (W1, W2), (H1, H2) = ((v[0::2], v[1::2]) for v in (h, W, H))
    h, W = h1 + h2, W1 + W2
    return h, W, (h1 * (W1 / 2 + H1) + h2 * (W1 + W2 / 2 + H2)) / h - W / 2


def strong_errors(name: str, step, eta: float, finest: int = 1024, count: int = 400) -> dict[int, float]:
    """E|x_N - x| at eps over common Brownian paths; x is ShARK's with the finest steps."""
    torch.manual_seed(0)
    sde, components = make_sde(name), smooth_mixture()
    score, start = affine(Oracle(sde, components), []), draws_of_prior(sde, components, count)
    grid = Karras()(sde, finest)
    V = ratio(sde, grid) ** 2 + 1
    h = (V ** (-(eta**2)) / eta**2).diff()[:, None, None]
    W = torch.randn(finest, count, 2, dtype=torch.float64) * h.sqrt()
    H = torch.randn(finest, count, 2, dtype=torch.float64) * (h / 12).sqrt()

    def solve(step) -> Tensor:
        x = start
        for row, h_n, W_n, H_n in zip(step.prepare(sde, grid), h, W, H, strict=True):
            x, _, _ = step(row, score, x, [W_n / h_n.sqrt(), H_n * (12 / h_n).sqrt()], None)
        return x

    exact, errors = solve(ShARK(eta)), {}
    while len(h) > 32:
        grid, (h, W, H) = grid[::2], coarser(h, W, H)
        if len(h) <= 256:
            errors[len(h)] = float((solve(step) - exact).norm(dim=1).mean())
    return errors


@pytest.mark.parametrize("name, eta", in_turn(THREE, [0.5, 1.0]))
def test_strong_orders(name, eta):
    """SEA 1, ShARK 3/2, on a mixture; ShARK's errors are the smaller ones."""
    sea, shark = strong_errors(name, SEA(eta), eta), strong_errors(name, ShARK(eta), eta)
    assert 0.85 < slope(sea) < 1.3
    assert slope(shark) > 1.4
    assert all(shark[n] < 0.7 * sea[n] for n in sea)


def test_sea_by_hand(sde):
    """Equation 5.8 in v and the clock r, at eta = 0.7."""
    eta, q, c = 0.7, 0.8, (1 + 0.49) / 2
    score, grid, step = Oracle(sde, mixture((2,))), Karras()(sde, 12), SEA(0.7, 0.8)
    t, s = grid[5], grid[6]
    x, z = torch.randn(4, 2, dtype=torch.float64), [torch.randn(4, 2, dtype=torch.float64) for _ in range(2)]
    found, mean, _ = step(step.prepare(sde, grid)[5], affine(score, []), x, z, None)
    V_t, V_s = ratio(sde, t) ** 2 + q**2, ratio(sde, s) ** 2 + q**2
    h = (V_s ** -(eta**2) - V_t ** -(eta**2)) / eta**2
    W, H = h.sqrt() * z[0], (h / 12).sqrt() * z[1]
    v = V_t**-c * x / sde.alpha(t)
    shifted = sde.alpha(t) * V_t**c * (v + eta * (W / 2 + H))
    M = shifted / sde.alpha(t) + sde.alpha(t) * V_t * score(shifted, t.expand(4))
    v = v + (V_s**-c - V_t**-c) * M
    torch.testing.assert_close(mean, sde.alpha(s) * V_s**c * v, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found, sde.alpha(s) * V_s**c * (v + eta * W), rtol=1e-8, atol=1e-8)


def test_shark_by_hand(sde):
    """Equation 6.1 in v and the clock r = 1/V, at eta = 1."""
    q = 0.8
    score, grid, step = Oracle(sde, mixture((2,))), Karras()(sde, 12), ShARK(1.0, 0.8)
    t, s = grid[5], grid[6]
    x, z = torch.randn(4, 2, dtype=torch.float64), [torch.randn(4, 2, dtype=torch.float64) for _ in range(2)]
    row = step.prepare(sde, grid)[5]
    found, mean, _ = step(row, affine(score, []), x, z, None)
    r_t, r_s = (1 / (ratio(sde, each) ** 2 + q**2) for each in (t, s))
    h = r_s - r_t
    W, H = h.sqrt() * z[0], (h / 12).sqrt() * z[1]

    def f(v: Tensor, r: Tensor) -> Tensor:
        time = sde.time(-0.5 * torch.log(1 / r - q**2))
        y = v / r
        return y + sde.alpha(time) / r * score(sde.alpha(time) * y, time.expand(4))

    v = r_t * x / sde.alpha(t)
    first = f(v + H, r_t)
    second = f(v + 5 / 6 * (h * first + W) + H, r_t + 5 / 6 * h)
    end = v + h * (0.4 * first + 0.6 * second)
    torch.testing.assert_close(mean, sde.alpha(s) / r_s * end, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found, sde.alpha(s) / r_s * (end + W), rtol=1e-6, atol=1e-7)
    assert row[5] in step.times(sde, grid)


# --- the adaptive solver ----------------------------------------------------------------------------------------------


def line(d: int) -> tuple[Tensor, Tensor, Tensor]:
    """A mixture in d dimensions whose modes lie along the diagonal, at the same distances for every d."""
    weights, _, stds = mixture((2,))
    return weights, double([-1.2, 1.2, 0.3])[:, None].expand(3, d) / math.sqrt(d), stds


def distance(x: Tensor, sde: SDE, components) -> float:
    """The 1-D Wasserstein distance along the diagonal between x and the exact p_eps, by its quantiles."""
    weights, means, stds = components
    d, eps = means.shape[1], double(sde.eps)
    alpha, sigma = sde.alpha(eps), sde.sigma(eps)
    found = (x.sum(1) / math.sqrt(d)).sort().values
    centres, widths = alpha * means[:, 0] * math.sqrt(d), (alpha**2 * stds**2 + sigma**2).sqrt()
    points = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    cumulative = (weights * torch.special.ndtr((points[:, None] - centres) / widths)).sum(1)
    shares = (torch.arange(len(x), dtype=torch.float64) + 0.5) / len(x)
    exact = points[torch.searchsorted(cumulative, shares).clamp_max(8000)]
    return float((found - exact).abs().mean())


def distance_at(name: str, d: int, tolerance: float, count: int) -> float:
    torch.manual_seed(1)
    sde, components = make_sde(name), line(d)
    start = draws_of_prior(sde, components, count)
    sampler = AdaptiveSDE(rtol=tolerance, atol=0.39 * tolerance, last="none")
    return distance(sampler(sde, Oracle(sde, components), start, torch.randn_like), sde, components)


COUNTS = {1: 8000, 2: 8000, 8: 4000, 64: 1000}
FLOOR = 3.0  # of 1/sqrt(count): what the shares of the modes, drawn at random, leave


@pytest.mark.parametrize("d", [1, 2, 8, 64])
def test_distance_falls_with_the_tolerance(d):
    """The distance falls to the sampling floor, in few dimensions as in many."""
    coarse, fine = (distance_at("vp", d, tolerance, COUNTS[d]) for tolerance in (0.5, 0.02))
    floor = FLOOR / math.sqrt(COUNTS[d])
    assert fine < floor and coarse > 1.5 * fine


def test_fresh_noise_after_a_rejection_would_be_seen(monkeypatch):
    """The published algorithm's bias: with rejected increments forgotten, no tolerance brings the distance down."""
    monkeypatch.setattr(adaptive.NoiseStack, "put_back", lambda *_: None)
    assert all(distance_at("vp", 1, tolerance, 8000) > 1.3 * FLOOR / math.sqrt(8000) for tolerance in (0.05, 0.02))


def walk(memory: adaptive.NoiseStack, count: int, reject) -> tuple[Tensor, Tensor]:
    """Brownian motions on [1, 0] in steps of random size, rejected by a rule that looks at their noise: W(0) and how
    often a sample was rejected.
    """
    t, total, rejections = torch.ones(count, dtype=torch.float64), torch.zeros(count, 1).double(), torch.zeros(count)
    h = torch.full_like(t, 0.3)
    while bool((t > 0).any()):
        limit = memory.end(0.0)
        s = torch.maximum(t - h, limit)
        share = torch.where(s > limit, (t - s) / (t - limit), 1.0)
        z = torch.randn(count, 1, dtype=torch.float64)
        increment = memory.take(share, t - s, z)
        rejected = reject(increment[:, 0], t - s) & (t - s > 1e-2)
        memory.put_back(rejected, s, increment)
        t, total = torch.where(rejected, t, s), torch.where(rejected[:, None], total, total + increment)
        h = torch.where(rejected, 0.4 * (t - s).where(rejected, h), (1.7 * h).clamp_max(0.3)).clamp_min(5e-3)
        h = h * (0.5 + torch.rand(count, dtype=torch.float64))
        rejections += rejected
    return total[:, 0], rejections


def large(increment: Tensor, span: Tensor) -> Tensor:
    """Large steps up, and long ones whatever they are: as an error would have it."""
    return (increment > 0.5 * span.sqrt()) | (increment.abs() > 0.3)


def test_rejections_leave_brownian_motion_alone():
    """After many rejections that look at the noise, W is still N(0, t): its mean, its variance and its tails."""
    count = 20_000
    total, rejections = walk(
        adaptive.NoiseStack(torch.zeros(count, 1, dtype=torch.float64), torch.float64), count, large
    )
    assert float(rejections.mean()) > 5
    assert abs(float(total.mean())) < 4 / math.sqrt(count)
    assert abs(float(total.var()) - 1) < 4 * math.sqrt(2 / count)
    shares = (torch.arange(count) + 0.5) / count
    assert float((torch.special.ndtr(total.sort().values) - shares).abs().max()) < 1.95 / math.sqrt(count)


def test_forgotten_rejections_would_be_seen(monkeypatch):
    monkeypatch.setattr(adaptive.NoiseStack, "put_back", lambda *_: None)
    count = 4000
    total, _ = walk(adaptive.NoiseStack(torch.zeros(count, 1, dtype=torch.float64), torch.float64), count, large)
    assert abs(float(total.mean())) > 10 / math.sqrt(count)


def test_bridges_by_hand():
    """A rejected increment comes back in pieces that add up to it, each from the Brownian bridge."""
    memory = adaptive.NoiseStack(torch.zeros(50_000, 1, dtype=torch.float64), torch.float64)
    ones = torch.ones(50_000, dtype=torch.float64)
    z = torch.randn(4, 50_000, 1, dtype=torch.float64)
    whole = memory.take(ones, 0.8 * ones, z[0])
    torch.testing.assert_close(whole, math.sqrt(0.8) * z[0])
    memory.put_back(ones > 0, 0.2 * ones, whole)
    assert bool((memory.end(0.0) == 0.2).all())
    part = memory.take(0.25 * ones, 0.2 * ones, z[1])
    torch.testing.assert_close(part, 0.25 * whole + math.sqrt(0.2 * 0.6 / 0.8) * z[1])
    memory.put_back(ones > 0, 0.8 * ones, part)
    torch.testing.assert_close(memory.take(ones, 0.2 * ones, z[2]), part)
    assert bool((memory.end(0.0) == 0.2).all())
    torch.testing.assert_close(memory.take(ones, 0.6 * ones, z[3]), whole - part)
    assert not bool(memory.filled.any())


def test_the_adaptive_solver_is_exact_on_its_gaussian(sde, shape, dtype):
    """Data N(0, sigma_data^2) have no error at all: every sample is a scaled sum of its noise, of p_eps's variance."""
    sampler, score = AdaptiveSDE(sigma_data=0.5, last="none"), GaussianScore(sde, 0.0, 0.5)
    start, end = (float(score.moments(t)[1]) ** 0.5 for t in (sde.T, sde.eps))
    counted = Counted(score)
    x = sampler(sde, counted, start * torch.randn(400, *shape, dtype=dtype), torch.randn_like)
    assert x.dtype == dtype and x.shape == (400, *shape)
    assert abs(float(x.double().square().mean()) / end**2 - 1) < 4.5 * math.sqrt(2 / x.numel())
    assert counted.evaluations / 400 < 25


@pytest.mark.parametrize("batch", [1, 7])
def test_paths_do_not_depend_on_batch_mates(shape, batch):
    sde = make_sde("vp")
    oracle = Oracle(sde, mixture(shape))
    whole = run_in_batches(sde, AdaptiveSDE(), oracle, shape, 20, 20)
    parts = run_in_batches(sde, AdaptiveSDE(), oracle, shape, 20, batch)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_samples_take_their_own_steps_and_leave():
    """Fewer rows are evaluated than the slowest sample times the batch; times lie within [eps, T]."""
    sde, components = make_sde("vp"), mixture((2,))
    oracle, seen = Oracle(sde, components), []

    def score(x, t):
        assert t.shape == x.shape[:1] and float(t.min()) >= sde.eps * (1 - 1e-6) and float(t.max()) <= sde.T
        seen.append(len(x))
        return oracle(x, t)

    AdaptiveSDE(last="none")(sde, score, torch.randn(64, 2, dtype=torch.float64), torch.randn_like)
    assert seen[0] == 64 and min(seen) < 16 and sum(seen) < 0.8 * 64 * len(seen)


def test_one_normal_a_round_of_the_whole_batch():
    sde, shapes = make_sde("vp"), []

    def randn_like(x):
        shapes.append(tuple(x.shape))
        return torch.randn_like(x)

    start = torch.randn(9, 3, 4, 2)
    kept = start.clone()
    AdaptiveSDE()(sde, GaussianScore(sde, 0.3, 0.8), start, randn_like)
    assert set(shapes) == {(9, 3, 4, 2)} and torch.equal(start, kept)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_no_step_small_enough_is_an_error(wrong):
    """The score breaks at t = 0.5: the message names the sample, the time and what to type."""
    sde = make_sde("vp")

    def score(x, t):
        return torch.where((t < 0.5)[:, None], wrong, -x)

    with pytest.raises(FloatingPointError, match=r"sample \d+: at t=0\.5.*sampler\.rtol"):
        AdaptiveSDE()(sde, score, torch.randn(6, 2), torch.randn_like)


def test_the_film_lies_on_the_path(sde):
    """Its states have the marginals' size on the way: a Gaussian's std at each of its times."""
    score, film = GaussianScore(sde, 0.0, 1.0), Film(rows=3000, frames=6)
    start = float(score.moments(sde.T)[1]) ** 0.5 * torch.randn(3000, 2, dtype=torch.float64)
    AdaptiveSDE(rtol=0.01, atol=0.01, sigma_data=0.5, last="none")(sde, score, start, torch.randn_like, film=film)
    for t, state in zip(film.times, film.states, strict=True):
        std = float(score.moments(t)[1]) ** 0.5
        assert float(state.square().mean().sqrt()) == pytest.approx(std, rel=0.1)


# --- the loop, networks, errors ---------------------------------------------------------------------------------------

STEPS = [Heun(), CHURNED, Restart(), SEA(), ShARK(), SEA(eta=0.0), ShARK(eta=0.0)]


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_any_shape_and_precision(step, shape, dtype):
    """Each coordinate of a Gaussian gets what a lone number gets, and the input is left alone."""
    sde = make_sde("subvp")
    score, sampler = GaussianScore(sde, 0.7, 0.5), PredictorCorrector(Karras(), 12, step)
    start = torch.randn(3, *shape, dtype=dtype)
    kept, noises = start.clone(), []

    def randn_like(x):
        noises.append(torch.randn_like(x))
        return noises[-1]

    x = sampler(sde, score, start, randn_like)
    assert x.shape == start.shape and x.dtype == dtype and torch.equal(start, kept)
    replay = iter(noises)
    lone = sampler(sde, score, start.reshape(-1, 1), lambda like: next(replay).reshape(-1, 1))
    torch.testing.assert_close(x.reshape(-1, 1), lone)


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_every_time_is_announced(step, sde):
    """A score model prepares its coefficients for all of them before the loop, and is asked for no other."""
    grid, asked = Karras()(sde, 12), set()
    known = set(step.times(sde, grid))
    oracle = affine(Oracle(sde, mixture((2,))), [])

    def evaluate(x, t, A=0.0, C=1.0):
        asked.add(t)
        return oracle(x, t, A, C)

    x = torch.randn(2, 2, dtype=torch.float64)
    for row in step.prepare(sde, grid):
        x, _, _ = step(row, evaluate, x, [torch.randn_like(x) for _ in range(step.draws(row))], None)
    assert asked <= known and all(sde.eps * (1 - 1e-9) <= t <= sde.T for t in known)


@pytest.mark.parametrize(
    "step, calls",
    [(Heun(), 30), (CHURNED, 30), (Restart(((0.06, 0.3, 3, 2),)), 42), (SEA(), 15), (ShARK(), 30)],
    ids=repr,
)
def test_number_of_evaluations(step, calls, shape):
    sde = make_sde("vp")
    counted = Counted(ScoreModel(sde, MLP(shape), EDM(1.0)) if len(shape) == 1 else GaussianScore(sde))
    PredictorCorrector(Karras(), 15, step, last="none")(sde, counted, torch.randn(2, *shape), torch.randn_like)
    assert counted.calls == calls


def test_a_network_and_its_plain_score_agree():
    """Coefficients folded into the network's, against A x + C score(x, t)."""
    torch.manual_seed(0)
    sde = make_sde("vp")
    model = ScoreModel(sde, MLP((2,)), EDM(1.0)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    start = torch.randn(5, 2, dtype=torch.float64)
    for step in STEPS:
        found = []
        for score in (model, lambda x, t: model(x, t)):
            torch.manual_seed(1)
            found.append(PredictorCorrector(Karras(), 10, step)(sde, score, start, torch.randn_like))
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Heun(churn=-1.0), "`churn`=-1.0"),
        (lambda: Heun(churn=math.nan), "`churn`=nan"),
        (lambda: Heun(churn_min=-1.0), "`churn_min`=-1.0"),
        (lambda: Heun(churn_min=2.0, churn_max=1.0), "`churn_max`=1.0"),
        (lambda: Heun(noise=0.0), "`noise`=0.0"),
        (lambda: Restart(noise=-1.0), "`noise`=-1.0"),
        (lambda: Restart(rho=0.0), "`rho`=0.0"),
        (lambda: Restart(intervals=((0.3, 0.06, 2, 2),)), "`intervals`"),
        (lambda: Restart(intervals=((0.06, 0.3, 0, 2),)), "`intervals`"),
        (lambda: Restart(intervals=((0.06, 0.3, 2, 0),)), "`intervals`"),
        (lambda: SEA(eta=-1.0), "`eta`=-1.0"),
        (lambda: SEA(eta=math.inf), "`eta`=inf must be at least 0 and finite"),
        (lambda: ShARK(sigma_data=math.inf), "`sigma_data`=inf must be at least 0 and finite"),
        (lambda: ShARK(sigma_data=math.nan), "`sigma_data`=nan"),
        (lambda: AdaptiveSDE(rtol=0.0), "`rtol`=0.0"),
        (lambda: AdaptiveSDE(atol=2.0), "`atol`=2.0"),
        (lambda: AdaptiveSDE(safety=1.0), "`safety`=1.0"),
        (lambda: AdaptiveSDE(exponent=0.0), "`exponent`=0.0"),
        (lambda: AdaptiveSDE(sigma_data=0.0), "`sigma_data`=0.0"),
    ],
)
def test_bad_arguments_name_the_key(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_intervals_on_the_command_line():
    step = make("sampler.predictor", "sampler=restart", "sampler.predictor.intervals=[[0.06,0.3,3,2],[1,2,1,4]]")
    assert [list(each) for each in step.intervals] == [[0.06, 0.3, 3, 2], [1, 2, 1, 4]]


def test_the_data_set_the_scale():
    """``sigma_data: auto`` takes the std of the data."""
    assert make("sampler.predictor", "sampler=sea").sigma_data == make("sampler", "sampler=adaptive").sigma_data == 1.0
    assert inspect.signature(SEA).parameters["sigma_data"].default == 1.0
