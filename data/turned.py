"""Turned images, labelled by their turns: a classification task for images without labels.

To tell how an image was turned, a network has to recognise its content (Gidaris et al., arXiv 1803.07728). Square
images are rotated by quarter turns; others, whose shape that would change, are rotated by half a turn, mirrored left to
right and mirrored upside down. Either way there are four classes, and the first is the image unchanged.
"""

import torch
from torch import Tensor

from scoresde.data.base import Data

MOST = 2**28  # the largest number of values of one part's turned images


class Turned(Data):
    """The images of a data set, each in its four turns 0 ... 3, which are the class labels.

    Arguments:
        data: images (N, C, H, W). Each part is cut to its first images, so that their turns have at most 2**28 values:
            85,598 images of 28 x 28 pixels.

    Raises:
        ValueError: the examples are no images.
    """

    def __init__(self, data: Data):
        if len(data.shape) != 3:
            raise ValueError(f"pictures can be turned, and these data have the shape {data.shape}")
        square = data.shape[1] == data.shape[2]
        self.class_names = ["0", "90", "180", "270"] if square else ["as it is", "turned", "mirrored", "upside down"]
        self.whole, self.held_out_keys = data, data.held_out_keys
        parts = []
        for part in (data.train, data.test):
            most = max(1, MOST // (4 * data.dim))
            parts.append(torch.stack([turn(part[:most], k) for k in range(4)], 1).flatten(0, 1))
        labels = (torch.arange(4).repeat(len(part) // 4) for part in parts)
        super().__init__(*parts, data.shift, data.scale, data.levels, *labels)

    def fingerprint(self) -> str | None:
        return self.whole.fingerprint()


def turn(x: Tensor, k: int) -> Tensor:
    """Returns images (N, C, H, W) in their k-th turn, of the same shape."""
    if x.shape[2] == x.shape[3]:
        return x.rot90(k, (2, 3))
    return x.flip([(), (2, 3), (3,), (2,)][k]) if k else x
