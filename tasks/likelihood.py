r"""Scores held-out data, or the user's own points, in nats and in bits per dimension, with error bars.

Four errors are reported, each by itself, in nats:

* ``nll_stderr``: the standard error of the mean over the points. It includes the spread of the random probes, whose
  share is ``probe_stderr_nats``.
* ``ode_error_nats``: the solver's error, the root mean square change of log_prob at up to 32 points when the tolerance
  is divided by ten, or the fixed steps doubled, with the same fixed probes.
* ``start_error_nats``: the error of the start's correction, the mean difference of the answers from two noise levels at
  up to 256 points, and its standard error (``start_term_nats`` is what the correction added; see
  :mod:`scoresde.likelihood.deblur`). ``start_unresolved_share`` is the share of these points where the data have detail
  finer than the noise of eps, which the correction takes to be Gaussian. If the share is 0.01 or more, the whole
  correction beyond its first order counts as error, and a warning says that the error cannot be bounded.
* ``prior_error_nats``: the error of the Gaussian of the data's moments, which stands for p_T: the divergence of p_T
  from it, estimated from the points' third and fourth cumulants, and the spread that goes with that divergence
  (``prior_term_nats`` is what that Gaussian changed against the prior N(0, sigma(T)^2 I)).

``nll_uncertainty_nats`` is the root of the sum of the four squares. It is left out where values of the data repeat: the
NLL then depends on sde.eps, and no error bar covers that (:mod:`scoresde.data.repeats`).

**The requested error** (``likelihood.error``, in nats per dimension, for integers in bits per dimension) chooses the
tolerance, the probes and the points that are left open (:mod:`scoresde.tasks.parts.effort`). A number requests
``nll_uncertainty_nats``, which includes the points' own spread: the number of points is then chosen too, unless
``count`` or ``points`` is given. ``auto`` requests the error of the computation, without the points' spread, and
follows from the digits that are shown: 1e-3 bits/dim, a tenth of the second decimal with which likelihoods of integers
are reported; or 1e-4 nats per dimension, the last digit on the screen. If the user gives a tolerance, ``auto`` chooses
nothing. ``likelihood_error_asked_*`` and ``likelihood_error_reached_*`` end in their unit; a line of the log, for a
number a warning, says which error is too large.

For integer data, log_prob is a lower bound on log P of the integers, and bits_per_dim an upper bound on -log2 P per
dimension; ``bound`` says which (:mod:`scoresde.likelihood.dequantisation`). With K > 1 points of a bin,
``sampling_gain_nats`` is what they gained over the plain bound. Random probes then stand in an exponent: their error n
of log p, of mean 0, has E[exp n] > 1 and *raises* the log of the mean weight, by up to half the variance of n.
Therefore all points of a bin meet the same probes, and only the part of the errors that they do not share raises it;
the exact trace has no such error.
"""

import logging
import math
import time
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import CrossCheck, Dequantisation, Likelihood, UniformDequantisation
from scoresde.likelihood.likelihood import TIGHT
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.parts.conditions import as_written, columns_of, conditioned_on, conditions_of, encoded
from scoresde.tasks.parts.crosscheck import against_crosscheck, cross_check
from scoresde.tasks.parts.effort import Effort, choose
from scoresde.tasks.parts.ground_truth import against_data, against_exact_score
from scoresde.tasks.parts.likelihood_errors import LikelihoodErrors, warn_of_noisy_weights
from scoresde.tasks.parts.likelihood_pictures import heat_map, ranking
from scoresde.tasks.parts.points import points_of, shuffled
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.requested_error import per_dim, reached, target_of, unit_of
from scoresde.tasks.parts.scoring import Scoring
from scoresde.tasks.parts.statistics import mean_and_stderr

from .task import Job, Task

log = logging.getLogger(__name__)

ADDED = 2  # how often points are added at most, where the first were too few


