r"""Averages of the weights whose length is chosen after the training (post-hoc EMA, arXiv 2312.02696, section 3).

An average with a power profile gives the weights theta(tau) of time tau a share proportional to tau^gamma,

.. math:: \hat\theta_\gamma(t) = \int_0^t p_{\gamma,t}(\tau)\,\theta(\tau)\,d\tau, \qquad
          p_{\gamma,t}(\tau) = \frac{\gamma + 1}{t^{\gamma+1}}\,\tau^\gamma \quad\text{on } [0, t].

The averaging window grows with the training, and the initial random weights have no share. With theta constant
within each update the average obeys exactly

.. math:: \hat\theta_\gamma(t) = \beta\,\hat\theta_\gamma(t-1) + (1 - \beta)\,\theta(t), \qquad
          \beta = (1 - 1/t)^{\gamma+1}.

Its length is stated as a share of the training, the standard deviation of the profile over t,

.. math:: \sigma_{rel} = \sqrt{\frac{\gamma + 1}{(\gamma + 2)^2\,(\gamma + 3)}} .

Two such averages (:class:`PowerAverages`) are computed along the training, and snapshots of them are kept. An average
of any other length is approximated by a linear combination of the snapshots (:class:`Snapshots`). The coefficients w_i
minimise the squared distance between the combined profile and the wanted one. The inner products of profiles are

.. math:: \int p_{a,s}\,p_{b,t}\,d\tau = \frac{(a + 1)(b + 1)}{a + b + 1}\,\frac{(s/t)^b}{t}, \qquad s \le t.

The w_i are required to sum to one, so that a tensor that does not change along the training is reproduced. The error of
the combination is the distance of the profiles over the norm of the wanted one.
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
"""sigma_rel of the two averages that are computed along the training, as in the paper."""

WIDEST = 1 / math.sqrt(12)
"""sigma_rel of the plain mean, gamma = 0."""


def width_of(gamma: float) -> float:
    """Returns sigma_rel of the profile tau^gamma, gamma > -1."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(width: float) -> float:
    """Returns the gamma >= 0 whose profile has sigma_rel = width, 0 < width <= WIDEST.

    It is the largest root of width^2 (gamma + 2)^2 (gamma + 3) = gamma + 1. Raises a ValueError for another width.
    """
    if not 0 < width <= WIDEST * (1 + 1e-12):
        raise ValueError(
            f"sigma_rel={width} must lie above 0 and be at most {WIDEST:.4f}, that of the mean of all updates"
        )
    inverse = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real[np.abs(roots.imag) < 1e-6 * np.abs(roots)].max()))


