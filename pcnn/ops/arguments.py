"""Checks of the ops' arguments, with messages for users."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcnn.errors import InputError, check_shape

_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_REGIONS = ("left eye", "right eye", "left cheek", "right cheek", "mouth")
# The numbers of a prediction: the logit of a face, its box, five landmarks.
_VALUES = 15
# The largest number of faces of an image, kMostFaces of the compiled code.
_MOST_FACES = 2048

# For one face detailed checks would cost more than the ops. So a single expression accepts valid
# arguments, and only invalid ones are examined for the message.


def stitchable(regions: Sequence[Tensor], size: tuple[int, int]) -> bool:
    try:
        left_eye, right_eye, left_cheek, right_cheek, mouth = regions
        shapes = [region.shape for region in regions]
        (b1, c1, h1, w1), (b2, c2, h2, w2), (b3, c3, h3, w3), (b4, c4, h4, w4), last = shapes
        batch, channels, height, width = last
    except ValueError:  # not five, or not of four dimensions
        return False
    dtype, device = mouth.dtype, mouth.device
    return (
        b1 == b2 == b3 == b4 == batch
        and c1 == c2 == c3 == c4 == channels > 0
        and h1 == h2 > 0 < h3 == h4
        and height > 0
        and w1 > 0 < w2
        and w3 > 0 < w4
        and size[0] > 0 < size[1] == width
        and dtype in _FLOATING
        and left_eye.dtype == right_eye.dtype == left_cheek.dtype == right_cheek.dtype == dtype
        and left_eye.device == right_eye.device == left_cheek.device == right_cheek.device == device
    )


def refuse_regions(regions: Sequence[Tensor], size: tuple[int, int]) -> None:
    if len(regions) != 5:
        raise InputError(f"stitch_regions: regions must be 5 maps, got {len(regions)}")
    first = regions[0]
    check_shape("stitch_regions", "left eye", first, (None, None, None, None))
    check_floating("stitch_regions", "left eye", first)
    if min(size) < 1:
        raise InputError(f"stitch_regions: size must be at least 1 × 1, got {tuple(size)}")
    batch, channels = first.shape[:2]
    for name, region in zip(_REGIONS, regions, strict=True):
        check_shape("stitch_regions", name, region, (batch, channels, None, None))
        check_dtype("stitch_regions", name, region, first.dtype)
        check_device("stitch_regions", name, region, first)
        check_pixels("stitch_regions", name, region)
    for left in (0, 2):
        same_height = (batch, channels, regions[left].shape[2], None)
        check_shape("stitch_regions", _REGIONS[left + 1], regions[left + 1], same_height)
    check_shape("stitch_regions", "mouth", regions[4], (batch, channels, None, size[1]))


def warpable(stitched: Tensor, theta: Tensor, face: Tensor) -> bool:
    shape = face.shape
    return (
        len(shape) == 4
        and stitched.shape == shape
        and theta.shape == (shape[0], 2, 3)
        and shape[1] > 0 < shape[2]
        and shape[3] > 0
        and stitched.dtype == face.dtype
        and face.dtype in _FLOATING
        and theta.dtype in _FLOATING
        and stitched.device == theta.device == face.device
    )


def refuse_maps(stitched: Tensor, theta: Tensor, face: Tensor) -> None:
    check_shape("warp_add", "stitched", stitched, (None, None, None, None))
    check_floating("warp_add", "stitched", stitched)
    check_pixels("warp_add", "stitched", stitched)
    check_shape("warp_add", "face", face, stitched.shape)
    check_shape("warp_add", "theta", theta, (stitched.shape[0], 2, 3))
    check_floating("warp_add", "theta", theta)
    check_dtype("warp_add", "face", face, stitched.dtype)
    check_device("warp_add", "face", face, stitched)
    check_device("warp_add", "theta", theta, stitched)


def check_predictions(predictions: Tensor, anchors: Tensor, variances: Sequence[float]) -> None:
    """The checks of decode_faces' tensors and variances."""
    check_shape("decode_faces", "predictions", predictions, (None, None, _VALUES))
    check_shape("decode_faces", "anchors", anchors, (predictions.shape[1], 4))
    for name, tensor in (("predictions", predictions), ("anchors", anchors)):
        check_dtype("decode_faces", name, tensor, torch.float32)
    check_device("decode_faces", "anchors", anchors, predictions)
    if len(variances) != 2 or not all(0 < own < math.inf for own in variances):
        raise InputError(
            f"decode_faces: variances must be two positive finite numbers, got {tuple(variances)}"
        )


def check_limits(
    min_score: float, iou: float, most: int, hint_score: float, hint_side: float
) -> None:
    """The checks of decode_faces' other numbers."""
    for name, value in (("min_score", min_score), ("iou", iou), ("hint_score", hint_score)):
        if not 0 <= value <= 1:
            raise InputError(f"decode_faces: {name} must be 0…1, got {value}")
    if not 1 <= most <= _MOST_FACES:
        raise InputError(f"decode_faces: most must be 1…{_MOST_FACES}, got {most}")
    if not hint_side >= 0:
        raise InputError(f"decode_faces: hint_side must be at least 0, got {hint_side}")


def check_crop(  # noqa: PLR0913, PLR0917
    function: str,
    image: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> None:
    """The checks that crop_regions and landmark_crop share."""
    check_shape(function, "image", image, (None, None, 3))
    check_dtype(function, "image", image, torch.uint8)
    if image.numel() == 0:
        raise InputError(f"{function}: image must have pixels, got {tuple(image.shape)}")
    if len(mean) not in (1, 3) or len(std) != len(mean) or min(std) <= 0:
        raise InputError(
            f"{function}: mean and std must be one (grey) or three (RGB) numbers, std above 0, "
            f"got {tuple(mean)} and {tuple(std)}"
        )
    if not all(map(math.isfinite, (*mean, *std))):
        raise InputError(
            f"{function}: mean and std must be finite, got {tuple(mean)} and {tuple(std)}"
        )
    if not 0 < footprint < math.inf:
        raise InputError(f"{function}: footprint must be finite and above 0, got {footprint}")
    if dtype not in _FLOATING:
        raise InputError(f"{function}: dtype must be floating, got {dtype}")


def check_dtype(function: str, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise InputError(f"{function}: {name} must be {dtype}, got {tensor.dtype}")


def check_floating(function: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _FLOATING:
        raise InputError(f"{function}: {name} must be of a floating dtype, got {tensor.dtype}")


def check_pixels(function: str, name: str, tensor: Tensor) -> None:
    if 0 in tensor.shape[1:]:
        raise InputError(
            f"{function}: {name} must have channels and pixels, got {tuple(tensor.shape)}"
        )


def check_device(function: str, name: str, tensor: Tensor, other: Tensor) -> None:
    if tensor.device != other.device:
        raise InputError(f"{function}: {name} must be on {other.device}, got {tensor.device}")
