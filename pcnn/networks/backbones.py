"""What the network's trunks and its stage 4 can be made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from pcnn.errors import InputError
from pcnn.networks.mobilenet import MobileTrunk, mobile_stage4
from pcnn.networks.trunk import Trunk, resnet_stage4


@dataclass(frozen=True)
class Backbone:
    """A published network, cut where its maps have stride 16.

    trunk: (input channels, width) → the part before the cut.
    stage4: width → the part behind it, whose maps have stride 32.
    channels, features: of the maps of both parts, in units of the width.
    parts: the trunk's modules, from the deepest to the pixels; conv1 has its norm bn1 beside it.
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
    """A backbone by its name. Raises InputError: there is none of this name."""
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise InputError(f"ModelConfig: backbone must be one of {known}, got {name!r}")
    return BACKBONES[name]
