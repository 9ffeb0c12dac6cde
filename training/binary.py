r"""What a network of the binomial chain is trained on: its variational bound, a random step at a time.

.. math::
    L = T\,\mathbb E_n\,KL\bigl(q(x_{n-1}|x_n, x_0)\,\|\,p(x_{n-1}|x_n)\bigr)

is the bound of :mod:`scoresde.likelihood.binary` less its constant, in nats a bit of data (arXiv 1503.03585). ``bits``
leaves the steps' weights away, as DDPM's simple loss does for the Gaussian chain: the cross-entropy of the bits of x_0,
whose minimiser is the same.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.sde_lib import BinaryChain, Draws, ScoreFn
from scoresde.sde_lib.binary import bits_of

from .loss import Loss, given


@dataclass(frozen=True)
class BinaryLoss(Loss):
    """The bound, or the unweighted cross-entropy, of each sample's bits, divided by their number.

    Arguments:
        weighting: ``bound`` or ``bits``; see the module's text.

    Attributes:
        process: the forward process that it is for.
    """

    weighting: Literal["bound", "bits"] = "bound"
    process: ClassVar[type] = BinaryChain

    def __post_init__(self):
        if self.weighting not in ("bound", "bits"):
            raise ValueError(f"`weighting`={self.weighting} must be bound or bits")

    def __call__(self, chain: BinaryChain, logits: ScoreFn, x_0: Tensor, draws: Draws | None = None) -> Tensor:
        x_0, draws = bits_of(x_0), given(draws, x_0)
        n = (draws.spread("times", x_0) * chain.T).floor().clamp_max(chain.T - 1) + 1
        x_n = chain.perturb(x_0, n, draws.normal("noise", x_0))
        found = logits(x_n, n)
        if self.weighting == "bits":
            return torch.nn.functional.softplus(-x_0 * found).flatten(1).mean(1)
        return (chain.T / x_0[0].numel() * chain.kl(n - 1, n, x_0, x_n, found)).to(x_0.dtype)
