"""A model with its trainer, for tasks that train models of their own beside or in place of the run's score."""

from dataclasses import dataclass

from torch import nn

from .trainer import Trainer


@dataclass(frozen=True)
class Recipe:
    """A model, its trainer and the model that it starts from.

    Arguments:
        model: any module that the trainer's loss takes.
        training: its trainer.
        start: the name of an earlier recipe of the same task, from whose trained model the weights that both models
            share are copied before the training; None to begin with random weights.
    """

    model: nn.Module
    training: Trainer
    start: str | None = None
