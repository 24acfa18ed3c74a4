"""ODConv-ResNets with the parameter names of the official repository (OSVAI/ODConv)."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.resnet import Bottleneck, SpatialOp


class ODConv(nn.Module):
    """A convolution with weights of its input channels, output channels, taps and kernels, of each sample's own.

    [B, in_channels, H, W] to [B, out_channels, ceil(H/stride), ceil(W/stride)]; the sample's kernel is summed first.

    Reference: Li et al., Omni-Dimensional Dynamic Convolution, ICLR 2022.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, kernels: int = 1):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(kernels, out_channels, in_channels, kernel_size, kernel_size))
        for kernel in self.weight.data:
            nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu")
        self.attention = _Attention(in_channels, out_channels, kernel_size, kernels)

    def forward(self, x: Tensor) -> Tensor:
        channel, out, taps, kernels = self.attention(x)
        mixed = (self.weight * taps * kernels).sum(1)  # [B, O, I, K, K]
        y = [
            functional.conv2d(image[None], kernel, stride=self.stride, padding=kernel.shape[-1] // 2)
            for image, kernel in zip(x * channel, mixed.expand(x.shape[0], *mixed.shape[1:]), strict=True)
        ]
        return torch.cat(y) * out


class _Attention(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, kernels: int):
        super().__init__()
        hidden = max(in_channels // 16, 16)
        self.temperature = 1.0
        self.fc = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU()
        self.channel_fc = nn.Conv2d(hidden, in_channels, 1)
        self.filter_fc = nn.Conv2d(hidden, out_channels, 1)
        if kernel_size > 1:
            self.spatial_fc = nn.Conv2d(hidden, kernel_size**2, 1)
        if kernels > 1:
            self.kernel_fc = nn.Conv2d(hidden, kernels, 1)
        self.kernel_size, self.kernels = kernel_size, kernels
        for module in self.children():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights of the input and output channels [B, C, 1, 1], of taps and kernels [B, kernels, O, I, K, K]."""
        z = self.relu(self.bn(self.fc(x.mean((2, 3), keepdim=True))))
        channel, out = ((fc(z) / self.temperature).sigmoid() for fc in (self.channel_fc, self.filter_fc))
        taps = kernels = x.new_ones(1, 1, 1, 1, 1, 1)
        if self.kernel_size > 1:
            shape = (-1, 1, 1, 1, self.kernel_size, self.kernel_size)
            taps = (self.spatial_fc(z) / self.temperature).sigmoid().reshape(shape)
        if self.kernels > 1:
            kernels = (self.kernel_fc(z) / self.temperature).softmax(1).reshape(-1, self.kernels, 1, 1, 1, 1)
        return channel, out, taps, kernels


class ODConvBottleneck(Bottleneck):
    """A bottleneck whose three convolutions are `ODConv`s."""

    kernels = 1

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, spatial_op)
        odconv: Callable[..., nn.Module] = functools.partial(ODConv, kernels=self.kernels)
        self.conv1 = odconv(in_channels, width, 1)
        self.conv2 = odconv(width, width, 3, stride)
        self.conv3 = odconv(width, width * self.expansion, 1)


class ODConvBottleneck4x(ODConvBottleneck):
    """The same with four kernels in each."""

    kernels = 4
