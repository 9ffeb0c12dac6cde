"""Conditioning: exact where an approximation is exact, and near the closed form where it ought to be."""

import math

import pytest
import torch

from scoresde.metrics import sliced_wasserstein
from scoresde.models import Oracle
from scoresde.samplers import (
    DPS,
    MMPS,
    TDS,
    AdaptiveSDE,
    Ancestral,
    Colourise,
    Deblur,
    Dense,
    EulerMaruyama,
    ExactPosterior,
    Half,
    Karras,
    Langevin,
    Mask,
    Measurement,
    PiGDM,
    PredictorCorrector,
    ProbabilityFlow,
    Projection,
    ReverseDiffusion,
    SMCDiff,
    Superresolve,
    Uniform,
)
from scoresde.samplers.guidance import conjugate_gradients
from scoresde.sde_lib import VE, VP, BlockNoise, Counted, of_rows

from .conftest import (
    PREDICTORS,
    SAMPLERS,
    SDES,
    GaussianScore,
    draw_mixture,
    in_turn,
    make,
    make_sampler,
    make_sde,
    mixture,
)

PICTURE = (3, 8, 6)
SLANTED = Dense((2,), 0.3, torch.tensor([[1.0, 0.6]]))
GAUSSIAN_OPERATORS = {
    "half": Half((2,)),
    "noisy half": Half((2,), noise=0.4),
    "matrix": SLANTED,
    "picture's half": Half(PICTURE),
    "colourise": Colourise(PICTURE, noise=0.2),
    "superresolve": Superresolve(PICTURE),
    "deblur": Deblur(PICTURE, 1.5, noise=0.1),
}


def measure(operator, x, draws=1):
    y = operator(x) + operator.noise * torch.randn_like(operator(x))
    y = y.repeat_interleave(draws, 0)
    return Measurement(operator.rows(torch.arange(len(x)).repeat_interleave(draws)), y, operator.noise, draws)


class Correlated:
    """The exact score of N(0, [[1, rho], [rho, 1]]) under an SDE."""

    def __init__(self, sde, rho=0.8):
        self.sde, self.covariance = sde, torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)

    def __call__(self, x, t):
        alpha, sigma = self.sde.alpha(t).to(x), self.sde.sigma(t).to(x)
        spread = alpha[:, None, None] ** 2 * self.covariance.to(x) + sigma[:, None, None] ** 2 * torch.eye(2).to(x)
        return -torch.linalg.solve(spread, x[..., None])[..., 0]

    def under(self, sde, other):
        return Correlated(other, float(self.covariance[0, 1]))


def posterior(conditioner, sde, score, measurement):
    return conditioner.condition(make_sampler("em"), sde, score, measurement)[1]


def times(sde, count):
    return torch.linspace(sde.eps, sde.T, count, dtype=torch.float64)


# The score of the posterior


@pytest.mark.parametrize("name", GAUSSIAN_OPERATORS)
def test_of_one_isotropic_gaussian_three_methods_are_exact(sde, name):
    """The score of p(x_t | y) by autograd of the joint density of x_t and y, written with full matrices."""
    from scoresde.samplers import dense

    operator, mean, std = GAUSSIAN_OPERATORS[name], 0.3, 0.7
    shape = operator.shape
    x_0 = mean + std * torch.randn(4, *shape, dtype=torch.float64)
    measurement, t = measure(operator, x_0), times(sde, 6)[1:5]
    x = sde.perturb(x_0, t, torch.randn_like(x_0))
    score = GaussianScore(sde, mean, std)
    A, dim = dense(operator), math.prod(shape)
    A = torch.linalg.svd(A, full_matrices=False)
    seen = A.S > 1e-6
    A, y = A.S[seen, None] * A.Vh[seen], measurement.y.flatten(1) @ A.U[:, seen]

    expected = []
    for n in range(4):
        alpha, sigma = sde.alpha(t[n]), sde.sigma(t[n])
        at = x[n].flatten().clone().requires_grad_()
        spread = alpha**2 * std**2 + sigma**2
        m = mean + std**2 * alpha / spread * (at - alpha * mean)
        V = std**2 * sigma**2 / spread * A @ A.T + operator.noise**2 * torch.eye(len(A), dtype=torch.float64)
        joint = -0.5 * (at - alpha * mean).square().sum() / spread
        joint = joint - 0.5 * (y[n] - A @ m) @ torch.linalg.solve(V, y[n] - A @ m)
        expected.append(torch.autograd.grad(joint, at)[0].reshape(shape))
    expected = torch.stack(expected)
    components = torch.ones(1), torch.full((1, dim), mean), torch.tensor([std], dtype=torch.float64)
    exact = ExactPosterior(components)
    for conditioner in (PiGDM(sigma_data=std), MMPS(iterations=80, tolerance=0.0), exact):
        found = posterior(conditioner, sde, score, measurement)(x, t)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())), conditioner


