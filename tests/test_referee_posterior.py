"""A referee's posteriors: full covariances, weights of 0.9 and 0.03, narrow components, heavy tails, odd widths.

The posteriors are conditionals of Gaussians, written here with full matrices.
"""

import math

import pytest
import torch

from scoresde.data import Data
from scoresde.metrics import sliced_wasserstein
from scoresde.models import Oracle
from scoresde.samplers import (
    DPS,
    MMPS,
    TDS,
    Ancestral,
    Columns,
    Dense,
    ExactPosterior,
    Half,
    Karras,
    Langevin,
    LogSNR,
    Mask,
    Measurement,
    PiGDM,
    PredictorCorrector,
    ProbabilityFlow,
    Projection,
    SMCDiff,
    Superresolve,
)
from scoresde.samplers.particles import Particles
from scoresde.samplers.smcdiff import Path
from scoresde.sde_lib import BlockNoise
from scoresde.tasks import Restore
from scoresde.tasks.restore import Problem

from .conftest import SAMPLERS, SDES, in_turn, make_sampler, make_sde, mixture


class FullMixture:
    """The exact score of a mixture of Gaussians of any covariances, and its posterior given y = A x + s n."""

    def __init__(self, sde, weights, means, covariances):
        self.sde, self.weights, self.means, self.covariances = sde, weights, means, covariances
        self.spectra = [torch.linalg.eigh(each) for each in covariances]

    def __call__(self, x, t):
        alpha, sigma = self.sde.alpha(t.double())[:, None], self.sde.sigma(t.double())[:, None]
        logs, pulls = [], []
        for weight, mean, (values, vectors) in zip(self.weights, self.means, self.spectra, strict=True):
            spread = alpha**2 * values + sigma**2
            along = (x.double() - alpha * mean) @ vectors
            logs.append(weight.log() - 0.5 * (along**2 / spread + spread.log()).sum(1))
            pulls.append(-(along / spread) @ vectors.T)
        share = torch.softmax(torch.stack(logs, 1), 1)
        return (share[..., None] * torch.stack(pulls, 1)).sum(1).to(x.dtype)

    def under(self, sde, other):
        return FullMixture(other, self.weights, self.means, self.covariances)

    def given(self, A, y, noise):
        """Weights, means and covariances of p(x | y), A (m, D) and y (m,), noise at least 1e-5 for an exact y."""
        logs, means, covariances = [], [], []
        for weight, mean, C in zip(self.weights, self.means, self.covariances, strict=True):
            S = A @ C @ A.T + noise**2 * torch.eye(len(A), dtype=torch.float64)
            gain, away = torch.linalg.solve(S, A @ C).T, y - A @ mean
            logs.append(weight.log() - 0.5 * (away @ torch.linalg.solve(S, away) + torch.logdet(S)))
            means.append(mean + gain @ away)
            covariances.append(C - gain @ A @ C)
        return torch.softmax(torch.stack(logs), 0), means, covariances

    def shares(self, x):
        """The mean responsibilities of the components of these draws, (K,)."""
        laws = [
            torch.distributions.MultivariateNormal(*each) for each in zip(self.means, self.covariances, strict=True)
        ]
        logs = torch.stack([law.log_prob(x) for law in laws], 1) + self.weights.log()
        return torch.softmax(logs, 1).mean(0)


def referee(sde, dim, seed=0):
    """Three components of weights 0.9, 0.07 and 0.03, turned; the rare one is narrow. Of about unit variance."""
    g = torch.Generator().manual_seed(seed)
    means, covariances = [], []
    for k, (low, high) in enumerate([(0.15, 0.6), (0.1, 0.4), (0.05, 0.1)]):
        turn = torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64))[0]
        stds = torch.logspace(math.log10(low), math.log10(high), dim, dtype=torch.float64)
        covariances.append(turn @ torch.diag(stds**2) @ turn.T)
        means.append(0.9 * torch.randn(dim, generator=g, dtype=torch.float64) - 0.3 * k)
    return FullMixture(sde, torch.tensor([0.9, 0.07, 0.03], dtype=torch.float64), means, covariances)


