"""A referee's posteriors: full covariances, weights of 0.97 and 0.03, narrow components, heavy tails, odd widths; against
conditionals of Gaussians written here with full matrices.
"""

import math

import pytest
import torch

from samplers import Columns, Dense, Mask, Measurement, ProbabilityFlow, SMCDiff
from sde_lib import BlockNoise

from .conftest import SDES, in_turn, make_sde


class FullMixture:
    """The exact score of a mixture of Gaussians of any covariances under an SDE, and its posterior given y = A x + s n."""

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
    from samplers import dense

    y = operator(point[None])
    y = y.repeat(groups * draws, 1).float()
    A = dense(operator)
    seen = A.abs().sum(1) > 0
    return Measurement(operator, y, operator.noise, draws), A[seen], y[0, seen].double()


POINTS = [0, 1, 2, 2]


@pytest.mark.parametrize(
    "process, dim, name", in_turn(SDES, [3, 5, 7], ["column", "noisy column", "all but one", "matrix", "exact matrix"])
)
def test_weighted_replacement_has_the_shares_of_the_posterior(process, dim, name):
    """Within four standard errors over eight independent clouds, and 0.02 for the steps' length; so do the means."""
    sde = make_sde(process)
    law, operator, groups, draws = referee(sde, dim), operators(dim)[name], 8, 100
    # a point between the components, where y leaves several of them open
    point = 0.5 * (law.means[0] + law.means[2])
    measurement, A, y = pose(law, operator, groups, draws, point)
    x = draw(SMCDiff(particles=800, steps=100), ProbabilityFlow(), sde, law, measurement).double()
    weights, means, _ = law.given(A, y, max(operator.noise, 1e-4))
    found = torch.stack([law.shares(each) for each in x.split(draws)])
    error = (found.var(0) / groups + 1 / (groups * draws) * weights * (1 - weights)).sqrt()
    assert ((found.mean(0) - weights).abs() < 4 * error + 0.02).all(), (found.mean(0), weights, error)
    wanted = sum(w * m for w, m in zip(weights, means, strict=True))
    clouds = x.reshape(groups, draws, dim).mean(1)
    assert ((clouds.mean(0) - wanted).abs() < 4 * (clouds.var(0) / groups).sqrt() + 0.03).all()
    if not operator.noise:
        assert (operator(x.float()) - measurement.y).abs().max() < 1e-4
