"""The errors of log p at the points that were scored, in nats, each by itself; see :mod:`scoresde.tasks.likelihood`."""

import logging
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, ScoreFn

from .batches import batches
from .conditions import conditioned_on
from .effort import PILOT
from .points import shuffled
from .scoring import Scoring, undequantised

log = logging.getLogger(__name__)

CHECKED = 256  # points at which the start's correction is checked
UNRESOLVED = 0.01  # share of points with detail below the noise of eps; a smaller one is taken for outliers


@dataclass(frozen=True)
class LikelihoodErrors:
    """Measures the errors of log p.

    Arguments:
        scoring: how the points were scored.
        r: the points (N, *) that were scored, in data units.
        y: of each point, (N, condition), or (1, condition) for all, as networks take it; None without a condition.
    """

    scoring: Scoring
    sde: SDE
    score: ScoreFn
    data: Data
    r: Tensor
    y: Tensor | None = None

    def solver(self) -> float:
        """Returns the root mean square change of log p at up to ``PILOT`` points when they are solved to a tenth of the
        tolerance, or with twice the steps where a method has fixed ones.
        """
        solver = replace(self.scoring.likelihood, redraw=False)  # or other steps would meet other probes
        finer = replace(solver, rtol=solver.rtol / 10, atol=solver.atol / 10, steps=2 * solver.steps)
        r, y = shuffled(self.r, self.y, PILOT)
        coarse, fine = (
            replace(self.scoring, likelihood=likelihood).score(
                self.sde, self.score, self.data, r, y, "checking the solver", leave=False
            )["log_prob"]
            for likelihood in (solver, finer)
        )
        return float((fine - coarse).square().mean().sqrt())

    def start(self) -> dict[str, float]:
        """Returns the error of the start's correction and the share of points with unresolved detail, from up to
        ``CHECKED`` points; warns where that share is large.
        """
        scoring, data = self.scoring, self.data
        (r, y), parts, dtype = shuffled(self.r, self.y, CHECKED), [], getattr(torch, scoring.dtype)
        draw = undequantised if data.levels is None else scoring.dequantisation.draw
        for batch in batches(len(r), scoring.batch):
            own = conditioned_on(self.score, y, batch.rows, scoring.device, dtype)
            uniform = batch.noise(scoring.seed, data.shape, torch.float64, "cpu", "dequantisation")
            probes = batch.noise(scoring.seed, data.shape, dtype, scoring.device, "start")
            x = draw(self.sde, data, r[batch.rows], uniform.uniform()).x.to(scoring.device, dtype)
            found = scoring.likelihood.start_error(self.sde, own, x, probes)
            parts.append(torch.stack([found.difference, found.assumed, found.detail]).double().cpu())
        difference, assumed, detail = torch.cat(parts, 1)
        spread = float(difference.var()) / len(difference) if len(difference) > 1 else 0.0
        error, unresolved = math.hypot(float(difference.mean()), math.sqrt(spread)), detail > 0.5
        share = float(unresolved.double().mean())
        if share >= UNRESOLVED:
            error = math.hypot(error, float(assumed.mean()))
            warn_of_unresolved_detail(self.sde, share, float(detail[unresolved].quantile(0.9)))
        return {"start_error_nats": error, "start_unresolved_share": share}

    def prior(self, x: Tensor) -> float:
        """Returns the error of the Gaussian that stands for p_T.

        Arguments:
            x: the points (N, *) as they were scored, in data units; integers dequantised.
        """
        found = self.scoring.likelihood.reference(self.r).divergence_at_end(self.data.encode(x), self.sde)
        return math.hypot(found, math.sqrt(2 * found / len(self.r)))  # log p/q has variance 2 KL

    def metrics(self, result: dict[str, Tensor], nll_stderr: float, ode_error: float | None = None) -> dict[str, float]:
        """Returns the errors by the names of the metrics, each by itself and all together.

        Arguments:
            result: of :meth:`Scoring.score` at the points.
            nll_stderr: the standard error of the mean over the points.
            ode_error: the solver's error if it was measured before; None to measure it.
        """
        stderr, start = result["probe_stderr"], result["start_term"]
        metrics = {"ode_error_nats": self.solver() if ode_error is None else ode_error}
        if bool((stderr != 0).any()):
            metrics["probe_stderr_nats"] = float(stderr.square().mean().sqrt()) / math.sqrt(len(self.r))
        if bool((start != 0).any()):
            metrics |= {"start_term_nats": float(start.mean()), **self.start()}
        if bool((result["prior_term"] != 0).any()):
            metrics["prior_term_nats"] = float(result["prior_term"].mean())
            metrics["prior_error_nats"] = self.prior(result["x"])
        computed = (metrics.get(f"{what}_error_nats", 0.0) for what in ("ode", "start", "prior"))
        together = math.hypot(nll_stderr, *computed)
        metrics["nll_uncertainty_nats"] = together
        if self.data.levels:
            metrics["bits_per_dim_uncertainty"] = self.data.bits_per_dim(together)
        return metrics


def warn_of_unresolved_detail(sde: SDE, share: float, detail: float) -> None:
    """Warns that the noise of eps hides detail of the data at a share of the points, and says what would show it.

    Arguments:
        detail: the noise of eps in the variance along a direction, as a share; see
            :class:`scoresde.likelihood.likelihood.StartError`.
    """
    noise = math.exp(-float(sde.ends()[1]))
    finest = noise * math.sqrt(max(1 - detail, 1e-6) / detail)  # s in detail = noise^2/(s^2 + noise^2)
    log.warning(
        "%.0f %% of the points lie where the data have detail of about %.2g in model units, and the noise of "
        "sde.eps=%s is %.2g: log p takes that detail to be Gaussian, and its error cannot be bounded; type %s, "
        "which trains another network",
        100 * share,
        finest,
        sde.eps,
        noise,
        less_noise(sde, finest / 20),
    )


def less_noise(sde: SDE, noise: float) -> str:
    """Returns what to type for an SDE whose noise at eps, sigma/alpha in model units, is at most 1.1 ``noise``."""
    t = float(sde.time(torch.tensor(-math.log(noise), dtype=torch.float64)))
    try:
        finer = replace(sde, eps=float(f"{t:.2g}"))
        if math.exp(-float(finer.ends()[1])) <= 1.1 * noise:  # t is rounded to two digits
            return f"sde.eps={t:.2g}"
    except ValueError:  # not every SDE has so little noise
        pass
    return f"sde=edm sde.eps={noise:.2g}"


def warn_of_noisy_weights(stderr: Tensor, samples: int) -> None:
    """Warns where the random probes' standard errors (N,) may show in a mean of weights over ``samples`` points."""
    error = float(stderr.square().mean().sqrt())
    if not error <= 0.3:  # so that NaN, the unknown error of a single probe, warns too
        log.warning(
            "log p of a point has a standard error of %s nats over the random probes, and dequantisation.samples=%s"
            " averages its exponential, which may make the bound look better than it is: type likelihood=exact, or"
            " more probes",
            f"{error:.2f}" if math.isfinite(error) else "unknown",
            samples,
        )
