"""Linear measurements: everything that conditioning asks of A, against its matrix."""

import math

import numpy as np
import pytest
import torch

from scoresde.conf import schema
from scoresde.samplers import (
    Box,
    Colourise,
    Columns,
    Deblur,
    Dense,
    Half,
    Mask,
    MaskFile,
    Matrix,
    Missing,
    Random,
    Superresolve,
    dense,
    in_model_units,
)
from scoresde.samplers.operators import along

PICTURE = (3, 8, 6)
WIDE = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
OPERATORS = {
    "half": Half(PICTURE, "top"),
    "columns": Columns((5,), [0, 3]),
    "box": Box(PICTURE),
    "random": Random(PICTURE, 0.3),
    "missing": Missing((5,)),
    "weighted": Mask((5,), 0.1, torch.tensor([[0.0, 0.5, 2.0, 0.0, 1.0]])),
    "colourise": Colourise(PICTURE),
    "television": Colourise(PICTURE, [0.299, 0.587, 0.114]),
    "superresolve": Superresolve(PICTURE, 2),
    "deblur": Deblur(PICTURE, 0.8),
    "deblur strongly": Deblur(PICTURE, 2.0),
    "dense": Dense((7,), 0.0, WIDE),
    "rank 2 of 4": Dense((7,), 0.0, torch.cat([WIDE[:2], WIDE[:2] * 2])),
    "tall": Dense((3,), 0.0, WIDE[:, :3]),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]


@pytest.fixture
def matrix(operator):
    return dense(operator)


def draw(operator, count=3):
    return torch.randn(count, *operator.shape, dtype=torch.float64)


def test_the_transpose_is_the_matrix_transposed(operator, matrix):
    y = torch.randn(3, *operator.measured, dtype=torch.float64)
    assert operator(draw(operator)).shape == y.shape and operator.transpose(y).shape == (3, *operator.shape)
    assert torch.allclose(operator.transpose(y).flatten(1), y.flatten(1) @ matrix, atol=1e-12)


@pytest.mark.parametrize("r, s", [(0.7, 0.3), (2.0, 0.0)])
def test_functions_of_the_square_are_those_of_its_eigenvalues(operator, matrix, r, s):
    x, r = draw(operator), torch.tensor([r, 2 * r, 3 * r], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    values = torch.where(values < 1e-9 * values.max(), 0.0, values)

    def f(e):
        return torch.where(e > 0, 1 / (along(r, e) * e + s), 3.0)

    expected = (f(values.expand(3, -1)) * (x.flatten(1) @ vectors)) @ vectors.T
    assert torch.allclose(operator.function(f, x).flatten(1), expected, atol=1e-8)
    logs = torch.where(values > 0, (r[:, None] * values + s).log(), 0.0).sum(1)
    assert torch.allclose(operator.trace(lambda e: (along(r, e) * e + s).log(), x), logs, atol=1e-8)


def test_the_pseudo_inverse(operator, matrix):
    y = torch.randn(3, *operator.measured, dtype=torch.float64)
    inverse = torch.linalg.pinv(matrix, rtol=1e-7)
    assert torch.allclose(operator.pseudo_inverse(y).flatten(1), y.flatten(1) @ inverse.T, atol=1e-7)


def test_a_change_of_the_columns_units(operator, matrix):
    scale = torch.rand(operator.shape, dtype=torch.float64) + 0.5
    assert torch.allclose(dense(operator.columns(scale)), matrix * scale.flatten(), atol=1e-12)


def test_float32_is_kept(operator):
    x = draw(operator).float()
    found = operator.function(lambda e: 1 / (e + 1), x)
    assert operator(x).dtype == operator.transpose(operator(x)).dtype == found.dtype == torch.float32
    assert torch.allclose(found.double(), operator.function(lambda e: 1 / (e + 1), x.double()), atol=1e-5)


@pytest.mark.parametrize("scale", [torch.tensor(2.5), torch.linspace(0.5, 3, 7)])
def test_model_units(scale):
    """r = scale x + shift was measured as y; the measurement of x says the same, its noise too."""
    operator, shift = Dense((7,), 0.4, WIDE), torch.linspace(-1, 1, 7, dtype=torch.float64)
    x, n = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    y = operator(scale.double() * x + shift) + operator.noise * n
    found = in_model_units(operator, y, shift, scale.double(), torch.float64, "cpu")
    assert torch.allclose(found.residual(x), found.noise * n, atol=1e-12)


def test_which_values_a_mask_knows():
    assert Half((5,), "left").seen.tolist() == [[True, True, True, False, False]]
    assert Half((5,), "right").seen.tolist() == [[False, False, True, True, True]]
    rows = Half(PICTURE, "bottom").seen[0, 0]
    assert not rows[:4].any() and rows[4:].all()
    box = Box((1, 8, 6)).seen[0, 0]
    assert not box[2:6, 1:4].any() and box.sum() == 48 - 12
    assert torch.equal(Box((1, 8, 6), unknown="outside").seen[0, 0], ~box)
    assert Columns((3,), ["b", 2], ["a", "b", "c"]).seen.tolist() == [[False, True, True]]


def test_random_masks_are_one_a_sample_and_whole_pixels():
    operator = Random((3, 40, 50), 0.3)
    masks = operator.rows(torch.tensor([0, 1, 0, 5])).seen
    assert torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[1])
    assert torch.equal(masks[3], operator.rows(torch.tensor([5])).seen[0]), "whatever the batch"
    assert torch.equal(masks[:, 0], masks[:, 1]) and abs(float(masks.double().mean()) - 0.3) < 0.02


