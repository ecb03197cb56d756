"""Recognition of films: frames, faces, tracks and smoothed scores."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import numpy as np

from pcnn.errors import InputError, is_number
from pcnn.faces.interface import check_min_score
from pcnn.recognition.batches import Picture
from pcnn.recognition.film_search import FilmSearch, FoundPeople
from pcnn.recognition.photographs import PhotographReader
from pcnn.recognition.threads import in_order, worker_count
from pcnn.results.frames import Frame, TrackedFace
from pcnn.results.values import UNCERTAIN, Face
from pcnn.video.decoding import DecodedFrame, FilmInfo, FilmReader
from pcnn.video.smoothing import STEADY_TEMPERATURE, ScoreFilter, check_smoothing
from pcnn.video.sources import FilmSource

KnownFaces: TypeAlias = Iterable[tuple[int, Sequence[Face]]]

# A batch of frames ends when it reaches this number of pixels (three bytes each).
_PIXELS_AT_ONCE = 12_000_000


@dataclass(frozen=True)
class FilmOptions:
    """Options of following people through a film.

    sure: the least detection score of a new track. search_every: seconds between searches of the
        whole frame. See FilmSearch for both.
    smoothing: see ScoreFilter; None for raw scores.
    step: frames in a batch. keep_pixels: True stores the pixels in each Frame.
    Raises InputError: a number is out of range.
    """

    sure: float
    search_every: float
    smoothing: float | None
    step: int
    keep_pixels: bool = False

    def __post_init__(self) -> None:
        check_min_score(self.sure, "Recognizer.predict_video")
        every = self.search_every
        if not is_number(every) or not 0 <= every < math.inf:
            raise InputError(
                "Recognizer.predict_video: search_every must be seconds of at least 0, "
                f"got {every!r}"
            )
        check_smoothing(self.smoothing)


@dataclass(frozen=True, eq=False)
class _Job:
    """A frame with the people in it, and its faces if they are known from an earlier run."""

    frame: DecodedFrame
    found: FoundPeople
    known: Sequence[Face] | None

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.found.people]


_Read: TypeAlias = tuple[_Job, Sequence[Face]]


class Film:
    """An iterator of the recognised Frames of a film.

    photographs: finds and reads the faces.
    Use it in a `with` block or close it, unless you read it to its end. One thread at a time reads
    it; any thread may close it.
    info: data of the container. broken: number of packets and frames not decoded so far.
    Reading raises InputError: no frame can be decoded, or none is between the given times;
    known faces have other classes; another thread is reading.
    """

    def __init__(
        self,
        reader: FilmReader,
        photographs: PhotographReader,
        options: FilmOptions,
        *,
        source: FilmSource,
        known: KnownFaces = (),
    ) -> None:
        self._reader = reader
        self._photographs, self._options = photographs, options
        self._source = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        self._frames = self._read(known)
        self._closed, self._turn = False, threading.Lock()

    def __repr__(self) -> str:
        return f"<Film: {self._source or 'an object'}; {self._reader.info}>"

    @property
    def info(self) -> FilmInfo:
        return self._reader.info

    @property
    def broken(self) -> int:
        return self._reader.broken

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if not self._turn.acquire(blocking=False):
            if self._closed:
                raise StopIteration
            raise InputError("Film: another thread is reading: let one thread read and share")
        try:
            frame = None if self._closed else next(self._frames)
        finally:
            self._turn.release()
            if self._closed:  # by another thread, which may have had no turn to release it
                self.close()
        if frame is None or self._closed:
            raise StopIteration
        return frame

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop and release the film; may be called twice.

        If another thread waits for the next frame, its reading ends with that frame.
        """
        self._closed = True
        if self._turn.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._turn.release()

    def _release(self) -> None:
        self._frames.close()  # type: ignore[attr-defined]
        self._reader.close()

    def _read(self, known: KnownFaces) -> Iterator[Frame]:
        filters: dict[int, ScoreFilter] = {}
        for job, faces in self._recognised(known):
            frame = job.frame
            tracked = [
                self._tracked(face.rounded(), number, frame.time, filters)
                for face, number in zip(faces, job.numbers, strict=True)
            ]
            filters = {n: filters[n] for n in job.found.tracks if n in filters}
            yield Frame(
                time=frame.time,
                index=frame.index,
                faces=tuple(sorted(tracked, key=lambda face: face.track)),
                source=self._source,
                width=frame.pixels.shape[1],
                height=frame.pixels.shape[0],
                pixels=frame.pixels if self._options.keep_pixels else None,
            )
        self._reader.close()

    def _recognised(self, known: KnownFaces) -> Iterator[_Read]:
        jobs = self._jobs(known)
        if self._reader.info.live:  # reading ahead would wait for the next frame
            for job in jobs:
                yield from self._read_batch([job])
            return
        workers = worker_count(self._photographs.reader.device)
        batches = _batches(jobs, self._options.step)
        for read in in_order(batches, self._read_batch, workers=workers):
            yield from read

    def _jobs(self, known: KnownFaces) -> Iterator[_Job]:
        """The frames with the people in them; each search depends on the frames before."""
        finder, options = self._photographs.finder, self._options
        search = FilmSearch(finder, sure=options.sure, every=options.search_every)
        for frame, faces in _with_known(self._reader, known):
            self._check_classes(faces or ())
            yield _Job(frame, search.update(frame, faces), faces)

    def _check_classes(self, known: Sequence[Face]) -> None:
        """Raises InputError: known faces have other classes, so another recognizer read them."""
        classes = self._photographs.reader.classes
        for face in known:
            if tuple(face.scores) != classes:
                raise InputError(
                    "Recognizer.predict_video: known faces must have the classes "
                    f"{', '.join(classes)}, got {', '.join(face.scores)}"
                )

    def _read_batch(self, batch: list[_Job]) -> list[_Read]:
        """The faces of the people in each frame."""
        if all(job.known is not None for job in batch):
            read = [job.known or () for job in batch]
        else:
            # All of them anew: in a smaller batch the last digits would be others.
            pictures = [Picture(job.frame.pixels, False, "frame") for job in batch]
            places = [[face for _, face in job.found.people] for job in batch]
            located = self._photographs.located(pictures, places)
            read = [
                found if job.known is None else job.known
                for job, found in zip(batch, located, strict=True)
            ]
        return list(zip(batch, read, strict=True))

    def _tracked(
        self, face: Face, number: int, time: float, filters: dict[int, ScoreFilter]
    ) -> TrackedFace:
        raw = face.scores
        scores = dict(raw)
        if self._options.smoothing is not None:
            if number not in filters:
                filters[number] = ScoreFilter(self._options.smoothing, STEADY_TEMPERATURE)
            steady = filters[number].update(time, np.array(list(raw.values())))
            scores = dict(zip(raw, steady.tolist(), strict=True))
        label = max(scores, key=lambda name: scores[name])
        least = self._photographs.reader.min_confidence
        return TrackedFace(
            label=label if scores[label] >= least else UNCERTAIN,
            confidence=scores[label],
            scores=scores,
            regions=face.regions,
            values=face.values,
            box=face.box,
            detection_score=face.detection_score,
            landmarks=face.landmarks,
            motion=face.motion,
            quality=face.quality,
            track=number,
            raw=raw,
        )


def _with_known(
    reader: Iterable[DecodedFrame], known: KnownFaces
) -> Iterator[tuple[DecodedFrame, Sequence[Face] | None]]:
    """Frames with their known faces, up to the last known frame; later ones with None."""
    faces = iter(known)
    following = next(faces, None)
    for frame in reader:
        while following is not None and following[0] < frame.index:
            following = next(faces, None)
        if following is None:
            yield frame, None
        else:
            yield frame, following[1] if following[0] == frame.index else ()


def _batches(jobs: Iterable[_Job], step: int) -> Iterator[list[_Job]]:
    batch: list[_Job] = []
    pixels = 0
    for job in jobs:
        batch.append(job)
        pixels += job.frame.pixels.size // 3
        if len(batch) == step or pixels >= _PIXELS_AT_ONCE:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
