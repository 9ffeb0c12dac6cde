"""The SDEs against their own definition: dx = f x dt + g dw decides alpha, sigma, the transition and the reversal."""

import dataclasses
import math
import re

import pytest
import scipy.integrate
import torch

from scoresde.conf import schema
from scoresde.models import Oracle
from scoresde.sde_lib import SDE, VE, VP, Custom, SubVP, Toy
from scoresde.sde_lib.expression import parse

from .conftest import SDES, GaussianScore, make_sde, mixture, per_sample


def times(sde, count=41, start=None) -> torch.Tensor:
    """Float64 times from eps to T, dense near both ends."""
    low = sde.eps if start is None else start
    return torch.cat(
        [
            torch.logspace(math.log10(low), math.log10(sde.T), count, dtype=torch.float64),
            torch.linspace(low, sde.T, count, dtype=torch.float64),
        ]
    )


def derivative(function, t):
    t = t.clone().requires_grad_()
    value = function(t)
    if not value.requires_grad:  # a constant
        return torch.zeros_like(t)
    return torch.autograd.grad(value.sum(), t)[0]


def test_levels_are_found_by_what_they_are(sde):
    start, stop = sde.ends()
    assert [float(start), float(stop)] == sde.half_log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64)).tolist()
    assert sde.ends(torch.zeros(1))[0].dtype == torch.float32
    for share in (0.0, 0.3, 1.0):
        ratio = math.exp(-float(start + share * (stop - start)))
        t = sde.time_of(ratio, "sampler.noise_to_signal")
        at = torch.tensor(t, dtype=torch.float64)
        assert sde.eps <= t <= sde.T and float(sde.sigma(at) / sde.alpha(at)) == pytest.approx(ratio, rel=1e-6)
    for ratio in (1.01 * math.exp(-float(start)), 0.99 * math.exp(-float(stop))):
        with pytest.raises(
            ValueError, match="^sampler.noise_to_signal=.* lies outside the SDE's levels, .*; type sampler"
        ):
            sde.time_of(ratio, "sampler.noise_to_signal")


def test_drift_is_the_logarithmic_derivative_of_alpha(sde):
    t = times(sde)
    torch.testing.assert_close(sde.f(t), derivative(sde.alpha, t) / sde.alpha(t), rtol=1e-9, atol=1e-12)


def test_diffusion_follows_from_the_kernel(sde):
    t = times(sde)
    expected = derivative(lambda u: sde.sigma(u) ** 2, t) - 2 * sde.f(t) * sde.sigma(t) ** 2
    torch.testing.assert_close(sde.g(t) ** 2, expected, rtol=1e-9, atol=0)


def test_moments_solve_their_ode(sde):
    """m' = f m and v' = 2 f v + g^2, solved by scipy from t = 0."""
    one = torch.ones((), dtype=torch.float64)

    def right_hand_side(t, y):
        f, g = float(sde.f(one * t)), float(sde.g(one * t))
        return [f * y[0], 2 * f * y[1] + g * g]

    zero = torch.zeros((), dtype=torch.float64)
    assert float(sde.alpha(zero)) == 1
    y, end = [1.0, float(sde.sigma(zero)) ** 2], min(sde.T, 6)
    t = torch.linspace(0, end, 7, dtype=torch.float64)  # of a chain, whose drift jumps there, whole times
    for s, u in zip(t[:-1], t[1:], strict=True):
        inside = lambda v, y, s=s, u=u: right_hand_side(min(max(v, float(s) + 1e-12), float(u)), y)  # noqa: E731
        y = scipy.integrate.solve_ivp(inside, (float(s), float(u)), y, rtol=1e-11, atol=1e-15, method="DOP853").y[:, -1]
        torch.testing.assert_close(sde.alpha(u), one * y[0], rtol=1e-8, atol=0)
        torch.testing.assert_close(sde.sigma(u) ** 2, one * y[1], rtol=1e-8, atol=0)


