"""The stages of ResNet-18 (He et al. 2016), of which trunks and stage 4 are built."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Conv2d):
    """A convolution without bias, with undefined weights until `initialise` or a state dict.

    Random initial weights that are replaced at once would cost a second at every start.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, bias=False)

    def reset_parameters(self) -> None:
        """Leave the weights undefined."""


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut, with torchvision's names, so that its weights fit."""

    NORMS = (("conv1", "bn1"), ("conv2", "bn2"))  # convolutions and their norms

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, out_channels, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = Convolution(out_channels, out_channels, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                Convolution(in_channels, out_channels, 1, stride),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in, H, W) → (B, out, ⌈H / stride⌉, ⌈W / stride⌉)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        return F.relu(self.bn2(self.conv2(maps)) + shortcut, inplace=True)


def stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """One of ResNet-18's four stages: two blocks, the first with the stride."""
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels, 1)
    )


def resnet_stage4(width: int) -> nn.Sequential:
    """ResNet-18's last stage: 4 · width channels → 8 · width at half the side."""
    return stage(4 * width, 8 * width, 2)


class Trunk(nn.Module):
    """ResNet-18 up to and including stage 3, with 4 · width channels at stride 16.

    width: channels of the first stage; ResNet-18 has 64.
    """

    NORMS = (("conv1", "bn1"),)

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, width, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, 1)
        self.layer2 = stage(width, 2 * width, 2)
        self.layer3 = stage(2 * width, 4 * width, 2)

    def forward(self, view: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, 4 · width, ⌈H / 16⌉, ⌈W / 16⌉)."""
        maps = F.relu(self.bn1(self.conv1(view)), inplace=True)  # (B, width, ⌈H / 2⌉, ⌈W / 2⌉)
        maps = F.max_pool2d(maps, 3, 2, 1)
        maps = self.layer1(maps)  # (B, width, ⌈H / 4⌉, ⌈W / 4⌉)
        maps = self.layer2(maps)  # (B, 2 · width, ⌈H / 8⌉, ⌈W / 8⌉)
        return self.layer3(maps)  # type: ignore[no-any-return]


def initialise(network: nn.Module) -> None:
    """Initialise every convolution by He's method, as ResNet's authors did."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
