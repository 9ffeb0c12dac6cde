"""Runs task/crosscheck of task=likelihood: an estimate of log p without an ODE, at the points that the ODE scored.

The estimates are the subclasses of :class:`scoresde.likelihood.CrossCheck`.
"""

import math

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import CrossCheck
from scoresde.sde_lib import SDE, ScoreFn

from .batches import batches
from .conditions import conditioned_on
from .progress import progress
from .scoring import Scoring


def cross_check(
    crosscheck: CrossCheck, scoring: Scoring, sde: SDE, score: ScoreFn, data: Data, r: Tensor, y: Tensor | None = None
) -> tuple[dict[str, Tensor], bool]:
    """Returns crosscheck_log_prob (N,) in nats and data units at r (N, *) with its crosscheck_stderr (N,) in nats, and
    whether all points share one error.

    Arguments:
        crosscheck: the estimate.
        scoring: its batch, seed, device and dtype are used.
        r: the points in data units; integers must be dequantised.
        y: (N, condition), or (1, condition) for all points, as networks take it; None without a condition.
    """
    parts, dtype = [], getattr(torch, scoring.dtype)
    with progress("cross-checking", len(r)) as advance:
        for batch in batches(len(r), scoring.batch, advance):
            found = crosscheck(
                sde,
                conditioned_on(score, y, batch.rows, scoring.device, dtype),
                data.encode(r[batch.rows]).to(scoring.device, dtype),
                batch.noise(scoring.seed, data.shape, dtype, scoring.device, "crosscheck"),
                on_step=batch.on_step,
            )
            parts.append((found.model_log_prob.double().cpu() + data.log_det, found.stderr.double().cpu()))
    log_prob, stderr = (torch.cat(column) for column in zip(*parts, strict=True))
    return {"crosscheck_log_prob": log_prob, "crosscheck_stderr": stderr}, found.shared


def against_crosscheck(result: dict[str, Tensor], shared: bool) -> dict:
    """Returns the metrics: minus the mean of the cross-check's log_prob, its standard error over the noise, and the
    number of standard errors by which the ODE's mean log_prob exceeds that mean.

    Arguments:
        result: of :meth:`Scoring.score`, with the columns of :func:`cross_check`.
        shared: whether all points share one error of the cross-check.
    """
    count, theirs = len(result["log_prob"]), result["crosscheck_log_prob"]
    stderr, probes = (float(result[k].square().sum().sqrt()) / count for k in ("crosscheck_stderr", "probe_stderr"))
    stderr = float(result["crosscheck_stderr"].mean()) if shared else stderr
    difference, both = float((result["log_prob"] - theirs).mean()), math.hypot(stderr, probes)
    pull = difference / both if both else math.nan  # both estimates of a Gaussian are exact
    return {"crosscheck_nll_nats": -float(theirs.mean()), "crosscheck_stderr": stderr, "crosscheck_pull": pull}
