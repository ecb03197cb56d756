"""Over-exposure of training faces."""

from __future__ import annotations

import torch
from torch import Tensor

_SHARE = 0.15  # of the faces of a batch, each by chance


def over_expose(faces: Tensor, most: float, generator: torch.Generator | None = None) -> Tensor:
    """Over-expose some of the faces at random.

    faces: (B, C, H, W) float, 0…1. most: the largest factor; factors are uniform in the logarithm.
        Values above 1 become 1. The darkest level left is moved towards 0 by a random share, as
        the correction of poor light does (see faces.light).
    generator: of all random choices; None for PyTorch's own.
    Returns a new tensor of the same shape, 0…1.
    """
    each = (len(faces), 1, 1, 1)
    chance, power, moved = (
        torch.rand(each, generator=generator, device=faces.device) for _ in range(3)
    )
    bright = (faces * most**power).clamp(0, 1)
    low = moved * bright.amin((1, 2, 3), keepdim=True).clamp(max=0.9)
    return torch.where(chance < _SHARE, (bright - low) / (1 - low), faces)
