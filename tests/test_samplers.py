"""The samplers on laws of which the answer is known: a Gaussian, on which every step is affine, and a mixture."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from scoresde.models import Oracle
from scoresde.samplers import (
    AdaptiveSDE,
    Ancestral,
    AnnealedLangevin,
    Auto,
    EulerMaruyama,
    Film,
    Karras,
    Langevin,
    LogSNR,
    PredictorCorrector,
    ProbabilityFlow,
    Rescale,
    Restart,
    ReverseDiffusion,
    Uniform,
    width,
)
from scoresde.sde_lib import EDM, VE, VP, BlockNoise, Counted, SubVP, Toy, affine

from .conftest import (
    CORRECTORS,
    GRIDS,
    PREDICTORS,
    SAMPLERS,
    SDES,
    SHAPES,
    GaussianScore,
    compose,
    draw_mixture,
    in_turn,
    kind,
    make,
    make_sampler,
    make_sde,
    mixture,
    written,
)

SHORT = {"levels": 12, "count": 2, "steps": 20, "rtol": 1e-4, "atol": 1e-4}
# Restart's rounds have a number of steps of their own, whatever the grid's: see test_stochastic.py.
SOLVERS = [name for name in PREDICTORS if not issubclass(kind("sampler/predictor", name), Rescale | Restart)]
# The weak order of a predictor as its yaml has it; one that is not named here is of order one.
ORDERS = {
    "exponential": 2,
    "dpmpp_3m": 3,
    "sde_dpmpp_2m": 2,
    "deis": 3,
    "adams_bashforth": 3,
    "unipc": 3,
    "heun": 2,
    "sea": 2,
    "shark": 2,
}


@cache
def predictor_of(name: str):
    return make("sampler.predictor", "sampler=em", f"sampler/predictor={name}")


@cache
def grid_of(name: str):
    return make("sampler.grid", "sampler=em", f"sampler/grid={name}")


def short(name: str, **keys):
    """A sampler that takes few steps; the adaptive SDE solver would need thousands for 1e-4, and keeps its yaml's."""
    adaptive = isinstance(make_sampler(name), AdaptiveSDE)
    return make_sampler(name, **(keys if adaptive else SHORT | keys))


def draws_of(sde, sampler) -> int:
    """Returns the number of normals that a run takes."""
    if isinstance(sampler, AnnealedLangevin):
        return sampler.levels * sampler.count
    if not isinstance(sampler, PredictorCorrector):
        return 0
    steps, grid = (sampler.predictor, sampler.corrector), sampler.grid(sde, sampler.steps)
    return sum(step.draws(row) for step in steps if step is not None for row in step.prepare(sde, grid))


def law(sde, sampler, score, start_mean: float, start_variance: float) -> tuple[float, float]:
    """The exact mean and variance of a coordinate of the samples, for an affine score; see :func:`laws`."""
    start = (torch.tensor([value], dtype=torch.float64) for value in (start_mean, start_variance))
    return tuple(map(float, laws(sde, sampler, score, *start)))


def laws(sde, sampler, score, start_means: Tensor, start_variances: Tensor) -> tuple[Tensor, Tensor]:
    """The exact means and variances (D,) of the samples' coordinates, for a score that is affine and takes each
    coordinate by itself: the sampler is an affine map of x_T and of its normals.

    Row 0 of the batch starts at the mean with no noise at all, row 1 one std further; row 2 + k gets a 1 as its k-th
    normal.
    """
    count, calls = draws_of(sde, sampler), [0]
    x = start_means.repeat(2 + count, 1)
    x[1] += start_variances.sqrt()

    def one_hot(like: Tensor) -> Tensor:
        z = torch.zeros_like(like)
        z[2 + calls[0]] = 1
        calls[0] += 1
        return z

    end = sampler(sde, score, x, one_hot)
    assert calls[0] == count
    return end[0], (end[1:] - end[0]).square().sum(0)


