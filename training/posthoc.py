r"""Averages of the weights over any length of the training, chosen after it (post-hoc EMA, arXiv 2312.02696,
section 3).

An average with a power profile weighs the weights theta(tau) at time tau by tau^gamma,

.. math:: \hat\theta_\gamma(t) = \int_0^t p_{\gamma,t}(\tau)\,\theta(\tau)\,d\tau, \qquad
          p_{\gamma,t}(\tau) = \frac{\gamma + 1}{t^{\gamma+1}}\,\tau^\gamma \quad\text{on } [0, t]:

the shape of its memory grows with the training, and the first, random weights have no share. With theta constant
within each update it is followed exactly by

.. math:: \hat\theta_\gamma(t) = \beta\,\hat\theta_\gamma(t-1) + (1 - \beta)\,\theta(t), \qquad
          \beta = (1 - 1/t)^{\gamma+1}.

Its length is told as a share of the training, the profile's standard deviation over t,

.. math:: \sigma_{rel} = \sqrt{\frac{\gamma + 1}{(\gamma + 2)^2\,(\gamma + 3)}} .

Two such averages are followed along the training, and kept now and then. Any other is then nearly a combination
sum_i w_i of what was kept: the w_i that minimise the squared distance of the profiles, whose inner products are known,

.. math:: \int p_{a,s}\,p_{b,t}\,d\tau = \frac{(a + 1)(b + 1)}{a + b + 1}\,\frac{(s/t)^b}{t}, \qquad s \le t.

Here the w_i sum to one besides, so that what does not change along a training is given back as it is. How far the
combination is from what was asked for is known as well: the distance of the profiles over the norm of the wanted one.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import store
from .checkpoint import Checkpoint, save

WIDTHS = (0.05, 0.10)
"""sigma_rel of the two averages that are followed, those of the paper."""

WIDEST = 1 / math.sqrt(12)
"""sigma_rel of the plain mean, gamma = 0."""


def width_of(gamma: float) -> float:
    """sigma_rel of the profile tau^gamma, gamma > -1."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(width: float) -> float:
    """The gamma >= 0 whose profile has sigma_rel = width, 0 < width <= WIDEST: the largest root of
    width^2 (gamma + 2)^2 (gamma + 3) = gamma + 1.
    """
    if not 0 < width <= WIDEST * (1 + 1e-12):
        raise ValueError(
            f"sigma_rel={width} must lie above 0 and be at most {WIDEST:.4f}, that of the mean of all updates"
        )
    inverse = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real[np.abs(roots.imag) < 1e-6 * np.abs(roots)].max()))


