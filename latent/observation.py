r"""The law p(x | z) of data given the decoder's output.

Continuous data are Gaussian around the decoder's output. Integers k have a probability and no density. It may be that
of the bin [k, k + 1) under a mixture of logistic distributions, where the lowest and the highest bin include the tails
(Salimans et al., arXiv 1701.05517),

.. math:: P(k) = \sum_j \pi_j \Bigl[\operatorname{logit}^{-1}\frac{x_c + h - \mu_j}{s_j}
          - \operatorname{logit}^{-1}\frac{x_c - h - \mu_j}{s_j}\Bigr],

where x_c is the bin's centre in model units and h half its width; or each level has a probability of its own. With the
laws of integers the evidence lower bound is a bound on log P of the integers, and bits/dim are comparable with those of
``task=likelihood``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class Observation(nn.Module, ABC):
    """The law p(x | z); the values of an example are independent of each other given z.

    Attributes:
        parameters: the number of decoder outputs for each value of an example.
        integers: True if log_prob is the log-probability of integers, and not a log-density in model units.
    """

    parameters: int
    integers: bool

    @abstractmethod
    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        """Returns log p(x | z) in nats, x (B, *) in model units (integers at their bins' centres) and params (B, n, *)
        to (B,).
        """

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """Returns E[x | z] in model units, (B, n, *) to (B, *)."""

    @abstractmethod
    def sample(self, params: Tensor, u: Tensor) -> Tensor:
        """Draws x (B, *) in model units, from params (B, n, *) and uniform numbers u (B, *) in [0, 1)."""


class Gaussian(Observation):
    """The law N(decoder(z), std^2 I).

    Arguments:
        std: the standard deviation in model units, one for all values; None to learn it, with 0.3 at the start.
    """

    parameters = 1
    integers = False

    def __init__(self, std: float | None = None):
        super().__init__()
        if std is not None and not 0 < std < math.inf:
            raise ValueError(f"`std`={std} must be positive and finite; leave it out to have it learnt")
        log_std = torch.tensor(math.log(0.3 if std is None else std))
        if std is None:
            self.log_std = nn.Parameter(log_std)
        else:
            self.register_buffer("log_std", log_std, persistent=False)  # a setting: ``start_from`` must not copy it

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        z = (x - params[:, 0]) * torch.exp(-self.log_std)
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def mean(self, params: Tensor) -> Tensor:
        return params[:, 0]

    def sample(self, params: Tensor, u: Tensor) -> Tensor:
        return params[:, 0] + self.log_std.exp() * torch.special.ndtri(u.clamp_min(2.0**-24))


class Binned(Observation):
    """The common part of the laws of integers: the bins in model units.

    Arguments:
        bins: the data's shift, scale (numbers, or lists that broadcast over an example) and number of levels; ``auto``
            in the yaml takes the data's.
    """

    integers = True

    def __init__(self, bins: list | tuple):
        super().__init__()
        if len(bins) != 3 or not isinstance(bins[2], int) or bins[2] < 2:
            raise ValueError("`bins` must be [shift, scale, levels] with at least 2 levels; type `bins`=auto")
        shift, scale, self.levels = bins
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def index(self, x: Tensor) -> Tensor:
        """Returns the integers k (B, *) of the bins with the centres x, in model units."""
        return (x * self.scale + self.shift - 0.5).round().clamp(0, self.levels - 1).long()

    def centre(self, k: Tensor) -> Tensor:
        """Returns the centre of bin k in model units."""
        return (k + 0.5 - self.shift) / self.scale

    def mean(self, params: Tensor) -> Tensor:
        k = self.levels - 1 - sum(self.cumulative(params))  # E[k] = sum_j P(k > j)
        return self.centre(k)

    @abstractmethod
    def cumulative(self, params: Tensor) -> Iterator[Tensor]:
        """Yields P(k <= j) for j = 0 ... L - 2, each (B, *), from params (B, n, *)."""

    def sample(self, params: Tensor, u: Tensor) -> Tensor:
        k = torch.zeros_like(u)
        for below in self.cumulative(params):  # one by one: all at once they could exceed the memory
            k += below <= u
        return self.centre(k)


class DiscretisedLogistic(Binned):
    """A mixture of logistic distributions, integrated over the bins.

    Arguments:
        bins: see :class:`Binned`.
        mixture: the number of components.
    """

    def __init__(self, bins: list | tuple, mixture: int = 3):
        super().__init__(bins)
        if mixture < 1:
            raise ValueError(f"`mixture`={mixture} must be at least 1; type `mixture`=3")
        self.mixture, self.parameters = mixture, 3 * mixture

    def parts(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the log weights, means and log scales, each (B, mixture, *)."""
        logits, means, log_scales = params.chunk(3, dim=1)
        spread = torch.linspace(-1, 1, self.mixture + 2)[1:-1].to(params)  # so that no two components start equal
        means = means + spread.reshape(-1, *[1] * (params.ndim - 2))
        # with outputs near 0 a scale starts at exp(-2), narrow beside data of unit size
        return logits.log_softmax(1), means, (log_scales - 2).clamp(-7, 5)

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        log_weights, means, log_scales = self.parts(params)
        k, x = self.index(x)[:, None], x[:, None]
        half = 0.5 / self.scale
        above, below = ((x + side * half - means) * torch.exp(-log_scales) for side in (1, -1))
        low, high = functional.logsigmoid(above), functional.logsigmoid(-below)  # log P(j <= k) and log P(j >= k)
        width = (2 * half) * torch.exp(-log_scales)
        inside = low + high + torch.log(-torch.expm1(-width))
        log_mass = torch.where(k == 0, low, torch.where(k == self.levels - 1, high, inside))
        return torch.logsumexp(log_weights + log_mass, dim=1).flatten(1).sum(1)

    def cumulative(self, params: Tensor) -> Iterator[Tensor]:
        log_weights, means, log_scales = self.parts(params)
        weights, rates = log_weights.exp(), torch.exp(-log_scales)
        for j in range(1, self.levels):
            yield (weights * torch.sigmoid(((j - self.shift) / self.scale - means) * rates)).sum(1)


class Categorical(Binned):
    """A probability for each level; for data of few levels.

    Arguments:
        bins: see :class:`Binned`.
    """

    def __init__(self, bins: list | tuple):
        super().__init__(bins)
        self.parameters = self.levels

    def log_prob(self, x: Tensor, params: Tensor) -> Tensor:
        return params.log_softmax(1).gather(1, self.index(x)[:, None]).flatten(1).sum(1)

    def cumulative(self, params: Tensor) -> Iterator[Tensor]:
        yield from params.softmax(1).cumsum(1)[:, :-1].unbind(1)
