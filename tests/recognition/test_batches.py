"""Pictures in batches: PIL's images, which are decoded when they are first used."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from pcnn.errors import InputError
from pcnn.recognition import batches
from pcnn.recognition.batches import Picture, process_each


def _read(images: Any, *, bgr: bool = False) -> list[Any]:
    """What a work of several threads sees of each picture: its mean colour, or the error."""

    def colours(pictures: list[Picture]) -> list[tuple[int, ...]]:
        return [tuple(own.pixels.mean((0, 1)).round().astype(int).tolist()) for own in pictures]

    device = torch.device("cpu")
    return list(process_each(images, colours, step=4, device=device, bgr=bgr, on_error="return"))


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "worker_count", lambda _: 4)


def test_an_image_that_stands_in_several_places_is_decoded_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (900, 700, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    (alone,) = _read([Image.open(path)])
    for _ in range(3):
        assert _read([Image.open(path)] * 24) == [alone] * 24


def test_frames_of_an_iterator_keep_their_own_pixels(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (20, 10), (10 * value, 0, 0)) for value in range(20)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with Image.open(tmp_path / "pages.tif") as film:
        found = _read(iter(ImageSequence.Iterator(film)), bgr=True)  # of arrays alone
    assert found == [(10 * value, 0, 0) for value in range(20)]


@pytest.mark.parametrize("kind", ["array", "tensor", "bytearray", "file"])
def test_an_iterator_may_use_one_object_for_all_pictures(kind: str) -> None:
    colours = [(10 * value, 0, 7) for value in range(20)]

    def pictures() -> Iterator[Any]:
        pixels, stream, encoded = np.zeros((10, 20, 3), np.uint8), io.BytesIO(), bytearray()
        for colour in colours:
            pixels[:] = colour
            stream.seek(0)
            Image.fromarray(pixels).save(stream, "BMP")
            encoded[:] = stream.getvalue()
            tensor = torch.from_numpy(pixels)
            yield {"array": pixels, "tensor": tensor, "bytearray": encoded, "file": stream}[kind]

    assert _read(pictures()) == colours
    if kind in ("array", "tensor"):
        assert _read(pictures(), bgr=True) == [colour[::-1] for colour in colours]


def test_results_before_a_picture_that_cannot_be_read_come_first() -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pictures: list[Any] = [pixels] * 10 + [b"no picture"] + [pixels] * 10

    def ones(own: list[Picture]) -> list[int]:
        return [1] * len(own)

    device, found = torch.device("cpu"), []
    stream = process_each(iter(pictures), ones, step=8, device=device, bgr=False, on_error="raise")
    with pytest.raises(InputError, match=r"images\[10\]"):
        for one in stream:
            found.append(one)
    assert found == [1] * 10


def test_a_damaged_image_has_its_error_in_its_place(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)).save(
        stream, "PNG"
    )
    whole, cut = Image.new("RGB", (5, 5)), Image.open(io.BytesIO(stream.getvalue()[:2000]))
    first, broken, last = _read([whole, cut, whole])
    assert first == last == (0, 0, 0)
    assert isinstance(broken, InputError) and "images[1]" in str(broken)


def test_a_damaged_member_of_an_archive_costs_no_other(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (7, 7, 7)).save(stream, "PNG")
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("1.png", "2.png"):
            archive.writestr(name, stream.getvalue())
    content = bytearray(path.read_bytes())
    content[content.index(stream.getvalue()) + 30] ^= 1
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        damaged, whole = _read([archive.open(name) for name in archive.namelist()])
    assert isinstance(damaged, InputError)
    assert "1.png: the file object cannot be read" in str(damaged)
    assert whole == (7, 7, 7)
    with gzip.open(io.BytesIO(gzip.compress(stream.getvalue())[:-9])) as short:
        assert isinstance(_read([short])[0], InputError)
