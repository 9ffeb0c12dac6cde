"""The samplers on laws that are neither smooth, symmetric nor isotropic: rotated full covariances, ridges, weights of
0.97 and 0.03, narrow components, heavy tails, odd widths. Orders of convergence, and 20,000 draws at default settings.
"""

import math
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from scoresde.samplers import PredictorCorrector, ProbabilityFlow

from .conftest import SAMPLERS, in_turn, make, make_sampler, make_sde
from .test_samplers import AS_PUBLISHED

COUNT = 20_000


def double(values) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


class Full:
    """The exact score of sum_k w_k N(mu_k, U_k diag(s_k^2) U_k^T) under any SDE, written from the definition.

    Arguments:
        weights, means, stds, axes: shapes (K,), (K, D), (K, D) and (K, D, D), the axes U_k orthonormal.
    """

    def __init__(self, sde, weights: Tensor, means: Tensor, stds: Tensor, axes: Tensor):
        self.sde, self.parts = sde, (weights, means, stds, axes)
        self.known = {}

    def under(self, sde, other) -> "Full":
        return Full(other, *self.parts)

    def terms(self, x: Tensor, alpha: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(w_k N_k(x)) up to a constant, (K, B); (x - alpha mu_k) U_k over the variances along the axes, (K, B, D);
        the axes. alpha and variance are (B,).
        """
        if x.dtype not in self.known:
            weights, means, stds, axes = (part.to(x.dtype) for part in self.parts)
            self.known[x.dtype] = weights.log()[:, None], (means[:, None] @ axes), stds.square()[:, None], axes
        logs, means, variances, axes = self.known[x.dtype]
        spread = alpha.square()[:, None] * variances + variance[:, None]
        along = x @ axes - alpha[:, None] * means
        pull = along / spread
        return logs - 0.5 * (along * pull + spread.log()).sum(2), pull, axes

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        first = t[:1] if t.stride(0) == 0 else t  # one time for the whole batch
        alpha, sigma = (value.to(x.dtype) for value in (self.sde.alpha(first), self.sde.sigma(first)))
        logs, pull, axes = self.terms(x, alpha, sigma.square())
        return -((torch.softmax(logs, 0)[..., None] * pull) @ axes.mT).sum(0)

    def draw(self, count: int) -> Tensor:
        """Exact draws of p_0, (count, D)."""
        weights, means, stds, axes = self.parts
        k = torch.multinomial(weights, count, replacement=True)
        z = torch.randn(count, means.shape[1], dtype=torch.float64) * stds[k]
        return means[k] + (axes[k] @ z[..., None])[..., 0]

    def start(self, count: int) -> Tensor:
        """Exact draws of p_T."""
        x = self.draw(count)
        return self.sde.perturb(x, double([self.sde.T]).expand(count), torch.randn_like(x))

    def pulls(self, x: Tensor) -> dict[str, float]:
        """The shares, means and variances of all components along their axes, each less its exact value and over its
        own standard error. A sample counts for a component by the exact probability p(k | x), so that overlap is no
        bias: E[p(k | x) f(x)] = w_k E_k[f].
        """
        x, (weights, means, stds, axes) = x.double(), self.parts
        one = torch.ones(len(x), dtype=torch.float64)
        share = torch.softmax(self.terms(x, one, 0 * one)[0], 0).T
        found = {}
        for k, (w, m, s, U) in enumerate(zip(weights, means, stds, axes, strict=True)):
            along, mine = (x - m) @ U / s, share[:, k : k + 1]
            for what, values in (
                ("share", mine - w),
                ("mean", mine * along),
                ("variance", mine * (along.square() - 1)),
            ):
                pulls = values.mean(0) / (values.std(0) / math.sqrt(len(x)))
                found |= {f"{what} of {k} along {j}": pull for j, pull in enumerate(pulls.tolist())}
        return found


def rotation(dim: int, seed: int) -> Tensor:
    """An orthonormal matrix with no axis along a coordinate."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))[0]


def two(weights: list[float], means: list[list[float]], stds: list[list[float]]) -> tuple[Tensor, ...]:
    dim = len(means[0])
    return double(weights), double(means), double(stds), torch.stack([rotation(dim, k) for k in range(len(weights))])


PROBLEMS = {
    "line": two([0.03, 0.97], [[-1.6], [0.2]], [[0.05], [0.5]]),
    "ridge": two([0.97, 0.03], [[0.1, -0.1], [-1.6, 1.7]], [[1.0, 0.04], [0.04, 0.08]]),
    "odd": two([0.7, 0.3], [[0.4, 0.0, -0.3], [-1.0, 0.8, 0.9]], [[0.8, 0.2, 0.05], [0.05, 0.3, 0.3]]),
    "wide": two([0.9, 0.1], [[0.1] * 7, [-1.5] * 7], [[1.2, 0.9, 0.7, 0.5, 0.3, 0.1, 0.05], [0.1] * 7]),
    # Student's t with 3 degrees of freedom as five of its Gaussians: kurtosis 12, along axes of std 1, 0.3 and 0.1
    "tails": two([0.2] * 5, [[0.0] * 3] * 5, [[c, 0.3 * c, 0.1 * c] for c in (0.66, 0.86, 1.13, 1.62, 3.2)]),
}
PROBLEMS["tails"] = (*PROBLEMS["tails"][:3], PROBLEMS["tails"][3][:1].expand(5, 3, 3))


def test_the_oracle_is_the_gradient_of_its_density():
    """By autograd, and by draws: the battery's own statistics have pulls of size one on exact draws."""
    for name, parts in PROBLEMS.items():
        problem = Full(make_sde("vp"), *parts)
        x, t = problem.start(5).requires_grad_(), double([0.01, 0.1, 0.3, 0.6, 1.0])
        alpha, sigma = problem.sde.alpha(t), problem.sde.sigma(t)
        density = torch.zeros(5, dtype=torch.float64)
        for w, m, s, U in zip(*parts, strict=True):
            C = (alpha**2)[:, None, None] * (U * s**2) @ U.T + (sigma**2)[:, None, None] * torch.eye(len(m))
            law = torch.distributions.MultivariateNormal(alpha[:, None] * m, C)
            density = density + w * law.log_prob(x).exp()
        expected = torch.autograd.grad(density.log().sum(), x)[0]
        torch.testing.assert_close(problem(x.detach(), t), expected, rtol=1e-6, atol=1e-6)
        pulls = problem.pulls(problem.draw(COUNT))
        assert max(map(abs, pulls.values())) < 4, name


# --- orders of convergence --------------------------------------------------------------------------------------------


@cache
def flow(name: str, problem: str) -> tuple[Full, Tensor, Tensor]:
    """A problem under an SDE, 64 draws of p_T, and where the probability flow takes them."""
    torch.manual_seed(0)
    score = Full(make_sde(name), *PROBLEMS[problem])
    x = score.start(64)
    exact = ProbabilityFlow(rtol=1e-10, atol=1e-10, last="none")(score.sde, score, x, torch.randn_like)
    return score, x, exact


@pytest.mark.parametrize(
    "case, name, problem",
    in_turn(
        [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 3), ("deis", 3), ("adams_bashforth", 3), ("unipc", 4)],
        ["ve", "vp", "subvp", "edm"],
        [*PROBLEMS],
    ),
    ids=str,
)
def test_orders(case, name, problem):
    """The median distance to the flow's own ends, by step halving; a sample on a ridge between modes may fall to either
    side.
    """
    solver, order = case
    score, x, exact = flow(name, problem)
    errors = []
    for steps in (160, 320):
        found = replace(make_sampler(solver), steps=steps, last="none")(score.sde, score, x, torch.randn_like)
        errors.append(float((found - exact).norm(dim=1).median()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)
    assert errors[1] < (3e-2 if order == 1 else 2e-3)


# --- draws at default settings ----------------------------------------------------------------------------------------

LONG = {"em", "ancestral", "reverse_diffusion", "pc"}  # a thousand steps: in one dimension, where they cost little
SHORT = [name for name in SAMPLERS if name not in AS_PUBLISHED | LONG | {"pc_published", "adaptive", "ddim"}]
DRAWN = [
    *in_turn(SHORT, ["vp", "ve", "subvp", "edm", "chain", "toy", "cosine"], ["ridge", "odd", "wide", "tails"]),
    *in_turn(sorted(LONG), ["vp", "subvp", "toy", "edm"], ["line"]),
    ("ddim", "subvp", "line"),
    ("adaptive", "ve", "line"),
    ("heun", "subvp", "ridge"),
    ("restart", "vp", "ridge"),
    ("adams_bashforth", "vp", "ridge"),
    ("dpmpp_2m", "subvp", "ridge"),
]


@pytest.mark.parametrize("name, sde_name, problem", dict.fromkeys(DRAWN))
def test_moments_of_draws_at_default_settings(name, sde_name, problem):
    """Shares, means and variances of every component along its own axes: 20,000 draws in float32 from p_T cannot tell
    them from the exact ones.
    """
    sampler, score = make_sampler(name), Full(make_sde(sde_name), *PROBLEMS[problem])
    x = sampler(score.sde, score, score.start(COUNT).float(), torch.randn_like)
    pulls = score.pulls(x)
    worst = max(pulls, key=lambda key: abs(pulls[key]))
    assert abs(pulls[worst]) < 4, f"{worst}: z = {pulls[worst]:.1f}"


def test_the_adaptive_solver_keeps_a_narrow_law_at_its_default_tolerances():
    """The variances of two components of std 0.03 together, within four standard errors of 20,000 draws."""
    torch.manual_seed(0)
    score = Full(make_sde("subvp"), *two([0.5, 0.5], [[-0.9], [1.0]], [[0.03], [0.03]]))
    x = make_sampler("adaptive")(score.sde, score, score.start(COUNT).float(), torch.randn_like).double()
    z = torch.where(x < 0.05, x + 0.9, x - 1.0) / 0.03
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / COUNT)


