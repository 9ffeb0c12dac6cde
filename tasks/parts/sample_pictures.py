"""Pictures of samples: beside data, along their trajectories, and with the score field."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.samplers import Film
from scoresde.sde_lib import SDE, ScoreFn

from .conditions import Judged, nearest_data
from .record import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """Samples and data as a picture compares them.

    Attributes:
        samples, real: (N, *) and (M, *) in data units. Where the samples are vectors with numbers y of their own, y
            stands in front of x in both.
        labels: the names of their columns; None without names.
    """

    samples: Tensor
    real: Tensor
    labels: list[str] | None


def compared(data: Data, r: Tensor, y: Tensor | None) -> Compared:
    """Returns samples r (N, *) in data units and the data to compare them with, as pictures show them.

    The data are held-out data, or for samples of one y of numbers the examples whose y are nearest to it. Vectors with
    different numbers y are shown together with their y.

    Arguments:
        y: of each sample, (N,) or (N, C); None without a condition.
    """
    from scoresde import figures

    condition, real, labels = data.condition, held_out_of(data, r), data.labels()
    if y is None or condition.classes:
        return Compared(r, real, labels)
    if condition.single is not None:
        real = nearest_data(data, max(64, len(data.train) // 50))  # as many as 2 %
        log.info(
            "the data in the pictures are the %s examples whose y is nearest to %s",
            f"{len(real):,}",
            condition.name_of(condition.asked[0]),
        )
    elif len(data.shape) == 1:
        r, real = torch.cat([y, r], 1), torch.cat([condition.test[: len(real)], real.double()], 1)
        labels = [*condition.titles, *(labels or figures.names(None, data.dim))]
    return Compared(r, real, labels)


def held_out_of(data: Data, r: Tensor) -> Tensor:
    """Returns as many held-out data as there are samples r, but at least 64 and at most 5,000, if there are so many."""
    return data.test[: max(64, min(len(r), 5000))]


def images(data: Data, shown: Compared, y: Tensor | None, verdict: Judged, record: Record) -> Path:
    """Draws images beside data; by class if y are classes, beside about 50 held-out images a class."""
    from scoresde import figures

    path, condition = record.path("samples.png"), data.condition
    if y is None or not condition.classes:
        return figures.image_grid(shown.samples, shown.real, path, levels=data.levels)
    classes = condition.test[: 50 * len(condition.names)]  # about 50 a class, more where condition= names some
    real = data.test[: len(classes)]
    return figures.class_grid(shown.samples, y, real, classes, condition.names, path, data.levels, verdict.accuracy)


def vectors(data: Data, shown: Compared, y: Tensor | None, record: Record) -> Path:
    """Draws vectors beside data: a histogram of one column, the plane of two, or all pairs of columns."""
    from scoresde import figures

    path, condition = record.path("samples.png"), data.condition
    columns = shown.samples.shape[1]
    if columns == 1:
        exact = exact_curve(data, y, shown.real) if is_one_density(data, y) else None
        label = (shown.labels or [None])[0]
        return figures.histogram_1d(shown.samples, shown.real, path, label=label, log_density=exact)
    if columns > 2:
        return figures.pairs(shown.samples, shown.real, path, labels=shown.labels)
    if y is not None and condition.classes:
        return figures.class_scatter(shown.samples, y, shown.real, condition.names, path, labels=shown.labels)
    return figures.planar_samples(shown.samples, shown.real, path, labels=shown.labels)


def is_one_density(data: Data, y: Tensor | None) -> bool:
    """Returns whether all samples are of one density, p(x) or one p(x | y)."""
    return y is None or data.condition.single is not None


def exact_curve(data: Data, y: Tensor | None, real: Tensor) -> dict | None:
    """Returns the exact density p(x | y) of data of one column, given the first of the numbers y (N, C), for a
    histogram: ``{"exact": (x, log p)}``, (400,) each. Returns None where p is unknown, and without numbers y: p(x) of
    one column has no curve.

    Arguments:
        real: the data whose range is covered, (M, 1).
    """
    if y is None or data.condition.classes:
        return None
    grid = torch.linspace(float(real.min()), float(real.max()), 400, dtype=torch.float64)
    log_prob = data.true_log_prob(grid[:, None], y[:1].expand(len(grid), -1))
    return None if log_prob is None else {"exact": (grid, log_prob)}


def film_strip(sde: SDE, data: Data, film: Film, record: Record) -> Path:
    """Draws images on their way from noise to samples."""
    from scoresde import figures

    return figures.film_strip(frames(sde, data, film), film.times, record.path("film.png"), len(film.shares))


def trajectories(sde: SDE, data: Data, film: Film, held_out: Tensor, record: Record) -> Path:
    """Draws vectors of one or two columns on their way from noise to samples, each state scaled to the data's spread.

    Arguments:
        held_out: data to show beside them, (M, D) in data units.
    """
    from scoresde import figures

    paths = [data.decode(torch.from_numpy(frame * data.std)).numpy() for frame in frames(sde, data, film)]
    keys = {"data": held_out.double(), "labels": data.labels()}
    if data.dim == 1:
        keys["times"] = film.times
    return figures.trajectories(np.stack(paths), record.path("trajectories.png"), **keys)


def frames(sde: SDE, data: Data, film: Film) -> list[np.ndarray]:
    """Returns the film's states, (rows, *) at each of its times, divided by the std of noisy data at that time, so that
    all have one scale.
    """
    t = torch.tensor(film.times, dtype=torch.float64)
    scale = (sde.alpha(t).square() * data.std**2 + sde.sigma(t).square()).sqrt()
    return [(state.double().cpu() / s).numpy() for state, s in zip(film.states, scale, strict=True)]


def score_field(
    sde: SDE, score: ScoreFn, data: Data, real: Tensor, record: Record, device: str, dtype: torch.dtype
) -> Path:
    """Draws the score of the noisy data x_t/alpha(t) in data units, on a grid at four times, from much noise to little.

    With x_t = alpha (r - m)/s the gradient of log p_t by r is alpha/s times the score.

    Arguments:
        real: planar data (N, 2) in data units; the grid covers all but 0.2 % on either side, and 0.3 model units more.
    """
    from scoresde import figures

    x, scale = data.encode(real.double()), data.scale.expand(data.shape)
    low, high = x.quantile(0.002, dim=0) - 0.3, x.quantile(0.998, dim=0) + 0.3
    axes = [torch.linspace(float(a), float(b), 22, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1)
    # the times of four values of sigma/alpha
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
