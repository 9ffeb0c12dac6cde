r"""The exact log-density of a score model, by the probability-flow ODE.

Along dx/dt = v(x, t) = f x - g^2/2 score the log-density changes by minus the divergence of v, so that

.. math::
    \log p_{eps}(x) = \log p_T(z) + \int_{eps}^T \nabla\cdot v(x_t, t)\,dt, \qquad
    \nabla\cdot v = D f - \tfrac12 g^2\,\mathrm{tr}\,\nabla_x s_\theta,

with z = x_T the latent code of x (arXiv 2011.13456, eq. 39; Chen et al., arXiv 1806.07366, theorem 1). Each estimate of
the trace has its own integral: with k random probes the k integrals are unbiased estimates, and their spread gives the
standard error of their mean. Score and divergence come from one evaluation of the network.

FFJORD (arXiv 1810.01367, section 3.1) keeps a probe fixed along the trajectory and integrates its estimate beside x, so
that a solver sees a smooth right-hand side; but then the probe's errors at all times add up. With tsit5 and dopri5 our
solver follows only x. The estimates are integrated after each accepted step, by the Gauss-Legendre rule of four nodes
along the step's interpolant. The nodes need not share probes, so with ``redraw`` each node draws its own: the errors of
some fifty nodes average out, and the sum of the nodes' variances gives the standard error. Six stages without a
backward pass and four nodes with one cost a little more than six stages with one. The steps do not depend on the
probes, so the sum of the unbiased estimates over them is unbiased. Since the divergence changes where x stands still,
sigma/alpha grows by a factor e at most in a step.

The exact trace has no errors to average: it is integrated beside x and controls the step size too. A torchdiffeq method
integrates the estimates of random probes beside x, with the probes fixed.

Three corrections apply at the ends and along the trajectory; each can be switched off:

* **The start.** q(x) = alpha^D p_eps(alpha x), at eps, is the density of data blurred by N(0, k^2 I) with
  k = sigma/alpha. The blur is undone for the Gaussian that agrees with log q at x to second order
  (:mod:`scoresde.likelihood.deblur`): exactly for Gaussian data of any scale, but for the approximations in many
  dimensions that are named there, and to order k^2 for all data. :meth:`Likelihood.start_error` estimates the error
  that is left. ``start="plain"`` scores x itself by p_eps, as the published code does.
* **The end.** p_T is taken to be the Gaussian of the data's first two moments, carried to T
  (:mod:`scoresde.likelihood.moments`), and not N(0, sigma(T)^2 I), the published prior (``prior="standard"``).
* **The variance.** The score of the same Gaussian has a divergence in closed form, and a Jacobian close to the
  network's where the noise is not small. It is the control variate of random probes, which stay unbiased for any
  network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, BasisVectors, Counted, Frame, Probes, ScoreFn, divergence, frame, integrate
from scoresde.sde_lib.divergence import Control, linearised
from scoresde.sde_lib.frame import Flow, check_clock
from scoresde.sde_lib.ode import PAIRS, SOLVER_KEYS, check_solver
from scoresde.sde_lib.quadrature import gauss_legendre

from .deblur import Deblurring, deblur
from .moments import Moments
from .trajectory import AtNodes, Augmented, DivergenceFlow, longest_step, with_square


@dataclass(frozen=True)
class LogLikelihood:
    """The log-density of each point and its parts.

    Attributes:
        model_log_prob: log p(x) of the density in model units, in nats, shape (B,), float64 (float32 on mps);
            :meth:`log_prob` is that of the data.
        z: the latent code x_T, shape (B, *).
        probe_stderr: the standard error of the log-density over the random probes in nats, shape (B,): 0 where the
            trace is exact, NaN for one probe that is random.
        start_term: the start's correction, which the log-density includes, shape (B,); 0 for ``start="plain"``.
        prior_term: log p_T(z) less log N(z; 0, sigma(T)^2 I), which the log-density includes, shape (B,); 0 for
            ``prior="standard"`` and without moments.
        nfe: network evaluations a point, the mean over the batch.
    """

    model_log_prob: Tensor
    z: Tensor
    probe_stderr: Tensor
    start_term: Tensor
    prior_term: Tensor
    nfe: float

    def log_prob(self, data: Data) -> Tensor:
        """Returns the log-density in the units of the data, in nats, (B,): with the Jacobian ``data.log_det``."""
        return self.model_log_prob + data.log_det


@dataclass(frozen=True)
class StartError:
    """Estimates of the error of the start's correction; see :mod:`scoresde.likelihood.deblur`.

    Attributes:
        difference: the difference of log p of the data from two noise levels, in nats, (B,), of either sign; its size
            includes the error of using few products or few orders.
        assumed: the part of the correction, in nats, (B,), that assumes the detail below the noise of eps to be
            Gaussian: all but the heat step.
        detail: lambda, (B,): the largest share of the noise of eps in the variance along a direction that was found.
            From 0.5 on the data have detail finer than that noise, and nothing here bounds its effect.
    """

    difference: Tensor
    assumed: Tensor
    detail: Tensor


TIGHT, LOOSE = 1e-5, 1e-4  # tolerances where they are left open: for the exact trace, for random probes


def student(variance: Tensor, squares: Tensor, count: int) -> Tensor:
    r"""Returns the standard error of a sum of independent parts whose variances are estimated, (B,).

    With v_i the variance of one part estimated from its k estimates, the sum's variance V = sum v_i has about

    .. math:: \nu = (k + 1)\,\frac{V^2}{\sum_i v_i^2}

    degrees of freedom (Welch 1947; k + 1 where his formula has k - 1, since E v_i^2 exceeds the square of the true
    variance by the factor (k + 1)/(k - 1)). An error over sqrt(V) follows Student's t, of variance nu/(nu - 2), and V
    is multiplied by that: the pulls then have variance 1. nu is at least 4, since the variance of t diverges at 2.

    Arguments:
        variance, squares: the sums of v_i and of v_i^2, (B,).
        count: the number k of estimates.
    """
    free = ((count + 1) * variance.square() / squares.clamp_min(1e-300)).clamp_min(4.0)
    return (variance * free / (free - 2)).sqrt()


@dataclass(frozen=True)
class Likelihood:
    """(sde, score, x) -> log p(x).

    Arguments:
        probes: how the divergence is computed: exactly, or by random probes; see :mod:`scoresde.sde_lib.divergence`.
        method: ``tsit5`` or ``dopri5`` (a step size for each point) or ``torchdiffeq.NAME``; see
            :mod:`scoresde.sde_lib.ode`.
        clock: the variable of integration, ``angle`` or ``t``; see :mod:`scoresde.sde_lib.frame`.
        error: the error from which :class:`scoresde.tasks.LikelihoodTask` chooses tolerance, probes and points where
            they are left open: in nats a dimension, for integers in bits a dimension; ``auto`` for the error that its
            output shows, None to choose nothing.
        rtol, atol: tolerances of each point's local error, in (0, 1). Beyond two dimensions the integral of the exact
            divergence has 2/D of rtol, since it is a sum over D dimensions. None leaves them open: the default is then
            1e-5, and 1e-4 with random probes.
        steps: the number of steps of a torchdiffeq method without error control.
        start: ``corrected`` for the density of the data, ``plain`` for p_eps; see the module docstring.
        prior: ``data`` for the Gaussian of the data's moments at T, ``standard`` for N(0, sigma(T)^2 I).
        control_variate: whether random probes estimate only the difference to that Gaussian's Jacobian.
        redraw: whether random probes are redrawn at each evaluation of the divergence instead of once a trajectory; for
            methods with a step size for each point, and values without gradients.
        moments: the data's mean (D,), variances (k,), directions (D, k) and the rest, as ``Data.moments()`` returns
            them; ``auto`` in the yaml takes the data's. Without them (None) the prior is the standard one, and there is
            no control variate.
    """

    only_with: ClassVar[dict] = {"steps": SOLVER_KEYS["steps"]}

    probes: Probes = field(default_factory=BasisVectors)
    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    error: float | Literal["auto"] | None = None
    rtol: float | None = 1e-5
    atol: float | None = 1e-5
    steps: int = 100
    start: Literal["corrected", "plain"] = "corrected"
    prior: Literal["data", "standard"] = "data"
    control_variate: bool = True
    redraw: bool = True
    moments: tuple[Tensor, Tensor, Tensor, float] | None = None

    def __post_init__(self):
        check_clock(self.clock)
        check_solver(self.method, *(TIGHT if v is None else v for v in (self.rtol, self.atol)), self.steps)
        for key, value, choices in (
            ("start", self.start, ("corrected", "plain")),
            ("prior", self.prior, ("data", "standard")),
        ):
            if value not in choices:
                raise ValueError(f"`{key}`={value} must be {' or '.join(choices)}")
        if self.error not in ("auto", None) and not (isinstance(self.error, float | int) and self.error > 0):
            raise ValueError(
                f"`error`={self.error} must be positive, in nats a dimension or, for integers, in bits a dimension; "
                f"type for example `error`=0.01, or `error`=auto"
            )

    def random(self, dim: int) -> bool:
        """Returns whether random probes estimate the divergence in ``dim`` dimensions."""
        like = torch.zeros(1, dim)
        return self.probes.settled().draw(like, lambda k: torch.zeros(k, 1, dim)) is not None

    def settled(self, dim: int, tolerance: float | None = None, count: int | None = None) -> "Likelihood":
        """Returns the likelihood with open tolerances and probes filled in, for points of ``dim`` dimensions.

        Arguments:
            tolerance: the value of open tolerances; None for the defaults.
            count: the number of probes where it is open; None for the default.
        """
        usual = tolerance or (LOOSE if self.random(dim) else TIGHT)
        return replace(
            self,
            rtol=usual if self.rtol is None else self.rtol,
            atol=usual if self.atol is None else self.atol,
            probes=self.probes.settled(count),
        )

    def reference(self, x: Tensor) -> Moments | None:
        """Returns the Gaussian of the data's moments, or None; ValueError unless it has the dimensions of x."""
        if self.moments is None:
            return None
        if len(self.moments[0]) != x.shape[1:].numel():
            raise ValueError(
                f"likelihood.moments are of {len(self.moments[0])} dimensions, the points of shape {tuple(x.shape[1:])}"
            )
        return Moments(*self.moments)

    def control(self, x: Tensor, sde: SDE, t: Tensor) -> Control | None:
        """Returns the control variate at t (b,) for points like x: the Jacobian of the score of the data's Gaussian.
        None without moments or with ``control_variate=False``.
        """
        reference = self.reference(x) if self.control_variate else None
        if reference is None:
            return None
        near = lambda v: -reference.precision(v.flatten(2), sde, t).reshape(v.shape)  # noqa: E731
        return near, -reference.trace(sde, t).to(x.dtype)

    def deblurred(
        self, score: ScoreFn, y: Tensor, t: Tensor, x: Tensor, tau: float, factor: float, probes: Tensor | None
    ) -> Deblurring:
        """Returns the term that deblurring adds to the log-density.

        Arguments:
            score: the score in the frame.
            y, t: points (B, D) of the frame and their times (B,).
            x: the batch (B, *), for shape and dtype.
            tau: the variance of the blur in the coordinates of clean data.
            factor: the ratio of scores in those coordinates to scores in the frame.
            probes: the random vectors (k, B, *); None for the exact trace.
        """
        shape = x.shape[1:]
        with torch.enable_grad():
            field = lambda u: score(u, t)  # noqa: E731
            s, pull = linearised(field, y.reshape(-1, *shape).to(x.dtype), self.probes.chunk)

            def hessian(v: Tensor) -> Tensor:
                return factor**2 * pull(v.reshape(len(v), *x.shape).to(x.dtype)).flatten(2).to(y.dtype)

            vectors, reference = self.probes.isotropic(probes), self.reference(x) if self.control_variate else None
            vectors = None if vectors is None else vectors.flatten(2).to(y.dtype)
            term = deblur(tau, factor * s.flatten(1).to(y.dtype), hessian, vectors, reference)
        return term if torch.is_grad_enabled() else replace(term, estimates=term.estimates.detach())

    def start_error(
        self, sde: SDE, score: ScoreFn, x: Tensor, randn_like: Callable[[Tensor], Tensor] = torch.randn_like
    ) -> StartError:
        """Estimates the error of ``start="corrected"`` at x (B, *), in nats; see :mod:`scoresde.likelihood.deblur`."""
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone() if x.is_inference() else x
            return self.settled(x.shape[1:].numel()).two_levels(sde, score, x, randn_like)

    def two_levels(self, sde: SDE, score: ScoreFn, x: Tensor, randn_like) -> StartError:
        """Returns the error estimates from two noise levels, of variances tau and 2 tau in clean data's coordinates.

        The arguments are those of :meth:`start_error`; no setting is left open.
        """
        wide, problem = torch.float32 if x.device.type == "mps" else torch.float64, frame(sde, score, "angle")
        clean, tau = x.flatten(1).to(wide), math.tan(problem.sde.eps) ** 2
        probes = self.probes.draw(x, lambda k: torch.stack([randn_like(x) for _ in range(k)]))

        def level(tau: float) -> tuple[Tensor, Tensor, float]:
            """Returns y, t and the factor of :meth:`deblurred` at the blur's variance tau."""
            angle = max(problem.sde.eps, math.atan(math.sqrt(tau)))
            return math.cos(angle) * clean, torch.full_like(clean[:, 0], angle), math.cos(angle)

        # l(2 tau) - l(tau), from two nodes in log tau
        change = clean.new_zeros(len(x))
        for share, weight in zip(*(column.tolist() for column in gauss_legendre(2)), strict=True):
            now = tau * 2**share
            y, t, factor = level(now)
            control = self.control(x, problem.sde, t) if probes is not None else None
            field = lambda u, t=t: problem.score(u, t)  # noqa: E731
            s, div = divergence(field, y.reshape(x.shape).to(x.dtype), self.probes, probes, control)
            square = (factor * s.flatten(1).to(wide)).square().sum(1)
            change = change + 0.5 * math.log(2) * weight * now * (factor**2 * div.to(wide).mean(0) + square)
        # the deblurring from both levels
        near, far = (
            self.deblurred(problem.score, y, t, x, now, factor, probes)
            for now in (tau, 2 * tau)
            for y, t, factor in (level(now),)
        )
        difference = change + far.estimates.mean(0) - near.estimates.mean(0)
        assumed = near.estimates.mean(0) - near.heat
        return StartError(difference + torch.copysign(near.remainder, difference), assumed, near.largest)

    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
        differentiable: bool = False,
    ) -> LogLikelihood:
        """Returns the log-density at x, shape (B, *), in model units.

        Arguments:
            score: any callable (x, t) -> score; it must be differentiable in x.
            randn_like: the source of normals for random probes.
            on_step: called with the share of the interval that is solved, for progress.
            differentiable: whether log_prob and z can be differentiated with respect to x and to the parameters of the
                score; for the memory see :func:`scoresde.sde_lib.integrate`.

        Raises:
            FloatingPointError: the score or its divergence is not finite, or no step size is small enough.
            ValueError: the moments are of another dimension than the points, or ``differentiable`` with a method of
                torchdiffeq.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(differentiable):  # the divergence is a derivative
            x = x.clone() if x.is_inference() else x
            return self.settled(x.shape[1:].numel()).solve(sde, score, x, randn_like, on_step, differentiable)

    def solve(self, sde: SDE, score: ScoreFn, x: Tensor, randn_like, on_step, differentiable: bool) -> LogLikelihood:
        """Returns the log-density; the arguments are those of the call. No setting is left open."""
        counted, reference, dim = Counted(score), self.reference(x), x.shape[1:].numel()
        problem = frame(sde, counted, self.clock)
        if differentiable and not x.requires_grad:
            x = x.detach().requires_grad_()  # else the divergence is not differentiable in the parameters either

        def draw() -> Tensor | None:
            with torch.no_grad():
                return self.probes.draw(x, lambda k: torch.stack([randn_like(x) for _ in range(k)]))

        # the start: from clean data to the state at eps
        vectors, redraw = draw(), self.redraw and not differentiable and self.method in PAIRS
        y, estimates, alpha = self.begin(sde, problem, x, vectors)
        start_term, variances = estimates.mean(0), with_square(self.probes.stderr(estimates.detach(), dim).square())

        # the trajectory, and the divergence along it
        control = partial(self.control, x, problem.sde)
        flow = DivergenceFlow(problem, self.probes, control, x.shape[1:], x.dtype)
        solver = {"method": self.method, "atol": self.atol, "steps": self.steps, "on_step": on_step}
        solver |= {"differentiable": differentiable}
        if vectors is not None and self.method in PAIRS:
            nodes = AtNodes(flow, draw if redraw else lambda: vectors, redraw)
            end, integral = self.integrate_at_nodes(nodes, y, solver)
            estimates = estimates + integral.T[: len(estimates)]
            if redraw and len(x):  # the nodes' probes are independent, and their variances add up
                variances = variances + integral.T[len(estimates) :]
        else:
            end, estimates = self.integrate_augmented(Augmented(flow, vectors), y, estimates, solver)

        # the end: from the state at T to the prior
        at_T = problem.scale(sde.T)
        z = at_T * end.reshape(-1, *x.shape[1:])
        prior, prior_term = sde.prior_log_prob(z), torch.zeros_like(start_term)
        if reference is not None and self.prior == "data":
            prior_term = reference.log_prob(z, sde, torch.full_like(y[:, 0], sde.T)) - prior
        scale = dim * math.log(at_T / problem.scale(sde.eps)) + dim * math.log(alpha)
        log_prob = prior + prior_term + estimates.mean(0) + scale
        if not redraw:  # the k estimates of whole trajectories are the only ones
            variances = with_square(self.probes.stderr(estimates.detach(), dim).square())
        stderr = student(*variances, len(estimates))
        nfe = counted.evaluations / max(1, len(x))
        return LogLikelihood(log_prob, z.to(x.dtype), stderr, start_term, prior_term, nfe)

    def begin(self, sde: SDE, problem: Frame, x: Tensor, vectors: Tensor | None) -> tuple[Tensor, Tensor, float]:
        """Returns the frame's state at eps, (B, D) in float64 where the device has it, the estimates of the start's
        correction, (n, B), and the factor alpha by which the state was scaled for it.

        The state is float64 whatever the network's dtype, since the solver adds thousands of small numbers.
        """
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        at_eps = problem.scale(sde.eps)
        y = x.flatten(1).to(wide) / at_eps
        estimates = y.new_zeros(self.probes.estimates(x.shape[1:].numel()), len(x))
        if self.start == "plain":
            return y, estimates, 1.0
        moment = torch.tensor(sde.eps, dtype=torch.float64)
        alpha, k = float(sde.alpha(moment)), float(sde.sigma(moment) / sde.alpha(moment))
        y = alpha * y
        at = torch.full_like(y[:, 0], problem.sde.eps)
        term = self.deblurred(problem.score, y, at, x, k**2, alpha / at_eps, vectors)
        return y, estimates + term.estimates, alpha

    def integrate_at_nodes(self, nodes: AtNodes, y: Tensor, solver: dict) -> tuple[Tensor, Tensor]:
        """Returns the state at T, (B, D), and the integrals along the trajectory, with :class:`AtNodes`' columns."""
        problem, flow = nodes.flow.problem, nodes.flow
        velocity = Flow(problem.sde, problem.score, flow.shape, flow.dtype)
        longest = partial(longest_step, problem.sde)
        return integrate(
            velocity, y, problem.sde.eps, problem.sde.T, rtol=self.rtol, along=nodes, longest=longest, **solver
        )

    def integrate_augmented(
        self, field: Augmented, y: Tensor, estimates: Tensor, solver: dict
    ) -> tuple[Tensor, Tensor]:
        """Returns the state at T, (B, D), and the estimates (n, B) with the integrals added."""
        ends, dim = (field.flow.problem.sde.eps, field.flow.problem.sde.T), y.shape[1]
        # the integral is a sum over D dimensions: in nats it gets the tolerance that it has in two
        rtol = y.new_tensor([self.rtol] * dim + [self.rtol * min(1.0, 2 / dim)] * len(estimates))
        end = integrate(field, torch.cat([y, estimates.T], dim=1), *ends, rtol=rtol, norm=field.norm, **solver)
        return end[:, :dim], end[:, dim:].T
