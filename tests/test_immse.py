"""The ODE-free estimate against exact densities: unbiased, its error bars true, and no error at all on a Gaussian."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde.cli import run
from scoresde.likelihood import IMMSE, Likelihood
from scoresde.models import Oracle
from scoresde.sde_lib import BlockNoise, Counted

from .conftest import GaussianScore, compose, draw_mixture, make_sde, mixture

COVARIANCE = torch.tensor(
    [[1.0, 0.7, 0.2, 0.0], [0.7, 1.0, 0.0, -0.3], [0.2, 0.0, 0.5, 0.2], [0.0, -0.3, 0.2, 0.8]], dtype=torch.float64
)
MEAN = torch.tensor([0.4, -1.0, 0.0, 2.0], dtype=torch.float64)


class Correlated:
    """The exact score and density of N(MEAN, COVARIANCE), written from the definition."""

    def __init__(self, sde):
        self.sde = sde

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.sde.alpha(t)[:, None, None], self.sde.sigma(t)[:, None, None]
        eye = torch.eye(4, dtype=torch.float64)
        return alpha[:, 0] * MEAN, alpha.double() ** 2 * COVARIANCE + sigma.double() ** 2 * eye

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        mean, covariance = self.at(t)
        return torch.linalg.solve(covariance, (mean - x.flatten(1))[:, :, None])[:, :, 0].reshape(x.shape).to(x.dtype)


def truth(x: Tensor) -> Tensor:
    return torch.distributions.MultivariateNormal(MEAN, COVARIANCE).log_prob(x.flatten(1))


def gaussian_points(count: int) -> Tensor:
    return torch.distributions.MultivariateNormal(MEAN, COVARIANCE).sample((count,)).reshape(count, 1, 2, 2)


def full(covariance: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """All variances and directions, as ``Data.moments`` gives them."""
    variances, directions = torch.linalg.eigh(covariance)
    return mean, variances, directions, 0.0


def moments_of(components: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, float]:
    weights, means, stds = components
    mean = weights @ means
    within = (weights * stds.square()).sum() * torch.eye(means.shape[1], dtype=torch.float64)
    return full(((means - mean).T * weights) @ (means - mean) + within, mean)


def mixture_log_prob(components: tuple[Tensor, Tensor, Tensor], x: Tensor, blur: Tensor | float = 0.0) -> Tensor:
    """log of the mixture's density at x (B, *), blurred by N(0, blur^2 I)."""
    weights, means, stds = components
    variances = stds.square() + blur**2
    distances = (x.flatten(1)[:, None] - means).square().sum(-1)
    logs = weights.log() - 0.5 * (distances / variances + means.shape[1] * (2 * math.pi * variances).log())
    return torch.logsumexp(logs, dim=1)


# --- exact ------------------------------------------------------------------------------------------------------------


def test_a_gaussian_with_its_own_moments_has_no_variance(sde):
    """Nothing is left to integrate: its density to rounding, by four evaluations."""
    x = gaussian_points(20)
    found = IMMSE(4, moments=full(COVARIANCE, MEAN))(sde, Correlated(sde), x)
    torch.testing.assert_close(found.model_log_prob, truth(x), rtol=0, atol=1e-6)
    assert float(found.stderr.max()) < 1e-6 and found.nfe == 4


def test_directions_and_a_rest_are_the_full_covariance():
    """Two directions and one variance for all others, in place of four directions."""
    sde, x = make_sde("vp"), torch.randn(10, 4, dtype=torch.float64)
    directions = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    variances = torch.tensor([2.0, 0.3, 0.7, 0.7], dtype=torch.float64)
    covariance = directions @ variances.diag() @ directions.T
    zero = torch.zeros(4, dtype=torch.float64)

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
        spread = alpha**2 * covariance + sigma**2 * torch.eye(4, dtype=torch.float64)
        return -torch.linalg.solve(spread, x[:, :, None])[:, :, 0]

    found = IMMSE(4, moments=(zero, variances[:2], directions[:, :2], 0.7))(sde, score, x)
    exact = torch.distributions.MultivariateNormal(zero, covariance).log_prob(x)
    torch.testing.assert_close(found.model_log_prob, exact, rtol=0, atol=1e-6)
    assert float(found.stderr.max()) < 1e-8


