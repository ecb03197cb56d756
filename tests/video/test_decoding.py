"""Films made for the purpose, read again: which frames, at what times, which way up."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import av, shades, write_film

from pcnn.errors import InputError
from pcnn.video import sources
from pcnn.video.decoding import FilmReader

COUNT = 40  # frames, 15 a second, a key frame every ten


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4", shades(COUNT))


def level(pixels: np.ndarray) -> int:
    """Which of the shades a frame is."""
    return round(float(pixels[30:, 30:].mean()) / 4)


def read(source: object, **options: float) -> list[tuple[int, float, int]]:
    """Index, time and shade of each frame."""
    reader = FilmReader(source, **options)
    return [(frame.index, round(frame.time, 3), level(frame.pixels)) for frame in reader]


def expected(*indices: int) -> list[tuple[int, float, int]]:
    return [(index, round(index / 15, 3), index) for index in indices]


def test_all_frames_come_in_order_with_their_times(film: Path) -> None:
    assert read(film) == expected(*range(COUNT))
    reader = FilmReader(film)
    assert (reader.info.rate, reader.info.codec, reader.info.live) == (15.0, "h264", False)
    assert reader.info.duration == pytest.approx(COUNT / 15, abs=0.01)
    reader.close()
    reader.close()


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({"every": 1.0}, (0, 15, 30)),
        ({"every": 0.1}, (0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 26, 27, 29,
                          30, 32, 33, 35, 36, 38, 39)),
        ({"start": 1.0, "end": 1.2}, (15, 16, 17)),
        ({"start": 2.4}, (36, 37, 38, 39)),
        ({"every": 1.0, "start": 0.5}, (8, 23, 38)),
        ({"end": 0.1}, (0, 1)),
    ],
)  # fmt: skip
def test_times_chosen(film: Path, options: dict[str, float], indices: tuple[int, ...]) -> None:
    assert read(film, **options) == expected(*indices)


def test_a_frame_at_the_end_is_not_taken_for_one_before_it(tmp_path: Path) -> None:
    """2.28 − 0.28 is a little below 2 in binary numbers."""
    film = write_film(tmp_path / "late.mkv", shades(60), times=lambda i: 0.28 + i / 25)
    assert max(frame.time for frame in FilmReader(film) if frame.index == 50) < 2
    assert [frame.index for frame in FilmReader(film, end=2.0)] == list(range(50))
    assert [frame.index for frame in FilmReader(film, start=2.0)] == list(range(50, 60))


def test_what_no_frame_is_wanted_of_is_not_decoded(film: Path) -> None:
    reader = FilmReader(film, start=2.05, end=2.1)
    decoded = []
    original = reader._decoded

    def counted(packets: list[Any]) -> Iterator[Any]:
        for frame in original(packets):
            decoded.append(frame)
            yield frame

    reader._decoded = counted  # type: ignore[method-assign]
    assert [frame.index for frame in reader] == [31]
    assert 0 < len(decoded) < 10  # of the group it lies in, not the thirty before


def test_times_of_variable_frame_rates_are_kept(tmp_path: Path) -> None:
    moments = [0.0, 0.04, 0.08, 0.5, 0.51, 1.7, 3.0]
    path = write_film(tmp_path / "vfr.mp4", shades(7), times=moments.__getitem__)
    assert read(path) == [(number, moments[number], number) for number in range(7)]


@pytest.mark.parametrize(
    ("degrees", "shape", "corner"),
    [(90, (64, 48), (-1, 0)), (180, (48, 64), (-1, -1)), (-90, (64, 48), (0, -1))],
)
def test_rotation_is_obeyed(
    tmp_path: Path, degrees: int, shape: tuple[int, int], corner: tuple[int, int]
) -> None:
    path = write_film(tmp_path / "turned.mp4", shades(3), rotation=degrees)
    (first, *_) = FilmReader(path)
    assert first.pixels.shape == (*shape, 3)
    red, green, _ = first.pixels[corner].tolist()
    assert red > 180 and green < 80


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for pixels in shades(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    assert next(FilmReader(path)).pixels.shape == (48, 128, 3)


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_ten_bits(tmp_path: Path, codec: str) -> None:
    frames = shades(40)[::8]
    path = write_film(tmp_path / "ten.mkv", frames, codec=codec, pix_fmt="yuv420p10le")
    # Dark levels are rounded twice, to 10 bits of video levels and back.
    np.testing.assert_allclose([shade for *_, shade in read(path)], [0, 8, 16, 24, 32], atol=1)


def test_a_still_picture_in_a_film_container(tmp_path: Path) -> None:
    assert read(write_film(tmp_path / "still.mp4", shades(1))) == [(0, 0.0, 0)]


def test_bytes_files_and_pipes(film: Path) -> None:
    content = film.read_bytes()
    assert read(content) == read(io.BytesIO(content)) == expected(*range(COUNT))
    # MP4 has its index at the end, so a pipe is for what can be read from the front.
    stream = write_film(film.with_suffix(".ts"), shades(COUNT)).read_bytes()
    end, start = os.pipe()

    def feed() -> None:
        with os.fdopen(start, "wb") as pipe:
            pipe.write(stream)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(end, "rb") as pipe:
        found = read(pipe)
    feeder.join()
    assert [(index, shade) for index, _, shade in found] == [(i, i) for i in range(COUNT)]
    np.testing.assert_allclose([time for _, time, _ in found], np.arange(COUNT) / 15, atol=2e-3)


def test_a_pipe_with_its_index_at_the_end_is_refused_with_a_remedy(film: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    plain = film.read_bytes()
    index = plain.index(b"moov") - 4
    gap = (1 << 20).to_bytes(4, "big") + b"free" + bytes((1 << 20) - 8)  # FFmpeg buffers less
    content = plain[:index] + gap + plain[index:]
    assert read(content) == expected(*range(COUNT))
    remedy = ", or its index is at its end, as of many MP4s: pass the file's path"
    begin = plain.index(b"mdat") + 4
    empty = io.BytesIO(plain[:begin] + bytes(index - begin) + plain[index:])
    for source, end in ((Pipe(content), remedy), (empty, "")):
        with pytest.raises(InputError) as error:
            read(source)
        assert str(error.value).endswith(f"the film is empty or damaged{end}"), end


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_named_pipe_is_refused_with_a_remedy_and_read_opened(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", shades(COUNT))
    path = tmp_path / "pipe.mkv"
    os.mkfifo(path)
    feeder = threading.Thread(target=lambda: path.write_bytes(film.read_bytes()), daemon=True)
    feeder.start()
    with pytest.raises(InputError, match=r"pipe\.mkv: a pipe or a device, not a file: pass - and"):
        FilmReader(path)
    with path.open("rb") as opened:
        assert read(opened) == read(film)
    feeder.join()


def test_a_stream_without_end_is_not_read_ahead_and_can_be_left(tmp_path: Path) -> None:
    content = write_film(tmp_path / "film.ts", shades(COUNT)).read_bytes()

    class Endless:
        """Gives the same film again and again."""

        given = 0

        def read(self, size: int) -> bytes:
            begin = self.given % len(content)
            self.given += len(part := content[begin : begin + size])
            return part

    source = Endless()
    reader = FilmReader(source)
    times = [next(reader).time for _ in range(4 * COUNT)]
    assert all(later > time for time, later in pairwise(times))
    assert source.given < 8 * len(content)
    reader.close()


def test_broken_packets_are_left_out_and_counted(film: Path) -> None:
    content = bytearray(film.read_bytes())
    places = content.find(b"mdat") + 4
    for offset in (700, 1300):
        content[places + offset : places + offset + 60] = b"\xff" * 60
    reader = FilmReader(bytes(content))
    found = [frame.index for frame in reader]
    assert reader.broken > 0
    assert len(found) + reader.broken == COUNT
    assert found == sorted(set(found))


def test_a_truncated_film_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write_film(
        tmp_path / "whole.mp4", shades(COUNT), options={"movflags": "+faststart"}
    ).read_bytes()
    found = read(whole[: len(whole) * 9 // 10])
    assert 3 < len(found) < COUNT
    # The decoder may show a frame from beyond the cut in the place of its neighbours.
    assert found[:-4] == expected(*range(len(found) - 4))


def bad_film(kind: str, folder: Path) -> Path:
    """A file that is no film, of one kind or another."""
    path = folder / f"{kind}.mp4"
    if kind == "audio":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 4096), np.int16), format="s16", layout="mono"
            )
            silence.sample_rate = 16000
            container.mux(stream.encode(silence))
            container.mux(stream.encode(None))
    elif kind == "frameless":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=15)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            container.start_encoding()
    elif kind == "cut":
        whole = write_film(folder / "whole.mp4", shades(20)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "unknown":
        content = write_film(folder / "whole.mp4", shades(3)).read_bytes()
        path.write_bytes(content.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"hello\n" * 9, "page": b"<html><p>gone"}[kind])
    return path


BAD = {
    "missing": "no such file",
    "folder": "a folder, not a picture: pass the files in it",
    "empty": r"the file is empty \(0 bytes\)",
    "text": "not a film: text$",
    "page": "not a film: an HTML page: was the download an error page",
    "audio": "no video stream in it, only audio",
    "frameless": "(no frame of it could be decoded|no video stream|not a film)",
    "cut": "not a film that can be read .*: it is damaged or of another kind",
    "unknown": "its video codec is not supported: convert it to H.264",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_film_is_refused_clearly(kind: str, tmp_path: Path) -> None:
    path = bad_film(kind, tmp_path)
    with pytest.raises(InputError, match=BAD[kind]) as caught:
        next(FilmReader(path))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be seconds above 0, got 0"),
        ({"start": -1}, "start must be seconds of at least 0, got -1"),
        ({"start": 2, "end": 2}, "end must be seconds after start, got 2"),
    ],
)
def test_times_out_of_range(film: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"predict_video: {message}"):
        FilmReader(film, **options)


def test_a_pipe_is_asked_for_what_there_is(tmp_path: Path) -> None:
    """`read` of a buffered pipe waits for as many bytes as are asked for."""
    content = io.BytesIO(write_film(tmp_path / "film.mkv", shades(COUNT)).read_bytes())

    class Slow:
        def read(self, size: int) -> bytes:
            raise AssertionError("read would wait")

        def read1(self, size: int) -> bytes:
            return content.read(min(size, 300))

    assert [frame.index for frame in FilmReader(Slow())] == list(range(COUNT))


def test_an_address_that_does_not_answer() -> None:
    with pytest.raises(InputError, match=r"rtsp://127.0.0.1:9/1: cannot be opened \("):
        FilmReader("rtsp://127.0.0.1:9/1")


def test_times_behind_the_end(film: Path) -> None:
    with pytest.raises(InputError, match=r"no frame between start and end: the film lasts 2.67 s"):
        next(FilmReader(film, start=60))


def test_without_pyav_it_says_how_to_install_it(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"films need PyAV, .*: pip install 'pcnn\[video\]'"):
        FilmReader(film)


def test_cameras_and_things_that_are_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(InputError, match=r"camera:77: no such camera \(/dev/video77\)"):
        FilmReader("camera:77")
    with pytest.raises(InputError, match=r"predict_video: source must be a path, .*, got int"):
        FilmReader(3)
    assert sources.is_live("rtsp://here/1") and not sources.is_live("film.mp4")
