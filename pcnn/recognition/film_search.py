"""Search for people in the frames of a film: everywhere at times, else near their tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcnn.recognition.finder import FaceFinder
from pcnn.results.values import Detection, Face
from pcnn.video.cuts import CutFinder
from pcnn.video.decoding import DecodedFrame
from pcnn.video.tracking import Box, Tracker

# Seconds between searches of the whole frame. A new face is found at most this much later.
SEARCH_EVERY_S = 1 / 3
# The least detection score of a face that continues a track.
UNSURE = 0.3
_NEAR_S = 1e-6  # closer times count as equal, because they are sums of fractions


@dataclass(frozen=True)
class FoundPeople:
    """The people in a frame.

    people: each one's track number and place, as the detector found it.
    tracks: the numbers of all current tracks, including temporarily missing ones.
    """

    people: Sequence[tuple[int, Detection]]
    tracks: Sequence[int]


class FilmSearch:
    """Finds and tracks people in consecutive frames.

    sure: the least detection score of a new track.
    every: seconds between searches of the whole frame; 0 searches the whole of each frame. Faces
        are otherwise looked for where tracks predict them. The whole frame is also searched if one
        of them is missing there, and after a cut.
    What is found depends on earlier frames by their tracked faces alone, rounded as in files. So a
    run that knows these goes on in the same way.
    """

    def __init__(self, finder: FaceFinder, *, sure: float, every: float) -> None:
        self._finder, self._every = finder, every
        self._least = min(UNSURE, sure)
        self._tracker = Tracker(sure=sure)
        self._cuts = CutFinder()
        self._period = -1  # the last one in which the whole frame was searched

    def update(self, frame: DecodedFrame, known: Sequence[Face] | None = None) -> FoundPeople:
        """The people in the next frame. known: its faces if already known; they are tracked."""
        cut = self._cuts.update(frame.pixels)
        if cut:
            self._tracker.end_all()
        expected = self._tracker.predict(frame.time)
        begun = self._begin_period(frame.time)
        if known is not None:
            found: Sequence[Detection] = [
                Detection(face.box, face.detection_score, face.landmarks) for face in known
            ]
        elif cut or begun:
            found = self._finder.find_in_frame(frame.pixels, self._least)
        else:
            found = self._find_again(frame.pixels, expected)
        written = [face.rounded() for face in found]  # as in files
        numbers = self._tracker.update(
            frame.time, [face.box for face in written], [face.score for face in written]
        )
        people = [
            (number, face)
            for number, face in zip(numbers, found, strict=True)
            if number is not None
        ]
        return FoundPeople(people, self._tracker.numbers)

    def _begin_period(self, time: float) -> bool:
        """Enter the period of `every` seconds of this time; True if it is a new one."""
        if not self._every:
            return True
        before, self._period = self._period, math.floor((time + _NEAR_S) / self._every)
        return self._period > before

    def _find_again(
        self, pixels: NDArray[np.uint8], expected: Sequence[Box]
    ) -> Sequence[Detection]:
        """The faces near the expected boxes; of the whole frame if one is missing there."""
        found = self._finder.find_near(pixels, expected, self._least)
        if found is None or self._tracker.misses([face.rounded().box for face in found]):
            return self._finder.find_in_frame(pixels, self._least)
        return found
