"""The state of a training: everything that the next update depends on, in memory and in a checkpoint."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint
from .ema import EMA
from .optimiser import Optimiser
from .posthoc import PowerAverages


class TrainingState:
    """A model with its averages and its optimiser.

    Arguments:
        model: the model to train.
        ema: its moving average.
        optimiser: the optimiser of its weights.

    Attributes:
        powers: the averages of :mod:`scoresde.training.posthoc`; None in a training without snapshots.
        snapshots: the numbers of updates after which ``powers`` are kept as checkpoints ``power-*``.
    """

    def __init__(self, model: nn.Module, ema: EMA, optimiser: Optimiser):
        self.model, self.ema, self.optimiser = model, ema, optimiser
        self.parameters = list(model.parameters())
        self.powers: PowerAverages | None = None
        self.snapshots: frozenset[int] = frozenset()

    def begin(self, saved: Checkpoint | None, snapshots: Collection[int]) -> None:
        """Restores a checkpoint, if there is one, and starts or restores the averages for ``snapshots``.

        Snapshots that the interrupted training was still to keep are kept too. A training that began without these
        averages is resumed without them.

        Raises:
            ValueError: the checkpoint is of another optimiser.
            RuntimeError: it is of weights of other names or shapes.
        """
        if saved:
            self.restore(saved)
            snapshots = {*snapshots, *saved.state.get("snapshots", ())}
        if not snapshots or saved and not PowerAverages.within(saved.tensors):
            return
        self.powers, self.snapshots = PowerAverages(self.model), frozenset(snapshots)
        if saved:
            self.powers.load(saved.tensors)

    def update(self, step: int, rate: float, broken: Tensor | None) -> None:
        """Makes the update after ``step`` updates from the gradients of the model's weights, and updates the averages.

        Arguments:
            rate: the learning rate.
            broken: 1 leaves the weights as they are (the averages are updated all the same); see
                :class:`scoresde.training.speed.Readings`.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step(broken)
        self.ema.update()
        if self.powers is not None:
            self.powers.update(step + 1)

    def capture(self, step: int, loss: float | None) -> Checkpoint:
        """Returns the checkpoint after ``step`` updates, of the live tensors; ``loss`` is the smoothed loss so far."""
        inner = self.optimiser.state_dict()
        tensors = {f"{i}.{name}": tensor for i, entry in inner["state"].items() for name, tensor in entry.items()}
        state = {"loss": loss, "ema_updates": self.ema.updates, "optimiser": inner["param_groups"]}
        groups = {"model": self.model.state_dict(), "ema": self.ema.model.state_dict(), "optimiser": tensors}
        if self.powers is not None:
            groups |= self.powers.tensors()
            state["snapshots"] = sorted(self.snapshots)
        return Checkpoint(step, groups, state)

    def restore(self, saved: Checkpoint) -> None:
        """Restores the values of a checkpoint, except for ``powers``; raises what :meth:`begin` raises."""
        self.model.load_state_dict(saved.tensors["model"])
        self.ema.model.load_state_dict(saved.tensors["ema"])
        self.ema.updates = saved.state["ema_updates"]
        inner: dict = {}
        for key, tensor in saved.tensors["optimiser"].items():
            i, name = key.split(".", 1)
            inner.setdefault(int(i), {})[name] = tensor
        self.optimiser.load_state_dict({"state": inner, "param_groups": saved.state["optimiser"]})
        # A fused update needs moments of the same strides as their weights.
        for parameter, moments in self.optimiser.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    moments[name] = torch.empty_like(parameter).copy_(value)
