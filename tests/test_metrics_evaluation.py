"""Distances of samples, their support and what a classifier says of them, against closed forms."""

import math

import pytest
import torch
from scipy.linalg import sqrtm

from scoresde.metrics import (
    Values,
    class_shares,
    classifier_score,
    confident,
    density_coverage,
    frechet_distance,
    gaussian_distance,
    kernel,
    kernel_distance,
    precision_recall,
    support,
    support_of,
)
from scoresde.metrics.frechet import mean_and_covariance
from scoresde.metrics.kernel import rows
from scoresde.metrics.support import radii

DOUBLE = torch.float64


# --- the Frechet distance ---------------------------------------------------------------------------------------------


def test_commuting_gaussians_are_at_the_closed_form():
    """|m|^2 + sum (s_i - t_i)^2 where both covariances have the same axes."""
    axes = torch.linalg.qr(torch.randn(5, 5, dtype=DOUBLE)).Q
    s, t, m = (torch.rand(5, dtype=DOUBLE) + 0.1 for _ in range(3))
    c_1, c_2 = (axes * v.square() @ axes.T for v in (s, t))
    expected = float(m.square().sum() + (s - t).square().sum())
    assert gaussian_distance(m, c_1, torch.zeros(5, dtype=DOUBLE), c_2) == pytest.approx(expected, rel=1e-12)


def test_gaussians_that_do_not_commute_agree_with_scipy():
    a, b = (torch.randn(6, 6, dtype=DOUBLE) for _ in range(2))
    c_1, c_2, none = a @ a.T, b @ b.T, torch.zeros(6, dtype=DOUBLE)
    expected = float((c_1 + c_2).trace()) - 2 * sqrtm((c_1 @ c_2).numpy()).trace().real
    assert gaussian_distance(none, c_1, none, c_2) == pytest.approx(expected, rel=1e-10)
    assert gaussian_distance(none, c_2, none, c_1) == pytest.approx(expected, rel=1e-10)


def test_singular_covariances_are_exact():
    """For covariances of rank one along a and b: |a|^2 + |b|^2 - 2 |a . b|; a feature that is always 0 adds nothing."""
    a, b = torch.randn(2, 40, dtype=DOUBLE)
    none = torch.zeros(40, dtype=DOUBLE)
    expected = float(a @ a + b @ b - 2 * (a @ b).abs())
    assert gaussian_distance(none, torch.outer(a, a), none, torch.outer(b, b)) == pytest.approx(expected, rel=1e-9)
    assert gaussian_distance(none, torch.outer(a, a), none, 0 * torch.outer(b, b)) == pytest.approx(float(a @ a))
    assert gaussian_distance(none, torch.outer(a, a), none, torch.outer(a, a)) < 1e-9
    x = torch.randn(7, 30)  # fewer points than features
    y = torch.cat([x, torch.zeros(7, 3)], 1), torch.cat([2 * x, torch.zeros(7, 3)], 1)
    mean, covariance = mean_and_covariance(x.double())
    assert frechet_distance(*y) == pytest.approx(float(mean.square().sum() + covariance.trace()), rel=1e-9)


def test_a_mean_that_is_not_a_number_has_no_distance():
    """And is no perfect score."""
    c, none = torch.eye(2, dtype=DOUBLE), torch.zeros(2, dtype=DOUBLE)
    assert math.isnan(gaussian_distance(none, c, torch.tensor([0.0, math.nan]), c))
    assert gaussian_distance(none, c, none, c) == 0


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shifted_and_stretched_sample_is_at_the_closed_form(shape, dtype):
    x, d = torch.randn(9000, *shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    mean, covariance = mean_and_covariance(x.flatten(1))
    expected = float((2 * mean + d.flatten()).square().sum() + 4 * covariance.trace())
    assert frechet_distance(x, 3 * x + d) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(x, x + d) == pytest.approx(float(d.square().sum()), rel=1e-4)
    assert frechet_distance(x, x[torch.randperm(len(x))]) == pytest.approx(0, abs=1e-9)


def test_few_samples_are_further_apart_by_the_known_bias():
    """For n points each from N(0, s^2) in one dimension: E d^2 = 2 s^2/n for the means, and s^2/n for the stds."""
    n = 50
    found = [frechet_distance(torch.randn(n, 1), torch.randn(n, 1)) for _ in range(3000)]
    assert torch.tensor(found).mean() == pytest.approx(3 / n, rel=0.08)


def test_what_has_no_covariance_is_refused():
    with pytest.raises(ValueError, match="2 points at least, and the samples have 1 and 5"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(5, 2))
    for distance in (frechet_distance, kernel_distance, precision_recall, density_coverage):
        with pytest.raises(ValueError, match="2 and 3 values"):
            distance(torch.zeros(9, 2), torch.zeros(9, 3))


# --- the kernel distance ----------------------------------------------------------------------------------------------


def pairs(x, y):
    """The estimate by its definition, each pair by itself."""
    k = lambda a, b: (float(a @ b) / len(a) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    within = [sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) for z in (x, y)]
    between = sum(k(a, b) for a in x for b in y)
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * between / (n * m)


def test_it_is_the_sum_over_all_pairs_in_any_blocks(monkeypatch):
    x, y = torch.randn(13, 4, dtype=DOUBLE), torch.randn(22, 4, dtype=DOUBLE) + 0.3
    whole = kernel_distance(x, y)
    assert whole[0] == pytest.approx(pairs(x, y), rel=1e-12)
    monkeypatch.setattr(kernel, "BLOCK", 3)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)
    assert kernel_distance(x, y, rows(y)) == pytest.approx(whole, rel=1e-12)