def test_simulated_forward_process_has_the_kernels_moments(sde):
    """Euler-Maruyama from x_0 = 1: the bound is 5 standard errors and the method's own error of order h."""
    steps, count = 400, 4000
    x, h = torch.ones(count, dtype=torch.float64), sde.T / steps
    x = x + sde.sigma(torch.zeros(1, dtype=torch.float64)) * torch.randn(count, dtype=torch.float64)
    for n in range(steps):
        t = torch.full((1,), n * h, dtype=torch.float64)
        x = x + sde.f(t) * x * h + sde.g(t) * math.sqrt(h) * torch.randn(count, dtype=torch.float64)
    T = torch.tensor(sde.T, dtype=torch.float64)
    alpha, sigma = float(sde.alpha(T)), float(sde.sigma(T))
    assert abs(float(x.mean()) - alpha) < 5 * sigma / math.sqrt(count) + 0.01 * alpha
    assert abs(float(x.var()) / sigma**2 - 1) < 5 * math.sqrt(2 / count) + 0.03


@pytest.mark.parametrize("function", ["alpha", "sigma", "g"])
def test_float32_is_as_accurate_as_float32_can_be(sde, function):
    t = times(sde, start=1e-5).float()
    found, exact = getattr(sde, function)(t), getattr(sde, function)(t.double())
    assert found.dtype == torch.float32 and exact.dtype == torch.float64
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("function", ["f", "g", "alpha", "sigma", "half_log_snr"])
def test_times_of_any_shape(sde, function):
    t = torch.linspace(sde.eps, sde.T, 6, dtype=torch.float64)
    flat = getattr(sde, function)(t)
    assert torch.equal(getattr(sde, function)(t.reshape(2, 1, 3)), flat.reshape(2, 1, 3))
    assert torch.allclose(torch.stack([getattr(sde, function)(each) for each in t]), flat, rtol=1e-14, atol=0)


def test_half_log_snr(sde):
    t = times(sde)
    torch.testing.assert_close(sde.half_log_snr(t), (sde.alpha(t) / sde.sigma(t)).log(), rtol=1e-10, atol=1e-12)


def test_time_inverts_half_log_snr(sde):
    t = times(sde)
    torch.testing.assert_close(sde.time(sde.half_log_snr(t)), t, rtol=1e-9, atol=1e-12)
    found = sde.time(sde.half_log_snr(t.float()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), t, rtol=2e-5, atol=2e-6)


def test_bisection_equals_the_closed_form(sde):
    t = times(sde)
    torch.testing.assert_close(SDE.time(sde, sde.half_log_snr(t)), sde.time(sde.half_log_snr(t)), rtol=1e-9, atol=1e-14)


def test_transitions_compose(sde):
    """x_s -> x_t -> x_u has the law of x_s -> x_u."""
    s, t, u = (torch.linspace(sde.eps, sde.T, 22, dtype=torch.float64)[k : 20 + k] for k in range(3))
    (a, b), (a1, b1), (a2, b2) = sde.transition(s, u), sde.transition(s, t), sde.transition(t, u)
    torch.testing.assert_close(a, a1 * a2, rtol=1e-11, atol=0)
    torch.testing.assert_close(b**2, a2**2 * b1**2 + b2**2, rtol=1e-11, atol=0)


def test_transition_from_the_start_is_the_kernel(sde):
    """The kernel is x_t | x_0 = alpha x_0 + sigma z. An SDE with sigma(0) > 0 starts from blurred data, whose noise the
    transition carries on.
    """
    t = times(sde)
    a, b = sde.transition(torch.zeros_like(t), t)
    torch.testing.assert_close(a, sde.alpha(t), rtol=1e-12, atol=0)
    torch.testing.assert_close(b**2 + a**2 * sde.sigma(torch.zeros_like(t)) ** 2, sde.sigma(t) ** 2, rtol=1e-10, atol=0)


