"""The variational bound against an independent calculation: all the chain's variables as one Gaussian."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Independent, Normal, kl_divergence

from scoresde.data import Digits, Moons
from scoresde.likelihood import VariationalBound, bin_edges
from scoresde.likelihood.bound import added_up, log_mass
from scoresde.models import Oracle
from scoresde.samplers import LogSNR, Uniform
from scoresde.sde_lib import BlockNoise, Chain
from scoresde.tasks import Bound

from .conftest import GaussianScore, draw_mixture, make_sde, mixture
from .test_cli import TINY, job

MEAN, STD = 0.3, 0.7


def both_signs(like: torch.Tensor) -> torch.Tensor:
    """Noise 1 for even rows and -1 for odd ones: two rows together have its first two moments, and all here is
    quadratic.
    """
    return torch.where(torch.arange(len(like)) % 2 == 0, 1.0, -1.0).to(like)[:, None].expand_as(like)


def whole_gaussian(sde, times, variance: str, x_0: float) -> float:
    """The evidence lower bound of one coordinate, E_q[log p(x_0, x_1, ..., x_N)] + entropy of q(x_1, ..., x_N | x_0),
    with both laws written down as Gaussians of all variables at once.
    """
    t = times.flip(0)
    alpha, sigma, score = sde.alpha(t), sde.sigma(t), GaussianScore(sde, MEAN, STD)
    # q: x_i = alpha_i x_0 + ..., of covariance (alpha_j / alpha_i) sigma_i^2 for i <= j
    i = torch.minimum(*torch.meshgrid(torch.arange(len(t)), torch.arange(len(t)), indexing="ij"))
    j = torch.maximum(*torch.meshgrid(torch.arange(len(t)), torch.arange(len(t)), indexing="ij"))
    q_mean, q_cov = alpha * x_0, alpha[j] / alpha[i] * sigma[i] ** 2
    # p: from x_N down, x_{n-1} = slope x_n + shift + std noise; q's mean and covariance with x_0 in front
    y, cov = torch.cat([torch.tensor([x_0], dtype=t.dtype), q_mean]), torch.zeros(len(t) + 1, len(t) + 1, dtype=t.dtype)
    cov[1:, 1:] = q_cov
    variance_T = float(sigma[-1] ** 2)
    total = -0.5 * math.log(2 * math.pi * variance_T) - 0.5 * float(y[-1] ** 2 + cov[-1, -1]) / variance_T
    for n in range(len(t), 0, -1):  # to x_{n-1} at s from x_n at t_n
        m, v = (float(each) for each in score.moments(t[n - 1]))
        a_t, s_t = float(alpha[n - 1]), float(sigma[n - 1])
        if n == 1:
            slope, shift, std = (1 - s_t**2 / v) / a_t, s_t**2 * m / v / a_t, s_t / a_t
        else:
            a_s, s_s = float(alpha[n - 2]), float(sigma[n - 2])
            a = a_t / a_s
            b2 = s_t**2 - a**2 * s_s**2
            std = math.sqrt(b2) * (s_s / s_t if variance == "posterior" else 1)
            slope, shift = (1 - b2 / v) / a, b2 * m / v / a
        mean = float(y[n - 1]) - slope * float(y[n]) - shift
        spread = float(cov[n - 1, n - 1] - 2 * slope * cov[n - 1, n] + slope**2 * cov[n, n])
        total += -0.5 * math.log(2 * math.pi * std**2) - 0.5 * (mean**2 + spread) / std**2
    return total + 0.5 * float(torch.linalg.slogdet(2 * math.pi * math.e * q_cov)[1])


@pytest.mark.parametrize("variance", ["posterior", "forward"])
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_it_is_the_evidence_lower_bound(sde, variance, steps):
    times, x_0 = LogSNR()(sde, steps), 0.9
    x = torch.full((2, 1), x_0, dtype=torch.float64)
    found = VariationalBound(variance)(sde, GaussianScore(sde, MEAN, STD), x, times, randn_like=both_signs)
    assert float(found.model_log_prob.mean()) == pytest.approx(
        whole_gaussian(sde, times, variance, x_0), rel=1e-6, abs=1e-6
    )
    torch.testing.assert_close(found.prior + found.diffusion + found.reconstruction, -found.model_log_prob)
    assert found.nfe == steps + 2 and found.draws.tolist() == [2.0] * steps


@pytest.mark.parametrize("T", [25, 100, 1000])
@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_a_gaussian_under_a_chain_of_any_length(T, variance):
    """Averaged over the data it lies above the entropy: by 0.28/T with the forward variance, and by more than 0.4 with
    the posterior's, which is wrong where sigma is small. x_0 = m + s and m - s have the data's moments.
    """
    chain = Chain(T=float(T))
    times = Uniform()(chain, T - 1)
    x = MEAN + STD * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    score = GaussianScore(chain, MEAN, STD)
    found = VariationalBound(variance)(chain, score, x, times, randn_like=both_signs)
    entropy = 0.5 * math.log(2 * math.pi * math.e * STD**2)
    exact = (
        -0.5 * sum(whole_gaussian(chain, times, variance, MEAN + sign * STD) for sign in (1, -1)) if T <= 100 else None
    )
    gap = float(-found.model_log_prob.mean()) - entropy
    assert exact is None or gap == pytest.approx(exact - entropy, abs=1e-7)
    assert gap > 0.4 if variance == "posterior" else 0.25 / T < gap < 0.3 / T, gap


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_every_term_is_the_divergence_of_two_gaussians(sde, shape, variance):
    """It is compared with torch.distributions for any score; the decoder's density too."""
    times = LogSNR()(sde, 3)
    x = torch.randn(5, *shape, dtype=torch.float64)
    score = lambda x, t: torch.sin(3 * x) - x  # noqa: E731
    seen = []

    def noise(like):
        seen.append(torch.randn_like(like))
        return seen[-1]

    found = VariationalBound(variance, control_variate=False)(sde, score, x, times, randn_like=noise)
    grid, expected = times.flip(0), []
    normal = lambda mean, std: Independent(Normal(mean, std), x.ndim - 1)  # noqa: E731
    for n in range(1, 4):
        t, s, z = grid[n], grid[n - 1], seen[n - 1]
        x_t = sde.alpha(t) * x + sde.sigma(t) * z
        a, b = sde.transition(s, t)
        std = b * sde.sigma(s) / sde.sigma(t)
        noisy = x_t - sde.alpha(t) * x  # the posterior: x_s given x_t and x_0
        mean = sde.alpha(s) * x + a * sde.sigma(s) ** 2 / sde.sigma(t) ** 2 * noisy
        model = (x_t + b**2 * score(x_t, t)) / a
        expected.append(kl_divergence(normal(mean, std), normal(model, std if variance == "posterior" else b)))
    torch.testing.assert_close(found.sums, torch.stack(expected).sum(1), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.diffusion, torch.stack(expected).sum(0), rtol=1e-7, atol=1e-9)

    first, T = grid[0], grid[-1]
    alpha, sigma = sde.alpha(first), sde.sigma(first)
    decoded = []
    for z in seen[-2:]:
        x_1 = alpha * x + sigma * z
        decoded.append(-normal((x_1 + sigma**2 * score(x_1, first)) / alpha, sigma / alpha).log_prob(x))
    torch.testing.assert_close(found.reconstruction, torch.stack(decoded).mean(0), rtol=1e-7, atol=1e-7)
    kl = kl_divergence(normal(sde.alpha(T) * x, sde.sigma(T)), normal(0 * x, sde.sigma(T)))
    torch.testing.assert_close(found.prior, kl, rtol=1e-9, atol=1e-12)


