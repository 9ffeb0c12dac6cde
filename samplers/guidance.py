r"""Guidance: the posterior's score under three published assumptions on x_0 given x_t, and the exact one of a mixture.

The measurement is y = A x_0 + s n with standard normal n (:mod:`scoresde.samplers.operators`). With the denoised
:math:`\hat x = E[x_0 \mid x_t] = (x_t + \sigma^2 s_\theta)/\alpha` and its Jacobian
:math:`J = \partial\hat x/\partial x_t`, a Gaussian :math:`x_0 \mid x_t \sim N(\hat x, V)` gives

.. math:: \nabla\log p(y \mid x_t) = J^T A^T (A V A^T + s^2 I)^{-1} (y - A\hat x),

where V is treated as a constant.

=====================  ================================================================  ===========================
conditioner            V                                                                 exact for
=====================  ================================================================  ===========================
``DPS`` gaussian       0                                                                 no noise left in x_t
``PiGDM``              :math:`r I,\ r = \sigma^2 q^2/(\alpha^2 q^2 + \sigma^2)`          data N(m, q^2 I)
``MMPS``               :math:`\tfrac{\sigma^2}{\alpha} J = \mathrm{Cov}[x_0 \mid x_t]`   any Gaussian, if converged
``ExactPosterior``     a mixture's own                                                   mixtures, in closed form
=====================  ================================================================  ===========================

(DPS: arXiv 2209.14687. PiGDM: Song, Vahdat, Mardani and Kautz, ICLR 2023, who take q = 1. MMPS: arXiv 2405.13712, by
conjugate gradients on vector-Jacobian products.) DPS's published rule is not the score of a likelihood: after each of
its 1,000 steps x moves by :math:`-\zeta\,\nabla\|y - A\hat x\|^2 / \|y - A\hat x\|` (its appendix C.2). A step of
length h of the reverse SDE moves x by :math:`g^2 h` times the score. The same moves, spread evenly over [0, T], are
the term of the score

.. math:: -\frac{\zeta N}{T g^2}\,\frac{\nabla\|y - A\hat x\|^2}{\|y - A\hat x\|}, \qquad N = 1000,

which does not depend on the sampler's steps. (The authors' program takes the gradient of the norm instead of its
square, which is half of this term: scale 1 there is ``scale`` = 0.5 here.)

Each evaluation costs one pass forward and one pass back through the network. MMPS needs another pass back for each
iteration, and ExactPosterior no pass back.

J is the Jacobian of a network and has no bound: for data with heavy tails its norm exceeds that of any covariance, and
a term with such a J drives x to infinity. Two rules keep such a term finite; ``bound=None`` switches both off. On
Gaussian data the first does not change the exact term, and the second only one that is longer than the bound:

* **No overshoot** (PiGDM, MMPS). The term moves the denoised measurement :math:`A\hat x` by
  :math:`\delta = A\,\tfrac{\sigma^2}{\alpha}\nabla\log p(y \mid x_t)`. The best step along it towards the residual
  :math:`\rho = y - A\hat x` is :math:`\gamma = \langle\delta, \rho\rangle/\|\delta\|^2` times the term; a step of
  :math:`2\gamma` leaves the residual as large as before. A symmetric positive covariance has :math:`\gamma \ge 1`. The
  term of MMPS, whose covariance comes from the network, is multiplied by :math:`\gamma` clamped to [0, 1]. The term of
  PiGDM, whose r exceeds the data's covariance in some directions, is multiplied by :math:`2\gamma` clamped to [0, 1]
  (measured: :math:`\gamma` would double its distance to the posterior of 16 numbers, 8 of them measured).
* **A bound in units of the noise.** x_t contains noise of std sigma on each of D values, so that a score has a norm of
  about :math:`\sqrt D/\sigma`. A term longer than ``bound`` times this norm is shortened to that length. A term that is
  not finite is set to 0.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, ScoreFn, of_rows, per_sample
from scoresde.sde_lib.frame import under

from .conditioner import Conditioner, Held
from .measurement import Measurement
from .pc import Sampler

Pull = Callable[[Tensor], Tensor]
"""A linear map of vectors v (B, *): v to J^T v in a :class:`State`."""

BOUND = 5.0
"""The default bound of a term: five times the norm of the noise's own score."""


@dataclass(frozen=True)
class State:
    """The samples x_t with the quantities from which a guidance computes its term.

    Attributes:
        x, score, denoised: x_t, the prior's score at x_t and E[x_0 | x_t], (B, *).
        alpha, sigma, g: the SDE's at t, (B,), in x's dtype.
        pull: the map from v to J^T v.
        T: the SDE's last time.
    """

    x: Tensor
    score: Tensor
    denoised: Tensor
    alpha: Tensor
    sigma: Tensor
    g: Tensor
    pull: Pull
    T: float


