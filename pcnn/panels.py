"""Where the panel of each drawn face goes: inside the picture, off other faces and panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

_TOP = 3  # bars in the shorter chart
_GRID = 21  # places tried in each direction where those around the face are taken
_CROWD = 10  # more faces than this get smaller letters


class DrawnFace(Protocol):
    """What drawing needs of a face (see results.Face)."""

    @property
    def label(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...
    @property
    def landmarks(self) -> NDArray[np.float32]: ...


class Box(NamedTuple):
    """x1, y1, x2, y2 in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


class Style:
    """Fonts and distances for one picture; all grow with it, so that they survive a zoom out.

    size: of the picture, width and height; reach: how far from its face a panel may lie.
    """

    def __init__(self, size: tuple[int, int], faces: int) -> None:
        crowding = sqrt(_CROWD / faces) if faces > _CROWD else 1.0
        self.size = size
        self.title_px = max(12, round((7 + 0.011 * max(size)) * crowding))
        self.row_px = max(10, round(0.8 * self.title_px))
        self.title = ImageFont.load_default(self.title_px)
        self.row = ImageFont.load_default(self.row_px)
        self.pad = max(3, self.title_px // 3)
        self.bar_px = 4 * self.title_px
        self.reach = 6 * self.title_px


@dataclass(frozen=True)
class Panel:
    """The label of one face and its bars, laid out but not yet placed. All in pixels.

    rows: (name, probability), best first; none of them for a label alone.
    columns: widths of the names, the bars and the percentages.
    """

    title: str
    rows: tuple[tuple[str, float], ...]
    columns: tuple[float, float, float]
    width: float
    height: float


@dataclass(frozen=True)
class Placed:
    """A panel with the place found for it, and whether it hides nothing there."""

    panel: Panel
    box: Box
    clean: bool


def arrange(
    faces: Sequence[DrawnFace], style: Style, draw: ImageDraw.ImageDraw
) -> list[Placed | None]:
    """A place for each face's panel; None where even the label is larger than the picture.

    All faces get the same kind of chart where that works out, else as many as can the
    shorter one and the others the label alone.
    """
    most = max(len(face.scores) for face in faces)
    few = min(most, _TOP)
    for kinds in ([most], [few], [few, 0]):
        placed = _place_all(faces, kinds, style, draw)
        if all(place is not None and place.clean for place in placed):
            return placed
    return _place_all(faces, [0], style, draw, or_stop=False)


def _place_all(
    faces: Sequence[DrawnFace],
    kinds: Sequence[int],
    style: Style,
    draw: ImageDraw.ImageDraw,
    *,
    or_stop: bool = True,
) -> list[Placed | None]:
    """Place panels one after another, large faces first, each off those before it.

    kinds: how many bars each may have, the first that fits being taken.
    or_stop: give up, leaving the rest None, where a panel would have to hide something.
    """
    boxes = [visible(face.box, style.size) for face in faces]
    placed: list[Placed | None] = [None] * len(faces)
    # The margin keeps a panel from seeming to belong to the neighbour it would touch.
    taken = [_grown(box, 1.5 * style.pad) for box in boxes]
    for index in sorted(range(len(faces)), key=lambda i: -_area(boxes[i])):
        others = np.array([*taken[:index], *taken[index + 1 :], _core(faces[index])])
        for rows in kinds:
            panel = _lay_out(faces[index], rows, style, draw)
            place = _best_place(panel, boxes[index], others, style)
            if place is not None and place.clean:
                break
        placed[index] = place
        if place is not None:
            taken.append(place.box)
        if or_stop and not (place is not None and place.clean):
            break
    return placed


def _best_place(panel: Panel, own: Box, taken: NDArray[np.float64], style: Style) -> Placed | None:
    """The candidate that hides least, and of those the nearest; None where none fits in.

    taken: (M, 4) what it should not hide at all; the own face's rim comes second.
    """
    boxes = _candidates(panel, own, style)  # (K, 4)
    distance = distances(boxes, own)
    boxes, distance = boxes[distance <= style.reach], distance[distance <= style.reach]
    if not len(boxes):
        return None
    window = np.array([[*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]])
    near = taken[_overlaps(taken, window)[:, 0] > 0]
    hidden = _overlaps(boxes, near).sum(axis=1)  # (K,)
    covered = _overlaps(boxes, np.array([own]))[:, 0]
    distance = np.maximum(distance, 1.5 * style.pad)  # nearer than this is no better
    best = int(np.lexsort((distance, covered, hidden))[0])  # stable: the first of equals
    return Placed(panel, Box(*boxes[best].tolist()), clean=bool(hidden[best] == 0))


def _candidates(panel: Panel, own: Box, style: Style) -> NDArray[np.float64]:
    """Places inside the picture: next to the face, then on a grid around it; (K, 4)."""
    width, height, gap = panel.width, panel.height, style.pad
    room = np.array([style.size[0] - width, style.size[1] - height])
    if room.min() < 0:
        return np.empty((0, 4))
    beside = [own.x2 + gap, own.x1 - gap - width]
    along_y = [own.y1, (own.y1 + own.y2 - height) / 2, own.y2 - height]
    below = [own.y2 + gap, own.y1 - gap - height]
    along_x = [own.x1, (own.x1 + own.x2 - width) / 2, own.x2 - width]
    corners = [(x, y) for x in beside for y in along_y] + [(x, y) for y in below for x in along_x]
    across = np.linspace(own.x1 - style.reach - width, own.x2 + style.reach, _GRID).tolist()
    down = np.linspace(own.y1 - style.reach - height, own.y2 + style.reach, _GRID).tolist()
    corners += [(x, y) for y in down for x in across]
    start = np.clip(corners, 0, room)
    return np.concatenate([start, start + np.array([width, height])], axis=1)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Common areas, square pixels, of each of boxes (K, 4) with each of others (M, 4): (K, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common: NDArray[np.float64] = (high - low).clip(0).prod(axis=2)
    return common


def distances(boxes: NDArray[np.float64], own: Box) -> NDArray[np.float64]:
    """Lengths of the shortest lines from boxes (K, 4) to `own`: (K,); 0 where they touch."""
    gaps = np.maximum(boxes[:, :2] - own[2:], np.array(own[:2]) - boxes[:, 2:]).clip(0)
    lengths: NDArray[np.float64] = np.hypot(gaps[:, 0], gaps[:, 1])
    return lengths


def _grown(box: Box, margin: float) -> Box:
    """The box with a margin around it."""
    return Box(box.x1 - margin, box.y1 - margin, box.x2 + margin, box.y2 + margin)


def _area(box: Box) -> float:
    """Square pixels."""
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def visible(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """The part of a box that lies in the picture; at least the nearest pixel of its edge."""
    x1, x2 = (min(max(x, 0.0), size[0] - 1.0) for x in (box[0], box[2]))
    y1, y2 = (min(max(y, 0.0), size[1] - 1.0) for y in (box[1], box[3]))
    return Box(x1, y1, x2, y2)


def _core(face: DrawnFace) -> Box:
    """Eyes to mouth with a margin: what no panel should hide."""
    first, last = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    return _grown(Box(*first.tolist(), *last.tolist()), 0.1 * (face.box[2] - face.box[0]))


def _lay_out(face: DrawnFace, rows: int, style: Style, draw: ImageDraw.ImageDraw) -> Panel:
    """Measure the panel of one face with its `rows` best scores."""
    title = f"{face.label} {face.confidence:.0%}"
    title_width = draw.textlength(title, font=style.title)
    ranked = sorted(face.scores.items(), key=lambda item: -item[1])[:rows]
    height = 1.25 * style.title_px + style.pad
    names = max((draw.textlength(name, font=style.row) for name, _ in ranked), default=0.0)
    columns = (names, float(style.bar_px), draw.textlength("100%", font=style.row))
    width = title_width
    if ranked:
        width = max(width, sum(columns) + 2 * style.pad)
        height += 1.25 * style.row_px * len(ranked) + style.pad / 2
    return Panel(title, tuple(ranked), columns, width + 2 * style.pad, height)
