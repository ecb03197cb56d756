"""Backbones: the architectures of the network's trunks and its stage 4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from pcnn.errors import InputError
from pcnn.networks.mobilenet import MobileTrunk, mobile_stage4
from pcnn.networks.trunk import Trunk, resnet_stage4


@dataclass(frozen=True)
class Backbone:
    """A published network, split where its maps have stride 16.

    trunk: (input channels, width) → the part before the split.
    stage4: width → the part after the split, whose maps have stride 32.
    channels, features: the number of channels of both parts' maps, in units of the width.
    parts: names of the trunk's modules, from the deepest to the first. The norm of conv1 is bn1.
    """

    trunk: Callable[[int, int], nn.Module]
    stage4: Callable[[int], nn.Sequential]
    channels: int
    features: int
    parts: tuple[str, ...]


BACKBONES = {
    "resnet18": Backbone(
        Trunk,
        resnet_stage4,
        channels=4,
        features=8,
        parts=("layer3", "layer2", "layer1", "conv1"),
    ),
    "mobilenet": Backbone(
        MobileTrunk, mobile_stage4, channels=16, features=32, parts=("blocks", "conv1")
    ),
}


def find_backbone(name: str) -> Backbone:
    """The backbone of a name. Raises InputError: the name is unknown."""
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise InputError(f"ModelConfig: backbone must be one of {known}, got {name!r}")
    return BACKBONES[name]
