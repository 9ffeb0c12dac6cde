"""Every planar shape's log-density is that of its draws: integral, moments, entropy, histogram, and by other means."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from scoresde.data import Checkerboard, EightGaussians, Moons, Pinwheel, Rings, SwissRoll, TwoSpirals
from scoresde.data.pinwheel import roots

# the differential entropy in nats, and half the side of a square round the shape
SHAPES = {
    Moons: (2.394, 4.5),
    Checkerboard: (math.log(32), 5.0),
    SwissRoll: (2.670, 4.5),
    EightGaussians: (2.832, 5.5),
    Pinwheel: (2.318, 5.5),
    TwoSpirals: (2.645, 4.5),
    Rings: (2.623, 4.0),  # thin rings apart: ln 4 + mean ln(2 pi R) + ln(0.08 sqrt(2 pi e))
}
BINS, FINE = 32, 5
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


@functools.cache
def drawn(shape):
    return shape(count=100_000, test_count=10_000, seed=3)


@functools.cache
def on_grid(shape):
    """Points (n^2, 2), their densities (n^2,), and the area of a cell."""
    n, half = BINS * FINE, SHAPES[shape][1]
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * 2 * half / n - half
    points = torch.cartesian_prod(axis, axis)
    return points, drawn(shape).true_log_prob(points).exp(), (2 * half / n) ** 2


@every_shape
def test_density_integrates_to_one(shape):
    _, density, area = on_grid(shape)
    assert float(density.sum() * area) == pytest.approx(1, abs=1e-6)


@every_shape
def test_units_are_the_moments_of_the_density(shape):
    points, density, area = on_grid(shape)
    mean = density @ points * area
    std = (density @ (points - mean).square() * area).mean().sqrt()
    torch.testing.assert_close(drawn(shape).shift.expand(2), mean, rtol=0, atol=1e-5)
    # on a grid the uniform cells of the checkerboard lack the variance within one cell of the grid
    assert float(drawn(shape).scale) == pytest.approx(float(std), rel=1e-4 if shape is Checkerboard else 1e-5)


@every_shape
def test_entropy_is_the_documented_one_and_that_of_the_draws(shape):
    _, density, area = on_grid(shape)
    entropy = -float(torch.xlogy(density, density).sum() * area)
    assert entropy == pytest.approx(SHAPES[shape][0], abs=0.001)
    log_prob = drawn(shape).true_log_prob(drawn(shape).test)
    assert log_prob.dtype == torch.float64
    assert abs(float(log_prob.mean()) + entropy) < 4 * float(log_prob.std()) / 100 + 1e-4


@every_shape
def test_draws_follow_the_density(shape):
    _, density, area = on_grid(shape)
    half = SHAPES[shape][1]
    expected = density.reshape(BINS, FINE, BINS, FINE).sum((1, 3)).numpy() * area * 100_000
    r = drawn(shape).train.double().numpy()
    observed, _, _ = np.histogram2d(r[:, 0], r[:, 1], bins=BINS, range=[[-half, half]] * 2)
    often = expected > 10
    rest = max(expected[~often].sum(), 1e-9)
    chi_square = (((observed - expected) ** 2)[often] / expected[often]).sum()
    assert stats.chi2.sf(chi_square, often.sum()) > 1e-4
    assert abs(observed[~often].sum() - rest) < 5 * math.sqrt(rest) + 1


@every_shape
def test_seed_decides_the_draws_and_the_parts_are_disjoint(shape):
    a, b = shape(count=300, test_count=200, seed=7), shape(count=100, test_count=200, seed=7)
    assert torch.equal(a.test, b.test) and torch.equal(a.train, shape(count=300, test_count=200, seed=7).train)
    other = shape(count=300, test_count=200, seed=8)
    assert not torch.equal(a.train, other.train) and torch.equal(a.scale, other.scale)
    assert not set(map(tuple, a.train.tolist())) & set(map(tuple, a.test.tolist()))
    assert a.shape == (2,) and a.train.dtype == torch.get_default_dtype()


@every_shape
def test_density_is_finite_far_away(shape):
    log_prob = shape(count=1, test_count=1).true_log_prob(
        torch.tensor([[0.0, 0.0], [9.0, -7.0], [30.0, 40.0], [-1e3, 1e3]])
    )
    if shape is Checkerboard:
        assert log_prob[1:].tolist() == [-math.inf] * 3
    else:
        assert log_prob.isfinite().all() and (log_prob[1:].diff() < 0).all()


def test_checkerboard_is_constant_on_its_cells():
    points = torch.tensor([[0.1, 0.1], [-3.9, -3.9], [3.9, 3.9], [-1.0, 1.0], [1.0, -1.0], [4.1, 0.5], [3.0, -1.0]])
    inside = [True, True, True, False, False, False, True]
    expected = [-math.log(32) if black else -math.inf for black in inside]
    assert Checkerboard(1, 1).true_log_prob(points).tolist() == pytest.approx(expected)
    assert Checkerboard().true_log_prob(Checkerboard().train).isfinite().all()  # none rounded over an edge


def test_rings_against_an_average_over_the_angle():
    r, angle = torch.tensor([[0.4, -2.0]], dtype=torch.float64), torch.arange(4000) * 2 * math.pi / 4000
    circle = torch.stack((angle.cos(), angle.sin()), 1).double()
    kernels = [torch.exp(-(r - radius * circle).square().sum(1) / (2 * 0.3**2)) for radius in (3, 2.25, 1.5, 0.75)]
    density = float(torch.stack(kernels).mean()) / (2 * math.pi * 0.3**2)
    assert float(Rings(1, 1, noise=0.3).true_log_prob(r)) == pytest.approx(math.log(density), abs=1e-6)


@pytest.mark.parametrize("r", [(0.7, 0.9), (-1.3, 0.2), (2.2, -1.4)])
def test_curves_against_a_plain_sum(r):
    u = (np.arange(1_000_000) + 0.5) / 1_000_000

    def normal(x, y, std):
        return np.exp(-((r[0] - x) ** 2 + (r[1] - y) ** 2) / (2 * std**2)) / (2 * math.pi * std**2)

    def moons():
        x, y = np.cos(math.pi * u), np.sin(math.pi * u)
        return (normal(2 * x - 1, 2 * y - 0.2, 0.3) + normal(1 - 2 * x, 0.8 - 2 * y, 0.3)) / 2

    def roll():
        t = 1.5 * math.pi * (1 + 2 * u)
        return normal(t * np.cos(t) / 5, t * np.sin(t) / 5, 0.3)

    def side(v):
        return (special.ndtr(v / 0.2) - special.ndtr((v - 1 / 6) / 0.2)) * 6

    def spirals():  # in the square root of u, which is smooth
        x, y = -math.pi * u * np.cos(3 * math.pi * u), math.pi * u * np.sin(3 * math.pi * u)
        return (side(r[0] - x) * side(r[1] - y) + side(-r[0] - x) * side(-r[1] - y)) * u

    for data, density in (
        (Moons(1, 1, noise=0.15), moons),
        (SwissRoll(1, 1, noise=1.5), roll),
        (TwoSpirals(1, 1, noise=0.2), spirals),
    ):
        log_prob = data.true_log_prob(torch.tensor([r], dtype=torch.float64))
        assert float(log_prob) == pytest.approx(math.log(density().mean()), abs=1e-8)


def test_spirals_density_is_one_function_near_and_far():
    data = drawn(TwoSpirals)
    r = torch.cat((data.test[:300].double(), 1.3 * data.test[:300].double()))
    v = (r[:, None] - data.centres).abs() / data.noise
    torch.testing.assert_close(data.log_density(r), data.log_tail(v, data.side / (2 * data.noise)), rtol=0, atol=1e-8)


def test_noise_may_be_small():
    for shape in (Moons, SwissRoll, TwoSpirals, Rings, EightGaussians):
        data = shape(count=10, test_count=200, noise=0.01)
        assert data.true_log_prob(data.test).isfinite().all()


def test_pinwheel_sums_over_every_preimage():
    """Each root is a preimage, and with autograd's Jacobian of the map the preimages add up to the density."""

    def forward(feature, k):
        angle = 2 * math.pi * k / 5 + 0.25 * feature[0].exp()
        return 2 * torch.stack(
            (feature[0] * angle.cos() + feature[1] * angle.sin(), feature[1] * angle.cos() - feature[0] * angle.sin())
        )

    # the last two lie where the arms overlap themselves
    r = torch.tensor(
        [[1.9, 0.3], [-0.8, 2.1], [0.3, -0.2], [-3.0, -1.0], [3.9, -1.2], [-4.5, 3.0], [6.1, 5.0]]
    ).double()
    rho, a = r.norm(dim=1) / 2, torch.atan2(r[:, 1], r[:, 0])
    row, phi = roots(rho, a)
    counts = torch.bincount(row)
    assert counts[:4].tolist() == [5, 5, 5, 5] and (counts[5:] > 5).all()
    density = torch.zeros(len(r), dtype=torch.float64)
    for i, angle in zip(row.tolist(), phi, strict=True):
        feature = rho[i] * torch.stack((angle.cos(), angle.sin()))
        k = min(range(5), key=lambda k: float((forward(feature, k) - r[i]).norm()))
        torch.testing.assert_close(forward(feature, k), r[i], rtol=0, atol=1e-10)
        jacobian = torch.autograd.functional.jacobian(lambda f, k=k: forward(f, k), feature)
        normal = math.exp(-(((feature[0] - 1) / 0.3) ** 2 + (feature[1] / 0.1) ** 2) / 2) / (2 * math.pi * 0.3 * 0.1)
        density[i] += normal / 5 / jacobian.det().abs()
    torch.testing.assert_close(drawn(Pinwheel).true_log_prob(r), density.log(), rtol=0, atol=1e-8)


def test_pinwheel_far_out_is_the_average_over_the_angle():
    """Just inside the distance where single windings are given up, their average is what takes over just outside."""
    angle = (torch.arange(2000, dtype=torch.float64) + 0.5) * 2 * math.pi / 5 / 2000
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    inside, outside = (drawn(Pinwheel).true_log_prob(radius * circle) for radius in (9.999999, 10.000001))
    assert float(inside.logsumexp(0) - math.log(2000)) == pytest.approx(float(outside[0]), abs=0.1)


def test_eight_gaussians_components_are_its_density():
    data = drawn(EightGaussians)
    weights, means, stds = data.components()
    x = data.encode(data.test.double())
    log_kernel = torch.distributions.Normal(means, stds[:, None]).log_prob(x[:, None]).sum(-1)
    log_p_x = torch.logsumexp(weights.log() + log_kernel, 1)
    torch.testing.assert_close(data.true_log_prob(data.test), log_p_x + data.log_det, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [Moons, SwissRoll, EightGaussians, TwoSpirals, Rings])
@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan])
def test_a_curve_without_noise_is_refused(shape, noise):
    with pytest.raises(ValueError, match=r"`noise`=.* must be at least 0\.001: type `noise`="):
        shape(count=1, test_count=1, noise=noise)