def mean_log(sde, x: Tensor, at: float, variance: Tensor) -> Tensor:
    """The mean of log N(x_t; 0, variance I) over x_t given x (B, 2)."""
    t = torch.tensor(at, dtype=torch.float64)
    quadratic = sde.alpha(t) ** 2 * x.square().sum(1) + 2 * sde.sigma(t) ** 2
    return -(2 * math.pi * variance).log() - quadratic / (2 * variance)


def test_plain_is_the_mean_over_the_first_noise(sde):
    """The finite identity, exactly: E log N(x_eps; 0, v I) = -D/2 log(2 pi v) - (alpha^2 |x|^2 + D sigma^2)/(2 v)."""
    score, x = GaussianScore(sde, 0.0, 0.7), 0.7 * torch.randn(20, 2, dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    found = IMMSE(4, start="plain", moments=(0 * one, 0.49 * one, one.diag(), 0.0))(sde, score, x)
    exact = mean_log(sde, x, sde.eps, score.moments(sde.eps)[1])
    torch.testing.assert_close(found.model_log_prob, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp", "toy"])
def test_without_moments_the_prior_is_the_standard_one(name):
    """G is N(0, I) and the data are narrower: 2 points, 400 times each; the prior N(0, sigma(T)^2 I) is not p_T."""
    sde = make_sde(name)
    score, x = GaussianScore(sde, 0.0, 0.7), torch.tensor([[0.5, -0.1], [0.9, 1.2]], dtype=torch.float64)
    found = IMMSE(64, start="plain")(sde, score, x.repeat(400, 1))
    exact = mean_log(sde, x, sde.eps, score.moments(sde.eps)[1])
    sigma2 = torch.tensor(sde.prior_std**2, dtype=torch.float64)
    exact = exact + mean_log(sde, x, sde.T, sigma2) - mean_log(sde, x, sde.T, score.moments(sde.T)[1])
    error = found.model_log_prob.reshape(400, 2).mean(0) - exact
    bars = found.stderr.reshape(400, 2).square().sum(0).sqrt() / 400
    assert float(bars.max()) < 0.03 and float((error / bars).abs().max()) < 4


def test_the_standard_prior_differs_by_the_closed_form(sde):
    """KL(p(x_T|x) || G_T) - KL(p(x_T|x) || N(0, sigma_T^2 I)), on the same noise."""
    x, moments = gaussian_points(10), full(COVARIANCE, MEAN)
    answers = [
        IMMSE(4, prior=prior, moments=moments)(sde, Correlated(sde), x).model_log_prob for prior in ("standard", "data")
    ]
    T = torch.full((10,), sde.T, dtype=torch.float64)
    mean, covariance = Correlated(sde).at(T)
    alpha, sigma = float(sde.alpha(T[0])), float(sde.sigma(T[0]))
    channel = torch.distributions.MultivariateNormal(
        alpha * x.flatten(1), sigma**2 * torch.eye(4, dtype=torch.float64).expand(10, 4, 4)
    )
    kl = torch.distributions.kl_divergence
    zero = torch.zeros(4, dtype=torch.float64)
    standard = torch.distributions.MultivariateNormal(zero, sigma**2 * torch.eye(4, dtype=torch.float64))
    exact = kl(channel, torch.distributions.MultivariateNormal(mean, covariance)) - kl(channel, standard)
    torch.testing.assert_close(answers[0] - answers[1], exact, rtol=1e-6, atol=1e-6)


# --- unbiased, and its error bars true --------------------------------------------------------------------------------


def test_unbiased_on_a_mixture_with_true_error_bars(sde):
    """800 points, 256 draws each: the mean error within its bar, and pulls of unit variance."""
    components = mixture((2,))
    x = draw_mixture(components, 800, (2,))
    found = IMMSE(256, moments=moments_of(components))(sde, Oracle(sde, components), x)
    error = found.model_log_prob - mixture_log_prob(components, x)
    pulls = error / found.stderr
    # a stratum's two draws make few degrees of freedom, and sub-VP's range of gamma leaves most of them idle
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.15)
    assert float(error.square().mean().sqrt() / found.stderr.square().mean().sqrt()) == pytest.approx(1.0, abs=0.1)
    assert abs(float(error.mean())) < 4 * float(found.stderr.square().mean().sqrt()) / math.sqrt(800)
    assert 0.05 < float(found.stderr.median()) < 0.6


@pytest.mark.parametrize("name", ["ve", "vp", "subvp", "toy"])
def test_the_bias_is_below_the_bars_at_many_draws(name):
    """Four points, 500 times each: bars of 0.02 nats; beyond them, nothing."""
    sde, components = make_sde(name), mixture((2,))
    x = draw_mixture(components, 4, (2,))
    found = IMMSE(256, moments=moments_of(components))(sde, Oracle(sde, components), x.repeat(500, 1))
    error = found.model_log_prob.reshape(500, 4).mean(0) - mixture_log_prob(components, x)
    bars = found.stderr.reshape(500, 4).square().sum(0).sqrt() / 500
    assert float(bars.max()) < 0.04
    assert float((error / bars).abs().max()) < 4 and abs(float((error / bars).mean())) < 4 / math.sqrt(4)


def test_the_start_is_corrected():
    """Where the first noise is as wide as 0.3 of the data's detail, the correction is seen, and right to its order."""
    from scoresde.sde_lib import VE

    sde, components = VE(sigma_min=0.06), mixture((2,))
    x = draw_mixture(components, 2000, (2,))
    moments, exact = moments_of(components), mixture_log_prob(components, x)
    errors = {}
    for start in ("plain", "corrected"):
        found = IMMSE(256, start=start, moments=moments)(sde, Oracle(sde, components), x)
        bar = float(found.stderr.square().mean().sqrt()) / math.sqrt(len(x))
        errors[start] = abs(float((found.model_log_prob - exact).mean()))
    assert errors["plain"] > 0.1 > 0.04 > errors["corrected"] and bar < 0.01


@pytest.mark.parametrize("moments", [True, False])
def test_images_and_any_moments(moments):
    """(3, 8, 6), with the mixture's own Gaussian and with N(0, I): true bars, and narrower ones with the former."""
    sde, shape = make_sde("ve"), (3, 8, 6)
    components = mixture(shape)
    x = draw_mixture(components, 100, shape)
    found = IMMSE(256, moments=moments_of(components) if moments else None)(sde, Oracle(sde, components), x)
    pulls = (found.model_log_prob - mixture_log_prob(components, x)) / found.stderr
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.25) and abs(float(pulls.mean())) < 0.5
    assert (float(found.stderr.mean()) < 1.5) == moments


