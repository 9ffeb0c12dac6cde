r"""The noise levels at which a loss is trained, and the weight of each.

Every objective of :mod:`scoresde.training.loss` is an average over levels, :math:`\int p(t)\,w(t)\,\sigma(t)^2 \ldots
dt`. The methods from score matching to score SDEs differ in p and w:

===========  ====================================================  =========  ========================================
levels       t                                                     w          source
===========  ====================================================  =========  ========================================
Uniform      uniform in t, or as the SDE spaces its steps          1          2011.13456, eq. 7
LogSNR       uniform in log(alpha/sigma): likelihood weighting     1          2101.09258, theorem 1
LogNormal    log(sigma/alpha) normal, k = sigma/alpha              (k^2 +     2206.00364, table 1
                                                                   s^2)/s^2
Blend        LogNormal for a share of the batch, else LogSNR       see the class
Ladder       a geometric ladder in sigma/alpha                     1          1907.05600, eq. 5 and 6
Chain        T n/N, the N steps of a discrete chain                1          2006.11239, eq. 14
One          one sigma/alpha                                       1          Vincent 2011
Clean        eps, and no noise is added                            1/sigma^2  Hyvarinen 2005
===========  ====================================================  =========  ========================================
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE


class Levels(ABC):
    """A distribution of noise levels, by its quantile function, and a weight.

    Attributes:
        noise: whether the data are perturbed.
        everywhere: whether the network learns the levels from T down to eps, and not one level only.
    """

    noise: bool = True
    everywhere: bool = True

    @abstractmethod
    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        """Returns the times in [eps, T] at the quantiles ``unit`` in [0, 1), shape (B,) to (B,).

        A larger quantile may be a smaller or a larger time.
        """

    def weight(self, sde: SDE, t: Tensor) -> Tensor:
        """Returns w(t), without the factor sigma^2, in the shape of t."""
        return torch.ones_like(t)

    def describe(self, sde: SDE, dim: int) -> str | None:
        """Returns a line for the log about the levels in D = ``dim`` dimensions; None for no line."""
        return None


def time(sde: SDE, half_log_snr: Tensor) -> Tensor:
    """Returns the times at which log(alpha/sigma) has these values, limited to [eps, T]."""
    return sde.time(half_log_snr).clamp(sde.eps, sde.T)


@dataclass(frozen=True)
class Uniform(Levels):
    """Uniform in t, or in the variable in which the SDE spaces its steps evenly (:meth:`scoresde.sde_lib.SDE.even`)."""

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        return sde.even(1 - unit).clamp(sde.eps, sde.T)


@dataclass(frozen=True)
class LogSNR(Levels):
    """Uniform in log(alpha/sigma)."""

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        start, stop = sde.ends(unit)
        return time(sde, start + (stop - start) * unit)


@dataclass(frozen=True)
class LogNormal(Levels):
    """log(sigma/alpha) ~ N(mean + log(2 s), std^2), truncated to [eps, T]; w = (k^2 + s^2)/s^2 with k = sigma/alpha.

    With this weight a network of the EDM parameterisation whose output is 0 has loss 1 at every level, if the data have
    mean 0 and std s (arXiv 2206.00364, table 1).

    Arguments:
        mean, std: the mean and the std of the logarithm for data of std 0.5. Published: -1.2 and 1.2.
        sigma_data: s, the std of the data in model units, in which the levels are measured; ``auto`` in the yaml
            measures it.
    """

    mean: float = -1.2
    std: float = 1.2
    sigma_data: float = 1.0

    def __post_init__(self):
        if not 0 < self.std < math.inf:
            raise ValueError(f"`std`={self.std} must be positive and finite; published: `std`=1.2")
        if not abs(self.mean) <= 20:
            raise ValueError(f"`mean`={self.mean} must lie in [-20, 20]; published: `mean`=-1.2")
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"`sigma_data`={self.sigma_data} must be positive; type `sigma_data`=auto")

    @property
    def centre(self) -> float:
        """The mean of log(sigma/alpha)."""
        return self.mean + math.log(2 * self.sigma_data)

    def cut(self, sde: SDE) -> tuple[float, float]:
        """Returns the normal's distribution function at eps and at T; ValueError if at most 1e-6 lies between them."""
        # log(alpha/sigma) = -log k falls in t: T has the largest k
        low, high = (float(torch.special.ndtr((-end - self.centre) / self.std)) for end in sde.ends()[::-1])
        if not high - low > 1e-6:
            raise ValueError(
                f"`mean`={self.mean} and `std`={self.std} put no level between sde.eps={sde.eps} and "
                f"sde.T={sde.T}; published: `mean`=-1.2 `std`=1.2"
            )
        return low, high

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        low, high = self.cut(sde)
        k = self.centre + self.std * torch.special.ndtri(low + (high - low) * unit.double())
        return time(sde, -k).to(unit.dtype)

    def density(self, sde: SDE, t: Tensor) -> Tensor:
        """Returns the density of log(sigma/alpha), truncated to [eps, T], at the level of t, in the shape of t."""
        low, high = self.cut(sde)
        z = (-sde.half_log_snr(t) - self.centre) / self.std
        return torch.exp(-0.5 * z.square()) / (math.sqrt(2 * math.pi) * self.std * (high - low))

    def weight(self, sde: SDE, t: Tensor) -> Tensor:
        return 1 + torch.exp(-2 * sde.half_log_snr(t)) / self.sigma_data**2