def inner(gamma: np.ndarray, t: np.ndarray, other: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The inner products of the profiles (gamma, t) and (other, s), arrays that broadcast."""
    low, high = np.minimum(t, s), np.maximum(t, s)
    of_longer = np.where(t <= s, other, gamma)
    return (gamma + 1) * (other + 1) / (gamma + other + 1) * (low / high) ** of_longer / high


def combination(kept: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> tuple[np.ndarray, float]:
    """The weights w (n,), which sum to one, of the profiles that were kept whose sum is nearest to the wanted one, and
    their distance over the norm of the wanted one. A profile is a pair (gamma, t).
    """
    gamma, t = np.array(kept, dtype=np.float64).T
    size = np.sqrt(inner(gamma, t, gamma, t))
    gram = inner(gamma[:, None], t[:, None], gamma, t) / (size[:, None] * size)
    wanted_size = float(np.sqrt(inner(*map(np.array, (*wanted, *wanted)))))
    target = inner(gamma, t, *map(np.array, wanted)) / (size * wanted_size)
    # In unit profiles: minimise u'Gu - 2 u'b with sum w = 1, w = u wanted_size / size.
    one = wanted_size / size
    system = np.block([[gram, one[:, None]], [one, np.zeros(1)]])
    solved = np.linalg.lstsq(system, np.append(target, 1.0), rcond=1e-13)[0][:-1]
    distance = solved @ gram @ solved - 2 * solved @ target + 1
    weights = solved * wanted_size / size
    return weights / weights.sum(), math.sqrt(max(0.0, float(distance)))


class PowerAverages:
    """Averages of a model's weights with power profiles, followed update by update.

    Arguments:
        model: the model to follow, before its first update or with :meth:`load` to follow.
        widths: their sigma_rel.
    """

    def __init__(self, model: nn.Module, widths: Sequence[float] = WIDTHS):
        self.gammas = {width: gamma_of(width) for width in widths}
        self.models = {width: copy.deepcopy(model).eval().requires_grad_(False) for width in widths}
        self._theirs = [p.detach() for p in model.parameters()], list(model.buffers())

    @torch.no_grad()
    def update(self, t: int) -> None:
        """One step after the model's update number t, counted from 1."""
        parameters, buffers = self._theirs
        for width, mine in self.models.items():
            share = -math.expm1((self.gammas[width] + 1) * math.log1p(-1 / t)) if t > 1 else 1.0
            torch._foreach_lerp_(list(mine.parameters()), parameters, share)
            for own, theirs in zip(mine.buffers(), buffers, strict=True):
                own.copy_(theirs)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The averages as the groups of a checkpoint."""
        return {group(width): model.state_dict() for width, model in self.models.items()}

    def load(self, tensors: Mapping[str, dict[str, Tensor]]) -> None:
        """Goes on from a checkpoint's groups."""
        for width, model in self.models.items():
            model.load_state_dict(tensors[group(width)])

    @staticmethod
    def within(tensors: Mapping[str, Any], widths: Sequence[float] = WIDTHS) -> bool:
        """Whether a checkpoint has them."""
        return all(group(width) in tensors for width in widths)


def group(width: float) -> str:
    """What the average of a width is called in a checkpoint."""
    return f"power-{width:.2f}"


@dataclass(frozen=True)
class Snapshots:
    """What was kept of both averages along one training: any other length is made of it.

    Arguments:
        paths: the checkpoints that were kept, by the number of updates.
        network: makes a network of a state.
        described: the network's identity, to be kept beside an average that is written.
        widths: sigma_rel of the averages in them.
    """

    paths: dict[int, Path]
    network: Callable[[dict[str, Tensor]], nn.Module]
    described: dict[str, Any]
    widths: tuple[float, ...] = WIDTHS

    @property
    def steps(self) -> int:
        """The updates at the end of the training."""
        return max(self.paths)

    def error(self, width: float) -> float:
        """How far the profile of this sigma_rel at the end is from the nearest that can be had, a share of its norm."""
        return self._solve(width)[1]

    def state(self, width: float) -> dict[str, Tensor]:
        """The average of this sigma_rel at the end of the training: summed in float64, returned in the weights' own
        precision.
        """
        weights, total, last, still = iter(self._solve(width)[0]), {}, {}, None
        for step in sorted(self.paths):
            found = store.load_kept(self.paths[step]).tensors
            for each in self.widths:
                share, before, last = float(next(weights)), last, found[group(each)]
                still = set(last) if still is None else {k for k in still if torch.equal(last[k], before[k])}
                for name, value in last.items():
                    if value.is_floating_point():
                        part = value.double().mul_(share)
                        total[name] = total[name].add_(part) if name in total else part
        return {k: v if k in still or k not in total else total[k].to(v.dtype) for k, v in last.items()}

    def _solve(self, width: float) -> tuple[np.ndarray, float]:
        kept = [(gamma_of(each), float(step)) for step in sorted(self.paths) for each in self.widths]
        return combination(kept, (gamma_of(width), float(self.steps)))

    def write(self, folder: Path, state: dict[str, Tensor], note: dict[str, Any]) -> Path:
        """Keeps a state as a network's folder, which ``checkpoint=`` reads."""
        save(folder, Checkpoint(self.steps, {"ema": state}, note))
        store.write_config(folder, self.described)
        return folder
