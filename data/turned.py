"""Pictures turned, each with how it was turned for a label: a task to learn from where pictures have no labels.

To tell how a picture was turned, a network has to know what is in it (Gidaris et al., arXiv 1803.07728). Square
pictures are turned by quarters; others, which would change their shape, by half a turn, from left to right and upside
down. Each has four classes, the first of which is the picture as it is.
"""

import torch
from torch import Tensor

from scoresde.data.base import Data

MOST = 2**28  # values of turned pictures that are held


class Turned(Data):
    """The pictures of a data set, each in its four turns, labelled by them.

    Arguments:
        data: pictures (N, C, H, W), of which as many as there is memory for are taken, 85,598 of 28 x 28 pixels.
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
    """Pictures (N, C, H, W) in their k-th turn, of the same shape."""
    if x.shape[2] == x.shape[3]:
        return x.rot90(k, (2, 3))
    return x.flip([(), (2, 3), (3,), (2,)][k]) if k else x
