"""Ancestral sampling of the binomial chain, from fair coins to bits, for ``task=binary`` (arXiv 1503.03585)."""

from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.sde_lib import BinaryChain, ScoreFn, expand_to_batch

from .pc import Film, OnStep


@torch.no_grad()
def binary_ancestral(
    chain: BinaryChain,
    logits: ScoreFn,
    x: Tensor,
    randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
    on_step: OnStep | None = None,
    film: Film | None = None,
) -> Tensor:
    """Returns bits, -1 or 1, shape (B, *), by T reverse steps with one evaluation each.

    Arguments:
        logits: (x_n, n) -> the log-odds of each bit of x_0 being 1, of x_n's shape.
        x: standard normals, whose signs are the coins x_T.
        randn_like: the source of normals, called once for each step.
        on_step: called with the share of the steps that is done.
        film: records some of the states x_n.
    """
    x, last = torch.where(x < 0, -1.0, 1.0).to(x), int(chain.T)
    frames = {round(share * last) for share in film.shares} if film else set()  # numbers of finished steps
    for done, n in enumerate(range(last, 0, -1)):
        if done in frames:
            film.add(float(n), x)
        now = expand_to_batch(float(n), x)
        p_up = chain.reverse(now - 1, now, x, logits(x, now))  # p(x_{n-1} = 1 | x_n)
        x = torch.where(torch.special.ndtr(randn_like(x).to(p_up)) < p_up, 1.0, -1.0).to(x)
        if on_step:
            on_step((done + 1) / last)
    if film:
        film.add(0.0, x)
    return x
