"""The network's own operations, with checks of their arguments.

The environment variable PCNN_OPS chooses the implementation when pcnn is imported. `auto` uses the
compiled code if it is available for the device and element type, and plain PyTorch otherwise.
`native` raises NativeError instead of this fallback. `reference` always uses plain PyTorch.
Pixel coordinates refer to pixel centres: (0, 0) is the centre of the upper left pixel. Continuous
coordinates, those of landmarks, refer to the image's corner: the same centre is at (½, ½).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pcnn.errors import InputError, check_shape
from pcnn.ops import native, reference

__all__ = ["crop_regions", "describe", "landmark_crop", "stitch_regions", "warp_add"]

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
    """Cut the views of all faces from an image, resampled and normalised.

    image: (H, W, 3) uint8 RGB, at least one pixel.
    transforms: (F, V, 2, 3) float32, same device; view pixel (x, y, 1) → image pixel.
    sizes: V pairs (height, width), the views' sizes in pixels.
    mean, std: of values 0…1; three for RGB, one for grey (Rec. 601 luma).
    footprint: the side of the square that one view pixel averages, in view pixels. 1 gives the
        view's full resolution; larger values blur to the resolution of coarser training pictures.
    Returns V tensors (F, C, height, width) of `dtype`, channels-last; F = 0 gives empty ones.
    Positions outside the image take its nearest edge pixel. If a view reduces the image, k × k
    bilinear samples are averaged to avoid aliasing, k = ceil(scale · footprint).
    Raises InputError: wrong shape, dtype, device or value.

    >>> image = torch.full((8, 8, 3), 255, dtype=torch.uint8)
    >>> same_place = torch.eye(2, 3)[None, None]  # (F, V, 2, 3): one face, one view
    >>> [view] = crop_regions(image, same_place, [(4, 4)], mean=[0.5], std=[0.5])
    >>> view.shape, round(view.mean().item(), 4)
    (torch.Size([1, 1, 4, 4]), 1.0)
    """
    _check_crop("crop_regions", image, mean, std, footprint, dtype)
    check_shape("crop_regions", "transforms", transforms, (None, len(sizes), 2, 3))
    _check_dtype("crop_regions", "transforms", transforms, torch.float32)
    _check_device("crop_regions", "transforms", transforms, image)
    if any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise InputError(
            f"crop_regions: sizes must be (height, width) of at least 1 × 1, got {list(sizes)}"
        )
    # The pixels are integers, so there is no gradient for the transforms.
    views: list[Tensor] = _implementation.crop_regions(
        image, transforms.detach(), sizes, mean=mean, std=std, footprint=footprint, dtype=dtype
    )
    return views


def landmark_crop(  # noqa: PLR0913
    image: Tensor,
    landmarks: Tensor,
    template: Sequence[Sequence[float]],
    boxes: Sequence[tuple[int, int, int, int]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float = 1.0,
    mirror: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Cut the views of all faces from an image, each face aligned by its landmarks.

    image, mean, std, footprint, dtype: as for crop_regions.
    landmarks: (F, 5, 2) float32, same device; x, y in continuous coordinates of the image.
    template: five pairs x, y, the landmarks' places in the face view, in its pixels (continuous).
    boxes: V boxes (top, left, bottom, right) of the views in the face view, half-open, in pixels;
        they may lie outside of it.
    mirror: True adds the mirror image of each view.
    Returns V tensors (F, C, bottom - top, right - left), or 2 · V, the mirror images last; of
    `dtype`, channels-last. F = 0 gives empty ones.
    A face's similarity (rotation, scale and shift) is the least-squares solution from template to
    landmarks (Umeyama 1991). Coincident landmarks give views of one colour, and landmarks that are
    not finite the colour of the first pixel. For the rest see crop_regions.
    Raises InputError: wrong shape, dtype, device or value.

    >>> image = torch.zeros(8, 8, 3, dtype=torch.uint8)
    >>> image[:, 4:] = 255
    >>> template = [(1, 1), (3, 1), (2, 2), (1, 3), (3, 3)]
    >>> landmarks = torch.tensor([template]) + torch.tensor([2.0, 0.0])  # two pixels to the right
    >>> boxes = [(0, 0, 4, 4), (0, 0, 2, 2)]  # the face, and a region of it
    >>> [face, region] = landmark_crop(image, landmarks, template, boxes, mean=[0.0], std=[1.0])
    >>> face[0, 0, 0].tolist(), region[0, 0, 0].tolist()
    ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0])
    """
    _check_crop("landmark_crop", image, mean, std, footprint, dtype)
    check_shape("landmark_crop", "landmarks", landmarks, (None, 5, 2))
    _check_dtype("landmark_crop", "landmarks", landmarks, torch.float32)
    _check_device("landmark_crop", "landmarks", landmarks, image)
    if [len(place) for place in template] != [2] * 5 or not all(
        math.isfinite(value) for place in template for value in place
    ):
        raise InputError(
            f"landmark_crop: template must be five pairs of finite numbers, got {list(template)}"
        )
    if any(len(box) != 4 or box[0] >= box[2] or box[1] >= box[3] for box in boxes):
        raise InputError(
            "landmark_crop: boxes must be (top, left, bottom, right) of at least 1 × 1 pixel, got "
            f"{[tuple(box) for box in boxes]}"
        )
    options: dict[str, Any] = {"mean": mean, "std": std, "footprint": footprint, "dtype": dtype}
    views: list[Tensor] = _implementation.landmark_crop(
        image, landmarks.detach(), template, boxes, mirror=mirror, **options
    )
    return views


