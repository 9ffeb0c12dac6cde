r"""Chooses the tolerance, the number of probes and the number of points for a requested error.

The mean of -log p over N points, each by k random probes, solved to the tolerance tau, has the error

.. math:: \Delta^2 \approx \frac{s^2 + p^2/k}{N} + e(\tau)^2,

where s is the spread of log p over the points, p the spread of one probe, and e(tau) the solver's error at a point: the
root mean square change of log p when it is solved to a tenth of the tolerance. All three are measured on a pilot, the
first ``PILOT`` points, which are a random subset. If the number of points is given and below 4 ``PILOT``, the pilot is
a quarter of them, but at least ``LEAST``. The cheapest numbers are chosen that leave

* the solver ``SHARE`` of the requested error. The tolerance falls by factors of ten from 1e-2 until e is small enough.
  A tolerance between the last two is tried, for which log e is taken to be linear in log tau;
* the probes ``SHARE`` of that error after N points, with k at least 2, which a standard error needs;
* the points ``POINTS`` of that error, if their number is free, and at least ``FEWEST`` points.

Values that the user gave are kept, and the others follow from them; if one of rtol and atol is given, the other has its
default. The three parts together may exceed the request by 7 %. The errors of the start and of the prior, which no
effort reduces, are left out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from scoresde.likelihood import Likelihood
from scoresde.sde_lib.ode import FIXED

PILOT = 32  # points of the pilot at most, since it is solved several times
LEAST = 8  # points of the pilot at least
SHARE = 0.5  # of the requested error, for the solver and for the probes
POINTS = 0.8  # of the requested error, for the points' spread and that of the likelihood's own number of probes
LADDER = tuple(10.0**-i for i in range(2, 10))  # tolerances
FEWEST = 64  # points at least to score: their spread is then estimated to a tenth


def refuse_error(likelihood: Likelihood | None, task: object) -> None:
    """Raises a ValueError if ``likelihood.error`` is a number, in a task that does not choose its effort by it."""
    if likelihood is not None and likelihood.error not in (None, "auto"):
        raise ValueError(
            f"likelihood.error={likelihood.error}: only task=likelihood chooses its effort by an error; leave it out "
            f"for {type(task).__name__}, and type likelihood.rtol=1e-4 likelihood.atol=1e-4"
        )


Scored = Callable[[Likelihood, Tensor], dict[str, Tensor]]
"""Maps a likelihood and points (N, *) in data units to log_prob and probe_stderr (N,) in nats, with the same noise in
each call."""


@dataclass(frozen=True)
class Effort:
    """The chosen effort.

    Attributes:
        likelihood: with tolerance and probes set.
        count: the number of points to score.
        ode_error: e at the chosen tolerance in nats; None if the tolerance was not chosen.
        floor: whether e stays above its share at every tolerance tried, by rounding or since none is tight enough.
    """

    likelihood: Likelihood
    count: int
    ode_error: float | None = None
    floor: bool = False


def choose(
    likelihood: Likelihood,
    r: Tensor,
    scored: Scored,
    target: float,
    count: int | None,
    most_probes: int = 256,
    tightest: float = 1e-8,
) -> Effort:
    """Returns the effort for an error of ``target`` nats in the mean of log p over points of r (N, *) in data units.

    Arguments:
        r: the points, in a random order.
        scored: scores points by a likelihood.
        count: the number of points to score; None where the error decides, up to N.
        most_probes: the largest number of probes.
        tightest: the smallest tolerance, a power of ten.
    """
    dim, pilot = r[0].numel(), r[: PILOT if count is None else min(PILOT, max(LEAST, count // 4))]
    # the solver
    tolerance = error = None
    floor = False
    if likelihood.rtol is None and likelihood.atol is None and likelihood.method.split(".")[-1] not in FIXED:
        tolerance, error, floor = choose_tolerance(likelihood, pilot, scored, SHARE * target, tightest)
    # the points and the probes
    random, wanted = likelihood.random(dim), count or len(r)
    probes = None
    if random or count is None and len(pilot) > 1:
        usual = likelihood.settled(dim, tolerance)
        found, k = scored(usual, pilot), usual.probes.estimates(dim)
        probe_variance = float(found["probe_stderr"].square().mean())  # p^2/k; NaN, unknown, for one probe
        one_probe = 0.0 if math.isnan(probe_variance) else probe_variance * k
        variance = float(found["log_prob"].var()) if len(pilot) > 1 else 0.0  # one point has no spread
        spread = max(0.0, variance - one_probe / k)
        if count is None:
            a_point = spread + one_probe / k
            wanted = min(len(r), max(FEWEST, math.ceil(a_point / (POINTS * target) ** 2)))
        if random:
            probes = min(most_probes, max(2, math.ceil(one_probe / wanted / (SHARE * target) ** 2)))
    return Effort(likelihood.settled(dim, tolerance, probes), wanted, error, floor)


def choose_tolerance(
    likelihood: Likelihood, pilot: Tensor, scored: Scored, target: float, tightest: float
) -> tuple[float, float, bool]:
    """Returns the largest tolerance at which e is at most the target, e there, and False. If there is none from 1e-2
    down to ``tightest``, returns the tightest one, e there, and True; or the better of the last two, where below 1e-5 a
    tenth of the tolerance no longer halves e.

    Arguments:
        target: in nats.
    """
    fixed = replace(likelihood, redraw=False)  # or other steps would meet other probes

    def log_prob(tolerance: float) -> Tensor:
        return scored(fixed.settled(pilot[0].numel(), tolerance), pilot)["log_prob"]

    def rms(change: Tensor) -> float:
        return float(change.square().mean().sqrt())

    ladder = [rung for rung in LADDER if rung > 0.05 * tightest]  # one beyond the tightest shows the error there
    coarse, before = log_prob(ladder[0]), None
    for tolerance, tighter in zip(ladder[:-1], ladder[1:], strict=True):
        fine = log_prob(tighter)
        error = rms(coarse - fine)
        if error <= target:
            break
        if before is not None and error > 0.5 * before[1] and tolerance < 1e-5:  # rounding, not the solver, decides
            return (*before, True) if before[1] < error else (tolerance, error, True)
        coarse, before = fine, (tolerance, error)
    else:
        return tolerance, error, True
    if before is None or error == 0:
        return tolerance, error, False
    # between this tolerance and the one before, with a margin of a fifth
    slope = math.log(before[1] / error) / math.log(before[0] / tolerance)
    between = float(f"{tolerance * (0.8 * target / error) ** (1 / slope):.2g}")
    if between <= tolerance:
        return tolerance, error, False
    error_between = rms(log_prob(between) - fine)
    return (between, error_between, False) if error_between <= target else (tolerance, error, False)
