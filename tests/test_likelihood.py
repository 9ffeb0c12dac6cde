"""The likelihood against exact densities: of the mixture, and of correlated Gaussians where Hutchinson's estimate has a
spread.
"""

import math

import pytest
import torch
from torch import Tensor

from likelihood import Likelihood
from models import Oracle
from sde_lib import BasisVectors, Counted, Gaussian, Rademacher

from .conftest import GaussianScore, choices, draw_mixture, make, make_sde, mixture


def points(sde, shape, count: int) -> Tensor:
    """Draws of p_eps."""
    x_0 = draw_mixture(mixture(shape), count, shape)
    return sde.perturb(x_0, torch.full((count,), sde.eps, dtype=torch.float64), torch.randn_like(x_0))


def exact(score, result, x: Tensor, sde) -> Tensor:
    """log p_eps(x) as the prior N(0, sigma(T)^2 I) in place of p_T would have it: what a perfect ODE solver returns."""
    count, z = len(x), result.z.double()
    start, end = (torch.full((count,), t, dtype=torch.float64) for t in (sde.eps, sde.T))
    return score.log_prob(x.double(), start) - score.log_prob(z, end) + sde.prior_log_prob(z)


def test_exact_on_a_mixture(sde, dtype):
    """200 points, the default tolerances: the mean error below 1e-4 nats, the worst below 1e-3."""
    oracle, x = Oracle(sde, mixture((2,))), points(sde, (2,), 200).to(dtype)
    score = Oracle(sde, mixture((2,))).to(dtype)
    result = Likelihood()(sde, score, x)
    assert result.log_prob.dtype == torch.float64 and result.z.dtype == dtype
    error = (result.log_prob - exact(oracle, result, x, sde)).abs()
    assert float(error.mean()) < 1e-4 and float(error.max()) < 1e-3
    assert torch.equal(result.probe_stderr, torch.zeros_like(result.probe_stderr))


def test_exact_on_images(sde):
    """(3, 8, 6): the exact trace over 144 directions, and Hutchinson's estimate of the same integral within its own
    error.
    """
    shape = (3, 8, 6)
    score, x = Oracle(sde, mixture(shape)), points(sde, shape, 4)
    result = Likelihood(BasisVectors(48))(sde, score, x)
    truth = exact(score, result, x, sde)
    assert float((result.log_prob - truth).abs().max()) < 1e-2  # of an integral of hundreds of nats
    estimate = Likelihood(Rademacher(8))(sde, score, x)
    torch.testing.assert_close(estimate.z / sde.prior_std, result.z / sde.prior_std, rtol=1e-3, atol=1e-3)
    pulls = (estimate.log_prob - truth) / (estimate.probe_stderr.square() + 1e-3**2).sqrt()
    assert float(pulls.abs().max()) < 6  # Student's t of 7 degrees of freedom


def test_the_prior_stands_for_the_terminal_law(sde):
    """On data N(0, 1) the answer can be written down: the flow is linear, z = sqrt(v_T / v_eps) x."""
    score, x = GaussianScore(sde, 0.0, 1.0), torch.randn(20, 2, dtype=torch.float64)
    (_, v_T), (_, v) = score.moments(sde.T), score.moments(sde.eps)
    result = Likelihood(rtol=1e-8, atol=1e-8)(sde, score, x)
    z = x * (v_T / v).sqrt()
    torch.testing.assert_close(result.z, z, rtol=1e-6, atol=1e-6)
    std = sde.sigma(torch.tensor(sde.T, dtype=torch.float64))
    log_prior = torch.distributions.Normal(torch.zeros_like(std), std).log_prob(z).sum(1)
    torch.testing.assert_close(result.log_prob, log_prior + (v_T / v).log(), rtol=0, atol=1e-5)  # D/2 log(v_T/v), D = 2


@pytest.mark.parametrize("name", choices("likelihood"))
def test_every_yaml_is_exact_on_a_gaussian(name, shape):
    """Isotropic: the Jacobian is a multiple of the identity, so that signs make no error at all."""
    sde = make_sde("vp")
    likelihood = make("likelihood", "data=mixture", f"likelihood={name}", shape=shape)
    score, x = GaussianScore(sde, 0.2, 0.7), 0.2 + 0.7 * torch.randn(5, *shape, dtype=torch.float64)
    result = likelihood(sde, score, x)
    dim = math.prod(shape)
    assert float((result.log_prob - exact(score, result, x, sde)).abs().max()) < 1e-4 * dim


@pytest.mark.parametrize("count", [2, 5])
def test_signs_make_no_error_where_the_jacobian_is_diagonal(sde, shape, count):
    score, x = GaussianScore(sde, 0.2, 0.7), 0.2 + 0.7 * torch.randn(3, *shape, dtype=torch.float64)
    result = Likelihood(Rademacher(count))(sde, score, x)
    assert float(result.probe_stderr.max()) < 1e-9 * math.prod(shape)
    assert float((result.log_prob - exact(score, result, x, sde)).abs().max()) < 1e-4 * math.prod(shape)


class Correlated:
    """The exact score and density of N(0, S) for a full covariance S."""

    def __init__(self, sde, covariance: Tensor):
        self.sde, self.covariance = sde, covariance

    def at(self, t: Tensor) -> Tensor:
        alpha, sigma = self.sde.alpha(t)[:, None, None], self.sde.sigma(t)[:, None, None]
        return alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance), dtype=t.dtype)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return -torch.linalg.solve(self.at(t), x.flatten(1)[:, :, None])[:, :, 0].reshape(x.shape)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        zero = torch.zeros(len(self.covariance), dtype=t.dtype)
        return torch.distributions.MultivariateNormal(zero, self.at(t)).log_prob(x.flatten(1))


