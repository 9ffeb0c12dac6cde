"""Draw samples, save them in the data's own units, and show them."""

import logging
import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers import Film, Sampler, TemperedNoise, Tempering
from scoresde.sde_lib import SDE, Counted, ScoreFn
from scoresde.tasks.parts.conditions import Judged, as_written, conditioned_on, encoded, judged, nearest_data
from scoresde.tasks.parts.drawing import Drawing, as_data
from scoresde.tasks.parts.reach import strays
from scoresde.tasks.parts.record import Record

from .task import Job, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample(Task):
    """Writes metrics, samples.npz and pictures.

    Of data of p(x | y) each sample has a y of its own: what ``condition=`` asks for, or those of training examples.

    Arguments:
        sampler: what turns noise into samples.
        tempering: the temperature of the samples, and how it is reached.
        count: how many samples; None for 10,000 vectors or 64 pictures.
        batch: how many at a time; the samples do not depend on it.
        seed: of the noise.
        device, dtype: where, and in which precision.
    """

    conditions: ClassVar[str] = "each"

    sampler: Sampler
    tempering: Tempering = field(default_factory=TemperedNoise)
    count: int | None = None
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def every_level(self) -> bool:
        return not getattr(self.sampler, "one_level", False)

    def __post_init__(self):
        self.drawing  # noqa: B018 (its own checks)

    @property
    def drawing(self) -> Drawing:
        """How the samples are drawn."""
        return Drawing(self.sampler, self.tempering, self.batch, self.seed, self.device, self.dtype)

    def __call__(self, job: Job) -> dict:
        sde, data, record = job.sde, job.data, job.record
        score = job.networks.score().model
        count = self.count or (10_000 if len(data.shape) == 1 else 64)
        counted, film = Counted(score), Film(8 if len(data.shape) == 3 else 100, getattr(self.sampler, "frames", 11))
        if title := getattr(self.sampler, "title", None):  # sampler=auto says what it chose
            log.info(title)
        known = data.condition
        y = None if known is None else known.drawn(count, self.seed)
        started = time.monotonic()
        samples = self.drawing.draw(sde, counted, data.shape, count, encoded(data, y), film)
        seconds = time.monotonic() - started

        r = torch.from_numpy(x := as_data(data, samples))
        record.arrays("samples", x=x, **({} if y is None else as_written(known, y)))
        verdict = judged(r, y, data)
        self.show(sde, score, data, r, y, verdict, film, record)
        return {
            "count": count,
            "nfe": counted.evaluations / count,
            "seconds": seconds,
            "samples_per_second": count / seconds,
            **strays(r, data),
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
        from scoresde import figures

        known, labels = data.condition, data.labels()
        real = held_out = data.test[: max(64, min(len(r), 5000))]
        alone = y is None or known.alone is not None  # one law, and one score
        if y is not None and not known.classes:
            if alone:
                real = nearest_data(data, max(64, len(data.train) // 50))
                log.info(
                    "the data in the pictures are the %s examples whose y is nearest to %s",
                    f"{len(real):,}",
                    known.name_of(known.asked[0]),
                )
            elif len(data.shape) == 1:  # with their y, which is what they should agree with
                r, real = torch.cat([y, r], 1), torch.cat([known.test[: len(real)], real.double()], 1)
                labels = [*known.titles, *(labels or figures.names(None, data.dim))]
        path = record.path("samples.png")
        if len(data.shape) == 3:
            if y is not None and known.classes:
                shown = known.test[: 50 * len(known.names)]
                picture = figures.class_grid(
                    r, y, data.test[: len(shown)], shown, known.names, path, data.levels, verdict.accuracy
                )
            else:
                picture = figures.image_grid(r, real, path, levels=data.levels)
            record.picture(picture)
            strip = figures.film_strip(frames(sde, data, film), film.times, record.path("film.png"), len(film.shares))
            record.picture(strip)
        elif r.shape[1] == 1:
            record.picture(
                figures.histogram_1d(
                    r,
                    real,
                    path,
                    label=(labels or [None])[0],
                    log_density=exact_curve(data, y, real) if alone else None,
                )
            )
        elif r.shape[1] == 2:
            if y is not None and known.classes:
                record.picture(figures.class_scatter(r, y, real, known.names, path, labels=labels))
            else:
                record.picture(figures.planar_samples(r, real, path, labels=labels))
        else:
            record.picture(figures.pairs(r, real, path, labels=labels))
        if len(data.shape) == 1 and data.dim <= 2:
            paths = [data.decode(torch.from_numpy(frame * data.std)).numpy() for frame in frames(sde, data, film)]
            keys = {"data": held_out.double(), "labels": data.labels()} | (
                {"times": film.times} if data.dim == 1 else {}
            )
            record.picture(figures.trajectories(np.stack(paths), record.path("trajectories.png"), **keys))
            if data.dim == 2 and alone:
                own = conditioned_on(score, encoded(data, y), slice(None), self.device, getattr(torch, self.dtype))
                record.picture(score_field(sde, own, data, real, record, self.device, getattr(torch, self.dtype)))


def exact_curve(data: Data, y: Tensor | None, real: Tensor) -> dict | None:
    """The exact density of one number given y, for a picture of it."""
    if y is None or data.condition.classes:
        return None
    grid = torch.linspace(float(real.min()), float(real.max()), 400, dtype=torch.float64)
    log_prob = data.true_log_prob(grid[:, None], y[:1].expand(len(grid), -1))
    return None if log_prob is None else {"exact": (grid, log_prob)}


def frames(sde: SDE, data: Data, film: Film) -> list[np.ndarray]:
    """The film's states, each divided by the std that data have at its time: noise and data at one scale."""
    t = torch.tensor(film.times, dtype=torch.float64)
    scale = (sde.alpha(t).square() * data.std**2 + sde.sigma(t).square()).sqrt()
    return [(state.double().cpu() / s).numpy() for state, s in zip(film.states, scale, strict=True)]


def score_field(sde: SDE, score: ScoreFn, data: Data, real: Tensor, record: Record, device: str, dtype: torch.dtype):
    """The score of the noisy data x_t/alpha(t) in data units, on a grid at four times, from much noise to little:
    with x_t = alpha (r - m)/s its gradient by r is alpha/s times the score.
    """
    from scoresde import figures

    x, scale = data.encode(real.double()), data.scale.expand(data.shape)
    low, high = x.quantile(0.002, dim=0) - 0.3, x.quantile(0.998, dim=0) + 0.3
    axes = [torch.linspace(float(a), float(b), 22, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)
    times = sde.time(torch.tensor([2.0, 0.5, 0.15, 0.05], dtype=torch.float64).log().neg()).clamp(sde.eps, sde.T)
    flat = points.reshape(-1, 2).to(device, dtype)
    with torch.no_grad():
        fields = [
            score(flat * float(sde.alpha(t)), t.to(flat).expand(len(flat))).reshape(22, 22, 2).cpu().double()
            * (float(sde.alpha(t)) / scale)
            for t in times
        ]
    across, up = (
        axis * unit + middle for axis, unit, middle in zip(axes, scale, data.shift.expand(data.shape), strict=True)
    )
    path = record.path("score_field.png")
    return figures.score_field(across, up, fields, times.tolist(), path, data=real.double(), labels=data.labels())


def distances(r: Tensor, data: Data) -> dict:
    """The sliced Wasserstein distance of samples (N, *) in data units to held-out data, beside its floor: the same for
    training data. Its unit is ``data.distance_unit``.

    The floor is the mean over up to eight separate sets of as many training data, since one such distance varies a lot.
    """
    most = max(2, min(10_000, 2**24 // data.dim))  # in bounded memory
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
    """Those of samples with their y: of one class to its data, of y drawn from the data to x alone, or with numbers y
    to x and y together. Where several y were asked for, or numbers, there are no data of that law to compare with.
    """
    known = data.condition
    if known.asked is not None:
        return distances(r, data) if known.classes and known.alone is not None else {}
    if known.classes or len(data.shape) != 1:
        return distances(r, data)
    train, test = (torch.cat([x.double(), at], 1) for x, at in ((data.train, known.train), (data.test, known.test)))
    scale = torch.cat([data.scale.expand(data.shape), known.scale])
    return distances(torch.cat([r.double(), y], 1), Data(train, test, 0.0, scale, shuffle=False))
