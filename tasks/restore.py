r"""Draws x from the posterior p(x | y) of a linear measurement y = A x + s n, without a training of its own.

``task=impute`` fills in what a mask hides, ``task=restore`` inverts any linear operator. The measurement is simulated
from held-out data, so that the truth is known. ``points=FILE`` holds the user's own: for masks whole points, which are
measured in the same way; for ``operator=missing`` points whose unknown values are NaN; for other operators the
measurements y. Operators and their noise are in data units.

A metric is left out where it needs more draws than there are, or a truth that is unknown. Spread, error, coverage and
draws out of range are over the unknown values (over all values, if the operator is no mask or has noise):

* ``spread_data_units``: the mean standard deviation of a value over its draws. ``rmse_of_mean_data_units``: the error
  of the draws' mean. Where columns have units of their own, the column with the largest scale dominates these two, and
  ``spread_stds`` and ``rmse_of_mean_stds`` are the same in standard deviations of the data;
* ``coverage``: how often the truth lies between the k-th draw from below and the k-th from above. Draws from the
  posterior reach ``coverage_nominal`` = 1 - 2k/(draws + 1), with the k >= 1 for which that is nearest to 0.8;
* ``sliced_wasserstein_to_exact``, for mixtures: the mean over the first points, up to 64, of the distance of the draws
  to as many exact draws, in data units; ``sliced_wasserstein_floor``: the distance between two sets of exact draws;
  ``times_the_floor``: their ratio, left out where the measurement determines x;
* ``draws_out_of_range``: the number of draws with an unknown value further outside the training part's range than that
  range is wide; the range is that of the value's column, for images that of all pixels. A warning names the column.
  Draws beyond ten such widths have diverged, unless the point's own measurement lies out of range, and so have draws
  that are not finite: the run then ends with an error;
* ``known_deviation_data_units``: the largest change of a value that a mask without noise left known, 0. ``misfit``, for
  other measurements: the root mean square of (y - A x)/s, which is about 1, or of y - A x if s = 0.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data, read_points, subset
from scoresde.data.filled import write_filled
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import Conditioner, ExactPosterior, Mask, Masking, Missing, Operator, Sampler, in_model_units
from scoresde.sde_lib import SDE, BlockNoise, Counted, ScoreFn
from scoresde.tasks.parts.batches import Batch, batches, check_batch
from scoresde.tasks.parts.conditions import columns_of
from scoresde.tasks.parts.drawing import noises
from scoresde.tasks.parts.out_of_range import OUT, beyond, count_draws, training_range, worst_column
from scoresde.tasks.parts.points import held_out, refuse_far
from scoresde.tasks.parts.progress import progress
from scoresde.tasks.parts.record import Record

from .task import Job, Task

log = logging.getLogger(__name__)

DIVERGED = 10.0  # how far outside the training part's range is an error, in widths of it
COMPARED = 64  # points at most whose draws are compared with exact draws


@dataclass(frozen=True)
class Problem:
    """The measurements of N points, in data units.

    Attributes:
        operator: A with its noise; if each point has its own mask, the masks of all points.
        y: the measurements (N, *measured), float64.
        truth: the measured points (N, *), float64, integers at a random place in their bins; None if unknown.
    """

    operator: Operator
    y: Tensor
    truth: Tensor | None


@dataclass(frozen=True)
class Restore(Task):
    """Draws points from the posterior of a measurement, and reports how well they agree with the truth.

    Writes restored.npz and restored.png. For ``operator=missing`` and ``points=FILE`` it also writes filled.csv,
    filled.parquet or filled.npy: the user's file with the first draw of each point in its gaps, all its columns as they
    stand there, known values unchanged, and the rows that ``count`` leaves out as they were.

    Arguments:
        sampler: the sampler of the prior.
        operator: the measurement.
        conditioner: turns the sampler of the prior into one of the posterior.
        draws: the number of draws per point; None for 8 per image, 64 per vector.
        count: the number of points; None for 8 images, 64 vectors, or all of the user's own.
        points: a file of the user's own points or measurements; see the module's text.
        batch: the number of samples that the network evaluates at once, rounded down to whole points, but at least one
            point; the draws do not depend on it.
        seed: the seed of the noise, also of the simulated measurements.
        device, dtype: where, and in which precision.
    """

    sampler: Sampler
    operator: Operator
    conditioner: Conditioner
    draws: int | None = None
    count: int | None = None
    points: str | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_batch(self.batch)
        if self.draws is not None and self.draws < 1:
            raise ValueError(f"`draws`={self.draws} must be at least 1; type `draws`=8")

    def check(self, sde: SDE, data: Data) -> None:
        self.pose(data)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        problem, counted = self.pose(data, quiet=True), Counted(score)
        draws = self.draws or (64 if len(data.shape) == 1 else 8)
        if words := self.conditioner.describe(self.sampler, draws):
            log.info("conditioner: %s", words)
        started = time.monotonic()
        x = self.solve(sde, counted, data, problem, draws)
        seconds = time.monotonic() - started
        count = len(x)
        out = self.out_of_range(data, problem, x)
        exact = self.exact(data, problem, draws)
        metrics = {"count": count, "draws": draws} | out | self.measures(data, problem, x) | distances(x, exact)
        metrics |= {"nfe": counted.evaluations / (count * draws), "seconds": seconds}
        self.keep(data, problem, x, record)
        if self.points and isinstance(self.operator, Missing):
            self.fill(data, x, record)
        self.show(data, problem, x, record)
        return metrics

    # ---- the problem ----

    def pose(self, data: Data, quiet: bool = False) -> Problem:
        """Returns the measurements: simulated, from held-out data or the user's points, or taken from the user's file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the points and the operator do not fit together, or there are no held-out data.
        """
        default = 8 if len(data.shape) == 3 else 64
        if not self.points:
            return self.measured(data, self.operator, held_out(data, self.count or default))
        if not isinstance(self.operator, Masking):  # the file holds measurements
            y = subset(
                read_points(self.points, self.operator.measured, content="measurements", quiet=quiet), self.count
            )
            if data.levels:  # the file measured integers k, and draws are at k + u, k + 1/2 in the mean
                y = y + self.operator(torch.full((1, *data.shape), 0.5, dtype=torch.float64))
            return Problem(self.operator, y, None)
        r = read_points(self.points, data.shape, data.levels, data.labels(), missing=True, quiet=quiet)
        refuse_far(data, r, self.points)
        r = subset(r, self.count)
        if isinstance(self.operator, Missing):
            return self.missing(data, r, f"points={self.points} holds")
        if bool(r.isnan().any()):
            raise ValueError(
                f"points={self.points} holds NaN, and operator={type(self.operator).__name__} hides values of its "
                f"own; type operator=missing to fill in the NaNs"
            )
        return self.measured(data, self.operator, r)

    def missing(self, data: Data, r: Tensor, what: str) -> Problem:
        """Returns the measurement of points r (N, *) in data units whose NaNs are unknown.

        Arguments:
            what: the points and a verb, with which an error starts.

        Raises:
            ValueError: no value is NaN.
        """
        gaps = r.isnan()
        if not bool(gaps.any()):
            raise ValueError(
                f"{what} no NaN, so that nothing is unknown; write NaN for what is to be filled in, or choose a mask, "
                f"operator=half"
            )
        mask = Mask(data.shape, self.operator.noise, (~gaps).double())
        filled = r.masked_fill(gaps, 0)  # hidden by the mask
        r = self.continuous(data, filled.to(torch.int64) if data.levels else filled)
        return Problem(mask, mask(r), None)

    def measured(self, data: Data, operator: Operator, r: Tensor) -> Problem:
        """Simulates the measurement of points r (N, *) in data units, with its noise."""
        truth = self.continuous(data, r)
        operator = operator.rows(torch.arange(len(truth)))
        y = operator(truth)
        if operator.noise:
            y = y + operator.noise * self.normals("measurement", len(truth), tuple(y.shape[1:]))
            y = torch.where(operator.seen, y, 0.0) if isinstance(operator, Masking) else y
        return Problem(operator, y, truth)

    def continuous(self, data: Data, r: Tensor) -> Tensor:
        """Returns points r (N, *) in data units as float64, integers at a random place in their bins."""
        noise = BlockNoise(self.seed, 0, len(r), data.shape, torch.float64, "cpu", "dequantisation")
        return data.dequantise(r, noise.uniform()).double() if data.levels else r.double()

    def normals(self, stream: str, count: int, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers (count, *shape), float64, of a stream of their own."""
        return BlockNoise(self.seed, 0, count, shape, torch.float64, "cpu", stream)()

    # ---- its solution ----

    def solve(self, sde: SDE, score: ScoreFn, data: Data, problem: Problem, draws: int, leave: bool = True) -> Tensor:
        """Returns draws in data units, (N, draws, *), float64, on the CPU; exactly known values are bitwise kept.

        Arguments:
            leave: whether the progress bar stays on the screen when it is full.
        """
        parts, dtype, count = [], getattr(torch, self.dtype), len(problem.y)
        size = max(1, self.batch // (draws * self.conditioner.load(draws)))
        with progress("drawing", count, leave) as advance:
            for batch in batches(count, size, advance):
                # the number of each draw's point
                numbers = torch.arange(batch.first, batch.first + batch.size).repeat_interleave(draws)
                measurement = in_model_units(
                    problem.operator.rows(numbers),
                    problem.y[numbers],
                    data.shift,
                    data.scale,
                    dtype,
                    self.device,
                    draws=draws,
                )
                sampler, posterior = self.conditioner.condition(self.sampler, sde, score, measurement)
                samples = Batch(batch.first * draws, len(numbers))
                start, noise = noises(samples, self.seed, data.shape, dtype, self.device)
                x = sampler(sde, posterior, start() * sde.prior_std, noise, on_step=batch.on_step)
                parts.append(data.decode(x.double().cpu()).unflatten(0, (batch.size, draws)))
        x = torch.cat(parts)
        if (seen := exactly_known(problem.operator)) is not None:
            x = torch.where(seen[:, None], problem.y[:, None], x)
        return x

    def exact(self, data: Data, problem: Problem, draws: int, most: int = COMPARED) -> tuple[Tensor, Tensor] | None:
        """Returns two sets of exact draws in data units, (n, draws, *), at up to ``most`` of the first points; None for
        data that are no mixture.
        """
        if (components := data.components()) is None:
            return None
        n = min(len(problem.y), most)
        numbers = torch.arange(n).repeat_interleave(draws)
        generator = torch.Generator().manual_seed(self.seed % 2**63)
        measurement = in_model_units(
            problem.operator.rows(numbers), problem.y[numbers], data.shift, data.scale, torch.float64, "cpu"
        )
        posterior = ExactPosterior(components)
        return tuple(data.decode(posterior.draw(measurement, generator)).unflatten(0, (n, draws)) for _ in range(2))

    def measures(self, data: Data, problem: Problem, x: Tensor) -> dict[str, float]:
        """Returns the metrics of the draws x (N, draws, *) in data units that need neither exact draws nor the training
        part; see the module's text.
        """
        operator, truth, found = problem.operator, problem.truth, {}
        own_units = data.distance_unit == "std"  # columns have units of their own
        unknown = torch.ones_like(x[:, 0], dtype=torch.bool)
        if isinstance(operator, Masking):
            unknown = unknown & ~operator.seen if not operator.noise else unknown
        # the measured values
        if (seen := exactly_known(operator)) is not None:
            away = (x - problem.y[:, None]).abs().amax(1)
            found["known_deviation_data_units"] = float(torch.where(seen, away, 0.0).max())
        else:
            draws = x.shape[1]
            repeated = operator.rows(torch.arange(len(x)).repeat_interleave(draws))
            misfit = problem.y.repeat_interleave(draws, 0) - repeated(x.flatten(0, 1))
            used = repeated.seen.expand_as(misfit) if isinstance(operator, Masking) else torch.ones_like(misfit).bool()
            found["misfit"] = float(misfit[used].square().mean().sqrt()) / (operator.noise or 1.0)
        # the draws among themselves, and beside the truth
        if x.shape[1] > 1:
            found["spread_data_units"] = float(x.std(1)[unknown].mean())
            if own_units:
                found["spread_stds"] = float((x.std(1) / data.scale)[unknown].mean())
        if truth is not None:
            away = x.mean(1) - truth
            found["rmse_of_mean_data_units"] = float(away[unknown].square().mean().sqrt())
            if own_units:
                found["rmse_of_mean_stds"] = float((away / data.scale)[unknown].square().mean().sqrt())
            found |= coverage(x, truth, unknown)
        return found

    def out_of_range(self, data: Data, problem: Problem, x: Tensor) -> dict[str, int]:
        """Counts the draws (N, draws, *) that lie outside the training part's range; see the module's text.

        Raises:
            FloatingPointError: where draws have diverged.
        """
        total, unknown = x.shape[0] * x.shape[1], ~known_values(problem.operator, x[:, 0])
        remedy = self.conditioner.remedy(len(data.shape) == 1)
        bad = ~x.isfinite() & unknown[:, None]
        if (limits := training_range(data)) is None:
            if bool(bad.any()):
                raise FloatingPointError(f"{count_draws(bad)} of {total} draws are not finite; {remedy}")
            return {}
        far = beyond(x, limits, DIVERGED) & unknown[:, None]
        outlying = beyond(self.measured_values(problem), limits, OUT).flatten(1).any(1)  # the points, (N,)
        diverged = far & ~outlying.reshape(-1, *[1] * (far.ndim - 1)) | bad
        if bool(diverged.any()):
            where = worst_column(data, x, diverged, limits)
            raise FloatingPointError(f"{count_draws(diverged)} of {total} draws have diverged: {where}; {remedy}")
        if bool(outlying.any()):
            log.warning(
                "%d of %d points are measured further outside the training part's range than it is wide: the network "
                "learnt nothing there, so do not rely on their draws; look at their rows of points=",
                int(outlying.sum()),
                len(x),
            )
        out = beyond(x, limits, OUT) & unknown[:, None]
        if count := count_draws(out):
            log.warning(
                "draws_out_of_range: %d of %d, %s; %s", count, total, worst_column(data, x, out, limits), remedy
            )
        return {"draws_out_of_range": count}

    def measured_values(self, problem: Problem) -> Tensor:
        """Returns the x that the measurement gives by itself, A^+ y, (N, *), NaN where a mask hides a value."""
        if isinstance(problem.operator, Masking):
            return torch.where(problem.operator.seen, problem.operator.pseudo_inverse(problem.y), torch.nan)
        return problem.operator.pseudo_inverse(problem.y)

    # ---- its results ----

    def keep(self, data: Data, problem: Problem, x: Tensor, record: Record) -> None:
        """Writes restored.npz, in data units; integers as integers, but for measurements that are none. Such a y is of
        k + u, u in [0, 1), also where the user's file measured k.
        """
        arrays = {"x": x, "y": problem.y}
        if problem.truth is not None:
            arrays["truth"] = problem.truth
        if isinstance(problem.operator, Masking):
            arrays["mask"] = problem.operator.seen.expand_as(x[:, 0])
        if data.levels:
            whole = [key for key in ("x", "truth") if key in arrays]
            if exactly_known(problem.operator) is not None:
                whole.append("y")
            arrays |= {key: integers(data, arrays[key]) for key in whole}
        record.arrays("restored", **{key: value.numpy() for key, value in arrays.items()}, **columns_of(data))

    def fill(self, data: Data, x: Tensor, record: Record) -> None:
        """Writes the user's file again with the first draw of each point in its gaps.

        Arguments:
            x: the draws, (N, draws, *) in data units.
        """
        first = integers(data, x[:, 0]) if data.levels else x[:, 0]
        try:
            path = write_filled(self.points, record.folder, self.count, first.numpy(), data.labels())
        except OSError as error:
            raise record.unwritable(error) from error
        record.picture(path)  # so that the run prints the path

    def show(self, data: Data, problem: Problem, x: Tensor, record: Record) -> None:
        """Draws the restored points beside the truth where it is known, images beside their measurements too."""
        from scoresde.figures import restored

        path, operator, truth = record.path("restored.png"), problem.operator, problem.truth
        if len(data.shape) == 3:
            seen = operator.seen.expand_as(x[:, 0])[:8] if isinstance(operator, Masking) else None
            rows = operator.rows(torch.arange(min(8, len(x))))
            y = problem.y[:8]
            measured = y if y.shape[1:] == x.shape[2:] else rows.pseudo_inverse(y)
            truth = None if truth is None else truth[:8]
            record.picture(restored.restored_images(truth, measured, x[:8], path, seen=seen, levels=data.levels))
        elif data.dim == 2:
            exact = self.exact(data, problem, 5000, most=4)
            record.picture(
                restored.restored_planar(
                    x[:4],
                    data.test.double(),
                    path,
                    truth=None if truth is None else truth[:4],
                    exact=None if exact is None else exact[0],
                    labels=data.labels(),
                )
            )
        else:
            seen = exactly_known(operator)
            unknown = torch.ones_like(x[:, 0], dtype=torch.bool) if seen is None else ~seen.expand_as(x[:, 0])
            scale = (data.shift.expand(data.shape), data.scale.expand(data.shape))
            if truth is not None:
                record.picture(restored.restored_vectors(x, unknown, scale, path, truth))
            else:
                record.picture(restored.restored_gaps(x, unknown, scale, path, labels=data.labels()))


def integers(data: Data, x: Tensor) -> Tensor:
    """Returns points in data units as the integers that they stand for, uint8 for up to 256 levels, else int64."""
    return x.floor().clamp(0, data.levels - 1).to(torch.uint8 if data.levels <= 256 else torch.int64)


def exactly_known(operator: Operator) -> Tensor | None:
    """Returns which values a mask without noise leaves known, (1, *) or (N, *); None for any other operator."""
    return operator.seen if isinstance(operator, Masking) and not operator.noise else None


def known_values(operator: Operator, like: Tensor) -> Tensor:
    """Returns :func:`exactly_known` for each point, (N, *) as ``like``; all False for an operator that is no mask
    without noise.
    """
    seen = exactly_known(operator)
    return torch.zeros_like(like, dtype=torch.bool) if seen is None else seen.expand_as(like)


def coverage(x: Tensor, truth: Tensor, unknown: Tensor) -> dict[str, float]:
    """Returns how often the truth (N, *) lies in the central interval of the draws x (N, draws, *), and how often it
    should; {} for fewer than three draws, or if no value counts.

    Arguments:
        unknown: the values that count, booleans (N, *).
    """
    draws = x.shape[1]
    if draws < 3 or not bool(unknown.any()):
        return {}
    k = max(1, min(round((draws + 1) * 0.1), draws // 2))  # a tenth of the draws on each side
    ordered = x.sort(1).values
    inside = (truth >= ordered[:, k - 1]) & (truth <= ordered[:, draws - k])
    return {"coverage": float(inside[unknown].double().mean()), "coverage_nominal": 1 - 2 * k / (draws + 1)}


def distances(x: Tensor, exact: tuple[Tensor, Tensor] | None) -> dict[str, float]:
    """Returns the mean distance of a point's draws x (N, draws, *) to exact draws, its floor, and the ratio of both if
    the floor is not 0; {} without exact draws, or with a single one.

    Arguments:
        exact: of :meth:`Restore.exact`.
    """
    if exact is None or x.shape[1] < 2:
        return {}
    first, second = exact  # at the first points only, if there are many
    found = {
        key: float(np.mean([sliced_wasserstein(a, b, 50) for a, b in zip(draws[: len(first)], first, strict=True)]))
        for key, draws in (("sliced_wasserstein_to_exact", x), ("sliced_wasserstein_floor", second))
    }
    size = float(first.std()) or 1.0
    if found["sliced_wasserstein_floor"] < 1e-6 * size:  # the measurement determines x, and the ratio is rounding
        return found
    return found | {"times_the_floor": found["sliced_wasserstein_to_exact"] / found["sliced_wasserstein_floor"]}
