r"""Time grids: T = t_0 > t_1 > ... > t_N = eps.

=========  ============================================================================================
Uniform    equal steps in t: the grid of the published samplers (arXiv 2011.13456, appendix C); an SDE may choose
           another variable by ``SDE.even``, as EDM does
Quadratic  equal steps in sqrt(t): DDIM's quadratic spacing (arXiv 2010.02502)
LogSNR     equal steps in the half log-SNR lambda = log(alpha/sigma): equal factors in sigma/alpha
Karras     equal steps in (sigma/alpha)^{1/rho} (arXiv 2206.00364, eq. 5)
Centred    equal steps in arsinh(lambda/width): dense round sigma = alpha, sparse towards both ends
Angle      equal steps in theta = arctan(sigma/alpha): sparser still towards the ends
=========  ============================================================================================

The last four are spaced in functions of sigma/alpha, and ``SDE.time`` maps them to the times of each SDE.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE


class Grid(ABC):
    """The times of a sampler's steps from T to eps."""

    @abstractmethod
    def times(self, sde: SDE, share: Tensor) -> Tensor:
        """Returns the times at these shares of the way from T (0) to eps (1), float64; shape (N,) to (N,)."""

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Returns steps + 1 falling times from T to eps, float64, shape (steps + 1,)."""
        times = self.times(sde, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        times[0], times[-1] = sde.T, sde.eps  # exactly, in spite of the rounding of the inverse
        return times


@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps in t, or in the variable that the SDE chooses by ``SDE.even``."""

    def times(self, sde: SDE, share: Tensor) -> Tensor:
        return sde.even(share)


@dataclass(frozen=True)
class Quadratic(Grid):
    """Equal steps in sqrt(t): shorter ones towards the data."""

    def times(self, sde: SDE, share: Tensor) -> Tensor:
        start, stop = sde.T**0.5, sde.eps**0.5
        return (start + (stop - start) * share).square()


@dataclass(frozen=True)
class LogSNR(Grid):
    """Equal steps in log(alpha/sigma)."""

    def times(self, sde: SDE, share: Tensor) -> Tensor:
        start, stop = sde.ends()
        return sde.time(start + (stop - start) * share)


@dataclass(frozen=True)
class Karras(Grid):
    """Equal steps in (sigma/alpha)^{1/rho}.

    Arguments:
        rho: 1 spaces sigma/alpha evenly; a larger one puts more of the steps at low noise. Published: 7.
    """

    rho: float = 7.0

    def __post_init__(self):
        if not self.rho > 0:
            raise ValueError(f"`rho`={self.rho} must be positive; type `rho`=7")

    def times(self, sde: SDE, share: Tensor) -> Tensor:
        start, stop = (torch.exp(-end / self.rho) for end in sde.ends())
        return sde.time(-self.rho * torch.log(start + (stop - start) * share))


@dataclass(frozen=True)
class Centred(Grid):
    """Equal steps in arsinh(lambda/width), so that their length in lambda grows as sqrt(lambda^2 + width^2).

    The data's features (of about unit variance) emerge from the noise where sigma = alpha. At much more and at much
    less noise the flow is simple, and long steps make small errors.

    Arguments:
        width: the distance from lambda = 0 within which steps are about equal; a large one is near :class:`LogSNR`.
    """

    width: float = 2.0

    def __post_init__(self):
        if not 0 < self.width < torch.inf:
            raise ValueError(
                f"`width`={self.width} must be positive and finite; type `width`=2, or "
                f"sampler/grid=log_snr for equal steps in lambda"
            )

    def times(self, sde: SDE, share: Tensor) -> Tensor:
        start, stop = (torch.asinh(end / self.width) for end in sde.ends())
        return sde.time(self.width * torch.sinh(start + (stop - start) * share))


@dataclass(frozen=True)
class Angle(Grid):
    """Equal steps in theta = arctan(sigma/alpha)."""

    def times(self, sde: SDE, share: Tensor) -> Tensor:
        start, stop = (torch.atan(torch.exp(-end)) for end in sde.ends())
        return sde.time(-torch.log(torch.tan(start + (stop - start) * share)))
