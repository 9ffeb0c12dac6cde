"""The optimiser of a training: Adam for all weights, or Muon for the matrices that are large enough
(:func:`scoresde.training.muon.is_matrix`) and Adam for the rest.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .muon import Muon, is_matrix


class Optimiser:
    """Several optimisers of disjoint parameters, used as one.

    Arguments:
        parts: the optimisers, in the order in which :meth:`state_dict` numbers their parameters.
    """

    def __init__(self, *parts: Optimizer):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, broken: Tensor | None = None) -> None:
        """Makes one update, unless ``broken`` is 1.

        Arguments:
            broken: 0 or 1 on the device, for fused optimisers and Muon; None to update always.
        """
        for part in self.parts:
            if broken is not None:
                part.found_inf = broken
            part.step()

    @property
    def state(self) -> dict[nn.Parameter, dict]:
        return {weight: state for part in self.parts for weight, state in part.state.items()}

    def state_dict(self) -> dict:
        """Returns the state in the layout of one torch optimiser, the parameters numbered one part after the other."""
        state, groups, first = {}, [], 0
        for part in self.parts:
            own = part.state_dict()
            state |= {first + i: entry for i, entry in own["state"].items()}
            groups += [{**group, "params": [first + i for i in group["params"]]} for group in own["param_groups"]]
            first += sum(len(group["params"]) for group in own["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict) -> None:
        """Restores a state; ValueError if it is that of another optimiser or of another number of tensors."""
        groups, first = list(saved["param_groups"]), 0
        if list(map(kind_of, groups)) != list(map(kind_of, self.param_groups)):
            raise ValueError(
                "the checkpoint is of another training.optimiser, or of another network; train in another folder"
            )
        for part in self.parts:
            own, groups = groups[: len(part.param_groups)], groups[len(part.param_groups) :]
            count = sum(len(group["params"]) for group in own)
            part.load_state_dict(
                {
                    "state": {i - first: e for i, e in saved["state"].items() if first <= i < first + count},
                    "param_groups": [{**group, "params": [i - first for i in group["params"]]} for group in own],
                }
            )
            first += count


def kind_of(group: dict) -> tuple[bool, int]:
    """Returns whether Muon moves a group of weights, and the number of tensors in it."""
    return "momentum" in group, len(group["params"])


def optimiser_of(
    model: nn.Module, kind: str, rate: float, betas: tuple[float, float], momentum: float, fused: bool
) -> Optimiser:
    """Returns Adam for all weights, or for ``kind=muon`` Muon for the matrices and Adam for the rest.

    Arguments:
        kind: ``adam`` or ``muon``.
        rate: the learning rate of both.
        betas: Adam's decays of the first and the second moment.
        momentum: Muon's decay of its moment.
        fused: whether Adam updates all weights in one kernel.
    """
    matrices = [w for w in model.parameters() if kind == "muon" and is_matrix(w)]
    ids = set(map(id, matrices))
    rest = [w for w in model.parameters() if id(w) not in ids]
    parts = [torch.optim.Adam(rest, lr=rate, betas=betas, fused=fused)] if rest else []
    return Optimiser(*parts, *([Muon(matrices, rate, momentum)] if matrices else []))
