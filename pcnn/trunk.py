"""The ResNet-18 stages that every part of the network is built from (He et al. 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut; names as in torchvision, so its weights fit."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
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


class Trunk(nn.Module):
    """ResNet-18 up to and including stage 3: 256 channels at stride 16."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(64, 64, 1)
        self.layer2 = stage(64, 128, 2)
        self.layer3 = stage(128, 256, 2)

    def forward(self, view: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, 256, ⌈H / 16⌉, ⌈W / 16⌉)."""
        maps = F.relu(self.bn1(self.conv1(view)), inplace=True)  # (B, 64, ⌈H / 2⌉, ⌈W / 2⌉)
        maps = F.max_pool2d(maps, 3, 2, 1)
        maps = self.layer1(maps)  # (B, 64, ⌈H / 4⌉, ⌈W / 4⌉)
        maps = self.layer2(maps)  # (B, 128, ⌈H / 8⌉, ⌈W / 8⌉)
        return self.layer3(maps)  # type: ignore[no-any-return]


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution, as ResNet's authors trained it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
