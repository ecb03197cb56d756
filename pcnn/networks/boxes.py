"""Overlaps of boxes and non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from pcnn.errors import InputError, check_shape, is_number

# The rows of the overlap matrix that `nms` holds at a time: 1024 × N floats.
_NMS_BLOCK = 1024


def box_overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of each box in `first` with each in `second`.

    first: (N, 4), second: (M, 4) float32, x1 y1 x2 y2.
    Returns (N, M) float32, 0…1. A box without area has no overlap.
    Raises InputError: wrong shape.
    """
    check_shape("box_overlaps", "first", first, (None, 4))
    check_shape("box_overlaps", "second", second, (None, 4))
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])  # (N, M, 2)
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=-1)
    union = _areas(first)[:, None] + _areas(second)[None, :] - intersection
    return torch.where(union > 0, intersection / union.clamp(min=1e-12), 0.0)


def nms(boxes: Tensor, scores: Tensor, *, iou: float) -> Tensor:
    """Indices of boxes kept by greedy suppression, best first.

    boxes: (N, 4) float32, x1 y1 x2 y2, pixels.
    scores: (N,) float32, same device; ties keep the lower index.
    iou: 0…1; overlap strictly above it is suppressed.
    Returns (K,) int64; N = 0 gives an empty one.
    Raises InputError: wrong shape, dtype, device or range.
    """
    _check_nms(boxes, scores, iou)
    order = scores.sort(descending=True, stable=True).indices
    ranked = boxes[order].cpu()
    alive = torch.ones(len(ranked), dtype=torch.bool)
    for start in range(0, len(ranked), _NMS_BLOCK):
        block = ranked[start : start + _NMS_BLOCK]
        rivals = box_overlaps(block, ranked[start:]) > iou  # (≤ block, N - start)
        for row in range(len(block)):
            if alive[start + row]:
                alive[start + row + 1 :] &= ~rivals[row, row + 1 :]
    return order[alive.to(order.device)]


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)


def _check_nms(boxes: Tensor, scores: Tensor, iou: float) -> None:
    check_shape("nms", "boxes", boxes, (None, 4))
    check_shape("nms", "scores", scores, (len(boxes),))
    for name, tensor in (("boxes", boxes), ("scores", scores)):
        if tensor.dtype != torch.float32:
            raise InputError(f"nms: {name} must be float32, got {tensor.dtype}; use .float()")
    if boxes.device != scores.device:
        raise InputError(
            f"nms: boxes and scores must be on one device, got {boxes.device}, {scores.device}"
        )
    if not is_number(iou) or not 0 <= iou <= 1:
        raise InputError(f"nms: iou must be 0…1, got {iou!r}")
