"""Checks the key ``task.trainers``: the trainers of networks that a task compares (``job.networks.rivals()``)."""

from collections.abc import Mapping

from scoresde.training import Trainer


def check_trainers(trainers: Mapping[str, Trainer], needed: tuple[str, ...]) -> None:
    """Checks a task's key ``trainers``.

    Raises:
        ValueError: one of the ``needed`` trainers is missing, or a trainer's loss has no noise levels or more than one.
    """
    if missing := [name for name in needed if name not in trainers]:
        raise ValueError(
            f"`trainers`.{missing[0]} is missing: this task compares {', '.join(needed)}, and others beside them"
        )
    for name, trainer in trainers.items():
        levels = getattr(trainer.loss, "levels", None)
        if levels is None or levels.everywhere:
            raise ValueError(
                f"`trainers`.{name}.loss.levels must be one level, at which the network is evaluated; type "
                f"`trainers`.{name}.loss.levels._target_=training.levels.Clean or training.levels.One"
            )
