"""Detection of rotated faces, for which the detector was not trained.

The detector is reliable for faces within about 15° of upright. It misses other faces, or finds
them with wrong landmarks, for example an upside-down face as an upright one. So after a doubtful
first search there is a second one: of the picture rotated by 90°, 180° and 270°, then of each
tilted face, cut out and rotated upright. Where nothing is found, faint faces are cut out and
searched again. Clear upright faces are searched only once, and their detections do not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn.faces.geometry import covered_share, misfit, transformed
from pcnn.faces.light import stretched
from pcnn.faces.resampling import pixels_tensor
from pcnn.faces.shrinking import Source, shrink_face
from pcnn.ops import crop_regions
from pcnn.results.values import Detection

# A face is sure with this score, within this angle (degrees) and with this misfit of landmarks. Of
# sixty photographs of lfw 58 have such a face. Rotated by 90°, 180° or 270°, none of them has one
# (benchmarks/hard_pictures.py).
_SURE_SCORE, _SURE_ANGLE, _SURE_MISFIT = 0.95, 12.0, 0.25
# A face with the first score is searched separately and confirmed with the second one. In 150 other
# photographs of lfw no face rotated by 90°, 180° or 270° is confirmed by mistake.
_NEARLY_SURE, _SURE_AGAIN = 0.9, 0.97
# A face that seems tilted by more than this may be rotated by 90° or more.
_UNCLEAR = 25.0
# The least side of tilted faces, as a share of the largest sure face.
_BESIDE = 0.5
# The side of the square for a tilted face, and the range of the face's side in it, in pixels.
_SIDE, _LEAST_FACE, _MOST_FACE = 160, 64.0, 96.0
# Conditions for the face in that square: the largest distance of the middles, in face sides; the
# least score, unless its earlier one was less; and the extra score for a turn that differs from
# its landmarks'.
_OFF_CENTRE, _CONFIRMED, _AHEAD = 0.4, 0.9, 0.02
# The least score of a faint face, the most such faces of a picture, and the least score of one that
# is searched separately.
FAINT, _MOST_FAINT, _CLEAR_NEARBY = 0.3, 8, 0.8
# The number of attempts to rotate a face upright, and the most such faces of a picture.
_ROUNDS, _MOST_FACES = 3, 24

_Picture: TypeAlias = NDArray[np.uint8]
_Map: TypeAlias = NDArray[np.float64]
Reduction: TypeAlias = Callable[[_Picture], _Picture]
Search: TypeAlias = Callable[[Sequence[_Picture]], Sequence[Sequence[Detection]]]


@dataclass(frozen=True, eq=False)
class _Find:
    """A face in the picture's own pixels, and the rotation of the picture for its detection.

    turn: degrees, in the sense of Detection.angle. The difference of both is the face's tilt for
        the detector.
    """

    face: Detection
    turn: float = 0.0

    @cached_property
    def tilt(self) -> float:
        """The face's angle for the detector, in degrees, in (-180, 180]."""
        return 180 - (180 - self.face.angle + self.turn) % 360

    @property
    def tilted(self) -> bool:
        return abs(self.tilt) > _SURE_ANGLE

    @property
    def further_turns(self) -> tuple[float, ...]:
        """Possible rotations of the face in addition to `turn` and `tilt`, in degrees."""
        return (0.0,) if abs(self.tilt) < _UNCLEAR else (0.0, 90.0, 180.0, -90.0)

    @cached_property
    def plausible(self) -> bool:
        return misfit(self.face.landmarks) <= _SURE_MISFIT

    @property
    def clear(self) -> bool:
        """Whether this is clearly a face, upright or slightly tilted."""
        return self.face.score >= _SURE_SCORE and abs(self.tilt) < _UNCLEAR and self.plausible

    @property
    def sure(self) -> bool:
        return self.clear and not self.tilted

    @property
    def nearly_sure(self) -> bool:
        return self.face.score >= _NEARLY_SURE and not self.tilted and self.plausible


