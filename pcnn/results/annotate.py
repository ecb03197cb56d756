"""Annotated pictures: each face's box, landmarks, label and a bar chart of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pcnn.errors import InputError
from pcnn.images.loading import load_image
from pcnn.results.mesh import draw_mesh
from pcnn.results.placement import (
    Box,
    DrawnFace,
    Placed,
    Style,
    Subject,
    arrange,
    subjects,
    visible,
)
from pcnn.results.style import GREEN, GROUND, ORANGE, PURPLE, SKY, TEXT, VERMILION, YELLOW

if TYPE_CHECKING:
    from pcnn.images.loading import ImageSource
    from pcnn.results.values import Prediction

_COLOURS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, VERMILION)  # of the faces in order
_PANEL = (16, 16, 16, 208)
_TRACK = (255, 255, 255, 48)
_HALO = (0, 0, 0, 200)
_DIM = (205, 205, 205)

_LARGE_ENOUGH = 512  # longest side of an enlarged picture, pixels
_NO_FACE = "no face found"


def annotate(
    pixels: NDArray[np.uint8],
    faces: Sequence[DrawnFace],
    *,
    mesh: bool = False,
    movements: bool = False,
) -> Image.Image:
    """Draw each face's box, landmarks, label and scores on a copy of the picture.

    pixels: (H, W, 3) uint8 RGB, upright; not changed.
    faces: boxes and landmarks in pixels of the picture; they may extend beyond it. Without faces
        the picture gets a note that none was found.
    mesh, movements: see Prediction.draw; they change nothing for a face without `motion`.
    If the longer side is at most 256 pixels, the picture is enlarged by the largest whole number
    that keeps it within 512. A picture too narrow or low for a label gets a dark margin at the
    right or below. Several faces are numbered from 1, in their order.
    A chart is placed above, beside or below its head, and avoids all faces and hair if there is
    room. It shows all classes for a single face, else the best three, else only the label. A
    label that would hide another one, or another face, is left out: its face has the number
    alone. Text and lines grow with the picture.
    Returns an RGB image of the picture's size, unless the picture is enlarged or has a margin.
    """
    height, width = pixels.shape[:2]
    scale = max(1, _LARGE_ENOUGH // max(width, height))
    enlarged = Image.fromarray(pixels).resize(
        (scale * width, scale * height), Image.Resampling.BICUBIC
    )
    drawn = subjects(faces, scale, movements=movements)
    motions = [getattr(face, "motion", None) if mesh else None for face in faces]
    style = Style(enlarged.size, [face.title for face in drawn] or [_NO_FACE])
    picture = Image.new("RGB", style.size, GROUND)
    picture.paste(enlarged)
    draw = ImageDraw.Draw(picture, "RGBA")
    if not drawn:
        _draw_note(draw, style, _NO_FACE)
        return picture
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(drawn))]
    for face, motion, colour in zip(drawn, motions, colours, strict=True):
        _draw_face(draw, face, colour, style, landmarks=motion is None)
        if motion is not None:
            draw_mesh(draw, motion, colour, scale)
    placed = arrange(drawn, style)
    for face, place, colour in zip(drawn, placed, colours, strict=True):
        if place is not None and place.apart:
            _draw_leader(draw, place.box, visible(face.box, style.size), colour, style)
    for place, colour in zip(placed, colours, strict=True):
        if place is not None:
            _draw_panel(draw, place, colour, style)
    return picture


def predicted_pixels(
    prediction: Prediction, image: ImageSource | None, *, bgr: bool
) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) uint8 of a predicted picture; for the rest see Prediction.draw."""
    picture = prediction.source if image is None else image
    if picture is None:
        raise InputError(
            "Prediction.draw: image must be given, because the picture had no path: "
            "pass the same picture again"
        )
    pixels = load_image(picture, bgr=bgr)
    height, width = pixels.shape[:2]
    if (width, height) != (prediction.width, prediction.height):
        raise InputError(
            f"Prediction.draw: image must be {prediction.width} × {prediction.height} as "
            f"predicted, got {width} × {height}: pass the same picture"
        )
    return pixels


