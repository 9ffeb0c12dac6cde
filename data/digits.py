r"""Handwritten digits, 8 x 8 pixels of 17 grey levels: the 1,797 images of scikit-learn.

Pixels are integers k = 0 ... 16; with uniform dequantisation k + u lies in [0, 17), which the units m = s = 17/2 map to
[-1, 1).
"""

import numpy as np
import torch

from scoresde.data.base import Data, at_least


class Digits(Data):
    """Scikit-learn's digits as uint8 images (N, 1, 8, 8).

    Arguments:
        test_count: the number of held-out images, 1 ... 1796.
        seed: the seed of the shuffle before the split, at least 0.

    The class labels are the digits 0 ... 9 that the images show.
    """

    def __init__(self, test_count: int = 297, seed: int = 0):
        from sklearn.datasets import load_digits  # imported here, since it takes a second

        digits = load_digits()
        images, labels = digits.images.astype(np.uint8)[:, None], digits.target.astype(np.int64)
        at_least("test_count", test_count, 1, 297)
        if test_count >= len(images):
            raise ValueError(
                f"`test_count`={test_count} must be below the number of images, {len(images)}: type `test_count`=297"
            )
        at_least("seed", seed, 0, 0)
        order = np.random.default_rng(seed).permutation(len(images))
        train, test = order[test_count:], order[:test_count]
        x, x_test = (torch.from_numpy(images[rows]) for rows in (train, test))
        y, y_test = (torch.from_numpy(labels[rows]) for rows in (train, test))
        super().__init__(x, x_test, 8.5, 8.5, 17, y, y_test, shuffle=False)  # the split is random