COVARIANCE = torch.tensor(
    [[1.0, 0.7, 0.2, 0.0], [0.7, 1.0, 0.0, -0.3], [0.2, 0.0, 0.5, 0.2], [0.0, -0.3, 0.2, 0.8]], dtype=torch.float64
)


@pytest.mark.parametrize("probes", [Rademacher(24), Gaussian(24)])
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_the_standard_error_is_calibrated(name, probes):
    """600 points with probes of their own: (estimate - exact)/stderr has the std of Student's t, sqrt(23/21), and no
    bias.
    """
    sde, shape = make_sde(name), (1, 2, 2)
    score, x = (
        Correlated(sde, COVARIANCE),
        torch.randn(600, *shape, dtype=torch.float64) @ torch.eye(2, dtype=torch.float64),
    )
    result = Likelihood(probes, rtol=1e-4, atol=1e-4)(sde, score, x)
    pulls = (result.log_prob - exact(score, result, x, sde)) / result.probe_stderr
    assert float(result.probe_stderr.min()) > 1e-3  # or there would be nothing to calibrate
    assert float(pulls.std()) == pytest.approx(math.sqrt(23 / 21), rel=0.15)
    assert abs(float(pulls.mean())) < 5 * 1.05 / math.sqrt(600) + 0.05
    assert float((pulls.abs() > 2.07).double().mean()) == pytest.approx(0.05, abs=0.03)


def test_the_exact_trace_on_correlated_data(sde):
    score, x = Correlated(sde, COVARIANCE), torch.randn(20, 4, dtype=torch.float64)
    for chunk in (1, 3, 16):
        result = Likelihood(BasisVectors(chunk))(sde, score, x)
        assert float((result.log_prob - exact(score, result, x, sde)).abs().max()) < 5e-4


def test_one_probe_has_no_standard_error():
    sde = make_sde("vp")
    result = Likelihood(Rademacher(1))(sde, Correlated(sde, COVARIANCE), torch.randn(3, 4, dtype=torch.float64))
    assert bool(result.probe_stderr.isnan().all())


@pytest.mark.parametrize("method", ["torchdiffeq.dopri5", "torchdiffeq.dopri8", "torchdiffeq.rk4"])
def test_torchdiffeq_agrees(method, dtype):
    sde = make_sde("vp")
    score, x = Oracle(sde, mixture((2,))).to(dtype), points(sde, (2,), 10).to(dtype)
    ours = Likelihood(rtol=1e-6, atol=1e-6)(sde, score, x)
    theirs = Likelihood(method=method, rtol=1e-6, atol=1e-6, steps=500)(sde, score, x)
    torch.testing.assert_close(ours.log_prob, theirs.log_prob, rtol=0, atol=5e-4)
    torch.testing.assert_close(ours.z, theirs.z, rtol=0, atol=1e-4)


@pytest.mark.parametrize("probes", [BasisVectors(), Rademacher(3)])
def test_alone_and_in_a_batch(sde, probes):
    score, x = Oracle(sde, mixture((2,))), points(sde, (2,), 6)
    z = torch.randn(3, 6, 2, dtype=torch.float64)

    def normals(rows):
        taken = iter(z[:, rows])
        return lambda like: next(taken)

    whole = Likelihood(probes)(sde, score, x, normals(slice(None)))
    for i in range(6):
        alone = Likelihood(probes)(sde, score, x[i : i + 1], normals(slice(i, i + 1)))
        assert abs(float(alone.log_prob[0] - whole.log_prob[i])) < 1e-6
        torch.testing.assert_close(alone.z[0], whole.z[i], rtol=0, atol=1e-7)
        if isinstance(probes, Rademacher):
            assert abs(float(alone.probe_stderr[0] - whole.probe_stderr[i])) < 1e-6


@pytest.mark.parametrize("probes", [BasisVectors(), Rademacher(3)])
@pytest.mark.parametrize("method, each", [("tsit5", None), ("dopri5", None), ("torchdiffeq.rk4", 4), ("torchdiffeq.euler", 1)])
def test_evaluations_are_counted(probes, method, each):
    """Score and divergence from one evaluation, however many probes: a method of k stages makes k a step."""
    sde = make_sde("vp")
    counted = Counted(Oracle(sde, mixture((2,))))
    result = Likelihood(probes, method=method, steps=30)(sde, counted, points(sde, (2,), 5))
    assert result.nfe == counted.evaluations / 5
    if each:
        assert counted.calls == result.nfe == 30 * each
    else:  # each point has its own steps, and leaves the batch when it is done
        assert 20 < result.nfe < counted.calls < 600


def test_it_works_under_no_grad_and_leaves_no_graph():
    sde = make_sde("vp")
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        first = Likelihood()(sde, GaussianScore(sde), x)
    second = Likelihood()(sde, GaussianScore(sde), x)
    assert (
        torch.equal(first.log_prob, second.log_prob)
        and not second.log_prob.requires_grad
        and not second.z.requires_grad
    )


def test_a_score_that_is_not_finite():
    sde = make_sde("vp")
    with pytest.raises(FloatingPointError, match="sample 0: at t="):
        Likelihood()(sde, lambda x, t: x * math.nan, torch.randn(3, 2))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"method": "rk4"}, "likelihood.method=rk4"),
        ({"rtol": 0.0}, "likelihood.rtol=0.0"),
        ({"atol": 1.5}, "likelihood.atol=1.5"),
        ({"steps": 0}, "likelihood.steps=0"),
    ],
)
def test_bad_arguments_name_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        Likelihood(**values)