class Diagonal:
    """The exact score of N(m, diag(s_1^2, ..., s_D^2)) under an SDE."""

    def __init__(self, sde, mean: float, stds: list[float]):
        self.sde, self.mean, self.stds = sde, mean, torch.tensor(stds, dtype=torch.float64)

    def under(self, sde, other) -> "Diagonal":
        return Diagonal(other, self.mean, self.stds.tolist())

    def moments(self, t) -> tuple[Tensor, Tensor]:
        """The means and variances (..., D) at t."""
        t = torch.as_tensor(t, dtype=torch.float64)[..., None]
        return (self.sde.alpha(t) * self.mean).expand(*t.shape[:-1], len(self.stds)), (
            self.sde.alpha(t) * self.stds
        ).square() + self.sde.sigma(t).square()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        means, variances = self.moments(t)
        return (means - x) / variances


# --- exact laws on a Gaussian -----------------------------------------------------------------------------------------


def relative_errors(sde, sampler, score) -> tuple[float, float]:
    """Returns the errors of the mean, in stds, and of the variance at eps, from the exact law at T."""
    (m_T, v_T), (m, v) = (tuple(map(float, score.moments(t))) for t in (sde.T, sde.eps))
    mean, variance = law(sde, sampler, score, m_T, v_T)
    return (mean - m) / v**0.5, variance / v - 1


@pytest.mark.parametrize("name", SOLVERS)
def test_predictors_have_their_order(sde, name):
    """The law at eps converges to N(alpha m, alpha^2 s^2 + sigma^2) in proportion to 1/N^order: its mean and its
    variance. The methods of higher order need steps that are short in lambda, their own time.
    """
    score, predictor, order = GaussianScore(sde, 0.7, 0.5), predictor_of(name), ORDERS.get(name, 1)
    grid, steps = (Uniform(), (150, 300, 600)) if order == 1 else (LogSNR(), (50, 100, 200))
    coarse, fine, finest = (
        torch.tensor(relative_errors(sde, PredictorCorrector(grid, n, predictor, last="none"), score)).abs()
        for n in steps
    )
    assert float(finest.max()) < 0.04
    for first, second in ((coarse, fine), (fine, finest)):
        found = float(torch.log2(first.sum() / second.sum()))
        assert found > order - 0.3  # h log h where sigma(t) ~ sqrt(t)
        assert order > 1 or found < 2.2  # Euler-Maruyama's first term can vanish under VE


KINDS_OF_GRIDS = list({kind("sampler/grid", name): name for name in GRIDS}.values())


@pytest.mark.parametrize(
    "sde_name, name, grid",
    [  # each predictor under every SDE and on every grid, each SDE on every grid; not all three together
        (sde_name, name, KINDS_OF_GRIDS[(i + j) % len(KINDS_OF_GRIDS)])
        for i, sde_name in enumerate(SDES)
        for j, name in enumerate(SOLVERS)
    ],
)
def test_predictors_converge_on_every_grid(sde_name, name, grid):
    sde, grid = make_sde(sde_name), grid_of(grid)
    score = GaussianScore(sde, 0.7, 0.5)
    errors = [
        sum(map(abs, relative_errors(sde, PredictorCorrector(grid, n, predictor_of(name), last="none"), score)))
        for n in (150, 300)
    ]
    assert errors[1] < max(0.65 * errors[0], 5e-4) and errors[1] < 0.2  # a tiny error may be on its way through zero


PATHWISE = [
    name for name in SAMPLERS if not issubclass(kind("sampler", name), AdaptiveSDE)
]  # an affine map of the noise
STDS = [0.02, 0.05, 0.2, 1.0]


def ends_of(sde, sampler, stds: list[float], mean: float = 0.3) -> tuple[Tensor, Tensor]:
    """The exact means less the data's and stds over the data's of the samples of a Gaussian, (D,) each, started from
    its law at T.
    """
    score = Diagonal(sde, mean, stds)
    means, variances = laws(sde, sampler, score, *score.moments(sde.T))
    alpha = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64))) if sampler.last == "none" else 1.0
    return means / alpha - mean, variances.sqrt() / alpha / score.stds


def widths(sde, last: str, stds: list[float]) -> Tensor:
    """The table of samplers.last, (D,): stds over the data's after an exact way to eps."""
    eps = torch.tensor(sde.eps, dtype=torch.float64)
    ratios = (sde.sigma(eps) / sde.alpha(eps) / torch.tensor(stds, dtype=torch.float64)).square()
    factor = {"flow": 1 + ratios / 2, "tweedie": torch.ones_like(ratios), "none": 1 + ratios}[last]
    return factor / (1 + ratios).sqrt()


