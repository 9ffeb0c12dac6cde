"""The likelihood against exact densities: of the data and of p_eps, of Gaussians where its corrections are exact, of
mixtures where random probes have a spread; and its gradients against the score and against differences.
"""

import copy
import gc
import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scoresde.likelihood import Likelihood
from scoresde.models import MLP, Oracle, ScoreModel
from scoresde.sde_lib import BasisVectors, Cosine, Counted, Gaussian, HutchPP, Orthogonal, Rademacher

from .conftest import SDES, GaussianScore, choices, draw_mixture, in_turn, make, make_sde, mixture

PUBLISHED = {"start": "plain", "prior": "standard"}


class Mixture:
    """The exact score and density of sum_k w_k N(m_k, C_k) with full covariances, and its first two moments."""

    def __init__(self, sde, weights, means: Tensor, covariances: Tensor):
        self.sde, self.weights, self.means = sde, torch.as_tensor(weights, dtype=torch.float64), means.double()
        self.covariances = covariances.double()
        self.variances, self.axes = torch.linalg.eigh(self.covariances)

    def under(self, sde, other) -> "Mixture":
        twin = copy.copy(self)
        twin.sde = other
        return twin

    def terms(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """log(w_k N(x; alpha m_k, alpha^2 C_k + sigma^2 I)), (B, K), and its gradient, (B, K, D)."""
        t = t.double()
        alpha, sigma = self.sde.alpha(t)[:, None, None], self.sde.sigma(t)[:, None, None]
        variances = alpha**2 * self.variances + sigma**2
        along = torch.einsum("bkd,kde->bke", x.flatten(1).double()[:, None] - alpha * self.means, self.axes)
        logs = -0.5 * (along.square() / variances + variances.log() + math.log(2 * math.pi)).sum(2)
        return self.weights.log() + logs, -torch.einsum("bke,kde->bkd", along / variances, self.axes)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        logs, gradients = self.terms(x, t)
        return (torch.softmax(logs, 1)[:, :, None] * gradients).sum(1).reshape(x.shape).to(x.dtype)

    def log_prob(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Returns the log-density of p_t, (N,); without t that of the data."""
        if t is None:
            parts = torch.distributions.MultivariateNormal(self.means, self.covariances)
            return torch.logsumexp(self.weights.log() + parts.log_prob(x.flatten(1)[:, None].double()), 1)
        return torch.logsumexp(self.terms(x, t)[0], 1)

    def draw(self, count: int, shape: tuple[int, ...]) -> Tensor:
        k = torch.multinomial(self.weights, count, replacement=True)
        parts = torch.distributions.MultivariateNormal(self.means[k], self.covariances[k])
        return parts.sample().reshape(count, *shape)

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        offsets = self.means - self.mean
        return torch.einsum("k,kij->ij", self.weights, self.covariances + offsets[:, :, None] * offsets[:, None])

    @property
    def moments(self) -> tuple[Tensor, Tensor, Tensor, float]:
        return self.mean, *torch.linalg.eigh(self.covariance), 0.0


COVARIANCE = torch.tensor(
    [[1.0, 0.7, 0.2, 0.0], [0.7, 1.0, 0.0, -0.3], [0.2, 0.0, 0.5, 0.2], [0.0, -0.3, 0.2, 0.8]], dtype=torch.float64
)
MEAN = torch.tensor([[0.3, -0.2, 0.5, 0.0]], dtype=torch.float64)


def correlated(sde) -> Mixture:
    """One Gaussian in four dimensions."""
    return Mixture(sde, [1.0], MEAN, COVARIANCE[None])


def smooth(sde, dim: int) -> Mixture:
    """Two neighbouring Gaussians, each with a spectrum of its own that falls as 1/k: what smooth data look like."""
    generator = torch.Generator().manual_seed(dim)
    frames = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q
    turn = torch.matrix_exp(0.15 * torch.randn(dim, dim, dtype=torch.float64, generator=generator).tril(-1))
    turned = frames @ torch.linalg.qr(turn).Q
    spectrum = (1 / torch.arange(1, dim + 1, dtype=torch.float64)).diag()
    covariances = torch.stack([frames @ spectrum @ frames.T, turned @ spectrum @ turned.T])
    means = 0.7 * torch.stack([frames[:, 0], -frames[:, 0]])
    return Mixture(sde, [0.6, 0.4], means, covariances)


def isotropic(sde, shape=(2,)) -> Mixture:
    """The tests' common mixture, whose parts do not overlap."""
    weights, means, stds = mixture(shape)
    eye = torch.eye(means.shape[1], dtype=torch.float64)
    return Mixture(sde, weights, means, stds.square()[:, None, None] * eye)


def points(sde, shape, count: int) -> Tensor:
    """Draws of p_eps."""
    x_0 = draw_mixture(mixture(shape), count, shape)
    return sde.perturb(x_0, torch.full((count,), sde.eps, dtype=torch.float64), torch.randn_like(x_0))


def exact(score, result, x: Tensor, sde) -> Tensor:
    """log p_eps(x) as the prior N(0, sigma(T)^2 I) in place of p_T would have it: what a perfect ODE solver returns."""
    count, z = len(x), result.z.double()
    start, end = (torch.full((count,), t, dtype=torch.float64) for t in (sde.eps, sde.T))
    return score.log_prob(x.double(), start) - score.log_prob(z, end) + sde.prior_log_prob(z)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


# --- the integral -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["angle", "t"])
def test_exact_on_a_mixture(sde, dtype, clock):
    """log p_eps of 200 points at the default tolerances: the mean error below 1e-4 nats, the worst below 1e-3; in t, a
    poor clock where t is the noise, below 1e-2.
    """
    oracle, x = Oracle(sde, mixture((2,))), points(sde, (2,), 200).to(dtype)
    score = Oracle(sde, mixture((2,))).to(dtype)
    result = Likelihood(clock=clock, **PUBLISHED)(sde, score, x)
    assert result.model_log_prob.dtype == torch.float64 and result.z.dtype == dtype
    error = (result.model_log_prob - exact(oracle, result, x, sde)).abs()
    assert float(error.mean()) < 1e-4 and float(error.max()) < {"angle": 1e-3, "t": 1e-2}[clock]
    for zero in (result.probe_stderr, result.start_term, result.prior_term):
        assert torch.equal(zero, torch.zeros_like(zero))


@pytest.mark.parametrize("name, share", [("ve", 0.5), ("vp", 0.65), ("subvp", 0.55)])
def test_the_price_of_an_error(name, share):
    """512 points of the mixture at tolerance 1e-5: below 1e-4 nats at worst, below torchdiffeq's dopri5 in t and
    cheaper; and for the same worst error that one needs about twice the evaluations (interpolated in logarithms).
    """
    sde = make_sde(name)
    score, x = Oracle(sde, mixture((2,))), points(sde, (2,), 512)

    def price(**settings) -> tuple[float, float]:
        result = Likelihood(**settings, **PUBLISHED)(sde, score, x)
        return math.log(float((result.model_log_prob - exact(score, result, x, sde)).abs().max())), math.log(result.nfe)

    worst, nfe = price()
    loose, tight = (price(method="torchdiffeq.dopri5", clock="t", rtol=tol, atol=tol) for tol in (1e-5, 1e-6))
    assert worst < math.log(1e-4) and worst < loose[0] and nfe < loose[1]
    same = loose[1] + (tight[1] - loose[1]) * (worst - loose[0]) / (tight[0] - loose[0])
    assert nfe < same + math.log(share)


def test_the_error_falls_with_the_tolerance(sde):
    """To 1e-6 nats and on: nothing but the solver's own error is in the way."""
    score, x = Oracle(sde, mixture((2,))), points(sde, (2,), 10)
    result = Likelihood(rtol=1e-7, atol=1e-7, **PUBLISHED)(sde, score, x)
    assert float((result.model_log_prob - exact(score, result, x, sde)).abs().max()) < 1e-6


def test_exact_on_images(sde):
    """(3, 8, 6): the exact trace over 144 directions, and Hutchinson's estimate of the same integral within its own
    error.
    """
    shape = (3, 8, 6)
    score, x = Oracle(sde, mixture(shape)), points(sde, shape, 4)
    result = Likelihood(BasisVectors(48), **PUBLISHED)(sde, score, x)
    truth = exact(score, result, x, sde)
    assert float((result.model_log_prob - truth).abs().max()) < 1e-3  # of an integral of hundreds of nats
    estimate = Likelihood(Rademacher(16), **PUBLISHED)(sde, score, x)
    torch.testing.assert_close(estimate.z / sde.prior_std, result.z / sde.prior_std, rtol=1e-3, atol=1e-3)
    pulls = (estimate.model_log_prob - truth) / (estimate.probe_stderr.square() + 1e-3**2).sqrt()
    assert float(pulls.abs().max()) < 6  # Student's t of 15 degrees of freedom


def test_the_published_prior_stands_for_the_terminal_law(sde):
    """On data N(0, 1) the answer can be written down: the flow is linear, z = sqrt(v_T / v_eps) x."""
    exact_score = GaussianScore(sde, 0.0, 1.0)
    score = Mixture(sde, [1.0], torch.zeros(1, 2), torch.eye(2)[None])
    x = torch.randn(20, 2, dtype=torch.float64)
    (_, v_T), (_, v) = exact_score.moments(sde.T), exact_score.moments(sde.eps)
    std = sde.sigma(torch.tensor(sde.T, dtype=torch.float64))
    for clock in ("angle", "t"):
        result = Likelihood(rtol=1e-8, atol=1e-8, clock=clock, **PUBLISHED)(sde, score, x)
        z = x * (v_T / v).sqrt()
        torch.testing.assert_close(result.z, z, rtol=1e-6, atol=1e-6)
        log_prior = torch.distributions.Normal(torch.zeros_like(std), std).log_prob(z).sum(1)
        expected = log_prior + (v_T / v).log()  # D/2 log(v_T/v), D = 2
        torch.testing.assert_close(result.model_log_prob, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "method, clock", [("torchdiffeq.dopri5", "t"), ("torchdiffeq.dopri8", "angle"), ("torchdiffeq.rk4", "angle")]
)
def test_torchdiffeq_agrees(method, clock, dtype):
    sde = make_sde("vp")
    score, x = Oracle(sde, mixture((2,))).to(dtype), points(sde, (2,), 10).to(dtype)
    ours = Likelihood(rtol=1e-6, atol=1e-6)(sde, score, x)
    theirs = Likelihood(method=method, clock=clock, rtol=1e-6, atol=1e-6, steps=150)(sde, score, x)
    torch.testing.assert_close(ours.model_log_prob, theirs.model_log_prob, rtol=0, atol=5e-4)
    torch.testing.assert_close(ours.z, theirs.z, rtol=0, atol=1e-4)


# --- the start and the end --------------------------------------------------------------------------------------------


def test_the_density_of_the_data(sde):
    """Both corrections together take 95 % or more of the published error at clean points away."""
    score = isotropic(sde)
    x = score.draw(300, (2,))
    published = Likelihood(**PUBLISHED)(sde, score, x)
    corrected = Likelihood(moments=score.moments)(sde, score, x)
    errors = [rms(result.model_log_prob - score.log_prob(x)) for result in (published, corrected)]
    assert errors[1] < 0.05 * errors[0] and errors[1] < 1e-3


@pytest.mark.parametrize("eps", [0.2, 0.1])
def test_orders_of_the_start(eps):
    """The blur of p_eps is an error of k^2, its correction leaves k^4: at half the eps a quarter, a sixteenth. Two
    levels' answers differ by that order too, and by more than the error.
    """
    x = smooth(None, 4).draw(20, (4,)).double()
    errors = {}
    for size in (eps, eps / 2):
        sde = Cosine(eps=size)
        score = smooth(sde, 4)
        claimed = Likelihood(moments=score.moments).start_error(sde, score, x)
        errors.setdefault("claimed", []).append(rms(claimed.difference))
        for start in ("plain", "corrected"):
            result = Likelihood(start=start, moments=score.moments, rtol=1e-8, atol=1e-8)(sde, score, x)
            error = result.model_log_prob - score.log_prob(x)
            if start == "plain":  # the point belongs to q, and not to p_eps
                at = torch.full((20,), size, dtype=torch.float64)
                alpha = math.cos(size)
                q = score.log_prob(alpha * x, at) + 4 * math.log(alpha)
                error = error + q - score.log_prob(x, at)
            errors.setdefault(start, []).append(rms(error))
        assert errors["claimed"][-1] > errors["corrected"][-1]
    for start, order in (("plain", 2), ("corrected", 4), ("claimed", 4)):
        coarse, fine = errors[start]
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("clock", ["angle", "t"])
def test_the_start_by_hand(sde, clock):
    """-log det(I + k^2 H)/2 - k^2 g'(I + k^2 H)^{-1}g/2 of q(x) = alpha^D p_eps(alpha x), g and H by autograd of log
    q; and what is added to the plain integral, which starts at alpha x: the term, and D log alpha.
    """
    score = smooth(sde, 3)
    x = score.draw(4, (3,))
    moment = torch.tensor([sde.eps], dtype=torch.float64)
    alpha, k = sde.alpha(moment), sde.sigma(moment) / sde.alpha(moment)
    log_q = lambda x: score.log_prob(alpha * x[None], moment)[0] + 3 * alpha[0].log()  # noqa: E731
    expected = []
    for each in x:
        gradient, hessian = (
            f(log_q, each) for f in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian)
        )
        shrunk = torch.eye(3, dtype=torch.float64) + k[0] ** 2 * hessian
        expected.append(-0.5 * (shrunk.logdet() + k[0] ** 2 * gradient @ torch.linalg.solve(shrunk, gradient)))
    settings = {"clock": clock, "method": "torchdiffeq.midpoint", "steps": 10, "prior": "standard"}
    found = Likelihood(**settings)(sde, score, x)
    scale = float(k[0] ** 2)  # of the term in clean data, and of rounding
    torch.testing.assert_close(found.start_term / scale, torch.stack(expected) / scale, rtol=1e-6, atol=1e-6)
    plain = Likelihood(start="plain", **settings)(sde, score, float(alpha) * x)
    torch.testing.assert_close(found.z, plain.z, rtol=1e-9, atol=1e-9)
    added, scale = (found.model_log_prob - plain.model_log_prob, float(plain.model_log_prob.abs().max()))
    torch.testing.assert_close(added, found.start_term + 3 * float(alpha.log()), rtol=0, atol=1e-11 * scale)


def test_the_start_of_each_probe(sde):
    """Random probes estimate the start's determinant too: their mean is its logarithm."""
    score = smooth(sde, 3)
    x = score.draw(1, (3,))
    settings = {"rtol": 1e-2, "atol": 1e-2, "moments": score.moments}
    found = Likelihood(Rademacher(4), **settings)(sde, score, x.expand(500, 3)).start_term
    truth = Likelihood(BasisVectors(), **settings)(sde, score, x).start_term
    assert abs(float(found.mean() - truth)) < 5 * float(found.std()) / 500**0.5
    assert float(found.std()) > 1e-3 * float(truth.abs())


def test_the_end_by_hand(sde):
    """log N(z; alpha m, alpha^2 C + sigma^2 I) less log N(z; 0, sigma^2 I) at T, and added to the published density."""
    score = smooth(sde, 3)
    x, settings = score.draw(5, (3,)), {"start": "plain", "rtol": 1e-2, "atol": 1e-2, "moments": score.moments}
    found = Likelihood(**settings)(sde, score, x)
    T = torch.tensor(sde.T, dtype=torch.float64)
    alpha, sigma = sde.alpha(T), sde.sigma(T)
    noise = sigma**2 * torch.eye(3, dtype=torch.float64)
    data = torch.distributions.MultivariateNormal(alpha * score.mean, alpha**2 * score.covariance + noise)
    standard = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), noise)
    torch.testing.assert_close(
        found.prior_term, data.log_prob(found.z) - standard.log_prob(found.z), rtol=1e-7, atol=1e-9
    )
    published = Likelihood(**settings | {"prior": "standard"})(sde, score, x)
    torch.testing.assert_close(found.model_log_prob, published.model_log_prob + found.prior_term, rtol=0, atol=1e-10)


