r"""Score held-out data, or the user's own points, in nats and in bits a dimension, with what the number may be off by.

Four errors are reported apart, in nats:

* ``nll_stderr``: of the mean over the points, the random probes' spread included (``probe_stderr_nats`` alone);
* ``ode_error_nats``: the solver's own, the root mean square change of a point's log_prob when 32 of them are solved to
  the tolerance and to a tenth of it, with the same probes, kept fixed;
* ``start_error_nats``: of the start's correction, the mean difference of two noise levels' answers at up to 256 points
  (``start_term_nats`` is what the correction added; see :mod:`scoresde.likelihood.deblur`). ``start_unresolved_share``
  is the share of these points where the data have detail finer than the noise of eps. From 0.01 on that detail is taken
  to be Gaussian, all of the correction but its first order counts as error, and a warning says that nothing bounds it;
* ``prior_error_nats``: of the Gaussian of the data's moments, which stands for p_T: their divergence as the points'
  third and fourth cumulants show it, and the spread that goes with it (``prior_term_nats`` is what that Gaussian
  changed against the prior N(0, sigma(T)^2 I)).

``nll_uncertainty_nats`` is all four together, as the root of the sum of their squares. Where values of the data repeat
it is left out: the NLL then depends on sde.eps, and no error bar covers that (:mod:`scoresde.data.repeats`).

**The error asked for** (``likelihood.error``, in nats a dimension, of integers bits a dimension) chooses what is left
open of tolerance, probes and points (:mod:`scoresde.tasks.parts.effort`). A number is for ``nll_uncertainty_nats``, the
points' own
spread included: ``count`` is then chosen too, unless it is given. ``auto`` is for the computation alone, the
errors without the points' spread, and follows from what is shown: 1e-3 bits/dim, a tenth of the last of the two digits
that likelihoods of integers are given with, or 1e-4 nats a dimension, the last digit on the screen. With a tolerance of
the user's own, ``auto`` chooses nothing. ``likelihood_error_asked`` and ``likelihood_error_reached`` are in these
units; a warning says which of the errors is the one that is too large.

Of integer data, log_prob is a lower bound on log P of the integers, and bits_per_dim an upper bound on -log2 P a
dimension; ``bound`` says which (:mod:`scoresde.likelihood.dequantisation`). With K > 1 points of a bin,
``sampling_gain_nats`` is what they gained over the plain bound. Random probes then stand in an exponent: their error n
of log p, of mean 0, has E[exp n] > 1 and *raises* the mean of the weights, by up to half the variance of n. So all
points of a bin meet the same probes, and only what their errors do not share does harm; the exact trace does none.
"""

import logging
import math
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data, subset
from scoresde.data.order import order
from scoresde.likelihood import CrossCheck, Dequantisation, Likelihood, UniformDequantisation
from scoresde.likelihood.dequantisation import Dequantised, log_mean
from scoresde.likelihood.likelihood import TIGHT
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.tasks.parts.batches import batches
from scoresde.tasks.parts.conditions import as_written, conditions_of, encoded, told
from scoresde.tasks.parts.effort import PILOT, Effort, choose
from scoresde.tasks.parts.points import points_of
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record

from .task import Job, Task

log = logging.getLogger(__name__)

CELLS = 72  # of a picture of a density, on each side
SHOWN = {"bits/dim": 1e-3, "nats a dimension": 1e-4}  # likelihood.error=auto
CHECKED = 256  # points at which the start's correction is checked
UNRESOLVED = 0.01  # the share of points with detail below the noise of eps from which on it is no outlier's
COMPUTED = ("ode", "start", "prior")  # the errors that are not the points'
ADDED = 2  # how often points are added where the first were too few


