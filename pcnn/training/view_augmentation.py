"""Random views of taught faces: alignment, mirror images, coarseness, light and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.networks.movements import Motion, MovementConfig, mirrored
from pcnn.ops.reference import LUMA
from pcnn.training.teacher_answers import TEMPLATE, TaughtFaces


@dataclass(frozen=True)
class Placing:
    """How the placing of a face in its view varies at random.

    noise: the detector's error at each landmark, in distances between the eyes.
    turn: the largest turn, degrees. Half of the faces are turned by a fifth of it at most, as
        after an alignment.
    scale: the deviation of the scale's logarithm. shift: that of the place, in sides of the view.
    """

    noise: float = 0.03
    turn: float = 6.0
    scale: float = 0.05
    shift: float = 0.02


# Sides to which faces are shrunk, in pixels; a part of the faces keep theirs.
_SIDES, _UNSHRUNK, _PARTS = (20, 72), 0.4, 4
_GREY = 0.3  # share of coloured faces that lose their colours
_NOISE = 7.0  # the largest deviation, in levels


_MOVEMENTS_PLACING = Placing()


def random_views(
    faces: TaughtFaces,
    config: MovementConfig,
    twins: Tensor,
    generator: torch.Generator,
    placing: Placing = _MOVEMENTS_PLACING,
) -> tuple[Tensor, Motion]:
    """Views of faces as no alignment, light or camera keeps them, and what is to be seen there.

    twins: see MovementNet. generator: of all random choices.
    Returns (B, 3, S, S) float32, 0…1, and the Motion of each view.
    """
    count, size = len(faces), config.size
    where = _placements(faces.landmarks, size, generator, placing)  # (B, 2) complex, view → picture
    planes = faces.pictures.permute(0, 3, 1, 2).float() / 255
    views = _sample(planes, where, size)
    points = (torch.view_as_complex(faces.points.contiguous()) - where[:, 1:]) / where[:, :1]
    pose = faces.pose.clone()
    pose[:, 2] -= torch.rad2deg(where[:, 0].angle())
    seen = Motion(torch.view_as_real(points) / size, faces.movements, pose)
    mirror = torch.rand(count, generator=generator) < 0.5
    views = torch.where(mirror[:, None, None, None], views.flip(3), views)
    turned = mirrored(seen, config, twins)
    chosen = [
        torch.where(mirror.view(-1, *[1] * (own.dim() - 1)), other, own)
        for own, other in zip(seen, turned, strict=True)
    ]
    return degraded(views, generator), Motion(*chosen)


def _placements(
    landmarks: Tensor, size: int, generator: torch.Generator, placing: Placing
) -> Tensor:
    """For each face the similarity w ↦ a·w + b from the view to the picture, (B, 2) complex.

    It is that of the alignment with noise on the landmarks, then turned, scaled and shifted.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    count = len(landmarks)
    eyes = (landmarks[:, 1] - landmarks[:, 0]).norm(dim=1)[:, None, None]
    noisy = landmarks + placing.noise * eyes * normal(count, 5, 2)
    target = torch.view_as_complex(noisy)
    places = torch.view_as_complex(torch.tensor(TEMPLATE) * size)
    centred = places - places.mean()
    middle = target.mean(1, keepdim=True)
    a = ((target - middle) * centred.conj()).sum(1, keepdim=True) / centred.abs().square().sum()
    b = middle - a * places.mean()
    angle = math.radians(placing.turn) * (2 * torch.rand(count, 1, generator=generator) - 1)
    angle = torch.where(torch.rand(count, 1, generator=generator) < 0.5, angle / 5, angle)
    turn = torch.polar(torch.exp(placing.scale * normal(count, 1)), angle)
    shift = placing.shift * size * torch.view_as_complex(normal(count, 1, 2))
    centre = complex(size / 2, size / 2)
    return torch.cat((a * turn, a * (centre - centre * turn + shift) + b), 1)


def _sample(planes: Tensor, where: Tensor, size: int) -> Tensor:
    """Views (B, 3, size, size) of pictures (B, C, S, S), bilinear, with replicated edges."""
    steps = torch.arange(size) + 0.5
    pixels = torch.complex(steps.expand(size, size), steps[:, None].expand(size, size))
    places = where[:, :1, None] * pixels + where[:, 1:, None]  # (B, size, size)
    grid = 2 * torch.view_as_real(places) / planes.shape[-1] - 1
    views = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return views.expand(-1, 3, -1, -1)


def degraded(views: Tensor, generator: torch.Generator) -> Tensor:
    """Views (B, 3, S, S) of 0…1 with random grey, light, coarseness and noise; a new tensor."""
    count = len(views)

    def uniform() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator)

    def normal() -> Tensor:
        return torch.randn(count, 1, 1, 1, generator=generator)

    luma = (views * views.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    views = torch.where(uniform() < _GREY, luma, views)
    gamma, contrast, light = (0.25 * normal()).exp(), (0.2 * normal()).exp(), 0.06 * normal()
    mean = views.mean((1, 2, 3), keepdim=True)
    views = ((views - mean) * contrast + mean + light).clamp(1e-3, 1).pow(gamma)
    noise = _NOISE / 255 * uniform() * (uniform() < 0.5)
    parts = []
    for own, level in zip(views.tensor_split(_PARTS), noise.tensor_split(_PARTS), strict=True):
        parts.append(_coarse(own, level, generator))
    return torch.cat(parts).clamp(0, 1)


def _coarse(views: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Views shrunk to a random side and enlarged again, with noise at that side."""

    def noisy(maps: Tensor) -> Tensor:
        grain = torch.randn(len(maps), 1, *maps.shape[2:], generator=generator)
        return maps + noise * grain

    chance, place = torch.rand(2, generator=generator).tolist()
    if chance < _UNSHRUNK or not len(views):
        return noisy(views)
    low, high = _SIDES
    side = round(low * (high / low) ** place)
    small = F.interpolate(views, (side, side), mode="bilinear", antialias=True)
    options: dict[str, Any] = {"mode": "bicubic" if chance > 0.7 else "bilinear"}
    return F.interpolate(noisy(small), views.shape[2:], align_corners=False, **options)
