r"""Are samples copies of the training data? Nearest neighbours, and the C_T test
(:mod:`scoresde.metrics.memorisation`).

The number to read is ``copying``, C_T in its own standard deviations: below -3 the samples lie nearer to the training
data than held-out data do. Such a test is worth what it catches and what it lets pass, on these very data; so two
controls are run beside it, and ``verdict`` says what the three together mean:

* ``copying_positive_control``: a sampler that copies, as many training examples as there are samples, each moved by
  ``noise`` times the median distance of held-out data from the training data. It must be caught.
* ``copying_negative_control``: half of the held-out data in the role of the samples, against the other half. It must
  not. Training and held-out data that differ (a split by date, say) are seen here.
* ``caught_from_share``: the smallest share of such copies, among samples that are otherwise like held-out data, at
  which the test would have spoken. What stays below it is not seen by it, though the pairs may still show it.

The pairs are what to look at: each sample with its nearest training and its nearest held-out example. ``ratio`` is the
distance to the first over that to the second, against the same half of the held-out data for samples and for the other
half (``ratio_median_held_out``), so that both would be alike if nothing were copied. ``near_duplicates`` is the share
of samples that are three times nearer to one training example than to the next, a criterion in use, beside the share
of held-out data of which that is so.
"""

import logging
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data, read_points, subset
from scoresde.metrics import Cells, CopyingTest, copying_test, nearest
from scoresde.samplers import Sampler, TemperedNoise, Tempering
from scoresde.sde_lib import SDE, Counted
from scoresde.sde_lib.noise import seed_of
from scoresde.tasks.parts.drawing import Drawing
from scoresde.tasks.parts.record import Record

from .task import Job, Task

log = logging.getLogger(__name__)

