"""The Gaussian of the data's moments against torch's own multivariate normal, and the data's moments against sums."""

import math

import pytest
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood.moments import Moments

DIM = 5


def gaussian(rank: int) -> tuple[Moments, Tensor]:
    """Moments of rank directions and a rest, and their covariance U diag(l) U' + r (I - UU')."""
    generator = torch.Generator().manual_seed(rank)
    U = torch.linalg.qr(torch.randn(DIM, DIM, dtype=torch.float64, generator=generator)).Q[:, :rank]
    variances = torch.tensor([3.0, 0.0, 0.5, 1.5, 0.2], dtype=torch.float64)[:rank]
    rest = 0.3 if rank < DIM else 0.0
    covariance = U @ variances.diag() @ U.T + rest * (torch.eye(DIM, dtype=torch.float64) - U @ U.T)
    return Moments(torch.linspace(-1, 2, DIM, dtype=torch.float64), variances, U, rest), covariance


def law(moments: Moments, covariance: Tensor, sde, t: Tensor) -> torch.distributions.MultivariateNormal:
    """N(alpha m, alpha^2 C + sigma^2 I), one a time."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    noise = sigma[:, None, None] ** 2 * torch.eye(DIM, dtype=torch.float64)
    mean = alpha[:, None] * moments.mean
    return torch.distributions.MultivariateNormal(mean, alpha[:, None, None] ** 2 * covariance + noise)


def times(sde, count: int) -> Tensor:
    return sde.eps + (sde.T - sde.eps) * torch.rand(count, dtype=torch.float64)


@pytest.mark.parametrize("rank", [0, 1, 3, DIM])
def test_density(sde, rank):
    """At points of p_t and of a law that is wider, in vectors and in pictures."""
    moments, covariance = gaussian(rank)
    t = times(sde, 20)
    exact = law(moments, covariance, sde, t)
    x = exact.sample() * torch.linspace(0.5, 3, 20, dtype=torch.float64)[:, None]
    found = moments.log_prob(x, sde, t)
    torch.testing.assert_close(found, exact.log_prob(x), rtol=1e-9, atol=1e-9)
    assert torch.equal(moments.log_prob(x.reshape(20, 1, 1, DIM), sde, t), found)


@pytest.mark.parametrize("rank", [0, 1, 3, DIM])
def test_precision_and_trace(sde, rank):
    """(alpha^2 C + sigma^2 I)^{-1}, each sample at its own time."""
    moments, covariance = gaussian(rank)
    t, v = times(sde, 4), torch.randn(3, 4, DIM, dtype=torch.float64)
    inverse = law(moments, covariance, sde, t).covariance_matrix.inverse()
    torch.testing.assert_close(
        moments.precision(v, sde, t), torch.einsum("bij,mbj->mbi", inverse, v), rtol=1e-7, atol=1e-9
    )
    trace = inverse.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(moments.trace(sde, t), trace, rtol=1e-7, atol=1e-9)


def test_precision_is_minus_the_hessian_of_the_density(sde):
    moments, _ = gaussian(3)
    t, x = times(sde, 1), torch.randn(DIM, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: moments.log_prob(x[None], sde, t)[0], x)
    found = moments.precision(torch.eye(DIM, dtype=torch.float64)[:, None], sde, t)[:, 0]
    torch.testing.assert_close(found, -hessian, rtol=1e-9, atol=1e-9)


def test_precision_is_in_the_dtype_of_its_argument(sde, dtype):
    """The variances themselves are added in float64, where alpha^2 l + sigma^2 does not lose sigma."""
    moments, covariance = gaussian(DIM)
    t, v = torch.full((2,), sde.eps, dtype=torch.float64), torch.randn(1, 2, DIM, dtype=dtype)
    found = moments.precision(v, sde, t)
    inverse = law(moments, covariance, sde, t).covariance_matrix.inverse()
    assert found.dtype == dtype
    scale = float(inverse.abs().max())
    expected = torch.einsum("bij,mbj->mbi", inverse, v.double())
    tolerance = 1e-7 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(found.double() / scale, expected / scale, rtol=0, atol=tolerance)


def test_to():
    moments, _ = gaussian(3)
    narrow = moments.to(torch.zeros(1))
    assert {narrow.mean.dtype, narrow.variances.dtype, narrow.directions.dtype} == {torch.float32}
    assert narrow.rest == moments.rest and torch.equal(narrow.directions, moments.directions.float())


# --- of data ----------------------------------------------------------------------------------------------------------


def covariance_of(found: tuple[Tensor, Tensor, Tensor, float]) -> Tensor:
    """U diag(l - r) U' + r I."""
    mean, variances, U, rest = found
    return U @ (variances - rest).diag() @ U.T + rest * torch.eye(len(mean), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
@pytest.mark.parametrize("count", [4, 300])
def test_of_data(shape, count):
    """Mean and covariance (over N, not N - 1) in model units, though there be fewer examples than dimensions."""
    dim = math.prod(shape)
    train = (torch.randn(count, dim).double() @ torch.randn(dim, dim).double() + 1).float().reshape(count, *shape)
    shift, scale = torch.randn(shape), torch.rand(shape) + 0.5
    data = Data(train, train[:1], shift, scale, shuffle=False)
    found = data.moments()
    mean, variances, directions, rest = found
    x = (train.double() - data.shift) / data.scale
    x = x.flatten(1)
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(covariance_of(found), torch.cov(x.T, correction=0), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(directions.T @ directions, torch.eye(dim).double(), rtol=0, atol=1e-12)
    assert rest == 0 and float(variances.min()) >= 0 and {each.dtype for each in found[:3]} == {torch.float64}


@pytest.mark.parametrize("scale", [8.5, torch.tensor([8.5, 2.0, 0.5])])
def test_of_integer_data(scale):
    """Uniform dequantisation adds 1/12 of a level's square to each variance, and 1/2 to the mean."""
    train = torch.randint(0, 17, (200, 3))
    train[:, 1] = (train[:, 0] + train[:, 1]) // 2
    found = Data(train, train[:1], 8.5, scale, levels=17, shuffle=False).moments()
    x = (train.double() + 0.5 - 8.5) / scale
    torch.testing.assert_close(found[0], x.mean(0), rtol=1e-12, atol=1e-12)
    cells = (1 / (12 * torch.as_tensor(scale).double() ** 2)).expand(3)
    if len(set(cells.tolist())) == 1:
        exact = torch.cov(x.T, correction=0) + cells.diag()
        torch.testing.assert_close(covariance_of(found), exact, rtol=1e-11, atol=1e-11)
    else:  # cells that differ are given the mean of their variances: the trace is right
        expected = float(torch.cov(x.T, correction=0).trace() + cells.sum())
        assert float(covariance_of(found).trace()) == pytest.approx(expected, rel=1e-12)


def test_of_many_dimensions_and_few_examples():
    """50 examples of 1,100 integers span 49 directions: nothing but the cells is left for the others."""
    train = torch.randint(0, 4, (50, 1, 11, 100))
    data = Data(train, train[:1], 1.5, 2.0, levels=4, shuffle=False)
    found = data.moments()
    x = ((train.double() + 0.5 - 1.5) / 2).flatten(1)
    assert found[2].shape == (1100, 50) and found[3] == pytest.approx(1 / 48, rel=1e-9)
    exact = torch.cov(x.T, correction=0) + torch.eye(1100, dtype=torch.float64) / 48
    torch.testing.assert_close(covariance_of(found), exact, rtol=0, atol=1e-9)


def test_of_many_dimensions_and_many_examples():
    """1,100 dimensions keep 256 directions: the strong ones are the data's, and the trace is."""
    strong = torch.randn(400, 5, dtype=torch.float64) * torch.tensor([50.0, 40, 30, 20, 10])
    train = 2 + strong @ torch.randn(5, 1100, dtype=torch.float64) / 30 + 0.1 * torch.randn(400, 1100).double()
    mean, variances, U, rest = Data(train, train[:1], 0.0, 1.0, shuffle=False).moments()
    exact = torch.cov(train.T, correction=0)
    singular = torch.linalg.svdvals(train - train.mean(0)).square() / 400
    assert variances.shape == (256,) and U.shape == (1100, 256)
    torch.testing.assert_close(mean, train.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(U.T @ U, torch.eye(256, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(variances[:5], singular[:5], rtol=1e-8, atol=0)
    torch.testing.assert_close(U[:, :5].T @ exact @ U[:, :5], singular[:5].diag(), rtol=1e-6, atol=1e-6)
    assert float(variances.sum()) + (1100 - 256) * rest == pytest.approx(float(exact.trace()), rel=1e-11)
    assert 0 < rest < float(variances.min())


def test_no_random_number_is_taken():
    """The sketch of many dimensions has a generator of its own: the same moments always, and the same draws after."""
    train = torch.randn(300, 1030)
    data, state = Data(train, train[:1], 0.0, 1.0, shuffle=False), torch.get_rng_state()
    first = data.moments()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], data.moments()[:3]))
