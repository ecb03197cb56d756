"""Films for the tests, made of photographs: faces pasted on a ground, moved from frame to frame."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

av = pytest.importorskip("av", reason="needs av: pip install 'pcnn[video]'")

Pixels = NDArray[np.uint8]
RATE = 15
PEOPLE = ("Aaron_Eckhart_0001.jpg", "Aaron_Peirsol_0001.jpg", "AJ_Cook_0001.jpg")


@lru_cache(maxsize=8)
def face(archive: Path, name: str, side: int = 150) -> Pixels:
    """The middle of one photograph of LFW, (side, side, 3), which its face fills."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(name)
        assert member is not None
        picture = Image.open(io.BytesIO(member.read())).convert("RGB")
    middle = picture.crop((50, 50, 200, 200)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(middle)


def scene(
    people: Iterable[tuple[Pixels, float, float]], *, size: tuple[int, int] = (480, 270)
) -> Pixels:
    """A frame of width × height with pictures pasted by their middles, later ones in front."""
    width, height = size
    canvas = Image.new("RGB", size, (96, 104, 112))
    for pixels, x, y in people:
        picture = Image.fromarray(pixels)
        canvas.paste(picture, (round(x - picture.width / 2), round(y - picture.height / 2)))
    assert canvas.size == (width, height)
    return np.asarray(canvas)


def shades(count: int, *, size: tuple[int, int] = (64, 48)) -> list[Pixels]:
    """Grey frames of width × height, each 4 levels lighter, with a red upper left corner."""
    frames = []
    for number in range(count):
        pixels = np.full((size[1], size[0], 3), 4 * number, np.uint8)
        pixels[:12, :12] = (255, 0, 0)
        frames.append(pixels)
    return frames


def write_film(  # noqa: PLR0913
    path: Path,
    frames: Sequence[Pixels],
    *,
    times: Callable[[int], float] | None = None,
    rate: int = RATE,
    rotation: int = 0,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    key_every: int = 10,
    options: dict[str, str] | None = None,
    sound_s: float = 0.0,
) -> Path:
    """Write a film. times: seconds of each frame by its number; else `rate` frames a second."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "18", "preset": "veryfast", "g": str(key_every)}
        ticks = Fraction(1, 1000) if times else Fraction(1, rate)
        stream.codec_context.time_base = ticks
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if sound_s else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(1000 * times(number)) if times else number
            frame.time_base = ticks
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, int(16000 * sound_s), 1024):
                wave = np.sin(np.arange(start, start + 1024) * 440 * 2 * np.pi / 16000)
                tone = av.AudioFrame.from_ndarray(
                    (8000 * wave).astype(np.int16)[None], format="s16", layout="mono"
                )
                tone.sample_rate, tone.pts = 16000, start
                tone.time_base = Fraction(1, 16000)
                container.mux(sound.encode(tone))
            container.mux(sound.encode(None))
    return path
