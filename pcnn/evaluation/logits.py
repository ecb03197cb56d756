"""A network's logits for cut-out faces."""

from __future__ import annotations

import torch
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.faces.views import network_views
from pcnn.networks.ensemble import ExpressionNetwork
from pcnn.networks.mirror import read_both


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
