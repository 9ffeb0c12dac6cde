r"""Compares the error of every sampler and every likelihood under every SDE with their work.

All runs start from the same noise. Work is the number of evaluations of the score per sample (NFE), and the seconds of
the solver itself, on one thread. Solvers with steps get as many as the budgets allow, solvers with tolerances ever
tighter ones (:mod:`scoresde.tasks.studies.settings`).

Against **data** the error has a floor, the error of as many real data, which is measured
(:mod:`scoresde.tasks.studies.ruler`). Against the **exact flow** there is no floor: a sampler without noise carries x_T
to one x_0, and the probability flow, solved in float64 (mps: float32) to a hundredth of the smallest tolerance, gives
the exact one. The flow's own samples are the row ``exact_flow``. Their error is that of the score, the prior and the
last step: for a trained network it shows from where on the solver's error no longer matters.

work_precision.csv has one row per run of a sampler:

=================================  =====================================================================================
score, sde, method                 the score (``oracle``, ``network``), the SDE under which it is used, and the solver
setting, value                     ``steps`` or ``tolerance``, and its value
nfe, seconds                       evaluations per sample; seconds for all samples (exact_flow: without its last step)
sliced_wasserstein, mean_error,    see :mod:`scoresde.tasks.studies.ruler`; with ``_floor`` the mean and with
covariance_error, nll_gap_nats     ``_spread`` the standard deviation of the absolute errors of sets of real data
endpoint_rms, endpoint_median      \|x_0 - exact x_0\| / sqrt(D) in model units, over the samples; empty for a sampler
                                   with noise
=================================  =====================================================================================

likelihood_precision.csv has one row per run of a likelihood, with absolute errors in nats over held-out points:

=================================  =====================================================================================
score, ..., seconds                as above
solver_error_mean_nats, _max_      against the closed form: log p_eps at the start, log p_T at the end; the error of the
                                   solver and of the probes. Only for the oracle
truth_error_mean_nats, _max_       against the data's log p_0; the errors of start, prior and network too
probe_stderr_nats                  the probes' standard error, rms over the points
=================================  =====================================================================================

A value that failed or does not exist is empty. All values but the seconds repeat bit for bit.
"""

import copy
import csv
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import Likelihood
from scoresde.models import Oracle
from scoresde.samplers import ProbabilityFlow, Sampler, finish
from scoresde.sde_lib import SDE, BlockNoise, Counted, ScoreFn, expand_to_batch
from scoresde.sde_lib.frame import under
from scoresde.tasks.parts.batches import batches
from scoresde.tasks.parts.drawing import noises
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.summary import text
from scoresde.tasks.task import Job, Task
from scoresde.training.threads import one_thread

from .ruler import MEASURES, Ruler
from .settings import Setting, settings, stop_at

log = logging.getLogger(__name__)

FEW = 16  # samples on which the cost of a setting is tried
EXACT_FLOW = "exact_flow"  # the name of the reference solution among the methods
ENOUGH = 1e-2  # nats: the mean error of a likelihood that is precise enough

RUN = ("score", "sde", "method", "setting", "value", "nfe", "seconds")
SAMPLER_COLUMNS = (
    *RUN,
    *MEASURES,
    *("endpoint_rms", "endpoint_median"),
    *(f"{measure}_{what}" for measure in MEASURES for what in ("floor", "spread")),
)
LIKELIHOOD_COLUMNS = (
    *RUN,
    *(f"{what}_error_{which}_nats" for what in ("solver", "truth") for which in ("mean", "max")),
    "probe_stderr_nats",
)


@dataclass(frozen=True)
class Problem:
    """A score under an SDE, with the names of both; ``wide()`` returns the same score in the reference's precision."""

    score_name: str
    sde_name: str
    sde: SDE
    score: ScoreFn
    wide: Callable[[], ScoreFn]