def test_without_moments_the_prior_is_the_published_one(sde):
    score = isotropic(sde)
    x = score.draw(3, (2,))
    found, published = (Likelihood(start="plain", prior=prior)(sde, score, x) for prior in ("data", "standard"))
    assert torch.equal(found.model_log_prob, published.model_log_prob) and not bool(found.prior_term.any())


# --- Gaussian data: everything is exact -------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [BasisVectors(3), Rademacher(1), Gaussian(1), Orthogonal(1), HutchPP(1)])
def test_gaussian_data_are_exact_from_one_probe(sde, probes):
    """The control is the Jacobian, the Gaussian of the moments is p_T, and the start leaves k^4."""
    score = correlated(sde)
    x = score.draw(10, (1, 2, 2))
    result = Likelihood(probes, moments=score.moments)(sde, score, x)
    assert float((result.model_log_prob - score.log_prob(x)).abs().max()) < 2e-4


@pytest.mark.parametrize("name", choices("likelihood/probes"))
def test_every_choice_of_probes_is_exact_on_a_gaussian(name):
    sde = make_sde("vp")
    likelihood = make("likelihood", "data=mixture", "likelihood=exact", f"likelihood/probes={name}", shape=(4,))
    score = correlated(sde)
    x = score.draw(10, (4,))
    result = replace(likelihood, moments=score.moments)(sde, score, x)
    assert float((result.model_log_prob - score.log_prob(x)).abs().max()) < 2e-4
    assert float(result.probe_stderr.max()) < 1e-6


