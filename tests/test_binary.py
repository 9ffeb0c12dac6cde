"""The binomial chain on three bits, whose distributions are all computed exactly: 8 states, and 8 x 8 matrices for
its steps.
"""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from scoresde import figures
from scoresde.data import Heartbeat
from scoresde.likelihood import BinaryBound
from scoresde.models import MLP, Bits, ScoreModel
from scoresde.samplers import Film, binary_ancestral
from scoresde.sde_lib import BinaryChain, BlockNoise, CosineBetas, InverseBetas, LinearBetas
from scoresde.training import BinaryLoss

from .test_cli import job

STATES = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
LAW = torch.tensor([0.3, 0.0, 0.05, 0.25, 0.0, 0.1, 0.0, 0.3], dtype=torch.float64)
SCHEDULES = [InverseBetas(), CosineBetas(), LinearBetas()]


def at(n: int, count: int) -> torch.Tensor:
    return torch.full((count,), float(n), dtype=torch.float64)


def forward_matrix(beta: float) -> torch.Tensor:
    """P(x_n = column | x_{n-1} = row) of one step, from its description: each bit is kept, or with beta tossed anew."""
    same = (STATES[:, None] == STATES[None]).double()
    return (same * (1 - beta / 2) + (1 - same) * beta / 2).prod(-1)


def marginals(chain) -> list[torch.Tensor]:
    """Returns P(x_n | x_0), n = 0 ... T, by multiplying the steps."""
    found = [torch.eye(8, dtype=torch.float64)]
    for beta in chain.betas.tolist():
        found.append(found[-1] @ forward_matrix(beta))
    return found


def exact_belief(chain):
    """Returns the log-odds of each bit of x_0 given x_n, by Bayes' rule over all states."""
    table = marginals(chain)

    def logits(x, n):
        row = ((x.double()[:, None] == STATES).all(-1)).double().argmax(1)
        joint = torch.stack([LAW * table[int(m)][:, r] for m, r in zip(n, row, strict=True)])
        up = (joint / joint.sum(1, keepdim=True)) @ (STATES > 0).double()
        return (up.log() - (1 - up).log()).clamp(-700, 700).to(x)

    return logits


def flawed_belief(x, n):
    """Stands in for a network: smooth, wrong, and different for every bit and step."""
    return torch.cumsum(x, 1) * 0.4 - 0.3 + 0.05 * n[:, None]


def reverse_matrix(chain, logits, n: int) -> torch.Tensor:
    """p(x_{n-1} = column | x_n = row), from the class."""
    up = chain.log_reverse(at(n - 1, 8), at(n, 8), STATES, logits(STATES, at(n, 8)))[0].exp()
    return torch.where(STATES[None] > 0, up[:, None], 1 - up[:, None]).prod(-1)


# --- the kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
def test_its_steps_compose_to_the_closed_form(schedule):
    chain = BinaryChain(schedule, 24.0)
    for n, table in enumerate(marginals(chain)):
        k = chain.alpha(at(n, 1))
        torch.testing.assert_close(
            table, (0.5 * (1 + k * STATES[:, None] * STATES[None])).prod(-1), rtol=1e-10, atol=1e-14
        )
        assert float(chain.alpha(at(n, 1)) ** 2 + chain.sigma(at(n, 1)) ** 2) == pytest.approx(1)


def test_the_posterior_is_bayes_rule():
    """The posterior is q(x_m | x_0) q(x_n | x_m) / q(x_n | x_0) for any m < n, bit by bit."""
    chain, one = BinaryChain(CosineBetas(), 12.0), torch.ones(1, 1, dtype=torch.float64)
    for m, n in itertools.combinations(range(13), 2):
        k_m, k_n = float(chain.alpha(at(m, 1))), float(chain.alpha(at(n, 1)))
        for x_0, x_n in itertools.product((-1.0, 1.0), repeat=2):
            weights = [(1 + k_m * x_0 * x_m) * (1 + k_n / k_m * x_m * x_n) for x_m in (1.0, -1.0)]
            found = chain.log_posterior(at(m, 1), at(n, 1), x_0 * one, x_n * one)
            assert float(found[0].exp()) == pytest.approx(weights[0] / sum(weights), abs=1e-12)
            assert float(found[1].exp()) == pytest.approx(weights[1] / sum(weights), abs=1e-12)


