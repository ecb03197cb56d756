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
from pcnn.ops import arguments, native, reference

__all__ = [
    "crop_regions",
    "decode_faces",
    "describe",
    "landmark_crop",
    "stitch_regions",
    "warp_add",
]

_implementation = reference if native.choice == "reference" else native


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
    arguments.check_crop("crop_regions", image, mean, std, footprint, dtype)
    check_shape("crop_regions", "transforms", transforms, (None, len(sizes), 2, 3))
    arguments.check_dtype("crop_regions", "transforms", transforms, torch.float32)
    arguments.check_device("crop_regions", "transforms", transforms, image)
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
    arguments.check_crop("landmark_crop", image, mean, std, footprint, dtype)
    check_shape("landmark_crop", "landmarks", landmarks, (None, 5, 2))
    arguments.check_dtype("landmark_crop", "landmarks", landmarks, torch.float32)
    arguments.check_device("landmark_crop", "landmarks", landmarks, image)
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


def decode_faces(  # noqa: PLR0913
    predictions: Tensor,
    anchors: Tensor,
    *,
    variances: tuple[float, float],
    min_score: float,
    iou: float,
    most: int,
    hint_score: float = 1.0,
    hint_side: float = math.inf,
) -> Tensor:
    """The faces in a detector's predictions: decoded, ranked, without those that others overlap.

    predictions: (B, N, 15) float32, the logit of a face, and the offsets of its box (4) and its
        landmarks (10) as `networks.anchors` decodes them.
    anchors: (N, 4) float32, same device; cx cy w h. variances: the scales of both offsets.
    min_score: 0…1, of a face. iou: 0…1; overlap with a better face strictly above it is suppressed.
    most: 1…2048, the number of candidates of an image that are compared, the best ones.
    hint_score, hint_side: a candidate from min(hint_score, min_score) on counts as large if its
        shorter side has hint_side pixels. It need not become a face.
    Returns (B, 1 + most, 15). An image's first row has the number of its faces, 1 if a candidate is
        large or else 0, and zeros. Its faces follow, best first, ties in the order of anchors:
        score, box (x1 y1 x2 y2), landmarks (x and y of each), pixels. The other rows are zeros.
    A logit or box that is NaN is no face, or overlaps with none.
    Raises InputError: wrong shape, dtype, device or value.

    >>> anchors = torch.tensor([[10.0, 10.0, 8.0, 8.0], [11.0, 10.0, 8.0, 8.0]])
    >>> predictions = torch.zeros(1, 2, 15)
    >>> predictions[0, :, 0] = torch.tensor([2.0, 3.0])  # the second is likelier
    >>> [found] = decode_faces(
    ...     predictions, anchors, variances=(0.1, 0.2), min_score=0.5, iou=0.4, most=5
    ... )
    >>> int(found[0, 0]), found[1, 1:5].tolist()
    (1, [7.0, 6.0, 15.0, 14.0])
    """
    arguments.check_predictions(predictions, anchors, variances)
    arguments.check_limits(min_score, iou, most, hint_score, hint_side)
    least = min(hint_score, min_score)
    limits = _logit(least), min_score, iou, hint_side
    found: Tensor = _implementation.decode_faces(
        predictions.detach(), anchors.detach(), variances, limits, most
    )
    return found


def _logit(score: float) -> float:
    """The logit whose sigmoid is a score of 0…1."""
    if score in (0, 1):
        return math.inf if score else -math.inf
    return math.log(score / (1 - score))


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
    if not arguments.stitchable(regions, size):
        arguments.refuse_regions(regions, size)
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
    if not arguments.warpable(stitched, theta, face):
        arguments.refuse_maps(stitched, theta, face)
    fused: Tensor = _implementation.warp_add(stitched, theta, face)
    return fused


def describe() -> list[tuple[str, str]]:
    """The implementation of each op and its reason: (op, text) pairs for `pcnn-predict --info`.

    >>> [op for op, text in describe()]
    ['crop_regions', 'decode_faces', 'landmark_crop', 'stitch_regions', 'warp_add']
    """
    text = native.describe()
    return [(name, text) for name in __all__ if name != "describe"]
