"""The operations the network is made of that PyTorch has not: checked, then carried out.

The environment variable PCNN_OPS, read when pcnn is imported, says by what: `auto` takes the
compiled code wherever it is built and knows the device and element type, and plain PyTorch
elsewhere; `native` raises NativeError rather than fall back; `reference` takes plain PyTorch.
Image coordinates count pixel centres: pixel (0, 0) is the centre of the upper left pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcnn.errors import InputError, check_shape
from pcnn.ops import native, reference

__all__ = ["crop_regions", "describe", "stitch_regions", "warp_add"]

_implementation = reference if native.choice == "reference" else native
_FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_REGIONS = ("left eye", "right eye", "left cheek", "right cheek", "mouth")


def crop_regions(  # noqa: PLR0913
    image: Tensor,
    transforms: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The views of every face of an image, cut out, resampled and normalised.

    image: (H, W, 3) uint8 RGB, at least one pixel.
    transforms: (F, V, 2, 3) float32, same device; view pixel (x, y, 1) → image pixel.
    sizes: V pairs (height, width), the views' sizes in pixels.
    mean, std: of values 0…1; three for RGB, one for grey (Rec. 601 luma).
    footprint: the side of the square that one view pixel averages, in view pixels; 1 resolves
        all that the view can hold, more blurs to the resolution of coarser training pictures.
    Returns V tensors (F, C, height, width) of `dtype`, channels-last; F = 0 gives empty ones.
    Positions outside the image read its nearest edge pixel. Where a view shrinks the image,
    k × k bilinear samples are averaged, k = ceil(scale · footprint), so nothing aliases.
    Raises InputError: wrong shape, dtype, device or value.
    """
    check_shape("crop_regions", "image", image, (None, None, 3))
    check_shape("crop_regions", "transforms", transforms, (None, len(sizes), 2, 3))
    _check_dtype("crop_regions", "image", image, torch.uint8)
    _check_dtype("crop_regions", "transforms", transforms, torch.float32)
    _check_device("crop_regions", "transforms", transforms, image)
    if image.numel() == 0:
        raise InputError(f"crop_regions: image must have pixels, got {tuple(image.shape)}")
    if any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise InputError(
            f"crop_regions: sizes must be (height, width) of at least 1 × 1, got {list(sizes)}"
        )
    if len(mean) not in (1, 3) or len(std) != len(mean) or min(std) <= 0:
        raise InputError(
            "crop_regions: mean and std must be one (grey) or three (RGB) numbers, std above 0, "
            f"got {tuple(mean)} and {tuple(std)}"
        )
    if not all(map(math.isfinite, (*mean, *std))):
        raise InputError(
            f"crop_regions: mean and std must be finite, got {tuple(mean)} and {tuple(std)}"
        )
    if not 0 < footprint < math.inf:
        raise InputError(f"crop_regions: footprint must be finite and above 0, got {footprint}")
    if dtype not in _FLOATING:
        raise InputError(f"crop_regions: dtype must be a floating one, got {dtype}")
    # The pixels are whole numbers: no gradient leads through them to the transforms.
    views: list[Tensor] = _implementation.crop_regions(
        image, transforms.detach(), sizes, mean=mean, std=std, footprint=footprint, dtype=dtype
    )
    return views


