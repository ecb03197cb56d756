"""Memory for the ops' results; also their shapes where nothing is computed (torch.compile)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def empty_views(  # noqa: PLR0913, PLR0917
    image: Tensor,
    transforms: Tensor,
    heights: Sequence[int],
    widths: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    faces, channels = transforms.shape[0], len(mean)
    return [
        image.new_empty((faces, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)
        for height, width in zip(heights, widths, strict=True)
    ]


def empty_crops(  # noqa: PLR0913, PLR0917
    image: Tensor,
    landmarks: Tensor,
    template: Sequence[float],
    boxes: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    mirror: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    heights = [bottom - top for top, bottom in zip(boxes[::4], boxes[2::4], strict=True)]
    widths = [right - left for left, right in zip(boxes[1::4], boxes[3::4], strict=True)]
    times = 2 if mirror else 1
    return empty_views(
        image, landmarks, heights * times, widths * times, mean, std, footprint, dtype
    )


def empty_faces(
    predictions: Tensor,
    anchors: Tensor,
    variances: Sequence[float],
    limits: Sequence[float],
    most: int,
) -> Tensor:
    return predictions.new_empty((predictions.shape[0], 1 + most, predictions.shape[2]))


def faces_work(predictions: Tensor, most: int) -> tuple[Tensor, ...]:
    """The workspace of the CUDA kernels of decode_faces (FacesWork in csrc/decode_faces.h)."""
    batch, count, values = predictions.shape
    like = predictions.new_empty
    return (
        predictions.new_zeros((batch, 2), dtype=torch.int32),
        like((2, batch, count), dtype=torch.int64),
        like((batch, most, values)),
        like((batch, most, -(-most // 64)), dtype=torch.int64),
    )


def empty_stitched(  # noqa: PLR0913, PLR0917
    left_eye: Tensor,
    right_eye: Tensor,
    left_cheek: Tensor,
    right_cheek: Tensor,
    mouth: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Memory for the stitched map, in the memory layout of the mouth's map."""
    batch, channels, _, _ = mouth.shape
    if mouth.is_contiguous() or not mouth.is_contiguous(memory_format=torch.channels_last):
        strides = (channels * height * width, height * width, width, 1)
    else:
        strides = (height * width * channels, 1, width * channels, channels)
    # torch's quickest allocation, which matters for a single face.
    return mouth.new_empty_strided((batch, channels, height, width), strides)


def empty_fused(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    return torch.empty_like(face)
