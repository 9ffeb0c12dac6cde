r"""The variational bound of the binomial chain, term by term.

Each step's divergence is a sum over bits, in closed form:

.. math::
    -\log P(x_0) \le KL\bigl(q(x_T|x_0)\,\|\,\text{coins}\bigr)
    + \sum_{n=2}^T \mathbb E\,KL\bigl(q(x_{n-1}|x_n, x_0)\,\|\,p(x_{n-1}|x_n)\bigr) + \mathbb E[-\log p(x_0|x_1)]

(arXiv 1503.03585; the kernels are those of :mod:`scoresde.sde_lib.binary`). The bound is loose for two reasons: a step
draws its bits independently, which costs order 1/T, and the network has an error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde_lib import BinaryChain, Counted, ScoreFn
from scoresde.sde_lib.binary import bits_of

from .bound import BoundTerms, added_up


@dataclass(frozen=True)
class BinaryBound:
    """(chain, logits, x) -> a lower bound on log P(x), with its terms.

    Arguments:
        terms: the number of divergences n = 2 ... T evaluated for each point, even; None for all of them, once each.
    """

    terms: int | None = None

    def __post_init__(self):
        if self.terms is not None and (self.terms < 2 or self.terms % 2):
            raise ValueError(
                f"`terms`={self.terms} must be even and at least 2; type `terms`=64, or leave it out for all terms"
            )

    @torch.no_grad()
    def __call__(
        self,
        chain: BinaryChain,
        logits: ScoreFn,
        x: Tensor,
        randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
        on_step: Callable[[float], None] | None = None,
    ) -> BoundTerms:
        """Returns the bound at x, shape (B, *), whose values are -a and a for one a > 0.

        Arguments:
            logits: (x_n, n) -> the log-odds of each bit of x_0 being 1, of x_n's shape, for bits x_n in {-1, 1}.
            randn_like: the source of normals, for the tosses and for the choice of terms.
            on_step: called with the share of the evaluations done.

        Raises:
            ValueError: x has other values.
            FloatingPointError: the log-odds of a bit are NaN, or infinite with the wrong sign.
        """
        x = bits_of(x)
        counted, count, last = Counted(logits), len(x), int(chain.T)
        evaluations, done = (last - 1 if self.terms is None else self.terms) + 2, 0

        def kl(n: Tensor) -> Tensor:
            """Returns the terms of the steps n -> n - 1, n (B,), shape (B,)."""
            nonlocal done
            n = n.to(x.dtype)
            x_n = chain.perturb(x, n, randn_like(x))
            value = chain.kl(n - 1, n, x, x_n, counted(x_n, n))
            lost = ~value.isfinite()
            if bool(lost.any()):
                step = int(n[lost][0])
                raise FloatingPointError(f"the log-odds are not finite, or certain and wrong, at step {step}")
            done += 1
            if on_step:
                on_step(done / evaluations)
            return value

        one = torch.ones(count, device=x.device)
        first = kl(one)
        lengths = torch.ones(last - 1, dtype=first.dtype, device=x.device)
        diffusion = added_up(lambda n: kl(n + 2), lengths, self.terms, x, randn_like)
        again = kl(one)  # two draws of L_0 give its error
        reconstruction = 0.5 * (first + again)
        stderr = (diffusion.variance + 0.25 * (first - again).square()).sqrt()
        prior = chain.prior_kl(x).to(reconstruction)
        log_prob = -(prior + diffusion.total + reconstruction)
        nfe = counted.evaluations / max(1, count)
        return BoundTerms(
            log_prob, prior, diffusion.total, reconstruction, stderr, diffusion.sums, diffusion.draws, nfe
        )
