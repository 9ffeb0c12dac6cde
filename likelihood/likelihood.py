r"""The exact log-density of a score model, by the probability-flow ODE.

Along dx/dt = v(x, t) = f x - g^2/2 score the log-density changes by minus the divergence of v, so that

.. math::
    \log p_{eps}(x) = \log p_T(z) + \int_{eps}^T \nabla\cdot v(x_t, t)\,dt, \qquad
    \nabla\cdot v = D f - \tfrac12 g^2\,\mathrm{tr}\,\nabla_x s_\theta,

with z = x_T the latent code of x (arXiv 2011.13456, eq. 39; Chen et al., arXiv 1806.07366, theorem 1). p_T is
replaced by the prior N(0, sigma(T)^2 I). The state of the ODE is x and one integral a probe: with k random probes,
fixed along the trajectory (FFJORD, arXiv 1810.01367, section 3.1), each integral is an unbiased estimate of its
own, and their spread over the probes gives the standard error of their mean. Score and divergence come from one
evaluation of the network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sde_lib import SDE, BasisVectors, Counted, Probes, ScoreFn, divergence, frame, integrate, per_sample
from sde_lib.frame import check_clock
from sde_lib.ode import check_solver


@dataclass(frozen=True)
class LogLikelihood:
    """What is known about each point.

    Attributes:
        log_prob: log p(x) in nats and model units, shape (B,), float64.
        z: the latent code x_T, shape (B, *).
        probe_stderr: the standard error of log_prob over the random probes in nats, shape (B,): 0 for the exact
            trace, NaN for one probe.
        nfe: network evaluations a point, the mean over the batch.
    """

    log_prob: Tensor
    z: Tensor
    probe_stderr: Tensor
    nfe: float


@dataclass(frozen=True)
class Likelihood:
    """(sde, score, x) -> log p(x).

    Arguments:
        probes: all basis vectors (exact) or k random vectors (Hutchinson).
        method: ``tsit5`` or ``dopri5`` (a step size for each point) or ``torchdiffeq.NAME``; see :mod:`sde_lib.ode`.
        clock: the variable of integration, ``angle`` or ``t``; see :mod:`sde_lib.frame`.
        rtol, atol: tolerances of the local error, of each point by itself.
        steps: the number of steps of a torchdiffeq method without error control.
    """

    probes: Probes = field(default_factory=BasisVectors)
    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100

    def __post_init__(self):
        try:
            check_clock(self.clock)
            check_solver(self.method, self.rtol, self.atol, self.steps)
        except ValueError as error:
            raise ValueError(f"likelihood.{error}") from None

    @torch.no_grad()
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
    ) -> LogLikelihood:
        """The log-density at x, shape (B, *), in model units.

        Arguments:
            score: any callable (x, t) -> score; it must be differentiable in x.
            randn_like: the source of normals for random probes.
            on_step: called with the share of the way done.
        """
        count, dim, shape = len(x), x[0].numel(), x.shape[1:]
        counted = Counted(score)
        probes = self.probes.draw(x, lambda k: torch.stack([randn_like(x) for _ in range(k)]))
        integrals = 1 if probes is None else len(probes)
        problem = frame(sde, counted, self.clock)
        at_eps, at_T = problem.scale(sde.eps), problem.scale(sde.T)

        def right_hand_side(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            at = y[:, :dim].reshape(-1, *shape).to(x.dtype)
            s, div_s = divergence(
                lambda u: problem.score(u, t), at, None if probes is None else probes[:, rows], self.probes.chunk
            )
            f, half_g2 = problem.sde.f(t), 0.5 * problem.sde.g(t).square()
            velocity = per_sample(f, at) * y[:, :dim].reshape(at.shape) - per_sample(half_g2, at) * s
            return torch.cat([velocity.flatten(1), (f * dim - half_g2 * div_s.to(f)).T], dim=1)

        # The state in float64 whatever the network's dtype: the solver adds thousands of small numbers, at no cost
        # beside the network.
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        start = torch.cat([x.flatten(1).to(wide) / at_eps, x.new_zeros(count, integrals, dtype=wide)], dim=1)

        def norm(error: Tensor) -> Tensor:
            """The worse of the state's and the integrals' errors: in many dimensions one integral would vanish in a
            mean.
            """
            return torch.maximum(error[:, :dim].square().mean(1).sqrt(), error[:, dim:].abs().amax(1))

        end = integrate(
            right_hand_side,
            start,
            problem.sde.eps,
            problem.sde.T,
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            steps=self.steps,
            norm=norm,
            on_step=on_step,
        )
        z, estimates = at_T * end[:, :dim].reshape(-1, *shape), end[:, dim:]
        if probes is None:
            stderr = torch.zeros(count, dtype=wide, device=x.device)
        elif integrals == 1:  # one probe says nothing of its own spread
            stderr = torch.full((count,), torch.nan, dtype=wide, device=x.device)
        else:
            stderr = estimates.std(1) / integrals**0.5
        log_prob = sde.prior_log_prob(z) + estimates.mean(1) + dim * math.log(at_T / at_eps)
        return LogLikelihood(log_prob, z.to(x.dtype), stderr, counted.evaluations / max(1, count))
