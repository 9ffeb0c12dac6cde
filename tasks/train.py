"""Trains the network, or loads it if it is in the store, and draws its loss."""

from dataclasses import dataclass
from typing import ClassVar

from scoresde.samplers import Sampler

from .task import Job, Task


@dataclass(frozen=True)
class Train(Task):
    """Trains the network as every task does that needs one, reports the end of its loss curve, and draws the curve.

    Writes loss.png.

    Arguments:
        later: the sampler that will draw from the network in later runs; this run warns of data that it cannot draw
            well (:attr:`Task.drawn_by`).
    """

    process: ClassVar[type] = object
    conditions: ClassVar[str] = "each"
    every_level: ClassVar[bool] = False

    later: Sampler | None = None

    @property
    def drawn_by(self) -> tuple[Sampler, ...]:
        return () if self.later is None else (self.later,)

    def __call__(self, job: Job) -> dict:
        network, record = job.networks.score(), job.record
        if not network.training:
            raise ValueError(
                "task=train has nothing to train: the score is exact or was given by checkpoint=; "
                "choose a network with model=mlp or model=unet"
            )
        from scoresde import figures

        record.picture(figures.loss_curve(network.training, record.path("loss.png")))
        last = {  # the last event that holds each key decides
            key: event[key] for event in network.training for key in ("step", "loss", "held_out_loss") if key in event
        }
        return {
            "steps": last["step"],
            "loss": last.get("loss"),
            "held_out_loss": last.get("held_out_loss"),
            "parameters": sum(p.numel() for p in network.model.parameters()),
        }
