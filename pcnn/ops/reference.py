"""Reference implementation of the ops in plain PyTorch: slow, short, and decisive for the tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Rec. 601 luma: Pillow and OpenCV convert RGB to grey with these weights.
LUMA = (0.299, 0.587, 0.114)
# Limits the exponents of boxes' sizes, to avoid overflow. Here a box has 9 million times the side
# of its anchor.
LARGEST_EXPONENT = 16.0


def crop_regions(  # noqa: PLR0913
    image: Tensor,
    transforms: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    """See pcnn.ops.crop_regions."""
    faces = transforms.shape[0]
    channels = len(mean)
    pixels = image.to(torch.float32)
    if channels == 1:
        pixels = (pixels * pixels.new_tensor(LUMA)).sum(2, keepdim=True)  # (H, W, 1)
    scale = pixels.new_tensor([255.0 * value for value in std])
    shift = pixels.new_tensor([255.0 * value for value in mean])
    views = []
    for view, (height, width) in enumerate(sizes):
        out = pixels.new_empty((faces, height, width, channels))
        for face in range(faces):
            out[face] = _sample(pixels, transforms[face, view], height, width, footprint)
        out = (out - shift) / scale
        views.append(out.to(dtype).permute(0, 3, 1, 2))  # (F, C, h, w), channels-last
    return views


def landmark_crop(  # noqa: PLR0913
    image: Tensor,
    landmarks: Tensor,
    template: Sequence[Sequence[float]],
    boxes: Sequence[tuple[int, int, int, int]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    mirror: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    """See pcnn.ops.landmark_crop."""
    # On the CPU, because some devices have no float64.
    points, places = landmarks.cpu().double(), torch.tensor(template, dtype=torch.float64)
    corners = torch.tensor([(left, top) for top, left, _, _ in boxes], dtype=torch.float64)
    transforms = view_transforms(similarities(places, points), corners.view(-1, 2))
    views = crop_regions(
        image,
        transforms.float().to(image.device),
        [(bottom - top, right - left) for top, left, bottom, right in boxes],
        mean=mean,
        std=std,
        footprint=footprint,
        dtype=dtype,
    )
    if not mirror:
        return views
    images = [view.flip(3).contiguous(memory_format=torch.channels_last) for view in views]
    return [*views, *images]


def similarities(source: Tensor, targets: Tensor) -> Tensor:
    """The best similarities (rotation, scale and shift, without reflection) from one set of points.

    source: (N, 2) float64, x and y. targets: (F, N, 2) float64.
    Returns (F, 2, 3), the least-squares solutions (Umeyama 1991). Coincident source points give
    scale 0 and only the shift. Targets that are not finite give NaN.
    """
    # In the complex plane a similarity is w ↦ a·w + b. The best a is a ratio of two sums.
    middle, middles = source.mean(0), targets.mean(1)
    x, y = (source - middle).unbind(1)  # (N,)
    u, v = (targets - middles[:, None]).unbind(2)  # (F, N)
    spread = (x * x + y * y).sum()
    spread = torch.where(spread > 0, spread, math.inf)
    cosine, sine = (x * u + y * v).sum(1) / spread, (x * v - y * u).sum(1) / spread  # a
    linear = torch.stack((cosine, -sine, sine, cosine), 1).view(-1, 2, 2)
    return torch.cat((linear, (middles - linear @ middle)[..., None]), 2)


def view_transforms(faces: Tensor, corners: Tensor) -> Tensor:
    """Transforms of views between pixels, from those of faces between continuous coordinates.

    faces: (F, 2, 3), face view → image. corners: (V, 2), x and y of each view's corner in the face
    view, in pixels. Returns (F, V, 2, 3).
    """
    linear, shift = faces[:, None, :, :2], faces[:, None, :, 2:]  # (F, 1, 2, ·)
    shifts = linear @ (corners + 0.5)[..., None] + shift - 0.5  # (F, V, 2, 1)
    return torch.cat((linear.expand(-1, len(corners), -1, -1), shifts), 3)


def taps(transform: Tensor, footprint: float) -> int:
    """The number of samples that a view pixel averages along each axis.

    It is the pixel's extent in the image, rounded up; at least 1, at most MAX_TAPS.
    transform: (2, 3) float32, view pixel → image pixel.
    """
    scale = float(transform[:, :2].norm(dim=0).max()) * footprint
    # The small allowance prevents an extra tap by rounding near a whole number.
    return min(MAX_TAPS, max(1, math.ceil(scale - 1e-3))) if math.isfinite(scale) else 1


MAX_TAPS = 64


def _sample(pixels: Tensor, transform: Tensor, height: int, width: int, footprint: float) -> Tensor:
    """A view (height, width, C): each pixel averages k × k bilinear samples of its footprint."""
    count = taps(transform, footprint)
    offsets = ((torch.arange(count, device=pixels.device) + 0.5) / count - 0.5) * footprint
    rows = torch.arange(height, device=pixels.device)[:, None] + offsets  # (height, k)
    columns = torch.arange(width, device=pixels.device)[:, None] + offsets  # (width, k)
    y, x = torch.meshgrid(rows.flatten(), columns.flatten(), indexing="ij")
    (xx, xy, x0), (yx, yy, y0) = transform.to(torch.float32)
    samples = _bilinear(pixels, xx * x + xy * y + x0, yx * x + yy * y + y0)
    return samples.view(height, count, width, count, -1).mean((1, 3))


def _bilinear(pixels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples of pixels (H, W, C) at positions x, y of equal shape; replicated edges."""
    height, width, _ = pixels.shape
    # NaN takes the first pixel, so that no position reads outside the image.
    x = torch.nan_to_num(x, nan=0.0).clamp(0, width - 1)
    y = torch.nan_to_num(y, nan=0.0).clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    along, down = (x - left)[..., None], (y - top)[..., None]
    upper = torch.lerp(pixels[top, left], pixels[top, right], along)
    lower = torch.lerp(pixels[bottom, left], pixels[bottom, right], along)
    return torch.lerp(upper, lower, down)