def test_the_control_variate_takes_noise_away_and_nothing_else(sde):
    """All of it for data N(0, I); for a mixture's score the mean is the same."""
    times, x = LogSNR()(sde, 20), torch.randn(50, 3, dtype=torch.float64)
    found = VariationalBound()(sde, GaussianScore(sde), x, times)
    again = VariationalBound()(sde, GaussianScore(sde), x, times)
    torch.testing.assert_close(found.model_log_prob, again.model_log_prob, rtol=1e-7, atol=1e-7)
    score, x = Oracle(sde, mixture((2,))), draw_mixture(mixture((2,)), 1, (2,)).expand(1500, 2)
    with_it, without = (
        VariationalBound(control_variate=each)(sde, score, x, times).model_log_prob for each in (True, False)
    )
    error = math.sqrt((with_it.var() + without.var()) / len(x))
    assert abs(float(with_it.mean() - without.mean())) < 4 * error and float(with_it.var()) < 0.6 * float(without.var())


# --- integers ---------------------------------------------------------------------------------------------------------


def test_the_decoder_puts_all_of_its_mass_on_the_levels():
    """17 bins, the outer ones open, whatever the mean and the width: the masses sum to one."""
    data = Digits()
    levels = torch.arange(17)[:, None, None, None].expand(17, 1, 8, 8)
    lower, upper = bin_edges(data, levels)
    assert lower[0].eq(-math.inf).all() and upper[-1].eq(math.inf).all()
    torch.testing.assert_close(lower[1:], upper[:-1])
    for std in (1e-3, 0.03, 1.0, 30.0):
        mean = 1.5 * torch.randn(1, 1, 8, 8, dtype=torch.float64)
        mass = log_mass((lower - mean) / std, (upper - mean) / std)
        torch.testing.assert_close(mass.exp().sum(0), torch.ones(1, 8, 8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_mass_of_an_interval_far_out():
    a = torch.tensor([-40.0, -3.0, 5.0, 30.0, -math.inf, 12.0, 0.1, -8.0], dtype=torch.float64)
    b = torch.tensor([-39.5, 2.0, 5.001, 30.5, -20.0, math.inf, 0.1 + 1e-9, math.inf], dtype=torch.float64)
    flip = a.numpy() > 0
    low, high = np.where(flip, -b.numpy(), a.numpy()), np.where(flip, -a.numpy(), b.numpy())
    logs = scipy.stats.norm.logcdf([low, high])
    expected = logs[1] + np.log(-np.expm1(logs[0] - logs[1]))
    torch.testing.assert_close(log_mass(a, b), torch.from_numpy(expected), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(log_mass(a, b), log_mass(-b, -a), rtol=1e-12, atol=0)


def test_the_discretised_decoder_by_hand():
    """-log of the decoder's mass on the bin that x_0 is the centre of."""
    data, chain = Digits(), Chain()
    k = data.test[:4]
    x, seen = data.encode(data.dequantise(k.double(), torch.full(k.shape, 0.5, dtype=torch.float64))), []

    def noise(like):
        seen.append(torch.randn_like(like))
        return seen[-1]

    score = GaussianScore(chain, 0.0, 0.8)
    times = Uniform()(chain, 2)
    found = VariationalBound()(chain, score, x, times, bin_edges(data, k), noise)
    alpha, sigma, terms = chain.alpha(times[-1]), chain.sigma(times[-1]), []
    for z in seen[-2:]:
        x_1 = alpha * x + sigma * z
        law = Normal((x_1 + sigma**2 * score(x_1, times[-1].expand(4))) / alpha, sigma / alpha)
        lower, upper = (x - 1 / 17).masked_fill(k == 0, -math.inf), (x + 1 / 17).masked_fill(k == 16, math.inf)
        mass = law.cdf(upper) - law.cdf(lower)
        terms.append(-mass.log().flatten(1).sum(1))
    torch.testing.assert_close(found.reconstruction, torch.stack(terms).mean(0), rtol=1e-7, atol=1e-9)


# --- some of the terms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [2, 16, 120])
def test_some_terms_are_an_unbiased_estimate_with_true_error_bars(terms):
    """Also more draws than there are terms."""
    chain = Chain(T=100.0)
    score, times = Oracle(chain, mixture((2,))), Uniform()(chain, 99)
    x = draw_mixture(mixture((2,)), 1, (2,)).expand(4000, 2)
    every = VariationalBound()(chain, score, x, times)
    some = VariationalBound(terms=terms)(chain, score, x, times)
    difference = some.diffusion.mean() - every.diffusion.mean()
    error = math.sqrt((some.diffusion.var() + every.diffusion.var()) / 4000)
    assert abs(float(difference)) < 4 * error
    for found in (every, some):
        claimed, real = float(found.stderr.square().mean()), float(found.model_log_prob.var())
        assert 0.85 * claimed < real < 1.15 * claimed if found is some else 0.4 * claimed < real < 1.05 * claimed
    assert some.nfe == terms + 2 and float(some.draws.sum()) == 4000 * terms


@pytest.mark.parametrize("count", [2, 3, 20])
def test_terms_of_one_variance_have_the_variance_of_their_sum(count):
    noise, x = BlockNoise(0, 0, 20_000, (1,), torch.float64), torch.zeros(20_000, 1, dtype=torch.float64)
    found = added_up(lambda n: 3 + 2 * noise()[:, 0], torch.ones(count, dtype=torch.float64), None, x, noise)
    assert float(found.variance.mean()) == pytest.approx(4 * count, rel=0.05)
    assert float(found.total.var()) == pytest.approx(4 * count, rel=0.05)
    assert float(found.total.mean()) == pytest.approx(3 * count, abs=4 * math.sqrt(4 * count / 20_000))


@pytest.mark.parametrize("some", [2, 6])
def test_terms_drawn_by_their_length_add_up_to_all(some):
    """Terms without noise, of lengths that have nothing to do with them."""
    values, lengths = torch.tensor([[1.0, 2.0, 5.0, 0.5, 3.0], [1.0, 0.2, 2.0, 3.0, 0.5]], dtype=torch.float64)
    noise, x = BlockNoise(0, 0, 20_000, (1,), torch.float64), torch.zeros(20_000, 1, dtype=torch.float64)
    found = added_up(lambda n: values[n], lengths, some, x, noise)
    error = math.sqrt(float(found.total.var()) / 20_000)
    assert abs(float(found.total.mean() - values.sum())) < 4 * error < 0.05 * float(values.sum())
    assert float(found.variance.mean()) == pytest.approx(float(found.total.var()), rel=0.05)


def test_a_point_does_not_depend_on_its_batch_mates():
    chain = Chain(T=40.0)
    score, times, x = Oracle(chain, mixture((2,))), Uniform()(chain, 39), draw_mixture(mixture((2,)), 100, (2,))
    for terms in (None, 8):
        bound, found = VariationalBound(terms=terms), []
        for size in (100, 7):
            parts = [
                bound(chain, score, part, times, None, BlockNoise(0, first, len(part), (2,), torch.float64))
                for first, part in zip(range(0, 100, size), x.split(size), strict=True)
            ]
            found.append(torch.cat([part.model_log_prob for part in parts]))
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


# --- the truth --------------------------------------------------------------------------------------------------------


def test_with_the_exact_score_it_closes_on_the_exact_density(sde):
    """The bound of a mixture is never below its negative log-likelihood, and nearer the more steps there are."""
    components = mixture((2,))
    x, score = draw_mixture(components, 3000, (2,)), Oracle(sde, components)
    clean = Oracle(make_sde("vp"), components)  # at t = 0, where any SDE's is the data's own
    truth = clean.log_prob(x, torch.zeros(len(x), dtype=torch.float64))
    gaps = []
    for steps in (20, 80, 320):
        found = VariationalBound(terms=60)(sde, score, x, LogSNR()(sde, steps))  # of the forward variance
        excess = truth - found.model_log_prob
        gaps.append((float(excess.mean()), float(excess.std()) / math.sqrt(len(x))))
        assert gaps[-1][0] > -4 * gaps[-1][1]
    assert gaps[1][0] < 0.5 * gaps[0][0] and gaps[2][0] < 0.5 * gaps[1][0] + 4 * gaps[2][1], gaps


def test_float32_is_float64_but_for_rounding():
    chain = make_sde("chain")
    score, x = Oracle(chain, mixture((2,))), draw_mixture(mixture((2,)), 50, (2,))
    found = []
    for dtype in (torch.float32, torch.float64):
        bound = VariationalBound(terms=40)
        noise = iter(torch.randn(200, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        times = Uniform()(chain, 999)
        draw = lambda like, noise=noise: next(noise).to(like)  # noqa: E731
        found.append(bound(chain, score.to(dtype), x.to(dtype), times, None, draw))
        assert found[-1].model_log_prob.dtype == torch.float64
    error = (found[0].model_log_prob - found[1].model_log_prob).abs()
    assert float(error.median()) < 0.02


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda chain, x: VariationalBound("learnt"), "^`variance`=learnt must be auto"),
        (lambda chain, x: VariationalBound(terms=0), "^`terms`=0"),
        (lambda chain, x: VariationalBound(terms=5), "^`terms`=5"),
        (lambda chain, x: VariationalBound()(chain, lambda x, t: -x, x, torch.tensor([1.0, 5.0])), "falling times"),
        (lambda chain, x: VariationalBound()(chain, lambda x, t: -x, x, torch.tensor([5.0])), "falling times"),
        (lambda chain, x: VariationalBound()(chain, lambda x, t: -x, x, torch.tensor([5.0, 0.0])), "must lie in"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_sde("chain"), torch.zeros(3, 2))


def test_a_score_that_is_not_finite_is_named():
    chain = make_sde("chain")
    with pytest.raises(FloatingPointError, match="not finite for point 0 at t="):
        VariationalBound()(chain, lambda x, t: x * math.nan, torch.zeros(3, 2), Uniform()(chain, 5))


# --- the task ---------------------------------------------------------------------------------------------------------


def test_the_task_adds_up_and_stands_beside_the_ode(tmp_path):
    words = ["task=bound", "data=mixture", "model=oracle", "sde=chain", "count=100", "data.count=500", "dtype=float64"]
    words += ["likelihood.rtol=1e-4", "likelihood.atol=1e-4"]
    metrics = job(tmp_path, *words, "task.bound.terms=40", "seed=3")
    parts = [metrics[f"{name}_nats"] for name in ("prior", "diffusion", "reconstruction")]
    assert metrics["bound_nats"] == pytest.approx(sum(parts)) and metrics["nfe"] == 42
    for name in ("bound", "prior", "diffusion", "reconstruction", "ode", "gap"):
        assert metrics[f"{name}_bits_per_dim"] == pytest.approx(metrics[f"{name}_nats"] / (2 * math.log(2)))
    assert not [key for key in metrics if "bits" in key and "bits_per_dim" not in key], "bits say of what they are"
    assert metrics["gap_nats"] == pytest.approx(metrics["bound_nats"] - metrics["ode_nats"])
    assert metrics["bound_gap_nats"] == pytest.approx(metrics["bound_nats"] - metrics["floor_nats"])
    assert -4 * metrics["bound_gap_stderr"] < metrics["bound_gap_nats"] < 4 * metrics["bound_gap_stderr"] + 0.01
    arrays = np.load(tmp_path / "run" / "bound.npz")
    assert arrays["log_prob"].mean() == pytest.approx(-metrics["bound_nats"])
    assert len(arrays["terms"]) == len(arrays["times"]) + 1 == 1001
    ends = [arrays["reconstruction"].mean(), arrays["prior"].mean()]
    assert [arrays["terms"][0], arrays["terms"][-1]] == pytest.approx(ends), "L_0 first, L_N last"
    nll = job(tmp_path, "task=likelihood", *words[1:])["nll_nats"]
    assert nll == pytest.approx(metrics["ode_nats"], abs=1e-9)
    without = job(tmp_path, *words, "task.bound.terms=40", "seed=3", "task.likelihood=null", "task.batch=90")
    assert "gap_nats" not in without and without["bound_nats"] == pytest.approx(metrics["bound_nats"], abs=1e-9)


@pytest.mark.parametrize("dequantisation, decoder", [("uniform", "gaussian"), ("truncated_normal", "discretised")])
def test_integers_are_decoded_as_they_were_learnt(tmp_path, dequantisation, decoder):
    small = ["model.channels=[8]", "model.attention=[]", "likelihood.rtol=1e-2", "likelihood.atol=1e-2", *TINY]
    trained = "uniform" if dequantisation == "uniform" else "none"
    words = [f"dequantisation={dequantisation}", f"training.dequantise={trained}", "task.steps=4", "count=2", *small]
    metrics = job(tmp_path, "task=bound", "data=digits", *words)
    assert metrics["decoder"] == decoder and metrics["bound_bits_per_dim"] > 0
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert kept["gap_bits_per_dim"] == metrics["gap_bits_per_dim"]


def test_a_decoder_of_integers_is_refused_before_a_training():
    with pytest.raises(ValueError, match="task.decoder=discretised is for integers"):
        Bound(Uniform(), steps=4, decoder="discretised").check(make_sde("vp"), Moons(count=8, test_count=8))
