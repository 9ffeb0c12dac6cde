"""Write the network for other codes: a checkpoint of score_sde, or a folder of diffusers."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from data import Data
from models import ScoreModel, unet2d
from models.layout import Entry, take
from models.published import layout
from sde_lib import SDE, ScoreFn
from training import diffusers_folder, published

from .record import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export:
    """(sde, score, data, record) -> metrics and the file.

    What a network is told, and what its output means, must be as the other code has it: x as it is; log sigma and sigma
    times the score, or a step number and the noise. The presets ``experiment=score_sde/...`` are so, whatever their
    sizes.

    Arguments:
        format: ``score_sde``, a file .pth; ``diffusers``, a folder with safetensors.
        path: where to; None for the run's folder.
        step: the updates to be noted in the file; None for as many as the network has seen here.
        ema: the average's decay to be noted in the file.
    """

    format: Literal["score_sde", "diffusers"] = "score_sde"
    path: str | None = None
    step: int | None = None
    ema: float = 0.9999

    def __post_init__(self):
        if self.step is not None and self.step < 0:
            raise ValueError(f"task.step={self.step} must be a number of updates, 0 or more; leave it out")
        if not 0 <= self.ema < 1:
            raise ValueError(f"task.ema={self.ema} must lie in [0, 1); published: task.ema=0.9999")

    def check_network(self, sde: SDE, score: ScoreFn) -> tuple[list[Entry], int]:
        """The tensors there, and what the output means: see :func:`meaning`; ValueError for a network that the other
        code does not have. Asked before a training as well.
        """
        net = getattr(score, "net", None)
        if not isinstance(score, ScoreModel):
            raise ValueError("task=export writes a network, and this score is none; choose model=ncsnpp or model=ddpm")
        entries = layout(net) if self.format == "score_sde" else unet2d.layout(net)
        sign = meaning(sde, score)
        if getattr(getattr(net, "features", net), "clock", net) is None:
            raise ValueError(
                "other codes count the steps that a network is told along its SDE, and model.clock is null: choose the "
                "network with experiment=score_sde/..., or model.embedding=fourier"
            )
        return entries, sign

    def __call__(self, sde: SDE, score: ScoreFn, data: Data, record: Record) -> dict:
        entries, sign = self.check_network(sde, score)
        net = score.net
        weights = {name: tensor.float().cpu() for name, tensor in take(net, entries).items()}
        if self.format == "diffusers":
            path = Path(self.path or record.path("diffusers"))
            diffusers_folder.write(path, unet2d.config(net), weights)
        else:
            path = Path(self.path or record.path("score_sde.pth"))
            average = [weights[entry.name] for entry in entries if entry.trained]
            seen = max((event.get("step", 0) for event in record.training), default=0)
            step = seen if self.step is None else self.step
            published.write(path, weights, average, levels(sde, net.data_range, sign), step, self.ema)
        log.info("%s tensors", f"{len(weights):,}")
        record.picture(path)
        return {"tensors": len(weights), "parameters": sum(tensor.numel() for tensor in weights.values())}


def meaning(sde: SDE, score: ScoreModel) -> int:
    """1 for a network whose output is sigma times the score, -1 for the noise; ValueError for any other, or one that is
    not given x as it is.
    """
    t = torch.linspace(sde.eps, sde.T, 33, dtype=torch.float64)
    c_skip, c_out, c_in, _ = score.coefficients(t)
    size = c_out * sde.sigma(t)
    one = torch.ones_like(t)
    for sign in (1, -1):
        if torch.allclose(size, sign * one, rtol=1e-4) and torch.allclose(c_in, one, rtol=1e-4) and not c_skip.any():
            return sign
    raise ValueError(
        "other codes read networks that take x as it is and give the noise, or sigma times the score: type "
        "parameterisation=noise for VP, parameterisation=score with parameterisation/input for VE, as "
        "experiment=score_sde/... does"
    )


def levels(sde: SDE, data_range: float, sign: int) -> torch.Tensor:
    """The table of 1,000 sigmas of a file, from the largest to the smallest, in units of the data's range."""
    ends = torch.tensor([sde.T, 0.0], dtype=torch.float64)
    largest, smallest = (sde.sigma(ends) / data_range).tolist() if sign > 0 else (50.0, 0.01)  # unused by VP networks
    return torch.exp(torch.linspace(math.log(largest), math.log(smallest), 1000, dtype=torch.float64))
