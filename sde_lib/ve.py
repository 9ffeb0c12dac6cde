r"""The variance-exploding SDE, which adds noise and does not scale the data.

.. math:: dx = \sigma(t)\sqrt{2\log(\sigma_{max}/\sigma_{min})/T}\,dw, \qquad
          \sigma(t) = \sigma_{min}\,(\sigma_{max}/\sigma_{min})^{t/T}

(arXiv 2011.13456, appendix C, with T = 1). sigma(0) = sigma_min and not 0: the process starts from data blurred by
N(0, sigma_min^2 I), and the log-SNR is linear in t.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import LARGEST, SDE, check_interval, rounded_down


@dataclass(frozen=True)
class VE(SDE):
    """Geometric noise scales from sigma_min to sigma_max (arXiv 2011.13456, appendix C).

    Arguments:
        sigma_min: the noise's std at t = 0, in model units.
        sigma_max: the noise's std at t = T; about the largest distance between two data points.
        T: the time at which data have become noise.
        eps: where the score is first trusted, and sampling ends.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    T: float = 1.0
    eps: float = 1e-5

    def __post_init__(self):
        check_interval(self.T, self.eps)
        if not 0 < self.sigma_min < self.sigma_max <= LARGEST:
            raise ValueError(
                f"`sigma_max`={self.sigma_max} must exceed `sigma_min`={self.sigma_min}, both positive and at most "
                f"{LARGEST:g}; published: `sigma_min`=0.01 `sigma_max`=50"
            )

    def reaching(self, noise_to_signal: float) -> str:
        """Returns what to type, ``sde.sigma_min=`` and a value: sigma_min bounds the noise from below."""
        below = noise_to_signal * math.exp(-self.rate * self.eps)  # eps is a little above t = 0
        return f"sde.sigma_min={rounded_down(below)}"

    def ending(self, noise_to_signal: float) -> str | None:
        """Returns what to type, ``sde.sigma_max=`` and this value rounded to two digits: it is the noise at T whatever
        T is; None from 0.95 ``LARGEST`` on.
        """
        return f"sde.sigma_max={float(f'{noise_to_signal:.2g}'):g}" if 1.05 * noise_to_signal < LARGEST else None

    @property
    def rate(self) -> float:
        """d log sigma / dt."""
        return math.log(self.sigma_max / self.sigma_min) / self.T

    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def g(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self.rate)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self.rate * t)

    def half_log_snr(self, t: Tensor) -> Tensor:
        return -math.log(self.sigma_min) - self.rate * t

    def time(self, half_log_snr: Tensor) -> Tensor:
        return (-math.log(self.sigma_min) - half_log_snr) / self.rate
