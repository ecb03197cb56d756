"""Tracking of faces from frame to frame: ByteTrack on the detector's boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcnn.video.motion import BoxMotion

Box = tuple[float, float, float, float]

# A track ends when its face is missing for more than these frames and these seconds.
HELD_FRAMES, HELD_S = 15, 1.0
# The least overlap of matching boxes, as a share of their union. First both boxes are enlarged on
# each side by a share of their size, which grows with the seconds since the last detection.
_LEAST_OVERLAP = 0.2
_GROWN, _GROWN_A_SECOND, _MOST_GROWN = 0.05, 1.0, 0.5
# The least overlap for uncertain faces.
_LEAST_OVERLAP_UNSURE = 0.4


class _Track:
    """One person's track: motion of the box, and time of the last detection."""

    def __init__(self, number: int, box: Box, time: float) -> None:
        self.number = number
        self.motion = BoxMotion(box)
        self.seen = time
        self.missed = 0  # frames since then


class Tracker:
    """Assigns track numbers to the faces of consecutive frames.

    sure: the least detection score of a new track. Faces with lower scores only continue a
        track; otherwise they are dropped.
    Numbers count from 1 in the order of appearance and are never repeated.
    Source: Zhang et al. 2022, with boxes that grow as in C-BIoU (Yang et al. 2023).
    """

    def __init__(self, *, sure: float) -> None:
        self._sure = sure
        self._tracks: list[_Track] = []
        self._time: float | None = None
        self._count = 0

    @property
    def numbers(self) -> list[int]:
        """The numbers of the current tracks, including temporarily missing ones."""
        return [track.number for track in self._tracks]

    def end_all(self) -> None:
        """Hold nobody any longer: the next frame shows another scene."""
        self._tracks = []

    def predict(self, time: float) -> list[Box]:
        """Where the faces of the current tracks are expected in the next frame.

        time: seconds, as for `update`, which follows.
        """
        seconds = 0.0 if self._time is None else time - self._time
        self._time = time
        for track in self._tracks:
            track.motion.predict(seconds, seen=track.missed == 0)
        return [_box(track) for track in self._tracks]

    def misses(self, boxes: Sequence[Box]) -> bool:
        """Whether a track of the frame before would match none of these faces, after `predict`."""
        recent = [track for track in self._tracks if track.missed == 0]
        return len(self._pairs(recent, boxes, _LEAST_OVERLAP_UNSURE)) < len(recent)

    def update(
        self, time: float, boxes: Sequence[Box], scores: Sequence[float]
    ) -> list[int | None]:
        """The track number of each face of the next frame; None for a dropped face.

        time: seconds, later than in the last call. boxes: x1, y1, x2, y2 in pixels. scores: 0…1.
        """
        self.predict(time)
        numbers: list[int | None] = [None] * len(boxes)
        sure = [i for i, score in enumerate(scores) if score >= self._sure]
        unsure = [i for i, score in enumerate(scores) if score < self._sure]
        faces = list(zip(boxes, scores, strict=True))
        left = self._match(self._tracks, faces, sure, numbers, _LEAST_OVERLAP)
        recent = [track for track in left if track.missed == 0]
        self._match(recent, faces, unsure, numbers, _LEAST_OVERLAP_UNSURE)
        found = {number for number in numbers if number is not None}
        for track in self._tracks:
            if track.number not in found:
                track.missed += 1
        self._tracks = [
            track
            for track in self._tracks
            if track.missed <= HELD_FRAMES or time - track.seen <= HELD_S
        ]
        for index in sure:
            if numbers[index] is None:
                self._count += 1
                numbers[index] = self._count
                self._tracks.append(_Track(self._count, boxes[index], time))
        return numbers

    def _match(
        self,
        tracks: Sequence[_Track],
        faces: Sequence[tuple[Box, float]],
        indices: Sequence[int],
        numbers: list[int | None],
        least: float,
    ) -> list[_Track]:
        """Write the track numbers of matching faces; returns the tracks without a match."""
        pairs = self._pairs(tracks, [faces[index][0] for index in indices], least)
        for row, column in pairs:
            track, index = tracks[row], indices[column]
            track.motion.update(*faces[index])
            track.seen, track.missed = self._time or 0.0, 0
            numbers[index] = track.number
        matched = {row for row, _ in pairs}
        return [track for row, track in enumerate(tracks) if row not in matched]

    def _pairs(
        self, tracks: Sequence[_Track], boxes: Sequence[Box], least: float
    ) -> list[tuple[int, int]]:
        """Pairs of the indices of tracks and boxes that match best."""
        away = np.array([(self._time or 0.0) - track.seen for track in tracks])
        grown = np.minimum(_MOST_GROWN, _GROWN + _GROWN_A_SECOND * away)
        places = np.array([track.motion.box for track in tracks]).reshape(-1, 4)
        overlaps = _overlaps(places, np.array(boxes, float).reshape(-1, 4), grown)
        return assign(1 - overlaps, most=1 - least)