def test_a_narrow_component_would_be_missed():
    """The battery detects Tweedie's mean, and too few steps."""
    score = Full(make_sde("vp"), *PROBLEMS["ridge"])
    for words in ({"last": "tweedie"}, {"steps": 12}):
        sampler = replace(make_sampler("unipc"), **words)
        pulls = score.pulls(sampler(score.sde, score, score.start(COUNT).float(), torch.randn_like))
        assert max(map(abs, pulls.values())) > 4


@pytest.mark.parametrize("sde_name", ["ve", "vp"])
def test_a_ridge_of_1e4_to_1(sde_name):
    """Finer than any default's noise: with the key that the warning names the law is right, and without it is not."""
    parts = two([0.97, 0.03], [[0.1, -0.1], [-1.6, 1.7]], [[1.0, 1e-4], [0.3, 3e-5]])
    coarse = make_sde(sde_name)
    found = {}
    for label, sde in (("default", coarse), ("remedy", make("sde", f"sde={sde_name}", coarse.reaching(1e-5)))):
        score = Full(sde, *parts)
        x = make_sampler("unipc", steps=80)(sde, score, score.start(COUNT), torch.randn_like)
        found[label] = max(map(abs, score.pulls(x).values()))
    assert found["remedy"] < 4 < found["default"]


def test_what_reaches_a_level(sde):
    """The typed key gives an SDE whose noise at eps is that much or a little less, for every SDE and level."""
    for level in (1e-2, 3e-3, 1e-5):
        word = sde.reaching(level)
        assert re.fullmatch(r"sde\.(eps|sigma_min)=\S+", word)
        key, _, value = word.removeprefix("sde.").partition("=")
        changed = replace(sde, **{key: float(value)})
        assert 0.8 * level < math.exp(-float(changed.ends()[1])) <= level * (1 + 1e-6)


def test_churn_and_correctors_leave_narrow_laws_alone():
    """Options that put noise back: EDM's churn, and a corrector after a predictor of second order."""
    score = Full(make_sde("vp"), *PROBLEMS["line"])
    for words in (
        ["sampler=heun", "sampler.predictor.churn=20", "sampler.steps=100"],
        ["sampler=sea", "sampler/corrector=langevin"],
    ):
        sampler = make("sampler", *words)
        assert isinstance(sampler, PredictorCorrector)
        pulls = score.pulls(sampler(score.sde, score, score.start(COUNT).float(), torch.randn_like))
        assert max(map(abs, pulls.values())) < 4, words