@pytest.mark.parametrize("name", choices("likelihood"))
def test_every_yaml_is_exact_on_a_gaussian(name, shape):
    sde = make_sde("vp")
    likelihood = make("likelihood", "data=mixture", f"likelihood={name}", shape=shape)
    dim = math.prod(shape)
    assert len(likelihood.moments[0]) == dim  # what waited for the data
    score = Mixture(sde, [1.0], torch.full((1, dim), 0.2), 0.49 * torch.eye(dim)[None])
    x = score.draw(5, shape)
    result = replace(likelihood, moments=score.moments)(sde, score, x)
    assert float((result.model_log_prob - score.log_prob(x)).abs().max()) < 1e-4 * dim
    assert float(result.probe_stderr.max()) < 1e-6 * dim


def test_moments_of_few_directions(sde):
    """The k directions and the rest r describe a covariance U diag(l - r) U' + r I completely."""
    U = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q
    variances, rest = torch.tensor([2.0, 0.8], dtype=torch.float64), 0.4
    covariance = U @ (variances - rest).diag() @ U.T + rest * torch.eye(6, dtype=torch.float64)
    score = Mixture(sde, [1.0], torch.ones(1, 6), covariance[None])
    x, moments = score.draw(5, (6,)), (torch.ones(6, dtype=torch.float64), variances, U, rest)
    result = Likelihood(Rademacher(2), moments=moments)(sde, score, x)
    assert float((result.model_log_prob - score.log_prob(x)).abs().max()) < 2e-4
    assert float(result.probe_stderr.max()) < 1e-6