@dataclass(frozen=True)
class Blend(Levels):
    r"""A mixture of likelihood weighting and of EDM's levels. With the densities p of log(sigma/alpha),

    .. math:: p = (1 - a)\,p_{LogSNR} + a\,p_{LogNormal}, \qquad
              w = \frac{(1 - a)\,p_{LogSNR} + a\,p_{LogNormal}\,w_{LogNormal}}{p},

    so that the loss is (1 - a) times that of LogSNR plus a times that of LogNormal. The likelihood depends on all
    levels alike, the quality of an image mostly on those where it emerges from the noise: this mixture trains one
    network for both. The quantiles up to 1 - a are those of LogSNR and the others those of LogNormal, so that a
    stratified batch is spread over both.

    Arguments:
        share: a, the share of LogNormal.
        mean, std, sigma_data: as in :class:`LogNormal`.
    """

    share: float = 0.75
    mean: float = -1.2
    std: float = 1.2
    sigma_data: float = 1.0

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(
                f"`share`={self.share} must lie between 0 and 1; type `share`=0.75, or "
                f"training/loss/levels=log_snr for a share of 0 and log_normal for 1"
            )
        LogNormal(self.mean, self.std, self.sigma_data)  # checks its keys

    @property
    def normal(self) -> LogNormal:
        """The levels of the share a."""
        return LogNormal(self.mean, self.std, self.sigma_data)

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        rest = 1 - self.share
        most = 1 - torch.finfo(unit.dtype).eps  # quantiles lie below 1
        even = LogSNR().times(sde, (unit / rest).clamp_max(most))
        normal = self.normal.times(sde, ((unit - rest) / self.share).clamp(0, most))
        return torch.where(unit < rest, even, normal)

    def weight(self, sde: SDE, t: Tensor) -> Tensor:
        start, stop = (float(end) for end in sde.ends())
        even, normal = (1 - self.share) / (stop - start), self.share * self.normal.density(sde, t)
        return (even + normal * self.normal.weight(sde, t)) / (even + normal)


@dataclass(frozen=True)
class Ladder(Levels):
    """``count`` levels of sigma/alpha in geometric progression from T to eps, all equally frequent.

    Arguments:
        count: L. Published: 10 from sigma 1 to 0.01 (arXiv 1907.05600), 232 from 50 to 0.01 (arXiv 2006.09011).
    """

    count: int = 10

    def __post_init__(self):
        check_count(self.count, 2, 10)

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        start, stop = sde.ends(unit)
        step = (unit * self.count).floor() / (self.count - 1)
        return time(sde, start + (stop - start) * step)

    def describe(self, sde: SDE, dim: int) -> str:
        start, stop = (float(end) for end in sde.ends())
        # the smallest number of levels whose neighbours overlap enough
        enough = next(
            (count for count in range(2, 10**5) if overlap(math.exp((stop - start) / (count - 1)), dim) >= 0.5), None
        )
        ratio = math.exp((stop - start) / (self.count - 1))
        return (
            f"{self.count} noise levels, sigma/alpha from {math.exp(-start):.4g} to {math.exp(-stop):.4g}, a factor "
            f"{ratio:.4g} apart: neighbours overlap by {overlap(ratio, dim):.2f} in {dim} dimensions (0.5 is "
            f"enough, from training.loss.levels.count={enough} on)"
        )


@dataclass(frozen=True)
class Chain(Levels):
    """t = T n/N, n = 1 ... N, all equally frequent; times below eps become eps.

    Arguments:
        count: N. Published: 1000 (arXiv 2006.11239).
    """

    count: int = 1000

    def __post_init__(self):
        check_count(self.count, 2, 1000)

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        return (sde.T * ((unit * self.count).floor() + 1) / self.count).clamp(sde.eps, sde.T)


@dataclass(frozen=True)
class One(Levels):
    """One level: the score of data blurred by N(0, k^2 I).

    Arguments:
        noise_to_signal: k = sigma/alpha, in model units.
    """

    noise_to_signal: float = 0.1

    everywhere = False

    def __post_init__(self):
        if not 0 < self.noise_to_signal < math.inf:
            raise ValueError(
                f"`noise_to_signal`={self.noise_to_signal} must be positive and finite; type `noise_to_signal`=0.1"
            )

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        return torch.full_like(unit, sde.time_of(self.noise_to_signal, "`noise_to_signal`"))


@dataclass(frozen=True)
class Clean(Levels):
    """The unperturbed data at t = eps, for the score of the density of the data themselves.

    w = 1/sigma(eps)^2 cancels the factor sigma^2 of the objectives.
    """

    noise = False
    everywhere = False

    def times(self, sde: SDE, unit: Tensor) -> Tensor:
        return torch.full_like(unit, sde.eps)

    def weight(self, sde: SDE, t: Tensor) -> Tensor:
        return sde.sigma(t) ** -2


def overlap(ratio: float, dim: int) -> float:
    r"""Returns the overlap of two neighbouring noise levels, one ``ratio`` times as large as the other.

    The norm of noise in D dimensions is about N(sqrt(D) sigma, sigma^2/2). The probability that the norm at the smaller
    level lies within three standard deviations of the mean norm at the larger one, gamma times as large,

    .. math:: \Phi\bigl(\sqrt{2D}(\gamma - 1) + 3\gamma\bigr) - \Phi\bigl(\sqrt{2D}(\gamma - 1) - 3\gamma\bigr),

    should be about 1/2 (arXiv 2006.09011, technique 2).
    """
    centre = math.sqrt(2 * dim) * (ratio - 1)
    ends = torch.tensor([centre + 3 * ratio, centre - 3 * ratio], dtype=torch.float64)
    return float(torch.special.ndtr(ends).diff().neg())


def check_count(value: int, least: int, published: int) -> None:
    """Raises a ValueError if a number of levels is out of bounds."""
    if not least <= value <= 10**6:
        raise ValueError(f"`count`={value} must lie in [{least}, 1000000]; published: `count`={published}")