def exact_transition_variance(sde, s, t):
    """b^2 = int_s^t (alpha(t)/alpha(u))^2 g(u)^2 du, by Gauss-Legendre, free of any cancellation; piece by piece
    between whole times, at which a chain's g jumps.
    """
    import numpy as np

    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(20))
    total, low = torch.zeros_like(t), s
    while bool((low < t).any()):
        high = torch.minimum(t, low.floor() + 1)
        u = low[:, None] + (high - low)[:, None] * (nodes + 1) / 2
        total += ((sde.alpha(t)[:, None] / sde.alpha(u)) ** 2 * sde.g(u) ** 2 @ weights) * (high - low) / 2
        low = high
    return total


@pytest.mark.parametrize("h", [1e-2, 1e-4, 1e-7])
def test_transition_of_close_times(sde, h):
    s = times(sde) * (1 - h)
    t = s + h * sde.T
    exact = exact_transition_variance(sde, s, t)
    torch.testing.assert_close(sde.transition(s, t)[1] ** 2, exact, rtol=1e-10 + 1e-15 / h, atol=0)


def test_transition_in_float32(sde):
    """Neighbours of a grid of 1,000 steps."""
    grid = torch.linspace(sde.eps, sde.T, 1001)
    s, t = grid[:-1], grid[1:]
    exact = exact_transition_variance(sde, s.double(), t.double())
    torch.testing.assert_close(sde.transition(s, t)[1].double() ** 2, exact, rtol=3e-3, atol=0)


def test_perturb(sde, shape, dtype):
    x_0, z = torch.randn(5, *shape, dtype=dtype), torch.randn(5, *shape, dtype=dtype)
    t = torch.linspace(sde.eps, sde.T, 5, dtype=dtype)
    found = sde.perturb(x_0, t, z)
    assert found.dtype == dtype
    for i in range(5):
        torch.testing.assert_close(found[i], sde.alpha(t)[i] * x_0[i] + sde.sigma(t)[i] * z[i])


def test_one_time_a_sample(sde):
    with pytest.raises(ValueError, match="one time a sample"):
        sde.perturb(torch.zeros(5, 2), torch.ones(1), torch.zeros(5, 2))


def test_prior_log_prob(sde, shape, dtype):
    std = float(sde.sigma(torch.tensor(sde.T, dtype=torch.float64)))
    z = std * torch.randn(4, *shape, dtype=dtype)
    law = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
    expected = law.log_prob(z.double()).flatten(1).sum(1)
    assert sde.prior_std == pytest.approx(std, rel=1e-12)
    torch.testing.assert_close(
        sde.prior_log_prob(z), expected.to(dtype), rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.7])
def test_reverse_process_has_the_forward_marginals(sde, eta):
    """The Fokker-Planck equation of the process run backwards, at points of a mixture, term by term with autograd:
    -d_t log p = div drift + drift . grad log p + diffusion^2/2 (laplace log p + |grad log p|^2)."""
    oracle = Oracle(sde, mixture((2,)))
    reverse = sde.reverse(oracle, eta)
    for t in torch.linspace(sde.eps, sde.T, 5, dtype=torch.float64)[1:]:
        scale = float((sde.alpha(t) ** 2 + sde.sigma(t) ** 2).sqrt())
        t = t.clone().requires_grad_()
        for point in scale * torch.randn(3, 2, dtype=torch.float64):
            point = point.clone().requires_grad_()
            log_p = lambda x, t: oracle.log_prob(x[None], t[None])[0]  # noqa: E731
            d_t, score = torch.autograd.grad(log_p(point, t), (t, point))
            laplace = torch.autograd.functional.hessian(lambda x: log_p(x, t), point).trace()  # noqa: B023
            drift_at = lambda x: reverse.drift(x[None], t[None])[0]  # noqa: E731, B023
            div = torch.autograd.functional.jacobian(drift_at, point).trace()
            half_d2 = 0.5 * reverse.diffusion(t) ** 2
            terms = torch.stack([div, drift_at(point) @ score, half_d2 * (laplace + score @ score), d_t]).detach()
            assert abs(float(terms.sum())) < 1e-9 * float(terms.abs().sum() + 1)


