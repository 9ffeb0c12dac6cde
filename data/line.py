r"""Points on a line in the plane: data on a manifold, without a density and without a score.

.. math:: r = u\,(\cos a, \sin a), \qquad u \sim N(0, 1)

With Gaussian noise of standard deviation sigma they have both: at the point u along the line and n across it the score
is -u/(1 + sigma^2) along and -n/sigma^2 across.
"""

import math

import numpy as np
import torch

from scoresde.data.base import Data, at_least


class Line(Data):
    """Independent draws of points on a line; model units are data units.

    Arguments:
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.
        degrees: a, the angle of the line with the first axis, in [-360, 360].
    """

    held_out_keys = ("test_count",)

    def __init__(self, count: int = 200_000, test_count: int = 10_000, degrees: float = 30.0, seed: int = 0):
        for key, value, least, instead in (
            ("count", count, 1, 200_000),
            ("test_count", test_count, 1, 10_000),
            ("seed", seed, 0, 0),
        ):
            at_least(key, value, least, instead)
        if not abs(degrees) <= 360:
            raise ValueError(f"`degrees`={degrees} must lie in [-360, 360]; type `degrees`=30")
        self.direction = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        train, test = (
            torch.from_numpy(np.random.default_rng([seed, stream]).standard_normal(number)).float()[:, None]
            * self.direction
            for stream, number in enumerate((count, test_count))
        )
        super().__init__(train, test, 0.0, 1.0, shuffle=False)
