r"""The conventions of other codes for the inputs and the output of a network.

Weights define a function F(x, c) only together with three conventions, which no file of weights contains: the scale of
x, the number that stands for the noise level, and the meaning of the output. The published codes have two sets of
conventions:

* a VE network takes data plus noise as x, and log sigma or a step number that counts from the largest noise down. It
  predicts sigma times the score;
* a VP or sub-VP network takes x at the scale of its SDE, and a step number that is linear in the SDE's time. It
  predicts the noise, which is minus sigma times the score.

A run that reads or writes such a network must use it in the same way. A network's *own* SDE is that of its clock, or
the run's if it has no clock. Under another SDE x is scaled to what it would be under the own one
(``parameterisation.input``), so the conventions are checked under the own SDE.
"""

import math

import torch
from torch import Tensor

from scoresde.sde_lib import SDE

from .clock import Clock
from .embedding import RandomFourier
from .score import ScoreModel


def clock_of(score: ScoreModel) -> Clock | None:
    """Returns the network's :class:`scoresde.models.Clock`; None for a network without a clock."""
    features = getattr(score.net, "features", None)
    return getattr(score.net if features is None else features, "clock", None)


def takes_step_number(score: ScoreModel) -> bool:
    """Returns whether the network takes a step number, with or without a clock."""
    features = getattr(score.net, "features", None)
    return hasattr(score.net if features is None else features, "clock")


def keeps_data(sde: SDE) -> bool:
    """Returns whether an SDE adds noise to the data without shrinking them."""
    return float(sde.alpha(torch.tensor(sde.T, dtype=torch.float64))) == 1


def check_clock(score: ScoreModel) -> None:
    """Raises a ValueError for a network that takes a step number but has no clock; other codes have no such network."""
    if takes_step_number(score) and clock_of(score) is None:
        raise ValueError(
            "other codes count the step numbers of a network along its SDE, and model.clock is null: choose the "
            "network with experiment=score_sde/..., or model.embedding=fourier"
        )


def convention(score: ScoreModel) -> int:
    """Returns 1 for a VE network (it predicts sigma times the score), -1 for a VP or sub-VP network (the noise).

    Raises:
        ValueError: the run uses the network in neither of the published ways; see also :func:`check_clock`.
    """
    check_clock(score)
    clock, features = clock_of(score), getattr(score.net, "features", None)
    fourier = isinstance(features, RandomFourier)
    own = score.sde if clock is None else clock.sde
    t = torch.linspace(own.eps, own.T, 33, dtype=torch.float64)
    alpha, sigma = own.alpha(t), own.sigma(t)
    if fourier:  # such a network takes data plus noise, x/alpha, under every SDE
        alpha, sigma = torch.ones_like(alpha), sigma / alpha
    sign = 1 if fourier or keeps_data(own) else -1
    c_skip, c_out, c_in = score.parameterisation.coefficients(alpha, sigma)
    one = torch.ones_like(t)
    if (
        not torch.allclose(c_in, one, rtol=1e-4)
        or c_skip.any()
        or not torch.allclose(c_out * sigma, sign * one, rtol=1e-4)
    ):
        kind = "VE" if sign > 0 else "VP or sub-VP"
        wanted = (
            "takes data plus noise, unscaled, and predicts sigma times the score: type parameterisation=score with "
            "parameterisation.input an SDE that keeps the data, as experiment=score_sde/ve_continuous has it"
            if sign > 0
            else "takes x at the scale of its SDE and predicts the noise: type parameterisation=noise, for sub-VP with "
            "parameterisation.input, as experiment=score_sde/vp_continuous or subvp_continuous has it"
        )
        raise ValueError(f"a {kind} network of other codes {wanted}; this run's parameterisation is another")
    return sign


def table(score: ScoreModel, sign: int, data_range: float, scales: int) -> Tensor:
    """Returns the table of noise levels in a file of score_sde, from the largest to the smallest, shape (scales,).

    The levels are in units of the data's range. The table of a VP network is never used.

    Arguments:
        sign: the value of :func:`convention`.
        data_range: the width of the data's range in model units.
        scales: the number of levels.

    Raises:
        ValueError: the clock of a VE network does not count its steps along these levels.
    """
    if sign < 0:
        largest, smallest = 50.0, 0.01  # as in the published configuration
    else:
        clock = clock_of(score)
        own = score.sde if clock is None else clock.sde
        t = torch.linspace(own.eps, own.T, 33, dtype=torch.float64)
        log_levels = (own.sigma(t) / own.alpha(t) / data_range).log()
        # the smallest level is that of t = 0, or that of eps for an SDE without noise at t = 0
        start = float(own.sigma(torch.zeros(1, dtype=torch.float64))) / data_range
        largest, smallest = float(log_levels[-1].exp()), start or float(log_levels[0].exp())
        if clock is not None:
            n = clock((log_levels + math.log(data_range)) / 4)
            counted = math.log(largest) + n / (scales - 1) * math.log(smallest / largest)
            if not torch.allclose(counted, log_levels, rtol=0, atol=1e-3):
                raise ValueError(
                    f"a file of score_sde counts a VE network's steps along {scales} geometric levels, from the "
                    f"largest down, and model.clock counts otherwise: choose the network with "
                    f"experiment=score_sde/ve_steps and leave task.scales out"
                )
    return torch.exp(torch.linspace(math.log(largest), math.log(smallest), scales, dtype=torch.float64))
