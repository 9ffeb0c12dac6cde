"""The samplers on laws of which the answer is known: a Gaussian, on which every step is affine, and a mixture."""

import math

import pytest
import torch
from conftest import CORRECTORS, GRIDS, PREDICTORS, SAMPLERS, SDES, GaussianScore, compose, draw_mixture, make, make_sampler, make_sde, mixture
from torch import Tensor

from models import Oracle
from samplers import Ancestral, EulerMaruyama, Film, Karras, Langevin, LogSNR, PredictorCorrector, ProbabilityFlow, ReverseDiffusion, Uniform
from sde_lib import BlockNoise, Counted

SHORT = {"steps": 20, "rtol": 1e-4, "atol": 1e-4}
PREDICTOR_CHOICES = [make("sampler.predictor", "sampler=em", f"sampler/predictor={name}") for name in PREDICTORS]


def draws_of(sampler) -> int:
    """How many normals a run takes."""
    if not isinstance(sampler, PredictorCorrector):
        return 0
    return sampler.steps * sum(step.normals for step in (sampler.predictor, sampler.corrector) if step is not None)


def law(sde, sampler, score, start_mean: float, start_variance: float) -> tuple[float, float]:
    """The exact mean and variance of a coordinate of the samples, for an affine score: the sampler is then an affine map of x_T and of its normals.

    Row 0 of the batch starts at the mean with no noise at all, row 1 one std further; row 2 + k gets a 1 as its k-th normal.
    """
    count, calls = draws_of(sampler), [0]
    x = torch.full((2 + count, 1), start_mean, dtype=torch.float64)
    x[1] += start_variance**0.5

    def one_hot(like: Tensor) -> Tensor:
        z = torch.zeros_like(like)
        z[2 + calls[0]] = 1
        calls[0] += 1
        return z

    end = sampler(sde, score, x, one_hot)[:, 0]
    assert calls[0] == count
    return float(end[0]), float((end[1:] - end[0]).square().sum())


# --- exact laws on a Gaussian --------------------------------------------------------------------------------------------------


def relative_errors(sde, sampler, score) -> tuple[float, float]:
    """Of the mean, in stds, and of the variance at eps, started from the exact law at T."""
    (m_T, v_T), (m, v) = (tuple(map(float, score.moments(t))) for t in (sde.T, sde.eps))
    mean, variance = law(sde, sampler, score, m_T, v_T)
    return (mean - m) / v**0.5, variance / v - 1


@pytest.mark.parametrize("predictor", PREDICTOR_CHOICES)
def test_predictors_are_of_order_one(sde, predictor):
    """The law at eps converges to N(alpha m, alpha^2 s^2 + sigma^2) in proportion to 1/N: its mean and its variance."""
    score = GaussianScore(sde, 0.7, 0.5)
    coarse, fine, finest = (torch.tensor(relative_errors(sde, PredictorCorrector(Uniform(), n, predictor, denoise=False), score)).abs() for n in (150, 300, 600))
    assert float(finest.max()) < 0.03
    for first, second in ((coarse, fine), (fine, finest)):
        order = torch.log2(first.sum() / second.sum())
        assert 0.7 < float(order) < 2.2  # h log h where sigma(t) ~ sqrt(t); Euler-Maruyama's first term can vanish under VE


@pytest.mark.parametrize("predictor", PREDICTOR_CHOICES)
@pytest.mark.parametrize("grid", GRIDS)
def test_predictors_converge_on_every_grid(sde, predictor, grid):
    score, grid = GaussianScore(sde, 0.7, 0.5), make("sampler.grid", "sampler=em", f"sampler/grid={grid}")
    errors = [sum(map(abs, relative_errors(sde, PredictorCorrector(grid, n, predictor, denoise=False), score))) for n in (150, 300)]
    assert errors[1] < 0.65 * errors[0] and errors[1] < 0.2


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_has_the_exact_law_of_a_gaussian(sde, name):
    """As its yaml says but for fewer steps, from the sampler's own prior, denoised: the law of E[x_0 | x_eps] to a few per cent."""
    m, s = 0.3, 0.8
    score = GaussianScore(sde, m, s)
    sampler = make_sampler(name, steps=400)
    if not isinstance(sampler, PredictorCorrector):
        sampler = make_sampler(name, rtol=1e-7, atol=1e-7)
    mean, variance = law(sde, sampler, score, 0.0, sde.prior_std**2)
    m_eps, v_eps = map(float, score.moments(sde.eps))
    shrink = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64))) * s**2 / v_eps  # d E[x_0 | x] / dx
    m_T, v_T = map(float, score.moments(sde.T))
    forgets = 0.01 if isinstance(sampler, PredictorCorrector) else abs(m_T) / v_T**0.5 + 0.01  # the flow keeps the prior's offset
    assert abs(mean - m) < forgets * s
    if isinstance(sampler, PredictorCorrector):
        assert variance == pytest.approx(shrink**2 * v_eps, rel=0.06)
    else:
        assert variance == pytest.approx(shrink**2 * v_eps * sde.prior_std**2 / v_T, rel=1e-4)


