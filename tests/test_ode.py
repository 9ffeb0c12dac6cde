"""The ODE solvers against problems with known solutions: their order, and that each sample is solved by itself."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from scoresde.sde_lib import integrate
from scoresde.sde_lib.ode import (
    ADAPTIVE,
    FIXED,
    METHODS,
    PAIRS,
    Adaptive,
    Running,
    Trial,
    Visit,
    adaptive,
    retrace,
    rms,
)

ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}


def spring(y, t, rows):
    """y'' = -y as a system, made non-autonomous by the time scale 1 + t: y(t) = rotation by t + t^2/2."""
    return torch.stack([y[:, 1], -y[:, 0]], dim=1) * (1 + t)[:, None].to(y.dtype)


def rotated(y, angle):
    return torch.stack(
        [y[:, 0] * math.cos(angle) + y[:, 1] * math.sin(angle), y[:, 1] * math.cos(angle) - y[:, 0] * math.sin(angle)],
        dim=1,
    )


def angle(t0, t1):
    return (t1 + t1**2 / 2) - (t0 + t0**2 / 2)


class Recorded:
    """A field that remembers when and for how many samples it was called."""

    def __init__(self, field):
        self.field, self.times, self.calls, self.rows = field, [], 0, []

    def __call__(self, y, t, rows):
        assert t.shape == y.shape[:1]
        self.times += [float(t.min()), float(t.max())]
        self.calls += 1
        self.rows.append(rows)
        return self.field(y, t, rows)


# --- the method itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_tableau(name):
    """All seventeen order conditions of b up to order 5, and the error's up to order 4 and not beyond (Hairer, Norsett
    and Wanner I, II.2).
    """
    pair = PAIRS[name]
    c, size = np.array(pair.C), len(pair.C)
    A = np.zeros((size, size))
    for i, row in enumerate(pair.A, start=1):
        A[i, : len(row)] = row
    b, e, one = A[-1], np.array(pair.error), np.ones(size)
    np.testing.assert_allclose(A @ one, c, atol=1e-14)
    trees = {  # of each rooted tree of r nodes: the vector of its weights, and its density
        1: [(one, 1)],
        2: [(c, 2)],
        3: [(c**2, 3), (A @ c, 6)],
        4: [(c**3, 4), (c * (A @ c), 8), (A @ c**2, 12), (A @ A @ c, 24)],
        5: [
            (c**4, 5),
            (c**2 * (A @ c), 10),
            ((A @ c) ** 2, 20),
            (c * (A @ c**2), 15),
            (c * (A @ A @ c), 30),
            (A @ c**3, 20),
            (A @ (c * (A @ c)), 40),
            (A @ A @ c**2, 60),
            (A @ A @ A @ c, 120),
        ],
    }
    for order, conditions in trees.items():
        for weights, density in conditions:
            assert b @ weights == pytest.approx(1 / density, abs=1e-13)
            if order < 5:
                assert e @ weights == pytest.approx(0, abs=1e-13)
    assert max(abs(e @ weights) for weights, _ in trees[5]) > 1e-5
    d = np.array(pair.dense)
    first, last = np.eye(size)[0], np.eye(size)[-1]
    for u in (0.2, 0.5, 0.77):  # of the interpolant up to order 4: u^r / density
        within = u**2 * (3 - 2 * u) * np.append(b[:-1], 0) + u * (1 - u) ** 2 * first - u**2 * (1 - u) * last
        within += (u * (1 - u)) ** 2 * d
        for order in (1, 2, 3, 4):
            for weights, density in trees[order]:
                assert within @ weights == pytest.approx(u**order / density, abs=1e-13)


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "torchdiffeq.dopri5"])
def test_order_of_the_pairs(method):
    """The error falls with the fifth power of the number of steps, and in proportion to the tolerance."""
    y = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    errors, calls, tolerances = [], [], [10.0**-k for k in range(4, 11)]
    for tolerance in tolerances:
        field = Recorded(spring)
        end = integrate(field, y, 0.0, 4.0, method=method, rtol=tolerance, atol=tolerance)
        errors.append(float((end - rotated(y, angle(0, 4))).norm()))
        calls.append(field.calls)
    most = (
        20 if method in PAIRS else 100
    )  # torchdiffeq steps past the end, where the field is held, and interpolates back
    assert all(error < most * tolerance for error, tolerance in zip(errors, tolerances, strict=True))
    slope = (math.log(errors[-1]) - math.log(errors[1])) / (math.log(calls[-1]) - math.log(calls[1]))
    assert -6 < slope < -4.3


@pytest.mark.parametrize("name", FIXED)
def test_order_of_the_fixed_methods(name):
    y = torch.tensor([[1.0, 0.5], [-0.2, 0.8]], dtype=torch.float64)
    errors = [
        float(
            (integrate(spring, y, 0.0, 1.0, method=f"torchdiffeq.{name}", steps=steps) - rotated(y, angle(0, 1))).norm()
        )
        for steps in (20, 40, 80)
    ]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[name], abs=0.2)


@pytest.mark.parametrize("method", [method for method in METHODS if method.split(".")[-1] in ADAPTIVE])
def test_adaptive_methods_agree_with_the_solution(method):
    y = torch.randn(3, 2, dtype=torch.float64)
    end = integrate(spring, y, 0.0, 2.0, method=method, rtol=1e-6, atol=1e-6)
    assert float((end - rotated(y, angle(0, 2))).abs().max()) < (
        3e-3 if method.endswith("fehlberg2") else 2e-4
    )  # its estimate is of h^2 only


def test_equals_torchdiffeq():
    y = torch.randn(4, 2, dtype=torch.float64)

    def field(y, t, rows):
        return torch.sin(y * y.flip(1)) + t[:, None].cos()

    ours = integrate(field, y, 0.3, 2.0, rtol=1e-10, atol=1e-10)
    for method, accuracy in (("dopri5", 1e-8), ("dopri8", 1e-8), ("rk4", 1e-7)):
        theirs = integrate(field, y, 0.3, 2.0, method=f"torchdiffeq.{method}", rtol=1e-11, atol=1e-11, steps=400)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=accuracy)


def test_float32(dtype):
    y = torch.randn(5, 2, dtype=dtype)
    end = integrate(spring, y, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    assert end.dtype == dtype
    assert float((end - rotated(y, angle(0, 1))).abs().max()) < 1e-5


# --- each sample by itself --------------------------------------------------------------------------------------------

RATES = torch.tensor([0.1, 1.0, 30.0, 1000.0, 3.0, 300.0], dtype=torch.float64)


def stiff(y, t, rows):
    """y' = -rate (y - cos t) - sin t with a rate for each sample: y = cos t + (y_0 - 1) e^{-rate t}."""
    rates = RATES[rows]
    return -rates[:, None] * (y - t.cos()[:, None]) - t.sin()[:, None]


