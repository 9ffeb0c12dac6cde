"""A multilayer perceptron F(x, c) for vectors."""

from typing import Literal

import torch
from torch import Tensor, nn

from scoresde.sde_lib import Dropout

from .embedding import FourierFeatures, NoiseEmbedding
from .given import ConditionEmbedding, add_condition
from .linear import Linear


class MLP(nn.Module):
    """Hidden layers of one width; the noise level shifts each layer's input to its nonlinearity.

    Random Fourier features of the input let a small network represent sharp edges. They also speed up the start of the
    training on symmetric data, for which preconditioning leaves no linear or quadratic signal: without them 8gaussians
    and pinwheel stay a single Gaussian for tens of thousands of steps.

    Arguments:
        shape: the shape (D,) of one vector.
        width: the width of the hidden layers.
        depth: the number of hidden layers.
        fourier: the number of random directions along which a cosine and a sine of the input are appended to it.
        fourier_scale: the std of their frequencies, in periods per unit of the (unit-variance) input.
        dropout: the share of hidden values dropped in training.
        embedding: the embedding of the noise level, ``smooth`` or ``steps``; see :mod:`scoresde.models.embedding`.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        width: int = 128,
        depth: int = 3,
        fourier: int = 32,
        fourier_scale: float = 0.25,
        dropout: float = 0.0,
        embedding: Literal["smooth", "steps"] = "smooth",
        condition: int = 0,
    ):
        super().__init__()
        if len(shape) != 1:
            raise ValueError(
                f"model=mlp takes vectors of shape (D,), the data have shape {tuple(shape)}; type model=unet"
            )
        for key, value, least in (("width", width, 1), ("depth", depth, 1), ("fourier", fourier, 0)):
            if value < least:
                raise ValueError(f"`{key}`={value} must be at least {least}")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout`={dropout} must lie in [0, 1)")
        (dim,) = shape
        self.depth = depth
        self.features = FourierFeatures(dim, fourier, fourier_scale)
        self.noise = NoiseEmbedding(32, embedding)
        self.shifts = Linear(32, width * depth, bias=False)  # the shifts of all layers in one call
        self.layers = nn.ModuleList(Linear(self.features.width if i == 0 else width, width) for i in range(depth))
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        self.last = Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.condition = condition
        self.known = ConditionEmbedding(condition, width * depth) if condition else None

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, D), the noise level c (B,) and y (1 or B, condition) to (B, D)."""
        h = self.features(x)
        shifts = add_condition(self.known, self.shifts(self.noise(c)), y).chunk(self.depth, dim=1)
        for layer, shift in zip(self.layers, shifts, strict=True):
            h = self.dropout(nn.functional.silu(torch.add(layer(h), shift)))
        return self.last(h)
