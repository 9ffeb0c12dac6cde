"""Trains the network, or finds it trained, and draws its loss."""

from dataclasses import dataclass
from typing import ClassVar

from scoresde.samplers import Sampler

from .task import Job, Task


@dataclass(frozen=True)
class Train(Task):
    """Returns the end of the loss curve, and draws the curve; a training itself is how any task obtains its score.

    Arguments:
        sampler: what will draw from the network: a run warns of data that it cannot draw well.
    """

    process: ClassVar[type] = object
    conditions: ClassVar[str] = "each"
    every_level: ClassVar[bool] = False

    sampler: Sampler | None = None

    def __call__(self, job: Job) -> dict:
        network, record = job.networks.score(), job.record
        if not network.training:
            raise ValueError(
                "task=train has nothing to train: the score is exact or was given by checkpoint=; "
                "choose a network with model=mlp or model=unet"
            )
        from scoresde import figures

        record.picture(figures.loss_curve(network.training, record.path("loss.png")))
        last = {
            key: event[key] for event in network.training for key in ("step", "loss", "held_out_loss") if key in event
        }
        return {
            "steps": last["step"],
            "loss": last.get("loss"),
            "held_out_loss": last.get("held_out_loss"),
            "parameters": sum(p.numel() for p in network.model.parameters()),
        }