@dataclass(eq=False)
class _Case:
    """A picture for the search, and the faces found in it. given: the picture in its own light."""

    picture: _Picture
    finds: list[_Find]
    given: _Picture

    @property
    def lights(self) -> list[_Picture]:
        """The picture as given and, if that differs, in corrected light."""
        return [self.given] if self.picture is self.given else [self.given, self.picture]

    def doubtful(self, least_score: float = 0.0) -> bool:
        """Whether no face is sure with at least this score."""
        return not any(find.sure and find.face.score >= least_score for find in self.finds)

    def tilted(self) -> list[_Find]:
        """Tilted faces that are large enough in comparison with sure ones."""
        sides = [_side(find.face) for find in self.finds if find.sure]
        least = max(sides, default=0.0) * _BESIDE
        large = [find for find in self.finds if find.tilted and _side(find.face) >= least]
        return large[:_MOST_FACES]

    def add(self, finds: Sequence[_Find]) -> None:
        """Add finds and keep the best of each face; of equals, the earlier one."""
        every, self.finds = [*self.finds, *finds], []
        for find in sorted(every, key=lambda find: (not find.plausible, -find.face.score)):
            if not any(_same_face(find.face, other.face) for other in self.finds):
                self.finds.append(find)

    def means(self, find: _Find, new: _Find) -> bool:
        """Whether a new find is the same face as `find`, not a neighbour."""
        own = _distance(find.face, new.face)
        return all(own < _distance(o.face, new.face) for o in self.finds if o is not find)

    def keep_turn(self) -> None:
        """Remove uncertain faces found with another rotation than the surest face."""
        sure = [find for find in self.finds if find.sure]
        if sure:
            turn = max(sure, key=lambda find: find.face.score).turn
            self.finds = [find for find in self.finds if find.sure or find.turn == turn]

    def faces(self) -> tuple[Detection, ...]:
        """The faces, best first."""
        return tuple(sorted((find.face for find in self.finds), key=lambda face: -face.score))


def look_again(
    pictures: Sequence[_Picture],
    found: Sequence[Sequence[Detection]],
    search: Search,
    search_for_faint: Search,
    reduced: Reduction,
) -> list[tuple[Detection, ...]]:
    """Correct the results of a first search for faces if they are doubtful.

    pictures: (H, W, 3) uint8 RGB each. found: the faces of each from the first search.
    search: finds upright faces in several pictures. search_for_faint: finds those with a score of
        FAINT, too. reduced: makes a picture as small as `search` sees it, so that it is quicker to
        rotate.
    A picture without a sure face is searched with corrected light, if its light is unusual, then
    rotated by 90°, 180° and 270°. If that finds nothing, faint faces are searched separately.
    Tilted faces are searched separately, rotated upright.
    Returns the faces of each picture, best first. If all are upright and one is sure, these are
    the detections of `found`.
    """
    cases = [
        _Case(picture, [_Find(face) for face in faces], picture)
        for picture, faces in zip(pictures, found, strict=True)
    ]
    _set_upright(cases, search, clear=True)
    doubtful = _unconfirmed([case for case in cases if case.doubtful()], search)
    _relight(doubtful, search)
    _turn([case for case in doubtful if case.doubtful(_SURE_AGAIN)], search, reduced)
    _look_closer([case for case in doubtful if not case.finds], search, search_for_faint)
    _set_upright(cases, search)
    return [case.faces() for case in cases]


def _unconfirmed(cases: Sequence[_Case], search: Search) -> list[_Case]:
    """The cases whose best face is not confirmed by a separate search."""
    best = [(case, find) for case in cases for find in case.finds[:1] if find.nearly_sure]
    squares = [_Square.about(case.picture, find.face, 0.0) for case, find in best]
    confirmed = set()
    for square, (case, _), faces in zip(
        squares, best, search([square.pixels for square in squares]) if squares else (), strict=True
    ):
        seen = square.find(faces)
        if seen is not None and seen.sure and seen.face.score >= _SURE_AGAIN:
            confirmed.add(id(case))
    return [case for case in cases if id(case) not in confirmed]


def _relight(cases: Sequence[_Case], search: Search) -> None:
    """Search pictures in unusual light again after its correction, which they keep."""
    lit = [(case, stretched(case.picture)) for case in cases]
    lit = [(case, picture) for case, picture in lit if picture is not case.picture]
    if lit:
        for (case, picture), faces in zip(lit, search([p for _, p in lit]), strict=True):
            case.picture = picture
            case.add([_Find(face) for face in faces])


def _look_closer(cases: Sequence[_Case], search: Search, search_for_faint: Search) -> None:
    """Search faint faces separately, in both lights, where nothing else was found."""
    seen = search_for_faint([case.picture for case in cases]) if cases else []
    faint = [
        (case, _Square.about(picture, face, 0.0))
        for case, faces in zip(cases, seen, strict=True)
        for face in faces[:_MOST_FAINT]
        if misfit(face.landmarks) <= _SURE_MISFIT
        for picture in case.lights
    ]
    near = search([square.pixels for _, square in faint]) if faint else []
    pairs = zip(faint, near, strict=True)
    finds = [(case, square.find(faces)) for (case, square), faces in pairs]
    for case in cases:
        own = [find for other, find in finds if other is case and find is not None]
        case.add([find for find in own if find.plausible and find.face.score >= _CLEAR_NEARBY])


def _turn(cases: Sequence[_Case], search: Search, reduced: Reduction) -> None:
    """Search pictures rotated by 90°, 180° and 270°."""
    small = [reduced(case.picture) for case in cases]
    turns = [(picture, quarters) for picture in small for quarters in (1, 2, 3)]
    turned = [np.ascontiguousarray(np.rot90(picture, quarters)) for picture, quarters in turns]
    every = search(turned) if turned else []
    for number, case in enumerate(cases):
        scale = case.picture.shape[1] / small[number].shape[1]
        own = range(3 * number, 3 * number + 3)
        case.add(
            [
                _turned_back(face, turns[i][1], small[number].shape, scale)
                for i in own
                for face in every[i]
            ]
        )
        case.keep_turn()


