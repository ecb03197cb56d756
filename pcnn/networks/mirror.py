"""A face and its mirror image, read together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from pcnn.networks.regions import VIEWS

# A network's way from views to logits, and region name → its own logits.
Forward: TypeAlias = Callable[[Sequence[Tensor]], tuple[Tensor, Mapping[str, Tensor]]]

# Where each view is found in the mirror image.
TWINS = {
    name: name.replace("left", "right") if "left" in name else name.replace("right", "left")
    for name in VIEWS
}


def mirrored(views: Sequence[Tensor]) -> list[Tensor]:
    """The views of the mirrored face: left and right change places.

    views: in the order of VIEWS, each (B, C, h, w), a pair's members of one size; or the face's
    alone.
    """
    places = [VIEWS.index(TWINS[name]) for name in VIEWS[: len(views)]]
    return [views[place].flip(3) for place in places]


def read_both(forward: Forward, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The mean logits of faces and of their mirror images, in one pass.

    views: as for `mirrored`. Returns logits (B, classes) and region name → its own (B, classes),
    a region's from itself and from its twin in the mirror.
    """
    both = [torch.cat(pair) for pair in zip(views, mirrored(views), strict=True)]
    logits, own = forward(both)
    faces = views[0].shape[0]  # len would fix it in exported graphs
    means = {name: (own[name][:faces] + own[TWINS[name]][faces:]) / 2 for name in own}
    return (logits[:faces] + logits[faces:]) / 2, means
