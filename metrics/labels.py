r"""A classifier trained on real data: it checks whether samples have the class that they are conditioned on, and counts
the classes among samples.

It is a support vector machine with the kernel exp(-gamma |a - b|^2) on the values, fitted to at most 10,000 training
examples. It is independent of the network that drew the samples and of one that guided them. Compare its accuracy with
that on held-out data, some of which it misclassifies too.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MOST = 10_000  # examples: the cost of the fit grows with the square of their number


def judge(x: Tensor, y: Tensor, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Fits a classifier to examples x (N, *) of the classes y (N,), and returns it: a function from (B, *) to classes
    (B,).

    Arguments:
        seed: decides which ``MOST`` of more examples are used.
    """
    from sklearn.svm import SVC  # imported here, since it takes a second

    x = x.flatten(1).double()
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:MOST]
    shift, scale = x.mean(0), x.std().clamp_min(1e-12)
    machine = SVC(C=10.0, gamma="scale").fit(((x[rows] - shift) / scale).numpy(), y[rows].numpy())

    def classify(samples: Tensor) -> Tensor:
        return torch.from_numpy(machine.predict(((samples.flatten(1).double() - shift) / scale).numpy()))

    return classify
