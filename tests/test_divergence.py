"""The divergence against the trace of autograd's Jacobian: every kind of probes by its mean, its variance where theory
knows it, its error bar and its gradient; and what a control variate leaves of them.
"""

import itertools
import math

import pytest
import torch

from scoresde.sde_lib import BasisVectors, Counted, ExactUpTo, Gaussian, HutchPP, Orthogonal, Rademacher, divergence
from scoresde.sde_lib.divergence import Probes, orthonormal, project_out

from .conftest import SHAPES, choices, make

KINDS = {
    "basis": BasisVectors(2),
    "rademacher": Rademacher(3),
    "gaussian": Gaussian(3),
    "orthogonal": Orthogonal(3),
    "hutchpp": HutchPP(2),
    "exact up to": ExactUpTo(4, 2, Rademacher(3)),
    "random beyond": ExactUpTo(2, 2, Gaussian(3)),
}


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


def normals(x):
    return lambda k: torch.randn(k, *x.shape, dtype=x.dtype)


def drawn(probes: Probes, x):
    return probes.draw(x, normals(x))


class Given(Probes):
    """Nothing but the quadratic forms of the probes it is given."""

    def __init__(self, chunk=16):
        self.chunk = chunk

    def draw(self, x, normals):
        raise AssertionError("they are given")


# --- the field and its pull-back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 1000])
@pytest.mark.parametrize("kind", SHAPES)
def test_exact(kind, chunk, dtype):
    shape = SHAPES[kind]
    field, x = field_on(shape, dtype), torch.randn(3, *shape, dtype=dtype)
    value, found = divergence(field, x, BasisVectors(chunk))
    assert found.shape == (1, 3) and found.dtype == dtype
    torch.testing.assert_close(value, field(x), rtol=0, atol=0)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(found[0], traces(field, x), rtol=tolerance, atol=tolerance)


def test_mean_over_all_signs_is_exact():
    """In D = 4 there are 16 sign vectors: their mean of v' J v is the trace, whatever J."""
    shape = (1, 2, 2)
    field, x = field_on(shape), torch.randn(5, *shape, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    _, found = divergence(field, x, Given(), signs.reshape(16, 1, *shape).expand(16, 5, *shape))
    assert found.shape == (16, 5)
    torch.testing.assert_close(found.mean(0), traces(field, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 3, 16])
def test_each_probe_gives_its_quadratic_form(shape, chunk):
    """v' J v for every probe and sample, however many are pulled back at once; a probe of one sample touches no
    other.
    """
    field, x, v = (
        field_on(shape),
        torch.randn(3, *shape, dtype=torch.float64),
        torch.randn(5, 3, *shape, dtype=torch.float64),
    )
    _, found = divergence(field, x, Given(chunk), v)
    exact = torch.einsum("kbi,bij,kbj->kb", v.flatten(2), jacobians(field, x), v.flatten(2))
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)


