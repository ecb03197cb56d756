"""Predictions for a face together with its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from pcnn.networks.regions import VIEWS

# A function from views to logits (B, classes), and region name → that region's logits.
Forward: TypeAlias = Callable[[Sequence[Tensor]], tuple[Tensor, Mapping[str, Tensor]]]

# View → the view that takes its place in the mirror image.
TWINS = {
    name: name.replace("left", "right") if "left" in name else name.replace("right", "left")
    for name in VIEWS
}


def mirrored(views: Sequence[Tensor]) -> list[Tensor]:
    """The views of the mirrored face, with left and right exchanged.

    views: in the order of VIEWS, each (B, C, h, w), or only the face's view. Left and right views
        of a pair have the same size.
    """
    return exchanged([view.flip(3) for view in views])


def exchanged(images: Sequence[Tensor]) -> list[Tensor]:
    """The mirror images of views in the order of VIEWS, with left and right exchanged."""
    return [images[VIEWS.index(TWINS[name])] for name in VIEWS[: len(images)]]


def read_both(
    forward: Forward, views: Sequence[Tensor], images: Sequence[Tensor] | None = None
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The mean logits of faces and of their mirror images, in one pass.

    views: as for `mirrored`. images: the mirror image of each view; None makes them.
    Returns logits (B, classes), and region name → that region's logits (B, classes). These are
    the mean of the region and its counterpart in the mirror image.
    """
    twins = mirrored(views) if images is None else exchanged(images)
    both = [torch.cat(pair) for pair in zip(views, twins, strict=True)]
    logits, own = forward(both)
    faces = views[0].shape[0]  # len() would make it a constant in exported graphs
    means = {name: (own[name][:faces] + own[TWINS[name]][faces:]) / 2 for name in own}
    return (logits[:faces] + logits[faces:]) / 2, means
