r"""Coverage of the data's modes by a sample.

Modes are the components of the mixture if the data set is one in closed form, else classes, predicted by a classifier
that was trained on real data. A mode is *found* if its share among the samples is at least a fifth of its true share;
the total variation :math:`\tfrac12\sum_k |\hat w_k - w_k|` measures the error of all shares. A sample of a mixture is
*good* if it lies within the radius of its mode that holds 99 % of the mode's own points (3.03 standard deviations in
the plane).

:mod:`scoresde.metrics.support` needs no modes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .labels import judge

ENOUGH = 0.2  # of a mode's true share, for it to be found
INSIDE = 0.99  # of a mode's points, within the radius of good samples


@dataclass(frozen=True)
class Coverage:
    """The coverage of the modes by a sample.

    Attributes:
        shares: the share of samples in each mode, (K,). For a mixture only good samples count, so that the sum may be
            below 1.
        found: the number of modes found.
        variation: the total variation between the shares, divided by their sum, and the true ones; 1 where all are 0.
        good: the share of good samples among all; None for classes.
    """

    shares: Tensor
    found: int
    variation: float
    good: float | None = None


def covered(shares: Tensor, truth: Tensor, good: float | None = None) -> Coverage:
    """Returns the coverage of modes with the shares (K,) in a sample and the true shares (K,)."""
    truth = truth.double() / truth.double().sum()
    found, total = int((shares >= ENOUGH * truth).sum()), shares.sum()
    variation = float(0.5 * (shares / total - truth).abs().sum()) if total > 0 else 1.0
    return Coverage(shares, found, variation, good)


def belonging(x: Tensor, components: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Returns the index of the most probable component for each of x (N, D), (N,); ``components`` as in
    :func:`mode_coverage`.
    """
    weights, means, stds = (each.double() for each in components)
    distances = torch.cdist(x.double(), means).square() / (2 * stds.square())
    return (weights.log() - distances - x.shape[1] * stds.log()).argmax(1)


def mode_coverage(x: Tensor, components: tuple[Tensor, Tensor, Tensor]) -> Coverage:
    """Returns the coverage by x (N, *) of a mixture with the weights (K,), means (K, D) and stds (K,), in x's units."""
    from scipy.stats import chi2

    x, (weights, means, stds) = x.flatten(1).double(), (each.double() for each in components)
    owner = belonging(x, components)
    radius = float(chi2.ppf(INSIDE, x.shape[1])) ** 0.5
    good = (x - means[owner]).norm(dim=1) <= radius * stds[owner]
    shares = torch.bincount(owner[good], minlength=len(weights)).double() / len(x)
    return covered(shares, weights, float(good.double().mean()))


class Classes:
    """A classifier trained on real data, for the shares of classes among samples.

    Arguments:
        x, labels: training examples (N, *) and their classes (N,); the classifier is fitted to at most 10,000.

    Attributes:
        truth: the classes' shares among all labels, (K,).
        names: the labels of the classes, ascending, (K,).

    Raises:
        ValueError: all labels are equal.
    """

    def __init__(self, x: Tensor, labels: Tensor):
        self.names, number = labels.unique(return_inverse=True)
        if len(self.names) < 2:
            raise ValueError("the labels are all the same: there are no classes to cover")
        self.truth = torch.bincount(number).double() / len(number)
        self.classify = judge(x, number)

    def predict(self, x: Tensor) -> Tensor:
        """Returns the predicted label of each of x (N, *), (N,)."""
        return self.names[self.classify(x)]

    def coverage(self, x: Tensor) -> Coverage:
        """Returns the coverage of the classes by samples x (N, *)."""
        number = torch.searchsorted(self.names, self.predict(x))
        return covered(torch.bincount(number, minlength=len(self.names)).double() / len(x), self.truth)