BEYOND = 3.0  # standard deviations
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class Memorisation(Task):
    """Writes metrics, memorisation.npz and pictures.

    Distances are Euclidean in model units, or between the first principal components of the training data.

    Arguments:
        sampler: what turns noise into samples.
        tempering: their temperature.
        samples: a file of samples in the data's own units, an earlier run's samples.npz say, to judge instead.
        cells: how many cells the test has; None for one a hundred held-out data, 10 at most.
        components: how many principal components of the training data distances are measured in; None for the data
            themselves.
        noise: of the positive control's copies, as a share of the median distance of held-out from training data.
        count: how many samples; None for 1,000 vectors or 256 pictures, or all of ``samples``.
        batch, seed, device, dtype: of the sampling; see :class:`scoresde.tasks.Sample`. The seed is also the controls'
            and the cells'.
    """

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
    def drawing(self) -> Drawing:
        """How the samples are drawn."""
        return Drawing(self.sampler, self.tempering, self.batch, self.seed, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        if min(len(data.train), len(data.test)) < 4:
            raise ValueError(
                f"there are {len(data.train)} training and {len(data.test)} held-out examples, and a test on copying "
                f"needs at least 4 of each"
            )
        if self.cells is not None and self.cells > (most := min(len(data.train), 20_000)):
            raise ValueError(
                f"task.cells={self.cells} must be at most {most}, the training data that decide the cells; leave it "
                f"out for the default"
            )

    def __call__(self, job: Job) -> dict:
        data, record = job.data, job.record
        r, nfe = self.obtain(job)
        random = np.random.default_rng(seed_of(self.seed, "memorisation"))
        view = self.view(data)
        train, test, drawn = (view(each) for each in (data.train, data.test, r))
        (d_test, _), (d_drawn, who) = (nearest(each, train, 2) for each in (test, drawn))
        copies, d_copies = self.copies(data, view, train, d_test[:, 0], len(r), random)

        cells = Cells(train, min(self.cells or min(10, max(1, len(test) // 100)), len(train)), self.seed)
        where_test, where_drawn, where_copies = (cells(each) for each in (test, drawn, copies))
        halves = random.permutation(len(test))
        first, second = halves[: len(test) // 2], halves[len(test) // 2 :]
        found = copying_test(d_test[:, 0], d_drawn[:, 0], where_test, where_drawn)
        positive = copying_test(d_test[:, 0], d_copies, where_test, where_copies)
        negative = copying_test(d_test[second, 0], d_test[first, 0], where_test[second], where_test[first])
        caught = self.caught_from(d_test[:, 0], d_copies, where_test, where_copies, first, second)

        # the same reference for samples and for held-out data: the training data, and the second half
        (to_half, whom), (half_to_half, _) = nearest(drawn, test[second]), nearest(test[first], test[second])
        ratio = safe_ratio(d_drawn[:, 0], to_half[:, 0])
        ratio_held_out = safe_ratio(d_test[first, 0], half_to_half[:, 0])
        order = np.argsort(ratio, kind="stable")
        record.arrays(
            "memorisation",
            x=r.numpy(),
            nearest_train=who[:, 0],
            nearest_held_out=second[whom[:, 0]],
            distance_train=d_drawn[:, 0],
            distance_held_out=to_half[:, 0],
            ratio=ratio,
            held_out_distance_train=d_test[:, 0],
            copies_distance_train=d_copies,
        )
        self.show(data, r, data.test[second], who[:, 0], whom[:, 0], order, ratio, record)
        self.show_distances(d_test[:, 0], d_drawn[:, 0], d_copies, record)
        if not len(found.z):
            log.warning(
                "no cell holds 10 samples and 10 held-out data, which the C_T test needs: type a larger count=, or "
                "task.cells=1"
            )
        return {
            "count": len(r),
            "verdict": verdict(found, positive, negative),
            "copying": found.deviations,
            "copying_positive_control": positive.deviations,
            "copying_negative_control": negative.deviations,
            "caught_from_share": caught,
            "c_t": found.statistic,
            "c_t_std": found.std,
            "cells": len(found.z),
            "ratio_median": float(np.median(ratio)),
            "ratio_median_held_out": float(np.median(ratio_held_out)),
            "ratio_least": float(ratio.min()),
            "ratio_least_held_out": float(ratio_held_out.min()),
            "near_duplicates": near_duplicates(d_drawn),
            "near_duplicates_held_out": near_duplicates(d_test),
            "distance_median": float(np.median(d_drawn[:, 0])),
            "distance_median_held_out": float(np.median(d_test[:, 0])),
            "nfe": nfe,
        }

    def obtain(self, job: Job) -> tuple[Tensor, float | None]:
        """Returns the samples in data units, integers where the data are, and the evaluations of each; None for those
        of a file.
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
        """What distances are measured in: (N, *) in data units to (N, D) in model units, or to principal components."""
        if self.components is None:
            return lambda r: data.encode(r.double()).flatten(1)
        most = min(data.dim, len(data.train))
        if self.components > most:
            raise ValueError(
                f"task.components={self.components} must be at most {most}: these data have no more; leave it out for "
                f"the data themselves"
            )
        from sklearn.decomposition import PCA

        fitted = PCA(self.components, random_state=self.seed % 2**32)
        fitted.fit(data.encode(data.train[:20_000].double()).flatten(1).numpy())
        return lambda r: torch.from_numpy(fitted.transform(data.encode(r.double()).flatten(1).numpy()))

    def copies(
        self, data: Data, view, train: Tensor, held_out: np.ndarray, count: int, random: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        """The positive control: training examples with a little noise, in the view, and their distances."""
        chosen = data.train[torch.from_numpy(random.integers(0, len(data.train), count))]
        size = self.noise * float(np.median(held_out)) / math.sqrt(data.dim)  # of each coordinate, in model units
        moved = data.decode(
            data.encode(data.dequantise(chosen, None).double())
            + size * torch.from_numpy(random.standard_normal(tuple(chosen.shape)))
        )
        copies = view(whole(data, moved))
        return copies, nearest(copies, train)[0][:, 0]

    def caught_from(
        self,
        held_out: np.ndarray,
        copies: np.ndarray,
        held_out_cells: np.ndarray,
        copies_cells: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
    ) -> float | None:
        """The smallest share of copies in the first half of the held-out data that the test sees; None for none."""
        for share in SHARES:
            few = round(share * len(first))
            mixed = np.concatenate((np.resize(copies, few), held_out[first[few:]]))
            cells = np.concatenate((np.resize(copies_cells, few), held_out_cells[first[few:]]))
            if few and copying_test(held_out[second], mixed, held_out_cells[second], cells).deviations < -BEYOND:
                return share
        return None

    def show(
        self,
        data: Data,
        r: Tensor,
        held_out: Tensor,
        who: np.ndarray,
        whom: np.ndarray,
        order: np.ndarray,
        ratio: np.ndarray,
        record: Record,
    ) -> None:
        from scoresde.figures import memorisation as draw

        path = record.path("pairs.png")
        if len(data.shape) == 3:
            top = order[:24]
            picked = r[top], data.train[who[top]], held_out[whom[top]]
            record.picture(draw.triples(*picked, ratio[top], path, levels=data.levels))
        elif data.dim == 2:
            picked = r[order], data.train[who[order]]
            record.picture(draw.planar_pairs(*picked, data.train[:5000], path, labels=data.labels()))

    def show_distances(self, held_out: np.ndarray, samples: np.ndarray, copies: np.ndarray, record: Record) -> None:
        from scoresde.figures import memorisation as draw

        record.picture(draw.distances(held_out, samples, copies, record.path("distances.png")))


def safe_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; 1 where both are 0, as for an example that is in both sets."""
    return np.where(b > 0, a / np.where(b > 0, b, 1), np.where(a > 0, np.inf, 1.0))


def near_duplicates(distances: np.ndarray) -> float:
    """The share of points (N, 2) that are three times nearer to the first neighbour than to the second."""
    return float((distances[:, 0] < distances[:, 1] / 3).mean())


def whole(data: Data, r: Tensor) -> Tensor:
    """Samples as the data are: rounded down to levels where those are integers."""
    if data.levels is None:
        return r
    return r.floor().clamp(0, data.levels - 1).to(torch.int64)


def verdict(found: CopyingTest, positive: CopyingTest, negative: CopyingTest) -> str:
    """What the test says, if its controls let it say anything."""
    if not len(found.z):
        return "unknown: too few samples or held-out data"
    if not positive.deviations < -BEYOND:
        return "unknown: the test is blind here, its positive control passed"
    if abs(negative.deviations) > BEYOND:
        return "unknown: the test errs here, its negative control failed"
    if found.deviations < -BEYOND:
        return "copying"
    return "underfitting" if found.deviations > BEYOND else "no copying seen"