def test_a_stiff_mix():
    """Every sample to its own accuracy, and at its own price: the smooth samples do not pay for the stiff ones."""
    y = torch.full((6, 2), 1.5, dtype=torch.float64)
    field = Recorded(stiff)
    end = integrate(field, y, 0.0, 2.0, rtol=1e-7, atol=1e-7)
    exact = math.cos(2.0) + 0.5 * torch.exp(-2 * RATES)[:, None].expand(6, 2)
    assert float((end - exact).abs().max()) < 1e-6
    price = torch.bincount(torch.cat([torch.arange(6)[rows] for rows in field.rows]), minlength=6)
    assert int(price[3]) == field.calls
    assert int(price[0]) < 0.1 * field.calls and int(price[1]) < 0.1 * field.calls


@pytest.mark.parametrize("t0, t1", [(0.0, 2.0), (2.0, 1.95)])
def test_alone_and_in_a_batch(t0, t1):
    y = torch.randn(6, 3, dtype=torch.float64)
    whole = integrate(stiff, y, t0, t1, rtol=1e-6, atol=1e-6)
    for i in range(6):
        field = lambda y, t, rows: stiff(y, t, torch.arange(6)[i : i + 1])  # noqa: E731, B023
        alone = integrate(field, y[i : i + 1], t0, t1, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-12, atol=1e-12)


