r"""Metrics of samples by a classifier's predictions: the score IS, and the shares of classes and of sure predictions.

.. math:: \mathrm{IS} = \exp \mathbb E_x\,\mathrm{KL}\bigl(p(y \mid x)\,\|\,\bar p(y)\bigr), \qquad
          \bar p(y) = \mathbb E_x\,p(y \mid x)

is K where the classifier is certain of each sample and the K classes are equally frequent, and 1 where its prediction
is the same for all samples (Salimans et al., arXiv 1606.03498). It does not compare with data: samples may score higher
than real data, and one perfect image a class scores K. It is the inception score only if the classifier is Inception.
"""

import math

import torch
from torch import Tensor


def classifier_score(log_prob: Tensor, splits: int = 10) -> tuple[float, float]:
    """Returns the score IS and its standard error.

    Arguments:
        log_prob: log p(y | x) (N, K) in nats.
        splits: the number of nearly equal parts of the samples that give the standard error; it is NaN for one part,
            and where a part would have fewer than two samples.
    """
    log_prob = log_prob.double()
    parts = [score(part) for part in log_prob.tensor_split(splits)] if len(log_prob) >= 2 * splits else []
    spread = float(torch.tensor(parts, dtype=torch.float64).std()) if len(parts) > 1 else math.nan
    return score(log_prob), spread / math.sqrt(max(1, len(parts)))


def score(log_prob: Tensor) -> float:
    """Returns the score IS of the module docstring for log p(y | x) (N, K)."""
    mean = log_prob.logsumexp(0) - math.log(len(log_prob))
    prob = log_prob.exp()
    terms = torch.where(prob > 0, prob * (log_prob - mean), 0.0)  # 0 log 0 = 0
    return math.exp(float(terms.sum(1).mean()))


def class_shares(log_prob: Tensor) -> Tensor:
    """Returns the share of samples for which each class is the most probable, (K,), from log p (N, K)."""
    return torch.bincount(log_prob.argmax(1), minlength=log_prob.shape[1]).double() / len(log_prob)


def confident(log_prob: Tensor, beyond: float = 0.9) -> float:
    """Returns the share of samples with a class of probability above ``beyond``, from log p (N, K)."""
    return float((log_prob.double().amax(1) > math.log(beyond)).double().mean())
