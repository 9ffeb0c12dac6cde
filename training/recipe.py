"""A model beside the trainer that it is trained by: what a task asks for that trains several models of its own."""

from dataclasses import dataclass

from torch import nn

from .trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """A model, how it is trained, and what it starts from.

    Arguments:
        model: any module that the trainer's loss knows.
        training: its trainer.
        start: the name of another recipe of the same task, earlier in it, whose trained weights it takes over; None for
            none.
    """

    model: nn.Module
    training: Trainer
    start: str | None = None
