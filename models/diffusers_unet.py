"""The U-Net of the library diffusers as a network F(x, c); it needs the package diffusers."""

import math

from torch import Tensor, nn
from torch.nn import functional

from scoresde.sde_lib import Dropout

from .clock import Clock
from .given import ConditionEmbedding, add_condition


class DiffusersUNet(nn.Module):
    """A ``diffusers.UNet2DModel``, which takes a step number, for images of any height and width.

    Images are padded, by repeating their border, to a size that can be halved once for each level but the first.

    Arguments:
        shape: the shape (C, H, W) of one image.
        block_out_channels, layers_per_block, down_block_types, up_block_types, attention_head_dim, norm_num_groups,
            norm_eps, downsample_padding, freq_shift, flip_sin_to_cos, dropout: as in diffusers.
        clock: the step number of a noise level; None for n = 250 (c + 2.5), see :mod:`scoresde.models.embedding`.
        condition: the length of y, for a network F(x, c, y) of p(x | y); 0 for none. See
            :mod:`scoresde.data.condition`.

    Raises:
        ImportError: the package diffusers is not installed.
        ValueError: the keys do not fit together, or the data are no images.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        block_out_channels: list[int] | tuple[int, ...] = (32, 64, 64),
        layers_per_block: int = 1,
        down_block_types: list[str] | tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types: list[str] | tuple[str, ...] = ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim: int | None = 8,
        norm_num_groups: int | None = 32,
        norm_eps: float = 1e-5,
        downsample_padding: int = 1,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        dropout: float = 0.0,
        clock: Clock | None = None,
        condition: int = 0,
    ):
        super().__init__()
        try:
            from diffusers import UNet2DModel  # here, because the import takes seconds
        except ImportError as error:
            raise ImportError("model=diffusers needs the package diffusers: pip install -e .[diffusers]") from error
        if len(shape) != 3:
            raise ValueError(
                f"model=diffusers takes images of shape (C, H, W), the data have shape {tuple(shape)}; type model=mlp"
            )
        lengths = {len(each) for each in (block_out_channels, down_block_types, up_block_types)}
        if len(lengths) > 1:
            raise ValueError(
                f"`block_out_channels`={list(block_out_channels)}, `down_block_types` and `up_block_types` "
                f"must have the same length, one value for each level"
            )
        if norm_num_groups is not None and norm_num_groups < 1:
            raise ValueError(f"`norm_num_groups`={norm_num_groups} must be at least 1; diffusers: 32")
        if norm_num_groups is not None and any(each % norm_num_groups for each in block_out_channels):
            common = math.gcd(*block_out_channels)
            fits = max(count for count in range(1, 33) if common % count == 0)  # at most diffusers' default of 32
            raise ValueError(
                f"`norm_num_groups`={norm_num_groups} must divide `block_out_channels`="
                f"{list(block_out_channels)}; type `norm_num_groups`={fits}"
            )
        self.keys = {
            "in_channels": shape[0],
            "out_channels": shape[0],
            "block_out_channels": list(block_out_channels),
            "layers_per_block": layers_per_block,
            "down_block_types": list(down_block_types),
            "up_block_types": list(up_block_types),
            "attention_head_dim": attention_head_dim,
            "norm_num_groups": norm_num_groups,
            "norm_eps": norm_eps,
            "downsample_padding": downsample_padding,
            "freq_shift": freq_shift,
            "flip_sin_to_cos": flip_sin_to_cos,
            "dropout": dropout,
        }
        # y is embedded by our ConditionEmbedding, and diffusers adds its features to those of the step number
        labels = {"class_embed_type": "identity"} if condition else {}
        try:
            self.unet = UNet2DModel(**self.keys, **labels)
        except (ValueError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"model=diffusers: diffusers refuses these keys ({reason})") from None
        for module in list(self.unet.modules()):  # torch's dropout would draw from the global generator
            for name, child in module.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(module, name, Dropout(child.p))
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.size, self.factor = tuple(shape[1:]), 2 ** (len(block_out_channels) - 1)
        self.clock, self.condition = clock, condition
        self.known = ConditionEmbedding(condition, 4 * block_out_channels[0]) if condition else None

    def config(self) -> dict:
        """Returns the keys of the UNet2DModel, for :mod:`scoresde.models.unet2d`.

        Raises:
            ValueError: the network is conditional; diffusers has no network that embeds y as this code does.
        """
        if self.known is not None:
            raise ValueError("a conditional network of this code is no UNet2DModel; leave data.condition out")
        return {"sample_size": list(self.size), "time_embedding_type": "positional", **self.keys}

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), the noise level c (B,) and y (1 or B, condition) to (B, C, H, W)."""
        height, width = x.shape[-2:]
        n = 250 * (c + 2.5) if self.clock is None else self.clock(c)
        embedded = None if self.known is None else add_condition(self.known, x.new_zeros(len(x), 1), y)
        padded = functional.pad(x, (0, -width % self.factor, 0, -height % self.factor), mode="replicate")
        return self.unet(padded, n, embedded, return_dict=False)[0][..., :height, :width]