def inner(gamma: np.ndarray, t: np.ndarray, other: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Returns the inner products of the profiles (gamma, t) and (other, s), arrays of one shape or that broadcast."""
    low, high = np.minimum(t, s), np.maximum(t, s)
    exponent = np.where(t <= s, other, gamma)  # of the longer profile
    return (gamma + 1) * (other + 1) / (gamma + other + 1) * (low / high) ** exponent / high


def combination(kept: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Returns the coefficients of the linear combination that is nearest to a wanted profile, and its error.

    Arguments:
        kept: the profiles of the n snapshots, pairs (gamma, t).
        wanted: a pair (gamma, t).

    Returns:
        w (n,), which sum to one; and the distance over the norm of the wanted profile.
    """
    gamma, t = np.array(kept, dtype=np.float64).T
    norm = np.sqrt(inner(gamma, t, gamma, t))
    gram = inner(gamma[:, None], t[:, None], gamma, t) / (norm[:, None] * norm)
    wanted_norm = float(np.sqrt(inner(*map(np.array, (*wanted, *wanted)))))
    target = inner(gamma, t, *map(np.array, wanted)) / (norm * wanted_norm)
    # With profiles of norm one: minimise u'Gu - 2 u'b subject to sum w = 1, where w = u wanted_norm / norm.
    constraint = wanted_norm / norm
    system = np.block([[gram, constraint[:, None]], [constraint, np.zeros(1)]])
    solved = np.linalg.lstsq(system, np.append(target, 1.0), rcond=1e-13)[0][:-1]
    distance = solved @ gram @ solved - 2 * solved @ target + 1
    weights = solved * wanted_norm / norm
    return weights / weights.sum(), math.sqrt(max(0.0, float(distance)))


class PowerAverages:
    """Averages of a model's weights with power profiles, updated along the training.

    Arguments:
        model: the model to average, before its first update; a resumed training calls :meth:`load` besides.
        widths: sigma_rel of each average.
    """

    def __init__(self, model: nn.Module, widths: Sequence[float] = WIDTHS):
        self.gammas = {width: gamma_of(width) for width in widths}
        self.models = {width: copy.deepcopy(model).eval().requires_grad_(False) for width in widths}
        self._sources = [p.detach() for p in model.parameters()], list(model.buffers())

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Updates the averages after the model's update number t, counted from 1."""
        parameters, buffers = self._sources
        for width, average in self.models.items():
            # 1 - beta of the module's docstring
            share = -math.expm1((self.gammas[width] + 1) * math.log1p(-1 / t)) if t > 1 else 1.0
            torch._foreach_lerp_(list(average.parameters()), parameters, share)
            for buffer, source in zip(average.buffers(), buffers, strict=True):
                buffer.copy_(source)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Returns the averages as groups of a checkpoint."""
        return {group(width): model.state_dict() for width, model in self.models.items()}

    def load(self, tensors: Mapping[str, dict[str, Tensor]]) -> None:
        """Restores the averages from the groups of a checkpoint."""
        for width, model in self.models.items():
            model.load_state_dict(tensors[group(width)])

    @staticmethod
    def within(tensors: Mapping[str, Any], widths: Sequence[float] = WIDTHS) -> bool:
        """Returns whether the groups of a checkpoint contain the averages."""
        return all(group(width) in tensors for width in widths)


def group(width: float) -> str:
    """Returns the name of an average's group of tensors in a checkpoint, such as ``power-0.05``."""
    return f"power-{width:.2f}"


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of both averages along one training, from which an average of any length is made.

    Arguments:
        paths: the checkpoints ``power-*`` by their numbers of updates; the last is that of the whole training.
        network: makes a network from the state of an average.
        described: the network's identity, which :meth:`write` puts beside an average.
        widths: sigma_rel of the averages in the checkpoints.
    """

    paths: dict[int, Path]
    network: Callable[[dict[str, Tensor]], nn.Module]
    described: dict[str, Any]
    widths: tuple[float, ...] = WIDTHS

    @property
    def steps(self) -> int:
        """The number of updates of the whole training."""
        return max(self.paths)

    def error(self, width: float) -> float:
        """Returns the distance of the profile of this sigma_rel from its approximation, as a share of its norm."""
        return self._solve(width)[1]

    def state(self, width: float) -> dict[str, Tensor]:
        """Returns the average of this sigma_rel at the end of the training.

        It is summed in float64 and returned in the precision of the weights.
        """
        coefficients, total, last, unchanged = iter(self._solve(width)[0]), {}, {}, None
        for step in sorted(self.paths):
            groups = store.load_kept(self.paths[step], self.described).tensors
            for snapshot_width in self.widths:
                share, before, last = float(next(coefficients)), last, groups[group(snapshot_width)]
                # tensors that are equal in all snapshots are returned as they are, without rounding
                unchanged = (
                    set(last) if unchanged is None else {k for k in unchanged if torch.equal(last[k], before[k])}
                )
                for name, value in last.items():
                    if value.is_floating_point():
                        part = value.double().mul_(share)
                        total[name] = total[name].add_(part) if name in total else part
        return {k: v if k in unchanged or k not in total else total[k].to(v.dtype) for k, v in last.items()}

    def _solve(self, width: float) -> tuple[np.ndarray, float]:
        """Returns the coefficients of the snapshots, ordered by step and then by width, and the error."""
        kept = [(gamma_of(w), float(step)) for step in sorted(self.paths) for w in self.widths]
        return combination(kept, (gamma_of(width), float(self.steps)))

    def write(self, folder: Path, state: dict[str, Tensor], note: dict[str, Any]) -> Path:
        """Writes the state of an average as a network's folder, which ``checkpoint=`` reads, and returns the folder.

        Arguments:
            note: plain values that are saved beside the weights.
        """
        record = store.digest(store.without_source(self.described))
        save(folder, Checkpoint(self.steps, {"ema": state}, note, record))
        store.write_config(folder, self.described)
        return folder
