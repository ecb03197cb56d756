"""Decoding of films into upright frames with their times, without broken frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError, is_number
from pcnn.video.interrupts import interruptible
from pcnn.video.sources import FilmSource, import_av, is_live, is_pipe, open_container, source_name
from pcnn.video.sources import video_stream as find_stream

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

_MOST_HELD = 300  # packets that wait for the next key frame; some films have only one
_MOST_BROKEN = 50  # failed reads in a row that end the film
_MICROSECONDS = 1_000_000
_USUAL_RATE = 25.0  # frames per second, if a film does not record its rate
_NEAR_S = 1e-6  # closer times count as equal, because they are sums of fractions


@dataclass(frozen=True)
class FilmInfo:
    """Data of a film's container, which may differ from its frames.

    rate: mean frames per second; duration: seconds. None if not recorded.
    codec: FFmpeg's name. live: True for cameras and live streams.
    """

    rate: float | None
    duration: float | None
    codec: str
    live: bool


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """A decoded frame.

    time: seconds from the film's start. index: from 0. pixels: (H, W, 3) uint8 RGB, upright.
    """

    time: float
    index: int
    pixels: NDArray[np.uint8]


class FilmReader:
    """An iterator of DecodedFrames that reads a film once, from its start.

    source: see sources.FilmSource.
    every: seconds between returned frames; None returns all.
    start, end: seconds; frames from `start` on and before `end`.
    Memory is bounded: one frame, and packets up to the next key frame if some are skipped.
    `broken` counts packets and frames that could not be decoded.
    Raises InputError: see sources.open_container and sources.video_stream; also for times out of
        range. While reading: there is no frame.
    """

    def __init__(
        self,
        source: FilmSource,
        *,
        every: float | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> None:
        _check_times(every, start, end)
        self.name = source_name(source)
        self.broken = 0
        self._every, self._end = every, math.inf if end is None else end
        self._next = start or 0.0  # the least time of the next returned frame
        self._start = self._next
        self._container = open_container(source)
        try:
            self._stream = find_stream(self._container, self.name)
        except InputError:
            self._container.close()
            raise
        live, self._pipe = is_live(source), is_pipe(source)
        self._stream.thread_type = "SLICE" if live else "AUTO"
        self.info = self._describe(live)
        self._origin: float | None = None
        if self._container.start_time is not None:
            self._origin = self._container.start_time / _MICROSECONDS
        self._index = 0  # of the next decoded or skipped frame
        self._last = -math.inf  # the time of the last frame
        self._gap = False  # packets were skipped since the last decoded one
        self._errors: type[Exception] = import_av().FFmpegError
        self._frames = self._read()

    def __iter__(self) -> Iterator[DecodedFrame]:
        return self

    def __next__(self) -> DecodedFrame:
        return next(self._frames)

    def close(self) -> None:
        """Release the film; may be called twice."""
        self._frames.close()  # type: ignore[attr-defined]
        self._container.close()

    def _describe(self, live: bool) -> FilmInfo:
        stream, whole = self._stream, self._container.duration
        duration = whole / _MICROSECONDS if whole else None
        rate = float(stream.average_rate) if stream.average_rate else None
        return FilmInfo(rate, duration, stream.codec_context.name, live)

    def _read(self) -> Iterator[DecodedFrame]:
        given = False
        for frame in self._timed():
            index, self._index = self._index, self._index + 1
            if self._last >= self._end - _NEAR_S:
                break
            if self._last >= self._next - _NEAR_S:
                self._advance(self._last)
                given = True
                yield DecodedFrame(self._last, index, _upright(frame, self._stream))
        if not given:
            raise InputError(f"{self.name}: {self._why_none()}")

    def _timed(self) -> Iterator[VideoFrame]:
        """All decoded frames; `_last` is the time of each."""
        for group in self._groups():
            for frame in self._decoded(group):
                self._last = self._time(frame)
                yield frame

    def _advance(self, time: float) -> None:
        """Set the least time of the frame after this one."""
        if self._every is not None:
            steps = math.floor((time - self._start) / self._every + 1e-6) + 1
            self._next = self._start + steps * self._every

    def _why_none(self) -> str:
        if self._index <= self.broken:
            reason = "no frame could be decoded: the film is empty or damaged"
            if not self._pipe:
                return reason
            return f"{reason}, or its index is at its end, as of many MP4s: pass the file's path"
        lasts = self.info.duration or max(0.0, self._last)
        return f"no frame between start and end: the film lasts {lasts:.2f} s"

    def _groups(self) -> Iterator[list[Packet[Any] | None]]:
        """Groups of packets to decode together; None at the end flushes the decoder.

        If not all frames are returned, packets are collected up to the next key frame. Groups
        without a frame to return are skipped.
        """
        held: list[Packet[Any] | None] = []
        for packet in self._packets():
            if self.info.live or (self._every is None and self._begun()):
                yield [*held, packet]
                held = []
                continue
            if held and (packet.is_keyframe or len(held) >= _MOST_HELD):
                if self._wanted(held):
                    yield held
                else:
                    yield from self._leave_out(held)
                held = []
            held.append(packet)
        yield [*held, None]

    def _begun(self) -> bool:
        return self._last >= self._start

    def _wanted(self, packets: list[Any]) -> bool:
        times = [packet.pts for packet in packets]
        if self._origin is None or any(time is None for time in times):
            return True
        return self._seconds(max(times)) - self._origin >= self._next - _NEAR_S

    def _leave_out(self, packets: list[Any]) -> Iterator[list[Packet[Any] | None]]:
        if not self._gap:
            yield [None]  # frames of the packets before
        self._gap = True
        self._index += sum(not packet.is_discard for packet in packets)

    def _packets(self) -> Iterator[Packet[Any]]:
        """The packets with data; unreadable places are skipped."""
        failures = 0
        while failures < _MOST_BROKEN:
            packets = self._container.demux(self._stream)
            following = partial(next, packets, None)
            try:
                while (packet := interruptible(following)) is not None:
                    failures = 0
                    if packet.size:
                        yield packet
                return
            except self._errors:
                failures += 1
                self.broken += 1

    def _decoded(self, packets: list[Any]) -> Iterator[VideoFrame]:
        context = self._stream.codec_context
        for packet in packets:
            if packet is not None:
                self._gap = False
            try:
                frames = context.decode(packet)
                if packet is None:
                    context.flush_buffers()
            except self._errors:
                self.broken += 1
                self._index += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.broken += 1
                    self._index += 1
                else:
                    yield frame

    def _time(self, frame: VideoFrame) -> float:
        """Seconds from the start, later than the frame before."""
        following = max(0.0, self._last + 1 / (self.info.rate or _USUAL_RATE))
        if frame.pts is None:
            return following
        # Uses the stream's time base, because a decoder's last frames have none.
        time = self._seconds(frame.pts)
        if self._origin is None:
            self._origin = time
        time -= self._origin
        return max(0.0, time) if time > self._last else following

    def _seconds(self, stamp: int) -> float:
        return float(stamp * (self._stream.time_base or 1))


def _check_times(every: float | None, start: float | None, end: float | None) -> None:
    if every is not None and (not is_number(every) or not 0 < every < math.inf):
        raise InputError(f"Recognizer.predict_video: every must be seconds above 0, got {every!r}")
    if start is not None and (not is_number(start) or not 0 <= start < math.inf):
        raise InputError(
            f"Recognizer.predict_video: start must be seconds of at least 0, got {start!r}"
        )
    if end is not None and (not is_number(end) or not end > (start or 0)):
        raise InputError(f"Recognizer.predict_video: end must be seconds after start, got {end!r}")


def _upright(frame: VideoFrame, stream: Any) -> NDArray[np.uint8]:
    """Upright pixels (H, W, 3) uint8 RGB, with square pixels."""
    aspect = stream.sample_aspect_ratio
    width = round(frame.width * aspect) if aspect else frame.width
    pixels: Any = frame.to_ndarray(format="rgb24", width=max(1, width), height=frame.height)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
