r"""The log-density of a score model from its denoising errors, without an ODE and with an error bar.

In the channel x -> x_t = alpha x + sigma z of signal-to-noise ratio gamma = (alpha/sigma)^2 the denoised mean x_hat
determines the density at every point x (Kong, Brekelmans and Ver Steeg, arXiv 2302.03792),

.. math::
    \frac{d}{d\gamma} KL\bigl(p(x_t|x)\,\|\,p_t\bigr) = \tfrac12 e, \quad e = E_z\|x - \hat x(x_t)\|^2
    \quad\Rightarrow\quad
    -\log p(x) = \tfrac D2\log(2\pi\mathrm e) - \tfrac12\int_0^\infty\Bigl[\frac{D}{1+\gamma} - e\Bigr]d\gamma .

Here e is the mean squared error and the upright e Euler's number. The first identity holds for every distribution of
the data with its own x_hat, and can be integrated over any interval of gamma. On [gamma_T, gamma_eps] we subtract from
it the same identity for a Gaussian G, whose terms are closed forms:

.. math::
    E_{x_{eps}|x}\Bigl[\log\frac{p_{eps}}{G_{eps}}(x_{eps})\Bigr]
    = KL\bigl(p(x_T|x)\,\|\,G_T\bigr) - KL\bigl(p(x_T|x)\,\|\,p_T\bigr)
    - \tfrac12\int_{\gamma_T}^{\gamma_{eps}} (e - e_G)\,d\gamma .

* **The end.** The prior takes the place of p_T. It is G_T, with G the Gaussian of the data's moments, or
  N(0, sigma(T)^2 I).
* **The start.** ``start="plain"`` is this finite integral: the mean of log p_eps over x_eps ~ N(alpha x, sigma^2 I) for
  an exact score. For any other it is a lower bound, at every x, of that mean with p_eps the density of the *reverse
  SDE* run from the prior, since KL(p(x_T|x) || prior) + 1/2 int e is the divergence of the two path measures
  (cf. arXiv 2101.09258). ``start="corrected"``, the density of the data at x itself, integrates to infinity: beyond
  the data's finest detail gamma^2 (e - e_G) is constant, and the rest of the integral is gamma (e - e_G) at eps. This
  is the correction of order k^2 = 1/gamma of :mod:`scoresde.likelihood.likelihood`, here without a derivative.
* **The noise.** e and e_G share the noise z, so the estimate has no variance if the data are Gaussian, G is theirs and
  the score is exact.

The integral is taken over w = log(1 + v gamma), v the largest variance of G: even in gamma where the noise hides the
data, and in log gamma where it does not. w is cut into equal strata with two independent draws in each, and their
differences give an unbiased estimate of the sum's variance.

For the exact score of any distribution this estimate and the ODE's agree, up to the errors of both ends. For a network
the densities of the ODE and of the SDE differ, the mean of this estimate lies below the SDE's, and a difference beyond
the error bars measures the network's inconsistency.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Counted, ScoreFn, frame, per_sample

from .crosscheck import CrossCheck, Estimate
from .moments import Moments


@dataclass(frozen=True)
class IMMSE(CrossCheck):
    """(sde, score, x) -> log p(x), from the errors of denoising.

    Arguments:
        draws: network evaluations a point, two in each stratum; the standard error falls as 1/sqrt(draws).
        start: ``corrected`` for the density of the data at x, ``plain`` for the mean of log p_eps over x_eps given x.
        prior: ``data`` for the Gaussian of the data's moments at T, ``standard`` for N(0, sigma(T)^2 I).
        moments: the data's mean (D,), variances (k,), directions (D, k) and the rest, as ``Data.moments()`` returns
            them; ``auto`` in the yaml takes the data's. Without them (None) the prior is standard, and G is N(0, I).
    """

    draws: int = 128
    start: Literal["corrected", "plain"] = "corrected"
    prior: Literal["data", "standard"] = "data"
    moments: tuple[Tensor, Tensor, Tensor, float] | None = None

    same: ClassVar[dict[str, str]] = {"start": "corrected"}

    def __post_init__(self):
        if self.draws < 4 or self.draws % 2:
            raise ValueError(f"`draws`={self.draws} must be even and at least 4; type `draws`=128")
        for key, value, choices in (
            ("start", self.start, ("corrected", "plain")),
            ("prior", self.prior, ("data", "standard")),
        ):
            if value not in choices:
                raise ValueError(f"`{key}`={value} must be {' or '.join(choices)}")

    def gaussian(self, x: Tensor, narrowest: float) -> Moments:
        """Returns G for points x (B, D), with variances of at least ``narrowest``, so that it has a density.

        Raises:
            ValueError: the moments are of another dimension.
        """
        dim = x.shape[1]
        if self.moments is None:
            return Moments(x.new_zeros(dim), x.new_ones(0), x.new_zeros(dim, 0), 1.0)
        if len(self.moments[0]) != dim:
            raise ValueError(f"task.crosscheck.moments are of {len(self.moments[0])} dimensions, the points of {dim}")
        moments = Moments(*self.moments).to(x)
        return replace(moments, variances=moments.variances.clamp_min(narrowest), rest=max(moments.rest, narrowest))

    @torch.no_grad()
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
    ) -> Estimate:
        """Returns the log-density at x, shape (B, *), in model units.

        Arguments:
            score: any callable (x, t) -> score.
            randn_like: the source of normals, for the noise and for the places within the strata.
            on_step: called with the share of the evaluations done.

        Raises:
            FloatingPointError: the score is not finite.
            ValueError: the moments are of another dimension than the points.
        """
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        # the cosine SDE's time has a closed form in gamma, over which we integrate
        counted = Counted(score)
        problem = frame(sde, counted, "angle")
        eps, T = problem.sde.eps, problem.sde.T
        clean = x.flatten(1).to(wide)
        count, dim = clean.shape
        G = self.gaussian(clean, narrowest=math.tan(eps) ** 2)
        v = max([G.rest, *G.variances.tolist()])

        def at(t: float) -> Tensor:
            return torch.full((count,), t, dtype=wide, device=x.device)

        def mean_log_G(t: Tensor) -> Tensor:
            """Returns the mean of log G_t(x_t) over x_t given x, (B,), at t (B,)."""
            alpha, sigma = problem.sde.alpha(t), problem.sde.sigma(t)
            return G.log_prob(alpha[:, None] * clean, problem.sde, t) - 0.5 * sigma.square() * G.trace(problem.sde, t)

        def excess(t: Tensor, z: Tensor) -> Tensor:
            """Returns gamma (|x - x_hat|^2 - |x - x_hat_G|^2) for one noise z (B, *), from z + sigma score."""
            alpha, sigma = problem.sde.alpha(t), problem.sde.sigma(t)
            x_t = per_sample(alpha, x).to(x.dtype) * x + per_sample(sigma, x).to(x.dtype) * z
            learnt = sigma[:, None] * problem.score(x_t, t).flatten(1).to(wide)
            centred = x_t.flatten(1).to(wide) - alpha[:, None] * G.mean
            gaussian = -sigma[:, None] * G.precision(centred, problem.sde, t)
            return ((learnt - gaussian) * (2 * z.flatten(1).to(wide) + learnt + gaussian)).sum(1)

        # d gamma = (1/v + gamma) dw; w goes on beyond eps, where the integrand of eps gives the rest of the integral
        first, last = (math.log1p(v / math.tan(t) ** 2) for t in (T, eps))
        beyond = v / (v + math.tan(eps) ** 2) if self.start == "corrected" else 0.0
        strata = self.draws // 2
        width = (last + beyond - first) / strata
        places = uniform(randn_like, x, self.draws).to(wide)
        integral = variance = clean.new_zeros(count)
        for i in range(strata):
            pair = []
            for j in (2 * i, 2 * i + 1):
                gamma = torch.expm1((first + width * (i + places[:, j])).clamp_max(last)) / v
                t = torch.atan(gamma.rsqrt()).clamp(eps, T)
                pair.append((1 + 1 / (v * gamma)) * excess(t, randn_like(x)))
                if on_step:
                    on_step((j + 1) / self.draws)
            integral = integral + 0.5 * width * (pair[0] + pair[1])
            variance = variance + (0.5 * width * (pair[0] - pair[1])).square()

        if self.start == "corrected":
            log_prob = G.log_prob(clean, problem.sde, at(0.0))  # alpha = 1, sigma = 0
        else:
            log_prob = mean_log_G(at(eps)) - dim * math.log(problem.scale(sde.eps))
        # the divergence from the standard prior replaces that from G_T
        if self.prior == "standard" or self.moments is None:
            entropy = dim * (math.log(math.sin(T)) + 0.5 * math.log(2 * math.pi * math.e))
            log_prob = log_prob - entropy - mean_log_G(at(T)) - 0.5 * clean.square().sum(1) / math.tan(T) ** 2
        log_prob = log_prob - 0.5 * integral
        if not bool(log_prob.isfinite().all()):
            point = int((~log_prob.isfinite()).nonzero()[0])
            raise FloatingPointError(
                f"the cross-check's log p of point {point} is {float(log_prob[point])}: the score is not finite there; "
                "try a larger sde.eps or dtype=float64"
            )
        return Estimate(log_prob, 0.5 * variance.sqrt(), counted.evaluations / max(1, count))


def uniform(randn_like: Callable[[Tensor], Tensor], x: Tensor, n: int) -> Tensor:
    """Returns n uniform numbers for each of x (B, *), shape (B, n), from normals, the one source of random numbers."""
    normals = [randn_like(x).flatten(1) for _ in range(-(-n // math.prod(x.shape[1:])))]
    cut = torch.cat(normals, dim=1)[:, :n]
    return torch.special.ndtr(cut if x.device.type == "mps" else cut.double())
