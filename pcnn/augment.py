"""Random variations of grey training faces, a batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How far each variation goes.

    rotation_deg: at most this far either way. scale: factor between 1 − scale and 1 + scale.
    shift: at most this fraction of the side. contrast: as scale. brightness: at most this much
    of the full range. erase: the probability that a rectangle of 10–40 % of the side is erased.
    """

    rotation_deg: float = 20
    scale: float = 0.15
    shift: float = 0.08
    contrast: float = 0.3
    brightness: float = 0.15
    erase: float = 0.25


def augment(faces: Tensor, size: int, options: Augmentation, generator: torch.Generator) -> Tensor:
    """Faces varied at random and resampled to the network's size.

    faces: (B, 1, h, w) float, 0…1. Returns (B, 1, size, size) float, about 0…1.
    Each face is flipped with probability ½; positions outside read the nearest edge.
    """
    batch = faces.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    angle = uniform(-1, 1) * math.radians(options.rotation_deg)
    zoom = uniform(1 - options.scale, 1 + options.scale)
    mirror = uniform(-1, 1).sign()
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    # Two normalised units to a side, hence 2 · shift.
    shift_x, shift_y = 2 * options.shift * uniform(-1, 1), 2 * options.shift * uniform(-1, 1)
    theta = torch.stack((mirror * cosine, -mirror * sine, shift_x, sine, cosine, shift_y), 1).view(
        batch, 2, 3
    )
    varied = resample(faces, size, theta)
    gain = uniform(1 - options.contrast, 1 + options.contrast).view(-1, 1, 1, 1)
    offset = uniform(-options.brightness, options.brightness).view(-1, 1, 1, 1)
    middle = varied.mean((2, 3), keepdim=True)
    varied = ((varied - middle) * gain + middle + offset).clamp(0, 1)
    return torch.where(_rectangles(batch, size, options.erase, generator), middle, varied)


def resample(faces: Tensor, size: int, theta: Tensor | None = None) -> Tensor:
    """(B, C, h, w) → (B, C, size, size), bilinear about half-pixel centres, edges replicated.

    theta: (B, 2, 3) affine maps of normalised coordinates, identity if None.
    """
    batch, channels = faces.shape[:2]
    if theta is None:
        theta = torch.eye(2, 3, device=faces.device).expand(batch, 2, 3)
    grid = F.affine_grid(theta.to(faces.device), [batch, channels, size, size], align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)


def _rectangles(batch: int, size: int, probability: float, generator: torch.Generator) -> Tensor:
    """(B, 1, size, size) bool: a random rectangle in some of the faces, none in the others."""
    draw = torch.rand((5, batch, 1), generator=generator)
    sides = (0.1 + 0.3 * draw[0:2]) * (draw[4] < probability)  # (2, B, 1)
    starts = draw[2:4] * (1 - sides)
    at = (torch.arange(size) + 0.5) / size
    inside = (at >= starts) & (at < starts + sides)  # (2, B, size)
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
