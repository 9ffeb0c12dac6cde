r"""The step numbers that a network was trained with, as a function of the noise level.

A network here is told c = log(sigma/alpha)/4, which means the same under every SDE. The published ones with positional
embeddings are told a number instead, which counts along the time of the one SDE that they were trained under:

.. math:: n = a\,t(c) + b, \qquad t(c)\ \text{where}\ \log\frac{\sigma(t)}{\alpha(t)} = 4c .

999 t of the continuous VP and sub-VP networks (arXiv 2011.13456), n - 1 of a chain of steps n = 1 ... 1000, and 999 -
999 t of the discrete VE ones, which count from the largest noise down. Since the level decides, and not the time of the
SDE that the network is read under, it can be read under any.
"""

from dataclasses import dataclass

from torch import Tensor

from scoresde.sde_lib import SDE


@dataclass(frozen=True)
class Clock:
    """The number n of a noise level.

    Arguments:
        sde: the SDE that the network was trained under.
        scale: a, the numbers per unit of its time.
        offset: b, the number at time 0.
    """

    sde: SDE
    scale: float = 999.0
    offset: float = 0.0

    def __call__(self, c: Tensor) -> Tensor:
        """c (B,) to n (B,), as exactly as c is known."""
        level = c if c.device.type == "mps" else c.double()
        return (self.offset + self.scale * self.sde.time(-4 * level)).to(c)