def test_its_error_is_the_jackknifes():
    """That of the values without one point, each computed anew."""
    x, y = torch.randn(9, 3, dtype=DOUBLE), torch.randn(12, 3, dtype=DOUBLE) + 0.5
    rest = lambda z, i: torch.cat([z[:i], z[i + 1 :]])  # noqa: E731
    without_x = torch.tensor([pairs(rest(x, i), y) for i in range(9)])
    without_y = torch.tensor([pairs(x, rest(y, i)) for i in range(12)])
    variance = 8 / 9 * (without_x - without_x.mean()).square().sum()
    variance += 11 / 12 * (without_y - without_y.mean()).square().sum()
    assert kernel_distance(x, y)[1] == pytest.approx(float(variance.sqrt()), rel=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_its_mean_and_its_spread_are_those_of_gaussians(shift):
    """In one dimension (xy + 1)^3 has the mean 1 + 3 m_x m_y + 3 q_x q_y + c_x c_y of the first three moments."""
    # so that MMD^2 is the sum of the squared differences of these moments, of N(0, 1) and of N(shift, 1)
    truth = 3 * shift**2 + 3 * (shift**2) ** 2 + (shift**3 + 3 * shift) ** 2
    found = [kernel_distance(torch.randn(60, 1), torch.randn(80, 1) + shift) for _ in range(1500)]
    values, errors = torch.tensor(found, dtype=DOUBLE).T
    assert float(values.mean()) == pytest.approx(truth, abs=4 * float(values.std()) / math.sqrt(1500))
    ratio = float(errors.square().mean().sqrt() / values.std())
    assert 0.9 < ratio < (1.2 if shift else 1.55), "a root of 2 too large where both laws are one"


# --- precision, recall, density and coverage --------------------------------------------------------------------------


def test_the_support_is_the_same_in_any_blocks(monkeypatch):
    x, real = torch.randn(61, 2, 3), torch.randn(83, 2, 3) + 0.5
    whole = precision_recall(x, real), density_coverage(x, real)
    monkeypatch.setattr(support, "HELD", 100)
    assert (precision_recall(x, real), density_coverage(x, real)) == whole
    monkeypatch.setattr(support, "HELD", 83 * 7)
    assert (precision_recall(x, real), density_coverage(x, real)) == whole
    both = support_of(x, real, of_real=radii(real, 3, 5))
    assert (both.precision, both.recall) == whole[0] and (both.density, both.coverage) == whole[1]


def test_the_support_on_a_line_by_hand():
    """Data 0, 1, 3 and k = 1: balls of radius 1, 1, 2. Sample 0.5 lies in two of them, 4.5 in one, 9 in none."""
    real, x = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [4.5], [9.0]])
    assert density_coverage(x, real, k=1) == (3 / 3, 3 / 3)
    assert precision_recall(x, real, k=1)[0] == pytest.approx(2 / 3)
    # balls of the samples: radius 4, 4 and 4.5; 0, 1 and 3 lie in the first
    assert precision_recall(x, real, k=1)[1] == 1
    assert density_coverage(x[2:].expand(3, 1), real, k=1) == (0, 0)


def test_of_one_law_density_is_one_and_coverage_the_closed_form():
    """Coverage: 1 - prod (M - i)/(N + M - i), i = 1 ... k, the law of ranks."""
    n, m, k = 40, 60, 5
    found = torch.tensor([density_coverage(torch.randn(n, 3), torch.randn(m, 3), k) for _ in range(600)])
    coverage = 1 - math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    error = found.std(0) / math.sqrt(600)
    assert float(found[:, 0].mean()) == pytest.approx(1, abs=4 * float(error[0]))
    assert float(found[:, 1].mean()) == pytest.approx(coverage, abs=4 * float(error[1]))


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="the support needs more than 5 points"):
        density_coverage(torch.zeros(5, 2), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="the kernel distance needs 3 points at least"):
        kernel_distance(torch.zeros(2, 2), torch.zeros(9, 2))


# --- a classifier's verdicts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [2, 7])
def test_the_score_of_sure_and_equal_classes_is_their_number(kinds):
    k = torch.arange(700) % kinds
    sure = torch.full((700, kinds), -math.inf, dtype=DOUBLE)
    sure[torch.arange(700), k] = 0.0
    assert classifier_score(sure) == (pytest.approx(kinds), pytest.approx(0, abs=1e-12))
    same = torch.randn(1, kinds).log_softmax(1).expand(700, kinds)
    assert classifier_score(same) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert confident(sure) == 1 and torch.allclose(class_shares(sure), torch.full((kinds,), 1 / kinds).double())


def test_the_score_of_two_unequal_kinds_by_hand():
    """Three in four certainly of the first class: the mutual information is the entropy of 3/4."""
    sure = torch.tensor([[0.0, -math.inf]]).repeat(40, 1)
    sure[::4] = torch.tensor([-math.inf, 0.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert classifier_score(sure)[0] == pytest.approx(math.exp(entropy))
    assert class_shares(sure).tolist() == [0.75, 0.25]


def test_its_error_is_the_spread_of_its_parts():
    found = [classifier_score((2 * torch.randn(400, 5)).log_softmax(1)) for _ in range(200)]
    values, errors = torch.tensor(found, dtype=DOUBLE).T
    assert float(errors.square().mean().sqrt() / values.std()) == pytest.approx(1, abs=0.2)
    assert math.isnan(classifier_score(torch.zeros(19, 2).log_softmax(1))[1])


def test_who_is_sure_is_above_nine_tenths():
    prob = torch.tensor([[0.91, 0.09], [0.89, 0.11], [0.05, 0.95], [0.5, 0.5]])
    assert confident(prob.log()) == 0.5


def test_values_are_the_points():
    x = torch.randn(4, 2, 3)
    assert torch.equal(Values().features(x), x.reshape(4, 6))
