"""Means with standard errors."""

import math

import numpy as np
import torch
from torch import Tensor


def mean_and_stderr(values: Tensor | np.ndarray) -> tuple[float, float]:
    """Returns the mean of values (N,) and its standard error, which is NaN for one value."""
    values = torch.as_tensor(values)
    return float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
