r"""The loss of a network of the binomial chain: its variational bound, at one random step of the chain.

.. math::
    L = T\,\mathbb E_n\,KL\bigl(q(x_{n-1}|x_n, x_0)\,\|\,p(x_{n-1}|x_n)\bigr)

is the bound of :mod:`scoresde.likelihood.binary` in nats, without the divergence at T, which no network changes (arXiv
1503.03585). The loss ``bound`` is L divided by the number of bits of a sample. ``bits`` is the cross-entropy of the
bits of x_0, with the same weight at every step as in DDPM's simple loss; it has the same minimiser.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.sde_lib import BinaryChain, Draws, ScoreFn
from scoresde.sde_lib.binary import bits_of

from .loss import Loss, draws_or_fresh


@dataclass(frozen=True)
class BinaryLoss(Loss):
    """The bound, or the unweighted cross-entropy, of each sample, divided by its number of bits, in nats.

    Arguments:
        weighting: ``bound`` or ``bits``; see the module's docstring.

    Attributes:
        process: the class of the forward process.

    Raises:
        ValueError: the weighting is unknown; in a call, the data are no bits.
    """

    weighting: Literal["bound", "bits"] = "bound"
    process: ClassVar[type] = BinaryChain

    def __post_init__(self):
        if self.weighting not in ("bound", "bits"):
            raise ValueError(f"`weighting`={self.weighting} must be bound or bits")

    def __call__(self, chain: BinaryChain, logits: ScoreFn, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        x_0, draws = bits_of(x_0), draws_or_fresh(draws, x_0)
        n = (draws.spread("times", x_0) * chain.T).floor().clamp_max(chain.T - 1) + 1
        x_n = chain.perturb(x_0, n, draws.normal("noise", x_0))
        log_odds = logits(x_n, n)
        if self.weighting == "bits":
            return torch.nn.functional.softplus(-x_0 * log_odds).flatten(1).mean(1)
        return (chain.T / x_0[0].numel() * chain.kl(n - 1, n, x_0, x_n, log_odds)).to(x_0.dtype)