def test_the_reverse_step_is_a_mean_over_what_is_believed():
    chain, x = BinaryChain(T=10.0), STATES
    for m, n in ((0, 1), (3, 4), (2, 9)):
        logits = flawed_belief(x, at(n, 8))
        expected = sum(
            torch.sigmoid(bit * logits) * chain.log_posterior(at(m, 8), at(n, 8), bit * torch.ones_like(x), x)[0].exp()
            for bit in (1.0, -1.0)
        )
        up, down = chain.log_reverse(at(m, 8), at(n, 8), x, logits)
        torch.testing.assert_close(up.exp(), expected, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(up.exp() + down.exp(), torch.ones_like(x), rtol=1e-12, atol=0)
        torch.testing.assert_close(chain.reverse(at(m, 8), at(n, 8), x, logits), expected, rtol=1e-10, atol=1e-14)


def test_the_divergence_is_that_of_bernoullis():
    chain, x_0 = BinaryChain(T=10.0), STATES
    x_n = STATES.flip(0).roll(1, 1)
    for m, n in ((1, 2), (6, 10)):
        logits = flawed_belief(x_n, at(n, 8))
        q = Bernoulli(chain.log_posterior(at(m, 8), at(n, 8), x_0, x_n)[0].exp())
        p = Bernoulli(chain.log_reverse(at(m, 8), at(n, 8), x_n, logits)[0].exp())
        torch.testing.assert_close(
            chain.kl(at(m, 8), at(n, 8), x_0, x_n, logits), kl_divergence(q, p).sum(1), rtol=1e-9, atol=1e-12
        )
    first = chain.kl(at(0, 8), at(1, 8), x_0, x_n, flawed_belief(x_n, at(1, 8)))
    torch.testing.assert_close(first, torch.nn.functional.softplus(-x_0 * flawed_belief(x_n, at(1, 8))).sum(1))
    coins = Bernoulli(torch.tensor(0.5, dtype=torch.float64))
    prior = kl_divergence(Bernoulli(0.5 * (1 + chain.alpha(at(10, 1)) * STATES)), coins).sum(1)
    torch.testing.assert_close(chain.prior_kl(STATES), prior, rtol=1e-6, atol=1e-15)


def test_the_tosses_have_their_probabilities():
    chain, x = BinaryChain(T=10.0), STATES.repeat(4000, 1)
    x_n = chain.perturb(x, at(7, len(x)), torch.randn_like(x))
    stays = 0.5 * (1 + float(chain.alpha(at(7, 1))))
    assert float((x_n == x).double().mean()) == pytest.approx(stays, abs=4 * 0.5 / math.sqrt(x.numel()))


# --- the bound --------------------------------------------------------------------------------------------------------


def whole_bound(chain, logits) -> torch.Tensor:
    """The evidence lower bound of every state (8,): all expectations as sums over states, q from the matrices alone."""
    table = marginals(chain)
    total = torch.zeros(8, dtype=torch.float64)
    for n in range(1, int(chain.T) + 1):
        step, back = forward_matrix(float(chain.betas[n - 1])), reverse_matrix(chain, logits, n)
        joint = table[n - 1][:, :, None] * step[None]  # x_0, x_{n-1}, x_n
        total += (joint * (back.T[None].log() - step[None].log())).nan_to_num(0.0, neginf=0.0).sum((1, 2))
    return total + math.log(1 / 8)


def bounds(chain, logits, repeats: int = 400, **keys):
    x = STATES.repeat(repeats, 1)
    found = BinaryBound(**keys)(chain, logits, x)
    return found, found.model_log_prob.reshape(repeats, 8)


@pytest.mark.parametrize("terms", [None, 6])
def test_it_is_the_evidence_lower_bound(terms):
    chain = BinaryChain(T=8.0)
    found, log_prob = bounds(chain, flawed_belief, terms=terms)
    error = log_prob.std(0) / math.sqrt(len(log_prob))
    assert bool(((log_prob.mean(0) - whole_bound(chain, flawed_belief)).abs() < 4 * error + 1e-9).all())
    torch.testing.assert_close(found.prior + found.diffusion + found.reconstruction, -found.model_log_prob)
    assert found.nfe == (9 if terms is None else 8)


@pytest.mark.parametrize("T, terms", [(6.0, None), (2.0, 2), (8.0, 6)])
def test_its_error_bars_are_true(T, terms):
    """The error bars of one row include the noise of L_0, which is most of it where steps are few. (The spread over all
    terms, one draw each, would be too large: all terms but one differ without noise too.)
    """
    found, log_prob = bounds(BinaryChain(T=T), flawed_belief, 4000, terms=terms)
    claimed, real = float(found.stderr.square().mean()), float(log_prob.var(0).mean())
    assert float(found.reconstruction.reshape(4000, 8).var(0).mean()) > 0.1 * real
    assert (0.9 if terms else 0.0) * claimed < real < 1.1 * claimed


def test_a_belief_that_is_not_finite_names_its_own_step():
    """Not that of the batch's first row, which is at step 2 where the second is at step 3."""
    x, normals = torch.ones(2, 1, dtype=torch.float64), torch.tensor([[-1.3], [1.3]], dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="at step 3$"):
        BinaryBound(terms=2)(
            BinaryChain(T=3.0), lambda x, n: 0 * x + torch.where(n[:, None] == 3, math.nan, 0.0), x, lambda x: normals
        )


def test_with_the_exact_belief_it_closes_on_the_exact_law():
    """The bound is never below the entropy, and its gap halves when the steps double."""
    entropy, gaps = float(-torch.special.xlogy(LAW, LAW).sum()), []
    for T in (8, 16, 32):
        chain = BinaryChain(T=float(T))
        gaps.append(float(-(LAW * whole_bound(chain, exact_belief(chain))).sum()) - entropy)
    assert 0 < gaps[2] < 0.6 * gaps[1] < 0.36 * gaps[0], gaps


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("belief", [flawed_belief, None], ids=["flawed", "exact"])
def test_samples_have_the_chains_law(belief):
    """That of the matrices p(x_{n-1} | x_n) multiplied, from fair coins: by the chi-square statistic of 8 states."""
    chain, count = BinaryChain(T=6.0), 20_000
    belief = belief or exact_belief(chain)
    law = torch.full((8,), 1 / 8, dtype=torch.float64)
    for n in range(6, 0, -1):
        law = law @ reverse_matrix(chain, belief, n)
    film = Film(rows=2, frames=4)
    small = count if belief is flawed_belief else 2000
    x = binary_ancestral(chain, belief, torch.randn(small, 3, dtype=torch.float64), torch.randn_like, film=film)
    seen = (x[:, None] == STATES).all(-1).double().sum(0)
    keep = law * small > 1
    chi2 = ((seen - small * law).square() / (small * law))[keep].sum()
    assert float(chi2) < 7 + 4 * math.sqrt(14)
    assert film.times == [6.0, 4.0, 2.0, 0.0] and all(state.shape == (2, 3) for state in film.states)


def test_samples_do_not_depend_on_the_batch():
    chain, found = BinaryChain(T=5.0), []
    for size in (100, 9):
        parts = []
        for first in range(0, 100, size):
            count = min(size, 100 - first)
            start, noise = (
                BlockNoise(0, first, count, (3,), torch.float64, "cpu", name) for name in ("prior", "steps")
            )
            parts.append(binary_ancestral(chain, flawed_belief, start(), noise))
        found.append(torch.cat(parts))
    assert torch.equal(*found)


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_networks_skip_is_what_the_bit_says_of_itself():
    """A network that says 0 believes the noisy bit as far as it can be believed: P(x_0 = x_n) = (1 + k_n)/2."""
    chain = BinaryChain(T=10.0)
    model = ScoreModel(chain, MLP((3,)), Bits()).double()  # it starts at zero
    for n in (1, 4, 10):
        agrees = torch.sigmoid(STATES * model(STATES, at(n, 8)))
        torch.testing.assert_close(
            agrees, 0.5 * (1 + chain.alpha(at(n, 8)))[:, None].expand(8, 3), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("weighting", ["bound", "bits"])
def test_the_loss_is_the_bound_or_the_cross_entropy(weighting):
    chain, x = BinaryChain(T=6.0), STATES.repeat(3000, 1).float()
    found = BinaryLoss(weighting)(chain, flawed_belief, 0.5 * x).double()  # the units do not matter
    error = float(found.std()) / math.sqrt(len(found))
    if weighting == "bound":
        exact = -float(whole_bound(chain, flawed_belief).mean() + chain.prior_kl(STATES).mean()) / 3
    else:
        table, exact = marginals(chain), 0.0
        for n in range(1, 7):
            each = torch.nn.functional.softplus(-STATES[:, None] * flawed_belief(STATES, at(n, 8))[None]).mean(-1)
            exact += float((table[n] * each).sum()) / 8 / 6
    assert abs(float(found.mean()) - exact) < 4 * error


def test_the_exact_belief_has_the_least_loss():
    """The loss has mean gradient zero there: no scale and no shift of the log-odds improves either loss."""
    chain = BinaryChain(T=5.0)
    exact = exact_belief(chain)
    x = STATES[torch.multinomial(LAW, 3000, replacement=True)]
    for weighting in ("bound", "bits"):
        change = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        torch.manual_seed(1)
        value = BinaryLoss(weighting)(chain, lambda x, n, c=change: c[0] * exact(x, n).clamp(-30, 30) + c[1], x).mean()
        (gradient,) = torch.autograd.grad(value, change)
        assert float(gradient.abs().max()) < 0.05 and bool(gradient.isfinite().all())


# --- the data and the experiment --------------------------------------------------------------------------------------


def test_heartbeats():
    data = Heartbeat(length=13, period=4, count=500, test_count=50, seed=1)
    assert data.shape == (13,) and data.levels == 2 and data.train.dtype == torch.uint8
    pulses = data.train.double().cumsum(1)
    assert bool((data.train[:, 4:] == data.train[:, :-4]).all()) and bool((data.train[:, :4].sum(1) == 1).all())
    assert pulses[:, -1].min() >= 3
    assert torch.equal(data.true_log_prob(data.test), torch.full((50,), -math.log(4), dtype=torch.float64))
    assert torch.equal(data.true_log_prob(1 - data.test), torch.full((50,), -math.inf, dtype=torch.float64))
    assert torch.equal(data.true_log_prob(data.test + 0.7), data.true_log_prob(data.test)), "the density of the bin"
    shares = torch.bincount(data.train[:, :4].argmax(1), minlength=4) / 500
    assert bool((shares - 0.25).abs().max() < 0.1)
    same = Heartbeat(length=13, period=4, count=500, test_count=90, seed=1)
    assert torch.equal(same.train, data.train) and torch.equal(same.test[:50], data.test)


def test_the_experiment_learns_its_beats(tmp_path, monkeypatch):
    """A short one: nearly all rows are heartbeats, and the bound is near log2 of the period. Trained once."""
    drawn, draw = [], figures.bound_terms

    def keep(terms, *others, **keys):
        drawn.append(terms)
        return draw(terms, *others, **keys)

    monkeypatch.setattr(figures, "bound_terms", keep)
    words = ["experiment=heartbeat", "data.length=6", "data.period=3", "sde.T=40", "count=300", "data.count=500"]
    words += [
        "training.steps=400",
        "training.batch=256",
        "training.rate=1e-2",
        "training.evaluate=2",
        "model.width=64",
        "model.fourier=0",
    ]
    metrics = job(tmp_path, *words)
    assert metrics["floor_bits"] == pytest.approx(math.log2(3)) and metrics["valid_share"] > 0.9
    assert -4 * metrics["gap_stderr"] < metrics["gap_bits"] < 0.5
    assert metrics["bound_bits"] == pytest.approx(
        metrics["prior_bits"] + metrics["diffusion_bits"] + metrics["reconstruction_bits"]
    )
    assert sorted(path.name for path in (tmp_path / "run").glob("*.png")) == ["bits.png", "bound.png"]
    ends = float(drawn[0][0]), float(drawn[0][-1])
    assert ends == pytest.approx((metrics["reconstruction_bits"], metrics["prior_bits"])), "L_0 first, L_T last"
    x = np.load(tmp_path / "run" / "samples.npz")["x"]
    assert x.shape == (300, 6) and set(np.unique(x)) == {0, 1}
    stamp = next((tmp_path / "store").rglob("ema.safetensors")).stat().st_mtime_ns
    np.save(tmp_path / "rows.npy", np.array([[1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=np.uint8))
    again = job(tmp_path, *words, f"points={tmp_path}/rows.npy", "task.batch=70", "task.bound.terms=10")
    assert next((tmp_path / "store").rglob("ema.safetensors")).stat().st_mtime_ns == stamp
    assert again["valid_share"] == metrics["valid_share"], "the samples do not depend on the batch"
    scored = np.load(tmp_path / "run" / "bound.npz")["log_prob"]
    assert scored[0] > scored[1] + 2, "a row that is no heartbeat is less likely"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["count"] == 300
