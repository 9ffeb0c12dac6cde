"""Units are exact inverses with an exact Jacobian, and integers meet the middle of their cells."""

import math

import pytest
import torch

from scoresde.data import Data, Digits


@pytest.fixture
def vectors():
    return Data(torch.randn(50, 3), torch.randn(5, 3), torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 3.0, 0.1]))


@pytest.fixture(scope="module")
def digits():
    return Digits()


@pytest.mark.parametrize("shape, scale", [((3,), [0.5, 3.0, 0.1]), ((2, 3, 5), 1.7)])
def test_log_det_is_that_of_the_jacobian_of_encode(shape, scale):
    data = Data(torch.zeros(2, *shape), torch.zeros(2, *shape), 0.3, torch.tensor(scale))
    r = torch.randn(1, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(data.encode, r).reshape(data.dim, data.dim)
    assert data.log_det == pytest.approx(float(jacobian.slogdet().logabsdet), abs=1e-12)


def test_decode_inverts_encode(vectors):
    r = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(vectors.decode(vectors.encode(r)), r, rtol=0, atol=1e-14)
    assert vectors.encode(r.float()).dtype == torch.float32


def test_integers_are_encoded_without_rounding_the_units(digits):
    k = torch.tensor([0, 17]).to(torch.uint8).reshape(2, 1, 1, 1)
    assert digits.encode(k).flatten().tolist() == [-1.0, 1.0]


def test_dequantisation_fills_the_cells_of_the_model_units(digits):
    k = torch.tensor([0, 16]).to(torch.uint8).reshape(2, 1, 1, 1)
    assert digits.dequantise(k, None).flatten().tolist() == [0.5, 16.5]
    u = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    x = digits.encode(digits.dequantise(k, u))
    assert x.dtype == torch.float64 and x.flatten().tolist() == [-1.0, 1.0]


def test_continuous_data_are_not_dequantised(vectors):
    assert vectors.dequantise(vectors.train, torch.rand(50, 3)) is vectors.train


def test_bits_per_dim_of_a_uniform_pixel(digits):
    nats = digits.dim * math.log(17)
    assert digits.bits_per_dim(nats) == pytest.approx(math.log2(17))
    assert digits.log_det == pytest.approx(-64 * math.log(8.5))


def test_std_pools_the_coordinates():
    train = torch.tensor([[0.0, 10.0], [2.0, 14.0]])
    assert Data(train, train, 0.0, 2.0).std == pytest.approx(math.sqrt((1 + 4) / 2) / 2)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        Data(torch.zeros(2, 2), torch.zeros(2, 2), 0.0, torch.tensor([1.0, 0.0]))


def test_what_nobody_knows_is_none(vectors):
    assert vectors.true_log_prob(vectors.test) is None
    assert (vectors.components(), vectors.labels(), vectors.fingerprint()) == (None, None, None)


def test_digits_are_split_once_with_their_labels(digits):
    assert digits.train.shape == (1500, 1, 8, 8) and digits.test.shape == (297, 1, 8, 8)
    assert digits.train.dtype == torch.uint8 and int(digits.train.max()) == 16 and digits.levels == 17
    from sklearn.datasets import load_digits

    def rows(images, labels):
        return sorted(tuple(row) for row in torch.cat((images.flatten(1), labels[:, None]), 1).tolist())

    truth = load_digits()
    both = torch.cat((digits.train, digits.test)), torch.cat((digits.train_labels, digits.test_labels))
    assert rows(*both) == rows(torch.tensor(truth.data), torch.tensor(truth.target))
    assert torch.equal(Digits(seed=0).test, digits.test) and not torch.equal(Digits(seed=1).test, digits.test)


@pytest.mark.parametrize("count", [0, 1797])
def test_digits_refuse_a_split_without_two_parts(count):
    with pytest.raises(ValueError, match=rf"`test_count`={count} must be .*type `test_count`=297"):
        Digits(test_count=count)


X = torch.zeros(6, 2)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"test": torch.zeros(3, 3)}, r"a held-out example has the shape \(3,\), and a training example \(2,\)"),
        ({"train": torch.zeros(6, 1, 4, 4)}, r"held-out example has the shape \(2,\), and a training .* \(1, 4, 4\)"),
        ({"train": X.numpy()}, r"the training examples are of type ndarray; give a tensor \(N, D\)"),
        ({"test": X[:, 0]}, r"the held-out examples are of shape \(6,\); give a tensor \(N, D\)"),
        ({"shift": torch.zeros(3)}, r"the data's shift has the shape \(3,\), and an example \(2,\); give one number"),
        ({"scale": torch.ones(2, 1)}, r"the data's scale has the shape \(2, 1\), and an example \(2,\)"),
        ({"scale": torch.ones(6, 2)}, r"the data's scale has the shape \(6, 2\)"),
        ({"train_labels": torch.zeros(5)}, r"labels of the training examples have the shape \(5,\); .* the 6 examples"),
        ({"test_labels": torch.zeros(6, 1)}, r"labels of the held-out examples have the shape \(6, 1\)"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(values, message):
    """A user's own class gets one message before a training, and no traceback of torch after it has begun."""
    with pytest.raises(ValueError, match=message):
        Data(**{"train": X, "test": X, "shift": 0.0, "scale": 1.0} | values)


@pytest.mark.parametrize(
    "shape, units", [((2,), (1,)), ((2,), (2,)), ((3, 4, 5), (3, 1, 1)), ((3, 4, 5), (1, 4, 5)), ((1,), ())]
)
def test_units_that_broadcast_over_an_example_are_taken(shape, units):
    data = Data(torch.zeros(6, *shape), torch.ones(0, *shape), torch.full(units, 2.0), torch.full(units, 4.0))
    assert torch.equal(data.encode(torch.full((1, *shape), 4.0)), torch.full((1, *shape), 0.5))