def test_a_field_that_cannot_be_batched():
    """GroupNorm's second derivative has no batching rule: the probes go one by one, to the same result."""
    norm = torch.nn.GroupNorm(2, 4).double()

    def field(x):  # a gradient field, whose Jacobian is a second derivative
        return torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)[0]

    x, v = torch.randn(3, 4, 2, dtype=torch.float64), torch.randn(4, 3, 4, 2, dtype=torch.float64)
    _, found = divergence(field, x, Given(), v)
    one_by_one = torch.cat([divergence(field, x, Given(), each[None])[1] for each in v])
    torch.testing.assert_close(found, one_by_one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_evaluation_of_the_field(shape, kind):
    x, probes = torch.randn(4, *shape), KINDS[kind]
    inner = field_on(shape, torch.float32)
    counted = Counted(lambda x, t: inner(x))
    _, found = divergence(lambda u: counted(u, None), x, probes, drawn(probes, x))
    assert (counted.calls, counted.evaluations) == (1, 4)
    assert found.shape == (probes.estimates(math.prod(shape)), 4)


def test_no_graph_is_kept_unless_it_is_asked_for():
    x = torch.randn(2, 3, requires_grad=True)
    with torch.no_grad():
        first = divergence(field_on((3,), torch.float32), x, BasisVectors())
    second = divergence(field_on((3,), torch.float32), x.detach(), BasisVectors())
    assert not any(each.requires_grad for each in (*first, *second))


# --- the gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_central_differences(kind, controlled):
    """Takes (h(e) - h(-e))/2e of field and estimate, along random directions of x and of the field's matrix. Its
    error is e^2 h'''/6 + 1e-16 |h|/e. (HutchPP's basis turns with x and the matrix, smoothly: no two
    vectors of its sketch are parallel, as random signs would be for a quarter of the samples.)
    """
    probes, dim = KINDS[kind], 3
    x, M = torch.randn(16, dim, dtype=torch.float64), torch.randn(dim, dim, dtype=torch.float64)
    dx, dM, weights, v = torch.randn_like(x), torch.randn_like(M), torch.randn(16).double(), drawn(probes, x)
    near = torch.randn(dim, dim, dtype=torch.float64)
    control = (lambda v: v @ near, near.trace().expand(16)) if controlled else None

    def h(e, create=False):
        point, matrix = (a + e * d for a, d in ((x, dx), (M, dM)))
        point = point if create else point.requires_grad_()
        value, found = divergence(lambda u: torch.tanh(u @ matrix) + u**3 / 10, point, probes, v, control)
        return (weights * (found.mean(0) + value.sum(1))).sum()

    e = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(h(e, create=True), e)
    step = 1e-5
    assert float(slope) == pytest.approx(float((h(step) - h(-step)).detach()) / (2 * step), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("random", [False, True])
def test_gradients_of_the_exact_trace_and_of_quadratic_forms(random):
    """With respect to x and to the field's weights, against autograd through the full Jacobian."""
    shape, scale = (3,), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inner = field_on(shape)
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    v = torch.randn(3, 2, *shape, dtype=torch.float64) if random else None
    value, found = divergence(lambda x: scale * inner(x), x, Given(2) if random else BasisVectors(2), v)
    found_x, found_scale = torch.autograd.grad((found.mean(0) + value.sum(1)).sum(), (x, scale))

    def expected(x, scale):
        J = torch.stack(
            [
                torch.autograd.functional.jacobian(lambda u: scale * inner(u[None])[0], each, create_graph=True)
                for each in x
            ]
        )
        trace = torch.einsum("kbi,bij,kbj->kb", v, J, v).mean(0) if random else J.diagonal(dim1=1, dim2=2).sum(1)
        return (trace + (scale * inner(x)).sum(1)).sum()

    exact_x, exact_scale = torch.autograd.grad(expected(x, scale), (x, scale))
    torch.testing.assert_close(found_x, exact_x, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found_scale, exact_scale, rtol=1e-11, atol=1e-11)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_rademacher(shape, dtype):
    x = torch.zeros(3000, *shape, dtype=dtype)[: 6000 // math.prod(shape)]
    z = normals(x)(4)
    v = Rademacher(4).draw(x, lambda k: z[:k])
    assert v.dtype == dtype and v.shape == (4, *x.shape)
    assert torch.equal(v.abs(), torch.ones_like(v)) and torch.equal(v < 0, z < 0)
    assert abs(float(v.double().mean())) < 5 / v.numel() ** 0.5


def test_gaussian(shape, dtype):
    x = torch.zeros(5, *shape, dtype=dtype)
    z = normals(x)(4)
    assert torch.equal(Gaussian(4).draw(x, lambda k: z[:k]), z)


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_orthogonal(count, dtype):
    """min(k, D) directions, v_i'v_j = D delta_ij; the first one is that of the first normal vector."""
    x = torch.zeros(5, 1, 3, 2, dtype=dtype)
    z = normals(x)(count)
    v = Orthogonal(count).draw(x, lambda k: z[:k])
    k = min(count, 6)
    assert v.dtype == dtype and v.shape == (k, *x.shape) and Orthogonal(count).estimates(6) == k
    products = torch.einsum("ibd,jbd->bij", v.flatten(2), v.flatten(2))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(products, 6 * torch.eye(k, dtype=dtype).expand(5, k, k), rtol=0, atol=6 * tolerance)
    first = z[0].flatten(1)
    first = 6**0.5 * first / first.norm(dim=1, keepdim=True)
    torch.testing.assert_close(v[0].flatten(1), first, rtol=0, atol=10 * tolerance)


def test_orthonormal_is_gram_and_schmidt_s():
    """Its signs follow the vectors: q_i'v_i > 0, and q_i'v_j = 0 for i > j."""
    vectors = torch.randn(3, 7, 5, dtype=torch.float64)
    products = torch.einsum("ibd,jbd->bij", orthonormal(vectors), vectors)
    assert bool((products.diagonal(dim1=1, dim2=2) > 0).all())
    torch.testing.assert_close(products.tril(-1), torch.zeros_like(products), rtol=0, atol=1e-13)


def test_the_frames_are_uniform():
    """The 2nd direction as much as the 1st: E[v v'] = I and E[(v'Av)^2] = D/(D + 2) (2 |A|^2 + (tr A)^2)."""
    dim, x = 3, torch.zeros(20000, 3, dtype=torch.float64)
    A = torch.tensor([[1.0, 0.5, 0.0], [0.5, -2.0, 0.3], [0.0, 0.3, 0.7]], dtype=torch.float64)
    for v in drawn(Orthogonal(3), x):
        torch.testing.assert_close(v.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=5 / len(x) ** 0.5)
        square = torch.einsum("bi,ij,bj->b", v, A, v).square()
        expected = dim / (dim + 2) * (2 * float(A.square().sum()) + float(A.trace()) ** 2)
        assert abs(float(square.mean()) - expected) < 5 * float(square.std()) / len(x) ** 0.5


def test_project_out():
    q, v = orthonormal(torch.randn(2, 4, 5, dtype=torch.float64)), torch.randn(3, 4, 5, dtype=torch.float64)
    P = torch.eye(5, dtype=torch.float64) - torch.einsum("kbi,kbj->bij", q, q)
    torch.testing.assert_close(project_out(v, q), torch.einsum("bij,mbj->mbi", P, v), rtol=0, atol=1e-13)


# --- mean and variance ------------------------------------------------------------------------------------------------

SYMMETRIC = torch.tensor(
    [[1.0, 0.5, 0.0, 0.2], [0.5, -2.0, 0.3, 0.0], [0.0, 0.3, 0.7, -0.6], [0.2, 0.0, -0.6, 0.4]], dtype=torch.float64
)


def samples(probes: Probes, J, count: int, control=None):
    """Estimates of tr J for many samples, (n, count)."""
    x = torch.zeros(1, len(J), dtype=torch.float64).expand(count, -1)
    return divergence(lambda u: u @ J.T, x, probes, drawn(probes, x), control)[1]


@pytest.mark.parametrize("controlled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_unbiased(kind, controlled):
    """The mean over 20,000 draws is the trace, of a Jacobian that is not symmetric; with any other Jacobian as its
    control, too.
    """
    field, x = field_on((4,)), torch.randn(1, 4, dtype=torch.float64).expand(20000, 4)
    near = torch.randn(4, 4, dtype=torch.float64)
    control = (lambda v: v @ near, near.trace().expand(len(x))) if controlled else None
    probes = KINDS[kind]
    mean = divergence(field, x, probes, drawn(probes, x), control)[1].mean(0)
    error = float(mean.std()) / len(x) ** 0.5
    assert abs(float(mean.mean()) - float(traces(field, x[:1]))) < 5 * error + 1e-10
    assert (error < 1e-12) == (kind in ("basis", "exact up to"))


@pytest.mark.parametrize("name", choices("likelihood/probes"))
def test_every_choice_of_probes_is_unbiased(name):
    probes = make("likelihood.probes", "data=mixture", "likelihood=exact", f"likelihood/probes={name}").settled()
    field, x = field_on((3,)), torch.randn(1, 3, dtype=torch.float64).expand(20000, 3)
    mean = divergence(field, x, probes, drawn(probes, x))[1].mean(0)
    error = float(mean.std()) / len(x) ** 0.5
    assert abs(float(mean.mean()) - float(traces(field, x[:1]))) < 5 * error + 1e-10


@pytest.mark.parametrize("asymmetry", [0.0, 1.0])
def test_variances_of_one_probe(asymmetry):
    r"""With A = (J + J')/2: 2 (|A|^2 - |diag A|^2) for signs, 2 |A|^2 for normals, 2 D/(D + 2) (|A|^2 - (tr A)^2/D) on
    the sphere; here over 40,000 probes.
    """
    turn = torch.tensor([[0.0, 1, 2, 3], [-1, 0, 1, 2], [-2, -1, 0, 1], [-3, -2, -1, 0]], dtype=torch.float64)
    whole, diagonal = float(SYMMETRIC.square().sum()), float(SYMMETRIC.diagonal().square().sum())
    trace, dim = float(SYMMETRIC.trace()), 4
    for probes, variance in (
        (Rademacher(1), 2 * (whole - diagonal)),
        (Gaussian(1), 2 * whole),
        (Orthogonal(1), 2 * dim / (dim + 2) * (whole - trace**2 / dim)),
    ):
        found = samples(probes, SYMMETRIC + asymmetry * turn, 40000)
        assert float(found.var()) == pytest.approx(variance, rel=0.06)
        assert abs(float(found.mean()) - trace) < 5 * (variance / 40000) ** 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_orthogonal_probes_are_a_sample_without_replacement(count):
    """The variance of the mean of k is that of one probe times (D - k)/(D - 1)/k: nothing at k = D."""
    whole, trace, dim = float(SYMMETRIC.square().sum()), float(SYMMETRIC.trace()), 4
    one = 2 * dim / (dim + 2) * (whole - trace**2 / dim)
    mean, k = samples(Orthogonal(count), SYMMETRIC, 30000).mean(0), min(count, 4)
    assert float(mean.var()) == pytest.approx(one * (dim - k) / (dim - 1) / k, rel=0.06, abs=1e-20)
    if k == dim:
        torch.testing.assert_close(mean, torch.full_like(mean, trace), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Rademacher, Gaussian, HutchPP])
def test_independent_probes(kind):
    """The variance of the mean of 2 k is half that of k, given HutchPP's sketch: its k estimates are uncorrelated."""
    found = samples(kind(2), SYMMETRIC, 40000)
    if kind is not HutchPP:
        assert float(found.mean(0).var()) == pytest.approx(float(found.var()) / 2, rel=0.05)
    a, b = (found - float(SYMMETRIC.trace()))[:2]
    assert abs(float((a * b).mean())) < 5 * float((a * b).std()) / 200


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_hutchpp_is_exact_for_a_low_rank(rank):
    """A sketch of k >= rank vectors holds the whole range of J', where the trace is exact."""
    J = torch.randn(12, rank, dtype=torch.float64) @ torch.randn(rank, 12, dtype=torch.float64)
    exact = torch.full((3, 50), float(J.trace()), dtype=torch.float64)
    torch.testing.assert_close(samples(HutchPP(3), J, 50), exact, rtol=0, atol=1e-9)
    assert float(samples(HutchPP(3), J + SYMMETRIC[0, 1] * torch.ones(12, 12).double().tril(), 50).std()) > 0.1


def test_hutchpp_is_exact_where_the_sketch_fills_the_space():
    found = samples(HutchPP(6), SYMMETRIC + torch.randn(4, 4).double().tril(-1), 20)
    torch.testing.assert_close(found, torch.full_like(found, float(SYMMETRIC.trace())), rtol=0, atol=1e-12)
    assert found.shape == (6, 20)


def test_hutchpp_by_hand():
    """tr Q'JQ + g'(I - QQ')J(I - QQ')g, Q a basis of the span of J's and first the sketch, then the signs."""
    J, x = torch.randn(7, 7, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.float64)
    v = drawn(HutchPP(2), x)
    assert v.shape == (4, 3, 7) and torch.equal(v[2:].abs(), torch.ones_like(v[2:]))
    found = divergence(lambda u: u @ J.T, x, HutchPP(2), v)[1]
    for b in range(3):
        Q = torch.linalg.qr(J.T @ v[:2, b].T).Q
        outside = torch.eye(7, dtype=torch.float64) - Q @ Q.T
        expected = [(Q.T @ J @ Q).trace() + g @ outside @ J @ outside @ g for g in v[2:, b]]
        torch.testing.assert_close(found[:, b], torch.stack(expected), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dim", [1, 4, 5, 9])
def test_exact_up_to_switches_at_its_limit(dim):
    """At D = limit the exact trace, at D = limit + 1 the other probes' own estimates."""
    probes, x = ExactUpTo(4, 3, Rademacher(5)), torch.randn(6, dim, dtype=torch.float64)
    field, z = field_on((dim,)), torch.randn(5, 6, dim, dtype=torch.float64)
    v = probes.draw(x, lambda k: z[:k])
    found = divergence(field, x, probes, v)[1]
    if dim <= 4:
        assert v is None and probes.estimates(dim) == 1
        torch.testing.assert_close(found[0], traces(field, x), rtol=1e-12, atol=1e-12)
        assert torch.equal(probes.stderr(found, dim), torch.zeros(6, dtype=torch.float64))
    else:
        plain = divergence(field, x, Rademacher(5), Rademacher(5).draw(x, lambda k: z))[1]
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
        assert probes.estimates(dim) == 5
        assert torch.equal(probes.stderr(found, dim), found.std(0) / 5**0.5)


@pytest.mark.parametrize("kind", [Rademacher, Gaussian, Orthogonal, HutchPP])
def test_an_open_number_of_probes_is_settled(kind):
    """By the one who asks, or to the usual number; a number that was given stays."""
    assert kind(None).settled(7) == kind(7) and kind(None).settled() == kind(2) and kind(5).settled(7) == kind(5)
    assert ExactUpTo(4, 3, kind(None)).settled(7) == ExactUpTo(4, 3, kind(7))
    assert BasisVectors().settled(7) == BasisVectors()


@pytest.mark.parametrize("kind", KINDS)
def test_the_isotropic_vectors(kind):
    """As many as there are estimates, E[vv'] = I; none of the exact trace."""
    probes, x = KINDS[kind], torch.zeros(20000, 4, dtype=torch.float64)
    v = probes.isotropic(drawn(probes, x))
    if v is None:
        assert kind in ("basis", "exact up to")
        return
    assert len(v) == probes.estimates(4)
    for each in v:
        second = each.T @ each / len(x)
        torch.testing.assert_close(second, torch.eye(4, dtype=torch.float64), rtol=0, atol=6 / len(x) ** 0.5)


# --- the error bar ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "probes", [Rademacher(2), Gaussian(5), Orthogonal(2), Orthogonal(3), HutchPP(2)], ids=lambda probes: repr(probes)
)
def test_the_squared_error_bar_is_the_squared_error_in_the_mean(probes):
    """E[stderr^2] = Var(mean), whatever the distribution; for orthogonal probes with the factor (D - k)/D of a sample
    without replacement.
    """
    J = torch.randn(8, 8, dtype=torch.float64) if isinstance(probes, HutchPP) else SYMMETRIC
    found = samples(probes, J, 40000)
    error = (found.mean(0) - J.trace()).square()
    claimed = probes.stderr(found, len(J)).square()
    difference = (error - claimed).std() / 200  # of the difference of the two means
    assert abs(float(error.mean() - claimed.mean())) < 5 * float(difference) < 0.15 * float(error.mean())


def test_error_bars_by_hand():
    found = torch.tensor([[1.0, 3.0], [2.0, 3.0], [6.0, 3.0]], dtype=torch.float64)
    expected = torch.tensor([(7 / 3) ** 0.5, 0.0], dtype=torch.float64)  # variance 14/2, over 3
    for probes in (Rademacher(3), Gaussian(3), HutchPP(3)):
        torch.testing.assert_close(probes.stderr(found, 9), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(Orthogonal(3).stderr(found, 9), expected * (6 / 9) ** 0.5, rtol=1e-14, atol=0)
    assert torch.equal(Orthogonal(3).stderr(found, 3), torch.zeros(2, dtype=torch.float64))
    assert torch.equal(BasisVectors().stderr(found[:1], 9), torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("probes", [Rademacher(1), Gaussian(1), Orthogonal(1), HutchPP(1)])
def test_one_estimate_says_nothing_of_itself(probes):
    assert bool(probes.stderr(torch.zeros(1, 5), 3).isnan().all())
    if isinstance(probes, Orthogonal):  # the one direction of the line is the basis
        assert torch.equal(probes.stderr(torch.zeros(1, 5), 1), torch.zeros(5))


# --- the control variate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_equal_to_the_jacobian_leaves_no_variance(kind):
    J = torch.randn(4, 4, dtype=torch.float64)
    found = samples(KINDS[kind], J, 50, (lambda v: v @ J, J.trace().expand(50)))
    torch.testing.assert_close(found, torch.full_like(found, float(J.trace())), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "orthogonal"])
def test_a_control_leaves_the_estimates_of_the_difference(kind):
    """Probe by probe, tr J_G + v'(J - J_G)v, each sample with its own J_G."""
    x, J = torch.randn(6, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    near, v = torch.randn(6, 4, 4, dtype=torch.float64), drawn(KINDS[kind], x)
    trace = near.diagonal(dim1=1, dim2=2).sum(1)
    control = (lambda v: torch.einsum("mbi,bij->mbj", v, near)), trace
    found = divergence(lambda u: u @ J.T, x, KINDS[kind], v, control)[1]
    torch.testing.assert_close(found, trace + torch.einsum("kbi,bij,kbj->kb", v, J - near, v), rtol=1e-12, atol=1e-12)


def test_the_exact_trace_needs_no_control():
    def never(v):
        raise AssertionError("no probe is drawn")

    field, x = field_on((4,)), torch.randn(3, 4, dtype=torch.float64)
    for probes in (BasisVectors(), ExactUpTo(4)):
        found = divergence(field, x, probes, None, (never, torch.ones(3)))[1]
        torch.testing.assert_close(found[0], traces(field, x), rtol=1e-12, atol=1e-12)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, key",
    [
        (BasisVectors, "chunk"),
        (Rademacher, "count"),
        (Gaussian, "count"),
        (Orthogonal, "count"),
        (HutchPP, "count"),
        (ExactUpTo, "chunk"),
    ],
)
def test_bad_values_name_the_key(kind, key):
    with pytest.raises(ValueError, match=f"^`{key}`=0 must be at least 1; type `{key}`="):
        kind(**{key: 0})


def test_a_limit_of_no_dimensions_is_allowed():
    assert ExactUpTo(0).choice(1) == Rademacher()
    with pytest.raises(ValueError, match="^`limit`=-1 must be at least 0"):
        ExactUpTo(-1)
