"""The probability flow as a map between data and latent codes (arXiv 2011.13456, eq. 13).

A point x starts as alpha(eps) x, the mean of its distribution at eps, and is carried to its code z at T; a code is
carried back and divided by alpha(eps). The map is deterministic, so a difference after the round trip is the solver's
error. The code depends on the data and the SDE only: two exact scores of one data set give a point one code.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.data import Data
from scoresde.sde_lib import SDE, BlockNoise, ScoreFn, frame, integrate
from scoresde.sde_lib.frame import Flow, check_clock
from scoresde.sde_lib.ode import check_solver

from .batches import batches, check_batch
from .conditions import conditioned_on
from .progress import progress


@dataclass(frozen=True)
class Codec:
    """The map between points in data units and codes in model units.

    Arguments:
        method: ``tsit5`` or ``dopri5`` (a step size for each point) or ``torchdiffeq.NAME``; see
            :mod:`scoresde.sde_lib.ode`.
        clock: the variable of integration, ``angle`` or ``t``; see :mod:`scoresde.sde_lib.frame`.
        rtol, atol: tolerances of the local error of each point.
        steps: the number of steps of a torchdiffeq method without error control.
        batch: the number of points per batch; the result does not depend on it.
        device, dtype: where, and in which precision.
    """

    method: str = "tsit5"
    clock: Literal["angle", "t"] = "angle"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int = 100
    batch: int = 1024
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self):
        check_batch(self.batch)
        check_clock(self.clock)
        check_solver(self.method, self.rtol, self.atol, self.steps)

    def encode(self, sde: SDE, score: ScoreFn, data: Data, r: Tensor, what: str = "encoding", **keys: Any) -> Tensor:
        """Maps points (N, *) in data units to their codes (N, *) on the CPU; integers must be dequantised before.

        Arguments:
            keys: ``y`` and ``leave`` of :meth:`carry`.
        """
        x = start_factor(sde) * data.encode(r).to(getattr(torch, self.dtype))
        return self.carry(sde, score, x, to_noise=True, what=what, **keys)

    def decode(self, sde: SDE, score: ScoreFn, data: Data, z: Tensor, what: str = "decoding", **keys: Any) -> Tensor:
        """Maps codes (N, *) to points (N, *) in data units, float64 on the CPU, continuous also for integer data;
        ``keys`` as for :meth:`encode`.
        """
        return data.decode(self.carry(sde, score, z, to_noise=False, what=what, **keys).double() / start_factor(sde))

    @torch.no_grad()
    def carry(
        self,
        sde: SDE,
        score: ScoreFn,
        x: Tensor,
        to_noise: bool,
        what: str,
        y: Tensor | None = None,
        leave: bool = True,
    ) -> Tensor:
        """Carries x (N, *) at eps to z at T, or z to x, in model units; the result is on the CPU, in the codec's
        precision.

        Arguments:
            what: the title of the progress bar.
            y: of each point, (N, condition), or of all, (1, condition), as networks take it; None without a condition.
            leave: whether the progress bar stays on the screen when it is full.
        """
        parts, dtype = [], getattr(torch, self.dtype)
        with progress(what, len(x), leave) as advance:
            for batch in batches(len(x), self.batch, advance):
                problem = frame(sde, conditioned_on(score, y, batch.rows, self.device, dtype), self.clock)
                ends = (problem.sde.eps, problem.sde.T), (problem.scale(sde.eps), problem.scale(sde.T))
                (start, stop), (scale, scale_at_end) = ends if to_noise else (pair[::-1] for pair in ends)
                part = x[batch.rows].to(self.device, dtype)
                end = integrate(
                    Flow(problem.sde, problem.score, part.shape[1:], dtype),
                    part.flatten(1) / scale,
                    start,
                    stop,
                    method=self.method,
                    rtol=self.rtol,
                    atol=self.atol,
                    steps=self.steps,
                    on_step=batch.on_step,
                )
                parts.append((end.reshape(part.shape) * scale_at_end).cpu())
        return torch.cat(parts)


def start_factor(sde: SDE) -> float:
    """Returns alpha(eps), by which a point is multiplied at the start."""
    return float(sde.alpha(torch.tensor(sde.eps, dtype=torch.float64)))


def continuous(data: Data, r: Tensor, seed: int) -> Tensor:
    """Converts points (N, *) in data units to float64 for :meth:`Codec.encode`. An integer becomes the first point of
    its bin that task=likelihood scores with the same seed and uniform dequantisation.
    """
    if data.levels is None:
        return r.double()
    noise = BlockNoise(seed, 0, len(r), data.shape, torch.float64, "cpu", stream="dequantisation")
    return data.dequantise(r, noise.uniform())
