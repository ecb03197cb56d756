"""Placement of each face's panel: in the picture, without hiding faces, hair or other panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pcnn.results.style import letters

_MOVEMENTS = 10  # bars in a chart of movements, at most
_TOP = 3  # bars in the shorter chart
_GRID = 21  # candidate places in each direction, besides those around the head
_CROWD = 10  # more faces than this get smaller text
# Letters grow with the longer side, up to this many times the shorter one and these pixels.
_LONGEST, _LEAST_LONGEST = 8, 512
# Margins of heads with hair around face boxes, which extend from forehead to chin.
_HAIR_ABOVE, _HAIR_BESIDE, _CHIN = 0.35, 0.3, 0.05  # of the box's height, width and height


class DrawnFace(Protocol):
    """The attributes of a face that drawing uses (see values.Face)."""

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


@dataclass(frozen=True)
class Subject:
    """A face to draw: the content of its panel, and its place in pixels of the drawing.

    number: the label of its box; empty for the only face.
    scores: (name, probability), best first.
    """

    number: str
    title: str
    scores: tuple[tuple[str, float], ...]
    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]


def subjects(faces: Sequence[DrawnFace], scale: int, *, movements: bool = False) -> list[Subject]:
    """The faces to draw in a picture enlarged by `scale`.

    movements: True lists a face's strongest movements, if it has any, instead of its scores.

    Several faces are numbered from 1 in their order, as in the table of `pcnn-predict`.
    """
    several = len(faces) > 1
    return [
        Subject(
            number=f"{number}" if several else "",
            title=(f"{number}: " if several else "") + f"{face.label} {face.confidence:.0%}",
            scores=_rows(face, movements=movements),
            box=Box(*(scale * edge for edge in face.box)),
            landmarks=scale * face.landmarks,
        )
        for number, face in enumerate(faces, 1)
    ]


def _rows(face: DrawnFace, *, movements: bool) -> tuple[tuple[str, float], ...]:
    """Names and values of a face's chart, the largest first."""
    moving = getattr(face, "movements", None) if movements else None
    values = sorted((moving or face.scores).items(), key=lambda item: -item[1])
    return tuple(values[:_MOVEMENTS] if moving else values)


