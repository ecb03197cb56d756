"""Pictures of projected feature maps: all stages for one face, or one map's nine strongest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pcnn.analysis.deconvnet import STAGES, FeatureMap, Projection
from pcnn.errors import InputError, counted
from pcnn.networks.regions import RegionLayout
from pcnn.results.style import DIM, GROUND, TEXT, letters

_MARGIN, _GAP = 24, 6
_CELL = 150  # width of a view; its height depends on its shape
_LEFT = 120  # width of the column of trunk names
_ACROSS = 3  # cells in a row of a mosaic
_FEWEST_HIDDEN = 5  # in the mean of fewer faces single faces are visible

Pixels = NDArray[np.uint8]


def draw_mosaic(  # noqa: PLR0913
    chosen: FeatureMap,
    squares: Sequence[Pixels],
    projection: Projection,
    layout: RegionLayout,
    *,
    faces: int,
    show_faces: bool = True,
) -> Image.Image:
    """Draw a map's strongest responses: the views of its trunk beside their projections.

    squares: (P, P) grey or (P, P, 3) RGB whole faces, one for each projection.
    faces: the number of faces that were searched.
    show_faces: False draws their mean instead, for faces that must not be published.
    Returns an RGB image.
    Raises InputError: no face, a different number of projections, or fewer than five faces for a
    mean.
    """
    if not squares or len(squares) != len(projection.pixels):
        raise InputError(
            f"draw_mosaic: squares must be as many as projections, {len(projection.pixels)}, and "
            f"at least 1, got {len(squares)}"
        )
    if not show_faces and len(squares) < _FEWEST_HIDDEN:
        raise InputError(
            f"draw_mosaic: hidden faces must be at least {_FEWEST_HIDDEN}, because a mean of fewer "
            f"shows single faces, got {len(squares)}"
        )
    views = [crop_view(square, chosen.trunk, layout) for square in squares]
    back = [toned(pixels) for pixels in projection.pixels.cpu().numpy()]
    rows, across = -(-len(views) // _ACROSS), min(len(views), _ACROSS)
    cell = _fitted(back[0])
    width, height = _extent(cell, across, rows)
    picture = Image.new("RGB", (max(2 * width + 3 * _MARGIN, 560), height + 150), GROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 16), str(chosen), font=letters(26), fill=TEXT)
    low, high = float(projection.strengths.min()), float(projection.strengths.max())
    text = f"its response: {high:.2f}"
    if len(views) > 1:
        text = (
            f"its {len(views)} strongest responses, of {counted(faces, 'face')}: "
            f"{high:.2f} … {low:.2f}"
        )
    draw.text((_MARGIN, 54), text, font=letters(16), fill=DIM)
    left, right, top = _MARGIN, 2 * _MARGIN + width, 110
    if show_faces:
        _paste(picture, views, cell, (left, top))
    else:
        stack = np.stack([np.asarray(view.resize(cell, _SMOOTH), np.float32) for view in views])
        mean = Image.fromarray(stack.mean(0).round().astype(np.uint8))
        picture.paste(mean.resize((width, height), _SMOOTH), (left, top))
    draw.text(
        (left, 84),
        "view" if show_faces else "mean of the views",
        font=letters(16),
        fill=TEXT,
    )
    draw.text((right, 84), "projected back", font=letters(16), fill=TEXT)
    _paste(picture, back, cell, (right, top))
    return picture


def draw_face(
    square: Pixels, projections: Mapping[FeatureMap, Projection], layout: RegionLayout
) -> Image.Image:
    """Draw one face: a row for each trunk with its view and the projection of one map per stage.

    square: (P, P) grey or (P, P, 3) RGB. projections: of this face only, with at most one map for
    each stage of a trunk, see deconvnet.strongest_maps.
    Returns an RGB image. Raises InputError: no projection.
    """
    if not projections:
        raise InputError("draw_face: projections must be at least 1, got 0")
    trunks = list(dict.fromkeys(each.trunk for each in projections))
    tiles = {each: toned(found.pixels[0].cpu().numpy()) for each, found in projections.items()}
    views = {name: crop_view(square, name, layout) for name in trunks}
    heights = [
        max(_fitted(tile)[1] for each, tile in tiles.items() if each.trunk == name) + 32
        for name in trunks
    ]
    columns = 1 + len(STAGES)
    width = 2 * _MARGIN + _LEFT + columns * _CELL + (columns - 1) * 2 * _GAP
    picture = Image.new("RGB", (width, 64 + sum(heights) + _MARGIN), GROUND)
    draw = ImageDraw.Draw(picture)
    lefts = [_MARGIN + _LEFT + place * (_CELL + 2 * _GAP) for place in range(columns)]
    for left, text in zip(lefts, ("view", *STAGES), strict=True):
        draw.text((left, 24), text, font=letters(18), fill=TEXT)
    top = 58
    for name, height in zip(trunks, heights, strict=True):
        draw.text((_MARGIN, top), name.replace("_", " "), font=letters(18), fill=TEXT)
        own = {each: tile for each, tile in tiles.items() if each.trunk == name}
        cell = _fitted(next(iter(own.values())))
        picture.paste(views[name].resize(cell, _SMOOTH), (lefts[0], top))
        for each, tile in own.items():
            left = lefts[1 + STAGES.index(each.stage)]
            picture.paste(tile.resize(cell, _SMOOTH), (left, top))
            text = f"map {each.channel}: {float(projections[each].strengths[0]):.2f}"
            draw.text((left, top + cell[1] + 3), text, font=letters(14), fill=DIM)
        top += height
    return picture


def crop_view(square: Pixels, trunk: str, layout: RegionLayout) -> Image.Image:
    """The view of a trunk, as RGB, cut from a whole face (P, P) or (P, P, 3)."""
    box = layout.boxes(square.shape[0])[trunk]
    part = np.ascontiguousarray(square[box.top : box.bottom, box.left : box.right])
    return Image.fromarray(part).convert("RGB")


def toned(pixels: NDArray[np.float32]) -> Image.Image:
    """A projection (C, h, w), C 1 or 3, as RGB: 0 is grey, the largest value is white or black."""
    largest = float(np.abs(pixels).max())
    scaled = 127.5 + 127.5 * pixels / (largest or 1.0)
    planes = np.broadcast_to(scaled, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    return Image.fromarray(planes.round().astype(np.uint8))


_SMOOTH = Image.Resampling.BICUBIC


def _fitted(image: Image.Image) -> tuple[int, int]:
    """The size of a cell for an image of this shape."""
    return _CELL, max(1, round(_CELL * image.height / image.width))


def _extent(cell: tuple[int, int], across: int, rows: int) -> tuple[int, int]:
    """The size of a block of cells."""
    return across * (cell[0] + _GAP) - _GAP, rows * (cell[1] + _GAP) - _GAP


def _paste(
    picture: Image.Image,
    images: Sequence[Image.Image],
    cell: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    """Paste images in rows of three, from the upper left corner."""
    for place, image in enumerate(images):
        row, column = divmod(place, _ACROSS)
        at = (corner[0] + column * (cell[0] + _GAP), corner[1] + row * (cell[1] + _GAP))
        picture.paste(image.resize(cell, _SMOOTH), at)
