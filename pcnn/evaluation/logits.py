"""A network's logits for cut-out faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pcnn.datasets.labels import Picture
from pcnn.devices import own_settings
from pcnn.faces.alignment import crop_detector, crop_transforms
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
    batch: int = 128,
    native_size: int | None = None,
    mirror: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of faces, computed on the network's device. Sets the network to eval mode.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1. They are resized to the network's
        face view and converted to grey or RGB, as it needs.
    batch: faces in one forward pass.
    native_size: the side of the network's training faces. Larger faces are blurred to the same
        detail, as in `Recognizer.predict_crops`. None treats them as in training.
    mirror: average the logits of each face and its mirror image, see mirror.read_both.
    Returns, on the CPU, logits (N, classes) and region name → that region's logits (N, classes).
    A FaceNet has no regions.
    """
    network.eval()
    device = next(network.parameters()).device
    logits, regions = [], []
    for chunk in faces.split(batch):
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
def picture_logits(
    loaded: ExpressionWeights,
    pictures: Sequence[Picture],
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
    *,
    batch: int = 64,
    mirror: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits of pictures of any sizes, each read at its own size as in `predict_crops`.

    pictures: N ≥ 1 files, or arrays (H, W) or (H, W, 3) uint8, each of one face. Files are read
        when their turn comes. detector: see alignment.suited_faces.
    batch: the most faces in one forward pass.
    mirror: True reads the mirror images, too.
    Shows its progress on stderr, if that is a terminal. Sets the network to eval mode.
    Returns, on the CPU, logits (N, classes) of the faces, and their means with those of the mirror
    images; without `mirror` both are the same.
    Raises InputError: a picture cannot be read.
    """
    network = loaded.network.eval()
    device = next(network.parameters()).device
    finder = crop_detector(loaded, detector)
    alone, both = [], []
    step = min(batch, _PICTURES_AT_ONCE)
    for start in track(range(0, len(pictures), step), "evaluating"):
        pixels = [load_image(picture) for picture in pictures[start : start + step]]
        views = cut_views(
            pixels,
            crop_transforms(pixels, loaded.template, network.config, finder),
            network.config,
            native_size=loaded.native_size,
            device=device,
            names=network.views,
            mirror=mirror,
        )
        count = len(network.views)
        answers = [network.forward_views(views[:count])[0]]
        if mirror:
            answers.append(network.forward_views(exchanged(views[count:]))[0])
        alone.append(answers[0])
        both.append(torch.stack(answers).mean(0))
    return torch.cat(alone).cpu(), torch.cat(both).cpu()