def test_the_starts_term_is_the_mean_over_the_probes(sde):
    """64 probes err an eighth as much as one."""
    score = correlated(sde)
    x, errors = score.draw(50, (4,)), []
    truth = Likelihood(rtol=0.1, atol=0.1)(sde, score, x).start_term
    for count in (1, 64):
        found = Likelihood(Rademacher(count), rtol=0.1, atol=0.1)(sde, score, x).start_term
        errors.append(float((found - truth).square().mean().sqrt()))
    assert errors[1] < 0.25 * errors[0]


@pytest.mark.parametrize("count", [2, 5])
def test_signs_make_no_error_where_the_jacobian_is_diagonal(sde, shape, count):
    dim = math.prod(shape)
    score = Mixture(sde, [1.0], torch.full((1, dim), 0.2), 0.49 * torch.eye(dim)[None])
    x = score.draw(3, shape)
    result = Likelihood(Rademacher(count), control_variate=False, **PUBLISHED)(sde, score, x)
    assert float(result.probe_stderr.max()) < 1e-9 * dim
    assert float((result.model_log_prob - exact(score, result, x, sde)).abs().max()) < 1e-4 * dim


def test_the_exact_trace_on_correlated_data(sde):
    score = correlated(sde)
    x = score.draw(20, (4,))
    for chunk in (1, 3, 16):
        result = Likelihood(BasisVectors(chunk), **PUBLISHED)(sde, score, x)
        assert float((result.model_log_prob - exact(score, result, x, sde)).abs().max()) < 5e-4


