"""What a whole film says of each person: how long, which expressions when, and their best faces."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcnn.results.frames import Frame, TrackedFace

THUMBNAIL = 96  # pixels of its side
_MARGIN = 0.25  # around a box, of its side
_CLEARER = 1.05  # a new best face is that much better, so that few are encoded
_FIRST_BIN_S = 0.04
# Of all curves together, but two of each person; beyond it bins are twice as wide.
_MOST_BINS = 20_000
_USUAL_STEP_S = 0.04  # of a film with one frame


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A face at a clear moment: time in seconds, what it was read as, and a JPEG picture of it."""

    time: float
    label: str
    confidence: float
    jpeg: bytes = field(repr=False)

    def picture(self) -> Image.Image:
        """(THUMBNAIL, THUMBNAIL) RGB."""
        return Image.open(io.BytesIO(self.jpeg)).convert("RGB")


@dataclass(frozen=True, eq=False)
class TrackSummary:
    """One person in a film.

    first, last: seconds, of the first and last frame with their face. seconds: how long it was
        seen. frames: in how many of them.
    shares: expression → its share of `seconds`, most first; those that never led are left out.
    best: the face at its clearest moments, one for each expression, clearest first; empty where
        frames came without pixels.
    times: (bins,) seconds, the middles of bins that are `bin_s` wide; those without the face are
        left out. curve: (bins, classes) mean scores there.
    """

    track: int
    first: float
    last: float
    seconds: float
    frames: int
    shares: dict[str, float]
    best: tuple[Thumbnail, ...] = field(repr=False)
    times: NDArray[np.float64] = field(repr=False)
    curve: NDArray[np.float64] = field(repr=False)
    bin_s: float = field(repr=False)


class _Person:
    """What is gathered of one track."""

    def __init__(self, time: float) -> None:
        self.first = self.last = time
        self.frames = 0
        self.seconds: dict[str, float] = {}
        self.best: dict[str, tuple[float, Thumbnail]] = {}
        self.bins: dict[int, tuple[NDArray[np.float64], int]] = {}  # sums of scores, and how many


class Summary:
    """Gathers what frames say of each person, in memory that long films do not fill.

    classes: the expressions' names, in order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.width_s = _FIRST_BIN_S
        self._people: dict[int, _Person] = {}
        self._waiting: Frame | None = None  # lasts until the next one begins
        self._frames = self._bins = 0
        self._begin = 0.0

    @property
    def seconds(self) -> float:
        """From the first frame to the last."""
        return self._waiting.time - self._begin if self._waiting else 0.0

    @property
    def begin(self) -> float:
        """The first frame's time."""
        return self._begin

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        if self._waiting is None:
            self._begin = frame.time
        else:
            self._count(self._waiting, frame.time - self._waiting.time)
        self._frames += 1
        self._waiting = dataclasses.replace(frame, pixels=None)
        for face in frame.faces:
            person = self._people.setdefault(face.track, _Person(frame.time))
            person.last = frame.time
            person.frames += 1
            self._add_scores(person, frame.time, np.array(list(face.scores.values())))
            if frame.pixels is not None:
                _keep_clearest(person, frame.time, frame.pixels, face)

    def tracks(self) -> list[TrackSummary]:
        """Everybody seen so far, by track."""
        step = self.seconds / (self._frames - 1) if self._frames > 1 else _USUAL_STEP_S
        return [
            self._summarised(number, person, step)
            for number, person in sorted(self._people.items())
        ]

    def _count(self, frame: Frame, seconds: float) -> None:
        for face in frame.faces:
            own = self._people[face.track].seconds
            own[face.label] = own.get(face.label, 0.0) + seconds

    def _add_scores(self, person: _Person, time: float, scores: NDArray[np.float64]) -> None:
        # Frames of 25 a second lie at the bins' edges, and a little before them by rounding.
        place = int(time / self.width_s + 1e-6)
        sums, count = person.bins.get(place, (np.zeros_like(scores), 0))
        person.bins[place] = (sums + scores, count + 1)
        self._bins += count == 0
        if self._bins > max(_MOST_BINS, 2 * len(self._people)):
            self.width_s *= 2
            for each in self._people.values():
                each.bins = _merged(each.bins)
            self._bins = sum(len(each.bins) for each in self._people.values())

    def _summarised(self, number: int, person: _Person, step: float) -> TrackSummary:
        seconds = dict(person.seconds)
        waiting = self._waiting.faces if self._waiting else ()
        for face in waiting:  # the last frame lasts as long as the others do on average
            if face.track == number:
                seconds[face.label] = seconds.get(face.label, 0.0) + step
        whole = sum(seconds.values())
        places = sorted(person.bins)
        ranked = sorted(seconds.items(), key=lambda item: -item[1])
        best = sorted(person.best.values(), key=lambda item: -item[0])
        return TrackSummary(
            track=number,
            first=person.first,
            last=person.last,
            seconds=whole,
            frames=person.frames,
            shares={name: own / whole for name, own in ranked},
            best=tuple(thumbnail for _, thumbnail in best),
            times=(np.array(places, float) + 0.5) * self.width_s,
            curve=np.array([person.bins[place][0] / person.bins[place][1] for place in places]),
            bin_s=self.width_s,
        )


def _merged(
    bins: dict[int, tuple[NDArray[np.float64], int]],
) -> dict[int, tuple[NDArray[np.float64], int]]:
    """The same in bins twice as wide."""
    wider: dict[int, tuple[NDArray[np.float64], int]] = {}
    for place, (sums, count) in bins.items():
        other, more = wider.get(place // 2, (np.zeros_like(sums), 0))
        wider[place // 2] = (sums + other, count + more)
    return wider


def _keep_clearest(
    person: _Person, time: float, pixels: NDArray[np.uint8], face: TrackedFace
) -> None:
    """Keep the face if it is the clearest of its expression: large, surely found, surely read."""
    x1, y1, x2, y2 = face.box
    clear = face.detection_score * face.confidence * min(x2 - x1, y2 - y1) ** 0.5
    known = person.best.get(face.label)
    if known is not None and clear < _CLEARER * known[0]:
        return
    buffer = io.BytesIO()
    _cut_out(pixels, face).save(buffer, "JPEG", quality=88)
    thumbnail = Thumbnail(time, face.label, face.confidence, buffer.getvalue())
    person.best[face.label] = (clear, thumbnail)


def _cut_out(pixels: NDArray[np.uint8], face: TrackedFace) -> Image.Image:
    """The square around a face, black where it reaches over the frame's edges."""
    x1, y1, x2, y2 = face.box
    half = max(x2 - x1, y2 - y1) * (0.5 + _MARGIN)
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
    corners = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
    left, top, right, bottom = (round(edge) for edge in corners)
    height, width = pixels.shape[:2]
    inner = max(0, left), max(0, top), min(width, right), min(height, bottom)
    part = Image.fromarray(pixels[inner[1] : inner[3], inner[0] : inner[2]])
    square = Image.new("RGB", (max(1, right - left), max(1, bottom - top)))
    square.paste(part, (inner[0] - left, inner[1] - top))
    return square.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC, reducing_gap=2.0)
