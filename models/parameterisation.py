r"""Parameterisations: the coefficients that turn the output of a network into the score.

.. math:: \nabla_x\log p_t(x) = c_{skip}\,x + c_{out}\,F_\theta(c_{in}\,x,\ c_{noise}), \qquad
          c_{noise} = \tfrac14\log(\sigma/\alpha)

With :math:`V = \alpha^2 + \sigma^2`, :math:`V_d = \alpha^2 s_d^2 + \sigma^2` and s_d the std of the data,

=============  ====================  ===========================================  ======================
row            c_skip                c_out                                        c_in
=============  ====================  ===========================================  ======================
Unscaled       0                     :math:`1/\alpha`                             :math:`1/\sqrt V`
Score          0                     :math:`1/\sigma`                             :math:`1/\sqrt V`
Noise          0                     :math:`-1/\sigma`                            :math:`1/\sqrt V`
Denoiser       :math:`-1/\sigma^2`   :math:`\alpha/\sigma^2`                      :math:`1/\sqrt V`
Velocity       :math:`-1/V`          :math:`-\alpha/(\sigma\sqrt V)`              :math:`1/\sqrt V`
EDM            :math:`-1/V_d`        :math:`\alpha s_d/(\sigma\sqrt{V_d})`        :math:`1/\sqrt{V_d}`
=============  ====================  ===========================================  ======================

The first three rows can have another c_in: the networks of arXiv 2011.13456 take x at the scale of the SDE that they
were trained under (``input``). Under that SDE c_in is 1. Under another SDE x is scaled to what it would be under the
SDE ``input`` at the same noise-to-signal ratio, :math:`c_{in} = \alpha'/\alpha` with alpha' that of ``input``.

In the first two rows the output is the score, up to a factor. The others follow from Tweedie's formula, score = (alpha
D - x)/sigma^2 with the estimate D of x_0. The output is D itself; the noise z = (x - alpha D)/sigma; the velocity
(alpha z - sigma D)/sqrt(V) of Salimans and Ho (arXiv 2202.00512), of unit size under every SDE; or the network in the
preconditioned denoiser D of Karras et al. (arXiv 2206.00364, table 1), stated there for alpha = 1. The products alpha^2
c_skip, alpha c_out and alpha c_in depend on sigma/alpha only, so a network that was trained under one SDE can be used
under another.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import SDE


class Parameterisation(ABC):
    """A row of the module's table, or another meaning of a network's output such as :class:`scoresde.models.Bits`."""

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (c_skip, c_out, c_in) in the shape of alpha and sigma."""


def input_factor(alpha: Tensor, sigma: Tensor, sde: SDE | None) -> Tensor:
    """Returns c_in for inputs of unit variance, or for inputs at the scale of ``sde`` at the same sigma/alpha."""
    if sde is None:
        return torch.rsqrt(alpha.square() + sigma.square())
    return sde.alpha(sde.time((alpha / sigma).log())) / alpha


@dataclass(frozen=True)
class Unscaled(Parameterisation):
    """The network predicts the score of x/alpha, as in plain score matching; its outputs span many magnitudes.

    Arguments:
        input: the SDE at whose scale the network takes x; None for x of unit variance.
    """

    input: SDE | None = None

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros_like(sigma), 1 / alpha, input_factor(alpha, sigma, self.input)


@dataclass(frozen=True)
class Score(Parameterisation):
    """The network predicts sigma times the score.

    Arguments:
        input: the SDE at whose scale the network takes x; None for x of unit variance.
    """

    input: SDE | None = None

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros_like(sigma), 1 / sigma, input_factor(alpha, sigma, self.input)


@dataclass(frozen=True)
class Noise(Parameterisation):
    """The network predicts the noise z (arXiv 2006.11239).

    Arguments:
        input: the SDE at whose scale the network takes x; None for x of unit variance.
    """

    input: SDE | None = None

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.zeros_like(sigma), -1 / sigma, input_factor(alpha, sigma, self.input)


@dataclass(frozen=True)
class Denoiser(Parameterisation):
    """The network predicts the clean data x_0. At low noise the score is then a small difference of large numbers."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variance = sigma.square()
        return -1 / variance, alpha / variance, torch.rsqrt(alpha.square() + variance)


@dataclass(frozen=True)
class Velocity(Parameterisation):
    """The network predicts (alpha z - sigma x_0)/sqrt(V) (arXiv 2202.00512, appendix D, for V = 1)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c_in = torch.rsqrt(alpha.square() + sigma.square())
        return -c_in.square(), -alpha * c_in / sigma, c_in


@dataclass(frozen=True)
class EDM(Parameterisation):
    """The preconditioned denoiser (arXiv 2206.00364, table 1): unit input, unit target, least amplification of errors.

    Arguments:
        sigma_data: s_d, the std of the data in model units; ``auto`` in the yaml measures it.
    """

    sigma_data: float = 1.0

    def __post_init__(self):
        if not self.sigma_data > 0:
            raise ValueError(f"`sigma_data`={self.sigma_data} must be positive; type `sigma_data`=auto")

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c_in = torch.rsqrt(alpha.square() * self.sigma_data**2 + sigma.square())
        return -c_in.square(), alpha * self.sigma_data * c_in / sigma, c_in
