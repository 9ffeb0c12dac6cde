"""The Gaussian chain against its own steps, composed one by one, and the parts that walk along it."""

import json
import math
from dataclasses import replace

import pytest
import torch

from scoresde.conf import assemble, identity, schema
from scoresde.data import Moons
from scoresde.models import MLP
from scoresde.models.embedding import NoiseEmbedding
from scoresde.samplers import Ancestral, PredictorCorrector, Uniform
from scoresde.sde_lib import VP, Chain, CosineBetas, Counted, InverseBetas, LinearBetas
from scoresde.training import store

from . import test_sde
from .conftest import GaussianScore, choices, compose, make, make_sampler
from .test_cli import TINY, job

SCHEDULES = choices("sde/schedule")
LENGTHS = [25, 200, 1000]


def schedule_of(name: str):
    return make("sde.schedule", "sde=chain", f"sde/schedule={name}")


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    """Every schedule that has a yaml."""
    return schedule_of(request.param)


def whole_times(chain) -> torch.Tensor:
    return torch.arange(int(chain.T) + 1, dtype=torch.float64)


# --- the schedules ----------------------------------------------------------------------------------------------------


def test_the_published_tables():
    """abar_1000 of the linear schedule is 4.036e-5, where the VP SDE's alpha(1)^2 is 4.319e-5."""
    assert float(torch.prod(1 - LinearBetas()(1000))) == pytest.approx(4.036e-5, rel=1e-4)
    assert float(VP().alpha(torch.ones(1, dtype=torch.float64)) ** 2) == pytest.approx(4.319e-5, rel=1e-4)
    betas = LinearBetas()(1000)
    assert float(betas[0]) == pytest.approx(1e-4) and float(betas[-1]) == pytest.approx(0.02)
    torch.testing.assert_close(betas.diff(), betas.diff()[:1].expand(999), rtol=1e-9, atol=0)
    shorter = LinearBetas()(200)
    assert float(shorter[0]) == pytest.approx(5e-4) and float(shorter[-1]) == pytest.approx(0.1)
    assert float(torch.prod(1 - shorter)) == pytest.approx(4.036e-5, rel=0.4)  # about as much is left of the signal