def test_rows_name_the_samples_that_are_left():
    """Which rows of the batch the field is given: a sample that is done leaves it, and the others keep their number."""
    marks = torch.arange(6, dtype=torch.float64)

    def field(y, t, rows):
        assert torch.equal(y[:, 1], marks[rows])  # the second value is the sample's number and does not change
        return torch.stack([-RATES[rows] * y[:, 0], 0 * y[:, 1]], dim=1)

    y = torch.stack([torch.ones(6, dtype=torch.float64), marks], dim=1)
    end = integrate(field, y, 0.0, 0.5, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(end[:, 0], torch.exp(-0.5 * RATES), rtol=1e-6, atol=1e-7)


def test_nothing_to_do():
    y = torch.randn(3, 2, dtype=torch.float64)
    same = integrate(spring, y, 1.0, 1.0)
    assert torch.equal(same, y) and same is not y
    assert integrate(spring, y[:0], 0.0, 1.0).shape == (0, 2)


def test_the_start_is_not_overwritten():
    y = torch.randn(3, 2, dtype=torch.float64)
    kept = y.clone()
    integrate(spring, y, 0.0, 1.0)
    assert torch.equal(y, kept)


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "torchdiffeq.dopri5", "torchdiffeq.rk4"])
def test_round_trip(method):
    y = torch.randn(4, 2, dtype=torch.float64)
    there = integrate(spring, y, 1.0, 0.25, method=method, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(there, rotated(y, angle(1.0, 0.25)), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        integrate(spring, there, 0.25, 1.0, method=method, rtol=1e-10, atol=1e-10), y, rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("t0, t1", [(0.1, 1.0), (1.0, 0.1), (1e-5, 1.0), (1.0, 1e-5)])
def test_never_outside_the_interval(method, t0, t1, dtype):
    """sigma(t) may not exist outside [eps, T]; both ends are evaluated in float64, whatever y is."""
    field = Recorded(lambda y, t, rows: -y / (0.02 + t[:, None]).to(y.dtype))
    y = torch.ones(2, 2, dtype=dtype)
    end = integrate(field, y, t0, t1, method=method, rtol=1e-3, atol=1e-3, steps=40)
    assert min(field.times) >= min(t0, t1) and max(field.times) <= max(t0, t1)
    if method in PAIRS:  # ((0.02 + t0) / (0.02 + t1)) y
        torch.testing.assert_close(end, y * (0.02 + t0) / (0.02 + t1), rtol=0.05, atol=1e-3)


# --- many moments at once ---------------------------------------------------------------------------------------------


class Staged:
    """The stiff problem as a field that prepares all moments of a step; its times are kept, a tensor a step."""

    def __init__(self):
        self.moments, self.calls = [], 0

    def stages(self, t):
        self.moments.append(t)

        def stage(moment):
            def evaluate(y, rows):
                self.calls += 1
                return stiff(y, moment, rows)

            return evaluate

        return [stage(moment) for moment in t]

    def __call__(self, y, t, rows):
        self.calls += 1
        return stiff(y, t, rows)


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("method", PAIRS)
def test_stages_change_nothing(method, differentiable):
    """The same steps to the last bit, from as many evaluations; the moments are t + c_i h, within the interval."""
    y = torch.randn(6, 3, dtype=torch.float64)
    plain, staged = Recorded(stiff), Staged()
    settings = {"method": method, "rtol": 1e-4, "atol": 1e-4, "differentiable": differentiable}
    assert torch.equal(integrate(plain, y, 2.0, 1.95, **settings), integrate(staged, y, 2.0, 1.95, **settings))
    assert staged.calls == plain.calls
    for t in staged.moments:
        assert 1.95 <= float(t.min()) and float(t.max()) <= 2.0
    first = staged.moments[0]
    assert first.shape == (6, 6) and first.dtype == torch.float64
    c = torch.tensor(PAIRS[method].C[1:], dtype=torch.float64)
    torch.testing.assert_close((2 - first) / (2 - first[-1]), c[:, None].expand(6, 6), rtol=1e-9, atol=0)
    if differentiable:  # the second time over there is no error to be estimated
        assert len(staged.moments[-1]) == 5


# --- the gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PAIRS)
@pytest.mark.parametrize("t0, t1", [(0.0, 2.0), (2.0, 0.5)])
def test_gradient_with_respect_to_the_start(method, t0, t1):
    """The gradient of the spring is the rotation, for each sample, and the values are the solver's own."""
    y = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    settings = {"method": method, "rtol": 1e-9, "atol": 1e-9}
    end = integrate(spring, y, t0, t1, differentiable=True, **settings)
    torch.testing.assert_close(end, integrate(spring, y.detach(), t0, t1, **settings), rtol=0, atol=1e-13)
    weights = torch.randn(4, 2, dtype=torch.float64)
    (slope,) = torch.autograd.grad((weights * end).sum(), y)
    torch.testing.assert_close(slope, rotated(weights, -angle(t0, t1)), rtol=0, atol=1e-7)


def test_gradient_with_respect_to_a_weight():
    """y' = -a t y: d y(T)/da = -T^2/2 y(T), also where each sample takes steps of its own."""
    a = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    rates = torch.tensor([1.0, 20.0, 5.0], dtype=torch.float64)
    end = integrate(
        lambda y, t, rows: -(a * rates[rows] * t)[:, None] * y,
        torch.ones(3, 1, dtype=torch.float64),
        0.0,
        1.0,
        rtol=1e-9,
        atol=1e-12,
        differentiable=True,
    )
    torch.testing.assert_close(end[:, 0], torch.exp(-0.5 * 1.3 * rates), rtol=1e-6, atol=1e-9)
    for i in range(3):
        (slope,) = torch.autograd.grad(end[i, 0], a, retain_graph=True)
        assert float(slope) == pytest.approx(float(-0.5 * rates[i] * end[i, 0].detach()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("method", PAIRS)
def test_the_gradient_is_that_of_the_discrete_solution(method):
    """The steps held fixed, coarse as they are, central differences of the solution agree to their own rounding: the
    error of the solver is no error of its gradient.
    """
    a = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    y, path = torch.randn(5, 2, dtype=torch.float64, requires_grad=True), []
    dy, da, weights = torch.randn_like(y), 0.7, torch.randn_like(y)

    def field(a):
        return lambda y, t, rows: torch.sin(a * y * y.flip(1)) + (1 + rows)[:, None] * t[:, None].cos()

    with torch.no_grad():
        adaptive(PAIRS[method], field(a), y, 0.0, 3.0, 1e-3, 1e-3, rms, path=path)
    slopes = torch.autograd.grad((weights * retrace(PAIRS[method], field(a), y, path)).sum(), (y, a))
    direct = torch.autograd.grad(
        (weights * integrate(field(a), y, 0.0, 3.0, method=method, rtol=1e-3, atol=1e-3, differentiable=True)).sum(),
        (y, a),
    )
    for one, other in zip(slopes, direct, strict=True):
        assert torch.equal(one, other)

    def moved(e):
        with torch.no_grad():
            return float((weights * retrace(PAIRS[method], field(a + e * da), y + e * dy, path)).sum())

    step = 1e-5
    found = float((slopes[0] * dy).sum() + slopes[1] * da)
    near, far = ((moved(e) - moved(-e)) / (2 * e) for e in (step, 2 * step))
    assert found == pytest.approx((4 * near - far) / 3, rel=1e-7)


def test_no_gradient_leaks_between_samples():
    """Samples of the stiff problem leave the batch at different steps: dy_i(T)/dy_j = exp(-rate_i T) delta_ij."""
    y = torch.randn(6, 1, dtype=torch.float64, requires_grad=True)
    end = integrate(stiff, y, 0.0, 0.02, rtol=1e-8, atol=1e-8, differentiable=True)
    slopes = torch.stack([torch.autograd.grad(end[i, 0], y, retain_graph=True)[0][:, 0] for i in range(6)])
    torch.testing.assert_close(slopes, torch.exp(-0.02 * RATES).diag(), rtol=1e-5, atol=1e-7)


def test_gradient_over_no_interval():
    y = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    end = integrate(spring, y, 1.0, 1.0, differentiable=True)
    (slope,) = torch.autograd.grad(end.sum(), y)
    assert torch.equal(end, y) and torch.equal(slope, torch.ones_like(y))


@pytest.mark.parametrize("method", PAIRS)
def test_memory_is_a_state_a_step(method):
    """A field of 500 hidden values a sample leaves nothing behind, and a step no more than four states."""
    y = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 500, dtype=torch.float64)
    for tolerance in (1e-3, 1e-7):
        field = Recorded(lambda y, t, rows: torch.sin(y @ weight) @ weight.T / 500 + t[:, None].cos())
        kept = []
        keep = lambda each, kept=kept: kept.append(each) or each  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
            end = integrate(field, y, 0.0, 3.0, method=method, rtol=tolerance, atol=tolerance, differentiable=True)
        steps = field.calls / 13  # six and seven evaluations a step, at most
        assert max(each.numel() for each in kept) <= y.numel()
        assert sum(each.numel() for each in kept) <= 4 * y.numel() * steps
        before = field.calls
        end.sum().backward()
        assert 0.3 * before < field.calls - before < 0.6 * before  # the second pass's evaluations once more


@pytest.mark.parametrize("method", [method for method in METHODS if method not in PAIRS])
def test_the_reference_has_no_gradient(method):
    with pytest.raises(ValueError, match=rf"^method={method} has no gradient; type method=tsit5$"):
        integrate(spring, torch.zeros(1, 2), 0.0, 1.0, method=method, differentiable=True)


# --- watching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "torchdiffeq.dopri5", "torchdiffeq.rk4"])
@pytest.mark.parametrize("t0, t1", [(0.0, 2.0), (2.0, 0.5)])
def test_visit(method, t0, t1):
    y = torch.randn(5, 2, dtype=torch.float64)
    shares = [i / 10 for i in range(11)]
    visit = Visit(shares, y, 3)
    end = integrate(spring, y, t0, t1, method=method, rtol=1e-9, atol=1e-9, visit=visit)
    assert visit.states.shape == (11, 3, 2)
    for share, state in zip(shares, visit.states, strict=True):
        torch.testing.assert_close(state, rotated(y[:3], angle(t0, t0 + share * (t1 - t0))), rtol=0, atol=1e-5)
    assert torch.equal(visit.states[0], y[:3])
    torch.testing.assert_close(visit.states[-1], end[:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("t0, t1", [(1.0, 1.001), (1000.0, 1001.0), (0.99, 1.0)])
def test_visit_of_a_short_interval_far_from_zero(t0, t1):
    y = torch.randn(50, 2, dtype=torch.float64)
    visit = Visit([0.0, 1.0], y, 50)
    end = integrate(lambda y, t, rows: 1e3 * torch.sin(y + 1e3 * t[:, None]), y, t0, t1, visit=visit)
    assert torch.equal(visit.states[0], y) and not torch.equal(visit.states[1], y)
    torch.testing.assert_close(visit.states[1], end, rtol=0, atol=1e-12)


def test_visit_of_samples_that_finish_at_different_times():
    y = torch.full((6, 2), 1.5, dtype=torch.float64)
    visit = Visit([0.0, 0.5, 1.0], y, 4)
    integrate(stiff, y, 0.0, 2.0, rtol=1e-7, atol=1e-7, visit=visit)
    for share, state in zip([0.0, 0.5, 1.0], visit.states, strict=True):
        exact = math.cos(2 * share) + 0.5 * torch.exp(-2 * share * RATES[:4])[:, None].expand(4, 2)
        torch.testing.assert_close(state, exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", PAIRS)
@pytest.mark.parametrize("t0, t1", [(0.0, 2.0), (2.0, 0.5)])
def test_accepted_steps(method, t0, t1):
    """They cover each row's way once and in order, and are known within to order 4: the error falls as h^5."""
    y = torch.randn(5, 2, dtype=torch.float64)
    worst, size = [], []
    for tolerance in (1e-4, 1e-9):
        steps = []
        end, total = integrate(
            spring,
            y,
            t0,
            t1,
            method=method,
            rtol=tolerance,
            atol=tolerance,
            along=lambda step, steps=steps: steps.append(step) or step.h[:, None] * step.state(0.5),
        )
        reached, state = torch.full((5,), t0, dtype=torch.float64), y.clone()
        errors = []
        for step in steps:
            torch.testing.assert_close(step.t, reached[step.rows], rtol=0, atol=1e-12)
            assert torch.equal(step.y, state[step.rows])
            reached[step.rows], state[step.rows] = step.t + step.h, step.end
            each = torch.rand(len(step.rows), 1, dtype=torch.float64)
            for share in (0.3, 0.8, each):
                moments = step.t[:, None] + share * step.h[:, None]
                exact = torch.cat(
                    [rotated(row[None], angle(float(t), float(m))) for row, t, m in zip(step.y, step.t, moments)]
                )
                errors.append(float((step.state(share) - exact).abs().max()) if len(exact) else 0.0)
        torch.testing.assert_close(reached, torch.full_like(reached, t1), rtol=0, atol=1e-12)
        assert torch.equal(state, end)
        midpoints = torch.zeros_like(y)
        for step in steps:
            midpoints[step.rows] += step.h[:, None] * step.state(0.5)
        torch.testing.assert_close(total, midpoints, rtol=0, atol=1e-13)
        worst.append(max(errors))
        size.append(float(torch.cat([step.h for step in steps]).abs().max()))
    assert math.log(worst[0] / worst[1]) / math.log(size[0] / size[1]) > 4.5


def test_rounds_without_an_accepted_step_are_told():
    """A source of noise that is read once a round stays in step, whatever the batch mates do."""
    y, rounds = torch.full((6, 2), 1.5, dtype=torch.float64), []
    field = Recorded(stiff)
    integrate(field, y, 0.0, 2.0, rtol=1e-7, atol=1e-7, along=lambda step: rounds.append(len(step.rows)) or step.y)
    assert len(rounds) == (field.calls - 2) / 6 and min(rounds) == 0


def test_the_size_of_the_next_step():
    """h 0.84 e^(-0.6/5) e_before^(0.1/5), within [0.2, 5] h; without growth at a rejection and just after one."""
    cases = [  # the error of the trial, that of the last accepted step, whether the last trial was rejected
        (0.01, 0.9, False),
        (0.01, 0.9, True),  # accepted, but it does not grow
        (0.999, 1e-4, True),  # it shrinks
        (1e-9, 0.5, False),  # at most by 5
        (0.0, 0.5, False),
        (1.5, 0.01, False),  # rejected: the error before does not count, and is kept
        (7.0, 0.01, True),
        (1e30, 0.01, False),
        (math.nan, 0.01, False),
        (math.inf, 0.01, True),
    ]
    error, before = (torch.tensor([case[i] for case in cases], dtype=torch.float64) for i in (0, 1))
    after_rejection = torch.tensor([rejected for _, _, rejected in cases])
    rows, done, h = torch.arange(len(cases)), torch.full_like(error, 0.25), torch.linspace(0.01, 0.02, len(cases))
    start, end = torch.randn(2, len(cases), 3, dtype=torch.float64)
    slopes = [torch.randn_like(start) for _ in range(3)]
    now = Running(rows, done, start, slopes[0], 2 * h, before, after_rejection)
    trial = Trial(h, end, slopes, error, error <= 1)
    then = Adaptive(PAIRS["tsit5"], spring, 0.0, 1.0, 1e-5, 1e-5, rms, None).moved(now, trial)

    for row, (e, e_before, rejected) in enumerate(cases):
        taken = e <= 1
        if taken:
            factor = 0.84 * max(e, 1e-10) ** -0.12 * e_before**0.02
            factor = min(max(factor, 0.2), 1.0 if rejected else 5.0)
            assert torch.equal(then.y[row], end[row]) and torch.equal(then.k[row], slopes[-1][row])
            assert float(then.done[row]) == pytest.approx(0.25 + float(h[row]))
            assert float(then.previous[row]) == pytest.approx(max(e, 1e-4))
        else:
            factor = max(0.84 * e**-0.12, 0.2) if math.isfinite(e) else 0.2
            assert torch.equal(then.y[row], start[row]) and torch.equal(then.k[row], slopes[0][row])
            assert float(then.done[row]) == 0.25
            assert float(then.previous[row]) == e_before
        assert float(then.h[row]) == pytest.approx(float(h[row]) * factor, rel=1e-6)
        assert bool(then.rejected[row]) == (not taken)


def test_no_step_is_longer_than_allowed():
    y, steps = torch.randn(5, 2, dtype=torch.float64), []
    for t0, t1 in ((0.0, 2.0), (2.0, 0.0)):
        steps.clear()
        integrate(
            lambda y, t, rows: 0 * y,
            y,
            t0,
            t1,
            along=lambda step: steps.append(step) or step.y,
            longest=lambda t: 0.1 + 0.1 * t,
        )
        for step in steps:
            assert bool((step.h.abs() <= 0.1 + 0.1 * step.t + 1e-12).all())
        assert 8 <= len(steps) <= 20


def test_the_reference_shows_no_steps():
    with pytest.raises(ValueError, match=r"method=torchdiffeq.rk4 does not show its steps; type method=tsit5"):
        integrate(spring, torch.ones(1, 2), 0.0, 1.0, method="torchdiffeq.rk4", along=lambda step: step.y)


@pytest.mark.parametrize("method", PAIRS)
def test_watching_changes_nothing(method):
    y, seen = torch.randn(5, 2, dtype=torch.float64), []
    plain, watched = Recorded(spring), Recorded(spring)
    a = integrate(plain, y, 0.0, 2.0, method=method)
    b = integrate(watched, y, 0.0, 2.0, method=method, visit=Visit([0.0, 0.33, 1.0], y, 5), on_step=seen.append)
    assert torch.equal(a, b) and plain.times == watched.times
    assert seen == sorted(seen) and 0 < seen[0] and seen[-1] == 1


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tsit5", "dopri5", "torchdiffeq.dopri5", "torchdiffeq.rk4"])
def test_a_field_that_is_not_finite(method):
    def field(y, t, rows):
        return torch.where(t[:, None] > 0.5, math.nan, 1.0) * torch.ones_like(y)

    with pytest.raises(FloatingPointError):
        integrate(field, torch.zeros(3, 2, dtype=torch.float64), 0.0, 1.0, method=method)


def test_the_sample_and_the_time_are_named():
    def field(y, t, rows):
        bad = (t > 0.25) & (torch.arange(3)[rows] == 2)
        return torch.where(bad[:, None], math.nan, 1.0) * torch.ones_like(y)

    with pytest.raises(FloatingPointError, match=r"sample 2: at t=0\.2[0-9]* "):
        integrate(field, torch.zeros(3, 2, dtype=torch.float64), 0.0, 1.0)


def test_a_solution_that_blows_up():
    """y' = y^2 from 1 reaches infinity at t = 1."""
    with pytest.raises(FloatingPointError, match="t=1 no step"):
        integrate(lambda y, t, rows: y**2, torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"method": "rk45"}, "`method`=rk45.*tsit5"),
        ({"method": "rk4"}, "`method`=rk4.*torchdiffeq.rk4"),
        ({"rtol": 0.0}, "`rtol`=0.0"),
        ({"atol": 2.0}, "`atol`=2.0"),
        ({"rtol": math.nan}, "`rtol`=nan"),
        ({"steps": 0}, "`steps`=0"),
    ],
)
def test_settings_that_no_solver_takes(values, message):
    with pytest.raises(ValueError, match=message):
        integrate(spring, torch.zeros(1, 2), 0.0, 1.0, **values)
