r"""A diffusion transformer F(x, c) of image patches, in which adaptive normalisation carries the noise level.

DiT (Peebles and Xie, arXiv 2212.09748): an image is cut into patches of p x p pixels. A linear map makes each patch a
token, to which a sinusoidal embedding of its position is added. The tokens h pass through blocks of attention and a
two-layer perceptron,

.. math::
    h \leftarrow h + g_1\,\text{attention}(s_1 \circ n(h) + b_1), \qquad
    h \leftarrow h + g_2\,\text{perceptron}(s_2 \circ n(h) + b_2),

where n is a layer normalisation without weights. The shifts b, the scales s - 1 and the gates g are linear in the
features of the noise level (and of y). These linear maps start at 0, so that every block starts as the identity
("adaLN-Zero").
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import Dropout, recomputed

from .embedding import NoiseEmbedding
from .given import ConditionEmbedding, add_condition
from .linear import Linear
from .unet import zero


class Block(nn.Module):
    """Attention and a perceptron, each with adaptive normalisation.

    Arguments:
        width: the length of a token and of the noise level's features.
        heads, ratio, dropout: as in :class:`DiT`.
    """

    def __init__(self, width: int, heads: int, ratio: float, dropout: float):
        super().__init__()
        self.heads, inner = heads, round(ratio * width)
        self.told = zero(Linear(width, 6 * width))  # shift, scale and gate of both branches
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.perceptron = nn.Sequential(
            Linear(width, inner),
            nn.GELU(approximate="tanh"),
            Dropout(dropout) if dropout else nn.Identity(),
            Linear(inner, width),
        )

    def forward(self, h: Tensor, features: Tensor) -> Tensor:
        """Maps tokens h (B, tokens, width) and the noise level's features (1 or B, width) to (B, tokens, width)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.told(features)[:, None].chunk(6, dim=2)
        h = h + gate_1 * self.attention(adapted(h, shift_1, scale_1))
        return h + gate_2 * self.perceptron(adapted(h, shift_2, scale_2))

    def attention(self, h: Tensor) -> Tensor:
        """Returns self-attention over the tokens h, (B, tokens, width) to (B, tokens, width)."""
        batch, tokens, width = h.shape
        qkv = self.qkv(h).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        h = functional.scaled_dot_product_attention(q, k, v)
        return self.out(h.transpose(1, 2).reshape(batch, tokens, width))


def adapted(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Returns the layer normalisation of h (B, tokens, width), times 1 + scale, plus shift, each (1 or B, 1, width)."""
    return torch.addcmul(shift, functional.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Returns sinusoidal embeddings of the positions in a grid, (rows columns, width).

    The first half of an embedding is that of the column and the second half that of the row: sines and then cosines of
    the width/4 frequencies 10000^{-4k/width}, k = 0, 1, ...
    """
    frequencies = 1e4 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()


class DiT(nn.Module):
    """F(x, c) for images of any height, width and number of channels.

    The bottom row and the right column are repeated until the image consists of whole patches.

    Arguments:
        shape: the shape (C, H, W) of one image.
        patch: the side p of a patch, in pixels.
        width: the length of a token, a multiple of 4.
        depth: the number of blocks.
        heads: the number of attention heads, which must divide the width.
        ratio: the inner width of the perceptrons divided by the width.
        dropout: the share of the perceptrons' inner values dropped in training.
        checkpointing: recompute the blocks in the backward pass instead of storing their inner values, for a fraction
            of the memory and a third more time.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        patch: int = 2,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        ratio: float = 4.0,
        dropout: float = 0.0,
        checkpointing: bool = False,
        condition: int = 0,
    ):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(
                f"model=dit takes images of shape (C, H, W), the data have shape {tuple(shape)}; type model=mlp"
            )
        for key, value in (("patch", patch), ("depth", depth), ("heads", heads)):
            if value < 1:
                raise ValueError(f"`{key}`={value} must be at least 1")
        if width < 4 or width % 4 or width % heads:
            raise ValueError(f"`width`={width} must be a multiple of 4 and of `heads`={heads}; type `width`=256")
        if not ratio > 0 or not 0 <= dropout < 1:
            raise ValueError(f"`ratio`={ratio} must be positive and `dropout`={dropout} in [0, 1)")
        self.patch, self.checkpointing, self.condition = patch, checkpointing, condition
        self.rows, self.columns = (-(-side // patch) for side in shape[1:])
        self.first = nn.Conv2d(shape[0], width, patch, stride=patch)
        self.register_buffer("places", positions(self.rows, self.columns, width), persistent=False)
        self.noise = nn.Sequential(NoiseEmbedding(width), Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads, ratio, dropout) for _ in range(depth))
        self.told = zero(Linear(width, 2 * width))  # shift and scale before the last layer
        self.last = zero(Linear(width, patch * patch * shape[0]))
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear) and module.weight.any():  # all but the zero maps of the noise features
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.known = ConditionEmbedding(condition, width) if condition else None

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), the noise level c (B,) and y (1 or B, condition) to (B, C, H, W)."""
        batch, channels, height, width = x.shape
        p = self.patch
        features = functional.silu(add_condition(self.known, self.noise(c), y))
        x = functional.pad(x, (0, -width % p, 0, -height % p), mode="replicate") if height % p or width % p else x
        h = self.first(x).flatten(2).transpose(1, 2) + self.places.to(x.dtype)
        for block in self.blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                h = recomputed(block, block, h, features)
            else:
                h = block(h, features)
        shift, scale = self.told(features)[:, None].chunk(2, dim=2)
        h = self.last(adapted(h, shift, scale)).reshape(batch, self.rows, self.columns, channels, p, p)
        return h.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, self.rows * p, self.columns * p)[
            ..., :height, :width
        ]
