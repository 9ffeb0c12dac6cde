r"""Groups of weighted particles: their noise, their weights, and systematic resampling.

Every ``draws`` consecutive rows of a batch are draws from one posterior, a group. Each row has ``copies`` particles,
which are consecutive, so that particle p of a group belongs to draw p // copies. The noise of a particle is that of its
row: it does not depend on how rows are divided into batches, as long as groups stay whole.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class Particles:
    """The particles of a batch.

    Arguments:
        x: (B, *), a row for each draw; whole groups.
        draws: the number of rows of a group.
        copies: the number of particles of a row.
        randn_like: the source of standard normals of x's shape.

    Attributes:
        groups: the number of groups.
        count: the number of particles of a group.
        rows: (B copies,), the row of each particle.
    """

    def __init__(self, x: Tensor, draws: int, copies: int, randn_like: Callable[[Tensor], Tensor]):
        self.like, self.draws, self.copies, self.randn_like = x, draws, copies, randn_like
        self.groups, self.count = len(x) // draws, draws * copies
        self.rows = torch.arange(len(x), device=x.device).repeat_interleave(copies)

    def normals(self) -> Tensor:
        """Returns standard normals for every particle, (B copies, *)."""
        return torch.stack([self.randn_like(self.like) for _ in range(self.copies)], 1).flatten(0, 1)

    def shared(self) -> Tensor:
        """Returns standard normals that all particles of a group share, (B copies, *)."""
        return self.randn_like(self.like)[:: self.draws].repeat_interleave(self.count, 0)

    def start(self, x: Tensor, std: float) -> Tensor:
        """Returns the particles at T, (B copies, *): of each row x itself and fresh draws from N(0, std^2 I)."""
        fresh = (self.randn_like(x) * std for _ in range(self.copies - 1))
        return torch.stack([x, *fresh], 1).flatten(0, 1)

    def uniform(self) -> Tensor:
        """Returns one number in [0, 1) for each group, (groups,), float64."""
        first = self.randn_like(self.like)[:: self.draws].flatten(1)[:, 0].double()
        return torch.special.ndtr(first).clamp_max(1 - 1e-12)

    def weights(self, log_weights: Tensor) -> Tensor:
        """Returns normalised weights, (groups, count), float64: 0 for a particle whose log-weight is NaN or infinite,
        and equal weights for a group in which every particle is such.
        """
        log_weights = log_weights.double()
        log_weights = torch.where(log_weights.isnan() | log_weights.isposinf(), -torch.inf, log_weights)
        alive = log_weights.amax(1, keepdim=True) > -torch.inf
        return torch.softmax(torch.where(alive, log_weights, 0.0), 1)

    def choose(self, log_weights: Tensor, count: int) -> Tensor:
        """Draws ``count`` particles of each group in proportion to their weights, with one uniform number for each
        group (systematic resampling); returns their numbers, (groups count,).
        """
        share = self.weights(log_weights).cumsum(1)
        places = (torch.arange(count, device=share.device) + self.uniform()[:, None]) / count
        chosen = torch.searchsorted(share / share[:, -1:], places).clamp_max(self.count - 1)
        return (chosen + self.count * torch.arange(self.groups, device=share.device)[:, None]).flatten()

    def resample(self, log_weights: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Resamples the groups whose effective number of particles is below ``share`` of their number.

        Returns:
            the number of the particle that takes each place, (B copies,), and the log-weights after resampling.
        """
        weights, chosen = self.weights(log_weights), self.choose(log_weights, self.count)
        poor = 1 / weights.square().sum(1) < share * self.count
        stay = torch.arange(self.groups * self.count, device=chosen.device)
        pick = torch.where(poor.repeat_interleave(self.count), chosen, stay)
        return pick, torch.where(poor[:, None], 0.0, log_weights)
