"""RedNets with the parameter names of the official repository (d-li14/involution), without `backbone.` and `head.`."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from ddf_jax.torch_port.involution import Involution
from ddf_jax.torch_port.resnet import Bottleneck, ResNet


class RedNet(ResNet):
    """A residual network of involutions, 7×7 in the blocks: [B, 3, H, W] to logits.

    Args:
        blocks: their number in each stage.
        group_channels: of every involution.
        stem_kernel_size: of the involution in the stem; 7 in the official detectors.
        options: of `ResNet`.

    Reference: Li et al., Involution: Inverting the Inherence of Convolution for Visual Recognition, CVPR 2021.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        group_channels: int = 16,
        stem_kernel_size: int = 3,
        width: int = 64,
        in_channels: int = 3,
        **options,
    ):
        def involution(channels: int, out_channels: int, stride: int) -> nn.Module:
            del out_channels  # the same
            return Involution(channels, stride=stride, group_channels=group_channels)

        super().__init__(Bottleneck, blocks, involution, width=width, in_channels=in_channels, **options)
        half = width // 2
        del self.conv1, self.bn1, self.act1
        self.stem = nn.Sequential(
            _conv_module(in_channels, half, 2),
            Involution(half, stem_kernel_size, group_channels=group_channels),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            _conv_module(half, width, 1),
        )

    def _stem(self, x: Tensor) -> Tensor:
        return self.stem(x)


def _conv_module(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    layers = {
        "conv": nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        "bn": nn.BatchNorm2d(out_channels),
        "activate": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(layers))
