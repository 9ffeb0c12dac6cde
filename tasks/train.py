"""Train the network, or find it trained, and show its loss."""

from typing import ClassVar

from scoresde.data import Data
from scoresde.sde_lib import SDE, ScoreFn

from .record import Record


class Train:
    """(sde, score, data, record) -> metrics and the loss curve; training itself is how any task obtains its score.

    Attributes:
        process: the forward process that it is for: any.
        conditions: whether it can do without one y for all.
    """

    process: ClassVar[type] = object
    conditions: ClassVar[bool] = True

    def __call__(self, sde: SDE, score: ScoreFn, data: Data, record: Record) -> dict:
        if not record.training:
            raise ValueError(
                "task=train has nothing to train: the score is exact or was given by checkpoint=; "
                "choose a network with model=mlp or model=unet"
            )
        from scoresde import figures

        record.picture(figures.loss_curve(record.training, record.path("loss.png")))
        last = {
            key: event[key] for event in record.training for key in ("step", "loss", "held_out_loss") if key in event
        }
        return {
            "steps": last["step"],
            "loss": last.get("loss"),
            "held_out_loss": last.get("held_out_loss"),
            "parameters": sum(p.numel() for p in score.parameters()),
        }
