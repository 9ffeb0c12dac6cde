r"""The step number of a noise level, for networks that take a step number.

The networks here take c = log(sigma/alpha)/4, which means the same under every SDE. The published networks with
positional embeddings take a step number instead, which is linear in the time of the SDE that they were trained under:

.. math:: n = a\,t(c) + b, \qquad t(c)\ \text{where}\ \log\frac{\sigma(t)}{\alpha(t)} = 4c .

n is 999 t for the continuous VP and sub-VP networks (arXiv 2011.13456), t - 1 for those of a chain, whose time t counts
the steps 1 ... 1000, and 999 - 999 t for the discrete VE networks, which count from the largest noise down. Since n
depends on the noise level only, the network can be used under any SDE.
"""

from dataclasses import dataclass

from torch import Tensor

from scoresde.sde_lib import SDE


@dataclass(frozen=True)
class Clock:
    """The function c -> n, the step number of a noise level.

    Arguments:
        sde: the SDE that the network was trained under.
        scale: a, the steps per unit of time.
        offset: b, the step number at time 0.
    """

    sde: SDE
    scale: float = 999.0
    offset: float = 0.0

    def __call__(self, c: Tensor) -> Tensor:
        """Maps c (B,) to n (B,), in the dtype of c; the SDE gets c in float64, except on MPS devices."""
        level = c if c.device.type == "mps" else c.double()
        return (self.offset + self.scale * self.sde.time(-4 * level)).to(c)
