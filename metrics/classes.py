r"""What a classifier says of samples: their score, and how often each class is among them.

.. math:: \mathrm{IS} = \exp \mathbb E_x\,\mathrm{KL}\bigl(p(y \mid x)\,\|\,\bar p(y)\bigr), \qquad
          \bar p(y) = \mathbb E_x\,p(y \mid x)

is K where each sample is of one of K classes beyond doubt and all are equally frequent, and 1 where the classifier says
the same of all (Salimans et al., arXiv 1606.03498). It knows no data: samples may score higher than real data do, and
one perfect picture a class scores K. It is called inception score where the classifier is Inception, and only there.
"""

import math

import torch
from torch import Tensor


def classifier_score(log_prob: Tensor, splits: int = 10) -> tuple[float, float]:
    """The score of samples of log p(y | x) (N, K) in nats, and its standard error, from as many equal parts of the
    samples; NaN where a part would have fewer than two.
    """
    log_prob = log_prob.double()
    parts = [score(each) for each in log_prob.tensor_split(splits)] if len(log_prob) >= 2 * splits else []
    spread = float(torch.tensor(parts, dtype=torch.float64).std()) if len(parts) > 1 else math.nan
    return score(log_prob), spread / math.sqrt(max(1, len(parts)))


def score(log_prob: Tensor) -> float:
    """exp E KL(p(y|x) || mean p(y|x)) of log p (N, K)."""
    mean = log_prob.logsumexp(0) - math.log(len(log_prob))
    prob = log_prob.exp()
    terms = torch.where(prob > 0, prob * (log_prob - mean), 0.0)  # 0 log 0 = 0
    return math.exp(float(terms.sum(1).mean()))


def class_shares(log_prob: Tensor) -> Tensor:
    """The share (K,) of samples of which each class is the most probable, of log p (N, K)."""
    return torch.bincount(log_prob.argmax(1), minlength=log_prob.shape[1]).double() / len(log_prob)


def confident(log_prob: Tensor, beyond: float = 0.9) -> float:
    """The share of samples, log p (N, K), with a class that is more probable than that."""
    return float((log_prob.double().amax(1) > math.log(beyond)).double().mean())
