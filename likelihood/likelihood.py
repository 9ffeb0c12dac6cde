r"""The exact log-density of a score model, by the probability-flow ODE.

Along dx/dt = v(x, t) = f x - g^2/2 score the log-density changes by minus the divergence of v, so that

.. math::
    \log p_{eps}(x) = \log p_T(z) + \int_{eps}^T \nabla\cdot v(x_t, t)\,dt, \qquad
    \nabla\cdot v = D f - \tfrac12 g^2\,\mathrm{tr}\,\nabla_x s_\theta,

with z = x_T the latent code of x (arXiv 2011.13456, eq. 39; Chen et al., arXiv 1806.07366, theorem 1). The state of the
ODE is x and one integral an estimate of the trace: with k random probes each integral is an unbiased estimate of its
own, and their spread gives the standard error of their mean. Score and divergence come from one evaluation of the
network.

FFJORD (arXiv 1810.01367, section 3.1) keeps a probe fixed along the trajectory and integrates its estimate beside x, so
that a solver sees a smooth right-hand side; but then the probe's errors at all times add up. Here the solver follows x
alone, and the estimates are integrated after each accepted step, by Gauss and Legendre's rule of four nodes along the
step's interpolant. A node needs no neighbour that shares its probes, so with ``redraw`` each draws its own, and the
errors of some fifty nodes average out; six stages without a backward pass and four nodes with one cost a little more
than six stages with one. The steps do not depend on the probes: a sum of unbiased estimates over them is unbiased.
Since the divergence changes where x stands still, no step is longer than a factor e of sigma/alpha. The exact trace,
which has no errors to average, is integrated beside x and steers the steps too; random probes are, kept fixed, where
torchdiffeq solves.

Three terms stand at the ends and on the way, each of which can be switched off:

* **The start.** p_eps is the density of data blurred by k = sigma/alpha at eps. The blur of q(x) = alpha^D
  p_eps(alpha x) is undone as that of the Gaussian which touches log q at x to second order
  (:mod:`scoresde.likelihood.deblur`): exact for Gaussian data however fine, and to order k^2 for all.
  :meth:`Likelihood.start_error` says what may be left. ``start="plain"`` scores x itself by p_eps, as the published
  code does.
* **The end.** p_T is taken to be the Gaussian of the data's first two moments, carried to T
  (:mod:`scoresde.likelihood.moments`), and not N(0, sigma(T)^2 I), the published prior (``prior="standard"``).
* **The variance.** The score of that same Gaussian has a known divergence, and a Jacobian near to the network's where
  the noise is not small: a control variate for random probes, which leaves them unbiased whatever the network is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, BasisVectors, Counted, Probes, ScoreFn, divergence, frame, integrate, of_rows
from scoresde.sde_lib.divergence import Control, linearised
from scoresde.sde_lib.frame import Flow, check_clock
from scoresde.sde_lib.ode import PAIRS, Step, check_solver
from scoresde.sde_lib.quadrature import gauss_legendre

from .deblur import Deblurring, deblur
from .moments import Moments


@dataclass(frozen=True)
class LogLikelihood:
    """What is known about each point.

    Attributes:
        log_prob: log p(x) in nats and model units, shape (B,), float64.
        z: the latent code x_T, shape (B, *).
        probe_stderr: the standard error of log_prob over the random probes in nats, shape (B,): 0 for the exact
            trace, NaN for one probe.
        start_term: what the start's correction added to log_prob, shape (B,); 0 for ``start="plain"``.
        prior_term: log p_T(z) less that of N(0, sigma(T)^2 I), shape (B,); 0 for ``prior="standard"``.
        nfe: network evaluations a point, the mean over the batch.
    """

    log_prob: Tensor
    z: Tensor
    probe_stderr: Tensor
    start_term: Tensor
    prior_term: Tensor
    nfe: float


@dataclass(frozen=True)
class StartError:
    """How far the start's correction may be off at some points; see :mod:`scoresde.likelihood.deblur`.

    Attributes:
        difference: by how much two noise levels disagree about log p of the data, in nats, (B,), of either sign.
        assumed: what of the correction, in nats, (B,), rests on that detail which the noise of eps hides is Gaussian:
            all but the heat step.
        detail: lambda, (B,): the largest share of the noise of eps in the variance along a direction. From 0.5 on data
            have detail finer than that noise, and nothing here bounds what it may hide.
    """

    difference: Tensor
    assumed: Tensor
    detail: Tensor


TIGHT, LOOSE = 1e-5, 1e-4  # tolerances where none is chosen
LONGEST = 1.0  # in half log-SNR: at least four nodes a factor e of sigma/alpha
TINY = 1e-9  # a step that rounding leaves before T is still a step
NODES = list(zip(*(each.tolist() for each in gauss_legendre(4)), strict=True))


def with_square(variance: Tensor) -> Tensor:
    """(B,) to (2, B): a variance, and its square."""
    return torch.stack([variance, variance.square()])


def student(variance: Tensor, squares: Tensor, count: int) -> Tensor:
    r"""The standard error of a sum of independent estimates whose variances were estimated, all of shape (B,).

    With v_i the variance of one part as its k estimates show it, the sum's, V = sum v_i, has about

    .. math:: \nu = (k + 1)\,\frac{V^2}{\sum_i v_i^2}

    degrees of freedom (Welch 1947; k + 1 where his formula has k - 1, since E v_i^2 exceeds the square of the true
    variance by the factor (k + 1)/(k - 1)). An error over sqrt(V) follows Student's t, of variance nu/(nu - 2), and V
    is multiplied by that: the pulls then have variance 1. Below nu = 4 t has hardly one, and nu = 4 is taken.
    """
    free = ((count + 1) * variance.square() / squares.clamp_min(1e-300)).clamp_min(4.0)
    return (variance * free / (free - 2)).sqrt()


@dataclass(frozen=True)
class Likelihood:
    """(sde, score, x) -> log p(x).

    Arguments:
        probes: how the divergence is taken: exactly, or by random probes; see :mod:`scoresde.sde_lib.divergence`.
        method: ``tsit5`` or ``dopri5`` (a step size for each point) or ``torchdiffeq.NAME``; see
            :mod:`scoresde.sde_lib.ode`.
        clock: the variable of integration, ``angle`` or ``t``; see :mod:`scoresde.sde_lib.frame`.
        error: what :class:`scoresde.tasks.LikelihoodTask` chooses the open ones of tolerance, probes and points by:
            nats a dimension, of integers bits a dimension; ``auto`` for what its output shows, None to choose nothing.
        rtol, atol: tolerances of the local error, of each point by itself; of log p, in nats, rtol is that of two
            dimensions in however many there are, and counts where no random probes hide it. None leaves them open:
            what is not chosen is 1e-5, and beside random probes 1e-4.
        steps: the number of steps of a torchdiffeq method without error control.
        start: ``corrected`` for the density of the data, ``plain`` for p_eps; see the module's text.
        prior: ``data`` for the Gaussian of the data's moments at T, ``standard`` for N(0, sigma(T)^2 I).
        control_variate: whether random probes see the difference to that Gaussian's Jacobian alone.
        redraw: whether random probes are drawn afresh wherever the divergence is evaluated, and not once for the
            trajectory; for methods with a step size for each point, and values without gradients.
        moments: the data's mean (D,), variances (k,), directions (D, k) and the rest, as of ``Data.moments()``;
            ``auto`` in the yaml takes the data's. Without them (None) the prior is the standard one, and there is no
            control variate.
    """

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
                f"`error`={self.error} must be positive, nats a dimension or, of integers, bits a dimension; "
                f"type for example `error`=0.01, or `error`=auto"
            )

    def random(self, dim: int) -> bool:
        """Whether the divergence in so many dimensions is estimated by random probes."""
        like = torch.zeros(1, dim)
        return self.probes.settled().draw(like, lambda k: torch.zeros(k, 1, dim)) is not None

    def settled(self, dim: int, tolerance: float | None = None, count: int | None = None) -> "Likelihood":
        """The same with what is open of tolerances and probes filled in, for points of so many dimensions."""
        usual = tolerance or (LOOSE if self.random(dim) else TIGHT)
        return replace(
            self,
            rtol=usual if self.rtol is None else self.rtol,
            atol=usual if self.atol is None else self.atol,
            probes=self.probes.settled(count),
        )

    def reference(self, x: Tensor) -> Moments | None:
        """The data's Gaussian for points like x, or None."""
        if self.moments is None:
            return None
        if len(self.moments[0]) != x.shape[1:].numel():
            raise ValueError(
                f"likelihood.moments are of {len(self.moments[0])} dimensions, the points of shape {tuple(x.shape[1:])}"
            )
        return Moments(*self.moments)

    def control(self, x: Tensor, sde: SDE, t: Tensor) -> Control | None:
        """The Jacobian of the data's Gaussian at t (b,), for points like x; None without one."""
        reference = self.reference(x) if self.control_variate else None
        if reference is None:
            return None
        near = lambda v: -reference.precision(v.flatten(2), sde, t).reshape(v.shape)  # noqa: E731
        return near, -reference.trace(sde, t).to(x.dtype)

    def deblurred(
        self, score: ScoreFn, y: Tensor, t: Tensor, x: Tensor, tau: float, factor: float, probes: Tensor | None
    ) -> Deblurring:
        """What deblurring adds at the points y (B, D) of a frame, at its times t (B,); ``factor`` carries its scores to
        the coordinates of clean data, in which the blur has the variance tau. x (B, *) gives shape and dtype.
        """
        shape = x.shape[1:]
        with torch.enable_grad():
            field = lambda u: score(u, t)  # noqa: E731
            s, pull = linearised(field, y.reshape(-1, *shape).to(x.dtype), self.probes.chunk)

            def hessian(v: Tensor) -> Tensor:
                return factor**2 * pull(v.reshape(len(v), *x.shape).to(x.dtype)).flatten(2).to(y.dtype)

            vectors, reference = self.probes.isotropic(probes), self.reference(x) if self.control_variate else None
            vectors = None if vectors is None else vectors.flatten(2).to(y.dtype)
            found = deblur(tau, factor * s.flatten(1).to(y.dtype), hessian, vectors, reference)
        return found if torch.is_grad_enabled() else replace(found, estimates=found.estimates.detach())

    def start_error(
        self, sde: SDE, score: ScoreFn, x: Tensor, randn_like: Callable[[Tensor], Tensor] = torch.randn_like
    ) -> StartError:
        """How far ``start="corrected"`` may be off at x (B, *), in nats; see :mod:`scoresde.likelihood.deblur`."""
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone() if x.is_inference() else x
            return self.settled(x.shape[1:].numel()).two_levels(sde, score, x, randn_like)

    def two_levels(self, sde: SDE, score: ScoreFn, x: Tensor, randn_like) -> StartError:
        wide, problem = torch.float32 if x.device.type == "mps" else torch.float64, frame(sde, score, "angle")
        clean, tau = x.flatten(1).to(wide), math.tan(problem.sde.eps) ** 2
        probes = self.probes.draw(x, lambda k: torch.stack([randn_like(x) for _ in range(k)]))

        def level(tau: float) -> tuple[Tensor, Tensor, float]:
            """y, t and the factor of :meth:`deblurred`."""
            angle = max(problem.sde.eps, math.atan(math.sqrt(tau)))
            return math.cos(angle) * clean, torch.full_like(clean[:, 0], angle), math.cos(angle)

        change = clean.new_zeros(len(x))
        for share, weight in zip(*(each.tolist() for each in gauss_legendre(2)), strict=True):  # in log tau
            now = tau * 2**share
            y, t, factor = level(now)
            control = self.control(x, problem.sde, t) if probes is not None else None
            field = lambda u, t=t: problem.score(u, t)  # noqa: E731
            s, div = divergence(field, y.reshape(x.shape).to(x.dtype), self.probes, probes, control)
            square = (factor * s.flatten(1).to(wide)).square().sum(1)
            change = change + 0.5 * math.log(2) * weight * now * (factor**2 * div.to(wide).mean(0) + square)
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
        """The log-density at x, shape (B, *), in model units.

        Arguments:
            score: any callable (x, t) -> score; it must be differentiable in x.
            randn_like: the source of normals for random probes.
            on_step: called with the share of the way done.
            differentiable: whether log_prob and z can be differentiated with respect to x and to whatever the score
                holds, in memory that does not grow with the number of steps; see :func:`scoresde.sde_lib.integrate`.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(differentiable):  # the divergence is a derivative
            x = x.clone() if x.is_inference() else x
            return self.settled(x.shape[1:].numel()).solve(sde, score, x, randn_like, on_step, differentiable)

    def solve(self, sde: SDE, score: ScoreFn, x: Tensor, randn_like, on_step, differentiable: bool) -> LogLikelihood:
        count, dim, shape = len(x), x.shape[1:].numel(), x.shape[1:]
        # The state in float64 whatever the network's dtype: the solver adds thousands of small numbers, at no cost
        # beside the network.
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        counted, reference = Counted(score), self.reference(x)

        def draw() -> Tensor | None:
            with torch.no_grad():
                return self.probes.draw(x, lambda k: torch.stack([randn_like(x) for _ in range(k)]))

        problem = frame(sde, counted, self.clock)
        at_eps, at_T = problem.scale(sde.eps), problem.scale(sde.T)

        def score_and_divergence(
            y: Tensor, t: Tensor, rows: Tensor | slice, probes: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            """The score at y (b, D), and the estimates of its divergence, (n, b), both in the problem's frame."""
            at = y.reshape(-1, *shape).to(x.dtype)
            control = self.control(x, problem.sde, t) if probes is not None else None
            mine = None if probes is None else probes[:, rows]
            own = of_rows(problem.score, rows)
            s, div = divergence(lambda u: own(u, t), at, self.probes, mine, control)
            return s.flatten(1).to(wide), div.to(wide)

        def rate(y: Tensor, t: Tensor, rows: Tensor | slice, probes: Tensor | None) -> tuple[Tensor, Tensor]:
            """The velocity (b, D), and the estimates of its divergence, (n, b)."""
            s, div = score_and_divergence(y, t, rows, probes)
            f, half_g2 = problem.sde.f(t), 0.5 * problem.sde.g(t).square()
            return f[:, None] * y - half_g2[:, None] * s, f * dim - half_g2 * div

        def augmented(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            velocity, div = rate(y[:, :dim], t, rows, probes)
            return torch.cat([velocity, div.T], dim=1)

        def along(step: Step) -> Tensor:
            """The integral over a step, (b, n), and with fresh probes the nodes' variances and squares, (b, n + 2).

            Each round draws for all rows, so that none depends on its mates.
            """
            total = step.y.new_zeros(len(step.rows), len(estimates))
            variances = step.y.new_zeros(2, len(step.rows))
            for share, weight in NODES:
                now = draw() if redraw else probes
                if len(step.rows):
                    t = (step.t + share * step.h).clamp(problem.sde.eps, problem.sde.T)
                    velocity, div = rate(step.state(share), t, step.rows, now)
                    size = weight * step.h.to(wide)
                    total = total + size[:, None] * div.T
                    if redraw:
                        variances = variances + with_square((size * self.probes.stderr(div, dim)).square())
                    lost = ~(velocity.isfinite().all(1) & div.isfinite().all(0))
                    if bool(lost.any()):
                        which = int(lost.nonzero()[0])
                        raise FloatingPointError(
                            f"the score or its divergence is not finite for sample {int(step.rows[which])} at "
                            f"t={problem.time(float(t[which])):.4g}; try a larger sde.eps"
                        )
            return torch.cat([total, variances.T], 1) if redraw else total

        def longest(t: Tensor) -> Tensor:
            """The step over which sigma/alpha grows by a factor e: where x stands still, the divergence need not."""
            return problem.sde.time(problem.sde.half_log_snr(t) - LONGEST).clamp_max(problem.sde.T) - t + TINY

        def norm(error: Tensor) -> Tensor:
            """The worse of the state's and the integral's errors: in many dimensions it would vanish in a mean."""
            state = error[:, :dim].square().mean(1).sqrt()
            if probes is not None:  # or the steps would depend on the probes, and the estimates be biased
                return state
            return torch.maximum(state, error[:, dim:].abs().amax(1))

        if differentiable and not x.requires_grad:
            x = x.detach().requires_grad_()  # the divergence is differentiable where its argument is
        probes, redraw = draw(), self.redraw and not differentiable
        start = x.flatten(1).to(wide) / at_eps
        estimates = start.new_zeros(self.probes.estimates(dim), count)
        if self.start == "corrected":
            moment = torch.tensor(sde.eps, dtype=torch.float64)
            alpha, k = float(sde.alpha(moment)), float(sde.sigma(moment) / sde.alpha(moment))
            start = alpha * start
            at = torch.full_like(start[:, 0], problem.sde.eps)
            found = self.deblurred(problem.score, start, at, x, k**2, alpha / at_eps, probes)
            estimates = estimates + found.estimates
        start_term, variances = estimates.mean(0), with_square(self.probes.stderr(estimates.detach(), dim).square())
        solver = {"method": self.method, "atol": self.atol, "steps": self.steps, "norm": norm, "on_step": on_step}
        if probes is not None and self.method in PAIRS:
            flow = Flow(problem.sde, problem.score, shape, x.dtype)
            solver |= {"along": along, "longest": longest, "differentiable": differentiable}
            end, integral = integrate(flow, start, problem.sde.eps, problem.sde.T, rtol=self.rtol, **solver)
            estimates = estimates + integral.T[: len(estimates)]
            if redraw and count:  # the nodes' probes are independent, and their variances add up
                variances = variances + integral.T[len(estimates) :]
        else:
            # the integral has D terms, and log p is wanted to as many nats as in the plane all the same
            rtol = start.new_tensor([self.rtol] * dim + [self.rtol * min(1.0, 2 / dim)] * len(estimates))
            end = integrate(
                augmented,
                torch.cat([start, estimates.T], dim=1),
                problem.sde.eps,
                problem.sde.T,
                rtol=rtol,
                differentiable=differentiable,
                **solver,
            )
            estimates = end[:, dim:].T
        z = at_T * end[:, :dim].reshape(-1, *shape)
        prior, prior_term = sde.prior_log_prob(z), torch.zeros_like(start_term)
        if reference is not None and self.prior == "data":
            prior_term = reference.log_prob(z, sde, torch.full((count,), sde.T, dtype=wide, device=x.device)) - prior
        scale = dim * math.log(at_T / at_eps)
        if self.start == "corrected":
            scale += dim * math.log(alpha)
        log_prob = prior + prior_term + estimates.mean(0) + scale
        if not redraw:  # the k estimates of whole trajectories are all there is
            variances = with_square(self.probes.stderr(estimates.detach(), dim).square())
        stderr = student(*variances, len(estimates))
        nfe = counted.evaluations / max(1, count)
        return LogLikelihood(log_prob, z.to(x.dtype), stderr, start_term, prior_term, nfe)