def test_reverse_drift_and_diffusion(sde, shape, dtype):
    """eta = 1: f x - g^2 score and g; eta = 0: f x - g^2 score / 2 and no noise (arXiv 2011.13456, eq. 6 and 13)."""
    x, t = torch.randn(5, *shape, dtype=dtype), torch.linspace(sde.eps, sde.T, 5, dtype=dtype)
    score = GaussianScore(sde, 0.3, 0.8)
    f, g = per_sample(sde.f(t), x), per_sample(sde.g(t), x)
    torch.testing.assert_close(sde.reverse(score).drift(x, t), f * x - g**2 * score(x, t))
    torch.testing.assert_close(sde.reverse(score, 0.0).drift(x, t), f * x - g**2 * score(x, t) / 2)
    torch.testing.assert_close(sde.reverse(score).diffusion(t), sde.g(t))
    assert torch.equal(sde.reverse(score, 0.0).diffusion(t), torch.zeros_like(t))


def test_denoise_is_the_posterior_mean(sde, shape, dtype):
    """x_0 ~ N(m, s^2): E[x_0 | x_t] = m + alpha s^2 / (alpha^2 s^2 + sigma^2) (x_t - alpha m)."""
    m, s = 0.4, 0.7
    t = torch.linspace(sde.eps, sde.T / 2, 5, dtype=dtype)
    x = sde.perturb(torch.randn(5, *shape, dtype=dtype), t, torch.randn(5, *shape, dtype=dtype))
    alpha, sigma = per_sample(sde.alpha(t.double()), x), per_sample(sde.sigma(t.double()), x)
    exact = m + alpha * s**2 / (alpha**2 * s**2 + sigma**2) * (x.double() - alpha * m)
    tolerance = 1e-11 if dtype == torch.float64 else 3e-5
    torch.testing.assert_close(
        sde.denoise(GaussianScore(sde, m, s), x, t).double(), exact, rtol=tolerance, atol=tolerance
    )


def test_the_flows_step_is_right_to_second_order(sde):
    """x_0 ~ N(m, s^2): the law after one step from t to 0 in (sigma/alpha)^2 has the mean m and the std
    s (1 + r/2)/sqrt(1 + r), which is s (1 + r^2/8) for small r = (sigma/(alpha s))^2; Tweedie's is off by r/2.
    """
    m, s, errors = 0.4, 0.7, {}
    for r in (0.08, 0.04):
        t = sde.time(torch.tensor([-0.5 * math.log(r * s**2)], dtype=torch.float64)).clamp_min(sde.eps)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        kappa2 = float((sigma / alpha) ** 2) / s**2
        ends = alpha * m + torch.tensor([[0.0], [1.0]], dtype=torch.float64) * (alpha**2 * s**2 + sigma**2).sqrt()
        for name, step in (("flow", sde.flow_to_data), ("tweedie", sde.denoise)):
            middle, out = step(GaussianScore(sde, m, s), ends, t.expand(2))[:, 0].tolist()
            assert middle == pytest.approx(m, abs=1e-9)
            errors[name, r] = (out - middle) / s - 1
        assert errors["flow", r] == pytest.approx((1 + kappa2 / 2) / (1 + kappa2) ** 0.5 - 1, rel=1e-5)
    assert math.log2(errors["flow", 0.08] / errors["flow", 0.04]) == pytest.approx(2, abs=0.1)
    assert math.log2(errors["tweedie", 0.08] / errors["tweedie", 0.04]) == pytest.approx(1, abs=0.1)


# --- single SDEs ------------------------------------------------------------------------------------------------------


def test_published_defaults():
    """arXiv 2011.13456, appendix C and D: the yaml and the class say the same."""
    for name, published in {
        "ve": VE(sigma_min=0.01, sigma_max=50.0, T=1.0, eps=1e-5),
        "vp": VP(beta_min=0.1, beta_max=20.0, T=1.0, eps=1e-3),
        "subvp": SubVP(beta_min=0.1, beta_max=20.0, T=1.0, eps=1e-3),
        "toy": Toy(s=25.0, T=1.0, eps=1e-4),
    }.items():
        assert make_sde(name) == published == type(published)()


