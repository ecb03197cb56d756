"""A network's logits for cut-out faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pcnn.datasets.labels import Picture
from pcnn.devices import own_settings
from pcnn.faces.alignment import crop_detector, crop_transforms, suited_faces
from pcnn.faces.interface import FaceDetector
from pcnn.faces.views import cut_views, network_views
from pcnn.images.loading import load_image
from pcnn.networks.ensemble import ExpressionNetwork
from pcnn.networks.mirror import exchanged, read_both
from pcnn.terminal import track
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.known import DEFAULT_DETECTOR

_PICTURES_AT_ONCE = 16  # held in memory at their full size


@own_settings()
@torch.no_grad()
def predict_logits(
    network: ExpressionNetwork,
    faces: Tensor,
    *,
    batch_size: int = 128,
    native_size: int | None = None,
    mirror: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of faces, computed on the network's device. Sets the network to eval mode.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1. They are resized to the network's
        face view and converted to grey or RGB, as it needs.
    batch_size: faces in one forward pass.
    native_size: the side of the network's training faces. Larger faces are blurred to the same
        detail, as in `Recognizer.predict_crops`. None treats them as in training.
    mirror: average the logits of each face and its mirror image, see mirror.read_both.
    Returns, on the CPU, logits (N, classes) and region name → that region's logits (N, classes).
    A FaceNet has no regions.
    """
    network.eval()
    device = next(network.parameters()).device
    logits, regions = [], []
    for chunk in faces.split(batch_size):
        views = network_views(network, chunk.to(device), native_size)
        forward = network.forward_views
        answer, own = read_both(forward, views) if mirror else forward(views)
        logits.append(answer)
        regions.append(own)
    return torch.cat(logits).cpu(), {
        name: torch.cat([own[name] for own in regions]).cpu() for name in regions[0]
    }


@own_settings()
@torch.no_grad()
def face_logits(
    loaded: ExpressionWeights,
    faces: Tensor,
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
    *,
    batch_size: int = 64,
    mirror: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits of faces of one size, and their means with those of the mirror images.

    faces: as in predict_logits. detector: see alignment.suited_faces.
    batch_size, mirror, progress and what is returned: as in picture_logits.
    """
    network = loaded.network.eval()
    device = next(network.parameters()).device
    pixels, native_size = suited_faces(loaded, faces, detector)
    parts = []
    for chunk in track(pixels.split(batch_size), "evaluating"):
        views = network_views(network, chunk.to(device), native_size)
        images = [view.flip(3) for view in views] if mirror else []
        parts.append(_alone_and_both(network, views, images))
    return _joined(parts)


@own_settings()
@torch.no_grad()
def picture_logits(
    loaded: ExpressionWeights,
    pictures: Sequence[Picture],
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
    *,
    batch_size: int = 64,
    mirror: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits of pictures of any sizes, each read at its own size as in `predict_crops`.

    pictures: N ≥ 1 files, or arrays (H, W) or (H, W, 3) uint8, each of one face. Files are read
        when their turn comes; few are held at once. detector: see alignment.suited_faces.
    batch_size: faces in one forward pass.
    mirror: True reads the mirror images, too, in a second pass.
    Shows its progress on stderr, if that is a terminal. Sets the network to eval mode.
    Returns, on the CPU, logits (N, classes) of the faces, and their means with those of the mirror
    images; without `mirror` both are the same.
    Raises InputError: a picture cannot be read.
    """
    network = loaded.network.eval()
    count = len(network.views)
    finder = crop_detector(loaded, detector)
    parts = []
    for start in track(range(0, len(pictures), batch_size), "evaluating"):
        chunk = pictures[start : start + batch_size]
        cut = [
            _picture_views(loaded, chunk[at : at + _PICTURES_AT_ONCE], finder, mirror=mirror)
            for at in range(0, len(chunk), _PICTURES_AT_ONCE)
        ]
        views = [torch.cat(own) for own in zip(*cut, strict=True)]
        parts.append(_alone_and_both(network, views[:count], views[count:]))
    return _joined(parts)


def _picture_views(
    loaded: ExpressionWeights,
    pictures: Sequence[Picture],
    finder: FaceDetector | None,
    *,
    mirror: bool,
) -> list[Tensor]:
    """The views of pictures, (B, C, h, w) each, and then their mirror images, see cut_views."""
    network = loaded.network
    pixels = [load_image(picture) for picture in pictures]
    return cut_views(
        pixels,
        crop_transforms(pixels, loaded.template, network.config, finder),
        network.config,
        native_size=loaded.native_size,
        device=next(network.parameters()).device,
        names=network.views,
        mirror=mirror,
    )


def _alone_and_both(
    network: ExpressionNetwork, views: Sequence[Tensor], images: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits (B, classes) of faces, and their means with those of the mirror images.

    images: the mirror image of each view; none makes both the same.
    """
    alone, _ = network.forward_views(views)
    if not images:
        return alone, alone
    mirrored, _ = network.forward_views(exchanged(images))
    return alone, (alone + mirrored) / 2


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    alone, both = zip(*parts, strict=True)
    return torch.cat(alone).cpu(), torch.cat(both).cpu()