@pytest.mark.parametrize("predictor", PREDICTOR_CHOICES)
def test_steps_are_pure_functions(predictor, shape, dtype):
    """Vectors and images alike: each coordinate of a Gaussian gets what a lone number gets; mean is x_s less its noise."""
    sde = make_sde("vp")
    score, grid = GaussianScore(sde, 0.7, 0.5), Uniform()(sde, 10)
    x, z = torch.randn(4, *shape, dtype=dtype), [torch.randn(4, *shape, dtype=dtype) for _ in range(predictor.normals)]
    kept = x.clone()
    row = predictor.prepare(sde, grid)[3]
    found, mean, _ = predictor(row, score, x, z, None)
    assert torch.equal(x, kept) and found.dtype == dtype and torch.equal(found, predictor(row, score, x, z, None)[0])
    lone, _, _ = predictor(row, score, x.reshape(-1, 1), [each.reshape(-1, 1) for each in z], None)
    torch.testing.assert_close(found.reshape(-1, 1), lone)
    quiet, _, _ = predictor(row, score, x, [torch.zeros_like(each) for each in z], None)
    torch.testing.assert_close(mean, quiet)


def test_coefficients_by_hand(sde):
    """The table of samplers.predictors, one step t -> s from the SDE's f, g, alpha and sigma."""
    s, t = (torch.tensor([sde.T * u], dtype=torch.float64) for u in (0.5, 0.6))
    a = sde.alpha(t) / sde.alpha(s)
    b2 = sde.sigma(t) ** 2 - a**2 * sde.sigma(s) ** 2
    h = t - s
    for step, expected in (
        (EulerMaruyama(), (1 - sde.f(t) * h, sde.g(t) ** 2 * h, sde.g(t) * h**0.5)),
        (ReverseDiffusion(), (2 - a, b2, b2**0.5)),
        (Ancestral(), (1 / a, b2 / a, b2**0.5 * sde.sigma(s) / sde.sigma(t))),
    ):
        for found, exact in zip(step.coefficients(sde, t, s), expected, strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-10, atol=0)


def test_ancestral_is_the_gaussian_posterior(sde):
    """q(x_s | x_t, x_0) by the product of two Gaussians, x_0 being the denoised value (arXiv 2011.13456, appendix F)."""
    s, t = (torch.tensor([sde.T * u], dtype=torch.float64) for u in (0.4, 0.5))
    a, b = sde.transition(s, t)
    x_0, x_t = 0.3, 1.1
    precision = 1 / sde.sigma(s) ** 2 + a**2 / b**2
    mean = (sde.alpha(s) * x_0 / sde.sigma(s) ** 2 + a * x_t / b**2) / precision
    score = (sde.alpha(t) * x_0 - x_t) / sde.sigma(t) ** 2
    A, C, N = Ancestral().coefficients(sde, t, s)
    torch.testing.assert_close(A * x_t + C * score, mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(N, precision**-0.5, rtol=1e-9, atol=0)


# --- correctors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_langevin_leaves_its_stationary_gaussian_alone(sde, count):
    """x' = (1 - e/v) x + sqrt(2e) z has the stationary variance v / (1 - e/(2v)), e = 2 (a r sigma(s))^2: near v, the truth."""
    r, score, grid = 0.16, GaussianScore(sde, 0.4, 0.5), Uniform()(sde, 50)
    corrector = Langevin(snr=r, count=count)
    for n in (10, 35, 48):
        t, s = grid[n], grid[n + 1]
        row = corrector.prepare(sde, grid)[n]
        m, v = map(float, score.moments(s))
        e = 2 * (float(sde.alpha(t) / sde.alpha(s)) * r * float(sde.sigma(s))) ** 2
        stationary = v / (1 - e / (2 * v))
        x = torch.full((2 + count, 1), m, dtype=torch.float64)
        x[1] += stationary**0.5
        z = [torch.zeros_like(x) for _ in range(count)]
        for k in range(count):
            z[k][2 + k] = 1
        end, mean, _ = corrector(row, score, x, z, None)
        assert float(end[0]) == pytest.approx(m, rel=1e-12)
        assert float((end[1:] - end[0]).square().sum()) == pytest.approx(stationary, rel=1e-12)
        assert abs(stationary / v - 1) < 0.03  # r = 0.16: at most r^2 off
        last = torch.zeros_like(end)
        last[1 + count] = (2 * e) ** 0.5
        torch.testing.assert_close(end - mean, last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["batch_norms", "sample_norms"])
def test_norm_rules_by_hand(sde, shape, rule):
    """e = 2 a^2 (r |z|/|s|)^2 with mean norms over the batch, or each sample's own."""
    r, score, grid, a_count = 0.2, Oracle(sde, mixture(shape)), Uniform()(sde, 20), 2
    corrector = Langevin(snr=r, count=a_count, rule=rule)
    x = draw_mixture(mixture(shape), 5, shape)
    z = [torch.randn_like(x) for _ in range(a_count)]
    found, _, _ = corrector(corrector.prepare(sde, grid)[12], score, x, z, None)
    t, s = grid[12], grid[13]
    a = float(sde.alpha(t) / sde.alpha(s))
    for noise in z:
        gradient = score(x, s.expand(5))
        up, down = noise.flatten(1).norm(dim=1), gradient.flatten(1).norm(dim=1)
        if rule == "batch_norms":
            up, down = up.mean(), down.mean()
        e = (2 * a**2 * (r * up / down) ** 2).expand(5).reshape(5, *[1] * len(shape))
        x = x + e * gradient + (2 * e).sqrt() * noise
    torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-12)


