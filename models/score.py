r"""One time-conditioned network, read as the score of any SDE.

.. math::
    s_\theta(x, t) = c_{skip}\,x + c_{out}\,F_\theta(c_{in}\,x,\ c_{noise}), \qquad
    c_{noise} = \tfrac14\log(\sigma/\alpha)

The coefficients are a row of :mod:`models.parameterisation`. The network is told the noise-to-signal ratio and
never t: the ratio means the same under every SDE, t does not.
"""

import torch
from torch import Tensor, nn

from sde_lib import SDE, per_sample

from .parameterisation import Parameterisation


class ScoreModel(nn.Module):
    """score(x, t) of an SDE, from a network F(x, c).

    Arguments:
        sde: the forward SDE whose score this is.
        net: maps x (B, *) and c_noise (B,) to (B, *).
        parameterisation: what the network's output means.
    """

    def __init__(self, sde: SDE, net: nn.Module, parameterisation: Parameterisation):
        super().__init__()
        self.sde, self.net, self.parameterisation = sde, net, parameterisation

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The score at x (B, *) and t (B,), of x's shape."""
        # A sampler has one time for the whole batch and expands it: its coefficients are then computed once.
        shared = t.ndim == 1 and len(t) > 1 and t.stride(0) == 0
        moment = per_sample(t[:1], x[:1]) if shared else per_sample(t, x)
        alpha, sigma = self.sde.alpha(moment), self.sde.sigma(moment)
        c_skip, c_out, c_in = self.parameterisation.coefficients(alpha, sigma)
        c_noise = (sigma / alpha).log().flatten() / 4
        output = self.net(c_in * x, c_noise.expand(t.shape) if shared else c_noise)
        return torch.addcmul(c_skip * x, c_out, output) if isinstance(c_skip, Tensor) else c_out * output