def operators(dim):
    rows = torch.randn(2, dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return {
        "column": Columns((dim,), [dim - 1]),
        "noisy column": Columns((dim,), [0], noise=0.25),
        "all but one": Mask((dim,), 0.0, (torch.arange(dim)[None] != 1).double()),
        "matrix": Dense((dim,), 0.3, rows / dim**0.5),
        "exact matrix": Dense((dim,), 0.0, rows / dim**0.5),
    }


def draw(conditioner, sampler, sde, score, measurement, seed=0):
    sampler, score = conditioner.condition(sampler, sde, score, measurement)
    shape = measurement.operator.shape
    count, dtype = len(measurement.y), measurement.y.dtype
    start, noise = (BlockNoise(seed, 0, count, shape, dtype, stream=s) for s in ("prior", "sampler"))
    return sampler(sde, score, start() * sde.prior_std, noise)


def pose(law, operator, groups, draws, point):
    """One measurement, ``groups`` times, ``draws`` rows each, and the matrix of A."""
    from scoresde.samplers import dense

    y = operator(point[None])
    y = y.repeat(groups * draws, 1).float()
    A = dense(operator)
    seen = A.abs().sum(1) > 0
    return Measurement(operator, y, operator.noise, draws), A[seen], y[0, seen].double()


@pytest.mark.parametrize(
    "process, dim, name", in_turn(SDES, [3, 5, 7], ["column", "noisy column", "all but one", "matrix", "exact matrix"])
)
def test_weighted_replacement_has_the_shares_of_the_posterior(process, dim, name):
    """Within four standard errors over six independent clouds, and 0.02 for the steps' length; so do the means."""
    sde = make_sde(process)
    law, operator, groups, draws = referee(sde, dim), operators(dim)[name], 6, 60
    # a point between the components, where y leaves several of them open
    point = 0.5 * (law.means[0] + law.means[2])
    measurement, A, y = pose(law, operator, groups, draws, point)
    x = draw(SMCDiff(particles=480, steps=80), ProbabilityFlow(), sde, law, measurement).double()
    weights, means, _ = law.given(A, y, max(operator.noise, 1e-4))
    found = torch.stack([law.shares(each) for each in x.split(draws)])
    error = (found.var(0) / groups + 1 / (groups * draws) * weights * (1 - weights)).sqrt()
    assert ((found.mean(0) - weights).abs() < 4 * error + 0.02).all(), (found.mean(0), weights, error)
    wanted = sum(w * m for w, m in zip(weights, means, strict=True))
    clouds = x.reshape(groups, draws, dim).mean(1)
    assert ((clouds.mean(0) - wanted).abs() < 4 * (clouds.var(0) / groups).sqrt() + 0.03).all()
    if not operator.noise:
        assert (operator(x.float()) - measurement.y).abs().max() < 1e-4


@pytest.mark.parametrize("process, name", in_turn(["vp", "ve"], ["column", "matrix"]))
def test_twisted_particles_have_the_shares_of_the_posterior(process, name):
    sde = make_sde(process)
    law, operator, groups, draws = referee(sde, 3), operators(3)[name], 6, 60
    measurement, A, y = pose(law, operator, groups, draws, 0.5 * (law.means[0] + law.means[2]))
    x = draw(TDS(particles=480), PredictorCorrector(Karras(), 60, Ancestral()), sde, law, measurement).double()
    weights, _, _ = law.given(A, y, max(operator.noise, 1e-4))
    found = torch.stack([law.shares(each) for each in x.split(draws)])
    error = (found.var(0) / groups + 1 / (groups * draws) * weights * (1 - weights)).sqrt()
    assert ((found.mean(0) - weights).abs() < 4 * error + 0.03).all(), (found.mean(0), weights, error)


@pytest.mark.parametrize("name", SAMPLERS)
def test_weighted_replacement_goes_with_every_sampler(name):
    """rho = 0.8: x_2 given x_1 is N(0.8 x_1, 0.36), and x_1 is what was measured, each group its own."""
    sde, draws = make_sde("vp"), 300
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    law = FullMixture(sde, torch.ones(1).double(), [torch.zeros(2).double()], [covariance])
    y = torch.tensor([[1.5, 0.0], [-0.5, 0.0]]).repeat_interleave(draws, 0)
    measurement = Measurement(Half((2,)), y, 0.0, draws)
    sampler = make_sampler(name, steps=20)
    x = draw(SMCDiff(particles=draws, steps=40), sampler, sde, law, measurement)
    assert torch.equal(x[:, 0], y[:, 0])
    for own, value in zip(x[:, 1].double().split(draws), (1.5, -0.5), strict=True):
        assert abs(float(own.mean()) - 0.8 * value) < 4 * 0.6 * (2 / draws) ** 0.5 + 0.03
        assert abs(float(own.std()) / 0.6 - 1) < 4 / draws**0.5 + 0.05


LAST = {
    "smcdiff": SMCDiff(particles=8, steps=12),
    "tds": TDS(particles=8),
    "pigdm": PiGDM(),
    "mmps": MMPS(),
    "dps": DPS(scale=0.1),
    "projection": Projection(),
}


@pytest.mark.parametrize("name, process", in_turn(list(LAST), ["vp", "ve", "edm"]))
def test_the_last_step_is_the_samplers(name, process):
    """Nothing else depends on it, so that the unknown values obey alpha (2 flow - tweedie) = none, and differ."""
    sde, draws = make_sde(process), 8
    law = referee(sde, 3)
    y = law.means[0].repeat(draws, 1) * torch.tensor([1.0, 0.0, 0.0])
    measurement = Measurement(Columns((3,), [0]), y, 0.0, draws)
    ends = {
        last: draw(LAST[name], PredictorCorrector(Karras(), 12, Ancestral(), last=last), sde, law, measurement, seed=3)[
            :, 1:
        ]
        for last in ("flow", "tweedie", "none")
    }
    alpha = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64)))
    torch.testing.assert_close(alpha * (2 * ends["flow"] - ends["tweedie"]), ends["none"], rtol=1e-9, atol=1e-9)
    assert float((ends["flow"] - ends["tweedie"]).abs().max()) > 1e-7