def _draw_face(
    draw: ImageDraw.ImageDraw, face: Subject, colour: Any, style: Style, *, landmarks: bool
) -> None:
    """Draw box, number and, if wanted, landmarks, each with a dark rim for visibility."""
    box = visible(face.box, style.size)
    side = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    line = round(min(style.title_px / 6, max(2.0, side / 14)))
    rim = max(1, line // 3)
    outer = (box.x1 - rim, box.y1 - rim, box.x2 + rim, box.y2 + rim)
    draw.rectangle(outer, outline=_HALO, width=line + 2 * rim)
    draw.rectangle(tuple(box), outline=colour, width=line)
    radius = min(style.title_px / 5, max(1.0, side / 50))
    for x, y in face.landmarks.tolist() if landmarks else ():
        _dot(draw, x, y, radius + rim, _HALO)
        _dot(draw, x, y, radius, TEXT)
    last = style.size[0] - style.title.getlength(face.number)
    corner = (min(box.x1, last), max(box.y1 - 2 * line, style.title_px))  # above, in the picture
    draw.text(
        corner,
        face.number,
        font=style.title,
        fill=TEXT,
        anchor="lb",
        stroke_width=max(1, style.title_px // 8),
        stroke_fill=_HALO,
    )


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: Any) -> None:
    """A filled circle."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_leader(
    draw: ImageDraw.ImageDraw, panel: Box, face: Box, colour: Any, style: Style
) -> None:
    """Draw a line from a panel to its face."""
    start_x, end_x = _nearest(panel.x1, panel.x2, face.x1, face.x2)
    start_y, end_y = _nearest(panel.y1, panel.y2, face.y1, face.y2)
    line = (start_x, start_y, end_x, end_y)
    width = max(1, style.title_px // 6)
    draw.line(line, fill=_HALO, width=width + 2)
    draw.line(line, fill=colour, width=width)


def _nearest(a1: float, a2: float, b1: float, b2: float) -> tuple[float, float]:
    """The nearest points of two intervals; the middle of an overlap."""
    if a2 < b1:
        return a2, b1
    if b2 < a1:
        return a1, b2
    middle = (max(a1, b1) + min(a2, b2)) / 2
    return middle, middle


def _draw_panel(draw: ImageDraw.ImageDraw, place: Placed, colour: Any, style: Style) -> None:
    """Draw label and bars on a dark panel, with a stripe in the colour of the face's box."""
    x1, y1, x2, y2 = place.box
    panel, pad = place.panel, style.pad
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=_PANEL)
    draw.rectangle((x1, y1, x1 + max(1, pad // 3), y2 - 1), fill=colour)
    left, y = x1 + pad, y1 + pad / 2 + 0.625 * style.title_px
    draw.text((left, y), panel.title, font=style.title, fill=TEXT, anchor="lm")
    y += 0.625 * (style.title_px + style.row_px) + pad / 2
    names, bars, percent = panel.columns
    for index, (name, score) in enumerate(panel.rows):
        fill = TEXT if index == 0 else _DIM
        bar = left + names + pad
        half = 0.3 * style.row_px
        draw.text((left, y), name, font=style.row, fill=fill, anchor="lm")
        draw.rectangle((bar, y - half, bar + bars, y + half), fill=_TRACK)
        if bars * score >= 0.5:
            draw.rectangle((bar, y - half, bar + bars * score, y + half), fill=colour)
        end = bar + bars + pad + percent
        draw.text((end, y), f"{score:.0%}", font=style.row, fill=fill, anchor="rm")
        y += 1.25 * style.row_px


def _draw_note(draw: ImageDraw.ImageDraw, style: Style, text: str) -> None:
    """Draw a line of text in the lower left corner."""
    right = draw.textlength(text, font=style.row) + 2 * style.pad
    bottom = style.size[1]
    top = bottom - 1.25 * style.row_px - style.pad
    draw.rectangle((0, top, right, bottom), fill=_PANEL)
    middle = (top + bottom) / 2
    draw.text((style.pad, middle), text, font=style.row, fill=TEXT, anchor="lm")