def state(sde: SDE, score: ScoreFn, x: Tensor, t: Tensor) -> State:
    """Returns the state of x (B, *) at t (B,); its graph is kept for the vector-Jacobian products of ``pull``."""
    alpha, sigma, g = (value.to(x.dtype) for value in (sde.alpha(t), sde.sigma(t), sde.g(t)))
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = score(x, t)
        denoised = (x + per_sample(sigma.square(), x) * value) / per_sample(alpha, x)

    def pull(v: Tensor) -> Tensor:
        return torch.autograd.grad(denoised, x, v, retain_graph=True)[0]

    return State(x.detach(), value.detach(), denoised.detach(), alpha, sigma, g, pull, sde.T)


def bounded(term: Tensor, state: State, bound: float | None) -> Tensor:
    """Shortens each sample's term (B, *) to the norm ``bound`` sqrt(D)/sigma; a term that is not finite becomes 0."""
    if bound is None:
        return term
    norm = term.flatten(1).double().norm(dim=1)
    longest = bound * math.sqrt(term[0].numel()) / state.sigma.double()
    factor = (longest / norm.clamp_min(torch.finfo(torch.float64).tiny)).clamp_max(1.0).to(term.dtype)
    return torch.where(per_sample(norm.isfinite(), term), per_sample(factor, term) * term, 0.0)


def without_overshoot(term: Tensor, state: State, measurement: Measurement, most: float) -> Tensor:
    """Multiplies each sample's term (B, *) by ``most`` times gamma, clamped to [0, 1]; see the module's text."""
    residual = measurement.residual(state.denoised).flatten(1)
    moved = measurement.operator(per_sample(state.sigma.square() / state.alpha, term) * term).flatten(1)
    length = moved.square().sum(1)
    gamma = (moved * residual).sum(1) / torch.where(length > 0, length, 1.0)
    return per_sample(torch.where(length > 0, (most * gamma).clamp(0, 1), 1.0), term) * term


def check_bound(bound: float | None) -> None:
    if bound is not None and not 0 < bound < math.inf:
        raise ValueError(f"`bound`={bound} must be positive, or null for none; type `bound`={BOUND:g}")


class Guidance(Conditioner):
    """A conditioner that adds a term to the score; the sampler, unless :meth:`check` refuses it, runs on the sum. After
    the last step samples are moved to agree with an exact measurement (:class:`Held`).

    Attributes:
        bound: the largest norm of the term in units of sqrt(D)/sigma, None for no bound.
    """

    bound: float | None = None

    @abstractmethod
    def term(self, state: State, measurement: Measurement) -> Tensor:
        """Returns the term that stands for the gradient of log p(y | x_t), (B, *), before :func:`bounded`."""

    def check(self, sampler: Sampler, measurement: Measurement) -> None:
        """Raises a ValueError for a sampler or a measurement that the guidance does not work with."""

    def condition(
        self, sampler: Sampler, sde: SDE, score: ScoreFn, measurement: Measurement
    ) -> tuple[Sampler, ScoreFn]:
        self.check(sampler, measurement)
        return Held(sampler, measurement), Posterior(self, sde, score, measurement)


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior's score: the prior's score plus a guidance's term."""

    guidance: Guidance
    sde: SDE
    score: ScoreFn
    measurement: Measurement

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the score at x (B, *) and t (B,), of x's shape."""
        state_t = state(self.sde, self.score, x, t)
        return state_t.score + bounded(self.guidance.term(state_t, self.measurement), state_t, self.guidance.bound)

    def under(self, sde: SDE, other: SDE) -> "Posterior":
        """Returns the same posterior's score under another SDE; for the published rule of DPS, its term there."""
        return replace(self, sde=other, score=under(sde, self.score, other))

    def of_rows(self, rows: Tensor) -> "Posterior":
        """Returns the posterior's score for the samples with these batch indices (b,)."""
        return replace(self, score=of_rows(self.score, rows), measurement=self.measurement.rows(rows))


