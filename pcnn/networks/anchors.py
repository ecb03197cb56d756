"""Anchors, and the coding of boxes and landmarks relative to them.

An anchor is a square at a fixed place. For every anchor, RetinaFace (Deng et al., CVPR 2020,
section 3.2) predicts the offsets of a face's box and landmarks. All values are in pixels of the
network's input. Boxes are x1 y1 x2 y2; anchors are centre x, centre y, width, height.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from pcnn.errors import InputError, check_shape
from pcnn.ops.reference import LARGEST_EXPONENT

# The largest number of grids that are kept, of all devices: those of some ten shapes of pictures,
# each searched whole, halved and quartered. A grid of 640 × 640 pixels has 269 KB, 32 have 8.6 MB.
_MOST_KEPT = 32


def anchor_grid(
    height: int,
    width: int,
    *,
    min_sizes: Sequence[Sequence[float]],
    steps: Sequence[int],
    device: str | torch.device = "cpu",
) -> Tensor:
    """All anchors of an input of `height` × `width` pixels.

    min_sizes: the sides of the squares at each cell, in pixels, one sequence for each level.
    steps: distance between cells in pixels, one for each level.
    device: of the result.
    Returns (N, 4) float32, cx cy w h, ordered by level, row, column, then size as given. A level
        has ceil(height / step) × ceil(width / step) cells. The last 32 results are kept and
        shared: do not write to them.
    Raises InputError: sizes not positive, or a different number of levels in both lists.
    """
    levels = tuple(tuple(float(size) for size in sizes) for sizes in min_sizes)
    if height < 1 or width < 1:
        raise InputError(
            f"anchor_grid: height and width must be at least 1, got {height} × {width}"
        )
    if len(levels) != len(steps) or not levels:
        raise InputError(
            f"anchor_grid: min_sizes must have one entry for each step, {len(steps)}, "
            f"got {len(levels)}"
        )
    if any(step < 1 for step in steps) or any(size <= 0 for sizes in levels for size in sizes):
        raise InputError(
            f"anchor_grid: min_sizes and steps must be positive, got {levels}, {steps}"
        )
    anchors = _anchor_grid(height, width, levels, tuple(steps), torch.device(device))
    if anchors.is_cuda:  # its memory must not be reused while this stream still reads it
        anchors.record_stream(torch.cuda.current_stream(anchors.device))
    return anchors


@lru_cache(maxsize=_MOST_KEPT)
def _anchor_grid(
    height: int,
    width: int,
    levels: tuple[tuple[float, ...], ...],
    steps: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    grids = []
    # Later calls use this tensor too, so it must not be an inference tensor.
    with torch.inference_mode(False):
        for sizes, step in zip(levels, steps, strict=True):
            centre_y = (torch.arange(ceil(height / step)) + 0.5) * step
            centre_x = (torch.arange(ceil(width / step)) + 0.5) * step
            y, x, side = torch.meshgrid(centre_y, centre_x, torch.tensor(sizes), indexing="ij")
            grids.append(torch.stack([x, y, side, side], dim=-1).reshape(-1, 4))
        return torch.cat(grids).to(device)


def encode_boxes(boxes: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The offsets that the network should predict for `boxes`; the inverse of `decode_boxes`.

    boxes: (..., N, 4) float32, x1 y1 x2 y2, with positive width and height.
    anchors: (N, 4) float32, cx cy w h.
    variances: the scales of centre and size offsets.
    Returns (..., N, 4): centre offsets in anchor sides, then log size ratios, each divided by
        its variance.
    Raises InputError: shapes do not agree, or variances are not positive.
    """
    _check_coding("encode_boxes", "boxes", boxes, anchors, variances, 4)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = boxes[..., 2:] - boxes[..., :2]
    offsets = (centres - anchors[:, :2]) / (anchors[:, 2:] * variances[0])
    return torch.cat([offsets, (sizes / anchors[:, 2:]).log() / variances[1]], dim=-1)


def decode_boxes(offsets: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The boxes of the network's `offsets`; the inverse of `encode_boxes`.

    offsets: (..., N, 4) float32, as `encode_boxes` returns them.
    Returns (..., N, 4), x1 y1 x2 y2, pixels; may reach outside the image.
    Raises InputError: as `encode_boxes`.
    """
    _check_coding("decode_boxes", "offsets", offsets, anchors, variances, 4)
    centres = anchors[:, :2] + offsets[..., :2] * variances[0] * anchors[:, 2:]
    exponents = (offsets[..., 2:] * variances[1]).clamp(max=LARGEST_EXPONENT)
    halves = anchors[:, 2:] * exponents.exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def encode_landmarks(landmarks: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The offsets that the network should predict for `landmarks`; inverse of `decode_landmarks`.

    landmarks: (..., N, 10) float32, x and y of each of five points, pixels.
    anchors, variances: as in `encode_boxes`; the second variance is unused.
    Returns (..., N, 10): offsets in anchor sides, divided by the variance.
    Raises InputError: as `encode_boxes`.
    """
    _check_coding("encode_landmarks", "landmarks", landmarks, anchors, variances, 10)
    return (landmarks - anchors[:, :2].repeat(1, 5)) / (anchors[:, 2:].repeat(1, 5) * variances[0])


def decode_landmarks(offsets: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The landmarks of the network's `offsets`; the inverse of `encode_landmarks`.

    offsets: (..., N, 10) float32.
    Returns (..., N, 10), x and y of each of five points, pixels.
    Raises InputError: as `encode_boxes`.
    """
    _check_coding("decode_landmarks", "offsets", offsets, anchors, variances, 10)
    scale = anchors[:, 2:].repeat(1, 5) * variances[0]
    return anchors[:, :2].repeat(1, 5) + offsets * scale


def _check_coding(  # noqa: PLR0913, PLR0917 - private: one check for four public functions
    function: str,
    name: str,
    values: Tensor,
    anchors: Tensor,
    variances: tuple[float, float],
    columns: int,
) -> None:
    check_shape(function, "anchors", anchors, (None, 4))
    if values.dim() < 2 or values.shape[-2:] != (len(anchors), columns):
        raise InputError(
            f"{function}: {name} must be (..., {len(anchors)}, {columns}), "
            f"got {tuple(values.shape)}"
        )
    if len(variances) != 2 or not all(own > 0 for own in variances):
        raise InputError(f"{function}: variances must be two positive numbers, got {variances}")