# Heavy tails


def student(sde, dim):
    """A Student-t of 1.5 degrees of freedom, as a mixture of Gaussians of one centre: its scales' exact quantiles."""
    shares = (torch.arange(24, dtype=torch.float64) + 0.5) / 24
    gamma = torch.distributions.Gamma(torch.tensor(0.75, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64))
    grid = torch.logspace(-5, 1.5, 4000, dtype=torch.float64)
    cdf = torch.cumsum(gamma.log_prob(grid).exp() * torch.gradient(grid)[0], 0)
    precision = grid[torch.searchsorted(cdf / cdf[-1], shares).clamp_max(3999)]
    means = torch.zeros(24, dim, dtype=torch.float64)
    means[:, -1] = 0.3  # not symmetric in every column
    return Oracle(sde, (torch.full((24,), 1 / 24), means, 0.2 * precision.rsqrt()))


HEAVY = {
    "smcdiff": (SMCDiff(particles=16, steps=40), "unipc"),
    "pigdm": (PiGDM(), "unipc"),
    "mmps": (MMPS(), "unipc"),
    "dps": (DPS(scale=0.1), "ancestral"),
    "tds": (TDS(particles=16), "ancestral"),
    "projection": (Projection(), "sea"),
    "pigdm, sea": (PiGDM(), "sea"),
    "mmps, em": (MMPS(), "em"),
}


@pytest.mark.parametrize("name, process, dim", in_turn(list(HEAVY), SDES, [3, 5, 7]))
def test_no_draw_leaves_the_range_of_heavy_tails(name, process, dim):
    """Measured values as far out as the law reaches; no unknown one goes beyond its widest component's six stds."""
    sde = make_sde(process)
    score, (conditioner, sampler) = student(sde, dim), HEAVY[name]
    reach = 6 * float(score.variances.max().sqrt()) + 0.3
    first = torch.tensor([0.0, 0.5, -4.0, 15.0]).repeat_interleave(16)
    y = torch.zeros(64, dim)
    y[:, 0] = first
    measurement = Measurement(Columns((dim,), [0]), y, 0.0, 16)
    x = draw(conditioner, make_sampler(sampler, steps=30), sde, score, measurement)
    assert bool(x.isfinite().all()) and torch.allclose(x[:, 0].float(), first, atol=1e-4)
    assert float(x[:, 1:].abs().max()) < reach, (float(x[:, 1:].abs().max()), reach)


class Rough:
    """A Gaussian's score with ripples, as a network's: its Jacobian is not symmetric, and large where x is far out."""

    def __init__(self, sde):
        self.sde = sde

    def __call__(self, x, t):
        alpha, sigma = (each.to(x.dtype)[:, None] for each in (self.sde.alpha(t), self.sde.sigma(t)))
        ripple = 0.3 * x.roll(1, 1).square() * torch.sin(6 * x.roll(1, 1))
        return (-x + sigma * ripple.clamp(-3, 3)) / (alpha**2 + sigma**2)

    def under(self, sde, other):
        from scoresde.sde_lib.frame import under

        return under(self.sde, lambda x, t: self(x, t), other)