# --- random probes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize(
    "name, probes, controlled",
    [
        ("vp", Rademacher(25), False),
        ("ve", Rademacher(25), True),
        ("vp", Orthogonal(10), True),
        ("ve", Orthogonal(10), False),
        ("vp", Gaussian(25), True),
    ],
)
def test_the_standard_error_is_calibrated(name, probes, controlled, redraw):
    """1,000 estimates, ten at each of 100 points: (estimate - exact)/stderr has variance 1, no bias, and of outliers
    one in twenty.
    """
    sde, dim = make_sde(name), 12
    score = smooth(sde, dim)
    x = score.draw(100, (dim,)).repeat(10, 1)
    settings = {"rtol": 1e-3, "atol": 1e-3, "redraw": redraw}
    likelihood = Likelihood(probes, moments=score.moments, control_variate=controlled, **settings | PUBLISHED)
    result = likelihood(sde, score, x)
    pulls = (result.model_log_prob - exact(score, result, x, sde)) / result.probe_stderr
    assert float(pulls.std()) == pytest.approx(1, abs=0.1)
    assert abs(float(pulls.mean())) < 5 / math.sqrt(1000)
    assert float((pulls.abs() > 1.96).double().mean()) == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("method", ["torchdiffeq.rk4", "torchdiffeq.adaptive_heun"])
def test_a_method_that_keeps_its_probes_has_their_error(method):
    """A method of torchdiffeq has the same probes at all of its steps, whatever ``redraw`` says."""
    sde, dim = make_sde("vp"), 12
    score = smooth(sde, dim)
    x = score.draw(100, (dim,)).repeat(10, 1)
    settings = {"method": method, "steps": 30, "rtol": 1e-3, "atol": 1e-3} | PUBLISHED
    results = []
    for redraw in (True, False):
        source = torch.Generator().manual_seed(0)
        likelihood = Likelihood(Rademacher(25), redraw=redraw, **settings)
        results.append(likelihood(sde, score, x, lambda x, source=source: torch.randn(x.shape, generator=source)))
    asked, kept = results
    assert torch.equal(asked.model_log_prob, kept.model_log_prob) and torch.equal(asked.probe_stderr, kept.probe_stderr)
    pulls = (asked.model_log_prob - exact(score, asked, x, sde)) / asked.probe_stderr
    assert float(pulls.std()) == pytest.approx(1, abs=0.1)
    assert abs(float(pulls.mean())) < 5 / math.sqrt(1000)


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("probes", [Rademacher(4), Orthogonal(4), Gaussian(4)])
def test_the_control_variate_pays(probes, redraw):
    """A mixture far from a Gaussian, in 16 dimensions, gets a smaller spread at the same price, and no bias."""
    sde = make_sde("vp")
    score = smooth(sde, 16)
    x = score.draw(150, (16,))
    settings = {"redraw": redraw, "moments": score.moments, "rtol": 1e-3, "atol": 1e-3} | PUBLISHED
    without, controlled = (Likelihood(probes, control_variate=on, **settings)(sde, score, x) for on in (False, True))
    assert rms(controlled.probe_stderr) < 0.5 * rms(without.probe_stderr)
    assert controlled.nfe < 1.1 * without.nfe  # fixed probes that spread less are easier to follow
    for result in (without, controlled):
        error = result.model_log_prob - exact(score, result, x, sde)
        assert abs(float(error.mean())) < 5 * float(error.std()) / 150**0.5
        wider = 1.0 if redraw else math.sqrt(5 / 3)  # kept probes have few degrees of freedom
        assert rms(error) == pytest.approx(rms(result.probe_stderr) / wider, rel=0.35)


def test_fresh_probes_pay():
    """The errors of the steps average out; the path x is that of any other probes to the last bit."""
    sde = make_sde("vp")
    score = smooth(sde, 16)
    x = score.draw(150, (16,))
    kept, fresh, again = (
        Likelihood(Rademacher(4), redraw=on, **PUBLISHED)(sde, score, x) for on in (False, True, True)
    )
    assert rms(fresh.probe_stderr) < 0.6 * rms(kept.probe_stderr)
    assert torch.equal(fresh.z, again.z) and fresh.nfe == again.nfe
    assert not torch.equal(fresh.model_log_prob, again.model_log_prob)


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
def test_a_basis_of_probes_is_exact(sde, method, redraw):
    """All D orthogonal directions give the trace itself, so that the quadrature within the steps is seen alone."""
    score = Oracle(sde, mixture((2,)))
    x = points(sde, (2,), 40)
    settings = {"method": method, "rtol": 1e-7, "atol": 1e-7}
    exact_trace, basis = (
        Likelihood(probes, redraw=redraw, moments=isotropic(sde).moments, **settings)(sde, score, x)
        for probes in (BasisVectors(), Orthogonal(2))
    )
    assert float((basis.model_log_prob - exact_trace.model_log_prob).abs().max()) < 2e-5
    assert float(basis.probe_stderr.max()) == 0


@pytest.mark.parametrize("clock", ["angle", "t"])
@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_where_the_point_stands_still_the_divergence_is_followed(name, clock):
    """Half way between two modes x never moves, and steps that follow x alone would grow over all that happens."""
    sde = make_sde(name)
    score = Oracle(sde, (torch.tensor([0.5, 0.5]), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([0.2, 0.2])))
    x = torch.zeros(1, 2, dtype=torch.float64)
    exact_trace, basis = (
        Likelihood(probes, clock=clock, **PUBLISHED)(sde, score.double(), x)
        for probes in (BasisVectors(), Orthogonal(2))
    )
    assert abs(float(basis.model_log_prob - exact_trace.model_log_prob)) < 1e-3


