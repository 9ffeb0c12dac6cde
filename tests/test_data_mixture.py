"""The mixture's density, moments and components against sums written out by hand."""

import math

import pytest
import torch

from scoresde.data import Mixture

WEIGHTS, MEANS, STDS = [2.0, 1.0, 1.0], [[-2.0, -1.0, 0.5], [2.0, -0.5, 0.0], [0.5, 2.5, 1.0]], [0.6, 0.4, 0.8]


def mixture(**changes):
    return Mixture(**{"weights": WEIGHTS, "means": MEANS, "stds": STDS, "count": 2000, "test_count": 500} | changes)


def test_density_is_the_weighted_sum_of_gaussians():
    point = (0.3, -0.7, 1.1)
    density = 0.0
    for weight, mean, std in zip((0.5, 0.25, 0.25), MEANS, STDS, strict=True):
        kernel = math.prod(
            math.exp(-((r - m) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
            for r, m in zip(point, mean, strict=True)
        )
        density += weight * kernel
    log_prob = mixture().true_log_prob(torch.tensor([point]))
    assert log_prob.dtype == torch.float64
    assert float(log_prob[0]) == pytest.approx(math.log(density), abs=1e-6)  # the point was float32


def test_units_are_the_exact_moments():
    data = mixture()
    mean = [sum(w * m[i] for w, m in zip((0.5, 0.25, 0.25), MEANS, strict=True)) for i in range(3)]
    second = sum(
        w * (m[i] ** 2 + s**2) for w, m, s in zip((0.5, 0.25, 0.25), MEANS, STDS, strict=True) for i in range(3)
    )
    assert data.shift.tolist() == pytest.approx(mean)
    assert float(data.scale) == pytest.approx(math.sqrt((second - sum(m**2 for m in mean)) / 3))


@pytest.mark.parametrize("shape", [None, [3, 1, 1]])
def test_components_are_the_same_density_in_model_units(shape):
    data = mixture(shape=shape)
    weights, means, stds = data.components()
    assert (weights.dtype, means.dtype, stds.dtype) == (torch.float64,) * 3 and means.shape == (3, 3)
    x = data.encode(data.test.double()).flatten(1)
    log_kernel = torch.distributions.Normal(means, stds[:, None]).log_prob(x[:, None]).sum(-1)
    log_p_x = torch.logsumexp(weights.log() + log_kernel, 1)
    torch.testing.assert_close(data.true_log_prob(data.test), log_p_x + data.log_det, rtol=0, atol=1e-10)


def test_draws_have_the_mixtures_moments():
    data = mixture(count=200_000)
    x = data.encode(data.train.double())
    assert x.mean(0).abs().max() < 0.01 and abs(float(x.square().mean().sqrt()) - 1) < 0.005
    near_first = (data.train - torch.tensor(MEANS[0])).norm(dim=1) < 2.2  # almost all of it, almost nothing else
    assert abs(float(near_first.float().mean()) - 0.5) < 0.01


def test_mean_log_density_of_one_gaussian_is_minus_its_entropy():
    data = mixture(weights=[3.0], means=[1.5], stds=[0.7], shape=[3, 8, 6], test_count=4000)
    assert data.shape == (3, 8, 6) and data.dim == 144 and data.test.shape == (4000, 3, 8, 6)
    log_prob = data.true_log_prob(data.test)
    entropy = 144 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.7))
    assert abs(float(log_prob.mean()) + entropy) < 4 * math.sqrt(144 / 2 / 4000)


def test_chunks_do_not_change_the_density():
    data = mixture()
    whole = data.true_log_prob(data.test)
    data.chunk = 7
    torch.testing.assert_close(data.true_log_prob(data.test), whole, rtol=0, atol=0)


def test_numbers_stand_for_constant_vectors():
    data = mixture(means=[0.0, 1.0, 5.0], shape=[2, 2])
    assert torch.equal(data.means, torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)[:, None].expand(3, 4))
    assert mixture(means=[0.0, 1.0, 5.0]).shape == (1,)


def test_seed_decides_the_draws_and_the_parts_are_disjoint():
    a, b = mixture(), mixture(count=50)
    assert torch.equal(a.test, b.test)  # the held-out part does not depend on the number of training examples
    assert torch.equal(a.train, mixture().train) and not torch.equal(a.train, mixture(seed=1).train)
    assert not set(map(tuple, a.train.tolist())) & set(map(tuple, a.test.tolist()))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stds": [1.0]}, r"of one length, not 3 weights, 3 means and 1 stds"),
        ({"weights": [1.0, -1.0, 1.0]}, r"`weights`=\[1.0, -1.0, 1.0\] must all be positive"),
        ({"stds": [1.0, 0.0, 1.0]}, r"`stds`=\[1.0, 0.0, 1.0\] must all be positive"),
        ({"means": [[0.0, 1.0], [1.0], [2.0, 2.0]]}, r"`means`\[1\] has 1 numbers, .*\(2,\) has 2"),
        ({"shape": [2, 2]}, r"`means`\[0\] has 3 numbers, .*\(2, 2\) has 4"),
        ({"shape": [0]}, r"`shape`=\[0\]"),
        ({"means": [[math.nan] * 3] * 3}, r"`means`=.*finite"),
        ({"count": 0}, r"`count`=0 must be at least 1: type `count`=200000"),
        ({"test_count": 0}, r"`test_count`=0"),
        ({"seed": -1}, r"`seed`=-1"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        mixture(**changes)


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\).*\(3,\)"):
        mixture().true_log_prob(torch.zeros(4, 2))
