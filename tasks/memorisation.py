r"""Tests whether samples are copies of the training data, by nearest neighbours and the C_T test
(:mod:`scoresde.metrics.memorisation`).

The main number is ``copying``, C_T in its own standard deviations: below -3 the samples lie nearer to the training
data than held-out data do. What such a test can see depends on the data, so two controls run beside it, and ``verdict``
says what the test and its controls together mean:

* ``copying_positive_control``: the test of a sampler that copies. It returns as many training examples as there are
  samples, each moved by ``noise`` times the median distance of held-out from training data (rms; less between principal
  components, and rounded down to a level for integers). The test must catch it.
* ``copying_negative_control``: the test of a random half of the held-out data in the role of the samples, against the
  other half. The test must find neither copying nor its opposite. Fewer than 20 held-out data have no such control.

``caught_from_share`` is the smallest of eight shares of the positive control's copies that the test catches, half of
the held-out data against the other half with that share replaced by copies. The pairs may show fewer copies.

The pairs are each sample with its nearest training and its nearest held-out example. ``ratio`` is the distance to the
training example over the distance to the held-out one. One half of the held-out data is the reference for samples and
for the other half (``ratio_median_held_out``), so that both ratios would be alike if nothing were copied.
``near_duplicates`` is the share of samples that are three times nearer to one training example than to the next, a
common criterion, and ``near_duplicates_held_out`` is the same share of held-out data.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data, read_points, subset
from scoresde.metrics import Cells, CopyingTest, copying_test, nearest
from scoresde.samplers import Sampler, TemperedNoise, Tempering
from scoresde.sde_lib import SDE, Counted
from scoresde.sde_lib.noise import seed_of
from scoresde.tasks.parts.conditions import columns_of
from scoresde.tasks.parts.drawing import Drawing
from scoresde.tasks.parts.record import Record

from .task import Job, Task

log = logging.getLogger(__name__)

BEYOND = 3.0  # standard deviations of C_T beyond which the test has a result
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of copies that are tried for caught_from_share


@dataclass(frozen=True)
class Memorisation(Task):
    """Tests whether samples are copies of the training data; see the module's text.

    Writes memorisation.npz, distances.png and, for images and planar data, pairs.png. Distances are Euclidean, in model
    units or between principal components of the training data.

    Arguments:
        sampler: turns noise into samples.
        tempering: the temperature of the samples.
        samples: a file of samples in data units to test instead, such as samples.npz of an earlier run.
        cells: the number of cells of the C_T test; None for one per hundred held-out data, 1 at least, 10 at most.
        components: the number of principal components of the training data in which distances are measured; None for
            the data themselves.
        noise: the size of the noise on the positive control's copies, as a share of the median distance of held-out
            from training data.
        count: the number of samples; None for 1,000 vectors or 256 images, or all of ``samples``.
        batch, seed, device, dtype: for sampling; see :class:`scoresde.tasks.Sample`. The seed is also the seed of the
            controls and the cells.
    """

    only_with: ClassVar[dict] = dict.fromkeys(("sampler", "tempering"), ("samples", (None,)))

    sampler: Sampler
    tempering: Tempering = field(default_factory=TemperedNoise)
    samples: str | None = None
    cells: int | None = None
    components: int | None = None
    noise: float = 0.1
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        for key in ("cells", "components"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"`{key}`={getattr(self, key)} must be at least 1; leave it out for the default")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"`noise`={self.noise} must be at least 0; type `noise`=0.1")
        self.drawing  # noqa: B018 (its own checks)

    @property
    def requests(self) -> tuple[str, ...]:
        return ("score",) if self.samples is None else ()

    @property
    def drawn_by(self) -> tuple[Sampler, ...]:
        return (self.sampler,) if self.samples is None else ()

    @property
    def drawing(self) -> Drawing:
        """Draws the samples with this task's settings."""
        return Drawing(self.sampler, self.tempering, self.batch, self.seed, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        if min(len(data.train), len(data.test)) < 4:
            raise ValueError(
                f"{len(data.train)} training and {len(data.test)} held-out examples are too few: a test on copying "
                f"needs at least 4 of each"
            )
        if self.cells is not None and self.cells > (most := min(len(data.train), 20_000)):
            raise ValueError(
                f"task.cells={self.cells} must be at most {most}, the number of training data that form the cells; "
                f"leave it out for the default"
            )
        self.check_components(data)

    def __call__(self, job: Job) -> dict:
        data, record = job.data, job.record
        r, nfe = self.obtain(job)
        random = np.random.default_rng(seed_of(self.seed, "memorisation"))
        view = self.view(data)
        train, test, samples = (view(points) for points in (data.train, data.test, r))
        # distances to the training data
        (d_test, _), (d_samples, nearest_train) = (nearest(points, train, 2) for points in (test, samples))
        copies, d_copies = self.copies(data, view, train, d_test[:, 0], len(r), random)
        # the test and its controls
        cells = Cells(train, min(self.cells or min(10, max(1, len(test) // 100)), len(train)), self.seed)
        halves = random.permutation(len(test))
        first, second = halves[: len(test) // 2], halves[len(test) // 2 :]
        held_out = Located(d_test[:, 0], cells(test))
        tests = run_tests(
            held_out, Located(d_samples[:, 0], cells(samples)), Located(d_copies, cells(copies)), first, second
        )
        if not len(tests.found.z):
            log.warning(
                "no cell holds 10 samples and 10 held-out data, which the C_T test needs: type a larger count=, or "
                "task.cells=1"
            )
        # ratios have one reference for samples and for the first half: the training data, and the second half
        (to_half, nearest_half), (half_to_half, _) = nearest(samples, test[second]), nearest(test[first], test[second])
        ratio = safe_ratio(d_samples[:, 0], to_half[:, 0])
        ratio_held_out = safe_ratio(d_test[first, 0], half_to_half[:, 0])
        record.arrays(
            "memorisation",
            x=r.numpy(),
            nearest_train=nearest_train[:, 0],
            nearest_held_out=second[nearest_half[:, 0]],
            distance_train=d_samples[:, 0],
            distance_held_out=to_half[:, 0],
            ratio=ratio,
            held_out_distance_train=d_test[:, 0],
            copies_distance_train=d_copies,
            **columns_of(data),
        )
        self.show_pairs(data, r, data.test[second], nearest_train[:, 0], nearest_half[:, 0], ratio, record)
        self.show_distances(d_test[:, 0], d_samples[:, 0], d_copies, record)
        return {
            "count": len(r),
            **tests.metrics(),
            **ratio_metrics(ratio, ratio_held_out),
            "near_duplicates": near_duplicates(d_samples),
            "near_duplicates_held_out": near_duplicates(d_test),
            "distance_median": float(np.median(d_samples[:, 0])),
            "distance_median_held_out": float(np.median(d_test[:, 0])),
            "nfe": nfe,
        }

    def obtain(self, job: Job) -> tuple[Tensor, float | None]:
        """Returns the samples (N, *) in data units, integers for integer data, and the evaluations per sample or, for a
        file of samples, None.

        Raises:
            FloatingPointError: a sample is not finite.
        """
        sde, data = job.sde, job.data
        if self.samples is not None:
            r = read_points(self.samples, data.shape, data.levels, data.labels(), key="task.samples")
            return subset(r, self.count), None
        counted, count = Counted(job.networks.score().model), self.count or (1000 if len(data.shape) == 1 else 256)
        r = data.decode(self.drawing.draw(sde, counted, data.shape, count).double().cpu())
        if not bool(r.isfinite().all()):
            raise FloatingPointError(
                "some samples are not finite; try more sampler.steps, another sampler, or dtype=float64"
            )
        return whole(data, r), counted.evaluations / count

    def view(self, data: Data):
        """Returns the map from points (N, *) in data units to what distances are measured in, (N, D): model units, or
        principal components.
        """
        self.check_components(data)
        if self.components is None:
            return lambda r: data.encode(r.double()).flatten(1)
        from sklearn.decomposition import PCA

        fitted = PCA(self.components, random_state=self.seed % 2**32)
        fitted.fit(data.encode(data.train[:20_000].double()).flatten(1).numpy())
        return lambda r: torch.from_numpy(fitted.transform(data.encode(r.double()).flatten(1).numpy()))

    def check_components(self, data: Data) -> None:
        """Raises a ValueError for more principal components than the data have."""
        most = min(data.dim, len(data.train))
        if self.components is not None and self.components > most:
            raise ValueError(
                f"task.components={self.components} must be at most {most}, the number that these data have; leave it "
                f"out to compare the data themselves"
            )

    def copies(
        self, data: Data, view, train: Tensor, held_out: np.ndarray, count: int, random: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        """Returns the positive control, ``count`` training examples with a little noise, in the view, and its distances
        to the training data, (count,).

        Arguments:
            view: of :meth:`view`.
            train: the training data in the view.
            held_out: the distances of the held-out data to the training data, (M,).
        """
        chosen = data.train[torch.from_numpy(random.integers(0, len(data.train), count))]
        size = self.noise * float(np.median(held_out)) / math.sqrt(data.dim)  # of each coordinate, in model units
        moved = data.decode(
            data.encode(data.dequantise(chosen, None).double())
            + size * torch.from_numpy(random.standard_normal(tuple(chosen.shape)))
        )
        copies = view(whole(data, moved))
        return copies, nearest(copies, train)[0][:, 0]

    def show_pairs(
        self,
        data: Data,
        r: Tensor,
        held_out: Tensor,
        nearest_train: np.ndarray,
        nearest_held_out: np.ndarray,
        ratio: np.ndarray,
        record: Record,
    ) -> None:
        """Draws samples with their nearest examples, those with the smallest ratio first, of images and planar points.

        Arguments:
            r: the samples (N, *) in data units.
            held_out: the half of the held-out data that is the reference.
            nearest_train, nearest_held_out: the places of each sample's neighbours in the training data and in
                ``held_out``, (N,).
            ratio: (N,); see the module's text.
        """
        from scoresde.figures import memorisation as draw

        path, order = record.path("pairs.png"), np.argsort(ratio, kind="stable")
        if len(data.shape) == 3:
            top = order[:24]
            picked = r[top], data.train[nearest_train[top]], held_out[nearest_held_out[top]]
            record.picture(draw.triples(*picked, ratio[top], path, levels=data.levels))
        elif data.dim == 2:
            picked = r[order], data.train[nearest_train[order]]
            record.picture(draw.planar_pairs(*picked, data.train[:5000], path, labels=data.labels()))

    def show_distances(self, held_out: np.ndarray, samples: np.ndarray, copies: np.ndarray, record: Record) -> None:
        """Draws the distances of held-out data, samples and the positive control's copies to the training data."""
        from scoresde.figures import memorisation as draw

        record.picture(draw.distances(held_out, samples, copies, record.path("distances.png")))


@dataclass(frozen=True)
class Located:
    """The distance of each of N points to the nearest training example, and its cell; (N,) each."""

    distance: np.ndarray
    cell: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Located":
        return Located(self.distance[rows], self.cell[rows])


@dataclass(frozen=True)
class Results:
    """The C_T test of the samples, and of the controls that say whether it works on these data.

    Attributes:
        found: the test of the samples against held-out data.
        positive, negative: those of the controls; see the module's text.
        caught_from: the smallest of ``SHARES`` of copies that the test sees; None if it sees none of them.
    """

    found: CopyingTest
    positive: CopyingTest
    negative: CopyingTest
    caught_from: float | None

    def metrics(self) -> dict:
        """Returns the metrics of the test and its controls, and the verdict."""
        return {
            "verdict": verdict(self.found, self.positive, self.negative),
            "copying": self.found.deviations,
            "copying_positive_control": self.positive.deviations,
            "copying_negative_control": self.negative.deviations,
            "caught_from_share": self.caught_from,
            "c_t": self.found.statistic,
            "c_t_std": self.found.std,
            "cells": len(self.found.z),  # with enough points of both kinds
        }


def run_tests(held_out: Located, samples: Located, copies: Located, first: np.ndarray, second: np.ndarray) -> Results:
    """Runs the C_T test and its controls.

    Arguments:
        held_out, samples, copies: the held-out data, the samples and the positive control's copies.
        first, second: the places of two halves of the held-out data.
    """
    return Results(
        against(held_out, samples),
        against(held_out, copies),
        against(held_out[second], held_out[first]),
        caught_from(held_out, copies, first, second),
    )


def against(held_out: Located, generated: Located) -> CopyingTest:
    """Returns the C_T test of generated points against held-out data."""
    return copying_test(held_out.distance, generated.distance, held_out.cell, generated.cell)


def caught_from(held_out: Located, copies: Located, first: np.ndarray, second: np.ndarray) -> float | None:
    """Returns the smallest of ``SHARES`` of the first half of the held-out data that, replaced by copies, the test sees
    against the second half; None if it sees none of them.
    """
    for share in SHARES:
        count = round(share * len(first))
        mixed = Located(
            np.concatenate((np.resize(copies.distance, count), held_out.distance[first[count:]])),
            np.concatenate((np.resize(copies.cell, count), held_out.cell[first[count:]])),
        )
        if count and against(held_out[second], mixed).deviations < -BEYOND:
            return share
    return None


def ratio_metrics(ratio: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Returns the median and the least ratio of samples and of held-out data."""
    return {
        "ratio_median": float(np.median(ratio)),
        "ratio_median_held_out": float(np.median(held_out)),
        "ratio_least": float(ratio.min()),
        "ratio_least_held_out": float(held_out.min()),
    }


def safe_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns a / b; 1 where both are 0, as for an example that is in both sets, and infinity where only b is 0."""
    return np.where(b > 0, a / np.where(b > 0, b, 1), np.where(a > 0, np.inf, 1.0))


def near_duplicates(distances: np.ndarray) -> float:
    """Returns the share of points that are three times nearer to the first neighbour than to the second, by their
    distances (N, 2).
    """
    return float((distances[:, 0] < distances[:, 1] / 3).mean())


def whole(data: Data, r: Tensor) -> Tensor:
    """Returns samples r (N, *) in data units as the data are: for integer data rounded down to a level, int64."""
    if data.levels is None:
        return r
    return r.floor().clamp(0, data.levels - 1).to(torch.int64)


def verdict(found: CopyingTest, positive: CopyingTest, negative: CopyingTest) -> str:
    """Returns the result of the test in words, or why it is unknown: too few points, or a control that failed."""
    if not len(found.z):
        return "unknown: too few samples or held-out data"
    if not positive.deviations < -BEYOND:
        return "unknown: the test is blind here, its positive control passed"
    if abs(negative.deviations) > BEYOND:
        return "unknown: the test errs here, its negative control failed"
    if found.deviations < -BEYOND:
        return "copying"
    return "underfitting" if found.deviations > BEYOND else "no copying seen"