def test_a_score_that_is_not_finite_at_a_node_is_named():
    """The NaN shows in the divergence, or only in the score."""
    sde = make_sde("ve")
    oracle, x = Oracle(sde, mixture((2,))), torch.randn(1, 2, dtype=torch.float64)
    seen = []
    Likelihood(Rademacher(1), clock="t", **PUBLISHED)(sde, lambda x, t: seen.append(float(t[0])) or oracle(x, t), x)
    for node in seen[-4:]:

        def broken(x: Tensor, t: Tensor, node=node) -> Tensor:
            return torch.where((t == node)[:, None], torch.nan, oracle(x, t))

        with pytest.raises(FloatingPointError, match=r"not finite for sample 0 at t="):
            Likelihood(Rademacher(1), clock="t", **PUBLISHED)(sde, broken, x)

    def kink(x: Tensor, t: Tensor) -> Tensor:
        return oracle(x, t) + (x - x.detach()).abs().sqrt()

    with pytest.raises(FloatingPointError, match=r"not finite for sample 0 at t="):
        Likelihood(Rademacher(1), clock="t", **PUBLISHED)(sde, kink, x)


def test_a_sketch_of_few_dimensions_is_smooth():
    """Hutch++ in three dimensions: no sketch holds one vector twice, for which no step would be small enough."""
    sde = make_sde("vp")
    score = smooth(sde, 3)
    result = Likelihood(HutchPP(2), redraw=False, rtol=1e-3, atol=1e-3, **PUBLISHED)(sde, score, score.draw(60, (3,)))
    assert result.nfe < 300


def test_one_probe_has_no_standard_error():
    sde = make_sde("vp")
    result = Likelihood(Rademacher(1))(sde, correlated(sde), torch.randn(3, 4, dtype=torch.float64))
    assert bool(result.probe_stderr.isnan().all())


# --- each point by itself ---------------------------------------------------------------------------------------------


class Rows:
    """Normals of some rows of a batch, the same for each row in every batch: the n-th request is the n-th draw."""

    def __init__(self, rows: slice, shape: tuple[int, ...], dtype: torch.dtype):
        self.rows, self.shape, self.dtype, self.generator = rows, shape, dtype, torch.Generator().manual_seed(1)

    def __call__(self, like: Tensor) -> Tensor:
        return torch.randn(self.shape, dtype=torch.float64, generator=self.generator)[self.rows].to(self.dtype)


@pytest.mark.parametrize("probes, redraw", [(BasisVectors(), False), (Rademacher(3), False), (Orthogonal(2), True)])
@pytest.mark.parametrize("name", ["ve", "vp"])
def test_alone_and_in_a_batch(name, probes, redraw, dtype):
    """To 1e-6 nats in float64; in float32 a step may be taken or not by a rounding error: ten times the tolerance."""
    sde = make_sde(name)
    score, x = Oracle(sde, mixture((2,))).to(dtype), points(sde, (2,), 6).to(dtype)
    likelihood = Likelihood(probes, redraw=redraw, moments=isotropic(sde).moments)
    whole = likelihood(sde, score, x, Rows(slice(None), x.shape, dtype))
    bound = 1e-6 if dtype == torch.float64 else 10 * likelihood.rtol
    for i in (0, 4):
        alone = likelihood(sde, score, x[i : i + 1], Rows(slice(i, i + 1), x.shape, dtype))
        size = max(1.0, abs(float(whole.model_log_prob[i])))
        assert abs(float(alone.model_log_prob[0] - whole.model_log_prob[i])) < bound * size
        torch.testing.assert_close(alone.z[0] / sde.prior_std, whole.z[i] / sde.prior_std, rtol=0, atol=bound)
        assert abs(float(alone.probe_stderr[0] - whole.probe_stderr[i])) < bound * size


def test_a_rejected_step_draws_too():
    """Or a point whose step is rejected would, in a batch where another's is accepted, meet other probes than alone."""
    sde, count = make_sde("vp"), 4
    oracle = Oracle(sde, mixture((2,)))
    x = points(sde, (2,), count)

    def jumpy(x: Tensor, t: Tensor) -> Tensor:
        return oracle(x, t) * (1 + 0.2 * (t > 0.3))[:, None]

    likelihood = Likelihood(Rademacher(1), rtol=1e-5, atol=1e-5, **PUBLISHED)
    together = likelihood(sde, jumpy, x, Rows(slice(None), x.shape, x.dtype))
    for i in range(count):
        noise, calls = Rows(slice(i, i + 1), x.shape, x.dtype), []
        alone = likelihood(
            sde, jumpy, x[i : i + 1], lambda like, noise=noise, calls=calls: calls.append(1) or noise(like)
        )
        rounds = (len(calls) - 1) / 4
        accepted = (alone.nfe - 2 - 6 * rounds) / 4
        assert accepted < rounds
        assert abs(float(alone.model_log_prob[0] - together.model_log_prob[i])) < 1e-6