def test_the_error_falls_with_the_root_of_the_draws():
    """At least: strata take off more where the integrand is smooth."""
    sde, components = make_sde("vp"), mixture((2,))
    x = draw_mixture(components, 200, (2,))
    few, many = (IMMSE(n, moments=moments_of(components))(sde, Oracle(sde, components), x) for n in (64, 1024))
    ratio = float(few.stderr.square().mean().sqrt() / many.stderr.square().mean().sqrt())
    assert ratio == pytest.approx(4.0, rel=0.15)


def test_the_places_in_the_strata_are_in_the_error_bar():
    """With no noise but that of the places, eight of them, 500 times: the bar is the spread of the answers."""
    sde, components = make_sde("vp"), mixture((2,))
    x, calls = draw_mixture(components, 1, (2,)).repeat(500, 1), []

    def places_alone(like: Tensor) -> Tensor:
        calls.append(like)
        return torch.randn_like(like) if len(calls) <= 4 else torch.zeros_like(like)  # 8 places, 2 a call

    found = IMMSE(8, moments=moments_of(components))(sde, Oracle(sde, components), x, places_alone)
    spread = float(found.model_log_prob.std())
    assert spread > 0.1 and float(found.stderr.square().mean().sqrt()) == pytest.approx(spread, rel=0.15)