@pytest.mark.parametrize("T", LENGTHS)
def test_the_cosine_schedule(T):
    n = torch.arange(T + 1, dtype=torch.float64)
    signal = torch.cos((n / T + 0.008) / 1.008 * math.pi / 2) ** 2
    expected = (1 - signal[1:] / signal[:-1]).clamp(max=0.999)
    torch.testing.assert_close(CosineBetas()(T), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("T", LENGTHS)
def test_the_inverse_schedule_takes_equal_shares(T):
    left = torch.cumprod(1 - InverseBetas()(T), 0)
    torch.testing.assert_close(left[:-1], 1 - torch.arange(1, T, dtype=torch.float64) / T, rtol=1e-9, atol=0)
    assert float(left[-1]) == pytest.approx(0.001 / T)


# --- the chain --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", LENGTHS)
def test_its_steps_compose_to_the_closed_form(schedule, T):
    """Step after step from x_0: the factor of the mean and the variance."""
    chain = Chain(schedule, T)
    n = whole_times(chain)
    mean, variance, found = 1.0, 0.0, [(1.0, 0.0)]
    for beta in schedule(T).tolist():
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        found.append((mean, variance))
    means, variances = torch.tensor(found, dtype=torch.float64).T
    torch.testing.assert_close(chain.alpha(n), means, rtol=1e-10, atol=0)
    torch.testing.assert_close(chain.sigma(n) ** 2, variances, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("T", LENGTHS)
def test_a_transition_of_one_step_is_the_chains(schedule, T):
    chain = Chain(schedule, T)
    n, beta = whole_times(chain), schedule(T)
    a, b = chain.transition(n[:-1], n[1:])
    torch.testing.assert_close(a**2, 1 - beta, rtol=1e-9, atol=0)
    torch.testing.assert_close(b**2, beta, rtol=1e-10, atol=0)


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_ancestral_sampling_is_the_posterior(schedule, variance):
    """arXiv 2006.11239, eq. 7: the mean from x_n and the x_0 that the score denoises to, and both variances."""
    chain = Chain(schedule, 50.0)
    n = whole_times(chain)[2:]
    beta, signal = schedule(50)[1:], torch.cumprod(1 - schedule(50), 0)
    left, before = signal[1:], signal[:-1]
    A, C, N = Ancestral(variance).coefficients(chain, n, n - 1)
    x, x_0 = torch.randn(2, len(n), dtype=torch.float64)
    score = (left.sqrt() * x_0 - x) / (1 - left)
    mean = before.sqrt() * beta / (1 - left) * x_0 + (1 - beta).sqrt() * (1 - before) / (1 - left) * x
    torch.testing.assert_close(A * x + C * score, mean, rtol=1e-7, atol=1e-9)
    expected = beta if variance == "forward" else (1 - before) / (1 - left) * beta
    torch.testing.assert_close(N**2, expected, rtol=1e-9, atol=0)


def test_the_uniform_grid_walks_the_chain():
    chain = Chain()
    torch.testing.assert_close(Uniform()(chain, 999), whole_times(chain)[1:].flip(0), rtol=1e-14, atol=0)
    counted = Counted(GaussianScore(chain, 0.3, 0.6))
    make_sampler("ddpm")(chain, counted, torch.randn(4, 2), torch.randn_like)
    assert counted.calls == 1000 == chain.T


@pytest.mark.parametrize("variance", ["posterior", "forward"])
def test_either_variance_converges_to_the_data(schedule, variance):
    """The std of N(m, s^2) drawn with the exact score: its error falls as 1/T, by which the two variances differ."""
    errors = []
    for T in (100, 400):
        chain = Chain(schedule, float(T))
        sampler = PredictorCorrector(Uniform(), T - 1, Ancestral(variance), last="none")
        score, grid = GaussianScore(chain, 0.0, 0.5), Uniform()(chain, T - 1)
        v = float(score.moments(chain.T)[1])
        for A, C, N, t in zip(
            *sampler.predictor.coefficients(chain, grid[:-1], grid[1:]), grid[:-1].tolist(), strict=True
        ):
            v = float((A - C / score.moments(t)[1]) ** 2) * v + float(N) ** 2
        errors.append(abs(v / float(score.moments(chain.eps)[1]) - 1))
    assert errors[1] < 0.1 and errors[1] < 0.5 * errors[0] or errors[1] < 1e-3


@pytest.mark.parametrize("T", [20.0, 300.0])
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "linear"])
def test_other_schedules_and_lengths_are_sdes_too(name, T):
    sde = Chain(schedule_of(name), T)
    for test in (
        test_sde.test_drift_is_the_logarithmic_derivative_of_alpha,
        test_sde.test_diffusion_follows_from_the_kernel,
        test_sde.test_time_inverts_half_log_snr,
        test_sde.test_bisection_equals_the_closed_form,
        test_sde.test_moments_solve_their_ode,
        test_sde.test_transitions_compose,
    ):
        test(sde)


def test_its_rate_has_no_jumps_and_no_zeros(schedule):
    chain = Chain(schedule, 100.0)
    n = whole_times(chain)[1:-1]
    torch.testing.assert_close(chain.rate(n - 1e-9), chain.rate(n), rtol=1e-6, atol=0)
    fine = torch.linspace(0, 100, 5001, dtype=torch.float64)
    assert bool((chain.rate(fine) > 0).all())
    mean = (chain.integral(n + 1) - chain.integral(n)) / 2
    assert bool((chain.rate(n + 0.5) > mean * 0.9).all()), "and stays near the step's mean"


# --- the step embedding -----------------------------------------------------------------------------------------------


def test_the_step_embedding_is_the_published_formula():
    """frequencies exp(-log(10^4) k / (K - 1)), sines and cosines of the step, here 250 (c + 2.5)."""
    embedding = NoiseEmbedding(5, "steps", features=8).double()
    seen = []
    embedding.mix.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    step = torch.tensor([0.0, 1.0, 337.0, 999.0], dtype=torch.float64)
    embedding(step / 250 - 2.5)
    k = torch.arange(4, dtype=torch.float64)
    angle = step[:, None] * torch.exp(-math.log(10_000) / 3 * k)
    torch.testing.assert_close(seen[0], torch.cat([angle.cos(), angle.sin()], 1), rtol=0, atol=1e-4)  # float32's table


def test_the_chains_levels_lie_among_the_steps():
    chain = Chain()
    n = whole_times(chain)[1:]
    c = (chain.sigma(n) / chain.alpha(n)).log() / 4
    assert 0 < float(250 * (c.min() + 2.5)) and float(250 * (c.max() + 2.5)) < 1000


