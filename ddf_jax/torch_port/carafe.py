"""CARAFE with the parameter names of mmcv's CARAFEPack."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.operators import dynamic_upsample


class CARAFE(nn.Module):
    """Reassembles an output pixel from K×K input pixels: [B, C, H, W] to [B, C, S·H, S·W].

    The weights are a 1×1 convolution (`channel_compressor`), a convolution to G·T·S² channels (`content_encoder`), a
    pixel shuffle, and a softmax over the T taps in float32 (float64 for float64).

    Reference: Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        kernel_size: int = 5,
        groups: int = 1,
        compressed_channels: int = 64,
        encoder_kernel_size: int = 3,
        encoder_dilation: int = 1,
    ):
        super().__init__()
        self.scale = scale
        self.groups = groups
        self.channel_compressor = nn.Conv2d(in_channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(
            compressed_channels,
            groups * kernel_size**2 * scale**2,
            encoder_kernel_size,
            padding=encoder_dilation * (encoder_kernel_size // 2),
            dilation=encoder_dilation,
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        logits = functional.pixel_shuffle(self.content_encoder(self.channel_compressor(x)), self.scale)
        logits = logits.reshape(batch, self.groups, -1, *logits.shape[2:])
        weights = logits.softmax(2, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
        # The S×S sub-pixels of a pixel get an axis of their own.
        weights = weights.reshape(batch, self.groups, -1, height, self.scale, width, self.scale)
        weights = weights.permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 2)
        return dynamic_upsample(x, weights, None, scale=self.scale)