def test_it_agrees_with_the_ode_on_the_same_points(sde):
    """The same density by other means, with the same conventions at both ends: a difference within the bar."""
    components = mixture((2,))
    x, moments = draw_mixture(components, 300, (2,)), moments_of(components)
    score = Oracle(sde, components)
    for prior in ("data", "standard"):
        ode = Likelihood(prior=prior, moments=moments)(sde, score, x)
        found = IMMSE(256, prior=prior, moments=moments)(sde, score, x)
        bar = float(found.stderr.square().sum().sqrt()) / 300
        assert abs(float((found.model_log_prob - ode.model_log_prob).mean())) < 4 * bar < 0.15


def test_a_worse_score_is_below_the_data():
    """A score that is none of any density: on the mean over data, less than the exact one has."""
    sde, components = make_sde("vp"), mixture((2,))
    x, oracle = draw_mixture(components, 400, (2,)), Oracle(sde, components)
    estimate = IMMSE(256, start="plain", moments=moments_of(components))

    def worse(x: Tensor, t: Tensor) -> Tensor:
        return oracle(x, t) + 0.5 / sde.sigma(t)[:, None] * torch.tensor([1.0, -1.0], dtype=x.dtype)

    difference = estimate(sde, worse, x).model_log_prob - estimate(sde, oracle, x).model_log_prob
    assert float(difference.mean()) < -5 * float(difference.std()) / math.sqrt(400)


# --- its manners ------------------------------------------------------------------------------------------------------


def test_shapes_and_dtypes(sde, shape, dtype):
    components = mixture(shape)
    score = Counted(Oracle(sde, components).to(dtype))
    x = draw_mixture(components, 5, shape).to(dtype)
    torch.manual_seed(1)
    found = IMMSE(32, moments=moments_of(components))(sde, score, x)
    assert found.model_log_prob.shape == found.stderr.shape == (5,) and found.model_log_prob.dtype == torch.float64
    assert found.nfe == 32 and score.calls == 32 and not found.model_log_prob.requires_grad
    pulls = (found.model_log_prob - mixture_log_prob(components, x.double())) / found.stderr
    assert float(pulls.abs().max()) < 12  # the sixteen strata of so few draws


def test_float32_is_float64_but_for_rounding(sde):
    components, moments = mixture((2,)), moments_of(mixture((2,)))
    x = draw_mixture(components, 20, (2,)).float()
    z = torch.randn(200, 20, 2, dtype=torch.float64).float()
    answers = []
    for dtype in (torch.float32, torch.float64):
        taken = iter(z.to(dtype))
        score = Oracle(sde, components).to(dtype)
        answers.append(IMMSE(64, moments=moments)(sde, score, x.to(dtype), lambda like, taken=taken: next(taken)))
    torch.testing.assert_close(answers[0].model_log_prob, answers[1].model_log_prob, rtol=0, atol=2e-3)
    torch.testing.assert_close(answers[0].stderr, answers[1].stderr, rtol=0, atol=2e-3)


@pytest.mark.parametrize("cuts", [(10,), (3, 7), (1,) * 10])
def test_batches_may_be_cut_anywhere(shape, cuts):
    sde, components = make_sde("vp"), mixture(shape)
    x = draw_mixture(components, 10, shape)
    estimate, score = IMMSE(32, moments=moments_of(components)), Oracle(sde, components)

    def part(first: int, count: int):
        noise = BlockNoise(7, first, count, shape, torch.float64, stream="crosscheck")
        return estimate(sde, score, x[first : first + count], noise)

    whole, first, parts = part(0, 10), 0, []
    for count in cuts:
        parts.append(part(first, count))
        first += count
    for name in ("model_log_prob", "stderr"):
        cut = torch.cat([getattr(each, name) for each in parts])
        torch.testing.assert_close(cut, getattr(whole, name), rtol=1e-9, atol=1e-9)


