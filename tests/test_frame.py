"""One probability flow for all SDEs: a score read under another SDE, and the flow in the angle as in t."""

import math

import pytest
import torch
from torch import nn

from scoresde.models import Oracle, ScoreModel
from scoresde.sde_lib import VP, Cosine, Counted, frame, integrate
from scoresde.sde_lib.frame import Flow, check_clock, under

from .conftest import PARAMETERISATIONS, GaussianScore, make, make_sde, mixture, per_sample


def shared(sde, other, count: int):
    """Random times of the other SDE, spread over the noise-to-signal ratios that both know."""
    ends = [each.half_log_snr(torch.tensor([each.T, each.eps], dtype=torch.float64)) for each in (sde, other)]
    low, high = torch.stack(ends).unbind(1)
    low, high = float(low.max()), float(high.min())
    return other.time(low + (high - low) * torch.rand(count, dtype=torch.float64)).clamp(other.eps, other.T)


class Wave(nn.Module):
    """A network that looks at everything it is given: sin(W x + c) on every sample."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, dim, dtype=torch.float64))

    def forward(self, x, c):
        weight = self.weight.to(x.dtype)
        return torch.sin(x.flatten(1) @ weight + c[:, None]).reshape(x.shape)


# --- a score under another SDE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["cosine", "ve", "subvp"])
@pytest.mark.parametrize("counted", [False, True])
def test_any_callable(sde, other, counted, shape):
    """The score of N(m, s^2) under one SDE, read under another, is its score under the other."""
    other = make_sde(other)
    exact = GaussianScore(sde, 0.4, 0.7)
    score = lambda x, t: exact(x, t)  # noqa: E731
    t, y = shared(sde, other, 30), torch.randn(30, *shape, dtype=torch.float64)
    found = under(sde, Counted(score) if counted else score, other)(y, t)
    torch.testing.assert_close(found, GaussianScore(other, 0.4, 0.7)(y, t), rtol=1e-6, atol=1e-8)


def test_any_callable_is_asked_at_no_time_outside_its_interval(sde):
    """Rounding must not carry the ends of the angle past [eps, T]."""
    asked = []
    problem = frame(sde, lambda x, t: asked.append(t) or -x, "angle")
    for dtype in (torch.float32, torch.float64):
        for t in (problem.sde.eps, problem.sde.T):
            found = problem.score(torch.ones(2, 3, dtype=dtype), torch.full((2,), t, dtype=torch.float64))
            assert found.dtype == dtype
            assert asked[-1].dtype == dtype
    for wide in asked[2:]:
        assert float(wide.min()) >= sde.eps and float(wide.max()) <= sde.T
    torch.testing.assert_close(asked[2], torch.full_like(asked[2], sde.eps), rtol=1e-6, atol=0)
    torch.testing.assert_close(asked[3], torch.full_like(asked[3], sde.T), rtol=1e-6, atol=0)


@pytest.mark.parametrize("counted", [False, True])
def test_the_oracle_brings_its_own(sde, counted):
    other = Cosine()
    oracle = Oracle(sde, mixture((2,)))
    t, y = shared(sde, other, 50), torch.randn(50, 2, dtype=torch.float64)
    found = under(sde, Counted(oracle) if counted else oracle, other)(y, t)
    assert torch.equal(found, Oracle(other, mixture((2,)))(y, t))
    detour = under(sde, lambda x, t: oracle(x, t), other)(y, t)
    torch.testing.assert_close(detour, found, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_a_network_brings_its_own(sde, name, shape):
    """The same network by its noise-to-signal ratio: what its score gives by the detour, whatever it predicts."""
    other, net = Cosine(), Wave(math.prod(shape))
    model = ScoreModel(sde, net, make("parameterisation", f"parameterisation={name}"))
    t, y = shared(sde, other, 20), torch.randn(20, *shape, dtype=torch.float64)
    twin = under(sde, model, other)
    assert twin.net is net and model.sde is sde and twin.sde is other
    found = twin(y, t).detach()
    assert torch.equal(found, ScoreModel(other, net, model.parameterisation)(y, t))
    detour = under(sde, lambda x, t: model(x, t), other)(y, t).detach()
    torch.testing.assert_close(detour, found, rtol=1e-5, atol=1e-6 * float(found.abs().max()))


def test_an_evaluation_is_counted_once_wherever_the_score_is_read():
    sde = make_sde("ve")
    counted = Counted(GaussianScore(sde))
    outer = Counted(counted)
    problem = frame(sde, outer, "angle")
    for rows in (3, 5):
        problem.score(torch.zeros(rows, 2, dtype=torch.float64), torch.full((rows,), 1.0, dtype=torch.float64))
    outer(torch.zeros(7, 2), torch.ones(7))
    assert (outer.calls, outer.evaluations) == (counted.calls, counted.evaluations) == (3, 15)


# --- the frame --------------------------------------------------------------------------------------------------------


def test_scale_and_time(sde):
    """x = sqrt(alpha^2 + sigma^2) y at t, whose angle is arctan(sigma/alpha)."""
    problem = frame(sde, GaussianScore(sde), "angle")
    moments = sde.eps + (sde.T - sde.eps) * torch.linspace(0, 1, 9, dtype=torch.float64)
    for t in moments:
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        assert problem.scale(float(t)) == pytest.approx(math.hypot(alpha, sigma), rel=1e-14)
        assert problem.time(math.atan2(sigma, alpha)) == pytest.approx(float(t), rel=1e-6)
    for angle, t in ((problem.sde.eps, sde.eps), (problem.sde.T, sde.T)):
        ratio = float(sde.sigma(torch.tensor(t, dtype=torch.float64)) / sde.alpha(torch.tensor(t, dtype=torch.float64)))
        assert math.tan(angle) == pytest.approx(ratio, rel=1e-10)
        assert sde.eps <= problem.time(angle) <= sde.T
    assert isinstance(problem.sde, Cosine) and problem.original is sde


def test_the_clock_t_is_the_problem_itself(sde, dtype):
    score = GaussianScore(sde, 0.4, 0.7)
    problem = frame(sde, score, "t")
    x, t = torch.randn(4, 3, dtype=dtype), torch.linspace(sde.eps, sde.T, 4, dtype=torch.float64)
    assert problem.sde is sde and problem.scale(sde.T) == 1 and problem.time(0.3) == 0.3
    assert torch.equal(problem.score(x, t), score(x, t.to(dtype))) and problem.score(x, t).dtype == dtype


def test_the_signal_may_be_gone_at_T():
    """alpha(T) = exp(-750) is 0 in float64: the angle stops below pi/2."""
    problem = frame(VP(beta_max=3000.0), lambda x, t: -x, "angle")
    assert problem.sde.T < math.pi / 2 and problem.scale(1.0) == 1


def test_the_angle_of_cosine_is_its_time():
    sde = make_sde("cosine")
    problem = frame(sde, GaussianScore(sde), "angle")
    assert problem.sde.eps == pytest.approx(sde.eps, rel=1e-14) and problem.sde.T == pytest.approx(sde.T, rel=1e-14)


@pytest.mark.parametrize("T", [1.58, 3.0])
def test_an_angle_beyond_the_quarter_circle(T):
    with pytest.raises(ValueError, match=rf"^`T`={T} must lie below pi/2.*type for example `T`=1\.55$"):
        Cosine(T=T)
    with pytest.raises(ValueError, match="^`eps`=2.0 must lie between 0 and `T`=1.55"):
        Cosine(eps=2.0)


def test_a_clock_that_is_none():
    with pytest.raises(ValueError, match="^`clock`=sigma must be angle or t$"):
        check_clock("sigma")


# --- the flow ---------------------------------------------------------------------------------------------------------


def solve(sde, score, clock: str, x, backwards: bool, tolerance: float = 1e-7):
    """The probability flow from one end to the other: x to x."""
    problem, shape = frame(sde, score, clock), x.shape[1:]
    flow = Flow(problem.sde, problem.score, shape, x.dtype)
    ends = [(sde.eps, problem.sde.eps), (sde.T, problem.sde.T)]
    (t0, from_), (t1, to) = reversed(ends) if backwards else ends
    y = x.flatten(1) / problem.scale(t0)
    end = integrate(flow, y, from_, to, rtol=tolerance, atol=tolerance)
    return problem.scale(t1) * end.reshape(x.shape)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_flow_of_a_gaussian(sde, backwards):
    """The quantiles of N(alpha m, v_t) stay where they are, in either clock: the end is the same x."""
    score = GaussianScore(sde, 0.4, 0.7)
    t0, t1 = (sde.T, sde.eps) if backwards else (sde.eps, sde.T)
    (m0, v0), (m1, v1) = score.moments(t0), score.moments(t1)
    x = m0 + v0.sqrt() * torch.randn(2, 1, 3, 2, dtype=torch.float64)
    exact = m1 + (v1 / v0).sqrt() * (x - m0)
    for clock in ("angle", "t"):
        found = solve(sde, score, clock, x, backwards)
        torch.testing.assert_close(found / v1.sqrt(), exact / v1.sqrt(), rtol=0, atol=2e-5)


def test_both_clocks_end_at_one_point_of_a_mixture(sde):
    """The flow of the mixture has no closed form."""
    z = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    oracle, x = Oracle(sde, mixture((2,))), sde.prior_std * z
    ends = [solve(sde, oracle, clock, x, True) for clock in ("angle", "t")]
    torch.testing.assert_close(*ends, rtol=0, atol=3e-5)  # 1.4e-5 was seen under the chain


def test_the_field_is_the_drift_of_the_flow(sde, shape, dtype):
    """f x - g^2/2 score, each sample at its own time; the stages are its values at several moments at once."""
    score = GaussianScore(sde, 0.4, 0.7)
    t = (sde.eps + (sde.T - sde.eps) * torch.rand(3, 5, dtype=torch.float64)).clamp_min(0.01)
    x, rows = torch.randn(5, *shape, dtype=dtype), torch.arange(5)
    flow = Flow(sde, score, shape, dtype)
    for moment, stage in zip(t, flow.stages(t), strict=True):
        f, g = sde.f(moment), sde.g(moment)
        expected = per_sample(f, x) * x.double() - 0.5 * per_sample(g**2, x) * score(x.double(), moment)
        scale = float(expected.abs().max())
        for found in (stage(x.flatten(1), rows), flow(x.flatten(1), moment, rows)):
            error = (found.double() - expected.flatten(1)).abs().max() / scale
            assert float(error) < (1e-12 if dtype == torch.float64 else 1e-5)
        assert torch.equal(stage(x.flatten(1), rows), flow(x.flatten(1), moment, rows))


def test_unit_data_stand_still_and_a_point_moves_round_a_circle(sde):
    """In the angle: dy/dtheta = 0 for N(0, I); for a point m, y = m cos theta + z sin theta has the velocity
    z cos theta - m sin theta.
    """
    for mean, std in ((0.0, 1.0), (1.5, 0.0)):
        problem = frame(sde, GaussianScore(sde, mean, std), "angle")
        flow = Flow(problem.sde, problem.score, (3,), torch.float64)
        angle = torch.linspace(problem.sde.eps, problem.sde.T, 7, dtype=torch.float64)
        z = torch.randn(7, 3, dtype=torch.float64)
        c, s = angle.cos()[:, None], angle.sin()[:, None]
        expected = z * c - mean * s if std == 0 else 0 * z
        y = mean * c + s * z if std == 0 else z
        torch.testing.assert_close(flow(y, angle, torch.arange(7)), expected, rtol=1e-5, atol=1e-5)