def test_known_values():
    one = torch.ones((), dtype=torch.float64)
    assert float(VE().sigma(0 * one)) == pytest.approx(0.01) and VE().prior_std == pytest.approx(50)
    assert float(VP().alpha(one)) == pytest.approx(math.exp(-10.05 / 2)) and VP().prior_std == pytest.approx(
        math.sqrt(1 - math.exp(-10.05))
    )
    assert SubVP().prior_std == pytest.approx(1 - math.exp(-10.05))
    assert Toy().prior_std == pytest.approx(math.sqrt(624 / (2 * math.log(25))))
    t = torch.linspace(0.01, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(SubVP().sigma(t), VP().sigma(t) ** 2)


@pytest.mark.parametrize("kind, T", [(VE, 2.5), (VP, 2.5), (SubVP, 0.4), (Toy, 2.0), (Custom, 0.5)])
def test_other_end_times(kind, T):
    sde = kind(T=T)
    test_diffusion_follows_from_the_kernel(sde)
    test_drift_is_the_logarithmic_derivative_of_alpha(sde)
    test_time_inverts_half_log_snr(sde)
    test_moments_solve_their_ode(sde)
    if kind is VE:
        assert sde.prior_std == pytest.approx(50)


def test_custom_of_the_toy_diffusion_is_the_toy_sde():
    custom, toy = Custom("25**t"), Toy(25.0)
    t = times(toy, start=1e-7)
    for name in ("f", "g", "alpha", "sigma", "half_log_snr"):
        torch.testing.assert_close(getattr(custom, name)(t), getattr(toy, name)(t), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(custom.time(toy.half_log_snr(t)), toy.time(toy.half_log_snr(t)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    "expression, function, T, accuracy",
    [
        ("1 + 5*t**2", lambda t: 1 + 5 * t**2, 1.0, 1e-13),
        ("3*exp(-t) + sin(2*pi*t)**2 / 2", lambda t: 3 * math.exp(-t) + math.sin(2 * math.pi * t) ** 2 / 2, 2.0, 1e-12),
        ("2", lambda t: 2.0, 1.0, 1e-14),
        ("-(-t - 0.5)", lambda t: t + 0.5, 3.0, 1e-13),
        (
            "cosh(t) + tanh(t) + sigmoid(t) + log(1 + t)",
            lambda t: math.cosh(t) + math.tanh(t) + 1 / (1 + math.exp(-t)) + math.log1p(t),
            1.0,
            1e-13,
        ),
        ("0.1 + sqrt(t)", lambda t: 0.1 + math.sqrt(t), 1.0, 1e-11),  # not smooth at 0
        ("0.1 + abs(t - 0.3)", lambda t: 0.1 + abs(t - 0.3), 1.0, 1e-11),  # nor here
    ],
)
def test_custom_against_quadrature(expression, function, T, accuracy):
    sde = Custom(expression, T=T)
    for t in (1e-4, 0.11, 0.3, 0.31, 0.77 * T, T):
        expected, _ = scipy.integrate.quad(
            lambda u: function(u) ** 2, 0, t, points=[0.3] if t > 0.3 else None, epsabs=0, epsrel=1e-12, limit=200
        )
        assert float(sde.sigma(torch.tensor(t, dtype=torch.float64))) == pytest.approx(
            math.sqrt(expected), rel=accuracy
        )
        assert float(sde.g(torch.tensor(t, dtype=torch.float64))) == pytest.approx(function(t), rel=1e-14)


def spike(height: float, rate: float, at: float):
    """The integral from 0 to t of (1 + height exp(-(rate (u - at))^2))^2."""

    def part(t: float, c: float) -> float:  # of exp(-c (rate (u - at))^2)
        scale = math.sqrt(c) * rate
        return math.sqrt(math.pi) / (2 * scale) * (math.erf(scale * (t - at)) + math.erf(scale * at))

    return lambda t: t + 2 * height * part(t, 1) + height**2 * part(t, 2)


def oscillation(t: float) -> float:
    """The integral from 0 to t of (1 + sin(500 u) / 2)^2."""
    return t + (1 - math.cos(500 * t)) / 500 + (t / 2 - math.sin(1000 * t) / 2000) / 4


def steep(t: float) -> float:
    """The integral from 0 to t of (1 + 0.9 tanh(c (u - 0.5)))^2, c = 1e5: log cosh x = |x| - log 2 where x is large."""
    c, log_cosh = 1e5, lambda x: abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)
    here, start = c * (t - 0.5), -0.5 * c
    return 1.81 * t + 1.8 * (log_cosh(here) - log_cosh(start)) / c - 0.81 * (math.tanh(here) - math.tanh(start)) / c


DETAILED = {
    # expression, the same as a callable, sigma(t)^2 in closed form
    "a spike": (
        "1 + 1000*exp(-((t - 0.3717)*5000)**2)",
        lambda t: 1 + 1000 * torch.exp(-(((t - 0.3717) * 5000) ** 2)),
        spike(1000, 5000, 0.3717),
    ),
    "a needle": ("1 + 1e6*exp(-((t - 0.3717)*1e7)**2)", None, spike(1e6, 1e7, 0.3717)),  # between a callable's samples
    "an oscillation": ("1 + 0.5*sin(500*t)", lambda t: 1 + 0.5 * torch.sin(500 * t), oscillation),
    "a step": ("1 + 0.9*tanh((t - 0.5)*1e5)", lambda t: 1 + 0.9 * torch.tanh((t - 0.5) * 1e5), steep),
    "a kink": (
        "0.1 + abs(t - 0.3)",
        lambda t: 0.1 + abs(t - 0.3),
        lambda t: (0.4**3 + (1 if t > 0.3 else -1) * ((abs(t - 0.3) + 0.1) ** 3 - 0.1**3) - 0.1**3) / 3,
    ),
    "a pole at 0": ("t**-0.4", lambda t: t**-0.4, lambda t: 5 * t**0.2),
    "a zero at 0": ("t**2", lambda t: t**2, lambda t: t**5 / 5),
}


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("name", DETAILED)
def test_custom_finds_detail(name, called):
    """Wherever it lies, and at every t, against closed forms; a rule of fixed nodes saw nothing of the spike."""
    expression, function, truth = DETAILED[name]
    if called and function is None:
        return
    sde = Custom(function if called else expression)
    for t in (1e-4, 0.1, 0.29, 0.3716, 0.3717, 0.3719, 0.5, 0.77, 1.0):
        found = float(sde.sigma(torch.tensor(t, dtype=torch.float64)))
        assert found == pytest.approx(math.sqrt(truth(t)), rel=1e-9), t


@pytest.mark.parametrize(
    "expression",
    [
        *(each[0] for each in DETAILED.values()),
        "sin(40*t) / (0.2 + cos(9*t)**2)",
        "-t**3 + (t - 0.4)**3 - (t - 0.6)**4 * 7",
        "(2 - t)**(3*t - 1)",
        "1/(t + 0.1) - 2/(0.7 - t)**2",
        "log(0.1 + t)**2 * sinh(3*t - 1) - cosh(5*t - 3)",
        "sqrt(abs(t - 0.3)) * sigmoid(20*t - 9)",
        "(t - 0.3)**-1",
        "t**t",
    ],
)
def test_bounds_hold_all_values(expression):
    """On intervals of all widths; and they close in on the value as the interval shrinks."""
    function, generator = parse(expression), torch.Generator().manual_seed(0)
    at, width = torch.rand(2, 3000, dtype=torch.float64, generator=generator)
    width = 10 ** (-8 * width)
    low, high = (at - width / 2).clamp(0, 1), (at + width / 2).clamp(0, 1)
    least, greatest = function.bounds(low, high)
    inside = function(low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, 33, dtype=torch.float64))
    rounding = 1e-11 * inside.abs().nan_to_num(nan=0.0, posinf=0.0) + 1e-12
    for found, worse in ((least[:, None] - rounding, inside), (inside, greatest[:, None] + rounding)):
        assert not bool((found > worse).any())
    smooth = torch.tensor([0.2345, 0.611, 0.9], dtype=torch.float64)
    least, greatest = function.bounds(smooth, smooth + 1e-12)
    torch.testing.assert_close(least, greatest, rtol=1e-4, atol=1e-6)


def test_bounds_by_hand():
    low, high = torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.tensor([2.0, 3.0], dtype=torch.float64)
    for expression, expected in {
        "t**2": ([0, 4], [4, 9]),
        "t**3": ([-1, 8], [8, 27]),
        "abs(t)": ([0, 2], [2, 3]),
        "1/t": ([-math.inf, 1 / 3], [math.inf, 0.5]),
        "t**-2": ([0.25, 1 / 9], [math.inf, 0.25]),
        "t*t": ([-2, 4], [4, 9]),  # bounds, and no range
        "cos(t)": ([math.cos(2), math.cos(3)], [1, math.cos(2)]),
        "cos(3*t)": ([-1, -0.9111302618846769], [1, 1]),
        "sqrt(t)": ([-math.inf, 2**0.5], [2**0.5, 3**0.5]),
        "log(t)": ([-math.inf, math.log(2)], [math.log(2), math.log(3)]),
    }.items():
        for found, wanted in zip(parse(expression).bounds(low, high), expected, strict=True):
            assert found.tolist() == pytest.approx(wanted, abs=1e-12), expression


def test_custom_takes_a_callable():
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(Custom(lambda u: 1 + 5 * u**2).sigma(t), Custom("1 + 5*t**2").sigma(t))


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "u",
        "x**2",
        "t.real",
        "foo(t)",
        "exp(t, t)",
        "exp",
        "t if t else 1",
        "[t]",
        "'t'",
        "1j",
        "lambda t: t",
        "t; t",
        "t < 1",
        "t // 2",
        "__import__('os').getcwd()",
        "exp(x=t)",
        "log(t)",
        "t - 0.5",
        "sin(10*t)",
        "exp(1000*t)",
        "1/t",  # of which the integral diverges at 0
        "1/sqrt(t)",
        "0",
        "1/abs(t - 0.3)",
        "1 + sin(1e6*t)",  # which no panels here follow
        "1 + 1/(t - 0.3)**2",
        "0.1 + 0.9*sigmoid((0.3 - t)*100) - 1e3*exp(-((t - 0.7123)*1e6)**2)",  # a needle that points down
        "1 - 1.01*exp(-((t - 0.5)*100)**2)",
        "abs(t - 0.5) + t - 0.5 + abs(0.3 - t) + 0.3 - t",  # no noise is added from 0.3 to 0.5
        "abs(t - 0.5) + t - 0.5",  # nor up to 0.5
        "10**400",
        "1" + "0" * 400,
        pytest.param("t" + " + t" * 1000, id="a sum of 1001 terms"),
    ],
)
def test_bad_expressions_name_the_key(expression):
    with pytest.raises(ValueError, match="^`diffusion`="):
        Custom(expression)


