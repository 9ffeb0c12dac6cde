"""The divergence against the trace of autograd's Jacobian, and Hutchinson's estimate against its mean over probes."""

import itertools
import math

import pytest
import torch

from sde_lib import BasisVectors, Counted, Gaussian, Rademacher, divergence

from .conftest import SHAPES, choices, make


def field_on(shape, dtype=torch.float64, seed=0):
    """A smooth field whose Jacobian is full and not symmetric: sin(M x) + x^3 / 10, sample by sample."""
    dim = math.prod(shape)
    matrix = (
        torch.randn(dim, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype) / dim**0.5
    )
    return lambda x: (torch.sin(x.flatten(1) @ matrix.T) + 0.1 * x.flatten(1) ** 3).reshape(x.shape)


def jacobians(field, x):
    """(B, D, D)."""
    dim = x[0].numel()
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda u: field(u[None])[0], each).reshape(dim, dim) for each in x]
    )


def traces(field, x):
    return jacobians(field, x).diagonal(dim1=1, dim2=2).sum(1)


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 1000])
@pytest.mark.parametrize("kind", SHAPES)
def test_exact(kind, chunk, dtype):
    shape = SHAPES[kind]
    field, x = field_on(shape, dtype), torch.randn(3, *shape, dtype=dtype)
    value, found = divergence(field, x, None, chunk)
    assert found.shape == (1, 3) and found.dtype == dtype
    torch.testing.assert_close(value, field(x), rtol=0, atol=0)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found[0], traces(field, x), rtol=tolerance, atol=tolerance)


def test_mean_over_all_signs_is_exact():
    """In D = 4 there are 16 sign vectors: their mean of v' J v is the trace, whatever J."""
    shape = (1, 2, 2)
    field, x = field_on(shape), torch.randn(5, *shape, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    probes = signs.reshape(16, 1, *shape).expand(16, 5, *shape)
    _, found = divergence(field, x, probes)
    assert found.shape == (16, 5)
    torch.testing.assert_close(found.mean(0), traces(field, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 3, 16])
def test_each_probe_gives_its_quadratic_form(shape, chunk):
    """v' J v for every probe and sample; a probe of one sample touches no other."""
    field, x, v = (
        field_on(shape),
        torch.randn(3, *shape, dtype=torch.float64),
        torch.randn(5, 3, *shape, dtype=torch.float64),
    )
    _, found = divergence(field, x, v, chunk)
    exact = torch.einsum("kbi,bij,kbj->kb", v.flatten(2), jacobians(field, x), v.flatten(2))
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("probes", [None, 1, 3])
def test_one_evaluation_of_the_field(shape, probes):
    x = torch.randn(4, *shape)
    inner = field_on(shape, torch.float32)
    counted = Counted(lambda x, t: inner(x))
    divergence(lambda u: counted(u, None), x, None if probes is None else torch.randn(probes, 4, *shape), 2)
    assert (counted.calls, counted.evaluations) == (1, 4)


@pytest.mark.parametrize("random", [False, True])
def test_differentiable(random):
    """The gradient of the divergence with respect to x and to the field's weights, where gradients are on and x asks
    for one.
    """
    shape, scale = (3,), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inner = field_on(shape)
    field = lambda x: scale * inner(x)  # noqa: E731
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    v = torch.randn(3, 2, *shape, dtype=torch.float64) if random else None
    value, found = divergence(field, x, v, 2)
    found_x, found_scale = torch.autograd.grad((found.mean(0) + value.sum(1)).sum(), (x, scale))

    def expected(x, scale):
        dim = 3
        J = torch.stack(
            [
                torch.autograd.functional.jacobian(lambda u: scale * inner(u[None])[0], each, create_graph=True)
                for each in x
            ]
        )
        trace = (
            J.diagonal(dim1=1, dim2=2).sum(1)
            if v is None
            else torch.einsum("kbi,bij,kbj->kb", v, J.reshape(-1, dim, dim), v).mean(0)
        )
        return (trace + (scale * inner(x)).sum(1)).sum()

    exact_x, exact_scale = torch.autograd.grad(expected(x, scale), (x, scale))
    torch.testing.assert_close(found_x, exact_x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found_scale, exact_scale, rtol=1e-11, atol=1e-11)


def test_no_graph_is_kept_otherwise():
    x = torch.randn(2, 3, requires_grad=True)
    with torch.no_grad():
        value, found = divergence(field_on((3,), torch.float32), x, None)
    assert not value.requires_grad and not found.requires_grad
    value, found = divergence(field_on((3,), torch.float32), x.detach(), None)
    assert not value.requires_grad and not found.requires_grad


# --- probes -----------------------------------------------------------------------------------------------------------


def normals(x):
    return lambda k: torch.randn(k, *x.shape, dtype=x.dtype)


def test_rademacher(shape, dtype):
    x = torch.zeros(3000, *shape, dtype=dtype)[: 6000 // math.prod(shape)]
    z = normals(x)(4)
    v = Rademacher(4).draw(x, lambda k: z)
    assert v.dtype == dtype and v.shape == (4, *x.shape)
    assert torch.equal(v.abs(), torch.ones_like(v)) and torch.equal(v < 0, z < 0)
    assert abs(float(v.double().mean())) < 5 / v.numel() ** 0.5


def test_gaussian(shape, dtype):
    x = torch.zeros(5, *shape, dtype=dtype)
    z = normals(x)(4)
    assert torch.equal(Gaussian(4).draw(x, lambda k: z), z)


def test_variances_of_the_estimates():
    """For symmetric J: Var(v'Jv) = 2 (|J|^2 - |diag J|^2) for signs, 2 |J|^2 for normals: exact in expectation, here
    over 40,000 probes.
    """
    J = torch.tensor([[1.0, 0.5, 0.0], [0.5, -2.0, 0.3], [0.0, 0.3, 0.7]], dtype=torch.float64)
    x = torch.zeros(1, 3, dtype=torch.float64).expand(40000, 3)
    off = float((J**2).sum() - (J.diagonal() ** 2).sum())
    for probes, variance in ((Rademacher(1), 2 * off), (Gaussian(1), 2 * float((J**2).sum()))):
        _, found = divergence(lambda u: u @ J, x, probes.draw(x, normals(x)))
        assert float(found.var()) == pytest.approx(variance, rel=0.06)
        assert abs(float(found.mean()) - float(J.trace())) < 5 * (variance / 40000) ** 0.5


@pytest.mark.parametrize("name", choices("likelihood/probes"))
def test_every_choice_of_probes_is_unbiased(name):
    probes = make("likelihood.probes", "data=mixture", "likelihood=exact", f"likelihood/probes={name}")
    field, x = field_on((2,)), torch.randn(1, 2, dtype=torch.float64).expand(20000, 2)
    _, found = divergence(field, x, probes.draw(x, normals(x)))
    mean = found.mean(0)
    error = float(mean.std()) / len(x) ** 0.5
    assert abs(float(mean.mean()) - float(traces(field, x[:1]))) < 5 * error + 1e-10


@pytest.mark.parametrize("kind, key", [(BasisVectors, "chunk"), (Rademacher, "count"), (Gaussian, "count")])
def test_bad_values_name_the_key(kind, key):
    with pytest.raises(ValueError, match=rf"likelihood\.probes\.{key}=0"):
        kind(0)