def decode_faces(
    predictions: Tensor,
    anchors: Tensor,
    variances: Sequence[float],
    limits: Sequence[float],
    most: int,
) -> Tensor:
    """See pcnn.ops.decode_faces.

    limits: the least logit of a candidate, the least score of a face, the overlap above which a
        face is suppressed, the shorter side of a large candidate.
    """
    # On the CPU, because the number of candidates is not known before.
    near = anchors.cpu()
    images = [_image_faces(own, near, variances, limits, most) for own in predictions.cpu()]
    found = predictions.new_zeros(len(images), 1 + most, predictions.shape[2])
    for out, (faces, large) in zip(found, images, strict=True):
        out[1 : 1 + len(faces)] = faces
        out[0, :2] = torch.tensor([len(faces), large])
    return found


def _image_faces(
    predictions: Tensor,
    anchors: Tensor,
    variances: Sequence[float],
    limits: Sequence[float],
    most: int,
) -> tuple[Tensor, bool]:
    """The faces (K, 15) of one image, and whether it has a large candidate; see decode_faces."""
    least_logit, min_score, iou, large = limits
    chosen = torch.nonzero(predictions[:, 0] >= least_logit)[:, 0]
    # Exponentials are rounded from float64, so that every implementation has the same.
    scores = predictions[chosen, 0].double().sigmoid().float()
    order = scores.sort(descending=True, stable=True).indices[:most]
    own, squares = predictions[chosen[order]], anchors[chosen[order]]
    centres, sides = squares[:, :2], squares[:, 2:]
    middles = centres + own[:, 1:3] * variances[0] * sides
    exponents = (own[:, 3:5] * variances[1]).clamp(max=LARGEST_EXPONENT)
    halves = sides * exponents.double().exp().float() / 2
    boxes = torch.cat((middles - halves, middles + halves), 1)
    points = centres.repeat(1, 5) + own[:, 5:] * (sides.repeat(1, 5) * variances[0])
    faces = torch.cat((scores[order, None], boxes, points), 1)
    hint = bool(((boxes[:, 2:] - boxes[:, :2]).amin(1) >= large).any())
    rivals = (_overlaps(boxes) > iou).triu(1)  # [better, worse]
    kept, free = [], torch.ones(len(faces), dtype=torch.bool)
    for index in range(int((faces[:, 0] >= min_score).sum())):
        if free[index]:
            kept.append(index)
            free &= ~rivals[index]
    return faces[kept], hint


def _overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of boxes (N, 4) with each other, (N, N); 0 without area."""
    corners = torch.maximum(boxes[:, None, :2], boxes[:, :2])  # (N, N, 2)
    shared = (torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - corners).clamp(min=0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    union = areas[:, None] + areas - shared
    return torch.where(union > 0, shared / union.clamp(min=1e-12), 0.0)


def stitch_regions(regions: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """See pcnn.ops.stitch_regions."""
    left_eye, right_eye, left_cheek, right_cheek, mouth = regions
    eyes = _resize(torch.cat((left_eye, right_eye), 3), (left_eye.shape[2], size[1]))
    cheeks = _resize(torch.cat((left_cheek, right_cheek), 3), (left_cheek.shape[2], size[1]))
    # Autocast resizes in float32; the map gets the regions' precision again.
    return _resize(torch.cat((eyes, cheeks, mouth), 2), size).to(mouth.dtype)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def warp_add(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    """See pcnn.ops.warp_add."""
    wide = torch.promote_types(stitched.dtype, torch.float32)
    sampled = F.grid_sample(
        stitched.to(wide),
        _grid(theta.to(wide), stitched.shape[2], stitched.shape[3]),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )
    return (face + sampled).to(face.dtype)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """The sampling position of each pixel (B, height, width, 2), in normalised coordinates x, y.

    The same as F.affine_grid with align_corners=True. But that function refuses B = 0, warns about
    maps one pixel wide, and cannot be traced with variable sizes.
    """
    u = _centres(width, theta)[:, None]  # (width, 1)
    v = _centres(height, theta)[:, None, None]  # (height, 1, 1)
    along, down, shift = theta[:, None, None].unbind(4)  # each (B, 1, 1, 2)
    return along * u + down * v + shift


def _centres(size: int, like: Tensor) -> Tensor:
    """The centres of `size` pixels, from -1 to 1; a single pixel is at 0."""
    positions = torch.arange(size, dtype=like.dtype, device=like.device)
    return (2 * positions - (size - 1)) / max(size - 1, 1)