def test_data_without_width_in_a_direction():
    """A variance of 0 is taken for what eps resolves: a finite answer, and no division by nothing."""
    sde, one = make_sde("vp"), torch.ones(2, dtype=torch.float64)
    moments = (0 * one, torch.tensor([1.0, 0.0], dtype=torch.float64), one.diag(), 0.0)
    x = torch.tensor([[0.5, 0.0], [-1.0, 0.0]], dtype=torch.float64)

    def score(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return -x / torch.cat([alpha**2 + sigma**2, sigma**2], dim=1)

    assert bool(IMMSE(32, moments=moments)(sde, score, x).model_log_prob.isfinite().all())


def test_a_score_that_is_not_finite():
    with pytest.raises(FloatingPointError, match="point 0 is nan"):
        IMMSE()(make_sde("vp"), lambda x, t: x * math.nan, torch.randn(3, 2))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"draws": 2}, "^`draws`=2 must be even and at least 4"),
        ({"draws": 63}, "^`draws`=63 must be even"),
        ({"start": "late"}, "^`start`=late must be corrected or plain"),
        ({"prior": "flat"}, "^`prior`=flat must be data or standard"),
    ],
)
def test_bad_arguments_name_the_key(values, message):
    with pytest.raises(ValueError, match=message):
        IMMSE(**values)


def test_moments_of_other_data_are_refused():
    one = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="of 3 dimensions, the points of 2"):
        IMMSE(moments=(0 * one, one, one.diag(), 0.0))(make_sde("vp"), lambda x, t: -x, torch.randn(3, 2))


# --- beside the ODE, on the command line ------------------------------------------------------------------------------


def job(folder, *overrides: str) -> dict:
    choices = {"task": "likelihood", "data": "mixture", "sde": "vp", "sampler": "ode", "model": "oracle"}
    three = ["data.shape=[3]", "data.weights=[0.4,0.6]", "data.means=[-1,1]", "data.stds=[0.5,0.4]"]  # a picture fewer
    run(compose("task=likelihood", "data=mixture", *three, "model=oracle", *overrides), choices, folder / "run")
    return json.loads((folder / "run" / "metrics.json").read_text())


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_the_task_prints_it_beside_the_ode(name, tmp_path):
    words = [f"sde={name}", "count=60", "task/crosscheck=immse", "task.crosscheck.draws=64"]
    metrics = job(tmp_path, *words)
    arrays = np.load(tmp_path / "run" / "likelihood.npz")
    mine, stderr = arrays["crosscheck_log_prob"], arrays["crosscheck_stderr"]
    bar = np.sqrt((stderr**2).sum()) / 60
    assert metrics["crosscheck_nll_nats"] == pytest.approx(-mine.mean())
    assert metrics["crosscheck_stderr"] == pytest.approx(bar) and 0 < bar < 0.2
    assert metrics["crosscheck_pull"] == pytest.approx((arrays["log_prob"] - mine).mean() / bar)
    assert abs(metrics["crosscheck_pull"]) < 4
    again = job(tmp_path, *words, "task.batch=7")
    assert again["crosscheck_nll_nats"] == pytest.approx(metrics["crosscheck_nll_nats"], abs=1e-4)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["likelihood.start=plain"], "type likelihood.start=corrected task.crosscheck.start=corrected"),
        (["likelihood.prior=standard"], "type likelihood.prior=standard task.crosscheck.prior=standard"),
        (["task.crosscheck.draws=7"], "task.crosscheck.draws=7 must be even"),
        (["task.crosscheck.prior=flat"], "task.crosscheck.prior=flat must be one of data, standard"),
    ],
)
def test_mistakes_on_the_command_line(overrides, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        job(tmp_path, "task/crosscheck=immse", *overrides)
    assert message in str(caught.value)
