"""The multistep solvers: their orders on a mixture, the formulas that they contain, and small and large steps."""

import math
from decimal import Decimal, getcontext
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from scoresde.models import Oracle
from scoresde.samplers import (
    DEIS,
    AdamsBashforth,
    Ancestral,
    Angle,
    Centred,
    Exponential,
    Grid,
    Karras,
    LogSNR,
    PredictorCorrector,
    ProbabilityFlow,
    Quadratic,
    UniPC,
)
from scoresde.samplers.exponential import exponential_weights, moments
from scoresde.sde_lib import SDE, Counted, affine

from .conftest import GaussianScore, draw_mixture, in_turn, make_sde, mixture
from .test_samplers import relative_errors

THREE = ["ve", "vp", "subvp"]
SOLVERS = [Exponential(k) for k in (1, 2, 3)] + [UniPC(2), UniPC(3)] + [DEIS(k) for k in (1, 2, 3, 4)]
VELOCITY = [AdamsBashforth(k) for k in (1, 2, 3, 4)]


def double(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# --- orders of convergence --------------------------------------------------------------------------------------------


@cache
def flow(name: str) -> tuple[SDE, Oracle, Tensor, Tensor]:
    """An SDE, the score of a mixture, 64 draws of p_T, and where the probability flow takes them."""
    torch.manual_seed(0)
    sde, components = make_sde(name), mixture((2,))
    score = Oracle(sde, components)
    T = torch.full((64,), sde.T, dtype=torch.float64)
    x = sde.perturb(draw_mixture(components, 64, (2,)), T, torch.randn(64, 2, dtype=torch.float64))
    return sde, score, x, ProbabilityFlow(rtol=1e-12, atol=1e-12, last="none")(sde, score, x, torch.randn_like)


def error(name: str, predictor, steps: int, grid: Grid | None = None) -> float:
    """The median over samples: a sample on the ridge between two modes may fall to either side."""
    sde, score, x, exact = flow(name)
    found = PredictorCorrector(grid or LogSNR(), steps, predictor, last="none")(sde, score, x, torch.randn_like)
    return float((found - exact).norm(dim=1).median())


@pytest.mark.parametrize(
    "rule, name",
    in_turn(
        [
            (Exponential(1), 1),
            (Exponential(2), 2),
            (Exponential(3), 3),  # 2.0 without the second difference's factor 2
            (UniPC(2), 3),  # one more than the predictor's: the corrector's
            (UniPC(3), 4),
            (DEIS(1), 1),
            (DEIS(2), 2),
            (DEIS(3), 3),
            (DEIS(4), 4),  # 2.1 without the start's second look
            (AdamsBashforth(1), 1),
            (AdamsBashforth(2), 2),
            (AdamsBashforth(3), 3),
            (AdamsBashforth(4), 4),
        ],
        THREE,
    ),
    ids=str,
)
def test_orders_on_a_mixture(rule, name):
    predictor, order = rule
    coarse, fine = (error(name, predictor, steps) for steps in (640, 1280))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", THREE)
def test_what_a_higher_order_is_for(name):
    """With 80 steps each order beats the one below; with 10 the noise is a better thing to extrapolate than the
    data.
    """
    errors = [error(name, predictor, 80) for predictor in (Exponential(1), Exponential(2), Exponential(3), UniPC(3))]
    assert all(second < 0.75 * first for first, second in pairwise(errors))
    assert error(name, DEIS(3), 10) < 0.7 * error(name, Exponential(3), 10)


@pytest.mark.parametrize("name", THREE)
def test_what_the_velocity_is_for(name):
    """With 10 steps, dense where the modes part, it has less than half the error of the data's methods."""
    others = min(error(name, other, 10) for other in (Exponential(3), UniPC(3)))
    assert error(name, AdamsBashforth(3), 10, Centred(1.0)) < 0.5 * others


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("order, weak", [(1, 1), (2, 2), (3, 2)])
def test_weak_orders(sde, order, weak, eta):
    """The samples' variance; their mean is exact, since at a Gaussian's mean the denoised is the mean at all times."""
    score, errors = GaussianScore(sde, 0.7, 0.5), []
    for steps in (150, 300):
        mean, variance = relative_errors(
            sde, PredictorCorrector(LogSNR(), steps, Exponential(order, eta), last="none"), score
        )
        assert abs(mean) < 1e-11
        errors.append(abs(variance))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(weak, abs=0.25)
    assert errors[1] < (0.06 if weak == 1 else 1.5e-3)


# --- identities -------------------------------------------------------------------------------------------------------


def numbers(sde, t: float, s: float) -> tuple[Tensor, ...]:
    """alpha and sigma at t, at s, and the step in lambda."""
    t, s = double(t), double(s)
    return sde.alpha(t), sde.sigma(t), sde.alpha(s), sde.sigma(s), sde.half_log_snr(s) - sde.half_log_snr(t)


@pytest.mark.parametrize("grid", [LogSNR(), Karras(), Quadratic()], ids=str)
def test_first_order_with_all_the_noise_is_ancestral(sde, grid):
    times = grid(sde, 30)
    found = [(row.t, row.A, row.C, row.N) for row in Exponential(1, 1.0).prepare(sde, times)]
    torch.testing.assert_close(double(found), double(Ancestral().prepare(sde, times)), rtol=1e-9, atol=1e-14)


def test_first_order_without_noise_is_ddim(sde):
    """alpha_s x_0 + sigma_s e at the predicted x_0 and e = (x - alpha_t x_0)/sigma_t (arXiv 2010.02502, eq. 12), which
    both predictions give.
    """
    grid, x = Quadratic()(sde, 12), torch.randn(5, 2, dtype=torch.float64)
    score = Oracle(sde, mixture((2,)))
    for predictor in (Exponential(1), DEIS(1)):
        for row, (t, s) in zip(predictor.prepare(sde, grid), pairwise(grid.tolist()), strict=True):
            alpha_t, sigma_t, alpha_s, sigma_s, _ = numbers(sde, t, s)
            x_0 = sde.denoise(score, x, torch.full((5,), t, dtype=torch.float64))
            expected = alpha_s * x_0 + sigma_s * (x - alpha_t * x_0) / sigma_t
            found, mean, _ = predictor(row, affine(score, []), x, [], None)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
            assert torch.equal(found, mean)


def published(sde, times, x, D: list[Tensor], eta: float) -> Tensor:
    """DPM-Solver++ and SDE-DPM-Solver++ as printed: the last step of a run, from the denoised values D, the newest
    first; ``times`` fall, s the last of them.
    """
    t, s = times[-2:]
    alpha_t, sigma_t, alpha_s, sigma_s, h = numbers(sde, t, s)
    H = (1 + eta**2) * h
    phi_1 = -torch.expm1(-H)
    mean = sigma_s / sigma_t * torch.exp(-(eta**2) * h) * x + alpha_s * phi_1 * D[0]
    if len(D) == 1:
        return mean
    steps = [numbers(sde, times[i], times[i + 1])[-1] for i in range(len(times) - 1)][::-1]
    r_0 = steps[1] / h
    first = (D[0] - D[1]) / r_0
    if len(D) == 2:
        return mean + alpha_s * phi_1 / 2 * first
    r_1 = steps[2] / h
    second = (D[1] - D[2]) / r_1
    slope, curvature = first + r_0 / (r_0 + r_1) * (first - second), (first - second) / (r_0 + r_1)
    phi_2 = 1 - phi_1 / H
    phi_3 = phi_2 / H - 0.5
    return mean + alpha_s * (phi_2 * slope - 2 * phi_3 * curvature)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_exponential_is_as_published(sde, order, eta):
    """The means of DPM-Solver++ 2M and 3M (with the factor 2) and of SDE-DPM-Solver++ 2M, on a grid of unequal steps;
    the noise is that of the family.
    """
    predictor, grid = Exponential(order, eta), Karras(3.0)(sde, 9)
    rows, n = predictor.prepare(sde, grid), 5
    x, *D = torch.randn(1 + order, 4, 2, dtype=torch.float64)
    alpha_t, sigma_t, _, sigma_s, h = numbers(sde, float(grid[n]), float(grid[n + 1]))

    def score(x, t, A, C):  # the newest denoised value is D[0]
        return A * x + C * (alpha_t * D[0] - x) / sigma_t**2

    z = [torch.randn_like(x)] if eta else []
    found, mean, _ = predictor(rows[n], score, x, z, tuple(D[1:]) or None)
    torch.testing.assert_close(mean, published(sde, grid[: n + 2].tolist(), x, D, eta), rtol=1e-8, atol=1e-10)
    if eta:
        N = sigma_s * (1 - torch.exp(-2 * eta**2 * h)).sqrt()
        torch.testing.assert_close(found - mean, N * z[0], rtol=1e-9, atol=1e-12)


def published_unipc(sde, score, x: Tensor, grid: list[float], p: int) -> Tensor:
    """UniPC as printed (arXiv 2302.04867, data prediction): a linear system for the predictor, another for the
    corrector, x corrected before it goes on.
    """

    def combine(x, t, s, others, values, D, order):
        """A step t -> s; others are the times of values, beside D at t."""
        alpha_t, sigma_t, alpha_s, sigma_s, h = numbers(sde, t, s)
        B = torch.expm1(-h)
        r = double([float(numbers(sde, t, other)[-1] / h) for other in others])
        base = sigma_s / sigma_t * x - alpha_s * B * D
        if not others:
            return base
        R, b, psi = [], [], torch.expm1(-h) / -h - 1
        for k in range(1, order + 1):
            R.append(r ** (k - 1))
            b.append(psi * math.factorial(k) / B)
            psi = psi / -h - 1 / math.factorial(k + 1)
        rho = double([0.5]) if order == 1 else torch.linalg.solve(torch.stack(R), torch.stack(b))
        return base - alpha_s * B * sum(
            weight * (value - D) / ratio for weight, value, ratio in zip(rho, values, r, strict=True)
        )

    def denoised(x, t):
        return sde.denoise(score, x, torch.full((len(x),), t, dtype=torch.float64))

    known: list[tuple[float, Tensor]] = []  # times and denoised values, the newest first
    corrected, predicted = x, x
    for n, (t, s) in enumerate(pairwise(grid)):
        D = denoised(predicted, t)
        if n:
            older = known[1 : min(n, p)]
            corrected = combine(
                corrected,
                known[0][0],
                t,
                [each[0] for each in older] + [t],
                [each[1] for each in older] + [D],
                known[0][1],
                len(older) + 1,
            )
        known.insert(0, (t, D))
        older = known[1 : min(n + 1, p)]
        predicted = combine(corrected, t, s, [each[0] for each in older], [each[1] for each in older], D, len(older))
    return predicted


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("grid", [LogSNR(), Karras(3.0)], ids=str)
def test_unipc_is_as_published(sde, order, grid):
    """One linear formula in the predictions is the predictor and the corrector by turns."""
    components = mixture((2,))
    score, x = Oracle(sde, components), sde.prior_std * torch.randn(6, 2, dtype=torch.float64)
    found = PredictorCorrector(grid, 25, UniPC(order), last="none")(sde, score, x, torch.randn_like)
    expected = published_unipc(sde, score, x, grid(sde, 25).tolist(), order)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("predictor", SOLVERS + [Exponential(k, eta) for k in (1, 2, 3) for eta in (0.5, 1.0)], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_a_single_point_is_reached_exactly(sde, predictor, steps):
    """Data that are one point m: the denoised is m and the noise constant along the flow, so that any number of steps
    gives N(alpha m, sigma^2), whatever the order and the stochasticity.
    """
    score = GaussianScore(sde, 0.7, 0.0)
    mean, variance = relative_errors(sde, PredictorCorrector(LogSNR(), steps, predictor, last="none"), score)
    # Over one step of 17 in lambda the terms of the noise's form cancel to 1e-7 of their size.
    tolerance = 1e-5 if isinstance(predictor, DEIS) else 1e-9
    assert abs(mean) < tolerance and abs(variance) < tolerance


@pytest.mark.parametrize("predictor", VELOCITY, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_a_normal_law_is_reached_exactly(sde, predictor, steps):
    """Data N(0, I): the velocity is zero everywhere."""
    sampler = PredictorCorrector(LogSNR(), steps, predictor, last="none")
    mean, variance = relative_errors(sde, sampler, GaussianScore(sde))
    assert abs(mean) < 1e-12 and abs(variance) < 1e-9


@pytest.mark.parametrize("predictor", VELOCITY, ids=str)
@pytest.mark.parametrize("grid", [Angle(), Centred(1.0)], ids=str)
def test_velocities_are_extrapolated_in_the_angle(sde, predictor, grid):
    """A velocity that is a polynomial in theta of a degree below the order, known at the last times: the step is the
    exact integral in y = x/sqrt(alpha^2 + sigma^2), and v is what 2202.00512 calls so, alpha e - sigma x_0 over the
    hypotenuse.
    """
    times, n = grid(sde, 12), 7
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    theta, S = torch.atan2(sigma, alpha), torch.hypot(alpha, sigma)

    def v(u: Tensor) -> Tensor:
        return sum((k + 1) * (u - 0.3) ** k for k in range(predictor.order)) + 0 * u

    x = double([[1.3], [-0.4]])
    memory = tuple(v(theta[n - j]).expand(2, 1) for j in range(1, predictor.depth)) or None

    def score(x, t, A, C):
        """The score whose noise e and data x_0 give v: from y = x_0 cos + e sin, v = e cos - x_0 sin."""
        e = v(theta[n]) * torch.cos(theta[n]) + x / S[n] * torch.sin(theta[n])
        return A * x - C * e / sigma[n]

    found, _, _ = predictor(predictor.prepare(sde, times)[n], score, x, [], memory)
    edges = torch.linspace(0, 1, 2001, dtype=torch.float64)
    u = theta[n] + (theta[n + 1] - theta[n]) * (edges[1:] + edges[:-1]) / 2
    expected = S[n + 1] * (x / S[n] + (theta[n + 1] - theta[n]) * v(u).mean() * torch.ones_like(x))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("predictor", [p for p in SOLVERS if p not in (Exponential(2), UniPC(2))], ids=str)
def test_polynomials_are_integrated_exactly(sde, predictor):
    """y a polynomial in lambda of a degree below the order, known at the last times: the step is the exact integral, by
    a fine quadrature. (Order 2 of data prediction takes the published M_0/2 in place of M_1.)
    """
    grid = Karras(3.0)(sde, 12)
    n, half_log_snr = 7, sde.half_log_snr(grid)
    middle, noise = half_log_snr[n], isinstance(predictor, DEIS)
    degree = predictor.order - 1

    def y(at: Tensor) -> Tensor:
        return sum((k + 1) * (at - middle) ** k for k in range(degree + 1)) + 0.3

    alpha_t, sigma_t, alpha_s, sigma_s, h = numbers(sde, float(grid[n]), float(grid[n + 1]))
    x = double([[1.3], [-0.4]])
    memory = tuple(y(half_log_snr[n - j]).expand(2, 1) for j in range(1, predictor.depth)) or None
    now = y(middle)

    def score(x, t, A, C):
        return A * x + C * (-now / sigma_t if noise else (alpha_t * now - x) / sigma_t**2)

    found, _, _ = predictor(predictor.prepare(sde, grid)[n], score, x, [], memory)
    edges = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    u = middle + h * (edges[1:] + edges[:-1]) / 2
    if noise:
        expected = alpha_s / alpha_t * x - alpha_s * h * (torch.exp(-u) * y(u)).mean()
    else:
        expected = sigma_s / sigma_t * x + sigma_s * h * (torch.exp(u) * y(u)).mean()
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_both_quadratures_agree():
    """The moments of the exponential and Gauss-Legendre sums over Lagrange polynomials: the same weights, of either
    prediction, for short steps and long ones, equal steps and unequal ones.
    """
    torch.manual_seed(1)
    H = torch.cat([10 ** torch.linspace(-6, 0.7, 40, dtype=torch.float64)] * 2) * torch.repeat_interleave(
        double([1.0, -1.0]), 40
    )
    for m in (1, 3, 4):
        tau = -(torch.rand(80, m, dtype=torch.float64) + 0.5).cumsum(1)
        tau[:, 0] = 0
        ours = exponential_weights(tau, H)
        torch.testing.assert_close(DEIS(m).integrate(tau, -H), ours, rtol=1e-10, atol=1e-13)


# --- short steps and long ones ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("H", ["1e-9", "1e-6", "1e-3", "0.3", "0.999", "1", "1.001", "3", "40", "300"])
def test_moments_to_all_digits(H):
    """Against the recurrence in 80 digits."""
    getcontext().prec = 80
    exact = [1 - (-Decimal(H)).exp()]
    for k in (1, 2, 3):
        exact.append(1 - k / Decimal(H) * exact[-1])
    found = moments(double([float(H)]), 4)[0]
    torch.testing.assert_close(found, double([float(each) for each in exact]), rtol=1e-14, atol=0)


def test_short_steps_are_adams_bashforth(sde):
    """Steps of 1e-6 in lambda: the classical weights, (23, -16, 5)/12 and (55, -59, 37, -9)/24, times the step; where
    phi-functions by subtraction have no digit left.
    """
    middle = float(sde.half_log_snr(double(sde.T / 2)))
    half_log_snr = middle + 1e-6 * torch.arange(6, dtype=torch.float64)
    for predictor, sign, classical in (
        (Exponential(3), 1, double([23, -16, 5]) / 12),
        (DEIS(3), -1, double([23, -16, 5]) / 12),
        (DEIS(4), -1, double([55, -59, 37, -9]) / 24),
    ):
        found = predictor.weights(half_log_snr, predictor.depth)
        torch.testing.assert_close(found, (sign * 1e-6 * classical).expand_as(found), rtol=1e-5, atol=0)
    for order, classical in ((3, double([23, -16, 5]) / 12), (4, double([55, -59, 37, -9]) / 24)):
        even = -0.1 * torch.arange(6, dtype=torch.float64)  # of any length, in theta
        found = AdamsBashforth(order).weights(even, order)
        torch.testing.assert_close(found, (-0.1 * classical).expand_as(found), rtol=1e-12, atol=0)
    following = Exponential(2).weights(half_log_snr, 2)
    torch.testing.assert_close(following, (1e-6 * double([1.5, -0.5])).expand_as(following), rtol=1e-5, atol=0)


@pytest.mark.parametrize("predictor", [Exponential(3), UniPC(3), DEIS(4), AdamsBashforth(4)], ids=str)
def test_thousands_of_steps_lose_nothing(predictor):
    """3,000 steps in float64 end within 1e-8 of the flow, in float32 within rounding."""
    assert error("vp", predictor, 3000) < 1e-8
    sde, _, x, exact = flow("vp")
    score = Oracle(sde, mixture((2,))).float()
    found = PredictorCorrector(LogSNR(), 1000, predictor, last="none")(sde, score, x.float(), torch.randn_like)
    assert float((found - exact).norm(dim=1).median()) < 1e-4


# --- the interface ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", [*SOLVERS, *VELOCITY, Exponential(2, 1.0), DEIS(7)], ids=str)
def test_one_evaluation_a_step_at_announced_times(sde, predictor):
    asked, announced = [], []

    class Score:
        def affine(self, times):
            announced.extend(times)

            def evaluate(x, t, A=0.0, C=1.0):
                asked.append(t)
                return A * x - C * x

            return evaluate

        def __call__(self, x, t):
            raise AssertionError

    sampler = PredictorCorrector(LogSNR(), 9, predictor, last="none")
    sampler(sde, Score(), torch.randn(3, 2), torch.randn_like)
    assert asked == LogSNR()(sde, 9).tolist()[:-1] and set(asked) <= set(announced)
    counted = Counted(lambda x, t: -x)
    PredictorCorrector(LogSNR(), 9, predictor)(sde, counted, torch.randn(3, 2), torch.randn_like)
    assert counted.calls == 10


def test_without_noise_no_normals_are_drawn(sde):
    def never(x):
        raise AssertionError

    for predictor in SOLVERS + VELOCITY:
        assert predictor.normals == 0
        PredictorCorrector(LogSNR(), 4, predictor)(sde, GaussianScore(sde), torch.randn(3, 2), never)
    assert Exponential(2, 0.5).normals == 1


@pytest.mark.parametrize("predictor", [*SOLVERS, *VELOCITY, Exponential(3, 0.7)], ids=str)
def test_memory_is_handed_over_and_left_alone(predictor, shape, dtype):
    """Vectors and images, step after step: each number gets what a lone one gets, and nothing that is handed over
    changes; a step without memory, in the middle of the way, is a first step.
    """
    sde = make_sde("vp")
    score, rows = affine(GaussianScore(sde, 0.7, 0.5), []), predictor.prepare(sde, LogSNR()(sde, 12))
    x, lone, memory, lone_memory = torch.randn(4, *shape, dtype=dtype), None, None, None
    lone = x.reshape(-1, 1)
    for row in rows[:6]:
        z = [torch.randn(4, *shape, dtype=dtype) for _ in range(predictor.normals)]
        kept = [each.clone() for each in (x, *z, *(memory or ()))]
        following, mean, after = predictor(row, score, x, z, memory)
        assert all(torch.equal(*pair) for pair in zip(kept, (x, *z, *(memory or ())), strict=True))
        again, _, _ = predictor(row, score, x, z, memory)
        assert torch.equal(following, again) and following.dtype == mean.dtype == dtype
        lone, _, lone_memory = predictor(row, score, lone, [each.reshape(-1, 1) for each in z], lone_memory)
        torch.testing.assert_close(following.reshape(-1, 1), lone)
        x, memory = following, after
    assert len(memory or ()) == (predictor.depth if predictor.depth > 1 else 0)
    lowest = AdamsBashforth(1) if predictor in VELOCITY else Exponential(1, getattr(predictor, "eta", 0.0))
    first = lowest.prepare(sde, LogSNR()(sde, 12))[4]
    z = [torch.zeros_like(x)] * predictor.normals
    found, _, _ = predictor(rows[4], score, x, z, None)
    torch.testing.assert_close(found, score(x, first.t, first.A, first.C), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "grid, label",
    [
        (Quadratic(), lambda sde, t: t.sqrt()),
        (Angle(), lambda sde, t: torch.atan2(sde.sigma(t), sde.alpha(t))),
        (Centred(0.5), lambda sde, t: torch.asinh(sde.half_log_snr(t) / 0.5)),
        (Centred(1e3), lambda sde, t: sde.half_log_snr(t)),
    ],
    ids=["quadratic", "angle", "centred", "wide"],
)
def test_grids_are_even_in_their_own_variable(sde, grid, label):
    gaps = label(sde, grid(sde, 10)).diff()
    torch.testing.assert_close(gaps, gaps[0].expand(10), rtol=1e-4 if grid == Centred(1e3) else 1e-7, atol=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Exponential(order=5), "`order`=5 must be 1, 2 or 3"),
        (lambda: Exponential(order=0), "`order`=0 must be 1, 2 or 3"),
        (lambda: Exponential(eta=-1.0), "`eta`=-1.0 must be at least 0"),
        (lambda: Exponential(eta=math.nan), "`eta`=nan must be at least 0"),
        (lambda: UniPC(order=4), "`order`=4 must be 2 or 3"),
        (lambda: DEIS(order=0), "`order`=0 must be at least 1"),
        (lambda: AdamsBashforth(order=0), "`order`=0 must be at least 1"),
        (lambda: Centred(0.0), "`width`=0.0 must be positive and finite"),
        (lambda: Centred(math.inf), "`width`=inf must be positive and finite"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
