"""Running a network over faces that are already cut out, as training and scoring do."""

from __future__ import annotations

import torch
from torch import Tensor

from pcnn.augment import resample
from pcnn.model import PCNN, FaceNet, ModelConfig


def normalise(faces: Tensor, config: ModelConfig) -> Tensor:
    """(B, C, H, W) of 0…1 → the network's input of the same shape, channels-last."""
    mean = faces.new_tensor(config.mean).view(1, -1, 1, 1)
    std = faces.new_tensor(config.std).view(1, -1, 1, 1)
    return ((faces - mean) / std).to(memory_format=torch.channels_last)


@torch.no_grad()
def predict_logits(
    network: PCNN | FaceNet, faces: Tensor, *, batch: int = 128
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of grey faces, by the network in eval mode.

    faces: (N, h, w) uint8, N ≥ 1. batch: faces in one forward pass.
    Returns logits (N, classes) and region name → that region's own logits (N, classes); a
    FaceNet has no regions.
    """
    network.eval()
    logits, regions = [], []
    for chunk in faces.split(batch):
        views = resample(chunk[:, None].float() / 255, network.config.size)
        face = normalise(views, network.config)
        if isinstance(network, PCNN):
            answer, own = network.forward_views(network.cut(face))
            regions.append(own)
        else:
            answer = network(face)
        logits.append(answer)
    names = regions[0] if regions else {}
    return torch.cat(logits), {name: torch.cat([own[name] for own in regions]) for name in names}