def _set_upright(cases: Sequence[_Case], search: Search, *, clear: bool = False) -> None:
    """Search tilted faces again, cut out and rotated upright. clear: only clear ones."""
    tilted = [(case, find) for case in cases for find in case.tilted() if find.clear or not clear]
    for _ in range(_ROUNDS):
        if not tilted:
            break
        squares = [
            [_Square.about(case.picture, find.face, turn) for turn in find.further_turns]
            for case, find in tilted
        ]
        seen = iter(search([square.pixels for own in squares for square in own]))
        before, tilted = tilted, []
        for (case, find), own in zip(before, squares, strict=True):
            best = _best_turn(find, [square.find(next(seen)) for square in own])
            if best is not None and case.means(find, best):
                case.finds[case.finds.index(find)] = best
                tilted += [(case, best)] if best.tilted else []


def _best_turn(find: _Find, turned: Sequence[_Find | None]) -> _Find | None:
    """The best find of a face among several rotations; None if no one is good enough.

    turned: in the order of `find.further_turns`. The first one agrees with the earlier search. It
        is used unless another one is clearly better.
    """
    least = min(find.face.score, _CONFIRMED)
    scores = [0.0 if new is None or not new.plausible else new.face.score for new in turned]
    scores[0] += _AHEAD
    best = turned[int(np.argmax(scores))]
    return best if best is not None and best.plausible and best.face.score >= least else None


def _side(face: Detection) -> float:
    left, top, right, bottom = face.box
    return max(right - left, bottom - top)


def _distance(one: Detection, other: Detection) -> float:
    """The sum of distances between the edges of both boxes."""
    return float(np.abs(np.subtract(one.box, other.box)).sum())


def _same_face(one: Detection, other: Detection) -> bool:
    """Whether the boxes share more than half of the smaller one."""
    return max(covered_share(one.box, other.box), covered_share(other.box, one.box)) > 0.5


def _turned_back(face: Detection, quarters: int, shape: Sequence[int], scale: float) -> _Find:
    """A face of `np.rot90(picture, quarters)`, transformed to the picture itself, enlarged.

    shape: of the picture that was rotated, (H, W, …). scale: of the enlargement.
    """
    height, width = shape[:2]
    turn = {1: 90.0, 2: 180.0, 3: -90.0}[quarters]
    linear, shift = {
        1: ([[0, -1], [1, 0]], (width, 0)),
        2: ([[-1, 0], [0, -1]], (width, height)),
        3: ([[0, 1], [-1, 0]], (0, height)),
    }[quarters]
    back = scale * np.column_stack((linear, shift)).astype(np.float64)
    return _Find(transformed(face, back), turn)


@dataclass(frozen=True, eq=False)
class _Square:
    """An upright square with a face. back: (2, 3), its continuous coordinates → the picture's."""

    pixels: _Picture
    back: _Map
    turn: float
    face_side: float

    @classmethod
    def about(cls, picture: _Picture, face: Detection, turn: float) -> _Square:
        """The surroundings of a face, rotated by its landmarks' angle plus `turn` degrees."""
        left, top, right, bottom = face.box
        side = max(_side(face), 1.0)
        face_side = min(max(side, _LEAST_FACE), _MOST_FACE)
        angle = face.angle + turn
        scale = side / face_side
        turned = math.radians(angle)
        along, across = scale * math.cos(turned), scale * math.sin(turned)
        linear = np.array([[along, -across], [across, along]])
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        shift = middle - linear @ (_SIDE / 2, _SIDE / 2)
        # Pixel centres count from 0, continuous coordinates from the first pixel's corner.
        to_pixels = np.column_stack((linear, linear @ (0.5, 0.5) + shift - 0.5))
        source = shrink_face(
            Source(pixels_tensor(picture), to_pixels[None].astype(np.float32), 1.0), _SIDE
        )
        (view,) = crop_regions(
            source.pixels.contiguous(),
            torch.from_numpy(source.transforms)[None],
            [(_SIDE, _SIDE)],
            mean=(0.0,) * 3,
            std=(1 / 255,) * 3,
            # Half the footprint takes a quarter of the time, without loss for the detector.
            footprint=source.footprint / 2,
        )
        pixels = view[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
        return cls(pixels.numpy(), np.column_stack((linear, shift)), angle, face_side)

    def find(self, faces: Sequence[Detection]) -> _Find | None:
        """The face in the middle of the square, in the picture's pixels; None without one."""
        for face in faces:
            left, top, right, bottom = face.box
            off = max(abs(left + right - _SIDE), abs(top + bottom - _SIDE)) / 2
            if off <= _OFF_CENTRE * self.face_side:
                return _Find(transformed(face, self.back), self.turn)
        return None
