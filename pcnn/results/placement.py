"""Where the panel of each drawn face goes: inside the picture, off faces, hair and other panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pcnn.results.style import letters

_TOP = 3  # bars in the shorter chart
_GRID = 21  # places tried in each direction where those around the head are taken
_CROWD = 10  # more faces than this get smaller letters
# How far heads with their hair reach beyond boxes, which go from forehead to chin.
_HAIR_ABOVE, _HAIR_BESIDE, _CHIN = 0.35, 0.3, 0.05  # of the box's height, width and height


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


@dataclass(frozen=True)
class Subject:
    """A face as it is drawn: what its panel says, and its place in pixels of the drawing.

    number: what its box bears; empty for the only face.
    scores: (name, probability), best first.
    """

    number: str
    title: str
    scores: tuple[tuple[str, float], ...]
    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]


def subjects(faces: Sequence[DrawnFace], scale: int) -> list[Subject]:
    """The faces of a picture drawn `scale` times as large.

    Several are numbered from 1 in their order, as `pcnn-predict` numbers them in its table.
    """
    several = len(faces) > 1
    return [
        Subject(
            number=f"{number}" if several else "",
            title=(f"{number}: " if several else "") + f"{face.label} {face.confidence:.0%}",
            scores=tuple(sorted(face.scores.items(), key=lambda item: -item[1])),
            box=Box(*(scale * edge for edge in face.box)),
            landmarks=scale * face.landmarks,
        )
        for number, face in enumerate(faces, 1)
    ]


class Style:
    """Fonts and distances for one drawing; all grow with it, so that they survive a zoom out.

    size: of the drawing, width and height: the picture's, or more where a title needs it.
    reach: how far from its face's head a panel may lie.
    """

    def __init__(self, picture: tuple[int, int], titles: Sequence[str]) -> None:
        crowding = sqrt(_CROWD / len(titles)) if len(titles) > _CROWD else 1.0
        self.title_px = max(12, round((7 + 0.011 * max(picture)) * crowding))
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
        """Of a panel with this title alone, in pixels."""
        return float(self.title.getlength(title)) + 2 * self.pad


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
    """A panel with the place found for it.

    clean: it hides nothing there. apart: it is not next to its face's head.
    """

    panel: Panel
    box: Box
    clean: bool
    apart: bool


def arrange(faces: Sequence[Subject], style: Style) -> list[Placed]:
    """A place for each face's panel.

    One face gets a chart of all classes where it hides no head, else of the best three.
    Several get the shorter chart where that works out for all, else as many as can that and
    the others the label alone. Where even labels must hide something, all are labels.
    """
    few = min(_TOP, *(len(face.scores) for face in faces))
    whole = [[len(faces[0].scores)]] if len(faces) == 1 else []
    for kinds in (*whole, [few], [few, 0]):
        placed = _place_all(faces, kinds, style)
        if placed is not None:
            return placed
    return _place_all(faces, [0], style, clean=False) or []


def _place_all(
    faces: Sequence[Subject], kinds: Sequence[int], style: Style, *, clean: bool = True
) -> list[Placed] | None:
    """Place panels one after another, large faces first, each off those before it.

    kinds: how many bars each may have, the first that fits being taken.
    clean: None where a panel would have to hide something.
    """
    boxes = [visible(face.box, style.size) for face in faces]
    heads = np.array([visible(_head(face.box), style.size) for face in faces])
    placed: dict[int, Placed] = {}
    # The margin keeps a panel from seeming to belong to the neighbour it would touch.
    taken = [_grown(box, 1.5 * style.pad) for box in boxes]
    for index in sorted(range(len(faces)), key=lambda i: -_area(boxes[i])):
        others = np.array([*taken[:index], *taken[index + 1 :], _core(faces[index])])
        own, rims = Box(*heads[index].tolist()), np.array([*heads, boxes[index]])
        for rows in kinds:
            panel = _lay_out(faces[index], rows, style)
            place = _best_place(panel, own, (others, rims), style)
            if place is not None and (place.clean or not clean):
                placed[index] = place
                taken.append(place.box)
                break
        else:
            return None
    return [placed[index] for index in range(len(faces))]


def _best_place(
    panel: Panel, head: Box, hidden: Sequence[NDArray[np.float64]], style: Style
) -> Placed | None:
    """The candidate that hides least, and of those the nearest; None where none fits in.

    head: of the panel's own face.
    hidden: what not to hide, most important first, each (M, 4).
    """
    boxes = _candidates(panel, head, style)  # (K, 4)
    distance = _distances(boxes, head)
    boxes, distance = boxes[distance <= style.reach], distance[distance <= style.reach]
    if not len(boxes):
        return None
    areas = [_overlaps(boxes, each).sum(axis=1) for each in hidden]  # (K,) each
    distance = np.maximum(distance, 1.5 * style.pad)  # nearer than this is no better
    best = int(np.lexsort((distance, *areas[::-1]))[0])  # stable: the first of equals
    clean = not any(area[best] > 0 for area in areas)
    apart = bool(distance[best] > 1.5 * style.pad)
    return Placed(panel, Box(*boxes[best].tolist()), clean, apart)


def _candidates(panel: Panel, head: Box, style: Style) -> NDArray[np.float64]:
    """Places inside the drawing: above, beside and below the head, then around it; (K, 4)."""
    width, height, gap = panel.width, panel.height, style.pad
    room = np.array([style.size[0] - width, style.size[1] - height])
    if room.min() < 0:
        return np.empty((0, 4))
    along_x = [(head.x1 + head.x2 - width) / 2, head.x1, head.x2 - width]
    along_y = [head.y1, (head.y1 + head.y2 - height) / 2, head.y2 - height]
    corners = [(x, head.y1 - gap - height) for x in along_x]
    # Below a head is the rest of the person, beside it often nothing.
    corners += [(x, y) for x in (head.x2 + gap, head.x1 - gap - width) for y in along_y]
    corners += [(x, head.y2 + gap) for x in along_x]
    across = np.linspace(head.x1 - style.reach - width, head.x2 + style.reach, _GRID).tolist()
    down = np.linspace(head.y1 - style.reach - height, head.y2 + style.reach, _GRID).tolist()
    corners += [(x, y) for y in down for x in across]
    start = np.clip(corners, 0, room)
    return np.concatenate([start, start + np.array([width, height])], axis=1)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Common areas, square pixels, of each of boxes (K, 4) with each of others (M, 4): (K, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common: NDArray[np.float64] = (high - low).clip(0).prod(axis=2)
    return common


def _distances(boxes: NDArray[np.float64], own: Box) -> NDArray[np.float64]:
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


def _head(box: tuple[float, float, float, float]) -> Box:
    """About where the hair of the face in this box ends."""
    x1, y1, x2, y2 = box
    beside, height = _HAIR_BESIDE * (x2 - x1), y2 - y1
    return Box(x1 - beside, y1 - _HAIR_ABOVE * height, x2 + beside, y2 + _CHIN * height)


def _core(face: Subject) -> Box:
    """Eyes to mouth with a margin: what no panel should hide."""
    first, last = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    return _grown(Box(*first.tolist(), *last.tolist()), 0.1 * (face.box[2] - face.box[0]))


def _lay_out(face: Subject, rows: int, style: Style) -> Panel:
    """Measure the panel of one face with its `rows` best scores."""
    ranked, width, height = face.scores[:rows], style.title_width(face.title), style.title_height
    names = max((style.row.getlength(name) for name, _ in ranked), default=0.0)
    columns = (names, float(style.bar_px), style.row.getlength("100%"))
    if ranked:
        width = max(width, sum(columns) + 4 * style.pad)
        height += 1.25 * style.row_px * len(ranked) + style.pad / 2
    return Panel(face.title, ranked, columns, width, height)
