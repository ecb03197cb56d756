"""Encoding of frames as an MP4 file, with the sound of their film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.video.sources import FilmSource, import_av, is_address, open_container

_TICKS = Fraction(1, 90_000)  # of a second, as in MPEG; exact for all usual rates
_QUALITY = {"crf": "20", "preset": "veryfast"}
# Audio codecs that MP4 can hold; other sound is encoded again.
_COPIED = frozenset(("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"))
_SOUND_RATE = 48_000


class FilmWriter:
    """Writes one MP4 file (H.264): frames with variable times, and synchronous sound.

    path: the file, in an existing folder; an existing file is replaced.
    sound: the film with the sound. None, pipes, cameras and live streams give no sound, because
        they cannot be read twice.
    start: seconds; the time of the film at which the file starts.
    rate: frames per second, a hint for players.
    Raises InputError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        sound: FilmSource | None = None,
        start: float = 0.0,
        rate: float | None = None,
    ) -> None:
        self._av = import_av()
        self._path, self._start = path, start
        self._rate = Fraction(rate or 25).limit_denominator(1001)
        try:
            path.open("wb").close()  # PyAV itself opens the file with the first frame only
            self._output = self._av.open(str(path), "w", format="mp4")
        except (OSError, self._av.FFmpegError) as error:
            raise self._not_written(error) from error
        self._stream: Any = None
        self._source = sound if isinstance(sound, (str, Path, bytes)) else None
        if self._source is not None and is_address(self._source):
            self._source = None
        self._sound: _Sound | None = None
        self._last = start

    def add(self, time: float, pixels: NDArray[np.uint8]) -> None:
        """Write the next frame. time: seconds of the film. pixels: (H, W, 3) uint8 RGB."""
        even = _even(pixels)
        if self._stream is None:
            self._begin(even)
        shape = (self._stream.height, self._stream.width)
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        if even.shape[:2] != shape:  # a film may change its size midway
            frame = frame.reformat(width=shape[1], height=shape[0])
        frame.pts, frame.time_base = round((time - self._start) / _TICKS), _TICKS
        self._last = time
        self._mux(self._stream.encode(frame))
        if self._sound is not None:
            self._mux(self._sound.until(time))

    def close(self) -> None:
        """Write what is held back, and end the file."""
        try:
            if self._stream is not None:
                self._mux(self._stream.encode(None))
                if self._sound is not None:
                    self._mux(self._sound.until(self._last + 1 / float(self._rate)))
                    self._mux(self._sound.rest())
                    self._sound.close()
            self._output.close()
        except (OSError, self._av.FFmpegError) as error:
            raise self._not_written(error) from error

    def _begin(self, pixels: NDArray[np.uint8]) -> None:
        self._stream = self._output.add_stream("libx264", rate=self._rate, options=_QUALITY)
        self._stream.height, self._stream.width = pixels.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TICKS
        if self._source is not None:
            self._sound = _Sound(self._source, self._output, self._start)

    def _mux(self, packets: Any) -> None:
        try:
            self._output.mux(packets)
        except (OSError, self._av.FFmpegError) as error:
            raise self._not_written(error) from error

    def _not_written(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(f"{shown(self._path)}: cannot be written ({reason})")


class _Sound:
    """The sound of a film, read apart from its pictures and given in step with them."""

    def __init__(self, source: FilmSource, output: Any, start: float) -> None:
        self._av = import_av()
        self._container = open_container(source)
        self._start = start
        origin = self._container.start_time
        self._origin = origin / 1e6 if origin is not None else 0.0
        streams = [each for each in self._container.streams.audio if each.codec_context]
        self._outputs = {each.index: self._matching(each, output) for each in streams}
        self._resamplers = {
            each.index: self._av.AudioResampler("fltp", "stereo", _SOUND_RATE)
            for each in streams
            if each.codec_context.name not in _COPIED
        }
        self._packets = self._read(streams)
        self._next: Any = next(self._packets, None)

    def until(self, time: float) -> list[Any]:
        """Packets for the output of all sound that begins by this time of the film."""
        packets: list[Any] = []
        while self._next is not None and self._seconds(self._next) <= time:
            if self._seconds(self._next) >= self._start:
                packets += self._converted(self._next)
            self._next = next(self._packets, None)
        return packets

    def rest(self) -> list[Any]:
        """What encoders hold back."""
        return [
            packet for index in self._resamplers for packet in self._outputs[index].encode(None)
        ]

    def close(self) -> None:
        self._container.close()

    def _matching(self, stream: Any, output: Any) -> Any:
        if stream.codec_context.name in _COPIED:
            return output.add_stream_from_template(stream)
        return output.add_stream("aac", rate=_SOUND_RATE, layout="stereo")

    def _read(self, streams: Sequence[Any]) -> Iterator[Any]:
        if not streams:
            return
        try:
            for packet in self._container.demux(streams):
                if packet.size and packet.pts is not None:
                    yield packet
        except self._av.FFmpegError:
            return  # as far as it can be read

    def _seconds(self, packet: Any) -> float:
        return float(packet.pts * packet.time_base) - self._origin

    def _converted(self, packet: Any) -> list[Any]:
        index = packet.stream.index
        target = self._outputs[index]
        shift = self._origin + self._start
        if index not in self._resamplers:
            offset = round(shift / packet.time_base)
            packet.pts -= offset
            packet.dts = packet.pts if packet.dts is None else packet.dts - offset
            packet.stream = target
            return [packet]
        packets: list[Any] = []
        try:
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(shift / frame.time_base)
                for resampled in self._resamplers[index].resample(frame):
                    packets += target.encode(resampled)
        except self._av.FFmpegError:
            pass  # a broken packet of sound is left out
        return packets


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same with even sides, as H.264 wants them: the last row or column once more."""
    height, width = pixels.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(pixels)
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