@pytest.mark.parametrize("name", PATHWISE)
def test_every_sampler_has_the_exact_law_of_a_gaussian(sde, name):
    """Stds from 0.02 to 1 side by side, many steps, whatever the last step: the data's law, up to what that step makes
    of it; the flow's at k <= 0.0105 at most 0.9 %.
    """
    keys = {"steps": 400, "rtol": 1e-8, "atol": 1e-8, "levels": 100, "count": 10}
    grid = ["sampler/grid=log_snr"] if hasattr(make_sampler(name), "grid") else []
    made = make("sampler", f"sampler={name}", *grid, *given_keys(name, keys))
    last = ("flow", "tweedie", "none")[(SAMPLERS.index(name) + SDES.index(name_of(sde))) % 3]
    shift, found = ends_of(sde, replace(made, last=last), STDS)
    expected = widths(sde, last, STDS)
    if last == "flow":
        assert float((expected - 1).abs().max()) < 0.0095
    assert lags(made) == (name in LAGGING)
    if lags(made):
        assert float(shift.abs().max()) < 0.005 and float((found / expected - 1).abs().max()) < 0.13
        return
    tolerance = 0.025 if isinstance(made, PredictorCorrector | Auto) else 1e-4
    assert float((shift / torch.tensor(STDS)).abs().max()) < tolerance
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)


def name_of(sde) -> str:
    return next(name for name in SDES if make_sde(name) == sde)


def given_keys(name: str, keys: dict) -> list[str]:
    has = compose(f"sampler={name}")["sampler"]
    return [f"sampler.{key}={value}" for key, value in keys.items() if key in has]


# By their authors' own rules: Langevin steps that lag, and equal steps in t.
AS_PUBLISHED = {"ald", "ald_ladder", "ald_ncsn", "ald_ncsnv2", "em_published", "ddpm"}


LONG = [name for name in PATHWISE if name not in AS_PUBLISHED and written("sampler", name).get("steps") == 1000]
QUICK = [name for name in PATHWISE if name not in AS_PUBLISHED and name not in LONG]


@pytest.mark.parametrize(
    "name, sde_name", [*product(QUICK, SDES), *product(LONG, ["vp"]), *in_turn(LONG, ["subvp", "edm", "toy", "ve"])]
)
def test_defaults_keep_narrow_laws(name, sde_name):
    """Every key as its yaml has it: stds from 0.03 to 1 within 1.3 %, the sampling error of 3,000 draws."""
    sde = make_sde(sde_name)
    _, found = ends_of(sde, make_sampler(name), [0.03, 0.05, 0.2, 1.0])
    assert float((found - 1).abs().max()) < 0.013


def lags(sampler) -> bool:
    """Langevin steps alone follow p_t with a delay: at low noise they are too short to move x far, exact only as their
    number grows.
    """
    annealed = isinstance(sampler, PredictorCorrector) and isinstance(sampler.predictor, Rescale)
    return annealed or isinstance(sampler, AnnealedLangevin)


LAGGING = [  # by their yamls: a test below compares them with the samplers themselves
    name
    for name in SAMPLERS
    if kind("sampler", name) is AnnealedLangevin
    or {"predictor": "rescale"} in written("sampler", name).get("defaults", [])
]


@pytest.mark.parametrize("name", ["ve", "toy"])
def test_langevin_alone_converges_with_its_number_of_steps(name):
    """The variance converges to that of its stationary law, v / (1 - e/(2v)), which is p_eps up to e ~ sigma(eps)^2."""
    sde = make_sde(name)
    score, errors = GaussianScore(sde, 0.3, 0.8), []
    for count in (1, 5, 25):
        sampler = PredictorCorrector(LogSNR(), 150, None, Langevin(snr=0.16, count=count), last="none")
        _, variance = law(sde, sampler, score, *map(float, score.moments(sde.T)))
        errors.append(abs(variance / float(score.moments(sde.eps)[1]) - 1))
    assert errors[2] < 0.3 * errors[1] < 0.1 * errors[0] and errors[2] < 0.05