def stitch_regions(regions: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The five regions' maps laid out as a face: the stitched map of the interaction.

    regions: left eye, right eye, left cheek, right cheek, mouth; each (B, C, ·, ·) of one
        floating dtype and device. The members of a pair have equal heights, and the mouth the
        width of `size`.
    size: (H, W) of the face map.
    Eyes side by side and cheeks side by side are resized to W; then eyes over cheeks over mouth
    are resized to (H, W). Every resize is bilinear with align_corners=True.
    Returns (B, C, H, W), channels-last where the mouth is; B = 0 gives an empty one.
    Raises InputError: wrong number, shape, dtype or device.
    Source: Tian et al. 2025, multi-domain interaction.
    """
    if not _stitchable(regions, size):
        _refuse_regions(regions, size)
    stitched: Tensor = _implementation.stitch_regions(regions, size)
    return stitched


def warp_add(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    """face + stitched warped by theta: the registration and fusion of the interaction.

    stitched, face: (B, C, H, W) of one floating dtype and device.
    theta: (B, 2, 3) of a floating dtype, an affine map of normalised coordinates, as
        torch.nn.functional.affine_grid takes it; bilinear, zeros outside, align_corners=True.
    Returns (B, C, H, W) in the memory layout of `face`; B = 0 gives an empty one. A theta that
    leads to infinite or undefined positions gives NaN there.
    Raises InputError: wrong shape, dtype or device.
    Source: Tian et al. 2025, multi-domain interaction (spatial transformer).
    """
    if not _warpable(stitched, theta, face):
        _refuse_maps(stitched, theta, face)
    fused: Tensor = _implementation.warp_add(stitched, theta, face)
    return fused


def describe() -> list[tuple[str, str]]:
    """Which implementation each op uses and why, as (op, text) pairs for `pcnn-predict --info`."""
    text = native.describe()
    return [(name, text) for name in __all__ if name != "describe"]


# For one face the checks would cost more than the ops, so a single expression passes what is right
# and only what is wrong is gone through for what to say.


def _stitchable(regions: Sequence[Tensor], size: tuple[int, int]) -> bool:
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


def _refuse_regions(regions: Sequence[Tensor], size: tuple[int, int]) -> None:
    if len(regions) != 5:
        raise InputError(f"stitch_regions: regions must be 5 maps, got {len(regions)}")
    first = regions[0]
    check_shape("stitch_regions", "left eye", first, (None, None, None, None))
    _check_floating("stitch_regions", "left eye", first)
    if min(size) < 1:
        raise InputError(f"stitch_regions: size must be at least 1 × 1, got {tuple(size)}")
    batch, channels = first.shape[:2]
    for name, region in zip(_REGIONS, regions, strict=True):
        check_shape("stitch_regions", name, region, (batch, channels, None, None))
        _check_dtype("stitch_regions", name, region, first.dtype)
        _check_device("stitch_regions", name, region, first)
        _check_pixels("stitch_regions", name, region)
    for left in (0, 2):
        same_height = (batch, channels, regions[left].shape[2], None)
        check_shape("stitch_regions", _REGIONS[left + 1], regions[left + 1], same_height)
    check_shape("stitch_regions", "mouth", regions[4], (batch, channels, None, size[1]))


def _warpable(stitched: Tensor, theta: Tensor, face: Tensor) -> bool:
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


def _refuse_maps(stitched: Tensor, theta: Tensor, face: Tensor) -> None:
    check_shape("warp_add", "stitched", stitched, (None, None, None, None))
    _check_floating("warp_add", "stitched", stitched)
    _check_pixels("warp_add", "stitched", stitched)
    check_shape("warp_add", "face", face, stitched.shape)
    check_shape("warp_add", "theta", theta, (stitched.shape[0], 2, 3))
    _check_floating("warp_add", "theta", theta)
    _check_dtype("warp_add", "face", face, stitched.dtype)
    _check_device("warp_add", "face", face, stitched)
    _check_device("warp_add", "theta", theta, stitched)


def _check_dtype(function: str, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise InputError(f"{function}: {name} must be {dtype}, got {tensor.dtype}")


def _check_floating(function: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _FLOATING:
        raise InputError(f"{function}: {name} must be of a floating dtype, got {tensor.dtype}")


def _check_pixels(function: str, name: str, tensor: Tensor) -> None:
    if 0 in tensor.shape[1:]:
        raise InputError(
            f"{function}: {name} must have channels and pixels, got {tuple(tensor.shape)}"
        )


def _check_device(function: str, name: str, tensor: Tensor, other: Tensor) -> None:
    if tensor.device != other.device:
        raise InputError(f"{function}: {name} must be on {other.device}, got {tensor.device}")
