"""Several networks of one run, trained by trainers of their own, to be compared by the task.

They are trained through the store, each once, by whoever obtains the run's score, and come as ``record.rivals``.
"""

from collections.abc import Mapping
from typing import Any

from scoresde.training import Trainer

from .record import Record


def check_trainers(trainers: Mapping[str, Trainer], needed: tuple[str, ...]) -> None:
    """Raises a ValueError unless the trainers that a task speaks of are there, each of one noise level."""
    if missing := [name for name in needed if name not in trainers]:
        raise ValueError(
            f"task.trainers.{missing[0]} is missing: this task compares {', '.join(needed)}, and others beside them"
        )
    for name, trainer in trainers.items():
        levels = getattr(trainer.loss, "levels", None)
        if levels is None or levels.everywhere:
            raise ValueError(
                f"task.trainers.{name}.loss.levels must be one level, to be read at; type "
                f"task.trainers.{name}.loss.levels._target_=training.levels.Clean or training.levels.One"
            )


def rivals_of(record: Record, trainers: Mapping[str, Trainer]) -> dict[str, tuple[Any, list[dict]]]:
    """The networks by name, each with the events of its training."""
    if set(record.rivals) != set(trainers):
        raise ValueError("the networks of task.trainers were not trained: run the task by run.py")
    return record.rivals
