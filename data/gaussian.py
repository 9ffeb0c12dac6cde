r"""A Gaussian with any covariance, with exact conditionals.

.. math::
    r = (x, y) \sim N(m, S) \quad\Rightarrow\quad
    x \mid y \sim N\bigl(m_x + S_{xy} S_{yy}^{-1} (y - m_y),\ S_{xx} - S_{xy} S_{yy}^{-1} S_{yx}\bigr)

Model units subtract m and divide each column by its standard deviation.
"""

import math

import numpy as np
import torch
from torch import Tensor

from scoresde.data.synthetic import Synthetic


class Gaussian(Synthetic):
    """Independent draws of N(m, S).

    Arguments:
        covariance: S, D rows of D numbers, symmetric and positive definite, in data units squared.
        mean: m, D numbers; by default 0.
        count, test_count, seed: numbers of training and held-out examples, and the seed of the draws.

    Raises:
        ValueError: the covariance is not symmetric and positive definite, the mean has not D finite numbers, or a count
            or the seed is too small.
    """

    def __init__(
        self,
        covariance: list[list[float]],
        mean: list[float] | None = None,
        count: int = 200_000,
        test_count: int = 10_000,
        seed: int = 0,
    ):
        dim = len(covariance)
        if dim < 1 or any(len(row) != dim for row in covariance):
            raise ValueError(
                f"`covariance`={covariance} must be D rows of D numbers: type `covariance`=[[1.0,0.8],[0.8,1.0]]"
            )
        if mean is not None and len(mean) != dim:
            zeros = "[" + ",".join(["0.0"] * dim) + "]"
            raise ValueError(
                f"`mean`={mean} must have {dim} numbers, one for each row of `covariance`: type `mean`={zeros}"
            )
        self.mean = torch.tensor(mean or [0.0] * dim, dtype=torch.float64)
        self.covariance = torch.tensor(covariance, dtype=torch.float64)
        root, failed = torch.linalg.cholesky_ex(self.covariance)
        if not torch.equal(self.covariance, self.covariance.T) or failed or not bool(self.mean.isfinite().all()):
            raise ValueError(
                f"`covariance`={covariance} must be symmetric and positive definite, and `mean` finite: type "
                f"`covariance`=[[1.0,0.8],[0.8,1.0]]"
            )
        self.root = root
        super().__init__(count, test_count, seed, (dim,), self.mean, self.covariance.diagonal().sqrt(), width=dim)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, None]:
        return self.mean.numpy() + rng.standard_normal((count, len(self.mean))) @ self.root.numpy().T, None

    def log_density(self, r: Tensor) -> Tensor:
        return normal_log_prob(r, self.mean, self.covariance)

    def marginal_log_prob(self, y: Tensor, columns: list[int]) -> Tensor:
        return normal_log_prob(y, self.mean[columns], self.covariance[columns][:, columns])


def normal_log_prob(r: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Returns log N(r; mean, covariance) in nats, (B, D) to (B,)."""
    root = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(root, (r - mean).T, upper=False)
    return -0.5 * z.square().sum(0) - root.diagonal().log().sum() - 0.5 * len(mean) * math.log(2 * math.pi)