@dataclass(frozen=True)
class WorkPrecision(Task):
    """Compares samplers and likelihoods by error and work; see the module's text.

    Writes work_precision.csv if it compares samplers, likelihood_precision.csv if it compares likelihoods, with a
    picture of each, and prints the samplers by budget.

    Arguments:
        sdes, samplers, likelihoods: the parts to compare, by name.
        only: the names to keep; all of a kind are kept if none of that kind is named. None keeps all.
        budgets: evaluations per sample for solvers with steps; tolerances beyond the largest budget are left out,
            except the loosest.
        tolerances: the relative tolerances of adaptive solvers; the absolute ones keep their proportion to these.
        points: the number of held-out points that the likelihoods score.
        directions: the number of directions of the sliced Wasserstein distance.
        count: the number of samples; None for 10,000 vectors or 64 images.
        batch: the number of samples or points per batch. The errors depend on it only for torchdiffeq's adaptive
            methods, which take one step size for a batch, and for correctors with ``rule=batch_norms``.
        seed: the seed of all noise.
        device, dtype: where, and in which precision.
    """

    reports_density: ClassVar[bool] = True
    refuses_guidance: ClassVar[bool] = True

    sdes: dict[str, SDE]
    samplers: dict[str, Sampler] = field(default_factory=dict)
    likelihoods: dict[str, Likelihood] = field(default_factory=dict)
    only: list[str] | None = None
    budgets: list[int] = field(default_factory=lambda: [5, 10, 20, 50, 100, 200, 500])
    tolerances: list[float] = field(default_factory=lambda: [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    points: int = 1000
    directions: int = 32
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        for key, instead in (("batch", 1024), ("points", 1000), ("directions", 32)):
            if getattr(self, key) < 1:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least 1; type `{key}`={instead}")
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"`budgets`={self.budgets} must be numbers of at least 1; type `budgets`=[10,50,200]")
        if not self.tolerances or not all(0 < each < 1 for each in self.tolerances):
            raise ValueError(f"`tolerances`={self.tolerances} must lie between 0 and 1; type `tolerances`=[1e-2,1e-4]")
        names = [*self.sdes, *self.samplers, *self.likelihoods]
        for name in self.only or []:
            if name not in names:
                raise ValueError(f"`only`: {name} is not compared here; choose among {', '.join(names)}")
        if not self.sdes or not (self.samplers or self.likelihoods):
            raise ValueError(
                "there is nothing to compare: `sdes` and one of `samplers` and `likelihoods` must hold "
                "something; type for example +sampler@`samplers.em`=em"
            )

    @property
    def wide(self) -> torch.dtype:
        """The precision of the reference solutions: float64 where the device has it."""
        return torch.float32 if self.device == "mps" else torch.float64

    def kept(self, named: dict[str, Any]) -> dict[str, Any]:
        """Returns the parts of one kind that ``only`` keeps."""
        return {name: part for name, part in named.items() if name in (self.only or ())} or named

    def now(self) -> float:
        """Returns the time in seconds, after the device has finished its work."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        count = self.count or (10_000 if len(data.shape) == 1 else 64)
        r = data.test[: self.points]
        samplers, likelihoods = self.kept(self.samplers), self.kept(self.likelihoods)
        if likelihoods and data.true_log_prob(r.double()) is None:
            log.warning("the density of these data is unknown: likelihoods are not compared")
            likelihoods = {}
        problems = self.problems(sde, score, data)
        ruler = Ruler(data, count, self.directions) if samplers else None

        with one_thread(True):  # so that the seconds of different methods are comparable
            draws, scorings = self.plan(problems, samplers, likelihoods, data, r)
            # the work of one NFE of a sampler, and of a likelihood, whose divergence costs about as much as D scores
            draw_price, score_price = count, len(r) * (1 + data.dim)
            total = draw_price * expected(draws) + score_price * expected(scorings)
            with progress("comparing", total) as advance:
                work = 0.0

                def reported(rows: Iterator[tuple[dict, float]], price: int) -> Iterator[dict]:
                    """Yields the rows, and moves the bar by the expected NFE of each at this price."""
                    nonlocal work
                    for row, nfe in rows:
                        work += nfe * price
                        record.event(row)
                        advance(work, note=f"{row['sde']} {row['method']}")
                        yield row

                drawn = [
                    row for plan in draws for row in reported(self.draw_all(*plan, data, ruler, count), draw_price)
                ]
                scored = [row for plan in scorings for row in reported(self.score_all(*plan, data, r), score_price)]
        return self.report(drawn, scored, ruler, count, len(r), record)

    def plan(
        self, problems: list[Problem], samplers: dict, likelihoods: dict, data: Data, r: Tensor
    ) -> tuple[list[tuple[Problem, list[Setting]]], list[tuple[Problem, list[Setting]]]]:
        """Returns each problem with the settings of all samplers, and each with those of all likelihoods; an empty list
        without samplers, or without likelihoods.
        """
        draws, scorings = [], []
        with progress("trying what a step costs", len(problems)) as advance:
            for done, problem in enumerate(problems):

                def of_sampler(sampler: Sampler, most: float, problem: Problem = problem) -> float:
                    return self.draw(sampler, problem, data.shape, FEW, most=most).nfe

                def of_likelihood(likelihood: Likelihood, most: float, problem: Problem = problem) -> float:
                    return self.log_prob(likelihood, problem, data, r[:FEW], most).nfe

                for solvers, cost, found in ((samplers, of_sampler, draws), (likelihoods, of_likelihood, scorings)):
                    if solvers:
                        by_solver = [settings(*item, cost, self.budgets, self.tolerances) for item in solvers.items()]
                        found.append((problem, sum(by_solver, [])))
                advance(done + 1)
        return draws, scorings

    def problems(self, sde: SDE, score: ScoreFn, data: Data) -> list[Problem]:
        """Returns every score under every SDE: the run's own, and for data that are a mixture the oracle. A run's own
        score with a ``log_prob`` is the oracle.
        """
        components = data.components()
        if hasattr(score, "log_prob"):
            scores = {"oracle": score}
        elif components is not None:
            oracle = Oracle(sde, components).to(device=self.device, dtype=getattr(torch, self.dtype))
            scores = {"oracle": oracle, "network": score}
        else:
            log.warning("these data are no mixture: there is no oracle, and solver_error_*_nats stay empty")
            scores = {"network": score}
        return [
            Problem(
                *(name, other_name, other, under(sde, own, other)),
                wide=lambda own=own, other=other: under(sde, copy.deepcopy(own).to(dtype=self.wide), other),
            )
            for name, own in scores.items()
            for other_name, other in self.kept(self.sdes).items()
        ]

    # --- samplers ---

    def draw(
        self,
        sampler: Sampler,
        problem: Problem,
        shape: tuple[int, ...],
        count: int,
        wide: bool = False,
        most: float = math.inf,
    ) -> "Drawn":
        """Draws the samples that task=sample draws with this seed, in model units.

        Arguments:
            wide: whether to draw in float64, from the same noise.
            most: the NFE beyond which the call raises TooExpensive.
        """
        dtype, parts, seconds, noisy = getattr(torch, self.dtype), [], 0.0, False
        counted = Counted(problem.wide() if wide else problem.score)
        for batch in batches(count, self.batch):
            start, noise = noises(batch, self.seed, shape, dtype, self.device)

            def randn_like(x: Tensor, noise: BlockNoise = noise) -> Tensor:
                nonlocal noisy
                noisy = True
                return noise(x)

            x = start() * problem.sde.prior_std
            x = x.to(self.wide) if wide else x
            started = self.now()
            parts.append(sampler(problem.sde, counted, x, randn_like, on_step=stop_at(most * count, counted)))
            seconds += self.now() - started
        return Drawn(torch.cat(parts), counted.evaluations / count, seconds, noisy)

    def draw_all(
        self, problem: Problem, plan: list[Setting], data: Data, ruler: Ruler, count: int
    ) -> Iterator[tuple[dict, float]]:
        """Yields the rows of a problem for work_precision.csv, each with its expected NFE; the exact flow's first."""
        floors = {
            f"{key}_{what}": value
            for key, pair in ruler.floors.items()
            for what, value in zip(("floor", "spread"), pair, strict=True)
        }
        tolerance = max(min(self.tolerances) / 100, 1e-12)
        flow = ProbabilityFlow(rtol=tolerance, atol=tolerance, last="none")
        at_eps = self.draw(flow, problem, data.shape, count, wide=True)
        score = problem.wide()
        with torch.no_grad():
            exact = {  # x_0 by the sampler's last step
                last: torch.cat([finish(last, problem.sde, score, x) for x in at_eps.x.split(self.batch)]).cpu()
                for last in {"flow", *(setting.solver.last for setting in plan if hasattr(setting.solver, "last"))}
            }
        reference = Setting(EXACT_FLOW, "tolerance", tolerance, flow, 0.0)
        work = {"nfe": at_eps.nfe + 1, "seconds": at_eps.seconds}
        yield {**named(problem, reference), **work, **ruler(exact["flow"]), **floors}, 0.0
        for setting in plan:
            row = named(problem, setting)
            try:
                drawn = self.draw(setting.solver, problem, data.shape, count)
                row |= {"nfe": drawn.nfe, "seconds": drawn.seconds, **ruler(drawn.x)}
                if not drawn.noisy:
                    distance = drawn.x.cpu().double() - exact[getattr(setting.solver, "last", "flow")]
                    distance = distance.flatten(1).square().mean(1)
                    row |= {
                        "endpoint_rms": float(distance.mean().sqrt()),
                        "endpoint_median": float(distance.median().sqrt()),
                    }
            except FloatingPointError as error:
                warn_of_failure(problem, setting, error)
            yield row | floors, setting.nfe

    # --- likelihoods ---

    def log_prob(
        self, likelihood: Likelihood, problem: Problem, data: Data, r: Tensor, most: float = math.inf
    ) -> "Scored":
        """Returns log p in model units of points r (N, *) in data units, with the probes that task=likelihood draws by
        this seed.

        Arguments:
            most: the NFE beyond which the call raises TooExpensive.
        """
        dtype, counted, seconds, parts = getattr(torch, self.dtype), Counted(problem.score), 0.0, []
        for batch in batches(len(r), self.batch):
            x = data.encode(r[batch.rows].double()).to(self.device, dtype)
            noise = batch.noise(self.seed, data.shape, dtype, self.device, "probes")
            started = self.now()
            found = likelihood(problem.sde, counted, x, noise, on_step=stop_at(most * len(r), counted))
            seconds += self.now() - started
            parts.append((found.model_log_prob, found.z, found.probe_stderr, found.start_term, found.prior_term))
        columns = (torch.cat([part.double().cpu() for part in column]) for column in zip(*parts, strict=True))
        return Scored(*columns, nfe=counted.evaluations / len(r), seconds=seconds)

    def score_all(self, problem: Problem, plan: list[Setting], data: Data, r: Tensor) -> Iterator[tuple[dict, float]]:
        """Yields the rows of a problem for likelihood_precision.csv, each with the expected NFE."""
        truth = data.true_log_prob(r.double())
        for setting in plan:
            row = named(problem, setting)
            try:
                found = self.log_prob(setting.solver, problem, data, r)
                row |= {"nfe": found.nfe, "seconds": found.seconds}
                if hasattr(problem.score, "log_prob"):
                    error = solver_error(setting.solver, problem, data.encode(r.double()), found)
                    row |= mean_and_worst("solver", error)
                row |= mean_and_worst("truth", found.model_log_prob + data.log_det - truth)
                row["probe_stderr_nats"] = float(found.probe_stderr.square().mean().sqrt())
            except FloatingPointError as failure:
                warn_of_failure(problem, setting, failure)
            yield row, setting.nfe

    # --- results ---

    def report(
        self, drawn: list[dict], scored: list[dict], ruler: Ruler | None, count: int, points: int, record: Record
    ) -> dict:
        """Writes and draws the tables, prints the samplers by budget, and returns the metrics.

        Arguments:
            drawn, scored: the rows of work_precision.csv and of likelihood_precision.csv.
            count, points: the numbers of samples and of scored points.
        """
        from scoresde import figures

        metrics, unit = {"count": count}, ruler.data.distance_unit if ruler else None
        if drawn:
            metrics["distance_unit"] = unit
            write(record, "work_precision.csv", SAMPLER_COLUMNS, drawn)
            for (score, sde), rows in grouped(drawn, "score", "sde"):
                block, cheapest = self.block(rows, ruler)
                print(f"\n{sde}, {score}: sliced Wasserstein by evaluations a sample, at most\n{block}")
                metrics[f"{'' if score == 'oracle' else score + '_'}nfe_to_floor_{sde}"] = cheapest
            band = ruler.floors and (ruler.floors["sliced_wasserstein"][0], ruler.top("sliced_wasserstein"))
            record.picture(figures.work_precision(drawn, record.path("work_precision.png"), count, band or None, unit))
        if scored:
            write(record, "likelihood_precision.csv", LIKELIHOOD_COLUMNS, scored)
            for (score, sde), rows in grouped(scored, "score", "sde"):
                enough = [row["nfe"] for row in rows if row.get("solver_error_mean_nats", math.inf) <= ENOUGH]
                if score == "oracle":
                    metrics[f"likelihood_nfe_to_{ENOUGH:g}_nats_{sde}"] = min(enough, default=None)
            record.picture(figures.likelihood_precision(scored, record.path("likelihood_precision.png"), points))
        return metrics

    def block(self, rows: list[dict], ruler: Ruler) -> tuple[str, float | None]:
        """Returns a table of the samplers of one problem by budget, and the fewest NFE that reach the floor, or None.

        A network's floor is the error of its exact flow, where that is worse than that of real data. A star marks the
        smallest distance at a budget where no sampler is at the floor.

        Arguments:
            rows: of the problem, first that of the exact flow.
        """
        flow, rows = rows[0], rows[1:]
        beside = None if flow["score"] == "oracle" else flow
        reach = [row for row in rows if ruler.at_floor(row, beside)]
        best = min(reach, key=lambda row: row["nfe"], default=None)
        budgets, lines = sorted(set(self.budgets)), []
        for (method,), own in grouped(rows, "method"):
            cells = {"method": method}
            for budget in budgets:
                affordable = [row for row in own if row.get("nfe", math.inf) <= budget]
                dearest = max(affordable, key=lambda row: row["nfe"], default=None)
                cells[f"{budget}"] = "" if dearest is None else dearest
            lines.append(cells)
        for budget in map(str, budgets):
            # from rows to the words of a column
            column = [cells[budget] for cells in lines if cells[budget]]
            least = min((row["sliced_wasserstein"] for row in column), default=None)
            settled = any(ruler.at_floor(row, beside) for row in column)
            for cells in lines:
                if row := cells[budget]:
                    star = "*" if row["sliced_wasserstein"] == least and not settled else ""
                    cells[budget] = "floor" if ruler.at_floor(row, beside) else f"{row['sliced_wasserstein']:.2g}{star}"
        shown = text(lines, list(lines[0])) if lines else ""
        if best is None:
            return f"{shown}\nnone reaches the floor", None
        return f"{shown}\ncheapest at the floor: {best['method']}, {best['nfe']:.0f} evaluations", best["nfe"]


def expected(plans: list[tuple[Problem, list[Setting]]]) -> float:
    """Returns the expected evaluations per sample of all runs together."""
    return sum(setting.nfe for _, plan in plans for setting in plan)


@dataclass(frozen=True)
class Drawn:
    """Samples (N, *) in model units, evaluations per sample, seconds for all, and whether the sampler drew noise."""

    x: Tensor
    nfe: float
    seconds: float
    noisy: bool


@dataclass(frozen=True)
class Scored:
    """The columns of :class:`scoresde.likelihood.LogLikelihood`, in float64 on the CPU; the evaluations per point and
    the seconds for all points.
    """

    model_log_prob: Tensor
    z: Tensor
    probe_stderr: Tensor
    start_term: Tensor
    prior_term: Tensor
    nfe: float
    seconds: float


def solver_error(likelihood: Likelihood, problem: Problem, x: Tensor, found: Scored) -> Tensor:
    """Returns log p, with the exact log p_T in place of the prior and without the start's term, less the exact log
    p_eps; (N,) nats.

    Arguments:
        x: the points (N, *) in model units.
        found: their log p.
    """
    sde = problem.sde
    exact = problem.wide().cpu().double().log_prob
    jacobian = 0.0
    if likelihood.start == "corrected":  # log p was integrated from alpha x
        alpha = float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64)))
        x, jacobian = alpha * x, x[0].numel() * math.log(alpha)
    prior = sde.prior_log_prob(found.z) + found.prior_term
    solved = found.model_log_prob - found.start_term - prior + exact(found.z, expand_to_batch(sde.T, found.z))
    return solved - exact(x, expand_to_batch(sde.eps, x)) - jacobian


def mean_and_worst(what: str, error: Tensor) -> dict[str, float]:
    """Returns the mean and the largest absolute value of errors (N,) in nats as columns."""
    return {f"{what}_error_mean_nats": float(error.abs().mean()), f"{what}_error_max_nats": float(error.abs().max())}


def named(problem: Problem, setting: Setting) -> dict:
    """Returns the columns that name a run."""
    return {
        "score": problem.score_name,
        "sde": problem.sde_name,
        "method": setting.method,
        "setting": setting.what,
        "value": setting.value,
    }


def warn_of_failure(problem: Problem, setting: Setting, error: FloatingPointError) -> None:
    """Warns that a run has failed, whose row then has no results."""
    log.warning("%s under %s with %s %g: %s", setting.method, problem.sde_name, setting.what, setting.value, error)


def grouped(rows: list[dict], *keys: str) -> list[tuple[tuple, list[dict]]]:
    """Returns pairs of the values of the keys and the rows that have them, in the order of the rows."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(groups.items())


def write(record: Record, name: str, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Writes a table to the run's folder; NaN is written as an empty cell."""
    finite = [{k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))} for row in rows]
    try:
        with record.path(name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(finite)
    except OSError as error:
        raise record.unwritable(error) from error
