"""The log-likelihood of points, batch by batch."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import Dequantisation, Likelihood, UniformDequantisation
from scoresde.likelihood.dequantisation import Dequantised, log_mean
from scoresde.sde_lib import SDE, ScoreFn

from .batches import Batch, batches, check_batch
from .conditions import conditioned_on
from .progress import progress

NAMES = ("x", "z", "log_prob", "gain", "probe_stderr", "start_term", "prior_term")  # the keys of a result but for nfe


@dataclass(frozen=True)
class Scoring:
    """Scores points. The result of a point depends on the seed and on its number, not on the batch.

    Arguments:
        likelihood: how log p is computed.
        dequantisation: which points of a bin stand for its integer; continuous data stand for themselves.
        batch: the number of points scored at once.
        seed: the seed of the probes and of the dequantisation.
        device, dtype: where, and in which precision the score is evaluated.
    """

    likelihood: Likelihood
    dequantisation: Dequantisation = field(default_factory=UniformDequantisation)
    batch: int = 1024
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_batch(self.batch)

    def score(
        self,
        sde: SDE,
        score: ScoreFn,
        data: Data,
        r: Tensor,
        y: Tensor | None = None,
        what: str = "scoring",
        dequantise: bool = True,
        skip: int = 0,
        leave: bool = True,
    ) -> dict[str, Tensor]:
        """Scores the points r (N, *) in data units.

        Arguments:
            y: (N, condition), or (1, condition) for all points, as networks take it; None without a condition.
            what: the title of the progress bar.
            dequantise: False for integer data whose points r lie between the levels already, such as those of a grid.
            skip: the number of first points that are left out. The noise of the others does not change.
            leave: whether the progress bar stays on the screen when it is full.

        Returns:
            x (N, *), the points that were scored, in data units; z (N, *), their codes in model units; log_prob (N,) in
            nats and data units; probe_stderr, start_term and prior_term (N,) in nats, as in
            :class:`scoresde.likelihood.LogLikelihood`; gain (N,) in nats, 0 but for integers; nfe, the mean number of
            evaluations a point, (). With ``skip`` there are N - skip rows.

            For integers log_prob is the bound from K points of each bin, and gain is its excess over the mean of the
            bounds from one point. x and z are those of the first of the K points; probe_stderr and the terms are means
            over the K points, each weighted by its share in the sum of the weights.
        """
        integers = dequantise and data.levels is not None
        parts, evaluations = [], 0.0
        with progress(what, len(r), leave) as advance:
            for batch in batches(len(r), self.batch, advance, skip):
                own = conditioned_on(score, y, batch.rows, self.device, getattr(torch, self.dtype))
                part, nfe = self.part(sde, own, data, r[batch.rows], batch, integers)
                parts.append(part)
                for evaluations_a_point in nfe:
                    evaluations += evaluations_a_point * batch.size
        columns = (torch.cat(column) for column in zip(*parts, strict=True))
        return {**dict(zip(NAMES, columns, strict=True)), "nfe": torch.tensor(evaluations / (len(r) - skip))}

    def part(
        self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, batch: Batch, integers: bool
    ) -> tuple[tuple[Tensor, ...], list[float]]:
        """Returns the columns ``NAMES`` of one batch of points r, and the evaluations a point for each of the K draws
        from a bin; K is 1 where nothing is dequantised.
        """
        likelihood, draw, count, dtype = self.likelihood, undequantised, 1, getattr(torch, self.dtype)
        if integers:
            likelihood, count = self.dequantisation.scored_by(likelihood), self.dequantisation.samples
            draw = self.dequantisation.draw
        first, rows, nfe = (), [], []
        uniform = batch.noise(self.seed, data.shape, torch.float64, "cpu", "dequantisation")
        for j in range(count):
            point = draw(sde, data, r, uniform.uniform())
            found = likelihood(
                sde,
                score,
                point.x.to(self.device, dtype),
                # made anew, so that all points of a bin meet the same probes
                batch.noise(self.seed, data.shape, dtype, self.device, "probes"),
                on_step=lambda share, j=j: batch.on_step((j + share) / count),
            )
            nfe.append(found.nfe)
            first = first or (point.r, found.z.cpu())
            terms = (found.model_log_prob, found.probe_stderr, found.start_term, found.prior_term)
            log_prob, *terms = (term.double().cpu() for term in terms)
            rows.append(torch.stack([log_prob - point.log_q, *terms]))  # log_q holds the Jacobian to data units
        log_weights, *terms = torch.stack(rows, 1)
        log_prob, shares = log_mean(log_weights)
        # errors from the same probes add up linearly, not as the root of a sum of squares
        terms = ((shares * term).sum(0) for term in terms)
        return (*first, log_prob, log_prob - log_weights.mean(0), *terms), nfe


def undequantised(sde: SDE, data: Data, r: Tensor, u: Tensor) -> Dequantised:
    """Returns points r (B, *) in data units that need no dequantisation as they are, in the form of
    :meth:`Dequantisation.draw`; u is ignored.
    """
    return Dequantised(data.encode(r.double()), r.double(), torch.full((len(r),), -data.log_det, dtype=torch.float64))
