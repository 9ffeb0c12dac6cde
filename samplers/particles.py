r"""Groups of weighted particles: draws their noise, normalises their weights, and resamples them systematically.

SMCDiff and TDS use them. A group is ``draws`` consecutive rows of a batch, which are draws from one posterior. Each row
has ``copies`` consecutive particles, so that particle p of a group belongs to draw p // copies. The noise of a particle
is that of its row, so that it does not depend on how rows are divided into batches, as long as groups stay whole.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class Particles:
    """The particles of a batch.

    Arguments:
        x: (B, *), one row per draw; B is a multiple of ``draws``.
        draws: the number of rows in a group.
        copies: the number of particles per row.
        randn_like: the source of standard normals of x's shape.

    Attributes:
        groups: the number of groups.
        count: the number of particles in a group, draws * copies.
        rows: the index of each particle's row, (B copies,).
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
        """Returns the particles at T, (B copies, *): per row x itself, then copies - 1 draws from N(0, std^2 I)."""
        fresh = (self.randn_like(x) * std for _ in range(self.copies - 1))
        return torch.stack([x, *fresh], 1).flatten(0, 1)

    def uniform(self) -> Tensor:
        """Returns one number in [0, 1) for each group, (groups,), float64."""
        first = self.randn_like(self.like)[:: self.draws].flatten(1)[:, 0].double()
        return torch.special.ndtr(first).clamp_max(1 - 1e-12)

    def weights(self, log_weights: Tensor) -> Tensor:
        """Returns the weights of log-weights (groups, count), normalised in each group, float64.

        A particle whose log-weight is NaN or infinite has weight 0. If a group has only such particles, their weights
        are equal.
        """
        log_weights = log_weights.double()
        log_weights = torch.where(log_weights.isnan() | log_weights.isposinf(), -torch.inf, log_weights)
        alive = log_weights.amax(1, keepdim=True) > -torch.inf
        return torch.softmax(torch.where(alive, log_weights, 0.0), 1)

    def choose(self, log_weights: Tensor, count: int) -> Tensor:
        """Draws ``count`` particles of each group in proportion to their weights, and returns their indices among all
        particles, (groups count,). It is systematic resampling with one uniform number per group.

        Arguments:
            log_weights: (groups, self.count).
        """
        cumulative = self.weights(log_weights).cumsum(1)
        quantiles = (torch.arange(count, device=cumulative.device) + self.uniform()[:, None]) / count
        chosen = torch.searchsorted(cumulative / cumulative[:, -1:], quantiles).clamp_max(self.count - 1)
        return (chosen + self.count * torch.arange(self.groups, device=cumulative.device)[:, None]).flatten()

    def resample(self, log_weights: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Resamples the groups whose effective sample size, 1 / sum w^2, is below ``share`` times ``count``.

        Arguments:
            log_weights: (groups, count).

        Returns:
            the index of the particle that takes each place, (B copies,), and the log-weights after resampling.
        """
        weights, chosen = self.weights(log_weights), self.choose(log_weights, self.count)
        resampled = 1 / weights.square().sum(1) < share * self.count
        unchanged = torch.arange(self.groups * self.count, device=chosen.device)
        indices = torch.where(resampled.repeat_interleave(self.count), chosen, unchanged)
        return indices, torch.where(resampled[:, None], 0.0, log_weights)
