"""MobileNet-v1 (Howard et al. 2017), split into a trunk and a stage 4 as PCNN splits ResNet-18.

The published weights for this backbone use TensorFlow's padding: for an even side, no pixel before
and one pixel after. The blocks here use the same padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.errors import InputError
from pcnn.networks.trunk import Convolution

# (output channels in units of the first convolution's, stride) of the thirteen blocks.
_TRUNK_BLOCKS = (
    (2, 1),
    (4, 2),
    (4, 1),
    (8, 2),
    (8, 1),
    (16, 2),
    (16, 1),
    (16, 1),
    (16, 1),
    (16, 1),
    (16, 1),
)
_STAGE4_BLOCKS = ((32, 2), (32, 1))
FINE_BLOCKS = 5  # after these a trunk's maps still have stride 8
# The means that the published face network subtracts from blue, green and red, 0…255.
_PUBLISHED_MEAN = (103.939, 116.779, 123.68)


class SeparableBlock(nn.Module):
    """A depthwise 3 × 3 convolution and a pointwise one, each with its norm and ReLU6."""

    NORMS = (("depthwise", "bn1"), ("pointwise", "bn2"))  # convolutions and their norms

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # With stride 1, TensorFlow's padding is one pixel on each side.
        self.depthwise = nn.Conv2d(
            *(in_channels, in_channels, 3, stride, 1 if stride == 1 else 0),
            groups=in_channels,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pointwise = Convolution(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, H, W) → (B, out, ⌈H / stride⌉, ⌈W / stride⌉)."""
        maps = self.depthwise(self.padded(maps))
        maps = F.relu6(self.bn1(maps), inplace=True)
        return F.relu6(self.bn2(self.pointwise(maps)), inplace=True)

    def padded(self, maps: Tensor) -> Tensor:
        """The padded maps for the depthwise convolution."""
        return maps if self.stride == 1 else pad_same(maps, self.stride)


class MobileTrunk(nn.Module):
    """MobileNet-v1 up to and including block 11, with 16 · width channels at stride 16.

    width: channels of the first convolution; MobileNet has 32.
    """

    NORMS = (("conv1", "bn1"),)

    def __init__(self, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, width, 3, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = _blocks(width, width, _TRUNK_BLOCKS)

    def forward(self, view: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, 16 · width, ⌈H / 16⌉, ⌈W / 16⌉)."""
        return self.blocks(self._stem(view))  # type: ignore[no-any-return]

    def both(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of stride 8 after block 5, (B, 8 · width, ⌈H / 8⌉, ⌈W / 8⌉), and forward's."""
        fine: Tensor = self.blocks[:FINE_BLOCKS](self._stem(view))
        return fine, self.blocks[FINE_BLOCKS:](fine)

    def _stem(self, view: Tensor) -> Tensor:
        return F.relu6(self.bn1(self.conv1(pad_same(view, 2))), inplace=True)


def mobile_stage4(width: int) -> nn.Sequential:
    """Blocks 12 and 13: 16 · width channels → 32 · width at half the side."""
    return _blocks(width, 16 * width, _STAGE4_BLOCKS)


def pad_same(maps: Tensor, stride: int) -> Tensor:
    """Pad maps with zeros so that a 3 × 3 convolution gives ⌈side / stride⌉ pixels."""
    top, bottom = _same(maps.shape[2], stride)
    left, right = _same(maps.shape[3], stride)
    return F.pad(maps, (left, right, top, bottom))


def _same(side: int, stride: int) -> tuple[int, int]:
    total = max((-(-side // stride) - 1) * stride + 3 - side, 0)
    return total // 2, total - total // 2


def _blocks(width: int, in_channels: int, plan: tuple[tuple[int, int], ...]) -> nn.Sequential:
    blocks = []
    for units, stride in plan:
        blocks.append(SeparableBlock(in_channels, units * width, stride))
        in_channels = units * width
    return nn.Sequential(*blocks)


@torch.no_grad()
def start_from_published(  # noqa: PLR0913
    trunk: MobileTrunk,
    stage4: nn.Sequential,
    tensors: Mapping[str, Tensor],
    faces: Tensor,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Fill a trunk and a stage 4 from published face weights, which have no norms.

    Each norm gets the mean and variance of its convolution's output on `faces`. Its scale and
    shift undo this normalisation. So in eval mode the network computes the same as the published
    one.
    tensors: `conv1.weight`, `conv1.bias`, `block1.depthwise.weight` …; conv1 takes blue, green,
        red, each 0…255 minus its mean.
    faces: (B, C, S, S), normalised by mean and std; C is 3 (RGB) or 1 (grey).
    For a grey network conv1 is summed over the colours. Its results differ slightly at the
    zero-padded border.
    Raises InputError: a tensor is missing or has another shape, or training mode.
    """
    if trunk.training or stage4.training:
        raise InputError("start_from_published: the network must be in eval mode; call its eval()")
    grey = len(mean) == 1
    try:
        conv1 = tensors["conv1.weight"].float().flip(1)  # red, green, blue
        means = torch.tensor(_PUBLISHED_MEAN[::-1])
        scale = 255 * torch.tensor(std * 3 if grey else std)
        offset = 255 * torch.tensor(mean * 3 if grey else mean) - means
        weight = conv1 * scale.view(1, 3, 1, 1)
        bias = tensors["conv1.bias"].float() + (conv1 * offset.view(1, 3, 1, 1)).sum((1, 2, 3))
        trunk.conv1.weight.copy_(weight.sum(1, keepdim=True) if grey else weight)
        maps = _calibrate(trunk.conv1, trunk.bn1, bias, pad_same(faces, 2))
        for number, block in enumerate([*trunk.blocks, *stage4], 1):
            name = f"block{number}"
            block.depthwise.weight.copy_(tensors[f"{name}.depthwise.weight"])
            block.pointwise.weight.copy_(tensors[f"{name}.pointwise.weight"])
            maps = block.padded(maps)
            maps = _calibrate(block.depthwise, block.bn1, tensors[f"{name}.depthwise.bias"], maps)
            maps = _calibrate(block.pointwise, block.bn2, tensors[f"{name}.pointwise.bias"], maps)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"start_from_published: tensors do not fit: {error}") from error


def _calibrate(convolution: nn.Conv2d, norm: nn.BatchNorm2d, bias: Tensor, maps: Tensor) -> Tensor:
    """Set a norm so that it only adds `bias` in eval mode; returns the rectified maps."""
    found = convolution(maps)
    variance, mean = torch.var_mean(found, (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)  # type: ignore[union-attr]
    norm.running_var.copy_(variance)  # type: ignore[union-attr]
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + bias.to(mean))
    return F.relu6(norm(found))
