r"""Heartbeats: rows of bits with periodic pulses, the binary example of Sohl-Dickstein et al. (arXiv 1503.03585).

The first pulse stands at one of ``period`` places with equal probability and decides the others. The entropy is
log2(period) bits for rows of any length, 2.32 for the published rows of 20 bits with a period of 5.
"""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.base import Data, at_least


class Heartbeat(Data):
    """Rows of 0 and 1 as uint8, shape (N, length): data of two levels.

    Arguments:
        length: the number of bits in a row, at least ``period``.
        period: the number of bits from one pulse to the next, at least 2.
        count, test_count: numbers of training and of held-out rows.
        seed: seed of the draws, at least 0.
    """

    held_out_keys = ("test_count",)

    def __init__(self, length: int = 20, period: int = 5, count: int = 10_000, test_count: int = 2000, seed: int = 0):
        for key, value, least, instead in (
            ("period", period, 2, 5),
            ("length", length, period, 20),
            ("count", count, 1, 10_000),
            ("test_count", test_count, 1, 2000),
            ("seed", seed, 0, 0),
        ):
            at_least(key, value, least, instead)
        self.period = period
        self.rows = (torch.arange(length) % period == torch.arange(period)[:, None]).to(torch.uint8)
        train, test = (
            self.rows[torch.from_numpy(np.random.default_rng([seed, stream]).integers(0, period, number))]
            for stream, number in enumerate((count, test_count))
        )
        super().__init__(train, test, 1.0, 1.0, levels=2, shuffle=False)

    def true_log_prob(self, r: Tensor, y: Tensor | None = None) -> Tensor:
        """Returns log P in nats, (B, length) to (B,) in float64: -log(period) for a heartbeat, -inf for any other row.
        A point k + u, u in [0, 1), has the value of its bits k.
        """
        k = r.to("cpu").floor()
        beats = (k[:, None] == self.rows).all(-1).any(1)
        return torch.zeros(len(k), dtype=torch.float64).sub(math.log(self.period)).masked_fill(~beats, -math.inf)
