"""The exact effect of a temperature on a Gaussian, under every sampler, and its effect on modes."""

import json
import math

import numpy as np
import pytest
import torch

from scoresde.cli import run
from scoresde.models import Oracle
from scoresde.samplers import TemperedNoise, TemperedScore
from scoresde.sde_lib import VE, BlockNoise, Counted
from scoresde.tasks import Sample

from .conftest import SAMPLERS, SDES, GaussianScore, compose, make_sampler, make_sde
from .test_cli import CHOICES

TAU, S = 0.6, 0.7
LOOSE = ("adaptive",)  # its step sizes are its errors', and errors shrink with the noise


def draw(sampler, sde, score, tempering, shape=(2,), count=40) -> torch.Tensor:
    return Sample(sampler, tempering, batch=64, dtype="float64").drawing.draw(sde, score, shape, count)


@pytest.mark.parametrize("name", SAMPLERS)
def test_on_a_gaussian_tempered_noise_is_samples_times_the_temperature(name):
    """N(0, s^2): every solver with fixed steps is linear in its noise."""
    sde, sampler = make_sde("vp"), make_sampler(name, steps=12, rtol=1e-8, atol=1e-8)
    if name in LOOSE:
        sampler = make_sampler(name, rtol=1e-3, atol=1e-3)
    plain, tempered = (draw(sampler, sde, GaussianScore(sde, 0, S), TemperedNoise(tau)) for tau in (1.0, TAU))
    if name in LOOSE:
        assert float(tempered.std() / plain.std()) == pytest.approx(TAU, abs=0.2)
    else:
        torch.testing.assert_close(tempered, TAU * plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_tempered_score_of_a_gaussian_is_that_of_the_narrower_one(name):
    """N(m, s^2) to N(m, (tau s)^2): the same samples as from the other's own exact score, whatever the sampler."""
    sde, sampler = make_sde("ve"), make_sampler(name, steps=12)
    score, narrower = GaussianScore(sde, 0.4, S), GaussianScore(sde, 0.4, TAU * S)
    tempered = draw(sampler, sde, score, TemperedScore(TAU, sigma_data=S), (1, 3, 2))
    torch.testing.assert_close(
        tempered, draw(sampler, sde, narrower, TemperedNoise(1.0), (1, 3, 2)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("tempering", [TemperedNoise(TAU), TemperedScore(TAU, sigma_data=S)])
def test_the_std_of_the_flows_samples_in_closed_form(name, tempering):
    """x_eps = alpha_eps m + (v_eps/v_T)^(1/2) (x_T - alpha_T m), v = alpha^2 s_0^2 + sigma^2, s_0 the score's width."""
    sde, sampler = make_sde(name), make_sampler("ode", rtol=1e-9, atol=1e-9, last="none")
    score, T, eps = GaussianScore(sde, 0.3, S), *(torch.tensor(t, dtype=torch.float64) for t in (sde.T, sde.eps))
    width = S if isinstance(tempering, TemperedNoise) else TAU * S
    scale = {t: math.hypot(sde.alpha(t) * width, sde.sigma(t)) for t in (T, eps)}
    noise = BlockNoise(0, 0, 40, (2,), torch.float64, stream="prior")() * sde.prior_std * tempering.noise
    expected = sde.alpha(eps) * 0.3 + scale[eps] / scale[T] * (noise - sde.alpha(T) * 0.3)
    torch.testing.assert_close(draw(sampler, sde, score, tempering), expected, rtol=1e-6, atol=1e-6)
    spread = TAU * S * float(noise.std()) / sde.prior_std / tempering.noise
    assert float(draw(sampler, sde, score, tempering).std()) == pytest.approx(spread, rel=0.03), "tau s, but for eps"


def test_temperature_1_changes_no_bit():
    sde = make_sde("ve")
    score, sampler = Counted(GaussianScore(sde, 0.2, S)), make_sampler("pc", steps=5)
    start, noise = (BlockNoise(0, 0, 40, (2,), torch.float64, stream=stream) for stream in ("prior", "sampler"))
    bare = sampler(sde, score, start() * sde.prior_std, noise)
    for tempering in (TemperedNoise(), TemperedScore()):
        assert tempering.score(sde, score) is score and tempering.randn_like(noise) is noise
        assert torch.equal(draw(sampler, sde, score, tempering), bare)


@pytest.mark.parametrize("T", [0.5, 0.8])
def test_a_score_divided_by_T_is_neither_density(T):
    """It gives a variance s^2 T/(2 - T) by the reverse SDE, and by the flow a std that depends on sigma(T), as the
    module's text says.
    """
    sde = VE(sigma_max=50.0)
    exact = GaussianScore(sde, 0.0, S)

    def divided(x, t):
        return exact(x, t) / T

    x = draw(make_sampler("em", steps=1000, last="none"), sde, divided, TemperedNoise(1.0), (50,), 200)
    variance = float(x.square().mean())
    assert variance == pytest.approx(S**2 * T / (2 - T), rel=0.05) and abs(variance / (S**2 * T) - 1) > 0.1
    flow = draw(make_sampler("ode", rtol=1e-7, atol=1e-7, last="none"), sde, divided, TemperedNoise(1.0), (50,), 400)
    assert float(flow.std()) == pytest.approx(50 * (S / 50) ** (1 / T), rel=0.05)


@pytest.mark.parametrize("sampler", ["ode", "sea"])
def test_a_tempered_score_narrows_modes_and_keeps_their_weights(sampler):
    """Two modes 40 stds apart, of weights 0.7 and 0.3: tau times as wide, as heavy as before."""
    sde, components = (
        make_sde("vp"),
        (torch.tensor([0.7, 0.3]), torch.tensor([[-1.0, 0], [1.0, 0]]), torch.full((2,), 0.05)),
    )
    keys = {"steps": 100, "rtol": 1e-4, "atol": 1e-4}
    x = draw(
        make_sampler(sampler, last="none", **keys),
        sde,
        Oracle(sde, components).double(),
        TemperedScore(0.5, 0.05),
        count=1500,
    )
    left = x[:, 0] < 0
    assert float(left.double().mean()) == pytest.approx(0.7, abs=0.045)
    width = math.hypot(0.025, sde.sigma(torch.tensor(sde.eps)))  # at eps
    assert float((x[left] - components[1][0]).square().mean().sqrt()) == pytest.approx(width, rel=0.1)


def test_the_factor_goes_with_every_short_cut():
    """affine, combinations and the reading under another SDE are the same function."""
    from scoresde.sde_lib import affine, combinations, expand_to_batch, under

    sde, other, x = make_sde("vp"), make_sde("ve"), torch.randn(5, 2, 3, dtype=torch.float64)
    exact, tempering = GaussianScore(sde, 0.2, S), TemperedScore(TAU, sigma_data=S)
    score, truth = tempering.score(sde, exact), GaussianScore(sde, 0.2, TAU * S)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    torch.testing.assert_close(score(x, t), truth(x, t))
    for time in (0.4, 0.5):
        mine = affine(score, [0.4])(x, time, 0.3, -2.0)
        torch.testing.assert_close(mine, 0.3 * x - 2 * truth(x, expand_to_batch(time, x)))
    (mine,) = combinations(score, t[None], 0 * t[None] + 0.3, 0 * t[None] - 2, torch.float64)
    torch.testing.assert_close(mine(x), 0.3 * x - 2 * truth(x, t))
    torch.testing.assert_close(under(sde, score, other)(x, t), GaussianScore(other, 0.2, TAU * S)(x, t))


def test_of_the_command_line(tmp_path):
    words = ["data=mixture", "model=oracle", "sampler=ode", "count=200", "data.count=2000", "data.test_count=200"]
    x = {}
    for name, more in {
        "plain": [],
        "one": ["task.tempering.temperature=1.0"],
        "noise": ["task.tempering.temperature=0.5"],
        "score": ["task/tempering=score", "task.tempering.temperature=0.5"],
    }.items():
        run(compose(*words, *more), CHOICES, tmp_path / name)
        x[name] = np.load(tmp_path / name / "samples.npz")["x"]
        assert json.loads((tmp_path / name / "metrics.json").read_text())["count"] == 200
    assert np.array_equal(x["plain"], x["one"])
    assert x["noise"].std() < 0.9 * x["plain"].std() and not np.allclose(x["score"], x["noise"])
    with pytest.raises(ValueError, match="task.tempering.temperature=0.0 must be positive"):
        run(compose(*words, "task.tempering.temperature=0"), CHOICES, tmp_path / "bad")


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_and_widths_are_positive_and_finite(value):
    for build in (TemperedNoise, TemperedScore):
        with pytest.raises(ValueError, match=f"^`temperature`={value} must be positive and finite; type"):
            build(value)
    with pytest.raises(ValueError, match=f"^`sigma_data`={value} must be positive and finite; type `sigma_data`=auto"):
        TemperedScore(0.5, value)
