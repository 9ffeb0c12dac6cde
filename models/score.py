r"""The score of an SDE from a network that is conditioned on the noise level.

.. math::
    s_\theta(x, t) = c_{skip}\,x + c_{out}\,F_\theta(c_{in}\,x,\ c_{noise}), \qquad
    c_{noise} = \tfrac14\log(\sigma/\alpha)

The coefficients are those of :mod:`scoresde.models.parameterisation`. The network takes the logarithm of the
noise-to-signal ratio sigma/alpha and not t, because the ratio means the same under every SDE. Training calls
:meth:`ScoreModel.forward`; most solvers call :meth:`ScoreModel.affine` or :meth:`ScoreModel.combinations`, which
compute the coefficients of many times at once.
"""

from collections.abc import Callable, Iterable
from copy import copy

import torch
from torch import Tensor, nn

from scoresde.sde_lib import SDE, Affine, expand_to_batch, per_sample

from .given import Given
from .parameterisation import Parameterisation


class ScoreModel(nn.Module):
    """The score(x, t) of an SDE, from a network F(x, c).

    Arguments:
        sde: the forward SDE.
        net: maps x (B, *) and c_noise (B,) to (B, *); a conditional network also takes y, see :meth:`given`.
        parameterisation: the meaning of the network's output.
    """

    def __init__(self, sde: SDE, net: nn.Module, parameterisation: Parameterisation):
        super().__init__()
        self.sde, self.net, self.parameterisation = sde, net, parameterisation

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        """Returns the score at x (B, *) and t, (B,) or a number, in the shape of x."""
        c_skip, c_out, c_in, c_noise = (c.to(x.dtype) for c in self.coefficients(per_sample(t, x)))
        return torch.addcmul(c_skip * x, c_out, self.output(c_in * x, c_noise.flatten()))

    def output(self, x: Tensor, c: Tensor) -> Tensor:
        """Returns the network's output F(x, c), (B, *), for x (B, *) and c (B,).

        On a CPU one image alone would meet other kernels than one of several, which round in another order, so it is
        evaluated twice; see :mod:`scoresde.sde_lib.products`.
        """
        if len(x) != 1 or x.ndim < 3 or x.device.type != "cpu" or self.training:
            return self.net(x, c)
        return self.net(torch.cat([x, x]), c.expand(2))[:1]

    @property
    def log_density(self) -> Callable[[Tensor, Tensor], Tensor]:
        r"""The unnormalised log-density u(x, t) with grad u = score, (B, *) and (B,) to (B,), of a network F = -grad E:

        .. math:: u(x, t) = \tfrac12 c_{skip}\,\|x\|^2 - \frac{c_{out}}{c_{in}}\,E(c_{in}\,x,\ c_{noise}) .

        Raises:
            AttributeError: the network is no :class:`scoresde.models.EnergyGradient`, or is one under guidance other
                than 0 and 1.
        """
        energy = self.net.energy  # raises an AttributeError if the network has no energy
        if energy is None:
            raise AttributeError("a guided score has no log_density")

        def evaluate(x: Tensor, t: Tensor) -> Tensor:
            c_skip, c_out, c_in, c_noise = (c.to(x.dtype) for c in self.coefficients(t))
            return 0.5 * c_skip * x.flatten(1).square().sum(1) - c_out / c_in * energy(per_sample(c_in, x) * x, c_noise)

        return evaluate

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns (c_skip, c_out, c_in, c_noise), each in the shape of t."""
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return *self.parameterisation.coefficients(alpha, sigma), (sigma / alpha).log() / 4

    def combinations(self, t: Tensor, A: Tensor, C: Tensor, dtype: torch.dtype) -> list[Callable[[Tensor], Tensor]]:
        """Returns m functions x -> A_i x + C_i score(x, t_i), as :func:`scoresde.sde_lib.combinations` describes.

        Arguments:
            t, A, C: shape (m, B), float64.
            dtype: the dtype of x (B, *).
        """
        c_skip, c_out, c_in, c_noise = self.coefficients(t)
        table = torch.stack([A + C * c_skip, C * c_out, c_in, c_noise], dim=1).to(dtype)  # (m, 4, B)

        def combination(row: Tensor) -> Callable[[Tensor], Tensor]:
            skip, out, c_in, c_noise = row

            def evaluate(x: Tensor) -> Tensor:
                output = self.output(per_sample(c_in, x) * x, c_noise)
                return torch.addcmul(per_sample(skip, x) * x, per_sample(out, x), output)

            return evaluate

        return [combination(row) for row in table]

    def given(self, y: Tensor | None, guidance: float = 1.0) -> "ScoreModel":
        """Returns the score of p(x | y) from a network F(x, c, y).

        Arguments:
            y: (B, condition), or (1, condition) for one y of all samples, as :class:`scoresde.data.Condition` encodes
                it; None for p(x).
            guidance: the guidance scale w of :mod:`scoresde.models.given`.
        """
        y = torch.zeros(1, self.net.condition) if y is None else y
        return ScoreModel(self.sde, Given(self.net, y.to(next(self.net.parameters())), guidance), self.parameterisation)

    @property
    def conditional(self) -> bool:
        """True if the network takes a condition y."""
        return bool(getattr(self.net, "condition", 0))

    @property
    def cost(self) -> int:
        """The number of network evaluations in a call."""
        return getattr(self.net, "cost", 1)

    @property
    def of_rows(self) -> Callable[[Tensor], "ScoreModel"]:
        """The function of_rows(rows) of a score with fixed y (:meth:`given`); see :mod:`scoresde.sde_lib.rows`."""
        pick = self.net.of_rows  # raises an AttributeError if no y is fixed, so that hasattr is False
        return lambda rows: ScoreModel(self.sde, pick(rows), self.parameterisation)

    def under(self, sde: SDE, other: SDE) -> "ScoreModel":
        """Returns the same network under the SDE ``other``; ``sde``, the present one, is not needed.

        The arguments are those of :func:`scoresde.sde_lib.under`.
        """
        twin = copy(self)
        twin.sde = other
        return twin

    def affine(self, times: Iterable[float]) -> Affine:
        """Returns the function (x, t, A, C) -> A x + C score(x, t), as :func:`scoresde.sde_lib.affine` describes.

        The coefficients of ``times`` are computed at once, those of any other time when it first occurs.
        """
        rows: dict[float, list[float]] = {}  # t: c_skip, c_out, c_in, c_noise

        def add(times: list[float]) -> None:
            columns = self.coefficients(torch.tensor(times, dtype=torch.float64))
            rows.update(zip(times, torch.stack(columns, dim=1).tolist(), strict=True))

        add(list(times))

        def evaluate(x: Tensor, t: float, A: float = 0.0, C: float = 1.0) -> Tensor:
            if t not in rows:
                add([t])
            c_skip, c_out, c_in, c_noise = rows[t]
            output, skip = self.output(x * c_in, expand_to_batch(c_noise, x)), A + C * c_skip
            return torch.add(x * skip, output, alpha=C * c_out) if skip else output * (C * c_out)

        return evaluate
