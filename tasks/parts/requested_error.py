"""The error that ``likelihood.error`` requests of task=likelihood: its unit, its size, and whether it was reached.

Nats of a point are nats of a whole example; the unit of the request is per dimension.
"""

import logging
import math

from scoresde.data import Data
from scoresde.likelihood import Likelihood

log = logging.getLogger(__name__)

SHOWN = {"bits/dim": 1e-3, "nats a dimension": 1e-4}  # the value of likelihood.error=auto, by unit
SPREAD = "the points' own spread"


def unit_of(data: Data) -> str:
    """Returns the unit of likelihood.error."""
    return "bits/dim" if data.levels else "nats a dimension"


def per_dim(data: Data, nats: float) -> float:
    """Converts nats of a point to the unit of likelihood.error."""
    return nats / data.dim / (math.log(2) if data.levels else 1.0)


def target_of(likelihood: Likelihood, data: Data) -> float | None:
    """Returns the requested error in nats of a point; None where none is requested."""
    error = likelihood.error
    if error == "auto":
        is_open = likelihood.rtol is None and likelihood.atol is None
        error = SHOWN[unit_of(data)] if is_open else None
    return None if error is None else error / per_dim(data, 1.0)


def reached(likelihood: Likelihood, data: Data, metrics: dict, target: float) -> dict[str, float]:
    """Returns the requested error and the error that is left, in the unit of the request. Warns where the error left is
    more than 5 % above the requested one, or unknown. For ``auto``, which leaves the points' spread out, logs a line
    instead, unless that spread hides the error or the error is unknown.

    Arguments:
        metrics: with the errors of :class:`scoresde.tasks.parts.likelihood_errors.LikelihoodErrors`.
        target: the requested error in nats of a point.
    """
    auto, hidden = likelihood.error == "auto", 0.0
    parts = errors_left(metrics, auto)
    if auto:
        hidden = parts.pop(SPREAD) / 5  # beside the spread so small an error adds 2 % at most
    whole = math.hypot(*parts.values())
    if not whole <= max(1.05 * target, hidden) and not (auto and math.isnan(whole)):
        log_missed(likelihood, data, parts, whole, one_point=metrics.get("count") == 1)
    unit = "nats_per_dim" if data.levels is None else "bits_per_dim"
    return {
        f"likelihood_error_asked_{unit}": per_dim(data, target),
        f"likelihood_error_reached_{unit}": per_dim(data, whole),
    }


def errors_left(metrics: dict, auto: bool) -> dict[str, float]:
    """Returns the errors in nats of a point, by their sources in words; NaN for one that is unknown.

    Arguments:
        auto: whether ``likelihood.error`` is ``auto``.
    """
    probes = metrics.get("probe_stderr_nats", 0.0)
    if math.isnan(probes) and not auto:
        probes = 0.0  # one probe has no standard error, and the spread over the points holds what it adds
    return {
        SPREAD: max(metrics["nll_stderr"] ** 2 - probes**2, 0.0) ** 0.5,  # NaN for one point
        "the solver": metrics["ode_error_nats"],
        "the random probes": probes,
        "the start's correction": metrics.get("start_error_nats", 0.0),
        "the prior": metrics.get("prior_error_nats", 0.0),
    }


def log_missed(likelihood: Likelihood, data: Data, parts: dict[str, float], whole: float, one_point: bool) -> None:
    """Says that the requested error is not reached or unknown, which part of it is the largest, and what to type."""
    auto = likelihood.error == "auto"
    remedies = {
        SPREAD: "give more held-out points, or ask for less",
        "the solver": "leave likelihood.rtol and likelihood.atol out, or type dtype=float64",
        "the random probes": "type a larger likelihood.probes.count, or likelihood=exact"
        if auto
        else "type likelihood=exact, or leave likelihood.probes.count out if it is given",
        "the start's correction": "choose a smaller noise at sde.eps",
        "the prior": "choose a larger noise at sde.T",
    }
    worst = max(parts, key=lambda key: math.inf if math.isnan(parts[key]) else parts[key])
    if math.isnan(whole):
        log.warning(
            "likelihood.error=%s cannot be confirmed: the error from %s is unknown; %s",
            likelihood.error,
            worst,
            "one point has no spread, give two or more" if one_point else remedies[worst],
        )
        return
    (log.info if auto else log.warning)(
        "likelihood.error=%s is not reached: %.2g %s are left, %.2g of them from %s; %s",
        likelihood.error,
        per_dim(data, whole),
        unit_of(data),
        per_dim(data, parts[worst]),
        worst,
        remedies[worst],
    )