def stitch_regions(regions: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Stitch the five regions' maps into a face, the stitched map of the interaction.

    regions: left eye, right eye, left cheek, right cheek, mouth; each (B, C, ·, ·) of the same
        floating dtype and device. Left and right have equal heights. The mouth has the width of
        `size`.
    size: (H, W) of the face map.
    Both eyes, joined horizontally, are resized to the width W, and so are both cheeks. Then eyes,
    cheeks and mouth are joined vertically and resized to (H, W). All resizing is bilinear with
    align_corners=True.
    Returns (B, C, H, W), channels-last if the mouth is; B = 0 gives an empty one.
    Raises InputError: wrong number, shape, dtype or device.
    Source: Tian et al. 2025, multi-domain interaction.

    >>> regions = [torch.ones(1, 8, 3, 3)] * 4 + [torch.ones(1, 8, 2, 6)]
    >>> stitch_regions(regions, (6, 6)).shape
    torch.Size([1, 8, 6, 6])
    """
    if not _stitchable(regions, size):
        _refuse_regions(regions, size)
    stitched: Tensor = _implementation.stitch_regions(regions, size)
    return stitched


def warp_add(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    """Add `stitched`, warped by theta, to `face`: registration and fusion of the interaction.

    stitched, face: (B, C, H, W) of the same floating dtype and device.
    theta: (B, 2, 3) of a floating dtype, an affine map of normalised coordinates, as for
        torch.nn.functional.affine_grid. Sampling is bilinear, with zeros outside and
        align_corners=True.
    Returns (B, C, H, W) in the memory layout of `face`; B = 0 gives an empty one. Infinite or
        undefined positions give NaN.
    Raises InputError: wrong shape, dtype or device.
    Source: Tian et al. 2025, multi-domain interaction (spatial transformer).

    >>> stitched, face = torch.ones(1, 8, 6, 6), torch.full((1, 8, 6, 6), 2.0)
    >>> warp_add(stitched, torch.eye(2, 3)[None], face).mean()
    tensor(3.)
    """
    if not _warpable(stitched, theta, face):
        _refuse_maps(stitched, theta, face)
    fused: Tensor = _implementation.warp_add(stitched, theta, face)
    return fused


def describe() -> list[tuple[str, str]]:
    """The implementation of each op and its reason: (op, text) pairs for `pcnn-predict --info`.

    >>> [op for op, text in describe()]
    ['crop_regions', 'landmark_crop', 'stitch_regions', 'warp_add']
    """
    text = native.describe()
    return [(name, text) for name in __all__ if name != "describe"]


# For one face detailed checks would cost more than the ops. So a single expression accepts valid
# arguments, and only invalid ones are examined for the message.


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


def _check_crop(  # noqa: PLR0913, PLR0917
    function: str,
    image: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> None:
    """The checks that crop_regions and landmark_crop share."""
    check_shape(function, "image", image, (None, None, 3))
    _check_dtype(function, "image", image, torch.uint8)
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
