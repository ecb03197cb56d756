"""Resampling of pictures and faces to other sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pcnn.ops.reference import LUMA

# The largest reduction of a side in one step on a GPU. PyTorch's kernel keeps the weights of the
# averaged pixels in shared memory. By its formula the memory ends at some 94; then it refuses.
_MOST_REDUCED = 64


def to_planes(faces: Tensor, channels: int | None = None) -> Tensor:
    """Convert a FaceSet's faces, (B, H, W) or (B, H, W, 3) uint8, to (B, C, H, W) float of 0…1.

    channels: 1 for grey (Rec. 601 luma of RGB), 3 for RGB, None for no change.
    """
    planes = (faces[:, None] if faces.dim() == 3 else faces.permute(0, 3, 1, 2)).float() / 255
    if channels == 1 and planes.shape[1] == 3:
        return (planes * planes.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return planes if channels is None else planes.expand(-1, channels, -1, -1)


def to_pictures(faces: Tensor) -> list[NDArray[np.uint8]]:
    """Convert a FaceSet's faces, (B, H, W) or (B, H, W, 3) uint8, to RGB pictures (H, W, 3)."""
    colours = faces if faces.dim() == 4 else faces[..., None].expand(-1, -1, -1, 3)
    return list(colours.cpu().contiguous().numpy())


def pixels_tensor(image: NDArray[np.uint8]) -> Tensor:
    """An image (H, W, 3) as a CPU tensor; copied if read-only or with negative strides."""
    if not image.flags.writeable or min(image.strides) < 0:
        image = image.copy()  # PyTorch warns about the first and refuses the second
    return torch.from_numpy(image)


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (H, W, 3) uint8 or float32 to another height and width, bilinear and antialiased.

    On a GPU very large reductions take several steps.
    """
    if size == pixels.shape[:2]:
        return pixels
    images = pixels.permute(2, 0, 1)[None]
    steps = reduction_steps(pixels.shape[:2], size) if pixels.is_cuda else [size]
    return resized_by_steps(images, steps)[0].permute(1, 2, 0)


def resized_by_steps(images: Tensor, steps: Sequence[tuple[int, int]]) -> Tensor:
    """Images (B, C, H, W) resized to one height and width after the other."""
    for step in steps:
        images = F.interpolate(images, step, mode="bilinear", antialias=True)
    return images


def reduction_steps(given: Sequence[int], size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes on the way from one height and width to another, which is the last.

    No step reduces a side by more than a GPU can.
    """
    height, width = (
        max(wanted, -(-side // _MOST_REDUCED)) for side, wanted in zip(given, size, strict=True)
    )
    step = height, width
    return [step] if step == size else [step, *reduction_steps(step, size)]


def resample(faces: Tensor, size: int) -> Tensor:
    """Resize (B, C, h, w) to (B, C, size, size): bilinear, half-pixel centres, replicated edges."""
    batch, channels = faces.shape[:2]
    theta = torch.eye(2, 3, device=faces.device).expand(batch, 2, 3)
    grid = F.affine_grid(theta, [batch, channels, size, size], align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)