def test_norm_rules_survive_a_score_of_zero(shape):
    """An untrained network's: no division by zero; the sample moves, by a finite amount."""
    sde = make_sde("vp")
    x = torch.randn(4, *shape)
    for rule in ("batch_norms", "sample_norms"):
        corrector = Langevin(rule=rule)
        row = corrector.prepare(sde, Uniform()(sde, 20))[12]
        end, mean, _ = corrector(row, lambda x, t: torch.zeros_like(x), x, [torch.randn_like(x)], None)
        assert torch.equal(mean, x) and bool(end.isfinite().all())


def test_sample_norms_are_wrong_in_two_dimensions():
    """Where a score happens to be small the step is huge: samples far out, and none with the kernel's rule. (As the module warns.)"""
    sde = make_sde("ve")
    score, count = GaussianScore(sde, 0.0, 1.0), 4000
    far = {}
    for rule in ("kernel", "batch_norms", "sample_norms"):
        sampler = PredictorCorrector(Uniform(), 100, ReverseDiffusion(), Langevin(snr=0.16, rule=rule), denoise=False)
        torch.manual_seed(0)
        x = sampler(sde, score, sde.prior_std * torch.randn(count, 2), torch.randn_like)
        far[rule] = float((x.norm(dim=1) > 6).double().mean())
    assert far["kernel"] < 1e-3
    assert far["sample_norms"] > 0.01


# --- mixtures ------------------------------------------------------------------------------------------------------------------


class ConstantImages:
    """The exact score of a mixture of constant images N(c_k 1, s_k^2 I), by two sums over the pixels."""

    def __init__(self, sde, components):
        self.sde, (self.weights, means, self.stds) = sde, components
        self.levels, self.dim = means[:, 0], means.shape[1]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        moment = t[:1].double()
        alpha, variances = self.sde.alpha(moment), self.sde.alpha(moment) ** 2 * self.stds**2 + self.sde.sigma(moment) ** 2
        flat, means = x.flatten(1), alpha * self.levels
        squares, sums = flat.square().sum(1).double()[:, None], flat.sum(1).double()[:, None]
        distances = squares - 2 * sums * means + self.dim * means**2
        pull = torch.softmax(self.weights.log() - 0.5 * distances / variances - 0.5 * self.dim * variances.log(), dim=1) / variances
        shift, scale = ((pull * means).sum(1), pull.sum(1))
        return (shift.to(x)[:, None] - scale.to(x)[:, None] * flat).reshape(x.shape)


def test_constant_images_are_the_oracle(sde):
    shape = (3, 8, 6)
    x, t = draw_mixture(mixture(shape), 6, shape), torch.tensor([sde.T * 0.3], dtype=torch.float64).expand(6)
    torch.testing.assert_close(ConstantImages(sde, mixture(shape))(x, t), Oracle(sde, mixture(shape))(x, t), rtol=1e-8, atol=1e-8)