@dataclass(frozen=True)
class DPS(Guidance):
    """Diffusion posterior sampling (arXiv 2209.14687): assumes that x_0 given x_t is the point E[x_0 | x_t].

    Arguments:
        rule: ``published``, the step of the paper's algorithm; ``gaussian``, the score of the likelihood
            N(y; A x_hat, s^2 I), for s > 0.
        scale: zeta in the published rule; in the gaussian rule a factor of the term, 1 for the likelihood itself.
        steps: N, the number of steps that the published zeta is for.
        bound: the largest norm of the term in units of sqrt(D)/sigma; None, as published, for no bound.
    """

    only_with: ClassVar[dict] = {"steps": ("rule", ("published",))}

    rule: Literal["published", "gaussian"] = "published"
    scale: float = 1.0
    steps: int = 1000
    bound: float | None = BOUND

    def __post_init__(self):
        check_bound(self.bound)
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale`={self.scale} must be positive; type `scale`=1")
        if self.steps < 1:
            raise ValueError(f"`steps`={self.steps} must be at least 1; type `steps`=1000")

    def check(self, sampler: Sampler, measurement: Measurement) -> None:
        if self.rule == "published" and hasattr(sampler, "rtol"):
            raise ValueError(
                f"conditioner=dps does not run with {type(sampler).__name__}: it moves x back and forth by steps of "
                f"one length, which error control would follow for ever; type sampler=ancestral, or conditioner=pigdm"
            )
        if self.rule == "gaussian" and not measurement.noise > 0:
            raise ValueError(
                "conditioner=dps_gaussian divides by the measurement's noise, operator.noise=0; type for example "
                "operator.noise=0.1, or conditioner=pigdm for exact measurements"
            )

    def term(self, state: State, measurement: Measurement) -> Tensor:
        residual = measurement.residual(state.denoised)
        slope = state.pull(measurement.operator.transpose(residual))  # minus half the gradient of the square
        if self.rule == "gaussian":
            return self.scale / measurement.noise**2 * slope
        length = residual.flatten(1).norm(dim=1).clamp_min(torch.finfo(slope.dtype).tiny)
        return per_sample(2 * self.scale * self.steps / (state.T * state.g.square() * length), slope) * slope


@dataclass(frozen=True)
class PiGDM(Guidance):
    """Pseudoinverse guidance (Song, Vahdat, Mardani and Kautz, ICLR 2023): x_0 given x_t has the covariance r I.

    Arguments:
        sigma_data: q, the std of the data N(m, q^2 I) for which this is exact; published 1.
        bound: the largest norm of the term in units of sqrt(D)/sigma; None, as published, for terms of any norm, which
            may overshoot.
    """

    sigma_data: float = 1.0
    bound: float | None = BOUND

    def __post_init__(self):
        check_bound(self.bound)
        check_sigma_data(self.sigma_data)

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Returns r of each sample, (B,)."""
        return (self.sigma_data * sigma).square() / ((self.sigma_data * alpha).square() + sigma.square())

    def term(self, state: State, measurement: Measurement) -> Tensor:
        r = self.variance(state.alpha, state.sigma)
        term = state.pull(measurement.pull(measurement.residual(state.denoised), r))
        return term if self.bound is None else without_overshoot(term, state, measurement, 2.0)


def check_sigma_data(sigma_data: float) -> None:
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"`sigma_data`={sigma_data} must be positive; type `sigma_data`=auto")


@dataclass(frozen=True)
class MMPS(Guidance):
    """Moment-matching posterior sampling (arXiv 2405.13712): x_0 given x_t has its own covariance, sigma^2/alpha J.

    Arguments:
        iterations: the largest number of iterations of conjugate gradients. With as many as y has values the solution
            is exact up to the tolerance, if J is symmetric and positive.
        tolerance: the norm of the residual, relative to that of the first, at which a sample's iterations end.
        bound: the largest norm of the term in units of sqrt(D)/sigma; None, as published, for terms of any norm, which
            may overshoot.
    """

    iterations: int = 5
    tolerance: float = 1e-4
    bound: float | None = BOUND

    def __post_init__(self):
        check_bound(self.bound)
        if self.iterations < 1:
            raise ValueError(f"`iterations`={self.iterations} must be at least 1; type `iterations`=5")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"`tolerance`={self.tolerance} must be at least 0 and below 1; type `tolerance`=1e-4")

    def term(self, state: State, measurement: Measurement) -> Tensor:
        A, factor = measurement.operator, per_sample(state.sigma.square() / state.alpha, state.x)

        def covariance(v: Tensor) -> Tensor:
            """Returns (A V A^T + s^2 I) v."""
            return A(factor * state.pull(A.transpose(v))) + measurement.noise**2 * v

        # remove the part of y outside A's range (rows of A that depend on one another, a mask's unknown values)
        residual = A(measurement.operator.pseudo_inverse(measurement.residual(state.denoised)))
        v = conjugate_gradients(covariance, residual, self.iterations, self.tolerance)
        term = state.pull(A.transpose(v))
        return term if self.bound is None else without_overshoot(term, state, measurement, 1.0)


def conjugate_gradients(product: Pull, b: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Solves M v = b for a symmetric positive M, each sample by itself; b and v (B, *), and ``product`` is v to M v.

    The iterations of a sample end at the tolerance, or at a direction d in which d^T M d is not positive, since a
    network's Jacobian is not quite symmetric.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return per_sample((a * b).flatten(1).sum(1), a)

    v, residual, direction = torch.zeros_like(b), b, b
    size = start = dot(b, b)
    for _ in range(iterations):
        active = size > tolerance**2 * start
        if not bool(active.any()):
            break
        image = product(direction)
        curvature = dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, size / torch.where(active, curvature, 1.0), 0.0)
        v, residual = v + step * direction, residual - step * image
        new = torch.where(active, dot(residual, residual), 0.0)
        direction = residual + new / torch.where(size > 0, size, 1.0) * direction
        size = new
    return v


@dataclass(frozen=True, eq=False)
class ExactPosterior(Guidance):
    r"""The posterior of data from a mixture of isotropic Gaussians in closed form: the reference for the others.

    The term is that of the exact mixture, whatever score the sampler runs on.

    .. math::
        x_0 \mid x_t, k \sim N(m_k, v_k I), \qquad
        m_k = \frac{\alpha s_k^2 x_t + \sigma^2\mu_k}{\alpha^2 s_k^2 + \sigma^2}, \quad
        v_k = \frac{s_k^2\sigma^2}{\alpha^2 s_k^2 + \sigma^2}, \qquad
        p(y \mid x_t) = \sum_k p(k \mid x_t)\,N(y;\, A m_k,\, v_k A A^T + s^2 I).

    Arguments:
        components: weights (K,), means (K, D) and stds (K,) in model units; ``auto`` in the yaml takes the data's.
    """

    components: tuple[Tensor, Tensor, Tensor] | None

    def __post_init__(self):
        if self.components is None:
            raise ValueError(
                "conditioner=exact needs data whose density is a mixture, data=mixture or data=8gaussians; type "
                "conditioner=pigdm"
            )

    def parts(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log w (K,), mu (K, *) and s^2 (K,), in the dtype and on the device of ``like`` (B, *)."""
        weights, means, stds = (torch.as_tensor(part).to(like) for part in self.components)
        return (weights / weights.sum()).log(), means.reshape(-1, *like.shape[1:]), stds.square()

    def term(self, state: State, measurement: Measurement) -> Tensor:
        log_weights, means, variances = self.parts(state.x)
        dim = means[0].numel()
        with torch.enable_grad():
            x = state.x.detach().requires_grad_()
            prior, joint = [], []
            for log_weight, mean, variance in zip(log_weights, means, variances, strict=True):
                spread = state.alpha.square() * variance + state.sigma.square()
                away = (x - per_sample(state.alpha, x) * mean).flatten(1).square().sum(1)
                prior.append(log_weight - 0.5 * (away / spread + dim * spread.log()))
                gain, rest = state.alpha * variance / spread, state.sigma.square() / spread
                m = per_sample(gain, x) * x + per_sample(rest, x) * mean
                joint.append(prior[-1] + measurement.log_prob(m, variance * rest))
            log_prob = torch.logsumexp(torch.stack(joint), 0) - torch.logsumexp(torch.stack(prior), 0)
            return torch.autograd.grad(log_prob.sum(), x)[0]

    def draw(self, measurement: Measurement, generator: torch.Generator | None = None) -> Tensor:
        """Draws exactly from p(x_0 | y), once for each row of a measurement, (B, *).

        It draws a component by its posterior weight, then a sample of the component, which it corrects by the residual
        of a simulated measurement of this sample.
        """
        y, B = measurement.y, len(measurement.y)
        like = y.new_zeros(B, *measurement.operator.shape)
        log_weights, means, variances = self.parts(like)
        evidence = [
            measurement.log_prob(mean.expand_as(like), variance.expand(B))
            for mean, variance in zip(means, variances, strict=True)
        ]
        share = torch.softmax(log_weights + torch.stack(evidence, 1), 1)
        k = torch.multinomial(share, 1, generator=generator)[:, 0]

        def normals(shape: torch.Size) -> Tensor:
            return torch.randn(shape, dtype=y.dtype, device=y.device, generator=generator)

        x = means[k] + per_sample(variances[k].sqrt(), like) * normals(like.shape)
        missed = measurement.residual(x) - measurement.noise * normals(y.shape)
        return x + per_sample(variances[k], like) * measurement.pull(missed, variances[k])
