"""Compares log p with exact answers: the density of the data, and the density that an exact score knows."""

import math

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, ScoreFn

from .scoring import Scoring
from .statistics import mean_and_stderr


def against_data(
    data: Data, result: dict[str, Tensor], y: Tensor | None, held_out: bool, errors: dict[str, float]
) -> dict[str, float]:
    """Returns minus the mean of the data's own log p at the points, ``floor_nats`` (of held-out data an estimate of the
    entropy), and the gap between log p of the data and that of the model, ``gap_nats`` and ``gap_stderr``. Returns {}
    where the data's density is unknown, or 0 at a point, and for held-out points where ``condition=`` names numbers.

    Arguments:
        result: of :meth:`Scoring.score`.
        y: of each point, (N,) or (N, C); None without a condition.
        held_out: whether the points are held-out data, rather than the user's own.
        errors: ``ode_error_nats`` and ``start_error_nats``, which the gap's standard error includes.
    """
    condition = data.condition
    if held_out and condition is not None and not condition.classes and condition.asked is not None:
        return {}  # the held-out x have other y than those of condition=: their mean is no entropy and no divergence
    truth = data.true_log_prob(result["x"], y)
    if truth is None or not bool(truth.isfinite().all()):
        return {}
    gap, gap_stderr = mean_and_stderr(truth - result["log_prob"])
    gap_stderr = math.hypot(gap_stderr, *(errors.get(f"{what}_error_nats", 0.0) for what in ("ode", "start")))
    return {"floor_nats": -float(truth.mean()), "gap_nats": gap, "gap_stderr": gap_stderr}


def against_exact_score(
    scoring: Scoring, sde: SDE, score: ScoreFn, data: Data, result: dict[str, Tensor]
) -> dict[str, float]:
    """Returns ``prior_cost_nats``, what the prior in place of p_T takes off log p, and without random probes the
    solver's error, ``ode_error_mean_nats`` (the size of the mean) and ``ode_error_max_nats`` (the largest), for a score
    that knows its own density; {} for other scores, and for integers, whose log_prob is a bound.

    Arguments:
        score: conditioned on the y of the points, if there is a condition.
        result: of :meth:`Scoring.score`.
    """
    exact = getattr(score, "log_prob", None) if data.levels is None else None
    if exact is None:
        return {}
    x, z = (v.to(scoring.device, getattr(torch, scoring.dtype)) for v in (data.encode(result["x"]), result["z"]))
    jacobian = data.log_det
    if scoring.likelihood.start == "corrected":  # log p was integrated from alpha x
        alpha = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64)))
        x, jacobian = alpha * x, jacobian + data.dim * math.log(alpha)
    at_start = exact(x, torch.full((len(x),), sde.eps).to(x)).double().cpu() + jacobian
    terminal = exact(z, torch.full((len(z),), sde.T).to(z)).double().cpu()
    prior = sde.prior_log_prob(z.double().cpu()) + result["prior_term"]
    prior_cost = terminal - prior
    metrics = {"prior_cost_nats": float(prior_cost.mean())}
    if bool((result["probe_stderr"] == 0).all()):  # random probes would hide the solver's error
        error = result["log_prob"] - result["start_term"] + prior_cost - at_start
        metrics |= {"ode_error_mean_nats": float(error.mean().abs()), "ode_error_max_nats": float(error.abs().max())}
    return metrics