@pytest.mark.parametrize(
    "expression, message",
    [
        ("1/abs(t - 0.3)", "a pole, a zero or a jump near t=0.3,"),
        ("1 + abs(t - 0.4)**-0.3", "a pole, a zero or a jump near t=0.4,"),
        ("1 + 0.5*abs(t - 0.25)/(t - 0.25)", "a pole, a zero or a jump near t=0.25,"),
        ("1 + sin(1e6*t)", "panels do not follow it.*less detail"),
        ("1 - 1.01*exp(-((t - 0.5)*100)**2)", "it must be positive everywhere .* not beside t=0.49"),
    ],
)
def test_what_is_wrong_with_an_expression_is_told(expression, message):
    with pytest.raises(ValueError, match=message):
        Custom(expression)


@pytest.mark.parametrize("expression", ["exp(-1/t)", "t**5", "1e-20*t"])
def test_no_noise_at_eps_is_refused_and_the_advice_is_taken(expression):
    with pytest.raises(ValueError, match=r"^`diffusion`=.* no noise by t=`eps`=0\.0001") as refused:
        Custom(expression)
    typed = re.findall(r"type `eps`=(\S+)$", str(refused.value))
    assert bool(typed) == (expression != "1e-20*t")
    for eps in typed:
        assert Custom(expression, eps=float(eps)).ends()[1].isfinite()