def test_older_networks_keep_their_names():
    """The key says what it says: at its default it is no part of a network's identity, else it is."""
    data = Moons(count=100, test_count=10)
    named = lambda *words: identity.identity_of(compose("data=moons", *words), data)["model"]  # noqa: E731
    assert "embedding" not in named() and named("model.embedding=steps")["embedding"] == "steps"
    assert "embedding" not in named("model=energy_mlp")["net"]
    assert named("model=energy_mlp", "model.net.embedding=steps")["net"]["embedding"] == "steps"
    weights = MLP((2,)).state_dict()
    assert {key: tuple(value.shape) for key, value in weights.items()} == {
        key: tuple(value.shape) for key, value in MLP((2,), embedding="steps").state_dict().items()
    }
    with pytest.raises(ValueError, match="`embedding`=other"):
        MLP((2,), embedding="other")


# --- from the command line --------------------------------------------------------------------------------------------


def test_one_network_as_a_chain_and_as_a_vp_sde(tmp_path):
    """Trained as DDPM, sampled by the ODE of another process."""
    words = ["experiment=ddpm", "data=moons", "data.count=500", "sde.T=50", "count=10", *TINY]
    assert job(tmp_path, *words, "sampler.steps=49")["nfe"] == 50
    (folder,) = (tmp_path / "store").iterdir()
    saved = json.dumps(store.read(folder)[0])
    assert "sde_lib.Chain" in saved and "LinearBetas" in saved
    metrics = job(tmp_path, *words, f"checkpoint={folder}", "sde=vp", "sde.T=1", "sampler=ode", "sampler.rtol=1e-2")
    assert metrics["count"] == 10 and len(list((tmp_path / "store").iterdir())) == 1


def test_equal_steps_have_one_rate():
    """At and between the whole times and at both ends: that of the VP SDE which takes as much away in as long."""
    chain = Chain(LinearBetas(0.03, 0.03), T=1000.0)
    t, rate = torch.linspace(0, 1000, 4001, dtype=torch.float64), -math.log1p(-0.03)
    torch.testing.assert_close(chain.g(t).square(), torch.full_like(t, rate), rtol=1e-12, atol=0)
    torch.testing.assert_close(chain.alpha(t), torch.exp(-0.5 * rate * t), rtol=1e-12, atol=0)


def test_the_rate_between_two_steps_is_between_theirs():
    """At a whole time it is their harmonic mean, at both ends a parabola's, and nowhere near 0."""
    chain = Chain(LinearBetas(1e-4, 0.02), T=1000.0)
    steps = -torch.log1p(-chain.betas)
    rate = chain.g(torch.arange(1, 1000, dtype=torch.float64)).square()
    torch.testing.assert_close(rate, 2 / (1 / steps[:-1] + 1 / steps[1:]), rtol=1e-12, atol=0)
    ends = chain.g(torch.tensor([0.0, 1000.0], dtype=torch.float64)).square()
    torch.testing.assert_close(ends, (3 * steps[[0, -1]] - steps[[1, -2]]) / 2, rtol=1e-10, atol=0)
    assert bool((chain.g(torch.linspace(0, 1000, 20_001, dtype=torch.float64)).square() > 0.5 * steps[0]).all())


@pytest.mark.parametrize("sde, count", [("chain", 40), ("vp", 1000), ("edm", 1000)])
def test_the_levels_of_a_chain_are_its_own(sde, count):
    """Each of its T steps, as often as the others; those of an SDE in continuous time are 1,000."""
    data = schema.build(compose("data=moons", "data.count=50")["data"], "data")
    words = ["data=moons", f"sde={sde}", "training/loss=simple", *(["sde.T=40"] if sde == "chain" else [])]
    cfg = assemble.settle(compose(*words), data, "cpu")
    assert cfg["training"]["loss"]["levels"]["count"] == count
    if sde == "chain":
        levels, chain = schema.build(cfg["training"]["loss"]["levels"], "levels"), schema.build(cfg["sde"], "sde")
        unit = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
        assert sorted(levels.times(chain, unit).tolist()) == pytest.approx([n for n in range(1, 41) for _ in range(10)])


@pytest.mark.parametrize(
    "values, key",
    [
        ({"T": 1.0}, "^`T`=1.0"),
        ({"T": 100.5}, "^`T`=100.5"),
        ({"T": 5.0}, "^`T`=5: step 2"),
        ({"eps": 0.0}, "^`eps`=0.0"),
        ({"eps": 1000.0}, "^`eps`=1000.0"),
    ],
)
def test_bad_chains_name_the_key(values, key):
    with pytest.raises(ValueError, match=key):
        replace(Chain(), **values)
