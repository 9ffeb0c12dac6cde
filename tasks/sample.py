"""Draws samples, saves them in data units, and shows them beside data."""

import logging
import time
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import Film, Sampler, TemperedNoise, Tempering
from scoresde.sde_lib import SDE, Counted, ScoreFn
from scoresde.tasks.parts import sample_pictures
from scoresde.tasks.parts.conditions import Judged, as_written, columns_of, conditioned_on, encoded, judged
from scoresde.tasks.parts.drawing import Drawing, as_data
from scoresde.tasks.parts.out_of_range import samples_out_of_range
from scoresde.tasks.parts.record import Record
from scoresde.tasks.parts.sample_files import Format, check_format, write_samples

from .task import Job, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample(Task):
    """Draws samples, and reports how far they are from held-out data.

    Writes samples.npz, samples.png, and film.png for images; for vectors of one or two columns trajectories.png, and
    score_field.png in the plane if all samples are of one density. For data of p(x | y) each sample has a y: those that
    ``condition=`` names, in turn, or those of training examples, in a random order.

    Arguments:
        sampler: turns noise into samples.
        tempering: the temperature of the samples, and how it is reached.
        count: the number of samples; None for 10,000 vectors or 64 images.
        batch: the number of samples per batch. The samples do not depend on it, except with torchdiffeq's adaptive
            methods, which take one step size for a batch, and with correctors of ``rule=batch_norms``.
        seed: the seed of the noise, and of the order of the training examples' y.
        device, dtype: where, and in which precision.
        format: the format in which the samples are written once more, for other programs: ``csv`` or ``parquet``, a
            table of vectors; ``png``, a folder of pictures, for images of up to 256 levels; None for samples.npz only.
    """

    conditions: ClassVar[str] = "each"

    sampler: Sampler
    tempering: Tempering = field(default_factory=TemperedNoise)
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    format: Format | None = None

    @property
    def every_level(self) -> bool:
        return not self.sampler.one_level

    def __post_init__(self):
        self.drawing  # noqa: B018 (its own checks)

    @property
    def drawing(self) -> Drawing:
        """Draws the samples with this task's settings."""
        return Drawing(self.sampler, self.tempering, self.batch, self.seed, self.device, self.dtype)

    def check(self, sde: SDE, data: Data) -> None:
        check_format(self.format, data)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        count = self.count or (10_000 if len(data.shape) == 1 else 64)
        counted, film = Counted(score), Film(8 if len(data.shape) == 3 else 100, getattr(self.sampler, "frames", 11))
        if title := getattr(self.sampler, "title", None):  # sampler=auto says what it chose
            log.info(title)
        condition = data.condition
        y = None if condition is None else condition.drawn(count, self.seed)
        started = time.monotonic()
        samples = self.drawing.draw(sde, counted, data.shape, count, encoded(data, y), film)
        seconds = time.monotonic() - started

        r = torch.from_numpy(x := as_data(data, samples))
        arrays = {"x": x, **columns_of(data), **({} if y is None else as_written(condition, y))}
        record.arrays("samples", **arrays)
        if self.format is not None:
            record.picture(write_samples(self.format, data, arrays, record))  # so that the run prints the path
        verdict = judged(r, y, data)
        self.show(sde, score, data, r, y, verdict, film, record)
        return {
            "count": count,
            "nfe": counted.evaluations / count,
            "seconds": seconds,
            "samples_per_second": count / seconds,
            **samples_out_of_range(r, data),
            **(distances(r, data) if y is None else conditional_distances(r, y, data)),
            **verdict.metrics(),
        }

    def show(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        r: Tensor,
        y: Tensor | None,
        verdict: Judged,
        film: Film,
        record: Record,
    ) -> None:
        """Draws the samples r (N, *) in data units, and the other pictures that the class names.

        Arguments:
            y: of each sample, (N,) or (N, C); None without a condition.
        """
        shown = sample_pictures.compared(data, r, y)
        if len(data.shape) == 3:
            record.picture(sample_pictures.images(data, shown, y, verdict, record))
            record.picture(sample_pictures.film_strip(sde, data, film, record))
            return
        record.picture(sample_pictures.vectors(data, shown, y, record))
        if data.dim <= 2:
            held_out = sample_pictures.held_out_of(data, r)
            record.picture(sample_pictures.trajectories(sde, data, film, held_out, record))
        if data.dim == 2 and sample_pictures.is_one_density(data, y):
            dtype = getattr(torch, self.dtype)
            own = conditioned_on(score, encoded(data, y), slice(None), self.device, dtype)
            record.picture(sample_pictures.score_field(sde, own, data, shown.real, record, self.device, dtype))


def distances(r: Tensor, data: Data) -> dict:
    """Returns the sliced Wasserstein distance of samples (N, *) in data units to held-out data, beside its floor: the
    same distance for training data. The unit is ``data.distance_unit``. Returns {} for fewer than two samples or
    training data.

    A distance takes at most 10,000 points of either kind, fewer of large images, and no more samples than there are
    training data. The floor is the mean over up to eight separate sets of as many training data, since a single
    distance varies a lot.
    """
    most = max(2, min(10_000, 2**24 // data.dim))  # bounds the memory
    size, test = min(len(r), len(data.train), most), data.commensurate(data.test[:most])
    if size < 2:
        return {}
    sets = [data.commensurate(real) for real in data.train.split(size)[:8] if len(real) == size]
    floors = [sliced_wasserstein(real, test) for real in sets]
    return {
        "sliced_wasserstein": sliced_wasserstein(data.commensurate(r[:size]), test),
        "sliced_wasserstein_floor": sum(floors) / len(floors),
        "distance_unit": data.distance_unit,
    }


def conditional_distances(r: Tensor, y: Tensor, data: Data) -> dict:
    """Returns :func:`distances` of samples r (N, *) in data units with a y, (N,) classes or (N, C) numbers.

    Samples of one class are compared with its data. Samples whose y were drawn from the data are compared with all
    data: x only for classes and images, x and y together for vectors with numbers y. Where ``condition=`` names several
    classes, or numbers, there are no data of the samples' distribution, and {} is returned.
    """
    condition = data.condition
    if condition.asked is not None:
        return distances(r, data) if condition.classes and condition.single is not None else {}
    if condition.classes or len(data.shape) != 1:
        return distances(r, data)
    pairs = ((data.train, condition.train), (data.test, condition.test))
    train, test = (torch.cat([x.double(), y_of_x], 1) for x, y_of_x in pairs)
    scale = torch.cat([data.scale.expand(data.shape), condition.scale])
    return distances(torch.cat([r.double(), y], 1), Data(train, test, 0.0, scale, shuffle=False))