@pytest.mark.parametrize(
    "kind, values, key",
    [
        (VE, {"sigma_min": 0.0}, "sigma_min"),
        (VE, {"sigma_min": 1.0, "sigma_max": 1.0}, "sigma_max"),
        (VE, {"sigma_max": math.nan}, "sigma_max"),
        (VE, {"sigma_max": math.inf}, "sigma_max"),
        (VP, {"beta_min": 0.0}, "beta_min"),
        (VP, {"beta_min": 30.0}, "beta_max"),
        (SubVP, {"beta_min": -1.0}, "beta_min"),
        (SubVP, {"beta_max": math.nan}, "beta_max"),
        (Toy, {"s": 1.0}, "s"),
        (Toy, {"s": math.nan}, "s"),
    ],
)
def test_bad_parameters_name_the_key(kind, values, key):
    with pytest.raises(ValueError, match=f"`{key}`="):
        kind(**values)


@pytest.mark.parametrize(
    "values, key",
    [
        ({"T": 0.0}, "T"),
        ({"T": math.inf}, "T"),
        ({"T": math.nan}, "T"),
        ({"eps": -1e-3}, "eps"),
        ({"eps": 1e4}, "eps"),
        ({"eps": math.nan}, "eps"),
    ],
)
@pytest.mark.parametrize("name", SDES)
def test_bad_intervals_name_the_key(name, values, key):
    with pytest.raises(ValueError, match=f"`{key}`="):
        dataclasses.replace(make_sde(name), **values)