def test_masks_and_matrices_of_files(tmp_path):
    path = str(tmp_path / "a.npy")
    known = np.random.default_rng(0).random((8, 6)) < 0.5
    np.save(path, known)
    assert np.array_equal(MaskFile(PICTURE, path).seen[0, 2].numpy(), known)
    many = np.random.default_rng(1).random((4, 5)) < 0.5
    np.save(path, many)
    assert np.array_equal(MaskFile((5,), path).rows(torch.tensor([3, 1])).seen.numpy(), many[[3, 1]])
    with pytest.raises(ValueError, match="holds 4 masks, and sample 6 .* count=4"):
        MaskFile((5,), path).rows(torch.tensor([6]))
    np.save(path, WIDE.numpy())
    assert torch.equal(Matrix((7,), path).matrix, WIDE)
    kernel = np.random.default_rng(2).random((3, 2))
    np.save(path, kernel)
    x = torch.zeros(1, 1, 5, 4, dtype=torch.float64)
    x[0, 0, 2, 1] = 1
    blurred = Deblur((1, 5, 4), path=path)(x)[0, 0]
    assert np.allclose(blurred[1:4, 0:2].numpy(), kernel / kernel.sum(), atol=1e-3), "centred"
    lopsided, (x, y) = Deblur((1, 5, 4), path=path), torch.randn(2, 3, 1, 5, 4, dtype=torch.float64)
    assert torch.allclose((lopsided(x) * y).sum(), (x * lopsided.transpose(y)).sum(), rtol=1e-10)
    A, f = dense(lopsided), lopsided.function(lambda e: e, x).flatten(1)
    assert torch.allclose(f, x.flatten(1) @ (A.T @ A), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda p: Superresolve((2,)), "operator=superresolve is for images, and the data are vectors of 2"),
        (lambda p: Superresolve(PICTURE, 4), "`factor`=4 must be at least 2 and divide pictures of 8 x 6; type"),
        (lambda p: Superresolve((1, 7, 5)), "no factor does"),
        (lambda p: Colourise((1, 8, 8)), "needs at least two channels"),
        (lambda p: Colourise(PICTURE, [1.0]), r"`weights`=\[1.0\] must be 3 numbers"),
        (lambda p: Deblur(PICTURE, 0.0), "`std`=0.0 must be positive"),
        (lambda p: Deblur((3,)), "operator=deblur is for images"),
        (lambda p: Half((2,), "top"), "`known`=top: vectors have columns only"),
        (lambda p: Half((1,)), "cannot cut"),
        (lambda p: Box((2,)), "operator=box is for images"),
        (lambda p: Box(PICTURE, 0.01), "leaves nothing unknown"),
        (lambda p: Box(PICTURE, 0.01, "outside"), "leaves nothing known"),
        (lambda p: Box(PICTURE, 0.99), "leaves nothing known"),
        (lambda p: Random(PICTURE, 1.0), "`share`=1.0 must lie between 0 and 1"),
        (lambda p: Columns((3,), ["d"], ["a", "b", "c"]), "there is no column 'd'; they are a, b, c, or 0 to 2"),
        (lambda p: Columns((3,), [0, 1, 2]), "must leave some of 3 columns unknown"),
        (lambda p: Columns((3,), []), "must name a column"),
        (lambda p: Half((2,), noise=-1.0), "`noise`=-1.0 must be a finite std, at least 0"),
        (lambda p: Half((2,), noise=math.inf), "`noise`=inf must be a finite std, at least 0"),
        (lambda p: Matrix((2,)), "`path` is not set"),
        (lambda p: Matrix((2,), p), r"has shape \(4, 7\); a sample of shape \(2,\) needs a matrix of shape \(m, 2\)"),
        (lambda p: MaskFile((2,), p), r"has shape \(4, 7\); a mask of samples of shape \(2,\) has"),
        (lambda p: MaskFile((2,), "nowhere.npy"), "`path`=nowhere.npy: there is no file"),
        (lambda p: dense(Half((1, 100, 100))), "a matrix for samples of 10000 values is too large"),
    ],
)
def test_mistakes_are_named(tmp_path, build, message):
    path = str(tmp_path / "a.npy")
    np.save(path, WIDE.numpy())
    with pytest.raises((ValueError, OSError), match=message):
        build(path)