def _box(track: _Track) -> Box:
    left, top, right, bottom = track.motion.box.tolist()
    return left, top, right, bottom


def _overlaps(
    places: NDArray[np.float64], boxes: NDArray[np.float64], grown: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Overlaps (N, M) of boxes (N, 4) with (M, 4), both enlarged by shares (N,) of their sizes."""
    share = grown[:, None, None]
    one, two = places[:, None], boxes[None]
    one_size, two_size = one[..., 2:] - one[..., :2], two[..., 2:] - two[..., :2]
    low = np.maximum(one[..., :2] - share * one_size, two[..., :2] - share * two_size)
    high = np.minimum(one[..., 2:] + share * one_size, two[..., 2:] + share * two_size)
    common = (high - low).clip(0).prod(2)
    grown_area = (1 + 2 * grown[:, None]) ** 2
    union = grown_area * (one_size.prod(2) + two_size.prod(2)) - common
    overlaps: NDArray[np.float64] = common / np.maximum(union, 1e-9)
    return overlaps


def assign(costs: NDArray[np.float64], *, most: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the least sum of costs, each row and column in one at most.

    costs: (N, M), finite. most: pairs that cost more are no pairs; as many as can be are made.
    Returns pairs by row; N = 0 or M = 0 gives none.
    Source: Kuhn 1955, in the form with shortest paths and potentials (Jonker and Volgenant 1987).
    """
    if not costs.size:
        return []
    # What is no pair costs more than all pairs together, so that none is made for its sake.
    bounded = np.where(costs > most, 1 + 2 * min(costs.shape) * (1 + abs(most)), costs)
    if costs.shape[0] > costs.shape[1]:
        pairs = [(row, column) for column, row in enumerate(_columns(bounded.T))]
    else:
        pairs = list(enumerate(_columns(bounded)))
    return sorted((row, column) for row, column in pairs if costs[row, column] <= most)


def _columns(costs: NDArray[np.float64]) -> list[int]:
    """The column of each row; costs: (N, M), N ≤ M."""
    rows, columns = costs.shape
    of_row, of_column = np.zeros(rows), np.zeros(columns)  # potentials
    owner = np.full(columns, -1)  # the row of each column
    for start in range(rows):
        distance = np.full(columns, np.inf)
        previous = np.full(columns, -1)  # the column before, on the shortest path
        done = np.zeros(columns, bool)
        row, column = start, -1
        while True:
            reduced = costs[row] - of_row[row] - of_column
            base = 0.0 if column < 0 else distance[column]
            nearer = ~done & (base + reduced < distance)
            distance[nearer], previous[nearer] = base + reduced[nearer], column
            column = int(np.where(done, np.inf, distance).argmin())
            done[column] = True
            if owner[column] < 0:
                break
            row = int(owner[column])
        # Potentials keep the reduced costs of all pairs made at 0, and of no pair below it.
        length = distance[column]
        before = done & (owner >= 0)
        of_row[owner[before]] += length - distance[before]
        of_row[start] += length
        of_column[done] -= length - distance[done]
        while column >= 0:
            earlier = int(previous[column])
            owner[column] = start if earlier < 0 else owner[earlier]
            column = earlier
    found = np.empty(rows, int)
    found[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return [int(column) for column in found]