# --- the gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, probes", in_turn(SDES, [BasisVectors(), Rademacher(1)]))
def test_the_gradient_of_a_gaussian_is_its_score(name, probes):
    """d log p/dx = C^{-1} (m - x), to the solver's tolerance and the start's k^4; and z moves with x by the flow's
    matrix alpha(eps) (C_T C_eps^{-1})^{1/2}, C_t = alpha^2 C + sigma^2 I.
    """
    sde = make_sde(name)
    score = correlated(sde)
    x = score.draw(2, (1, 2, 2)).requires_grad_()
    likelihood = Likelihood(probes, moments=score.moments)
    result = likelihood(sde, score, x, differentiable=True)
    (slope,) = torch.autograd.grad(result.model_log_prob.sum(), x, retain_graph=True)
    truth = torch.linalg.solve(COVARIANCE, (MEAN - x.detach().flatten(1)).T).T
    torch.testing.assert_close(slope.flatten(1), truth, rtol=0, atol=1e-4 * float(truth.abs().max()))
    at = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    v_eps, v_T = (a**2 * score.variances[0] + s**2 for a, s in zip(sde.alpha(at), sde.sigma(at), strict=True))
    axes, weights = score.axes[0], torch.randn(2, 4, dtype=torch.float64)
    flow = axes @ ((v_T / v_eps).sqrt() * sde.alpha(at)[0]).diag() @ axes.T
    (slope,) = torch.autograd.grad((weights * result.z.flatten(1)).sum(), x)
    torch.testing.assert_close(slope.flatten(1) / sde.prior_std, weights @ flow / sde.prior_std, rtol=0, atol=1e-3)


def network(sde, dim: int = 2, width: int = 8) -> ScoreModel:
    net = MLP((dim,), width=width, depth=2, fourier=4).double()
    torch.nn.init.normal_(net.last.weight, std=0.3)
    return ScoreModel(sde, net, make("parameterisation", "parameterisation=velocity"))


@pytest.mark.parametrize(
    "probes, clock",
    [(BasisVectors(), "angle"), (BasisVectors(), "t"), (Rademacher(2), "angle"), (Orthogonal(2), "t")],
    ids=repr,
)
def test_the_gradient_is_that_of_central_differences(probes, clock):
    """Takes log_prob along one direction in x and one in all the network's weights, with fixed random probes. The
    differences are of order 4, and the solution's error is some 1e-6 over a step of 3e-3.
    """
    sde, dim = make_sde("vp"), 3 if isinstance(probes, Orthogonal) else 2
    model, x = network(sde, dim), torch.randn(2, dim, dtype=torch.float64)
    one = torch.eye(dim, dtype=torch.float64)
    moments = (torch.full((dim,), 0.3, dtype=torch.float64), 0.5 + torch.arange(dim, dtype=torch.float64), one, 0.0)
    likelihood = Likelihood(probes, clock=clock, rtol=1e-7, atol=1e-7, moments=moments)
    weights = list(model.net.parameters())
    dx, dw = torch.randn_like(x), [torch.randn_like(each) for each in weights]

    def total(e: float, differentiable: bool = False):
        with torch.no_grad():
            for each, d in zip(weights, dw, strict=True):
                if e:  # what a graph has saved must not be written to
                    each.add_(e * d)
        moved = replace(likelihood, redraw=False)
        noise = Rows(slice(None), x.shape, x.dtype)
        start = (x + e * dx).requires_grad_(differentiable)
        result = moved(sde, model, start, noise, differentiable=differentiable)
        with torch.no_grad():
            for each, d in zip(weights, dw, strict=True):
                if e:
                    each.sub_(e * d)
        return result, start

    result, start = total(0.0, differentiable=True)
    plain = total(0.0)[0]
    torch.testing.assert_close(result.model_log_prob.detach(), plain.model_log_prob, rtol=0, atol=1e-10)
    slopes = torch.autograd.grad(result.model_log_prob.sum(), (start, *weights), allow_unused=True)
    # the last layer's bias moves x alike at all points, and has no part in the divergence: it is used all the same
    assert all(slope is not None for slope in slopes)
    found = float((slopes[0] * dx).sum() + sum((a * b).sum() for a, b in zip(slopes[1:], dw, strict=True)))
    step = 3e-3
    one_off, two_off = (
        float((total(h)[0].model_log_prob - total(-h)[0].model_log_prob).sum()) for h in (step, 2 * step)
    )
    difference = (8 * one_off - two_off) / (12 * step)
    assert found == pytest.approx(difference, rel=1e-3, abs=1e-3)


def test_a_gradient_needs_no_gradient_of_x():
    """Weights alone: x may be a plain tensor."""
    sde = make_sde("vp")
    model, x = network(sde), torch.randn(2, 2, dtype=torch.float64)
    result = Likelihood(rtol=1e-3, atol=1e-3)(sde, model, x, differentiable=True)
    asked = Likelihood(rtol=1e-3, atol=1e-3)(sde, model, x.clone().requires_grad_(), differentiable=True)
    weights = list(model.net.parameters())
    for a, b in zip(
        *(torch.autograd.grad(each.model_log_prob.sum(), weights) for each in (result, asked)), strict=True
    ):
        assert torch.equal(a, b) and bool(a.any())
    assert not x.requires_grad and not result.probe_stderr.requires_grad