@pytest.mark.parametrize("target", ["samplers.Matrix", "samplers.MaskFile", "samplers.Deblur"])
def test_messages_of_files_name_the_key_at_its_place(tmp_path, target):
    for content in (None, b"no array", np.zeros(PICTURE), np.ones((4, 7)), np.full(PICTURE, math.nan)):
        path = tmp_path / "a.npy"
        path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            np.save(path, content)
        with pytest.raises((ValueError, OSError), match=rf"^a\.b\.path={path}[: ]") as caught:
            schema.build({"_target_": target, "shape": list(PICTURE), "path": str(path)}, "a.b")
        assert "`" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^a\.b\.known=\['d'\]: there is no column 'd'"):
        schema.build({"_target_": "samplers.Columns", "shape": [3], "known": ["d"]}, "a.b")


def test_masks_that_leave_nothing_to_do_are_refused(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.ones(2))
    with pytest.raises(
        ValueError, match="holds no zero, so that no value is unknown; write 0 where a value is unknown"
    ):
        MaskFile((2,), path)
    assert bool(MaskFile((2,), path, noise=0.1).seen.all()), "what is noisy can be made better"
    np.save(path, np.array(1.0))
    with pytest.raises(ValueError, match=r"has shape \(\); a mask of samples of shape \(2,\) has"):
        MaskFile((2,), path)


def test_a_matrix_of_zeros_measures_nothing():
    A, x = Dense((3,), 0.1, torch.zeros(2, 3)), torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(A.function(lambda e: e + 2, x), 2 * x)
    assert torch.equal(A.function(lambda e: along(torch.arange(4.0), e) + e, x), torch.arange(4.0)[:, None] * x)
    assert torch.equal(A.pseudo_inverse(A(x)), torch.zeros_like(x))
    assert torch.equal(A.trace(lambda e: e + 2, x), torch.zeros(1, dtype=torch.float64))


def test_files_that_are_no_numbers(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match="is not a plain numpy array"):
        Matrix((2,), str(path))
    np.save(path, np.array([[1.0, math.nan]]))
    with pytest.raises(ValueError, match="missing, NaN or infinite"):
        Matrix((2,), str(path))
    for values in (WIDE[:, :2].numpy() + 1j, np.full((1, 2), 1j)):
        np.save(path, values)
        with pytest.raises(ValueError, match=r"`path`=.* holds complex numbers; operator=matrix needs real ones"):
            Matrix((2,), str(path))
    np.savez(tmp_path / "m.npz", A=np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"`path`=.*m\.npz is an \.npz of named arrays"):
        Matrix((2,), str(tmp_path / "m.npz"))
    np.save(path, np.zeros((1, 2)))
    for build in (Matrix, MaskFile):
        with pytest.raises(ValueError, match="holds only zeros"):
            build((2,), str(path))
