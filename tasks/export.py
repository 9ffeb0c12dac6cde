"""Writes the network for other codes, as a checkpoint of score_sde or a folder of diffusers."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from scoresde.models import ScoreModel, unet2d
from scoresde.models.convention import convention, table
from scoresde.models.layout import Entry, take
from scoresde.models.published import layout, settings
from scoresde.sde_lib import SDE, ScoreFn
from scoresde.training import diffusers_folder, published

from .task import Job, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Export(Task):
    """Writes the network as score_sde.pth or as the folder diffusers.

    The network's inputs and its output must be those of the other code (:mod:`scoresde.models.convention`). The presets
    ``experiment=score_sde/...`` meet this for ``format=score_sde``. Architectures and image sizes that the other code
    does not have are refused; for diffusers see :mod:`scoresde.models.unet2d`.

    Arguments:
        format: ``score_sde``, a .pth file; ``diffusers``, a folder with safetensors.
        path: the file or folder to write; None for one in the run's folder.
        step: the number of updates noted in a .pth file; None for the last one that its training recorded, or 0 for
            a network of ``checkpoint=``.
        ema: the average's decay noted in a .pth file.
        scales: the number of noise levels in the table of a .pth file, ``config.model.num_scales`` of the code that
            reads it; published: 1000, and 2000 for 256 x 256 pixels and more.
    """

    only_with: ClassVar[dict] = dict.fromkeys(("step", "ema", "scales"), ("format", ("score_sde",)))

    format: Literal["score_sde", "diffusers"] = "score_sde"
    path: str | None = None
    step: int | None = None
    ema: float = 0.9999
    scales: int = 1000

    def __post_init__(self):
        if self.step is not None and self.step < 0:
            raise ValueError(f"`step`={self.step} must be a number of updates, 0 or more; leave it out")
        if not 0 <= self.ema < 1:
            raise ValueError(f"`ema`={self.ema} must lie in [0, 1); published: `ema`=0.9999")
        if self.scales < 2:
            raise ValueError(f"`scales`={self.scales} must be at least 2; published: `scales`=1000")

    def check_network(self, sde: SDE, score: ScoreFn) -> tuple[list[Entry], int]:
        """Returns the tensors of the other code, and the sign of the output: 1 for sigma times the score, -1 for the
        noise (:func:`scoresde.models.convention.convention`).

        It is called with the untrained network too, to refuse it early.

        Raises:
            ValueError: the other code does not have this network, or uses it in another way.
        """
        net = getattr(score, "net", None)
        if not isinstance(score, ScoreModel):
            raise ValueError("task=export writes a network, and this score is none; choose model=ncsnpp or model=ddpm")
        entries = layout(net) if self.format == "score_sde" else unet2d.layout(net)
        sign = convention(score)
        if self.format == "diffusers":
            unet2d.check_output(net, sign)
            return entries, sign
        factor = 2 ** (len(net.channels) - 1)
        if any(side % factor for side in net.size):
            raise ValueError(
                f"the published code halves images of {net.size[0]} x {net.size[1]} pixels {len(net.channels) - 1} "
                f"times, which must divide evenly: type model.multipliers=[...] of fewer levels, or choose data whose "
                f"sides are multiples of {factor}"
            )
        if sign > 0 and net.data_range not in (1, 2):
            raise ValueError(
                f"model.data_range={net.data_range}: the published code has images in [0, 1] or in [-1, 1]; type "
                f"model.data_range=2, or 1 for data.centered=True there"
            )
        table(score, sign, net.data_range, self.scales)
        return entries, sign

    def __call__(self, job: Job) -> dict:
        sde, record = job.sde, job.record
        network = job.networks.score(accept=self.check_network)
        score = network.model
        entries, sign = self.check_network(sde, score)
        net = score.net
        weights = {name: tensor.float().cpu() for name, tensor in take(net, entries).items()}
        if self.format == "diffusers":
            path = Path(self.path or record.path("diffusers"))
            diffusers_folder.write(path, unet2d.config(net), weights)
        else:
            path = Path(self.path or record.path("score_sde.pth"))
            average = [weights[entry.name] for entry in entries if entry.trained]
            seen = max((event.get("step", 0) for event in network.training), default=0)
            step = seen if self.step is None else self.step
            published.write(path, weights, average, table(score, sign, net.data_range, self.scales), step, self.ema)
            keys = settings(net) | {"scale_by_sigma": sign > 0, "num_scales": self.scales}
            keys |= {"centered": sign < 0 or net.data_range == 1}
            log.info("the code that reads it needs %s", ", ".join(f"{key}={value}" for key, value in keys.items()))
        log.info("%s tensors", f"{len(weights):,}")
        record.picture(path)  # so that the run prints the path
        return {"tensors": len(weights), "parameters": sum(tensor.numel() for tensor in weights.values())}