@dataclass(frozen=True)
class LikelihoodTask(Task):
    """Writes metrics, likelihood.npz and, for planar data, the density as a picture.

    Arguments:
        likelihood: how log p is computed.
        dequantisation: which points of its bin stand for an integer; continuous data stand for themselves.
        crosscheck: another estimate of log p, of the same points and without an ODE; None for none. ``crosscheck_pull``
            is by how many standard errors the ODE's mean log p exceeds it: of order 1 for an exact score; what is
            beyond shows a network at odds with itself (:mod:`scoresde.likelihood.immse`).
        count: how many held-out points; None for 10,000 vectors or 256 pictures, or all where there are fewer, and for
            as many as a ``likelihood.error`` takes.
        points: a file of points in the data's own units to score instead, all of them.
        batch: how many at a time; the results do not depend on it.
        seed: of the probes and of the dequantisation.
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
        if self.batch < 1:
            raise ValueError(f"`batch`={self.batch} must be at least 1")
        if self.crosscheck is None:
            return
        if self.dequantisation != UniformDequantisation():
            raise ValueError(
                f"task/crosscheck compares densities, and dequantisation, here {self.dequantisation.title} with "
                f"samples={self.dequantisation.samples}, makes a bound of them; leave one of the two out"
            )
        for key in ("start", "prior"):
            ours = getattr(self.likelihood, key)
            theirs, wanted = getattr(self.crosscheck, key, ours), self.crosscheck.same.get(key, ours)
            if not ours == theirs == wanted:
                own = key in {each.name for each in fields(self.crosscheck)}
                raise ValueError(
                    f"likelihood.{key}={ours} and `crosscheck`.{key}={theirs} are not of one density; type "
                    f"likelihood.{key}={wanted}" + (f" `crosscheck`.{key}={wanted}" if own else "")
                )

    @property
    def free(self) -> bool:
        """Whether the error that is asked for decides how many points are scored."""
        return isinstance(self.likelihood.error, float | int) and self.count is None and self.points is None

    def chosen(self, data: Data) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns the points (N, *) in data units, their y, and that y as networks take it; None without a y."""
        r = points_of(data, self.points, len(data.test) if self.free else self.count)
        y = conditions_of(data, self.points, len(r))
        return r, y, encoded(data, y)

    def check(self, sde: SDE, data: Data) -> None:
        _, _, known = self.chosen(data)
        if self.crosscheck is not None and known is not None and len(known) > 1 and not self.crosscheck.apart:
            raise ValueError(
                "this task/crosscheck finds one normaliser for all points, and each y has its own; type "
                "condition=VALUE, one for all points, or task/crosscheck=immse"
            )

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        (r, y, known), free = self.chosen(data), self.free
        started = time.monotonic()
        target = self.target(data)
        effort = self.effort(sde, score, data, r, known, free, target)
        self = replace(self, likelihood=effort.likelihood)
        result = self.score(sde, score, data, r[: effort.count], y=known)
        result = self.more_points(sde, score, data, r, result, known, target) if free else result
        r = r[: len(result["log_prob"])]
        y, known = (v if v is None or len(v) == 1 else v[: len(r)] for v in (y, known))
        seconds = time.monotonic() - started
        log_prob, stderr = result["log_prob"], result["probe_stderr"]
        kept = ["x", "log_prob", "z", "probe_stderr"]
        if self.crosscheck is not None:
            found, shared = self.cross_checked(sde, score, data, result["x"], known)
            result |= found
            kept += ["crosscheck_log_prob", "crosscheck_stderr"]
        written = {} if y is None else as_written(data.condition, y)
        record.arrays("likelihood", **{key: result[key].numpy() for key in kept}, **written)

        nll, nll_stderr = mean_and_stderr(-log_prob)
        metrics = {"count": len(r), "nll_nats": nll, "nll_stderr": nll_stderr}
        if data.levels:
            metrics |= {"bits_per_dim": data.bits_per_dim(nll), "bits_per_dim_stderr": data.bits_per_dim(nll_stderr)}
            metrics["bound"] = self.dequantisation.bound
            if self.dequantisation.samples > 1:
                metrics["sampling_gain_nats"] = float(result["gain"].mean())
                self.mind_the_probes(stderr)
        metrics |= self.errors(sde, score, data, r, result, nll_stderr, known, effort)
        if job.data_metrics:  # the NLL is as low as eps lets it be, and nobody knows how far from what
            metrics["nll_uncertainty_nats"] = math.nan
        metrics |= self.reached(data, metrics, target)
        metrics |= self.against_truth(sde, score, data, result, y, metrics)
        if self.crosscheck is not None:
            metrics |= against_crosscheck(result, shared)
        metrics |= {"nfe": float(result["nfe"]), "seconds": seconds}
        one = known is None or len(known) == 1
        across = data.shape == (1,) and not one and y[0].shape == (1,)
        if data.shape == (2,) and one or across:
            record.picture(self.heat_map(sde, score, data, result["x"], record, y))
        elif len(data.shape) == 3:
            record.picture(self.ranking(data, result, record))
        return metrics

    def target(self, data: Data) -> float | None:
        """The error asked for in nats of a point; None where nothing is asked for."""
        asked = self.likelihood.error
        if asked == "auto":
            open_too = self.likelihood.rtol is None and self.likelihood.atol is None
            asked = SHOWN[unit_of(data)] if open_too else None
        return None if asked is None else asked / per_dim(data, 1.0)

    def effort(
        self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, y: Tensor | None, free: bool, target: float | None
    ) -> Effort:
        """Tolerance, probes and points for an error of ``target`` nats; says what was chosen."""
        if target is None:
            return Effort(self.likelihood.settled(data.dim), len(r))

        mixed, own = drawn(r, y, len(r))

        def scored(likelihood: Likelihood, points: Tensor) -> dict[str, Tensor]:
            return self.score(sde, score, data, points, "choosing an effort", likelihood, y=own, leave=False)

        auto = self.likelihood.error == "auto"
        limits = (8, TIGHT) if auto else (256, 1e-8)
        found = choose(self.likelihood, mixed, scored, target, None if free else len(r), *limits)
        probes = found.likelihood.probes.estimates(data.dim)
        log.info(
            "likelihood.error=%s: an error of %.2g %s%s takes rtol=%g atol=%g%s%s, %s%s point%s",
            self.likelihood.error,
            per_dim(data, target),
            unit_of(data),
            " from the solver and the probes" if auto else "",
            found.likelihood.rtol,
            found.likelihood.atol,
            "" if found.ode_error is None else f" (off by {per_dim(data, found.ode_error):.1g})",
            f", {probes} probes" if found.likelihood.random(data.dim) else ", the exact trace",
            "" if free else "the given ",
            f"{found.count:,}",
            "" if found.count == 1 else "s",
        )
        if found.floor and not auto:
            log.warning(
                "likelihood.error=%s: no tolerance brings the solver's error below %.2g %s in %s; type dtype=float64, "
                "or a larger likelihood.error",
                self.likelihood.error,
                per_dim(data, found.ode_error),
                unit_of(data),
                self.dtype,
            )
        return found

    def more_points(
        self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, result: dict, y: Tensor | None, target: float
    ) -> dict[str, Tensor]:
        """The result with points added, where the pilot's spread was too small a guess."""
        for _ in range(ADDED):
            have = len(result["log_prob"])
            if have == len(r):  # of one point there is no spread
                break
            wanted = min(len(r), math.ceil(float(result["log_prob"].var()) / (0.85 * target) ** 2))
            if wanted <= have:
                break
            more = self.score(sde, score, data, r[:wanted], y=y, skip=have)
            nfe = (have * result["nfe"] + (wanted - have) * more["nfe"]) / wanted
            result = {key: torch.cat([result[key], more[key]]) for key in result if key != "nfe"} | {"nfe": nfe}
        return result

    def errors(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        r: Tensor,
        result: dict,
        nll_stderr: float,
        y: Tensor | None = None,
        effort: Effort | None = None,
    ) -> dict:
        """The errors of the module's text, apart and together."""
        stderr, start, metrics = result["probe_stderr"], result["start_term"], {}
        if effort is not None and effort.ode_error is not None:  # measured when the tolerance was chosen
            metrics["ode_error_nats"] = effort.ode_error
        else:
            solver = replace(self.likelihood, redraw=False)  # or other steps would meet other probes
            finer = replace(solver, rtol=solver.rtol / 10, atol=solver.atol / 10, steps=2 * solver.steps)
            some, own = drawn(r, y, PILOT)
            coarse, fine = (
                self.score(sde, score, data, some, "checking the solver", each, y=own, leave=False)["log_prob"]
                for each in (solver, finer)
            )
            metrics["ode_error_nats"] = float((fine - coarse).square().mean().sqrt())
        if bool((stderr != 0).any()):
            metrics["probe_stderr_nats"] = float(stderr.square().mean().sqrt()) / math.sqrt(len(r))
        if bool((start != 0).any()):
            metrics |= {"start_term_nats": float(start.mean()), **self.start_errors(sde, score, data, r, y)}
        if bool((result["prior_term"] != 0).any()):
            metrics["prior_term_nats"] = float(result["prior_term"].mean())
            found = self.likelihood.reference(r).divergence_at_end(data.encode(result["x"]), sde)
            metrics["prior_error_nats"] = math.hypot(found, math.sqrt(2 * found / len(r)))  # log p/q has variance 2 KL
        together = math.hypot(nll_stderr, *(metrics.get(f"{what}_error_nats", 0.0) for what in COMPUTED))
        metrics["nll_uncertainty_nats"] = together
        if data.levels:
            metrics["bits_per_dim_uncertainty"] = data.bits_per_dim(together)
        return metrics

    def start_errors(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, y: Tensor | None) -> dict:
        """The start's error and the share of unresolved points, of up to ``CHECKED`` of the points r (N, *)."""
        (r, y), parts, dtype = drawn(r, y, CHECKED), [], getattr(torch, self.dtype)
        points = as_they_are if data.levels is None else self.dequantisation.draw
        for batch in batches(len(r), self.batch):
            own = told(score, y, batch.rows, self.device, dtype)
            uniform = batch.noise(self.seed, data.shape, torch.float64, "cpu", "dequantisation")
            probes = batch.noise(self.seed, data.shape, dtype, self.device, "start")
            x = points(sde, data, r[batch.rows], uniform.uniform()).x.to(self.device, dtype)
            found = self.likelihood.start_error(sde, own, x, probes)
            parts.append(torch.stack([found.difference, found.assumed, found.detail]).double().cpu())
        difference, assumed, detail = torch.cat(parts, 1)
        spread = float(difference.var()) / len(difference) if len(difference) > 1 else 0.0
        error, unresolved = math.hypot(float(difference.mean()), math.sqrt(spread)), detail > 0.5
        share = float(unresolved.double().mean())
        if share >= UNRESOLVED:
            error = math.hypot(error, float(assumed.mean()))
            self.mind_the_detail(sde, data, share, float(detail[unresolved].quantile(0.9)))
        return {"start_error_nats": error, "start_unresolved_share": share}

    def mind_the_detail(self, sde: SDE, data: Data, share: float, detail: float) -> None:
        """Warns that the noise of eps hides detail of the data, with this lambda, and says what would show it."""
        noise = math.exp(-float(sde.ends()[1]))
        finest = noise * math.sqrt(max(1 - detail, 1e-6) / detail)
        log.warning(
            "%.0f %% of the points lie where the data have detail of about %.2g in model units, and the noise of "
            "sde.eps=%s is %.2g: log p takes that detail to be Gaussian, and its error cannot be bounded; type %s, "
            "which trains another network",
            100 * share,
            finest,
            sde.eps,
            noise,
            finer_noise(sde, finest / 20),
        )

    def reached(self, data: Data, metrics: dict, target: float | None) -> dict:
        """The error asked for and the one left, in the units that it was asked for in. A warning where it is more; by
        default a line, if the points' spread does not hide it.
        """
        if target is None:
            return {}
        probes = metrics.get("probe_stderr_nats", 0.0)
        if math.isnan(probes) and self.likelihood.error != "auto":
            probes = 0.0  # one probe has no standard error, and the spread over the points holds what it adds
        parts = {
            "the points' own spread": max(metrics["nll_stderr"] ** 2 - probes**2, 0.0) ** 0.5,  # NaN of one point
            "the solver": metrics["ode_error_nats"],
            "the random probes": probes,
            "the start's correction": metrics.get("start_error_nats", 0.0),
            "the prior": metrics.get("prior_error_nats", 0.0),
        }
        auto, hidden = self.likelihood.error == "auto", 0.0
        if auto:
            hidden = parts.pop("the points' own spread") / 5
        remedies = {
            "the points' own spread": "give more held-out points, or ask for less",
            "the solver": "leave likelihood.rtol and likelihood.atol out, or type dtype=float64",
            "the random probes": "type a larger likelihood.probes.count, or likelihood=exact"
            if auto
            else "type likelihood=exact, or leave likelihood.probes.count out if it is given",
            "the start's correction": "choose a smaller noise at sde.eps",
            "the prior": "choose a larger noise at sde.T",
        }
        whole = math.hypot(*parts.values())
        if not whole <= max(1.05 * target, hidden) and not (auto and math.isnan(whole)):
            worst = max(parts, key=lambda key: math.inf if math.isnan(parts[key]) else parts[key])
            if math.isnan(whole):
                log.warning(
                    "likelihood.error=%s cannot be confirmed: the error from %s is unknown; %s",
                    self.likelihood.error,
                    worst,
                    "one point has no spread, give two or more" if metrics["count"] == 1 else remedies[worst],
                )
            else:
                (log.info if auto else log.warning)(
                    "likelihood.error=%s is not reached: %.2g %s are left, %.2g of them from %s; %s",
                    self.likelihood.error,
                    per_dim(data, whole),
                    unit_of(data),
                    per_dim(data, parts[worst]),
                    worst,
                    remedies[worst],
                )
        unit = "nats_per_dim" if data.levels is None else "bits_per_dim"
        return {
            f"likelihood_error_asked_{unit}": per_dim(data, target),
            f"likelihood_error_reached_{unit}": per_dim(data, whole),
        }

    def mind_the_probes(self, stderr: Tensor) -> None:
        """Warns where the random probes' error may be seen in a mean of weights."""
        error = float(stderr.square().mean().sqrt())
        if not error <= 0.3:  # so written, the unknown error of one probe is none to trust
            log.warning(
                "log p of a point has a standard error of %s nats over the random probes, and dequantisation.samples=%s"
                " averages its exponential, which may make the bound look better than it is: type likelihood=exact, or"
                " more probes",
                f"{error:.2f}" if math.isfinite(error) else "unknown",
                self.dequantisation.samples,
            )

    def score(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        r: Tensor,
        what: str = "scoring",
        likelihood: Likelihood | None = None,
        dequantise: bool = True,
        y: Tensor | None = None,
        skip: int = 0,
        leave: bool = True,
    ) -> dict[str, Tensor]:
        """x (N, *) as it was scored, log_prob (N,) in nats and data units, z (N, *), mean nfe, and in nats (N,)
        probe_stderr, start_term, prior_term and gain.

        Of integers, log_prob is the bound, gain what its K points gained over the plain one; x and z are the first
        point's, the other terms means over all points, each with its share in the sum of the weights.

        ``dequantise`` is False for points that lie between the levels already, as a picture's do; y (N, condition) as
        networks are told it; the first ``skip`` points are left out, and the noise of the others is as with them. The
        bar is called ``what``, and goes when it is full unless it is to be left.
        """
        likelihood, points, count = likelihood or self.likelihood, as_they_are, 1
        if dequantise and data.levels is not None:
            likelihood, count = self.dequantisation.scored_by(likelihood), self.dequantisation.samples
            points = self.dequantisation.draw
        parts, evaluations, dtype = [], 0.0, getattr(torch, self.dtype)
        with progress(what, len(r), leave) as advance:
            for batch in batches(len(r), self.batch, advance, skip):
                kept, rows, own = (), [], told(score, y, batch.rows, self.device, dtype)
                uniform = batch.noise(self.seed, data.shape, torch.float64, "cpu", "dequantisation")
                for j in range(count):
                    point = points(sde, data, r[batch.rows], uniform.uniform())
                    found = likelihood(
                        sde,
                        own,
                        point.x.to(self.device, dtype),
                        # made anew, so that all points of a bin meet the same probes
                        batch.noise(self.seed, data.shape, dtype, self.device, "probes"),
                        on_step=lambda share, j=j, batch=batch: batch.on_step((j + share) / count),
                    )
                    evaluations += found.nfe * batch.size
                    kept = kept or (point.r, found.z.cpu())
                    terms = (found.log_prob, found.probe_stderr, found.start_term, found.prior_term)
                    log_prob, *terms = (term.double().cpu() for term in terms)
                    rows.append(torch.stack([log_prob - point.log_q, *terms]))
                log_weights, *terms = torch.stack(rows, 1)
                log_prob, shares = log_mean(log_weights)
                # errors of the same probes add up as they are, not as the root of a sum of squares
                terms = ((shares * term).sum(0) for term in terms)
                parts.append((*kept, log_prob, log_prob - log_weights.mean(0), *terms))
        names = ("x", "z", "log_prob", "gain", "probe_stderr", "start_term", "prior_term")
        columns = (torch.cat(column) for column in zip(*parts, strict=True))
        return {**dict(zip(names, columns, strict=True)), "nfe": torch.tensor(evaluations / (len(r) - skip))}

    def cross_checked(
        self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, y: Tensor | None = None
    ) -> tuple[dict[str, Tensor], bool]:
        """The cross-check's log_prob (N,) in nats and data units at r (N, *), and its standard error (N,) in nats; and
        whether all points share one error.
        """
        parts, dtype = [], getattr(torch, self.dtype)
        with progress("cross-checking", len(r)) as advance:
            for batch in batches(len(r), self.batch, advance):
                found = self.crosscheck(
                    sde,
                    told(score, y, batch.rows, self.device, dtype),
                    data.encode(r[batch.rows]).to(self.device, dtype),
                    batch.noise(self.seed, data.shape, dtype, self.device, "crosscheck"),
                    on_step=batch.on_step,
                )
                parts.append((found.log_prob.double().cpu() + data.log_det, found.stderr.double().cpu()))
        log_prob, stderr = (torch.cat(column) for column in zip(*parts, strict=True))
        return {"crosscheck_log_prob": log_prob, "crosscheck_stderr": stderr}, found.shared

    def against_truth(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        result: dict[str, Tensor],
        y: Tensor | None = None,
        errors: dict | None = None,
    ) -> dict:
        """What is known exactly: the data's own density, and the density of an exact score at the start time.

        ``gap_stderr`` holds the gap's spread over the points and the computation's ``errors``.
        """
        metrics, errors = {}, errors or {}
        truth = data.true_log_prob(result["x"], y)
        known = data.condition
        if known is not None and not known.classes and known.asked is not None and self.points is None:
            truth = (
                None  # held-out x of other y than the one asked for: no mean over them is an entropy or a divergence
            )
        score = told(score, encoded(data, y), slice(None), self.device, getattr(torch, self.dtype))
        if truth is not None and bool(truth.isfinite().all()):
            gap, gap_stderr = mean_and_stderr(truth - result["log_prob"])
            gap_stderr = math.hypot(gap_stderr, *(errors.get(f"{what}_error_nats", 0.0) for what in ("ode", "start")))
            metrics |= {"floor_nats": -float(truth.mean()), "gap_nats": gap, "gap_stderr": gap_stderr}
        exact = getattr(score, "log_prob", None) if data.levels is None else None  # of integers log_prob is a bound
        if exact is not None:
            x, z = (v.to(self.device, getattr(torch, self.dtype)) for v in (data.encode(result["x"]), result["z"]))
            jacobian = data.log_det
            if self.likelihood.start == "corrected":  # p_eps was read at alpha x
                alpha = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64)))
                x, jacobian = alpha * x, jacobian + data.dim * math.log(alpha)
            at_start = exact(x, torch.full((len(x),), sde.eps).to(x)).double().cpu() + jacobian
            terminal = exact(z, torch.full((len(z),), sde.T).to(z)).double().cpu()
            prior = sde.prior_log_prob(z.double().cpu()) + result["prior_term"]
            prior_cost = terminal - prior  # what the prior in place of p_T takes off log p
            metrics["prior_cost_nats"] = float(prior_cost.mean())
            if bool((result["probe_stderr"] == 0).all()):  # random probes would hide the solver's error
                error = result["log_prob"] - result["start_term"] + prior_cost - at_start
                metrics |= {
                    "ode_error_mean_nats": float(error.mean().abs()),
                    "ode_error_max_nats": float(error.abs().max()),
                }
        return metrics

    def ranking(self, data: Data, result: dict[str, Tensor], record: Record) -> Path:
        """The pictures that the model finds most and least likely: what it has learnt, and what it has not."""
        from scoresde import figures

        order = result["log_prob"].argsort(descending=True)
        half = min(64, (len(order) + 1) // 2)
        best, worst = (result["x"][index] for index in (order[:half], order[-half:].flip(0)))
        panels = ("most likely", "least likely")
        return figures.image_grid(best, worst, record.path("likelihood.png"), levels=data.levels, panels=panels)

    def heat_map(
        self, sde: SDE, score: ScoreFn, data: Data, points: Tensor, record: Record, y: Tensor | None = None
    ) -> Path:
        """The learned density on a rectangle round the data, beside the exact one where that is known.

        Of two numbers, given the one y that all points share, if there is one; or p(x | y) of one number given one
        number, each column of the picture a density over x.
        """
        from scoresde import figures

        across = data.dim == 1  # y is an axis of the picture
        shown = data.test[:100_000].double()  # a quantile takes no more than 16 million numbers
        if across:
            shown = torch.cat([data.condition.test[: len(shown)], shown], 1)
            points = torch.cat([y, points.double()], 1)
        tail = 0.005 if across else 0.0
        low, high = shown.quantile(tail, dim=0), shown.quantile(1 - tail, dim=0)
        margin = 0.05 * (high - low)
        axes = [
            torch.linspace(float(a), float(b), CELLS, dtype=torch.float64)
            for a, b in zip(low - margin, high + margin, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).reshape(-1, 2)
        if across:
            x, y = grid[:, 1:], grid[:, :1]
        else:
            x, y = grid, None if y is None else y[:1].expand(len(grid), *y.shape[1:])
        coarse = replace(self.likelihood, rtol=1e-3, atol=1e-3)  # a picture shows no fourth digit
        log_prob = self.score(
            sde, score, data, x, what="density", likelihood=coarse, dequantise=False, y=encoded(data, y)
        )["log_prob"].reshape(CELLS, CELLS)
        truth, labels = data.true_log_prob(x, y), data.labels()
        if across:
            labels = [f"given {data.condition.titles[0]}", (labels or ["$x$"])[0]]
        return figures.density(
            *axes,
            log_prob,
            record.path("density.png"),
            true_log_prob=None if truth is None else truth.reshape(CELLS, CELLS),
            points=np.asarray(subset(points, 500)) if self.points else None,
            labels=labels,
        )


def drawn(r: Tensor, y: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """Up to ``count`` of the points r (N, *) in a random order, with their y (N, *), or with the one y of all: a user's
    points stand in an order of their own.
    """
    places = order(len(r))[:count]
    return r[places], y if y is None or len(y) == 1 else y[places]


def unit_of(data: Data) -> str:
    """Of what an error is that is asked for."""
    return "bits/dim" if data.levels else "nats a dimension"


def per_dim(data: Data, nats: float) -> float:
    """Nats of a point as an error is asked for: a dimension, of integers in bits."""
    return nats / data.dim / (math.log(2) if data.levels else 1.0)


def finer_noise(sde: SDE, noise: float) -> str:
    """What to type for an SDE whose noise at eps is at most this share of the data."""
    t = float(sde.time(torch.tensor(-math.log(noise), dtype=torch.float64)))
    try:
        finer = replace(sde, eps=float(f"{t:.2g}"))
        if math.exp(-float(finer.ends()[1])) <= 1.1 * noise:
            return f"sde.eps={t:.2g}"
    except ValueError:  # not every SDE has so little noise
        pass
    return f"sde=edm sde.eps={noise:.2g}"


def as_they_are(sde: SDE, data: Data, r: Tensor, u: Tensor) -> Dequantised:
    """Points that need no dequantisation: they stand for themselves, in data units."""
    return Dequantised(data.encode(r.double()), r.double(), torch.full((len(r),), -data.log_det, dtype=torch.float64))


def against_crosscheck(result: dict[str, Tensor], shared: bool) -> dict:
    """Minus the mean of the cross-check's log_prob, its standard error over the noise, and the difference's pull."""
    count, mine = len(result["log_prob"]), result["crosscheck_log_prob"]
    stderr, probes = (float(result[k].square().sum().sqrt()) / count for k in ("crosscheck_stderr", "probe_stderr"))
    stderr = float(result["crosscheck_stderr"].mean()) if shared else stderr
    difference, bar = float((result["log_prob"] - mine).mean()), math.hypot(stderr, probes)
    pull = difference / bar if bar else math.nan  # a Gaussian has no bar
    return {"crosscheck_nll_nats": -float(mine.mean()), "crosscheck_stderr": stderr, "crosscheck_pull": pull}


def mean_and_stderr(values: Tensor) -> tuple[float, float]:
    """The mean of values (N,) and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