@dataclass(frozen=True)
class LikelihoodTask(Task):
    """Scores points and reports their mean negative log-likelihood with its errors; see the module's text.

    Writes likelihood.npz; for planar data of one density, and for one number given one number that varies, the density
    as density.png; for images the most and the least likely as likelihood.png.

    Arguments:
        likelihood: how log p is computed.
        dequantisation: which points of its bin stand for an integer; continuous data stand for themselves.
        crosscheck: another estimate of log p at the same points, without an ODE; None for none. ``crosscheck_pull`` is
            the number of standard errors by which the ODE's mean log p exceeds it. The pull is of order 1 for an exact
            score; a larger one shows that the network's two estimates disagree (:mod:`scoresde.likelihood.immse`).
        count: the number of held-out points; None for 10,000 vectors or 256 images, or all where there are fewer, or as
            many as a ``likelihood.error`` takes.
        points: a file of points in data units to score instead: ``count`` of them, drawn at random, or all.
        batch: the number of points per batch; the results do not depend on it.
        seed: the seed of the probes, of the dequantisation and of the cross-check.
        device, dtype: where, and in which precision the score is evaluated.
    """

    conditions: ClassVar[str] = "each"
    reports_density: ClassVar[bool] = True
    refuses_guidance: ClassVar[bool] = True

    likelihood: Likelihood
    dequantisation: Dequantisation = field(default_factory=UniformDequantisation)
    crosscheck: CrossCheck | None = None
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        self.scoring  # noqa: B018 (its own checks)
        if self.crosscheck is None:
            return
        if self.dequantisation != UniformDequantisation():
            raise ValueError(
                f"task/crosscheck compares densities, and dequantisation, here {self.dequantisation.title} with "
                f"samples={self.dequantisation.samples}, makes a bound of them; leave one of the two out"
            )
        for key in ("start", "prior"):  # which decide whose density is estimated
            ours = getattr(self.likelihood, key)
            theirs, wanted = getattr(self.crosscheck, key, ours), self.crosscheck.same.get(key, ours)
            if not ours == theirs == wanted:
                has_key = key in {f.name for f in fields(self.crosscheck)}
                raise ValueError(
                    f"`likelihood`.{key}={ours} and `crosscheck`.{key}={theirs} are not of one density; type "
                    f"`likelihood`.{key}={wanted}" + (f" `crosscheck`.{key}={wanted}" if has_key else "")
                )

    @property
    def scoring(self) -> Scoring:
        """Scores the points with this task's settings."""
        return Scoring(self.likelihood, self.dequantisation, self.batch, self.seed, self.device, self.dtype)

    @property
    def free(self) -> bool:
        """True if the requested error decides the number of points to score."""
        return isinstance(self.likelihood.error, float | int) and self.count is None and self.points is None

    def chosen(self, data: Data, quiet: bool = False) -> tuple[Tensor, Tensor | None]:
        """Returns the points (N, *) in data units, and the y of each, (N,) or (N, C); None without a condition."""
        r = points_of(data, self.points, len(data.test) if self.free else self.count, quiet)
        return r, conditions_of(data, self.points, len(r), quiet)

    def check(self, sde: SDE, data: Data) -> None:
        _, y = self.chosen(data)
        several = y is not None and len(encoded(data, y)) > 1
        if self.crosscheck is not None and several and not self.crosscheck.apart:
            raise ValueError(
                "this task/crosscheck finds one normaliser for all points, and each y has its own; type "
                "condition=VALUE, one for all points, or task/crosscheck=immse"
            )

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        r, y = self.chosen(data, quiet=True)
        c = encoded(data, y)
        started = time.monotonic()
        # log p of the points
        target = target_of(self.likelihood, data)
        effort = self.effort(sde, score, data, r, c, target)
        scoring = replace(self.scoring, likelihood=effort.likelihood)
        result = scoring.score(sde, score, data, r[: effort.count], c)
        if self.free:
            result = more_points(scoring, sde, score, data, r, result, c, target)
        r = r[: len(result["log_prob"])]
        y, c = (v if v is None or len(v) == 1 else v[: len(r)] for v in (y, c))
        seconds = time.monotonic() - started
        names = ["x", "log_prob", "z", "probe_stderr"]
        if self.crosscheck is not None:
            columns, shared = cross_check(self.crosscheck, scoring, sde, score, data, result["x"], c)
            result |= columns
            names += ["crosscheck_log_prob", "crosscheck_stderr"]
        written = columns_of(data) | ({} if y is None else as_written(data.condition, y))
        record.arrays("likelihood", **{key: result[key].numpy() for key in names}, **written)
        # the mean and its errors
        metrics = self.mean(data, result)
        errors = LikelihoodErrors(scoring, sde, score, data, r, c)
        metrics |= errors.metrics(result, metrics["nll_stderr"], effort.ode_error)
        if job.data_metrics:  # where values repeat the NLL depends on eps, which no error bar covers
            metrics["nll_uncertainty_nats"] = math.nan
        if target is not None:
            metrics |= reached(scoring.likelihood, data, metrics, target)
        # the comparison with exact answers and with the cross-check
        own = conditioned_on(score, encoded(data, y), slice(None), self.device, getattr(torch, self.dtype))
        metrics |= against_data(data, result, y, self.points is None, metrics)
        metrics |= against_exact_score(scoring, sde, own, data, result)
        if self.crosscheck is not None:
            metrics |= against_crosscheck(result, shared)
        self.show(scoring, sde, score, data, result, y, c is None or len(c) == 1, record)
        return metrics | {"nfe": float(result["nfe"]), "seconds": seconds}

    def mean(self, data: Data, result: dict[str, Tensor]) -> dict:
        """Returns the mean negative log-likelihood of the points and its standard error, in nats and for integers in
        bits a dimension; for integers also the bound's name, and what K > 1 points of a bin gained.
        """
        nll, nll_stderr = mean_and_stderr(-result["log_prob"])
        metrics = {"count": len(result["log_prob"]), "nll_nats": nll, "nll_stderr": nll_stderr}
        if data.levels:
            metrics |= {"bits_per_dim": data.bits_per_dim(nll), "bits_per_dim_stderr": data.bits_per_dim(nll_stderr)}
            metrics["bound"] = self.dequantisation.bound
            if self.dequantisation.samples > 1:
                metrics["sampling_gain_nats"] = float(result["gain"].mean())
                warn_of_noisy_weights(result["probe_stderr"], self.dequantisation.samples)
        return metrics

    def effort(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, c: Tensor | None, target: float | None) -> Effort:
        """Returns the tolerance, the probes and the number of points for an error of ``target`` nats in the mean of log
        p, and logs them. If the target is None, returns the likelihood's own or default settings and all points.

        Arguments:
            r: the points (N, *) in data units.
            c: their encoded y, (N, condition), or (1, condition) for all; None without a condition.
        """
        if target is None:
            return Effort(self.likelihood.settled(data.dim), len(r))
        mixed, mixed_c = shuffled(r, c)

        def scored(likelihood: Likelihood, points: Tensor) -> dict[str, Tensor]:
            scoring = replace(self.scoring, likelihood=likelihood)
            return scoring.score(sde, score, data, points, mixed_c, "choosing an effort", leave=False)

        auto = self.likelihood.error == "auto"
        limits = (8, TIGHT) if auto else (256, 1e-8)  # the most probes, and the smallest tolerance
        effort = choose(self.likelihood, mixed, scored, target, None if self.free else len(r), *limits)
        probes = effort.likelihood.probes.estimates(data.dim)
        log.info(
            "likelihood.error=%s: an error of %.2g %s%s takes rtol=%g atol=%g%s%s, %s%s point%s",
            self.likelihood.error,
            per_dim(data, target),
            unit_of(data),
            " from the solver and the probes" if auto else "",
            effort.likelihood.rtol,
            effort.likelihood.atol,
            "" if effort.ode_error is None else f" (off by {per_dim(data, effort.ode_error):.1g})",
            f", {probes} probes" if effort.likelihood.random(data.dim) else ", the exact trace",
            "" if self.free else "the given ",
            f"{effort.count:,}",
            "" if effort.count == 1 else "s",
        )
        if effort.floor and not auto:
            log.warning(
                "likelihood.error=%s: no tolerance brings the solver's error below %.2g %s in %s; type dtype=float64, "
                "or a larger likelihood.error",
                self.likelihood.error,
                per_dim(data, effort.ode_error),
                unit_of(data),
                self.dtype,
            )
        return effort

    def show(
        self,
        scoring: Scoring,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        result: dict[str, Tensor],
        y: Tensor | None,
        one: bool,
        record: Record,
    ) -> None:
        """Draws the density of planar data or of one number given one number, or the images by log p.

        Arguments:
            y: of each point, in data units; None without a condition.
            one: whether all points are of one density p(x) or p(x | y).
        """
        number_given_number = data.shape == (1,) and not one and y[0].shape == (1,)
        if data.shape == (2,) and one or number_given_number:
            points = result["x"] if self.points else None
            record.picture(heat_map(scoring, sde, score, data, record, points, y))
        elif len(data.shape) == 3:
            record.picture(ranking(data, result, record))


def more_points(
    scoring: Scoring,
    sde: SDE,
    score: ScoreFn,
    data: Data,
    r: Tensor,
    result: dict[str, Tensor],
    y: Tensor | None,
    target: float,
) -> dict[str, Tensor]:
    """Scores more of the points r where those scored have a larger spread than the pilot had, for an error of
    ``target`` nats in their mean; returns the result over all points scored.

    Arguments:
        r: all points (N, *) in data units.
        result: of :meth:`Scoring.score` at the first of them.
        y: of all points, as :meth:`Scoring.score` takes it.
    """
    for _ in range(ADDED):
        have = len(result["log_prob"])
        if have == len(r):
            break
        # 0.85 is above the share by which the number was chosen (effort.POINTS): a slight excess adds no points
        wanted = min(len(r), math.ceil(float(result["log_prob"].var()) / (0.85 * target) ** 2))
        if wanted <= have:
            break
        more = scoring.score(sde, score, data, r[:wanted], y, skip=have)
        nfe = (have * result["nfe"] + (wanted - have) * more["nfe"]) / wanted
        result = {key: torch.cat([result[key], more[key]]) for key in result if key != "nfe"} | {"nfe": nfe}
    return result