@pytest.mark.parametrize("probes", [BasisVectors(), Rademacher(1)])
def test_memory_does_not_grow_with_the_steps(probes):
    """The backward pass keeps a state a step and one evaluation's graph, that of the start."""
    sde = make_sde("vp")
    model, x = network(sde, width=64), torch.randn(16, 2, dtype=torch.float64)
    state, found = 16 * 3, []
    for tolerance in (1e-1, 1e-4 if isinstance(probes, BasisVectors) else 1e-7):
        kept, counted = [], Counted(model)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each, kept=kept: kept.append(weakref.ref(each)) or each, lambda each: each
        ):
            result = Likelihood(probes, rtol=tolerance, atol=tolerance)(sde, counted, x, differentiable=True)
        gc.collect()  # the solver's own closures are cycles, freed when it pleases the collector
        alive = [each for each in (reference() for reference in kept) if each is not None]  # what `result` holds
        assert result.model_log_prob.requires_grad
        large = sum(each.numel() for each in alive if each.numel() > state)
        small = sum(each.numel() for each in alive if each.numel() <= state)
        found.append((counted.calls, large, small))
    (few, large, _), (many, same, small) = found
    assert many > 2 * few and large == same > 64 * 16
    assert small < 10_000 + 4 * state * many / 12  # 12 evaluations a step, at least


def test_the_reference_has_no_gradient():
    sde = make_sde("vp")
    with pytest.raises(ValueError, match=r"method=torchdiffeq\.dopri5 has no gradient; type method=tsit5"):
        Likelihood(method="torchdiffeq.dopri5")(
            sde, isotropic(sde), torch.zeros(1, 2, dtype=torch.float64), differentiable=True
        )


@pytest.mark.parametrize("probes", [BasisVectors(), Rademacher(2)])
def test_it_works_in_inference_mode(probes):
    sde = make_sde("vp")
    model, x = network(sde), torch.randn(3, 2, dtype=torch.float64)
    noise = [Rows(slice(None), x.shape, x.dtype) for _ in range(2)]
    plain = Likelihood(probes)(sde, model, x, noise[0])
    with torch.inference_mode():
        inside = Likelihood(probes)(sde, model, x + 0, noise[1])
    assert torch.equal(inside.model_log_prob, plain.model_log_prob)


def test_it_works_under_no_grad_and_leaves_no_graph():
    sde = make_sde("vp")
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        first = Likelihood()(sde, GaussianScore(sde), x)
    second = Likelihood()(sde, GaussianScore(sde), x)
    assert torch.equal(first.model_log_prob, second.model_log_prob)
    for each in (second.model_log_prob, second.z, second.start_term, second.prior_term, second.probe_stderr):
        assert not each.requires_grad


# --- the price, and errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [BasisVectors(), Rademacher(3), HutchPP(2)])
@pytest.mark.parametrize(
    "method, each", [("tsit5", None), ("dopri5", None), ("torchdiffeq.rk4", 4), ("torchdiffeq.euler", 1)]
)
def test_evaluations_are_counted(probes, method, each):
    """Score and divergence from one evaluation, however many probes: a method of k stages makes k a step, and the
    start's correction one.
    """
    sde = make_sde("vp")
    counted = Counted(Oracle(sde, mixture((2,))))
    result = Likelihood(probes, method=method, steps=30, rtol=1e-3, atol=1e-3)(sde, counted, points(sde, (2,), 5))
    assert result.nfe == counted.evaluations / 5
    if each:
        assert counted.calls == result.nfe == 30 * each + 1
    else:  # each point has its own steps, and leaves the batch when it is done
        assert 20 < result.nfe < counted.calls < 600


def test_progress_is_told():
    sde, shares = make_sde("vp"), []
    Likelihood(rtol=1e-2, atol=1e-2)(sde, isotropic(sde), torch.zeros(2, 2, dtype=torch.float64), on_step=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1


def test_a_score_that_is_not_finite():
    sde = make_sde("vp")
    with pytest.raises(FloatingPointError, match="sample 0: at t="):
        Likelihood()(sde, lambda x, t: x * math.nan, torch.randn(3, 2))


def test_moments_of_other_dimensions():
    sde = make_sde("vp")
    with pytest.raises(ValueError, match=r"likelihood\.moments are of 4 dimensions, the points of shape \(1, 3\)"):
        Likelihood(moments=correlated(sde).moments)(sde, correlated(sde), torch.zeros(2, 1, 3))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"method": "rk4"}, "^`method`=rk4"),
        ({"rtol": 0.0}, "^`rtol`=0.0"),
        ({"atol": 1.5}, "^`atol`=1.5"),
        ({"steps": 0}, "^`steps`=0"),
        ({"clock": "lambda"}, "^`clock`=lambda must be angle or t"),
        ({"start": "exact"}, "^`start`=exact must be corrected or plain"),
        ({"prior": "normal"}, "^`prior`=normal must be data or standard"),
    ],
)
def test_bad_arguments_name_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        Likelihood(**values)


@pytest.mark.parametrize("probes", [BasisVectors(), Rademacher(2), Orthogonal(2), HutchPP(2)], ids=repr)
def test_no_points_have_no_densities(probes):
    sde = make_sde("vp")
    result = Likelihood(probes)(sde, GaussianScore(sde), torch.zeros(0, 2, dtype=torch.float64))
    assert result.model_log_prob.shape == (0,) and result.z.shape == (0, 2)
