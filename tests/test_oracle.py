"""Tests of the exact score of a mixture against torch.distributions and autograd."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from scoresde.models import Oracle

from .conftest import draw_mixture, mixture

SHARES = [0.0, 0.01, 0.1, 0.5, 1.0]


def perturbed(sde, components, t) -> MixtureSameFamily:
    """Returns p_t as a distribution of torch, each component transformed by x_t = alpha x_0 + sigma z."""
    weights, means, stds = components
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    std = (alpha**2 * stds**2 + sigma**2).sqrt()[:, None].expand_as(means)
    return MixtureSameFamily(Categorical(weights), Independent(Normal(alpha * means, std), 1))


def points(sde, shape, count, t):
    x_0 = draw_mixture(mixture(shape), count, shape)
    return sde.perturb(x_0, t.expand(count), torch.randn_like(x_0))


@pytest.mark.parametrize("share", SHARES)
def test_log_prob(sde, shape, share):
    t = torch.tensor(sde.eps + share * (sde.T - sde.eps), dtype=torch.float64)
    x = points(sde, shape, 20, t)
    exact = perturbed(sde, mixture(shape), t).log_prob(x.flatten(1))
    torch.testing.assert_close(Oracle(sde, mixture(shape)).log_prob(x, t.expand(20)), exact, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("share", SHARES)
def test_score_is_the_gradient(sde, shape, share):
    """The score is the gradient of the density of torch.distributions, and of the oracle's own log_prob."""
    t = torch.tensor(sde.eps + share * (sde.T - sde.eps), dtype=torch.float64)
    x = points(sde, shape, 20, t).requires_grad_()
    oracle = Oracle(sde, mixture(shape))
    for log_prob in (perturbed(sde, mixture(shape), t).log_prob(x.flatten(1)), oracle.log_prob(x, t.expand(20))):
        (exact,) = torch.autograd.grad(log_prob.sum(), x)
        torch.testing.assert_close(
            oracle(x, t.expand(20)).detach(), exact, rtol=1e-9, atol=1e-9 * float(exact.abs().max())
        )


def test_every_sample_has_its_own_time(sde, shape):
    oracle, t = Oracle(sde, mixture(shape)), torch.linspace(sde.eps, sde.T, 6, dtype=torch.float64)
    x = torch.randn(6, *shape, dtype=torch.float64)
    for i in range(6):
        torch.testing.assert_close(oracle(x, t)[i : i + 1], oracle(x[i : i + 1], t[i : i + 1]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            oracle.log_prob(x, t)[i : i + 1], oracle.log_prob(x[i : i + 1], t[i : i + 1]), rtol=1e-12, atol=1e-12
        )


def test_images_are_flattened_vectors(sde):
    shape = (3, 8, 6)
    oracle, t = Oracle(sde, mixture(shape)), torch.linspace(sde.eps, sde.T, 6, dtype=torch.float64)
    x = torch.randn(6, *shape, dtype=torch.float64)
    assert oracle(x, t).shape == x.shape
    assert torch.equal(oracle(x, t).flatten(1), oracle(x.flatten(1), t)) and torch.equal(
        oracle.log_prob(x, t), oracle.log_prob(x.flatten(1), t)
    )


def test_float32(sde, shape):
    """The oracle can be converted to float32, with the error of float32."""
    t = torch.linspace(sde.eps + 0.05 * (sde.T - sde.eps), sde.T, 20).float()
    x = sde.perturb(draw_mixture(mixture(shape), 20, shape).float(), t, torch.randn(20, *shape))
    exact, found = Oracle(sde, mixture(shape)), Oracle(sde, mixture(shape)).float()
    assert found(x, t).dtype == torch.float32 and found.log_prob(x, t).dtype == torch.float32
    score = exact(x.double(), t.double())
    assert float((found(x, t) - score).abs().max()) < 2e-4 * float(score.abs().max())
    log_prob = exact.log_prob(x.double(), t.double())
    assert float((found.log_prob(x, t) - log_prob).abs().max()) < 1e-5 * float(log_prob.abs().max())


def test_far_away(sde, shape, dtype):
    """A thousand and a million std away the density's exponential underflows; the score is that of the component whose
    tail wins.
    """
    components = mixture(shape)
    weights, means, stds = components
    oracle, t = Oracle(sde, components).to(dtype), torch.full((2,), sde.eps, dtype=dtype)
    x = torch.ones(2, *shape, dtype=dtype) * torch.tensor([1e3, 1e6], dtype=dtype).reshape(2, *[1] * len(shape))
    alpha, variances = sde.alpha(t.double())[0], sde.alpha(t.double())[0] ** 2 * stds**2 + sde.sigma(t.double())[0] ** 2
    widest = int(variances.argmax())
    exact = ((alpha * means[widest] - x.double().flatten(1)) / variances[widest]).reshape(x.shape)
    rtol = 1e-10 if dtype == torch.float64 else 3e-5
    torch.testing.assert_close(oracle(x, t).double(), exact, rtol=rtol, atol=0)
    exact = weights[widest].log() + Normal(alpha * means[widest], variances[widest].sqrt()).log_prob(
        x.double().flatten(1)
    ).sum(1)
    torch.testing.assert_close(oracle.log_prob(x, t).double(), exact, rtol=rtol, atol=0)


def test_weights_are_normalised(sde):
    weights, means, stds = mixture((2,))
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.full((4,), sde.T / 2, dtype=torch.float64)
    torch.testing.assert_close(
        Oracle(sde, (7 * weights, means, stds)).log_prob(x, t), Oracle(sde, (weights, means, stds)).log_prob(x, t)
    )


def test_it_has_no_parameters(sde):
    assert list(Oracle(sde, mixture((2,))).parameters()) == []


def test_bad_components(sde):
    weights, means, stds = mixture((2,))
    with pytest.raises(ValueError, match=r"weights \(K,\), means \(K, D\), stds \(K,\)"):
        Oracle(sde, (weights, means.T, stds))
