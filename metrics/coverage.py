r"""Which of the data's modes a sample covers, and how much of it lies where data do.

Modes are the components of a mixture where the density is known, else classes, as a classifier tells them that was
trained on real data. A mode is *found* if it holds at least a fifth of the share it should have; the total variation
:math:`\tfrac12\sum_k |\hat w_k - w_k|` says how far all shares are off. A sample of a mixture is *good* if it lies
within the radius of its mode that holds 99 % of the mode's own points (3.03 standard deviations in the plane).

Without modes see :mod:`scoresde.metrics.support`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .labels import judge

ENOUGH = 0.2  # of a mode's share
INSIDE = 0.99


@dataclass(frozen=True)
class Coverage:
    """What a sample covers.

    Attributes:
        shares: found in each mode, (K,); of a mixture, of good samples, and so of sum at most 1.
        found: how many modes.
        variation: the total variation between the shares, divided by their sum, and the true ones; 1 where they are all
            0.
        good: the share of good samples; None for classes.
    """

    shares: Tensor
    found: int
    variation: float
    good: float | None = None


def covered(shares: Tensor, truth: Tensor, good: float | None = None) -> Coverage:
    truth = truth.double() / truth.double().sum()
    found, total = int((shares >= ENOUGH * truth).sum()), shares.sum()
    variation = float(0.5 * (shares / total - truth).abs().sum()) if total > 0 else 1.0
    return Coverage(shares, found, variation, good)


def belonging(x: Tensor, components: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The index of the most probable component of each of x (N, D), (N,)."""
    weights, means, stds = (each.double() for each in components)
    distances = torch.cdist(x.double(), means).square() / (2 * stds.square())
    return (weights.log() - distances - x.shape[1] * stds.log()).argmax(1)


def mode_coverage(x: Tensor, components: tuple[Tensor, Tensor, Tensor]) -> Coverage:
    """Of x (N, *), against the weights (K,), means (K, D) and stds (K,) of a mixture in the same units."""
    from scipy.stats import chi2

    x, (weights, means, stds) = x.flatten(1).double(), (each.double() for each in components)
    owner = belonging(x, components)
    radius = float(chi2.ppf(INSIDE, x.shape[1])) ** 0.5
    good = (x - means[owner]).norm(dim=1) <= radius * stds[owner]
    shares = torch.bincount(owner[good], minlength=len(weights)).double() / len(x)
    return covered(shares, weights, float(good.double().mean()))


class Classes:
    """A classifier of real data, for the shares of classes among samples.

    Arguments:
        x, labels: training examples (N, *) and their classes (N,); up to 10,000 of them are used.

    Attributes:
        truth: the classes' shares among them.
    """

    def __init__(self, x: Tensor, labels: Tensor):
        self.names, number = labels.unique(return_inverse=True)
        if len(self.names) < 2:
            raise ValueError("the labels are all the same: there are no classes to cover")
        self.truth = torch.bincount(number).double() / len(number)
        self.classify = judge(x, number)

    def predict(self, x: Tensor) -> Tensor:
        """The class of each of x (N, *), (N,)."""
        return self.names[self.classify(x)]

    def coverage(self, x: Tensor) -> Coverage:
        """Of the samples x (N, *)."""
        number = torch.searchsorted(self.names, self.predict(x))
        return covered(torch.bincount(number, minlength=len(self.names)).double() / len(x), self.truth)
