"""Embedded Runge-Kutta pairs of orders 5 and 4, and their interpolants (Tsitouras 2011; Dormand and Prince 1980)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """An embedded Runge-Kutta pair of orders 5 and 4 whose last stage is the first of the next step.

    C holds the nodes of the seven stages, as shares of the step. Row i of A holds the weights of stage i + 1, its last
    row b those of the step. ``error`` is b - b_hat, the weights of the error estimate, and ``dense`` those that raise
    the step's cubic Hermite interpolant to order 4 (:meth:`scoresde.sde_lib.ode.Step.state`).
    """

    C: tuple[float, ...]
    A: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    dense: tuple[float, ...]


PAIRS = {
    "tsit5": Pair(
        C=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
        A=(
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
            (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
        ),
        error=(
            -0.001780011052225777,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            1 / 66,
        ),
        dense=(
            -1.0530884977290216,
            0.1017,
            2.490627285651253,
            -16.548102889244902,
            47.37952196281928,
            -34.87065786149661,
            2.5,
        ),
    ),
    "dopri5": Pair(
        C=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        A=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
        dense=(
            -12715105075 / 11282082432,
            0.0,
            87487479700 / 32700410799,
            -10690763975 / 1880347072,
            701980252875 / 199316789632,
            -1453857185 / 822651844,
            69997945 / 29380423,
        ),
    ),
}