@pytest.mark.parametrize("conditioner", [PiGDM, MMPS], ids=["pigdm", "mmps"])
@pytest.mark.parametrize("process", ["vp", "ve"])
def test_a_rough_score_carries_no_guided_draw_away(conditioner, process):
    """Without the two rules some do: the test can fail."""
    sde, dim = make_sde(process), 5
    y = torch.zeros(96, dim)
    y[:, :2] = torch.linspace(-8, 8, 96)[:, None]
    measurement = Measurement(Columns((dim,), [0, 1]), y, 0.0)
    far = {
        bound: float(draw(conditioner(bound=bound), make_sampler("unipc"), sde, Rough(sde), measurement).abs().max())
        for bound in (5.0, None)
    }
    assert far[5.0] < 30 < far[None] or not math.isfinite(far[None]), far


def test_a_term_is_shortened_to_its_bound_and_no_further():
    from scoresde.samplers.guidance import bounded, state

    sde = make_sde("vp")
    x, t = torch.zeros(3, 2), torch.tensor([0.1, 0.5, 0.9])
    here = state(sde, lambda x, t: -x, x, t)
    term = torch.tensor([[3e9, 4e9], [0.3, -0.4], [math.nan, 1.0]])
    found = bounded(term, here, 2.0)
    assert float(found[0].norm() * here.sigma[0]) == pytest.approx(2 * 2**0.5, rel=1e-5)
    assert torch.equal(found[1], term[1]) and torch.equal(found[2], torch.zeros(2))
    assert bounded(term, here, None) is term


# The parts


@pytest.mark.parametrize(
    "operator",
    [Half((3,)), Dense((3,), 0.4, torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.8, -1.0]])), Superresolve((1, 4, 6))],
    ids=["half", "matrix", "superresolve"],
)
def test_the_path_is_the_measurements_forward_noise(operator):
    """At every tau above mu, P w is A^+ y with noise of the variance tau - mu in each direction, Markov in tau."""
    torch.manual_seed(3)
    shape, count, taus = operator.shape, 4000, [40.0, 9.0, 2.0, 0.5]
    x_0 = torch.randn(1, *shape, dtype=torch.float64)
    y = operator(x_0).expand(count, *operator.measured)
    path = Path(operator, operator.pseudo_inverse(y), operator.noise**2, 1.0)
    w = torch.randn(count, *shape, dtype=torch.float64) * taus[0] ** 0.5
    at, w = path.start(w, taus[0], torch.randn_like(w), torch.randn_like(w))
    previous = None
    for t, s in zip(taus, [*taus[1:], 0.1], strict=True):
        away = operator.function(lambda e, t=t: path.measured(e, t), at - path.target)
        wanted = float(operator.trace(lambda e, t=t: (t - path.mu(e)).clamp_min(0) * path.measured(e, t), w[:1]).sum())
        found = away.flatten(1).square().sum(1)
        assert abs(float(found.mean()) - wanted) < 5 * float(found.std()) / count**0.5 + 1e-9
        if previous is not None:  # the covariance of a Brownian path in tau is that of its later, smaller time
            cross = (away * previous).flatten(1).sum(1)
            assert abs(float(cross.mean()) - wanted) < 5 * float(cross.std()) / count**0.5 + 1e-9
        previous = away if not operator.noise else None
        w, at, _ = path.step(w, at, 0.5 * w, t, s, torch.randn_like(w), torch.randn_like(w))


def test_noise_below_that_of_eps_is_the_measurements_own():
    """A direction that never leaves the path ends at y with the measurement's noise, and not with that of eps."""
    sde, draws = make_sde("vp"), 2000
    law = FullMixture(sde, torch.ones(1).double(), [torch.zeros(2).double()], [torch.eye(2, dtype=torch.float64)])
    operator = Columns((2,), [0], noise=1e-3)
    y = torch.tensor([[0.7, 0.0]], dtype=torch.float64).repeat(draws, 1)
    x = draw(SMCDiff(particles=draws, steps=20), LOG, sde, law, Measurement(operator, y, 1e-3, draws))
    assert float((x[:, 0] - 0.7).square().mean().sqrt()) == pytest.approx(1e-3, rel=0.1)
    assert abs(float(x[:, 1].mean())) < 0.1 and float(x[:, 1].std()) == pytest.approx(1.0, abs=0.08)


