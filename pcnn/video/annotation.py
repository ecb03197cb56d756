"""Annotated frames: each face's box with its scores of the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pcnn.results.frames import Frame, TrackedFace
from pcnn.results.mesh import draw_mesh
from pcnn.results.style import DIM, TEXT, class_colours, label_colour, letters

SHOWN_S = 4.0  # seconds in the chart
_LINES = 3  # classes in the chart: those with the highest scores
_WORTH_A_LINE = 0.1  # of a class's highest score in it
_LETTER = 1 / 34  # of the frame's height, for a frame of this shape or wider:
_SHAPE = 16 / 9
_LEAST_LETTER = 11  # pixels
_PANEL = (16, 16, 16, 190)
_HALO = (0, 0, 0, 200)
_GRID = (255, 255, 255, 50)


class _Box(NamedTuple):
    x1: float
    y1: float
    x2: float
    y2: float


class Annotator:
    """Draws annotations on the consecutive frames of one film.

    classes: the expressions' names, in order; each has its colour.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._colours = class_colours(self._classes)
        self._past: dict[int, deque[tuple[float, tuple[float, ...]]]] = {}

    def draw(self, frame: Frame, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of the frame's pixels (H, W, 3) uint8 RGB with its faces drawn on it."""
        self._remember(frame)
        if not frame.faces:
            return pixels
        picture = Image.fromarray(pixels)
        draw = ImageDraw.Draw(picture, "RGBA")
        height = min(frame.height, frame.width / _SHAPE * 1.4)
        size = max(_LEAST_LETTER, round(height * _LETTER))
        taken: list[_Box] = [_Box(*face.box) for face in frame.faces]
        for face in frame.faces:
            self._draw_box(draw, face, size)
            if face.motion is not None:
                draw_mesh(draw, face.motion, label_colour(self._colours, face.label))
        for face in sorted(frame.faces, key=_area, reverse=True):
            panel = _place(face, taken, (frame.width, frame.height), size)
            taken.append(panel)
            self._draw_panel(draw, face, panel, size, frame.time)
        return np.asarray(picture)

    def _remember(self, frame: Frame) -> None:
        for face in frame.faces:
            past = self._past.setdefault(face.track, deque())
            past.append((frame.time, tuple(face.scores.values())))
        for track in list(self._past):
            past = self._past[track]
            while past and past[0][0] < frame.time - SHOWN_S:
                past.popleft()
            if not past:
                del self._past[track]

    def _draw_box(self, draw: ImageDraw.ImageDraw, face: TrackedFace, size: int) -> None:
        line = max(2, size // 7)
        box = [round(edge) for edge in face.box]
        outer = [box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1]
        draw.rectangle(outer, outline=_HALO, width=line + 2)
        draw.rectangle(box, outline=label_colour(self._colours, face.label), width=line)

    def _draw_panel(
        self, draw: ImageDraw.ImageDraw, face: TrackedFace, panel: _Box, size: int, now: float
    ) -> None:
        """Draw number, label and confidence, with a chart of the last seconds below them."""
        colour = label_colour(self._colours, face.label)
        draw.rectangle(panel, fill=_PANEL)
        draw.rectangle((panel.x1, panel.y1, panel.x1 + size / 5, panel.y2), fill=colour)
        left, middle = panel.x1 + 0.6 * size, panel.y1 + 0.75 * size
        font = letters(size)
        number = f"{face.track} "
        draw.text((left, middle), number, font=font, fill=DIM, anchor="lm")
        left += font.getlength(number)
        draw.text((left, middle), face.label, font=font, fill=TEXT, anchor="lm")
        percent = f"{face.confidence:.0%}"
        draw.text((panel.x2 - 0.4 * size, middle), percent, font=font, fill=colour, anchor="rm")
        chart = _Box(panel.x1 + 0.6 * size, panel.y1 + 1.4 * size, panel.x2 - 0.4 * size, panel.y2)
        self._draw_lines(draw, face, chart._replace(y2=panel.y2 - 0.35 * size), size, now)

    def _draw_lines(
        self, draw: ImageDraw.ImageDraw, face: TrackedFace, chart: _Box, size: int, now: float
    ) -> None:
        past = self._past[face.track]
        for level in (0.0, 0.5, 1.0):
            y = chart.y2 + level * (chart.y1 - chart.y2)
            draw.line((chart.x1, y, chart.x2, y), fill=_GRID, width=1)
        scores = np.array([row for _, row in past])  # (frames, classes)
        ages = np.array([now - time for time, _ in past])
        across = chart.x2 - ages / SHOWN_S * (chart.x2 - chart.x1)
        down = chart.y2 - scores * (chart.y2 - chart.y1)
        chosen = scores.max(0).argsort()[::-1][:_LINES]
        chosen = chosen[scores[:, chosen].max(0) >= _WORTH_A_LINE]
        for index in chosen[::-1]:
            points = list(zip(across.tolist(), down[:, index].tolist(), strict=True))
            colour = self._colours[self._classes[index]]
            if len(points) > 1:
                draw.line(points, fill=colour, width=max(2, size // 8), joint="curve")
            radius = max(1.5, size / 8)
            end_x, end_y = points[-1]
            dot = (end_x - radius, end_y - radius, end_x + radius, end_y + radius)
            draw.ellipse(dot, fill=colour)


def _place(face: TrackedFace, taken: Sequence[_Box], frame: tuple[int, int], size: int) -> _Box:
    """Where the face's panel goes: below, above or beside its box, off the others where it can."""
    width, height, gap = 11.5 * size, 4.4 * size, 0.4 * size
    x1, y1, x2, y2 = face.box
    middle = (x1 + x2 - width) / 2
    corners = [
        (middle, y2 + gap),
        (middle, y1 - gap - height),
        (x2 + gap, (y1 + y2 - height) / 2),
        (x1 - gap - width, (y1 + y2 - height) / 2),
        (x1, y2 + gap),
        (x2 - width, y2 + gap),
    ]
    room = max(0.0, frame[0] - width), max(0.0, frame[1] - height)
    panels = []
    for left, top in corners:
        inside = min(max(left, 0.0), room[0]), min(max(top, 0.0), room[1])
        panels.append(_Box(*inside, inside[0] + width, inside[1] + height))
    return min(panels, key=lambda panel: sum(_common(panel, other) for other in taken))


def _common(one: _Box, two: _Box) -> float:
    """Square pixels of both."""
    width = min(one.x2, two.x2) - max(one.x1, two.x1)
    height = min(one.y2, two.y2) - max(one.y1, two.y1)
    return max(0.0, width) * max(0.0, height)


def _area(face: Any) -> float:
    x1, y1, x2, y2 = face.box
    return float((x2 - x1) * (y2 - y1))