@pytest.mark.parametrize("name", PREDICTORS)
def test_steps_are_pure_functions(name, shape, dtype):
    """Vectors and images: each coordinate of a Gaussian gets what a lone number gets; mean is x_s less its noise."""
    sde, predictor = make_sde("vp"), predictor_of(name)
    score, grid = affine(GaussianScore(sde, 0.7, 0.5), []), Uniform()(sde, 10)
    row = predictor.prepare(sde, grid)[3]
    x, *z = (torch.randn(4, *shape, dtype=dtype) for _ in range(1 + predictor.draws(row)))
    kept = x.clone()
    found, mean, _ = predictor(row, score, x, z, None)
    assert torch.equal(x, kept) and found.dtype == dtype and torch.equal(found, predictor(row, score, x, z, None)[0])
    lone, _, _ = predictor(row, score, x.reshape(-1, 1), [each.reshape(-1, 1) for each in z], None)
    torch.testing.assert_close(found.reshape(-1, 1), lone)
    if len(z) < 2:  # of two normals one is seen by the score, and stays
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
    """q(x_s | x_t, x_0) by the product of two Gaussians, x_0 the denoised value (arXiv 2011.13456, appendix F)."""
    s, t = (torch.tensor([sde.T * u], dtype=torch.float64) for u in (0.4, 0.5))
    a, b = sde.transition(s, t)
    x_0, x_t = 0.3, 1.1
    precision = 1 / sde.sigma(s) ** 2 + a**2 / b**2
    mean = (sde.alpha(s) * x_0 / sde.sigma(s) ** 2 + a * x_t / b**2) / precision
    score = (sde.alpha(t) * x_0 - x_t) / sde.sigma(t) ** 2
    A, C, N = Ancestral().coefficients(sde, t, s)
    torch.testing.assert_close(A * x_t + C * score, mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(N, precision**-0.5, rtol=1e-9, atol=0)


# --- correctors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_langevin_leaves_its_stationary_gaussian_alone(sde, count):
    """x' = (1 - e/v) x + sqrt(2e) z has the stationary variance v / (1 - e/(2v)), e = 2 (a r sigma(s))^2: near v, the
    truth.
    """
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
        end, mean, _ = corrector(row, affine(score, []), x, z, None)
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
    found, _, _ = corrector(corrector.prepare(sde, grid)[12], affine(score, []), x, z, None)
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
        end, mean, _ = corrector(row, affine(lambda x, t: torch.zeros_like(x), []), x, [torch.randn_like(x)], None)
        assert torch.equal(mean, x) and bool(end.isfinite().all())


def test_sample_norms_are_wrong_in_two_dimensions():
    """The step is huge where a score happens to be small and sends samples far out; the kernel's rule sends none."""
    sde = make_sde("ve")
    score, count = GaussianScore(sde, 0.0, 1.0), 4000
    far = {}
    for rule in ("kernel", "batch_norms", "sample_norms"):
        sampler = PredictorCorrector(Uniform(), 100, ReverseDiffusion(), Langevin(snr=0.16, rule=rule), last="none")
        torch.manual_seed(0)
        x = sampler(sde, score, sde.prior_std * torch.randn(count, 2), torch.randn_like)
        far[rule] = float((x.norm(dim=1) > 6).double().mean())
    assert far["kernel"] < 1e-3
    assert far["sample_norms"] > 0.01


# --- mixtures ---------------------------------------------------------------------------------------------------------


class ConstantImages:
    """The exact score of a mixture of constant images N(c_k 1, s_k^2 I), by two sums over the pixels."""

    def __init__(self, sde, components):
        self.sde, (self.weights, means, self.stds) = sde, components
        self.levels, self.dim = means[:, 0], means.shape[1]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        moment = t.double()[:, None]
        alpha, variances = (
            self.sde.alpha(moment),
            self.sde.alpha(moment) ** 2 * self.stds**2 + self.sde.sigma(moment) ** 2,
        )
        flat, means = x.flatten(1), alpha * self.levels
        squares, sums = flat.square().sum(1).double()[:, None], flat.sum(1).double()[:, None]
        distances = squares - 2 * sums * means + self.dim * means**2
        pull = (
            torch.softmax(self.weights.log() - 0.5 * distances / variances - 0.5 * self.dim * variances.log(), dim=1)
            / variances
        )
        shift, scale = ((pull * means).sum(1), pull.sum(1))
        return (shift.to(x)[:, None] - scale.to(x)[:, None] * flat).reshape(x.shape)


def test_constant_images_are_the_oracle(sde):
    shape = (3, 8, 6)
    x, t = draw_mixture(mixture(shape), 6, shape), torch.linspace(sde.eps, sde.T, 6, dtype=torch.float64)
    torch.testing.assert_close(
        ConstantImages(sde, mixture(shape))(x, t), Oracle(sde, mixture(shape))(x, t), rtol=1e-8, atol=1e-8
    )


def labels(x: Tensor, components) -> Tensor:
    """Returns the component of each sample, the one with the nearest mean."""
    weights, means, stds = components
    return (x.double().flatten(1)[:, None] - means).square().sum(-1).argmin(1)


def check_mixture(x: Tensor, components, weight_bias: float, mean_bias: float, std_bias: float) -> None:
    """Weights, means and stds of the components, within 4 standard errors and a bias, the latter two in stds."""
    found = labels(x, components)
    for i, (weight, mean, std) in enumerate(zip(*components, strict=True)):
        mine = x.double().flatten(1)[found == i]
        assert (
            abs(len(mine) / len(x) - float(weight)) < 4 * math.sqrt(float(weight * (1 - weight)) / len(x)) + weight_bias
        )
        assert float((mine - mean).mean(0).abs().max()) < (4.5 / math.sqrt(len(mine)) + mean_bias) * float(std)
        spread = float((mine - mine.mean(0)).square().mean().sqrt())
        assert abs(spread / float(std) - 1) < 4 / math.sqrt(2 * mine.numel()) + std_bias


ADAPTIVE = [name for name in SAMPLERS if name not in PATHWISE]  # not in the Gaussian's test


@pytest.mark.parametrize("name, sde_name", dict.fromkeys(in_turn(SAMPLERS, SDES) + list(product(ADAPTIVE, SDES))))
def test_vectors_of_a_mixture(name, sde_name):
    """4,000 samples with the exact score in float32, from the sampler's own start N(0, sigma(T)^2 I). (Every other
    pair of a sampler and an SDE is in the Gaussian's test above.)
    """
    sde = make_sde(sde_name)
    components, sampler = mixture((2,)), make_sampler(name, steps=400)
    if lags(sampler):
        sampler = make_sampler(name, steps=1000, levels=100, count=10)
    start = sde.prior_std * torch.randn(4000, 2)
    x = sampler(sde, Oracle(sde, components).float(), start, torch.randn_like)
    assert x.dtype == torch.float32
    check_mixture(x, components, *((0.05, 0.1, 0.2) if lags(sampler) else (0.02, 0.05, 0.14)))


@pytest.mark.parametrize("name, sde_name", in_turn([name for name in SAMPLERS if name not in LAGGING], SDES))
def test_images_of_a_mixture(name, sde_name):
    """The same test for images 3 x 8 x 6, each sampler under one SDE. It starts from p_T, since constant images lie
    sqrt(D) times as far apart, beyond some priors.
    """
    sde, shape = make_sde(sde_name), (3, 8, 6)
    components, sampler, count = mixture(shape), make_sampler(name, steps=200), 600
    start = sde.perturb(
        draw_mixture(components, count, shape),
        torch.full((count,), sde.T, dtype=torch.float64),
        torch.randn(count, *shape, dtype=torch.float64),
    )
    x = sampler(sde, ConstantImages(sde, components), start.float(), torch.randn_like)
    assert x.shape == (count, *shape)
    check_mixture(x, components, 0.03, 0.1, 0.2)


# --- the loop ---------------------------------------------------------------------------------------------------------


def run_in_batches(sde, sampler, score, shape, count: int, batch: int) -> Tensor:
    """Runs a sampler as a task does: the prior and the steps have a stream each."""
    parts = []
    for first in range(0, count, batch):
        size = min(batch, count - first)
        start, noise = (
            BlockNoise(5, first, size, shape, torch.float64, stream=stream) for stream in ("prior", "sampler")
        )
        parts.append(sampler(sde, score, start() * sde.prior_std, noise))
    return torch.cat(parts)


@pytest.mark.parametrize(
    "sde_name, name, kind, batch",
    [
        (sde_name, name, *rest)
        for name, sde_name in in_turn(SAMPLERS, SDES)
        for rest in [("vectors", 7), ("vectors", 64), ("images", 7)]
    ],
)
def test_samples_do_not_depend_on_the_batch(sde_name, name, kind, batch):
    sde, shape = make_sde(sde_name), SHAPES[kind]
    sampler, oracle, count = short(name), Oracle(sde, mixture(shape)), batch + 6
    whole = run_in_batches(sde, sampler, oracle, shape, count, count)
    cut = run_in_batches(sde, sampler, oracle, shape, count, batch)
    torch.testing.assert_close(cut, whole, rtol=1e-8, atol=1e-8)  # rounding grows along a path that passes a ridge


@pytest.mark.parametrize("rule, depends", [("kernel", False), ("sample_norms", False), ("batch_norms", True)])
def test_only_batch_norms_depends_on_the_batch(rule, depends):
    sde = make_sde("ve")
    sampler = PredictorCorrector(Uniform(), 20, ReverseDiffusion(), Langevin(rule=rule))
    oracle = Oracle(sde, mixture((2,)))
    difference = run_in_batches(sde, sampler, oracle, (2,), 70, 70) - run_in_batches(sde, sampler, oracle, (2,), 70, 7)
    assert (float(difference.abs().max()) > 1e-3) if depends else (float(difference.abs().max()) < 1e-10)


@pytest.mark.parametrize(
    "predictor, corrector, each",
    [(ReverseDiffusion(), None, 1), (None, Langevin(), 1), (Ancestral(), Langevin(count=3), 4)],
)
@pytest.mark.parametrize("last", ["none", "flow", "tweedie"])
def test_number_of_evaluations(shape, predictor, corrector, each, last):
    """One call for each predictor and each Langevin step, one more for the last step; of all samples at once, at times
    in [eps, T].
    """
    ends = last != "none"
    sde = make_sde("vp")
    times = []

    def score(x, t):
        assert t.shape == (3,)
        times.append(float(t[0]))
        return -x

    counted = Counted(score)
    normals = [0]

    def randn_like(x):
        normals[0] += 1
        return torch.randn_like(x)

    PredictorCorrector(Uniform(), 15, predictor, corrector, last)(sde, counted, torch.randn(3, *shape), randn_like)
    assert counted.calls == 15 * each + ends and counted.evaluations == 3 * counted.calls
    assert normals[0] == 15 * each
    grid = Uniform()(sde, 15).tolist()
    expected = []
    for t, s in pairwise(grid):
        expected += ([t] if predictor else []) + ([s] * corrector.count if corrector else [])
    assert times == pytest.approx(expected + [sde.eps] * ends, rel=1e-6)


@pytest.mark.parametrize("name, sde_name", in_turn(SAMPLERS, SDES))
def test_the_last_step_by_hand(name, sde_name):
    """x itself, (x + sigma^2/2 score)/alpha and (x + sigma^2 score)/alpha at eps."""
    sde = make_sde(sde_name)
    score, x = GaussianScore(sde, 0.3, 0.8), {}
    for last in ("none", "flow", "tweedie"):
        torch.manual_seed(1)
        start = sde.prior_std * torch.randn(5, 2, dtype=torch.float64)
        x[last] = short(name, last=last)(sde, score, start, torch.randn_like)
    alpha, sigma = (function(torch.tensor(sde.eps, dtype=torch.float64)) for function in (sde.alpha, sde.sigma))
    gradient = (alpha * 0.3 - x["none"]) / (alpha**2 * 0.8**2 + sigma**2)
    for last, share in (("flow", 0.5), ("tweedie", 1.0)):
        expected = (x["none"] + share * sigma**2 * gradient) / alpha
        torch.testing.assert_close(x[last], expected, rtol=1e-9, atol=1e-9)


def test_width_is_the_table_of_last():
    sde = make_sde("vp")
    for last in ("flow", "tweedie", "none"):
        for std, exact in zip(STDS, widths(sde, last, STDS).tolist(), strict=True):
            assert width(last, math.exp(-2 * float(sde.ends()[1])) / std**2) == pytest.approx(exact, rel=1e-12)
    assert width("flow", 0.5) == pytest.approx(1.0206, abs=1e-4) and width("flow", 4.0) == pytest.approx(
        1.342, abs=1e-3
    )


@pytest.mark.parametrize(
    "make_one",
    [
        lambda last: PredictorCorrector(Uniform(), 10, Ancestral(), last=last),
        lambda last: ProbabilityFlow(last=last),
        lambda last: AdaptiveSDE(last=last),
        lambda last: AnnealedLangevin(last=last),
        lambda last: Auto(last=last),
    ],
)
def test_an_unknown_last_step_is_refused(make_one):
    with pytest.raises(ValueError, match="`last`=denoise must be one of flow, tweedie, none"):
        make_one("denoise")


@pytest.mark.parametrize("name", SAMPLERS)
def test_film_and_progress_change_nothing(name, shape):
    sde = make_sde("subvp")
    sampler, score, found = short(name, last="none"), GaussianScore(sde, 0.3, 0.8), []
    start = sde.prior_std * torch.randn(5, *shape, dtype=torch.float64)
    film, shares = Film(rows=3, frames=5), []
    for keys in ({}, {"film": film, "on_step": shares.append}):
        torch.manual_seed(1)
        found.append(sampler(sde, score, start, torch.randn_like, **keys))
    assert torch.equal(*found)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert len(film.times) == len(film.states) == 5 and film.times == sorted(film.times, reverse=True)
    assert film.times[0] == pytest.approx(sde.T) and film.times[-1] == pytest.approx(sde.eps)
    assert torch.equal(film.states[0], start[:3])
    torch.testing.assert_close(film.states[-1], found[0][:3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "torchdiffeq.dopri5", "torchdiffeq.rk4"])
def test_probability_flow_is_the_exact_map(sde, shape, method):
    """On a Gaussian the flow is x_eps = alpha m + sqrt(v_eps/v_T) (x_T - alpha_T m), for every sample."""
    score = GaussianScore(sde, 0.3, 0.8)
    (m_T, v_T), (m, v) = score.moments(sde.T), score.moments(sde.eps)
    x = m_T + v_T.sqrt() * torch.randn(4, *shape, dtype=torch.float64)
    flow = ProbabilityFlow(method=method, rtol=1e-8, atol=1e-8, steps=1000, last="none")
    tolerance = (
        1e-6 if method != "torchdiffeq.rk4" or sde.sigma(torch.tensor(0.0)) > 0 else 5e-3
    )  # sigma ~ sqrt(t) is not smooth at 0
    torch.testing.assert_close(
        flow(sde, score, x, torch.randn_like), m + (v / v_T).sqrt() * (x - m_T), rtol=tolerance, atol=tolerance
    )


def test_probability_flow_takes_no_noise():
    def never(x):
        raise AssertionError

    sde = make_sde("vp")
    ProbabilityFlow(rtol=1e-3, atol=1e-3)(sde, GaussianScore(sde), torch.randn(3, 2), never)


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SAMPLERS if issubclass(kind("sampler", name), PredictorCorrector)])
def test_parts_can_be_swapped(name):
    """The keys that a sampler's yaml sets for one part are not passed to another part in its place."""
    found = make("sampler", f"sampler={name}", "sampler/grid=uniform", "sampler/predictor=ancestral")
    assert (found.grid, found.predictor) == (Uniform(), Ancestral())


