r"""The variational bound of the ancestral chain, term by term.

A grid of times t_1 < ... < t_N, usually with t_N = T, makes a chain of any SDE: x_N from N(0, sigma(t_N)^2 I), then one
ancestral step between neighbouring times, and last a decoder p(x_0 | x_1). With q(x_s | x_t, x_0) the posterior of the
forward process,

.. math::
    -\log p(x_0) \;\le\; \underbrace{KL\bigl(q(x_N|x_0)\,\|\,p(x_N)\bigr)}_{L_N}
    + \sum_{n=2}^N \underbrace{\mathbb E\,KL\bigl(q(x_{n-1}|x_n, x_0)\,\|\,p(x_{n-1}|x_n)\bigr)}_{L_{n-1}}
    + \underbrace{\mathbb E\bigl[-\log p(x_0|x_1)\bigr]}_{L_0}

(arXiv 2006.11239, eq. 5; 1503.03585). All divergences are between Gaussians. For a step t -> s with
x_t | x_s ~ N(a x_s, b^2 I), in terms of the error e = ||z + sigma(t) score(x_t, t)||^2 of the noise z in x_t,

=============  ==================================  ===================================================================
variance       of p(x_s | x_t)                     :math:`L`
=============  ==================================  ===================================================================
posterior      :math:`b^2\sigma_s^2/\sigma_t^2`    :math:`\frac{b^2}{2 a^2 \sigma_s^2}\,e
                                                   = \tfrac12(\gamma_s - \gamma_t)\,\|x_0 - \hat x_0\|^2`
forward        :math:`b^2`                         :math:`\frac{b^2}{2 a^2 \sigma_t^2}\,e
                                                   + \tfrac D2(\rho - 1 - \log\rho)`, with
                                                   :math:`\rho = \sigma_s^2/\sigma_t^2`
=============  ==================================  ===================================================================

where gamma = (alpha/sigma)^2. The posterior's variance is optimal for a single point. The forward step's is optimal for
data N(0, I) if alpha^2 + sigma^2 = 1 (section 3.2 of 2006.11239) and, where sigma is small and alpha near 1, for any
data that have a density. In general the optimum grows with the mean of e/D. Next to the data a step of a chain may
double sigma^2 however many steps there are; the wrong variance costs a fraction of a nat a dimension there, and the
bound does not become tight.

The decoder is N(x_0_hat, (sigma/alpha)^2 I) at t_1, with x_0_hat the denoised x_1 (Tweedie). For continuous data L_0 is
minus its log-density; for integers, whose x_0 is a bin's centre, minus the log of the mass that it puts on the bin, the
first and the last bin open (eq. 13 of 2006.11239). Its mean and standard deviation are those of the chain's last step
there up to O(beta_1): the variance is beta_1 there and beta_1/(1 - beta_1) here.

The bound is on the density of this sampler, not on that of the probability flow. For the exact score both tend to the
data's density as the grid is refined. For a network they are two models, and their difference may have either sign.

Where sigma is small, e is almost ||z||^2. So the control variate is the same error e_G for data N(0, I) on the same z,
whose score is -x_t/V with V = alpha^2 + sigma^2, and whose mean over z has a closed form (``control_variate``):

.. math:: e_G = \frac{\alpha^2}{V^2}\,\|\alpha z - \sigma x_0\|^2, \qquad
          \mathbb E\,e_G = \frac{\alpha^2}{V^2}\,(\alpha^2 D + \sigma^2\|x_0\|^2) .

A subset of the terms gives an unbiased estimate of their sum by stratified sampling: the length of a step is the fall
of w = log(1 + gamma) in it (about proportional to its term for data of unit variance), the sum of the lengths is cut
into equal strata, and two places are drawn in each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, Counted, ScoreFn, per_sample

from .immse import uniform


@dataclass(frozen=True)
class BoundTerms:
    """The bound at each point and its terms, in nats; L_{n-1} belongs to the step from t_n to t_{n-1}.

    Attributes:
        model_log_prob: the lower bound on log p(x), a density in model units, or on log P of integers, without
            units, shape (B,), float64 (float32 on mps).
        prior, diffusion, reconstruction: L_N, the sum of all L_{n-1}, and L_0, (B,); their sum is minus the bound.
        stderr: the standard error of the bound over the noise, shape (B,).
        sums, draws: for each step the sum over points of the evaluated values of L_{n-1}, and their number; shape
            (N - 1,), in the order of t_2 ... t_N.
        nfe: network evaluations a point.
    """

    model_log_prob: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    stderr: Tensor
    sums: Tensor
    draws: Tensor
    nfe: float


@dataclass(frozen=True)
class VariationalBound:
    """(sde, score, x, times) -> a lower bound on log p(x), with its terms.

    Arguments:
        variance: the variance of the reverse steps, ``posterior`` or ``forward``; ``auto`` is ``forward`` for a density
            and ``posterior`` for integers. See the module docstring.
        terms: the number of L_{n-1} evaluated for each point, even; None for all of them, once each.
        control_variate: whether e_G less its mean is subtracted from e: the same mean, and a smaller variance where e_G
            is close to e.
    """

    variance: Literal["auto", "posterior", "forward"] = "auto"
    terms: int | None = None
    control_variate: bool = True

    def __post_init__(self):
        if self.variance not in ("auto", "posterior", "forward"):
            raise ValueError(f"`variance`={self.variance} must be auto, posterior or forward")
        if self.terms is not None and (self.terms < 2 or self.terms % 2):
            raise ValueError(
                f"`terms`={self.terms} must be even and at least 2; type `terms`=64, or leave it out for all terms"
            )

    @torch.no_grad()
    def __call__(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        times: Tensor,
        edges: tuple[Tensor, Tensor] | None = None,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
    ) -> BoundTerms:
        """Returns the bound at x, shape (B, *), in model units.

        Arguments:
            score: any callable (x, t) -> score.
            times: t_N > ... > t_1, falling, float64, shape (N,), N at least 2; a sampler's grid.
            edges: for integers, the lower and upper edges of the bins in model units, of x's shape: see
                :func:`bin_edges`; None for a density.
            randn_like: the source of normals, for the noise and for the choice of terms.
            on_step: called with the share of the evaluations done.

        Raises:
            FloatingPointError: the score is not finite.
            ValueError: the times are not those of a grid.
        """
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        counted, clean = Counted(score), x.flatten(1).to(wide)
        count, dim = clean.shape
        times = check_times(sde, times)
        fits = "forward" if edges is None else "posterior"
        steps = Steps(sde, times.flip(0), fits if self.variance == "auto" else self.variance, clean)
        evaluations, done = self.count(len(times) - 1) + 2, 0

        def error(t: Tensor) -> tuple[Tensor, Tensor]:
            """Returns e less its control variate (B,), at t (B,) for a fresh noise z, and z + sigma score (B, D)."""
            nonlocal done
            z = randn_like(x)
            t = t.to(x.device, wide)
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            x_t = per_sample(alpha, x).to(x.dtype) * x + per_sample(sigma, x).to(x.dtype) * z
            residual = z.flatten(1).to(wide) + sigma[:, None] * counted(x_t, t.to(x.dtype)).flatten(1).to(wide)
            e = residual.square().sum(1)
            if self.control_variate:
                share = (alpha / (alpha.square() + sigma.square())).square()
                gaussian = (alpha[:, None] * z.flatten(1).to(wide) - sigma[:, None] * clean).square().sum(1)
                mean = alpha.square() * dim + sigma.square() * clean.square().sum(1)
                e = e - share * (gaussian - mean)
            if not bool(e.isfinite().all()):
                which = int((~e.isfinite()).nonzero()[0])
                raise FloatingPointError(
                    f"the score is not finite for point {which} at t={float(t[which]):.4g}; try a larger sde.eps"
                )
            done += 1
            if on_step:
                on_step(done / evaluations)
            return e, residual

        def term(n: Tensor) -> Tensor:
            """Returns L of the steps n (B,), shape (B,)."""
            return steps.weight[n] * error(steps.t[n])[0] + steps.constant[n]

        chain = added_up(term, steps.lengths, self.terms, x, randn_like)
        # the decoder at t_1; two draws of L_0 give its error
        first = times[-1].expand(count)
        alpha, sigma = float(sde.alpha(times[-1])), float(sde.sigma(times[-1]))
        pair = []
        for _ in range(2):
            e, residual = error(first)
            if edges is None:
                pair.append(0.5 * e + dim * math.log(sigma / alpha * math.sqrt(2 * math.pi)))
            else:
                decoded = clean + sigma / alpha * residual  # (x_1 + sigma^2 score)/alpha
                lower, upper = ((edge.flatten(1).to(wide) - decoded) * (alpha / sigma) for edge in edges)
                pair.append(-log_mass(lower, upper).sum(1))
        reconstruction = 0.5 * (pair[0] + pair[1])
        stderr = (chain.variance + 0.25 * (pair[0] - pair[1]).square()).sqrt()

        prior = 0.5 * (sde.alpha(times[0]) / sde.sigma(times[0])).square().to(clean) * clean.square().sum(1)
        log_prob = -(prior + chain.total + reconstruction)
        nfe = counted.evaluations / max(1, count)
        return BoundTerms(log_prob, prior, chain.total, reconstruction, stderr, chain.sums, chain.draws, nfe)

    def count(self, steps: int) -> int:
        """Returns the number of terms that are evaluated out of ``steps``."""
        return steps if self.terms is None else self.terms


@dataclass(frozen=True)
class Sum:
    """A sum of n terms.

    Attributes:
        total: the sum for each point, (B,).
        variance: the variance of ``total`` over the noise, (B,).
        sums, draws: of each term, the sum of its values over points, and their number, (n,).
    """

    total: Tensor
    variance: Tensor
    sums: Tensor
    draws: Tensor


def added_up(
    term: Callable[[Tensor], Tensor],
    lengths: Tensor,
    evaluations: int | None,
    x: Tensor,
    randn_like: Callable[[Tensor], Tensor],
) -> Sum:
    """Returns the sum of n terms for each of x (B, *): of all terms, or an unbiased estimate from a subset.

    Arguments:
        term: maps term numbers (B,) to one noisy value of each, (B,).
        lengths: the length of each term, (n,): two places are drawn in each of evaluations/2 strata of equal length.
        evaluations: the number of values for each point, even; None for all terms, once each. The variance is then
            estimated from differences of neighbouring terms, which overestimates it where neighbours differ without
            noise too, and is 0 for a single term. The first and the last term have one neighbour, which counts twice.
    """
    count, total, variance = len(x), lengths.new_zeros(len(x)), lengths.new_zeros(len(x))
    sums, draws = torch.zeros_like(lengths), torch.zeros_like(lengths)

    def value(n: Tensor) -> Tensor:
        """Returns the values of the terms n (B,), and adds them to ``sums`` and ``draws``."""
        values = term(n)
        sums.index_add_(0, n, values)
        draws.index_add_(0, n, torch.ones_like(values))
        return values

    if evaluations is None:
        before = None
        for i in range(len(lengths)):
            now = value(torch.full((count,), i, device=x.device))
            total = total + now
            if before is not None:
                ends = (i == 1) + (i == len(lengths) - 1)
                variance = variance + (0.5 + 0.25 * ends) * (now - before).square()
            before = now
        return Sum(total, variance, sums, draws)
    ends, places = lengths.cumsum(0), uniform(randn_like, x, evaluations).to(lengths)
    width = float(ends[-1]) / (evaluations // 2)
    for i in range(evaluations // 2):
        pair = []
        for j in (2 * i, 2 * i + 1):
            n = torch.searchsorted(ends, width * (i + places[:, j]).contiguous()).clamp_max(len(ends) - 1)
            pair.append(width / lengths[n] * value(n))
        total = total + 0.5 * (pair[0] + pair[1])
        variance = variance + 0.25 * (pair[0] - pair[1]).square()
    return Sum(total, variance, sums, draws)


class Steps:
    """The coefficients of the steps t_n -> t_{n-1}, n = 2 ... N, each of shape (N - 1,), on the device and in the dtype
    of x (B, D).

    Arguments:
        times: t_1 ... t_N, rising, float64.
        variance: ``posterior`` or ``forward``.

    Attributes:
        t: the times at which the score is evaluated, t_2 ... t_N.
        weight, constant: L = weight e + constant.
        lengths: the fall of w in each step.
    """

    def __init__(self, sde: SDE, times: Tensor, variance: str, x: Tensor):
        s, t = times[:-1], times[1:]
        a, b = sde.transition(s, t)
        sigma_s, sigma_t = sde.sigma(s), sde.sigma(t)
        if variance == "posterior":
            weight, constant = 0.5 * (b / (a * sigma_s)).square(), torch.zeros_like(b)
        else:
            log_ratio = 2 * (sigma_s.log() - sigma_t.log())
            weight = 0.5 * (b / (a * sigma_t)).square()
            constant = 0.5 * x.shape[1] * (torch.expm1(log_ratio) - log_ratio)
        w = torch.nn.functional.softplus(2 * sde.half_log_snr(times))  # log(1 + gamma)
        lengths = (w[:-1] - w[1:]).clamp_min(1e-30)
        self.t, self.weight, self.constant, self.lengths = (column.to(x) for column in (t, weight, constant, lengths))


def check_times(sde: SDE, times: Tensor) -> Tensor:
    """Returns the times in float64 on the CPU; ValueError unless two or more are given, fall and lie in (0, T]."""
    times = times.to("cpu", torch.float64)
    if times.ndim != 1 or len(times) < 2 or not bool((times[1:] < times[:-1]).all()):
        raise ValueError(f"the bound needs at least two falling times, it got {times.tolist()[:4]} ...")
    if not (0 < float(times[-1]) and float(times[0]) <= sde.T):
        raise ValueError(
            f"the bound's times run from {float(times[0])} to {float(times[-1])}; they must lie in (0, {sde.T}]"
        )
    return times


def bin_edges(data: Data, k: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the lower and upper edges of the bins of integers k (B, *) in model units, float64; the outer edges of
    the lowest and the highest level are infinite (arXiv 2006.11239, eq. 13).
    """
    k = k.double()
    lower, upper = data.encode(k), data.encode(k + 1)
    return lower.masked_fill(k <= 0, -math.inf), upper.masked_fill(k >= data.levels - 1, math.inf)


def log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """Returns log(Phi(upper) - Phi(lower)) for lower < upper, finite or infinite, with Phi the distribution function of
    N(0, 1). Intervals in the upper tail are mirrored to the lower one, where nothing cancels.
    """
    mirrored = lower + upper > 0
    low, high = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    above, below = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return above + torch.log(-torch.expm1(below - above))