def test_more_noise_than_that_of_T_moves_the_priors_draw():
    """VE to sigma_max = 1.5 and a measurement of std 3: x_T given y is Gaussian, in closed form."""
    count, tau, mu = 100_000, 2.25, 9.0
    operator = Columns((2,), [0], noise=mu**0.5)
    target = torch.tensor([[4.0, 0.0]], dtype=torch.float64).expand(count, 2)
    path = Path(operator, target, mu, 1.0)
    _, w = path.start(tau**0.5 * torch.randn_like(target), tau, torch.randn_like(target), torch.randn_like(target))
    assert float(w[:, 0].mean()) == pytest.approx(tau / mu * 4.0, abs=0.03)
    assert float(w[:, 0].var()) == pytest.approx(tau * (mu - tau) / mu, rel=0.02)
    assert float(w[:, 1].var()) == pytest.approx(tau, rel=0.02)


def test_a_step_is_exact_for_a_gaussian_of_the_datas_std():
    """N(0, q^2 I): one step from any tau to any other has the reverse kernel's mean and variance."""
    q, t, s = 0.7, 3.0, 0.2
    w_t = torch.full((200_000, 1), 1.3, dtype=torch.float64)
    path = Path(Mask((1,), 0.0, torch.zeros(1, 1)), torch.zeros_like(w_t), 0.0, q)
    denoised = q**2 / (q**2 + t) * w_t
    w, _, change = path.step(w_t, w_t, denoised, t, s, torch.randn_like(w_t), torch.randn_like(w_t))
    gain = (q**2 + s) / (q**2 + t)
    variance = (q**2 + s) * (1 - gain)
    assert float(w.mean()) == pytest.approx(gain * 1.3, abs=4 * (variance / len(w)) ** 0.5)
    assert float(w.var()) == pytest.approx(variance, rel=0.015) and bool((change == 0).all())


def test_a_step_across_a_measurement_is_exact_for_a_gaussian_of_the_datas_std():
    """N(0, q^2): w_s given w_t and w_mu = Y depends on Y alone, and the weight is the density of Y given w_t."""
    q, t, s, mu, y = 0.7, 3.0, 0.2, 0.8, 0.9
    w_t = torch.full((200_000, 1), 1.3, dtype=torch.float64)
    w_t[0] = -0.4
    path = Path(Mask((1,), mu**0.5, torch.ones(1, 1)), torch.full_like(w_t, y), mu, q)
    w, _, change = path.step(w_t, w_t, q**2 / (q**2 + t) * w_t, t, s, torch.randn_like(w_t), torch.randn_like(w_t))
    gain = (q**2 + s) / (q**2 + mu)
    variance = (q**2 + s) * (1 - gain)
    assert float(w.mean()) == pytest.approx(gain * y, abs=4 * (variance / len(w)) ** 0.5)
    assert float(w.var()) == pytest.approx(variance, rel=0.015)
    there = (q**2 + mu) / (q**2 + t)
    law = torch.distributions.Normal(there * w_t[:2, 0], ((q**2 + mu) * (1 - there)) ** 0.5)
    density = law.log_prob(torch.tensor(y).double())
    assert float(change[0] - change[1]) == pytest.approx(float(density[0] - density[1]), rel=1e-6)


def test_particles_are_drawn_anew_before_few_of_them_carry_all():
    """y means the component of weight 0.03: without resampling, the draws would be copies of a few particles."""
    sde, draws, dim = make_sde("vp"), 64, 3
    law = referee(sde, dim)
    measurement, _, _ = pose(law, operators(dim)["all but one"], 1, draws, law.means[2])
    x = draw(SMCDiff(particles=draws, steps=60), LOG, sde, law, measurement)
    assert len(x[:, 1].unique()) > 0.75 * draws