def test_vp_has_a_log_snr_at_any_integral_of_beta():
    """In float32 exp(B) overflows from B = 88 on."""
    sde = VP(beta_max=400.0)
    t = torch.tensor([0.5, 1.0])
    torch.testing.assert_close(sde.half_log_snr(t).double(), sde.half_log_snr(t.double()))
    assert float(sde.half_log_snr(t)[1]) == pytest.approx(-0.5 * (0.1 + 400) / 2, rel=1e-6)


@pytest.mark.parametrize(
    "node, message",
    [
        (
            {"_target_": "sde_lib.VP", "eps": 2.0},
            "a.b.eps=2.0 must lie between 0 and a.b.T=1.0; type for example a.b.eps=",
        ),
        (
            {"_target_": "sde_lib.SubVP", "beta_max": 1e9},
            "a.b.beta_max=1000000000.0 leaves nothing of the data at a.b.eps=",
        ),
        ({"_target_": "sde_lib.VE", "sigma_min": 60.0}, "a.b.sigma_max=50.0 must exceed a.b.sigma_min=60.0"),
        ({"_target_": "sde_lib.Toy", "s": 0.5}, "a.b.s=0.5 must exceed 1"),
        ({"_target_": "sde_lib.EDM", "T": 1e7}, "a.b.T=10000000.0 is the largest noise"),
        ({"_target_": "sde_lib.Cosine", "T": 3.0}, "a.b.T=3.0 must lie below pi/2"),
        (
            {"_target_": "sde_lib.Custom", "diffusion": "log(t)"},
            "a.b.diffusion='log(t)': it must be positive and finite",
        ),
        ({"_target_": "sde_lib.Custom", "diffusion": "foo(t)"}, "a.b.diffusion='foo(t)': cannot read"),
        ({"_target_": "sde_lib.Custom", "diffusion": "t**5"}, "it has added no noise by t=a.b.eps=0.0001"),
        (
            {"_target_": "sde_lib.Chain", "schedule": {"_target_": "sde_lib.CosineBetas", "largest": 1.0}},
            "or a.b.schedule.largest=0.999 where the schedule has that key",
        ),
        ({"_target_": "sde_lib.BinaryChain", "T": 1.0}, "a.b.T=1.0 must be a whole number of steps"),
    ],
)
def test_errors_name_the_keys_where_they_stand(node, message):
    with pytest.raises(ValueError) as refused:
        schema.build(node, "a.b")
    assert message in str(refused.value) and "`" not in str(refused.value)