class Style:
    """Fonts and distances of one drawing. They grow with its size.

    size: width and height of the drawing: the picture's, or more if a title needs it.
    reach: the largest distance between a panel and its face's head.
    """

    def __init__(self, picture: tuple[int, int], titles: Sequence[str]) -> None:
        crowding = sqrt(_CROWD / len(titles)) if len(titles) > _CROWD else 1.0
        # A long strip of a picture must not become a large one for the sake of its letters.
        longest = min(max(picture), _LONGEST * min(picture) + _LEAST_LONGEST)
        self.title_px = max(12, round((7 + 0.011 * longest) * crowding))
        self.row_px = max(10, round(0.8 * self.title_px))
        self.title = letters(self.title_px)
        self.row = letters(self.row_px)
        self.pad = max(3, self.title_px // 3)
        self.bar_px = 4 * self.title_px
        self.reach = 6 * self.title_px
        self.title_height = 1.25 * self.title_px + self.pad
        widest = max(map(self.title_width, titles))
        self.size = (max(picture[0], ceil(widest)), max(picture[1], ceil(self.title_height)))

    def title_width(self, title: str) -> float:
        """The width of a panel with only this title, in pixels."""
        return float(self.title.getlength(title)) + 2 * self.pad


@dataclass(frozen=True)
class Panel:
    """The label and bars of one face, before placement. Sizes are in pixels.

    rows: (name, probability), best first; empty for a label without bars.
    columns: widths of the names, the bars and the percentages.
    """

    title: str
    rows: tuple[tuple[str, float], ...]
    columns: tuple[float, float, float]
    width: float
    height: float


@dataclass(frozen=True)
class Placed:
    """A panel with its place.

    clean: the panel hides nothing. apart: the panel is not next to its face's head.
    tolerable: the panel hides nothing of the most important areas.
    """

    panel: Panel
    box: Box
    clean: bool
    apart: bool
    tolerable: bool


def arrange(faces: Sequence[Subject], style: Style) -> list[Placed | None]:
    """Place each face's panel; None for a face that has none.

    A single face gets a chart of all classes if that hides no head, else of the best three.
    Several faces get the shorter chart if all have room. Otherwise some get it, and the others
    only a label. If even labels must hide something, all faces get only labels. A label that
    would hide another one, or another face from eyes to mouth, is then left out: in a crowd of
    small faces the numbers of the boxes have to do.
    """
    few = min(_TOP, *(len(face.scores) for face in faces))
    whole = [[len(faces[0].scores)]] if len(faces) == 1 else []
    for kinds in (*whole, [few], [few, 0]):
        placed = _place_all(faces, kinds, style)
        if placed is not None:
            return placed
    return _place_labels(faces, style)


def _place_all(
    faces: Sequence[Subject], kinds: Sequence[int], style: Style
) -> list[Placed | None] | None:
    """Place panels one after another, large faces first; None if one must hide something.

    kinds: numbers of bars to try; the first that fits is used.
    """
    boxes, heads = _outlines(faces, style)
    placed: dict[int, Placed] = {}
    for index in _large_first(boxes):
        areas = _to_leave_visible(index, faces, (boxes, heads), placed, style)
        for rows in kinds:
            panel = _lay_out(faces[index], rows, style)
            place = _best_place(panel, heads[index], areas, style)
            if place is not None and place.clean:
                placed[index] = place
                break
        else:
            return None
    return [placed[index] for index in range(len(faces))]


def _place_labels(faces: Sequence[Subject], style: Style) -> list[Placed | None]:
    """Place labels without bars, large faces first, where not all can be clean.

    A label that would hide another one, or another face from eyes to mouth, is None.
    """
    boxes, heads = _outlines(faces, style)
    cores = [_core(face) for face in faces]
    placed: dict[int, Placed] = {}
    for index in _large_first(boxes):
        labels = [place.box for place in placed.values()]
        worst = np.array([*labels, *cores[:index], *cores[index + 1 :]]).reshape(-1, 4)
        areas = _to_leave_visible(index, faces, (boxes, heads), placed, style)
        panel = _lay_out(faces[index], 0, style)
        place = _best_place(panel, heads[index], [worst, *areas], style)
        if place is not None and place.tolerable:
            placed[index] = place
    return [placed.get(index) for index in range(len(faces))]


def _outlines(faces: Sequence[Subject], style: Style) -> tuple[list[Box], list[Box]]:
    """The visible parts of the faces' boxes and of their heads."""
    boxes = [visible(face.box, style.size) for face in faces]
    return boxes, [visible(_head(face.box), style.size) for face in faces]


def _large_first(boxes: Sequence[Box]) -> list[int]:
    """The indices of boxes by falling area; equal ones stay in order."""
    return sorted(range(len(boxes)), key=lambda index: -_area(boxes[index]))


def _to_leave_visible(
    index: int,
    faces: Sequence[Subject],
    outlines: tuple[Sequence[Box], Sequence[Box]],
    placed: Mapping[int, Placed],
    style: Style,
) -> list[NDArray[np.float64]]:
    """What the panel of the face at `index` should not hide, the most important first, each (M, 4).

    First other faces, its own from eyes to mouth, and earlier panels; then heads.
    """
    boxes, heads = outlines
    # With the margin a panel does not seem to belong to a neighbour.
    grown = [_grown(box, 1.5 * style.pad) for place, box in enumerate(boxes) if place != index]
    earlier = [place.box for place in placed.values()]
    return [np.array([*grown, *earlier, _core(faces[index])]), np.array([*heads, boxes[index]])]


def _best_place(
    panel: Panel, head: Box, hidden: Sequence[NDArray[np.float64]], style: Style
) -> Placed | None:
    """The candidate that hides least; of equals, the nearest. None if no candidate fits.

    head: the head of the panel's own face.
    hidden: areas to leave visible, the most important first, each (M, 4).
    """
    boxes = _candidates(panel, head, style)  # (K, 4)
    distance = _distances(boxes, head)
    boxes, distance = boxes[distance <= style.reach], distance[distance <= style.reach]
    if not len(boxes):
        return None
    areas = [_overlaps(boxes, each).sum(axis=1) for each in hidden]  # (K,) each
    distance = np.maximum(distance, 1.5 * style.pad)  # smaller distances count as equal
    best = int(np.lexsort((distance, *areas[::-1]))[0])  # stable: the first of equals
    clean = not any(area[best] > 0 for area in areas)
    apart = bool(distance[best] > 1.5 * style.pad)
    return Placed(panel, Box(*boxes[best].tolist()), clean, apart, not areas[0][best] > 0)


def _candidates(panel: Panel, head: Box, style: Style) -> NDArray[np.float64]:
    """Candidate places in the drawing: above, beside, below the head, then around it; (K, 4)."""
    width, height, gap = panel.width, panel.height, style.pad
    room = np.array([style.size[0] - width, style.size[1] - height])
    if room.min() < 0:
        return np.empty((0, 4))
    along_x = [(head.x1 + head.x2 - width) / 2, head.x1, head.x2 - width]
    along_y = [head.y1, (head.y1 + head.y2 - height) / 2, head.y2 - height]
    corners = [(x, head.y1 - gap - height) for x in along_x]
    # Beside comes before below: below a head is the rest of the person.
    corners += [(x, y) for x in (head.x2 + gap, head.x1 - gap - width) for y in along_y]
    corners += [(x, head.y2 + gap) for x in along_x]
    across = np.linspace(head.x1 - style.reach - width, head.x2 + style.reach, _GRID).tolist()
    down = np.linspace(head.y1 - style.reach - height, head.y2 + style.reach, _GRID).tolist()
    corners += [(x, y) for y in down for x in across]
    start = np.clip(corners, 0, room)
    return np.concatenate([start, start + np.array([width, height])], axis=1)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlap areas (K, M), in square pixels, of boxes (K, 4) with others (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common: NDArray[np.float64] = (high - low).clip(0).prod(axis=2)
    return common


def _distances(boxes: NDArray[np.float64], own: Box) -> NDArray[np.float64]:
    """Distances (K,) between boxes (K, 4) and `own`; 0 for boxes that touch it."""
    gaps = np.maximum(boxes[:, :2] - own[2:], np.array(own[:2]) - boxes[:, 2:]).clip(0)
    lengths: NDArray[np.float64] = np.hypot(gaps[:, 0], gaps[:, 1])
    return lengths


def _grown(box: Box, margin: float) -> Box:
    """The box with a margin around it."""
    return Box(box.x1 - margin, box.y1 - margin, box.x2 + margin, box.y2 + margin)


def _area(box: Box) -> float:
    """The area of a box in square pixels."""
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def visible(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """The part of a box in the picture; at least the nearest pixel of the picture's edge."""
    x1, x2 = (min(max(x, 0.0), size[0] - 1.0) for x in (box[0], box[2]))
    y1, y2 = (min(max(y, 0.0), size[1] - 1.0) for y in (box[1], box[3]))
    return Box(x1, y1, x2, y2)


def _head(box: tuple[float, float, float, float]) -> Box:
    """An estimate of the head with hair, from the face's box."""
    x1, y1, x2, y2 = box
    beside, height = _HAIR_BESIDE * (x2 - x1), y2 - y1
    return Box(x1 - beside, y1 - _HAIR_ABOVE * height, x2 + beside, y2 + _CHIN * height)


def _core(face: Subject) -> Box:
    """The area from eyes to mouth with a margin, which no panel should hide."""
    first, last = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    return _grown(Box(*first.tolist(), *last.tolist()), 0.1 * (face.box[2] - face.box[0]))


def _lay_out(face: Subject, rows: int, style: Style) -> Panel:
    """The panel of one face with its `rows` best scores."""
    ranked, width, height = face.scores[:rows], style.title_width(face.title), style.title_height
    names = max((style.row.getlength(name) for name, _ in ranked), default=0.0)
    columns = (names, float(style.bar_px), style.row.getlength("100%"))
    if ranked:
        width = max(width, sum(columns) + 4 * style.pad)
        height += 1.25 * style.row_px * len(ranked) + style.pad / 2
    return Panel(face.title, ranked, columns, width, height)