@pytest.mark.parametrize("conditioner, most", [(PiGDM, 2.0), (MMPS, 1.0)], ids=["pigdm", "mmps"])
def test_guidance_does_not_overshoot(conditioner, most):
    """The denoised x moves at most to y by MMPS, and at most until it is as far from y as before by PiGDM, although the
    network's Jacobian is larger than a covariance.
    """
    from scoresde.samplers.guidance import state

    sde = make_sde("vp")
    x, t = torch.randn(6, 3, dtype=torch.float64), torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    turn = torch.tensor([[2.0, 3.0, 0.0], [-3.0, 2.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)  # not symmetric
    measurement = Measurement(Columns((3,), [0, 1]), torch.tensor([[0.4, -1.0, 0.0]]).double().expand(6, 3), 0.0)
    for rule in (5.0, None):
        here = state(sde, lambda x, t: x @ turn.T, x, t)
        term = conditioner(bound=rule).term(here, measurement)
        moved = measurement.operator((here.sigma**2 / here.alpha)[:, None] * term)
        residual = measurement.residual(here.denoised)
        steps = moved.square().sum(1) / (moved * residual).sum(1)  # in units of the best one
        assert (float(steps.max()) <= most + 1e-9) == (rule is not None) and bool((steps > 0).all()), steps


def test_resampling_is_systematic_and_forgets_what_is_no_number():
    x = torch.zeros(4, 1)
    cloud = Particles(x, 2, 4, torch.randn_like)
    log_weights = torch.full((2, 8), -torch.inf)
    log_weights[0, 3], log_weights[0, 5], log_weights[0, 1] = 0.0, math.log(3.0), math.nan
    chosen = cloud.choose(log_weights, 8).reshape(2, 8)
    assert (chosen[0] == 5).sum() == 6 and (chosen[0] == 3).sum() == 2
    assert sorted(chosen[1].tolist()) == list(range(8, 16))
    pick, after = cloud.resample(torch.zeros(2, 8), 0.5)
    assert torch.equal(pick, torch.arange(16)) and torch.equal(after, torch.zeros(2, 8))


def test_correctors_move_what_is_not_measured_alone():
    """Steps of a Langevin corrector that would spoil the path if they moved it: the conditional's moments stay."""
    sde, draws = make_sde("ve"), 1500
    covariance = torch.tensor([[1.0, 0.95], [0.95, 1.0]], dtype=torch.float64)
    law = FullMixture(sde, torch.ones(1).double(), [torch.zeros(2).double()], [covariance])
    measurement = Measurement(Half((2,)), torch.tensor([[1.5, 0.0]]).repeat(draws, 1), 0.0, draws)
    seen = []

    class Watched(Langevin):
        def __call__(self, row, score, x, z, memory):
            result = super().__call__(row, score, x, z, memory)
            seen.append((float(x[:, 0].std()), float((result[0] - x).std())))
            return result

    sampler = PredictorCorrector(LogSNR(), 20, Ancestral(), Watched(snr=0.3, count=2))
    x = draw(SMCDiff(particles=draws, steps=20), sampler, sde, law, measurement)[:, 1].double()
    assert len(seen) == 40 and max(spread for spread, _ in seen) < 1e-3, "one path for all particles"
    assert min(moved for _, moved in seen) > 0
    assert abs(float(x.mean()) - 0.95 * 1.5) < 0.06 and abs(float(x.std()) / (1 - 0.95**2) ** 0.5 - 1) < 0.15


LOG = PredictorCorrector(LogSNR(), 10, Ancestral())


@pytest.mark.parametrize("conditioner", [SMCDiff(particles=40, steps=20), TDS(particles=40)], ids=["smcdiff", "tds"])
def test_groups_do_not_depend_on_their_batch_and_seeds_do_matter(conditioner):
    sde = make_sde("vp")
    score = student(sde, 3)
    y = torch.zeros(30, 3, dtype=torch.float64)
    y[:, 0] = torch.tensor([0.1, 2.0, -1.0]).repeat_interleave(10)
    whole = Measurement(Columns((3,), [0], noise=0.2), y, 0.2, 10)
    sampler = PredictorCorrector(Karras(), 20, Ancestral())
    x = draw(conditioner, sampler, sde, score, whole)
    assert torch.equal(x, draw(conditioner, sampler, sde, score, whole))
    assert not torch.equal(x, draw(conditioner, sampler, sde, score, whole, seed=1))
    one = Measurement(whole.operator, y[10:20], 0.2, 10)
    ready, score = conditioner.condition(sampler, sde, score, one)
    start, noise = (BlockNoise(0, 10, 10, (3,), torch.float64, stream=s) for s in ("prior", "sampler"))
    assert torch.allclose(ready(sde, score, start() * sde.prior_std, noise), x[10:20], atol=1e-9)


def test_weighted_replacement_is_nearer_than_guidance():
    """Sliced Wasserstein to exact draws where y leaves three components open: near the floor, the others beyond two."""
    sde, draws, (weights, means, _) = make_sde("vp"), 400, mixture((2,))
    components = weights, means, torch.tensor([0.35, 0.2, 0.45], dtype=torch.float64)
    measurement = Measurement(Half((2,)), torch.tensor([[-0.4, 0.0]]).repeat(draws, 1), 0.0, draws)
    exact = ExactPosterior(components)
    sets = [exact.draw(measurement, torch.Generator().manual_seed(s)).double() for s in range(3)]
    floor = (sliced_wasserstein(sets[0], sets[1], 50) + sliced_wasserstein(sets[0], sets[2], 50)) / 2
    sampler, ratio = PredictorCorrector(Karras(), 60, Ancestral()), {}
    for conditioner in (SMCDiff(particles=800, steps=60), PiGDM(), MMPS(), Projection()):
        x = draw(conditioner, sampler, sde, Oracle(sde, components).float(), measurement).double()
        ratio[type(conditioner).__name__] = sliced_wasserstein(x, sets[0], 50) / floor
    assert ratio.pop("SMCDiff") < 1.7 and min(ratio.values()) > 2, ratio


# What a run says


def restore_case(conditioner=None):
    train = torch.tensor([[0.0, 0.0], [1.0, 10.0], [0.5, 5.0]], dtype=torch.float64)
    data = Data(train, train, 0.0, 1.0)
    operator = Mask((2,), 0.0, torch.tensor([[1.0, 0.0]]))
    task = Restore(make_sampler("em"), operator, conditioner or PiGDM())
    return data, task, operator


def test_draws_beyond_the_range_are_counted_and_named(caplog):
    data, task, operator = restore_case()
    problem = Problem(operator, torch.tensor([[0.5, 0.0], [0.2, 0.0]]).double(), None)
    x = torch.tensor([[[0.5, 19.0], [0.5, -11.0]], [[0.2, 22.0], [0.2, 5.0]]]).double()
    with caplog.at_level("WARNING"):
        assert task.out_of_range(data, problem, x) == {"draws_out_of_range": 2}
    assert "2 of 4, column 1 reaches 22, trained on 0 to 10; type conditioner=smcdiff" in caplog.text


@pytest.mark.parametrize("value, words", [(200.0, "reaches 200"), (math.nan, "values that are not finite")])
def test_a_divergence_ends_the_run(value, words):
    data, task, operator = restore_case()
    problem = Problem(operator, torch.tensor([[0.5, 0.0]]).double(), None)
    x = torch.tensor([[[0.5, value], [0.5, 3.0]]]).double()
    with pytest.raises(FloatingPointError, match=f"1 of 2 draws have diverged: column 1 {words if value > 0 else ''}"):
        task.out_of_range(data, problem, x)


def test_points_that_are_measured_out_of_range_are_named_and_no_divergence(caplog):
    data, task, operator = restore_case(SMCDiff())
    problem = Problem(operator, torch.tensor([[50.0, 0.0], [0.5, 0.0]]).double(), None)
    x = torch.tensor([[[50.0, 500.0]], [[0.5, 5.0]]]).double()
    with caplog.at_level("WARNING"):
        assert task.out_of_range(data, problem, x) == {"draws_out_of_range": 1}
    assert "1 of 2 points are measured further outside" in caplog.text and "train longer" in caplog.text


def test_pixels_share_one_range_and_no_training_part_has_none(caplog):
    train = torch.randint(0, 5, (6, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    data = Data(train, train, 2.0, 2.0, levels=5)
    operator = Mask((1, 2, 2), 0.0, torch.zeros(1, 1, 2, 2))
    task = Restore(make_sampler("em"), operator, PiGDM())
    x = torch.full((1, 3, 1, 2, 2), 4.9).double()
    x[0, 1, 0, 0, 0] = 12.0
    problem = Problem(operator, torch.zeros(1, 1, 2, 2).double(), None)
    with caplog.at_level("WARNING"):
        assert task.out_of_range(data, problem, x) == {"draws_out_of_range": 1}
    assert "pixels reach 12, trained on 0 to 5; type conditioner=projection sampler=pc" in caplog.text
    assert task.out_of_range(Data(train[:0], train, 2.0, 2.0, levels=5), problem, x) == {}
