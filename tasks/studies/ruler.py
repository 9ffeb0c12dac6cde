r"""Measures how far samples are from the data, beside the floor of each error, which is the error of training data.

With the mean m and the covariance C of samples in model units, and m*, C* of the data,

.. math::
    e_{mean} = \frac{|m - m^*|}{\sqrt{\mathrm{tr}\,C^*}}, \qquad
    e_{cov} = \frac{\|C - C^*\|_F}{\|C^*\|_F}, \qquad
    e_{nll} = -\frac1n\sum_i \log p_{data}(x_i) - H[p_{data}],

and the sliced Wasserstein distance SW_2 to the held-out data (:mod:`scoresde.metrics.two_sample`), in the unit
``data.distance_unit``. Of examples with more than 1024 values C holds the variances only. m* and C* are exact for a
mixture; otherwise they are the moments of the training data. H is the cross-entropy -E log p_data over all training
data. e_nll is negative for samples too near to the modes.

No error is 0 for a finite sample of the data themselves. Up to 16 disjoint sets of training data, each as large as the
samples (at most 10,000, fewer of large images), are therefore measured in the same way. The mean and the std of their
absolute errors are the floor. An error at most 3 stds above the mean is at the floor: it does not distinguish the
samples from data.
"""

import math

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.metrics import sliced_wasserstein

BAND = 3  # the width of the floor above its mean, in stds
SETS = 16  # the largest number of sets of real data
MEASURES = ("sliced_wasserstein", "mean_error", "covariance_error", "nll_gap_nats")


class Ruler:
    """Measures samples in model units, (N, *), by the measures ``MEASURES``, without the last where p_data is unknown.

    Arguments:
        data: the data with which samples are compared.
        count: the number of samples that will be measured.
        directions: the number of directions of the sliced Wasserstein distance.

    Attributes:
        floors: (mean, std) of every measure's absolute value over the sets of real data; empty if there are fewer than
            two sets.
    """

    def __init__(self, data: Data, count: int, directions: int = 32):
        self.data, self.directions = data, directions
        most = max(2, min(10_000, 2**24 // data.dim))  # bounds the memory
        self.size, self.test = min(count, most), data.commensurate(data.test[:most])
        self.mean, self.covariance = true_moments(data)
        self.entropy = self.cross_entropy(data.train)
        sets = [part for part in data.train.split(self.size)[:SETS] if len(part) == self.size]
        found = [self.measures(part.double()) for part in sets]
        self.floors = {}
        for key in found[0] if len(found) > 1 else ():
            values = torch.tensor([abs(errors[key]) for errors in found], dtype=torch.float64)
            self.floors[key] = float(values.mean()), float(values.std())

    def __call__(self, x: Tensor) -> dict[str, float]:
        """Returns the errors of samples x (N, *) in model units, rounded down to the levels of integer data; NaN for
        all ``MEASURES`` if a sample is not finite.
        """
        r = self.data.decode(x.double().cpu())
        if not bool(r.isfinite().all()):
            return dict.fromkeys(MEASURES, math.nan)
        if self.data.levels:
            r = r.floor().clamp(0, self.data.levels - 1)
        return self.measures(r)

    def measures(self, r: Tensor) -> dict[str, float]:
        """Returns the errors of points r (N, *) in data units, float64."""
        found = {
            "sliced_wasserstein": sliced_wasserstein(self.data.commensurate(r[: self.size]), self.test, self.directions)
        }
        mean, covariance = moments(self.data.encode(r).flatten(1))
        total = self.covariance.diagonal().sum() if self.covariance.ndim == 2 else self.covariance.sum()
        found["mean_error"] = float((mean - self.mean).norm() / total.sqrt())
        found["covariance_error"] = float((covariance - self.covariance).norm() / self.covariance.norm())
        if self.entropy is not None:
            found["nll_gap_nats"] = self.cross_entropy(r) - self.entropy
        return found

    def cross_entropy(self, r: Tensor) -> float | None:
        """Returns the mean of -log p_data over points r in data units, in nats; None if the density is unknown."""
        log_prob = self.data.true_log_prob(r.double())
        return None if log_prob is None else -float(log_prob.mean())

    def top(self, key: str, beside: float = 0.0) -> float:
        """Returns the upper end of a measure's floor: 3 stds above the mean of the sets of training data, or above the
        error ``beside`` if that is larger.
        """
        mean, std = self.floors[key]
        return max(mean, abs(beside)) + BAND * std

    def at_floor(self, row: dict[str, float], beside: dict[str, float] | None = None) -> bool:
        """Returns whether every error of a row is at its floor, and there are floors. Errors of the row ``beside`` that
        exceed the mean of the sets of training data take the place of that mean.
        """
        other = beside or {}
        return bool(self.floors) and all(
            abs(row.get(key, math.nan)) <= self.top(key, other.get(key, 0.0)) for key in self.floors
        )


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean (D,) of x (N, D), and the covariance (D, D), or only the variances (D,) if D > 1024."""
    mean = x.mean(0)
    centred = x - mean
    if x.shape[1] > 1024:
        return mean, centred.square().mean(0)
    return mean, centred.T @ centred / len(x)


def true_moments(data: Data) -> tuple[Tensor, Tensor]:
    """Returns the data's :func:`moments` in model units: exact for a mixture, otherwise those of all training data."""
    components = data.components()
    if components is None:
        return moments(data.encode(data.train.double()).flatten(1))
    weights, means, stds = (each.double() for each in components)
    mean = weights @ means
    centred = means - mean
    if means.shape[1] > 1024:
        return mean, weights @ (centred.square() + stds.square()[:, None])
    own = (weights @ stds.square()) * torch.eye(means.shape[1], dtype=torch.float64)
    return mean, centred.T @ (weights[:, None] * centred) + own
