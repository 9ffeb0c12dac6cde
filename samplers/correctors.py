r"""Langevin steps at a fixed time, which pull x towards p_s without moving it in time.

.. math:: x \leftarrow x + \varepsilon\,s_\theta(x, s) + \sqrt{2\varepsilon}\,z

The size of the step decides whether the steps leave p_s as it is. With the factor a of the transition
x_t | x_s ~ N(a x_s, b^2 I) over the grid's step t -> s,

=================  =====================================================  ===========================================
``rule``           :math:`\varepsilon`                                    depends on
=================  =====================================================  ===========================================
``kernel``         :math:`2a^2 (r\,\sigma(s))^2`                          only the time
``batch_norms``    :math:`2a^2 (r\,\overline{|z|}/\overline{|s|})^2`      the whole batch, by mean norms (published)
``sample_norms``   :math:`2a^2 (r\,|z|/|s|)^2`                            each sample's own z and score
=================  =====================================================  ===========================================

r is the signal-to-noise ratio ``snr`` (arXiv 2011.13456, algorithms 4 and 5, whose alpha is a^2 in the published
code). The score's norm is about :math:`|z|/\sigma`, so that the other two rules give about the step of ``kernel``.
Only ``kernel`` is Langevin dynamics: a step whose size depends on x and z is not. In many dimensions the norms hardly
vary and the difference is small; in two dimensions ``sample_norms`` sends samples far out, wherever a score happens to
be small (see docs/decisions.md). Under ``batch_norms`` a sample depends on the other samples of its batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scoresde.sde_lib import SDE, Affine, per_sample

from .step import Step

Row = tuple[float, float, float]
"""(s, 2 (a r)^2, sigma(s)) of the corrector's steps at one time s."""


@dataclass(frozen=True)
class Langevin(Step):
    """``count`` Langevin steps at the time s that the grid's step t -> s has reached.

    Arguments:
        snr: the ratio r. Published: 0.16 for CIFAR-10; annealed Langevin 0.176 (5 steps a level), and 0.316 (100 steps
            a level) by the authors' program, whose epsilon is twice the paper's.
        count: the number of steps.
        rule: how the size of the step is computed; see the module's table.
    """

    snr: float = 0.16
    count: int = 1
    rule: Literal["kernel", "batch_norms", "sample_norms"] = "kernel"

    def __post_init__(self):
        if not 0 < self.snr < 1:
            raise ValueError(f"`snr`={self.snr} must lie between 0 and 1; type `snr`=0.16")
        if self.count < 1:
            raise ValueError(f"`count`={self.count} must be at least 1; for no corrector type ~sampler/corrector")
        if self.rule not in ("kernel", "batch_norms", "sample_norms"):
            raise ValueError(f"`rule`={self.rule} must be kernel, batch_norms or sample_norms")

    @property
    def normals(self) -> int:
        return self.count

    def prepare(self, sde: SDE, grid: Tensor) -> list[Row]:
        t, s = grid[:-1], grid[1:]
        a, _ = sde.transition(s, t)
        return list(zip(s.tolist(), (2 * (a * self.snr).square()).tolist(), sde.sigma(s).tolist(), strict=True))

    def __call__(
        self, row: Row, score: Affine, x: Tensor, z: list[Tensor], memory: None
    ) -> tuple[Tensor, Tensor, None]:
        s, factor, sigma = row
        mean = x
        for noise in z:
            if self.rule == "kernel":
                size = factor * sigma**2
                mean = score(x, s, 1.0, size)
                x = torch.add(mean, noise, alpha=(2 * size) ** 0.5)
            else:
                gradient = score(x, s)
                norms = noise.flatten(1).norm(dim=1), gradient.flatten(1).norm(dim=1)
                if self.rule == "batch_norms":
                    norms = tuple(norm.mean().expand(len(x)) for norm in norms)
                # the score of an untrained network can be zero, and the step must stay finite
                ratio = norms[0] / norms[1].clamp_min(torch.finfo(x.dtype).eps * norms[0])
                size = per_sample(factor * ratio.square(), x)
                mean = x + size * gradient
                x = mean + (2 * size).sqrt() * noise
        return x, mean, None