# --- grids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 100])
def test_grids_fall_from_T_to_eps(sde, name, steps):
    grid = grid_of(name)(sde, steps)
    assert grid.dtype == torch.float64 and len(grid) == steps + 1
    assert float(grid[0]) == sde.T and float(grid[-1]) == sde.eps
    assert bool((grid.diff() < 0).all())


def test_uniform_grid():
    for sde in (VE(), VP(), SubVP(), Toy()):
        gaps = Uniform()(sde, 50).diff()
        torch.testing.assert_close(gaps, torch.full_like(gaps, (sde.eps - sde.T) / 50), rtol=1e-9, atol=0)
    sde = EDM()  # where t is the noise, even steps are Karras'
    torch.testing.assert_close(Uniform()(sde, 50), Karras(7.0)(sde, 50), rtol=1e-9, atol=0)


def test_log_snr_grid(sde):
    half_log_snr = sde.half_log_snr(LogSNR()(sde, 50))
    gaps = half_log_snr.diff()
    torch.testing.assert_close(
        gaps, torch.full_like(gaps, float(half_log_snr[-1] - half_log_snr[0]) / 50), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_grid(sde, rho):
    """arXiv 2206.00364, eq. 5: (smax^{1/rho} + i/N (smin^{1/rho} - smax^{1/rho}))^rho for sigma/alpha."""
    t = Karras(rho)(sde, 20)
    ratio = sde.sigma(t) / sde.alpha(t)
    most, least = float(ratio[0]), float(ratio[-1])
    exact = [(most ** (1 / rho) + i / 20 * (least ** (1 / rho) - most ** (1 / rho))) ** rho for i in range(21)]
    torch.testing.assert_close(ratio, torch.tensor(exact, dtype=torch.float64), rtol=1e-7, atol=1e-10)


# --- yaml and errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("corrector", CORRECTORS)
def test_parts_swap_on_the_command_line(predictor, corrector):
    sampler = make(
        "sampler",
        "sampler=pc",
        f"sampler/predictor={predictor}",
        f"sampler/corrector={corrector}",
        "sampler/grid=karras",
    )
    assert type(sampler.predictor) is type(make("sampler.predictor", "sampler=em", f"sampler/predictor={predictor}"))
    assert (
        type(sampler.corrector) is type(make("sampler.corrector", f"sampler/corrector={corrector}", "sampler=pc"))
        and type(sampler.grid) is Karras
    )
    assert make("sampler", "sampler=pc", "~sampler/corrector").corrector is None


def test_published_settings():
    assert make("sampler.corrector", "sampler=pc") == Langevin(snr=0.16, count=1, rule="kernel")
    assert {
        name: type(make("sampler", f"sampler={name}").predictor)
        for name in ("em", "ancestral", "reverse_diffusion", "pc")
    } == {"em": EulerMaruyama, "ancestral": Ancestral, "reverse_diffusion": ReverseDiffusion, "pc": ReverseDiffusion}
    assert compose("sampler=ode")["sampler"]["rtol"] == compose("sampler=ode")["sampler"]["atol"] == 1e-5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: PredictorCorrector(Uniform(), 0, Ancestral()), "`steps`=0"),
        (lambda: PredictorCorrector(Uniform(), 10), "sampler/predictor"),
        (lambda: Langevin(snr=0.0), "`snr`=0.0"),
        (lambda: Langevin(snr=math.nan), "`snr`=nan"),
        (lambda: Langevin(count=0), "`count`=0"),
        (lambda: Langevin(rule="norms"), "`rule`=norms"),
        (lambda: Karras(0.0), "`rho`=0.0"),
        (lambda: Karras(math.nan), "`rho`=nan"),
        (lambda: ProbabilityFlow(method="euler"), "`method`=euler"),
        (lambda: ProbabilityFlow(rtol=0.0), "`rtol`=0.0"),
        (lambda: ProbabilityFlow(atol=-1.0), "`atol`=-1.0"),
        (lambda: ProbabilityFlow(steps=0), "`steps`=0"),
    ],
)
def test_bad_arguments_name_the_key(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_sde_is_sampled():
    assert set(SDES) >= {"ve", "vp", "subvp", "toy", "custom"} and set(SAMPLERS) >= {
        "em",
        "pc",
        "ode",
        "ancestral",
        "reverse_diffusion",
        "ald",
    }


@pytest.mark.parametrize(
    "nfe, predictor", [(3, "AdamsBashforth"), (15, "AdamsBashforth"), (16, "UniPC"), (1000, "SEA")]
)
def test_auto_spends_its_budget(nfe, predictor):
    sde, sampler = make_sde("vp"), make_sampler("auto", nfe=nfe)
    counted = Counted(GaussianScore(sde, 0.3, 0.8))
    sampler(sde, counted, torch.randn(3, 2, dtype=torch.float64), torch.randn_like)
    assert nfe - 1 <= counted.calls <= nfe
    assert type(sampler.choice.predictor).__name__ == predictor and predictor in sampler.title


def test_auto_refuses_a_budget_of_nothing():
    with pytest.raises(ValueError, match="`nfe`=2"):
        Auto(nfe=2)
