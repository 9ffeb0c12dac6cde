"""Attention over the pixels of a feature map, with queries, keys and values in one tensor."""

from torch import Tensor
from torch.nn import functional


def heads_of(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Splits (B, 3C, H, W) into queries, keys and values, each (B, heads, HW, C / heads)."""
    batch, channels, height, width = qkv.shape
    parts = qkv.reshape(batch, 3, heads, channels // 3 // heads, height * width)
    return parts.transpose(-1, -2).unbind(1)


def attend_pixels(q: Tensor, k: Tensor, v: Tensor, like: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(C / heads)) v for (B, heads, HW, C / heads), reshaped as ``like`` (B, C, H, W)."""
    h = functional.scaled_dot_product_attention(q, k, v)
    return h.transpose(-1, -2).reshape(like.shape)
