"""Two-sample distances against closed forms."""

import math

import pytest
import torch

from scoresde.metrics import sliced_wasserstein


@pytest.mark.parametrize("shape", [(2,), (3, 8, 6)])
def test_a_shifted_sample_is_at_the_mean_projection_of_its_shift(shape):
    """SW_2(x, x + d)^2 = E (theta . d)^2 = |d|^2 / D, over uniform directions."""
    torch.manual_seed(0)
    x, d = torch.randn(50, *shape), torch.randn(shape)
    assert sliced_wasserstein(x, x + d, directions=20_000) == pytest.approx(
        float(d.norm()) / math.sqrt(d.numel()), rel=0.03
    )


def test_unequal_sizes_in_one_dimension_are_exact():
    """Quantile functions {0, 1} on halves and {0, 1, 2} on thirds: the integral is (1/6 * 1 + 1/3 * 1) by hand."""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    # on [0, 1/3]: 0 and 0; [1/3, 1/2]: 0 and 1; [1/2, 2/3]: 1 and 1; [2/3, 1]: 1 and 2
    assert sliced_wasserstein(x, y) == pytest.approx(math.sqrt(1 / 6 + 1 / 3))
    assert sliced_wasserstein(y, x) == pytest.approx(math.sqrt(1 / 6 + 1 / 3))


def test_it_is_a_distance_between_samples_and_not_between_rows():
    x = torch.randn(100, 3)
    assert sliced_wasserstein(x, x[torch.randperm(100)]) == pytest.approx(0, abs=1e-9)
    assert sliced_wasserstein(x, x + 1) == sliced_wasserstein(x, x + 1), "seeded"


def test_unequal_dimensions_are_refused():
    with pytest.raises(ValueError, match="2 and 3 values"):
        sliced_wasserstein(torch.zeros(4, 2), torch.zeros(4, 3))
