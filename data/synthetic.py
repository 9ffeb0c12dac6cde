r"""The base class of data drawn from a density in closed form.

Examples are independent draws :math:`r_i \sim p`, and :math:`\log p(r)` is computed in float64 from the same formulas.
No model's expected negative log-likelihood on held-out draws is below the entropy :math:`-E_p \log p(r)`; the gap
between the two is the Kullback-Leibler divergence of the model from the truth.

The units m and s are the mean and the standard deviation of p and not of a sample: model units depend neither on the
seed nor on the number of examples.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import Data, at_least

CHUNK = 2**21  # about the largest number of float64 values in an intermediate tensor of a density: 16 MiB


class Synthetic(Data, ABC):
    """Independent draws from a closed-form density, in two disjoint random streams of one seed.

    The held-out draws do not depend on the number of training examples.

    Arguments:
        count, test_count: the numbers of training and of held-out examples.
        seed: the seed of the draws, at least 0.
        shape: the shape of one example.
        shift, scale: the mean and the standard deviation of the density, numbers or tensors that broadcast over the
            shape; the standard deviation is that of all coordinates pooled, or of each column (:class:`Gaussian`).
        width: how many values the density of one point keeps in memory at once; it decides how many points
            :meth:`true_log_prob` passes to :meth:`log_density` at once.

    Raises:
        ValueError: ``count`` or ``test_count`` is below 1, or ``seed`` below 0.
    """

    held_out_keys = ("test_count",)

    def __init__(
        self,
        count: int,
        test_count: int,
        seed: int,
        shape: tuple[int, ...],
        shift: Tensor | float,
        scale: Tensor | float,
        width: int,
    ):
        at_least("count", count, 1, 200_000)
        at_least("test_count", test_count, 1, 10_000)
        at_least("seed", seed, 0, 0)
        self.chunk = max(1, CHUNK // width)
        drawn = [self.draw(number, np.random.default_rng([seed, k])) for k, number in enumerate((count, test_count))]
        train, test = (torch.as_tensor(points, dtype=torch.get_default_dtype()) for points, _ in drawn)
        labels = [None if each is None else torch.as_tensor(each, dtype=torch.int64) for _, each in drawn]
        x, x_test = train.reshape(count, *shape), test.reshape(test_count, *shape)
        super().__init__(x, x_test, shift, scale, None, *labels, shuffle=False)

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Draws independent examples in data units, shape (count, D), float64, and their class labels 0, 1 ...,
        (count,), or None without classes.
        """

    @abstractmethod
    def log_density(self, r: Tensor) -> Tensor:
        """Returns log p(r) in nats and data units, shape (B, D) to (B,), in float64 on the CPU."""

    def true_log_prob(self, r: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns log p(r) in nats and data units, shape (B, *) on any device to (B,) in float64 on the CPU.

        Raises:
            ValueError: the points have another shape than the examples.
        """
        if tuple(r.shape[1:]) != self.shape:
            raise ValueError(f"points of shape {tuple(r.shape[1:])} have no density here: the data's are {self.shape}")
        chunks = r.to("cpu", torch.float64).flatten(1).split(self.chunk)
        return torch.cat([self.log_density(chunk) for chunk in chunks])