def test_of_any_gaussian_moment_matching_is_exact(sde):
    """p(x_t | y) of a correlated Gaussian has the covariance of the Gaussian conditional, noised."""
    score, operator = Correlated(sde), SLANTED
    x_0, t = torch.randn(5, 2, dtype=torch.float64), times(sde, 7)[1:6]
    measurement, C, A = measure(operator, x_0), score.covariance, operator.matrix
    gain = C @ A.T / (A @ C @ A.T + 0.3**2)
    mean, covariance = measurement.y @ gain.T, C - gain @ A @ C
    x = sde.perturb(x_0, t, torch.randn_like(x_0))
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    noised = alpha[:, None, None] ** 2 * covariance + sigma[:, None, None] ** 2 * torch.eye(2)
    expected = torch.linalg.solve(noised, (alpha[:, None] * mean - x)[..., None])[..., 0]
    found = posterior(MMPS(), sde, score, measurement)(x, t)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)
    rough = posterior(PiGDM(bound=None), sde, score, measurement)(x, t)
    off = (rough - expected).abs().amax(1) / expected.abs().amax(1)
    assert off.max() > 0.05, "which the isotropic guess is not"


def test_the_mixtures_posterior_score_is_that_of_quadrature(sde):
    """log p(x_t | y) as an integral over x_0 in the plane, its gradient by autograd."""
    components = mixture((2,))
    operator, exact = Dense((2,), 0.5, torch.tensor([[1.0, -0.7]])), ExactPosterior(components)
    x_0 = draw_mixture(components, 3, (2,))
    # levels at which x_t neither is x_0 nor has forgotten it
    t = torch.tensor([sde.time_of(ratio, "ratio") for ratio in (0.3, 0.7, 1.5)], dtype=torch.float64)
    measurement = measure(operator, x_0)
    x = sde.perturb(x_0, t, torch.randn_like(x_0)).requires_grad_()
    axis = torch.linspace(-3, 3.5, 600, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    weights, means, stds = components
    away = (grid[:, None] - means).square().sum(-1)
    prior = torch.logsumexp(weights.log() - 2 * stds.log() - away / (2 * stds**2), 1)
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    kernel = -(x[:, None] - alpha[..., None] * grid).square().sum(-1) / (2 * sigma**2)
    like = -(measurement.y - operator(grid).T).square() / (2 * 0.5**2)
    (expected,) = torch.autograd.grad(torch.logsumexp(prior + kernel + like, 1).sum(), x)
    found = posterior(exact, sde, Oracle(sde, components), measurement)(x.detach(), t)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("operator", [SLANTED, Half((2,))], ids=["matrix", "half"])
def test_exact_draws_have_the_moments_of_quadrature(operator):
    components, draws = mixture((2,)), 40_000
    x_0 = torch.tensor([[0.2, 0.5]], dtype=torch.float64)
    measurement = measure(operator, x_0, draws)
    drawn = ExactPosterior(components).draw(measurement, torch.Generator().manual_seed(0))
    if operator.noise:
        axis = torch.linspace(-3, 3.5, 800, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        like = -(measurement.y[0] - operator(grid)).square()[:, 0] / (2 * 0.3**2)
    else:
        axis = torch.linspace(-3, 3.5, 4000, dtype=torch.float64)
        grid, like = torch.stack([torch.full_like(axis, 0.2), axis], 1), 0.0
        assert (drawn[:, 0] - 0.2).abs().max() < 1e-12
    weights, means, stds = components
    prior = weights.log() - 2 * stds.log() - (grid[:, None] - means).square().sum(-1) / (2 * stds**2)
    share = torch.softmax(torch.logsumexp(prior, 1) + like, 0)
    for power in (1, 2, 3):
        wanted, found = share @ grid**power, drawn**power
        error = 4 * found.std(0) / draws**0.5 + 1e-9
        assert ((found.mean(0) - wanted).abs() < error).all()


def test_exact_draws_of_one_gaussian_have_its_conditionals_covariance():
    draws, v, A = 40_000, 0.5, SLANTED.matrix
    components = torch.ones(1), torch.zeros(1, 2), torch.tensor([v**0.5], dtype=torch.float64)
    measurement = measure(SLANTED, torch.tensor([[0.2, 0.5]], dtype=torch.float64), draws)
    drawn = ExactPosterior(components).draw(measurement, torch.Generator().manual_seed(0))
    gain = v * A.T / (v * A @ A.T + 0.3**2)
    covariance = v * torch.eye(2, dtype=torch.float64) - v * gain @ A
    assert torch.allclose(torch.cov(drawn.T), covariance, atol=5 * v * (2 / draws) ** 0.5)
    assert torch.allclose(drawn.mean(0), (gain @ measurement.y[0]), atol=5 * (v / draws) ** 0.5)


def test_dps_as_published_is_its_step():
    """One Euler-Maruyama step of length T/N ends zeta times the gradient of the residual's norm, squared over itself,
    away from where the prior's ends.
    """
    sde, operator = VP(), Dense((4,), 0.0, torch.randn(2, 4, dtype=torch.float64))
    score = GaussianScore(sde, 0.2, 0.8)
    x_0 = torch.randn(3, 4, dtype=torch.float64)
    measurement, zeta = measure(operator, x_0), 0.3
    guided = posterior(DPS(scale=zeta, bound=None), sde, score, measurement)
    t = torch.full((3,), 0.4, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64).requires_grad_()
    h = sde.T / 1000
    away = h * sde.g(t)[:, None] ** 2 * (guided(x.detach(), t) - score(x, t))
    norms = measurement.residual(sde.denoise(score, x, t)).norm(dim=1)
    (gradient,) = torch.autograd.grad(norms.square().sum(), x)
    assert torch.allclose(away, -zeta * gradient / norms[:, None], rtol=1e-8)


def test_dps_as_a_likelihood_is_its_gradient():
    sde, score = VE(), GaussianScore(VE(), 0.2, 0.8)
    measurement = measure(SLANTED, torch.randn(3, 2, dtype=torch.float64))
    t, x = torch.full((3,), 0.4, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64).requires_grad_()
    log_prob = -measurement.residual(sde.denoise(score, x, t)).square().sum() / (2 * 0.3**2)
    (gradient,) = torch.autograd.grad(log_prob, x)
    found = posterior(DPS(rule="gaussian", bound=None), sde, score, measurement)(x.detach(), t)
    assert torch.allclose(found, score(x, t) + gradient, rtol=1e-8)


def test_conjugate_gradients_solve_each_sample_by_itself():
    half = torch.randn(3, 5, 5, dtype=torch.float64)
    M, b = half @ half.mT + 0.1 * torch.eye(5), torch.randn(3, 5, dtype=torch.float64)
    b[1] = 0
    found = conjugate_gradients(lambda v: (M @ v[..., None])[..., 0], b, 12, 1e-12)
    assert torch.allclose(found, torch.linalg.solve(M, b[..., None])[..., 0], rtol=1e-6, atol=1e-9)
    assert torch.equal(found[1], torch.zeros(5, dtype=torch.float64))


# Samplers run on it


def two_conditions(count, dtype=torch.float32):
    """Rows that alternate between two values of x_1: a sampler that mixed up its rows would be seen at once."""
    x_1 = torch.tensor([1.0, -0.8], dtype=dtype).repeat(count // 2)
    y = torch.stack([x_1, torch.zeros_like(x_1)], 1)
    return Measurement(Half((2,)), y, 0.0), x_1


def run(conditioner, sampler, sde, score, measurement, seed=0):
    sampler, score = conditioner.condition(sampler, sde, score, measurement)
    count, dtype = len(measurement.y), measurement.y.dtype
    start, noise = (
        BlockNoise(seed, 0, count, measurement.operator.shape, dtype, stream=s) for s in ("prior", "sampler")
    )
    return sampler(sde, score, start() * sde.prior_std, noise)


def fast(name):
    steps = 400 if name == "ald" else 40
    return make_sampler(name, steps=steps, rtol=1e-3 if name == "ode" else 0.05, atol=1e-3 if name == "ode" else 0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_a_gaussians_conditional(name):
    """rho = 0.8: x_2 given x_1 is N(0.8 x_1, 0.36). Annealed Langevin is biased at any number of steps."""
    count, sde = 300, VP()
    measurement, x_1 = two_conditions(count)
    x = run(MMPS(), fast(name), sde, Correlated(sde), measurement)
    assert torch.equal(x[:, 0], x_1)
    for value in (1.0, -0.8):
        own = x[x_1 == value, 1].double()
        bound = 4 * 0.6 / (count / 2) ** 0.5
        assert abs(float(own.mean()) - 0.8 * value) < bound + 0.03
        assert abs(float(own.std()) - 0.6) < bound / 2**0.5 + (0.3 if name == "ald" else 0.05)


@pytest.mark.parametrize(
    "sampler",
    [ProbabilityFlow(rtol=1e-2, atol=1e-2), ProbabilityFlow(clock="t", rtol=1e-2, atol=1e-2), AdaptiveSDE(0.2, 0.1)],
    ids=["ode", "ode in t", "adaptive"],
)
@pytest.mark.parametrize("conditioner", [PiGDM(), Projection()], ids=["pigdm", "projection"])
def test_a_sample_does_not_depend_on_its_batch(sampler, conditioner):
    """Also where samples leave the batch before others: each meets its own measurement."""
    sde, components = VP(), mixture((2,))
    measurement, _ = two_conditions(8, torch.float64)
    together = run(conditioner, sampler, sde, Oracle(sde, components), measurement)
    for n in (1, 6):
        single, score = conditioner.condition(
            sampler, sde, Oracle(sde, components), measurement.rows(torch.tensor([n]))
        )
        start, noise = (BlockNoise(0, n, 1, (2,), torch.float64, stream=s) for s in ("prior", "sampler"))
        assert torch.allclose(single(sde, score, start() * sde.prior_std, noise)[0], together[n], atol=1e-9)


def test_a_counted_score_of_rows_counts():
    measurement, _ = two_conditions(6)
    counted = Counted(posterior(PiGDM(), VP(), GaussianScore(VP()), measurement))
    of_rows(counted, torch.tensor([0, 3]))(torch.zeros(2, 2), torch.full((2,), 0.5))
    assert counted.evaluations == 2 and not hasattr(Counted(GaussianScore(VP())), "of_rows")


# Replacement


@pytest.mark.parametrize("name, process", in_turn(SAMPLERS, SDES))
def test_replacement_of_independent_coordinates(name, process):
    """x_2 owes nothing to x_1: it keeps its law under every sampler, and x_1 is what was measured."""
    sde, count = make_sde(process), 400
    measurement, x_1 = two_conditions(count)
    sampler = plain = make_sampler(name, steps=20, rtol=1e-2, atol=1e-2)
    x = run(Projection(), sampler, sde, GaussianScore(sde, 0.5, 0.9), measurement)
    assert torch.equal(x[:, 0], x_1)
    start, noise = (BlockNoise(1, 0, count, (2,), torch.float32, stream=s) for s in ("prior", "sampler"))
    free = plain(sde, GaussianScore(sde, 0.5, 0.9), start() * sde.prior_std, noise)[:, 1]
    assert abs(float(x[:, 1].mean() - free.mean())) < 5 * float(free.std()) * (2 / count) ** 0.5
    assert abs(float(x[:, 1].std() / free.std()) - 1) < 5 / count**0.5


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_what_is_replaced_has_the_noise_of_its_time(predictor):
    """After every step of a predictor and of the corrector x_1 is alpha(s) y + sigma(s) z at the time s reached, and
    not at the step's start; also at the very start. mean holds alpha(s) y.
    """
    sde, count, seen = VP(), 4000, {}
    y = torch.tensor([[1.5, 0.0]]).expand(count, 2)
    measurement = Measurement(Half((2,)), y, 0.0)
    step = make("sampler", "sampler=pc", f"sampler/predictor={predictor}").predictor
    sampler = PredictorCorrector(Uniform(), 4, step, Langevin(count=3), last="none")
    wrapped, score = Projection().condition(sampler, sde, GaussianScore(sde), measurement)
    inner = wrapped.sampler.sampler

    class Watch:
        def __init__(self, part):
            self.part = part

        def __getattr__(self, name):
            return getattr(self.part, name)

        def __call__(self, row, score, x, z, memory):
            result = self.part(row, score, x, z, memory)
            seen.setdefault("start", x)
            seen[round(row.alpha, 9), id(self)] = (row, *result[:2])
            return result

    object.__setattr__(inner, "predictor", Watch(inner.predictor))
    object.__setattr__(inner, "corrector", Watch(inner.corrector))
    noise = BlockNoise(0, 0, count, (2,), torch.float32)
    wrapped(sde, score, torch.randn(count, 2) * sde.prior_std, noise)
    start = seen.pop("start")[:, 0]
    end = torch.tensor(sde.T, dtype=torch.float64)
    assert abs(float(start.mean()) - 1.5 * float(sde.alpha(end))) < 4 / count**0.5
    assert abs(float(start.std()) - 1) < 4 / count**0.5, "noise, and not clean data, at T"
    grid = Uniform()(sde, 4)[1:]
    found = sorted({row.alpha for row, *_ in seen.values()})
    assert found == pytest.approx(sorted(sde.alpha(grid).tolist())) and len(seen) == 8
    for row, x, mean in seen.values():
        assert abs(float(x[:, 0].mean()) - row.alpha * 1.5) < 4.5 * row.sigma / count**0.5
        assert abs(float(x[:, 0].std()) / row.sigma - 1) < 4.5 / count**0.5
        assert torch.allclose(mean[:, 0], torch.full((), row.alpha * 1.5), atol=1e-6)


def test_the_decoupled_space_of_colours_is_replaced():
    """x's grey part is replaced, what is orthogonal to it untouched; at T as well."""
    sde, operator = VP(), Colourise(PICTURE)
    x_0, x, z = torch.randn(3, 2, *PICTURE, dtype=torch.float64)
    measurement = measure(operator, x_0)
    found = measurement.replace(x, measurement.target, 0.6, 0.8, z)
    assert torch.allclose(operator(found), 0.6 * operator(x_0) + 0.8 * operator(z))
    colour = torch.randn(2, *PICTURE, dtype=torch.float64)
    colour = colour - operator.pseudo_inverse(operator(colour))
    assert torch.allclose((found * colour).sum(), (x * colour).sum())
    held = run(Projection(), make_sampler("pc", steps=3), sde, GaussianScore(sde), measurement)
    assert torch.allclose(operator(held), measurement.y, atol=1e-12)


def test_noisy_measurements_are_replaced_while_they_know_more_than_x():
    """A^+ y has noise s already: sigma^2 - (alpha s)^2 is added, and nothing replaced below."""
    operator = Mask((2,), 0.5, torch.tensor([[1.0, 0.0]]))
    x_0 = torch.zeros(20_000, 2, dtype=torch.float64)
    measurement = measure(operator, x_0)
    x, z = torch.full_like(x_0, 7.0), torch.randn_like(x_0)
    found = measurement.replace(x, measurement.target, 0.8, 0.6, z)
    assert abs(float(found[:, 0].std()) - 0.6) < 0.015 and bool((found[:, 1] == 7).all())
    assert torch.equal(measurement.replace(x, measurement.target, 0.8, 0.3, z), x)
    with pytest.raises(ValueError, match="works only with exact measurements.*conditioner=pigdm"):
        Projection().condition(ProbabilityFlow(), VP(), GaussianScore(VP()), measurement)


def test_going_back_up_helps():
    """One round ends at a variance that is too large; ten rounds come near the conditional."""
    count, sde = 1500, VP()
    measurement, x_1 = two_conditions(count)
    off = []
    for conditioner in (Projection(), Projection(rounds=10)):
        sampler = PredictorCorrector(Karras(), 40, Ancestral())
        x = run(conditioner, sampler, sde, Correlated(sde, 0.95), measurement)
        off.append(float((x[:, 1] - 0.95 * x_1).square().mean().sqrt()) - (1 - 0.95**2) ** 0.5)
    assert off[0] > 0.05 and abs(off[1]) < 0.4 * off[0]


# Particles


def test_particles_come_to_the_exact_posterior():
    """On a mixture guided samples take the wrong share of each component; weights put that right."""
    sde, draws = VP(), 800
    weights, means, _ = mixture((2,))
    components = weights, means, torch.tensor([0.35, 0.2, 0.45])
    exact = ExactPosterior(components)
    x_0 = torch.tensor([[-0.4, -0.4]])
    measurement = measure(Half((2,)), x_0, draws)
    score = Oracle(sde, components).float()
    wanted, other = (exact.draw(measurement, torch.Generator().manual_seed(s)).double() for s in (0, 1))
    sampler = PredictorCorrector(Karras(), 60, Ancestral())
    found = {
        type(c).__name__: sliced_wasserstein(run(c, sampler, sde, score, measurement), wanted)
        for c in (TDS(particles=draws), PiGDM(), Projection())
    }
    floor = sliced_wasserstein(other, wanted)
    assert found["TDS"] < 2 * floor and min(found["PiGDM"], found["Projection"]) > 5 * floor, (found, floor)


def test_particles_are_drawn_within_their_measurement():
    """Two measurements of ten draws each, more particles than draws; and the same whatever the batch."""
    sde, components = VE(), mixture((2,))
    x_0 = torch.tensor([[1.2, 0.0], [-1.2, 0.0]], dtype=torch.float64)
    measurement, score = measure(Half((2,)), x_0, 10), Oracle(sde, components)
    sampler = PredictorCorrector(Karras(), 30, Ancestral())
    x = run(TDS(particles=40), sampler, sde, score, measurement)
    assert torch.allclose(x[:, 0], x_0[:, 0].repeat_interleave(10), atol=1e-12) and x.shape == (20, 2)
    second = Measurement(measurement.operator, measurement.y[10:], 0.0, 10)
    sampler, score = TDS(particles=40).condition(sampler, sde, score, second)
    start, noise = (BlockNoise(0, 10, 10, (2,), torch.float64, stream=s) for s in ("prior", "sampler"))
    assert torch.allclose(sampler(sde, score, start() * sde.prior_std, noise), x[10:], atol=1e-9)


@pytest.mark.parametrize("predictor", [EulerMaruyama(), ReverseDiffusion(), Ancestral()], ids=str)
def test_weights_do_not_change_what_is_right_already(predictor):
    """For one Gaussian the guided steps are exact except for their length: the particles have the conditional's law."""
    sde, draws = VP(), 1000
    measurement = measure(Half((2,), noise=0.5), torch.tensor([[1.0, 0.0]]), draws)
    sampler = PredictorCorrector(Karras(), 80, predictor)
    x = run(TDS(particles=draws), sampler, sde, GaussianScore(sde), measurement)
    y = float(measurement.y[0, 0])
    assert abs(float(x[:, 0].mean()) - y / 1.25) < 0.06 and abs(float(x[:, 0].std()) - (0.25 / 1.25) ** 0.5) < 0.04
    assert abs(float(x[:, 1].mean())) < 0.15 and abs(float(x[:, 1].std()) - 1) < 0.1


def test_particles_end_at_what_they_and_the_measurement_say_of_x_0():
    """E[x_0 | x_eps, y] for an eps with so much noise that x_eps determines little: its mean is the conditional's."""
    sde, draws = VP(eps=0.3), 600
    measurement = measure(Half((2,), noise=0.5), torch.tensor([[1.0, 0.0]], dtype=torch.float64), draws)
    sampler = PredictorCorrector(Karras(), 30, Ancestral())
    x = run(TDS(particles=draws), sampler, sde, GaussianScore(sde), measurement)
    assert float(x[:, 0].mean()) == pytest.approx(float(measurement.y[0, 0]) / 1.25, abs=0.06)


# Refusals


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: DPS(scale=0.0), "`scale`=0.0 must be positive"),
        (lambda: DPS(steps=0), "`steps`=0 must be at least 1"),
        (lambda: PiGDM(0.0), "`sigma_data`=0.0 must be positive"),
        (lambda: PiGDM(bound=0.0), "`bound`=0.0 must be positive, or null for none"),
        (lambda: MMPS(bound=-1.0), "`bound`=-1.0 must be positive"),
        (lambda: DPS(bound=float("inf")), "`bound`=inf must be positive"),
        (lambda: TDS(bound=0.0), "`bound`=0.0 must be positive"),
        (lambda: SMCDiff(particles=1), "`particles`=1 must be at least 2"),
        (lambda: SMCDiff(steps=0), "`steps`=0 must be at least 1"),
        (lambda: SMCDiff(share=1.5), "`share`=1.5 must be above 0"),
        (lambda: SMCDiff(sigma_data=0.0), "`sigma_data`=0.0 must be positive"),
        (lambda: MMPS(iterations=0), "`iterations`=0 must be at least 1"),
        (lambda: MMPS(tolerance=1.0), "`tolerance`=1.0 must be at least 0"),
        (lambda: Projection(0), "`rounds`=0 must be at least 1"),
        (lambda: TDS(particles=1), "`particles`=1 must be at least 2"),
        (lambda: TDS(share=0.0), "`share`=0.0 must be above 0"),
        (lambda: ExactPosterior(None), "conditioner=exact needs data whose density is a mixture"),
    ],
)
def test_mistakes_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_what_does_not_go_together_is_refused():
    exact, score = measure(Half((2,)), torch.zeros(2, 2)), GaussianScore(VP())
    for conditioner, sampler, message in [
        (DPS(rule="gaussian"), make_sampler("em"), "divides by the measurement's noise, operator.noise=0"),
        (DPS(), make_sampler("ode"), "would follow for ever; type sampler=ancestral, or conditioner=pigdm"),
        (DPS(), make_sampler("adaptive"), "would follow for ever"),
        (TDS(), make_sampler("pc"), "no corrector; type sampler=ancestral"),
        (TDS(), make_sampler("ode"), "no corrector; type sampler=ancestral"),
        (Projection(rounds=3), make_sampler("ode"), "conditioner.rounds=3: going back up needs"),
    ]:
        with pytest.raises(ValueError, match=message):
            conditioner.condition(sampler, VP(), score, exact)
