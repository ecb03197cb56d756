"""Recognition of films: frames, faces, tracks and smoothed scores."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import numpy as np
import torch

from pcnn.errors import InputError
from pcnn.recognition.batches import Picture
from pcnn.recognition.threads import in_order, worker_count
from pcnn.results.frames import Frame, TrackedFace
from pcnn.results.values import Face
from pcnn.video.cuts import CutFinder
from pcnn.video.decoding import DecodedFrame, FilmInfo, FilmReader
from pcnn.video.smoothing import ScoreFilter, check_smoothing
from pcnn.video.sources import FilmSource
from pcnn.video.tracking import Tracker

KnownFaces: TypeAlias = Iterable[tuple[int, Sequence[Face]]]
_Job: TypeAlias = tuple[DecodedFrame, Sequence[Face] | None]  # with its faces, if known

# A batch of frames ends when it reaches this number of pixels (three bytes each).
_PIXELS_AT_ONCE = 12_000_000
# The least detection score of a face that continues a track.
UNSURE = 0.3


@dataclass(frozen=True)
class Following:
    """Options of tracking people in a film.

    find: function from pictures and the least score to the faces of each, with expressions.
    sure: the least detection score of a new track.
    smoothing: see ScoreFilter; None for raw scores.
    temperature: of smoothed scores. step: frames in a batch. device: the device of `find`.
    Raises InputError: a number is out of range.
    """

    find: Callable[[list[Picture], float], list[list[Face]]]
    sure: float
    smoothing: float | None
    temperature: float
    step: int
    device: torch.device

    def __post_init__(self) -> None:
        check_smoothing(self.smoothing)
        if not 0 <= self.sure <= 1:
            raise InputError(f"predict_video: min_score must be 0…1, got {self.sure}")


class Film:
    """An iterator of the recognised Frames of a film.

    Use it in a `with` block or close it, unless you read it to its end.
    info: data of the container. broken: number of packets and frames not decoded so far.
    Reading raises InputError: no frame can be decoded, or none is between the given times.
    """

    def __init__(
        self,
        reader: FilmReader,
        following: Following,
        *,
        source: FilmSource,
        keep_pixels: bool = False,
        known: KnownFaces = (),
    ) -> None:
        self._reader = reader
        self._following = following
        self._source = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        self._keep_pixels = keep_pixels
        self._frames = self._read(known)

    @property
    def info(self) -> FilmInfo:
        return self._reader.info

    @property
    def broken(self) -> int:
        return self._reader.broken

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

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
        """Stop and release the film; may be called twice."""
        self._frames.close()  # type: ignore[attr-defined]
        self._reader.close()

    def _read(self, known: KnownFaces) -> Iterator[Frame]:
        tracker = Tracker(sure=self._following.sure)
        filters: dict[int, ScoreFilter] = {}
        cuts = CutFinder()
        for frame, faces in self._recognised(known):
            if cuts.update(frame.pixels):
                tracker.end_all()
            # Rounded as in files, so that faces from a file give the same tracks.
            rounded = [_as_written(face) for face in faces]
            numbers = tracker.update(
                frame.time, [face.box for face in rounded], [f.detection_score for f in rounded]
            )
            tracked = [
                self._tracked(face, number, frame.time, filters)
                for face, number in zip(rounded, numbers, strict=True)
                if number is not None
            ]
            filters = {number: filters[number] for number in tracker.numbers if number in filters}
            yield Frame(
                time=frame.time,
                index=frame.index,
                faces=tuple(sorted(tracked, key=lambda face: face.track)),
                source=self._source,
                width=frame.pixels.shape[1],
                height=frame.pixels.shape[0],
                pixels=frame.pixels if self._keep_pixels else None,
            )
        self._reader.close()

    def _recognised(self, known: KnownFaces) -> Iterator[tuple[DecodedFrame, Sequence[Face]]]:
        following = self._following

        def work(batch: list[_Job]) -> list[tuple[DecodedFrame, Sequence[Face]]]:
            known = [(frame, faces) for frame, faces in batch if faces is not None]
            if len(known) == len(batch):
                return known
            # All of them anew: in a smaller batch the last digits would be others.
            pictures = [Picture(frame.pixels, False, "frame") for frame, _ in batch]
            found = following.find(pictures, min(UNSURE, following.sure))
            return [(frame, faces) for (frame, _), faces in zip(batch, found, strict=True)]

        jobs = _with_known(self._reader, known)
        if self._reader.info.live:  # reading ahead would wait for the next frame
            for job in jobs:
                yield from work([job])
            return
        workers = worker_count(following.device)
        for results in in_order(_batches(jobs, following.step), work, workers=workers):
            yield from results

    def _tracked(
        self, face: Face, number: int, time: float, filters: dict[int, ScoreFilter]
    ) -> TrackedFace:
        raw = face.scores
        scores = dict(raw)
        if self._following.smoothing is not None:
            if number not in filters:
                filters[number] = ScoreFilter(
                    self._following.smoothing, self._following.temperature
                )
            steady = filters[number].update(time, np.array(list(raw.values())))
            scores = dict(zip(raw, steady.tolist(), strict=True))
        label = max(scores, key=lambda name: scores[name])
        return TrackedFace(
            label=label,
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


def _as_written(face: Face) -> Face:
    """The face with numbers rounded as in `to_dict`."""
    plain = face.to_dict()
    return dataclasses.replace(
        face,
        scores=plain["scores"],
        values=plain.get("values", {}),
        box=tuple(plain["box"]),
        detection_score=plain["detection_score"],
        quality=plain.get("quality"),
        landmarks=np.array(plain["landmarks"], np.float32),
    )


def _with_known(reader: Iterable[DecodedFrame], known: KnownFaces) -> Iterator[_Job]:
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
        pixels += job[0].pixels.size // 3
        if len(batch) == step or pixels >= _PIXELS_AT_ONCE:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
