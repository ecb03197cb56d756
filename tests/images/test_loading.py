"""Pictures in: every kind of source, pixel and orientation, and what is said of bad ones."""

from __future__ import annotations

import io
import os
import socket
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pcnn.errors import InputError
from pcnn.images import loading as images
from pcnn.images.files import annotated_names, find_images, shown
from pcnn.images.loading import load_image

HEIGHT, WIDTH = 6, 8


def colours() -> np.ndarray:
    """(6, 8, 3) uint8 in which no row, column or channel equals another."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([20 + 25 * x, 30 + 35 * y, 200 - 10 * x - 12 * y], axis=2).astype(np.uint8)


def grey() -> np.ndarray:
    return colours()[:, :, 0]


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


PNG = encoded(Image.fromarray(colours()), "PNG")
JPEG = encoded(Image.fromarray(colours()).resize((64, 48)), "JPEG")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its pixels do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return PNG[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]


# --- sources ---


def test_all_kinds_of_source_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    tensor = torch.from_numpy(colours())
    with path.open("rb") as file:
        sources = [str(path), path, PNG, bytearray(PNG), memoryview(PNG), io.BytesIO(PNG), file]
        sources += [Image.open(io.BytesIO(PNG)), colours(), tensor, tensor.permute(2, 0, 1)]
        for source in sources:
            pixels = load_image(source)
            assert pixels.dtype == np.uint8
            assert pixels.flags.c_contiguous
            assert pixels.flags.writeable
            np.testing.assert_array_equal(pixels, colours())
        assert not file.closed


def test_file_object_is_read_from_its_start_and_left_open() -> None:
    stream = io.BytesIO(PNG)
    stream.seek(20)
    np.testing.assert_array_equal(load_image(stream), colours())
    assert not stream.closed


def test_pipe_is_read_to_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(PNG)
        theirs.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as stream:
            np.testing.assert_array_equal(load_image(stream), colours())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)  # four quarters, so that JPEG keeps them apart
    upright[:16, :24], upright[:16, 24:], upright[16:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(images._UPRIGHT[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    pixels = load_image(content)
    assert pixels.shape == upright.shape
    np.testing.assert_array_equal(pixels, np.asarray(expected.convert("RGB")))
    # The middles of the quarters stay near their colours, whatever the compression.
    quarters = pixels[8::16, 12::24].astype(int)
    np.testing.assert_allclose(quarters, upright[8::16, 12::24], atol=40)
    np.testing.assert_array_equal(load_image(Image.open(io.BytesIO(content))), pixels)


def test_damaged_exif_leaves_the_picture_as_stored() -> None:
    content = encoded(Image.fromarray(colours()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(load_image(content), colours())


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(load_image(content)[0, 0].astype(int), (255, 0, 0), atol=6)


def test_threads_decode_without_disturbing_each_other() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load_image, [PNG, JPEG] * 50))
    assert all(np.array_equal(pixels, colours()) for pixels in loaded[::2])
    # A race may leave our own filter behind, which names Pillow's modules alone; nothing else.
    left = [each for each in warnings.filters if each not in before]
    assert all(each[3] is not None and each[3].pattern == r"PIL\b" for each in left)
    warnings.filters[:] = before


# --- pixels ---


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("LA", (2, 2), (100, 255)), (100, 100, 100)),
        (Image.new("LA", (2, 2), (100, 0)), (255, 255, 255)),
        (Image.new("La", (2, 2), (50, 127)), (178, 178, 178)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 51)), (206, 208, 210)),  # 0.2 of it, 0.8 white
        (Image.new("CMYK", (2, 2), (255, 0, 0, 0)), (0, 255, 255)),
        (Image.new("YCbCr", (2, 2), (128, 128, 128)), (128, 128, 128)),
        (Image.new("HSV", (2, 2), (0, 255, 255)), (255, 0, 0)),
        (Image.fromarray(np.full((2, 2), 257 * 60, np.uint16)), (60, 60, 60)),
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((2, 2), 257 * 60, np.int32)), (60, 60, 60)),
        (Image.fromarray(np.full((2, 2), 60, np.int32)), (60, 60, 60)),
        (Image.fromarray(np.full((2, 2), 0.4, np.float32)), (102, 102, 102)),
        (Image.fromarray(np.full((2, 2), 102, np.float32)), (102, 102, 102)),
    ],
    ids=lambda value: f"{value.mode}" if isinstance(value, Image.Image) else "",
)
def test_pillow_modes(picture: Image.Image, expected: tuple[int, int, int]) -> None:
    np.testing.assert_array_equal(load_image(picture), np.full((2, 2, 3), expected, np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_goes_onto_white(kind: str) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    content = encoded(picture, kind, transparency=0)
    np.testing.assert_array_equal(load_image(content), [[(255, 255, 255), (200, 100, 50)]])


def test_sixteen_bit_grey_file() -> None:
    content = encoded(Image.fromarray(grey().astype(np.uint16) * 257), "PNG")
    np.testing.assert_array_equal(load_image(content)[:, :, 1], grey())


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (220, 20, 20)).convert("CMYK")
    pixels = load_image(encoded(red, "JPEG", quality=95))
    np.testing.assert_allclose(pixels[8, 8].astype(int), (220, 20, 20), atol=6)


@pytest.mark.parametrize(
    "array",
    [
        colours(),
        colours().astype(np.uint16) * 257,
        colours().astype(">u2") * 257,
        colours().astype(np.int64),
        (colours() / 255).astype(np.float32),
        colours() / 255,
        np.dstack([colours(), np.full((HEIGHT, WIDTH), 255, np.uint8)]),
        np.repeat(colours(), 2, axis=1)[:, ::2],
        np.asfortranarray(colours()),
    ],
    ids=[
        "uint8",
        "uint16",
        "big-endian",
        "int64",
        "float32",
        "float64",
        "alpha",
        "strided",
        "fortran",
    ],
)
def test_arrays(array: np.ndarray) -> None:
    pixels = load_image(array)
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, colours())


def test_grey_bool_and_half_arrays() -> None:
    for array in (grey(), grey()[:, :, None]):
        np.testing.assert_array_equal(load_image(array), np.repeat(grey()[:, :, None], 3, 2))
    assert load_image(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
    assert load_image(np.array([[0.5, 1.0]], np.float16)).tolist() == [[[128] * 3, [255] * 3]]


def test_alpha_of_an_array_goes_onto_white() -> None:
    array = np.array([[[10, 20, 30, 51], [10, 20, 30, 0]]], np.uint8)
    assert load_image(array).tolist() == [[[206, 208, 210], [255, 255, 255]]]


def test_read_only_arrays_are_copied_others_are_not() -> None:
    array = colours()
    assert np.shares_memory(load_image(array), array)
    array.flags.writeable = False
    pixels = load_image(array)
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, array)


def test_bgr_swaps_arrays_and_tensors_but_not_files() -> None:
    swapped = np.ascontiguousarray(colours()[:, :, ::-1])
    np.testing.assert_array_equal(load_image(swapped, bgr=True), colours())
    tensor = torch.from_numpy(swapped).permute(2, 0, 1)
    np.testing.assert_array_equal(load_image(tensor, bgr=True), colours())
    np.testing.assert_array_equal(load_image(PNG, bgr=True), colours())
    np.testing.assert_array_equal(load_image(Image.fromarray(colours()), bgr=True), colours())
    bgra = np.array([[[30, 20, 10, 255]]], np.uint8)
    assert load_image(bgra, bgr=True).tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_float_tensors(dtype: torch.dtype) -> None:
    tensor = (torch.from_numpy(colours()).permute(2, 0, 1) / 255).to(dtype)
    off_by = 1 if dtype is torch.bfloat16 else 0  # 8 bits of mantissa
    pixels = load_image(tensor.requires_grad_()).astype(int)
    np.testing.assert_allclose(pixels, colours(), atol=off_by)


def test_grey_tensors() -> None:
    for tensor in (torch.from_numpy(grey()), torch.from_numpy(grey())[None]):
        np.testing.assert_array_equal(load_image(tensor)[:, :, 2], grey())


# --- bad input: each with its exact message ---


def file_with(content: bytes, name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return make


def folder(where: Path) -> Path:
    (where / "photos.jpg").mkdir()
    return where / "photos.jpg"


def closed_file(where: Path) -> io.BytesIO:
    stream = io.BytesIO(PNG)
    stream.close()
    return stream


def closed_picture(where: Path) -> Image.Image:
    picture = Image.open(io.BytesIO(PNG))
    picture.close()
    return picture


HEIC = b"\0\0\0\x18ftypheic" + bytes(64)
DAMAGED_PNG = PNG[:60] + bytes(20) + PNG[80:]
MADE_OF = "image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
TENSOR_OF = "image must be (H, W), (C, H, W) or (H, W, C) with C = 1, 3 or 4"
TYPES = "image must be a path, bytes, a binary file, a PIL image, an array or a tensor"
UNREADABLE = "not a picture in a format that can be read (JPEG, PNG, GIF, WebP, TIFF, BMP, …)"

BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda where: where / "a.jpg", "no such file"),
    "folder": (folder, "a folder, not a picture: pass the files in it"),
    "empty": (file_with(b"", "a.jpg"), "the file is empty (0 bytes)"),
    "text": (file_with("Grüße".encode(), "a.jpg"), "text, not a picture"),
    "html": (
        file_with(b"\n<!DOCTYPE html><html>", "a.jpg"),
        "an HTML page, not a picture: was the download an error page?",
    ),
    "svg": (
        file_with(b"<?xml version='1.0'?><svg/>", "a.svg"),
        "SVG drawings are not supported: export it as PNG",
    ),
    "pdf": (
        file_with(b"%PDF-1.7\n\0", "a.png"),
        "PDF documents are not supported: export the page as PNG",
    ),
    "heic": (
        file_with(HEIC, "a.heic"),
        "HEIC pictures must be converted to JPEG (in Python: pillow_heif reads them)",
    ),
    "video": (
        file_with(HEIC.replace(b"heic", b"isom"), "a.mp4"),
        "a video, not a picture: pcnn-predict reads it (in Python: Recognizer.predict_video)",
    ),
    "zip": (file_with(b"PK\3\4\0", "a.zip"), "an archive, not a picture: unpack it first"),
    "lfs": (
        file_with(b"version https://git-lfs.github.com/spec/v1\n", "a.png"),
        "a Git LFS pointer, not the picture: run git lfs pull",
    ),
    "noise": (file_with(bytes(range(255, 0, -1)), "a.jpg"), UNREADABLE),
    "two bytes": (file_with(JPEG[:2], "a.jpg"), UNREADABLE),
    "truncated png": (
        file_with(PNG[: len(PNG) // 2], "a.png"),
        "the PNG data are damaged or cut short",
    ),
    "truncated jpeg": (
        file_with(JPEG[: len(JPEG) * 3 // 4], "a.jpg"),
        "the JPEG data are damaged or cut short",
    ),
    "damaged png": (file_with(DAMAGED_PNG, "a.png"), "the PNG data are damaged or cut short"),
    "bomb": (
        file_with(png_claiming(50_000, 50_000), "a.png"),
        "50000 × 50000 pixels are more than the 200,000,000 allowed "
        "(in Python: pcnn.images.loading.MAX_PIXELS)",
    ),
    "no width": (file_with(b"P6 0 5 255\n", "a.ppm"), "the PPM data are damaged or cut short"),
}

BAD_OBJECTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "none": (lambda _: None, f"load_image: {TYPES}, got NoneType"),
    "number": (lambda _: 3.5, f"load_image: {TYPES}, got float"),
    "list of pixels": (
        lambda _: [[1, 2], [3, 4]],
        f"load_image: {TYPES}, got list: pass its pictures one by one",
    ),
    "empty path": (lambda _: "", "load_image: path must be a file's name, got ''"),
    "nul in path": (lambda _: "a\0b", "load_image: path must be a file's name, got 'a\\x00b'"),
    "address": (
        lambda _: "https://example.org/a.jpg",
        "https://example.org/a.jpg: an address, not a file: download it first",
    ),
    "empty bytes": (lambda _: b"", "image: the file is empty (0 bytes)"),
    "truncated bytes": (lambda _: PNG[:55], "image: the PNG data are damaged or cut short"),
    "photograph as text": (
        lambda _: io.TextIOWrapper(io.BytesIO(PNG), encoding="utf-8"),
        "image: the file object gives text: open it in binary mode, 'rb'",
    ),
    "closed file": (closed_file, "image: the file object is closed"),
    "text file": (
        lambda _: io.StringIO("hello"),
        "image: the file object gives text: open it in binary mode, 'rb'",
    ),
    "closed picture": (
        closed_picture,
        "image: the PIL image is closed, damaged or cut short",
    ),
    "empty picture": (
        lambda _: Image.new("RGB", (0, 5)),
        "image: the picture has no pixels (0 × 5)",
    ),
    "negative I": (
        lambda _: Image.fromarray(np.full((2, 2), -4, np.int32)),
        "load_image: image of int32 must lie in 0…65535, got -4…-4: convert the picture to mode L",
    ),
    "nan F": (
        lambda _: Image.fromarray(np.full((2, 2), np.nan, np.float32)),
        "load_image: image must hold finite values, got NaN or infinity in 4 of 4",
    ),
    "one dimension": (lambda _: np.ones(5, np.uint8), f"load_image: {MADE_OF}, got (5,)"),
    "batch": (
        lambda _: np.ones((2, 6, 8, 3), np.uint8),
        f"load_image: {MADE_OF}, got (2, 6, 8, 3): one picture at a time, pass list(images)",
    ),
    "channels first": (
        lambda _: np.ones((3, 6, 8), np.uint8),
        f"load_image: {MADE_OF}, got (3, 6, 8): put the channels last, image.transpose(1, 2, 0)",
    ),
    "two channels": (
        lambda _: np.ones((6, 8, 2), np.uint8),
        f"load_image: {MADE_OF}, got (6, 8, 2)",
    ),
    "no rows": (
        lambda _: np.ones((0, 8, 3), np.uint8),
        "load_image: image must have pixels, got shape (0, 8, 3)",
    ),
    "complex": (
        lambda _: np.ones((6, 8), complex),
        "load_image: image must be uint8, uint16, bool or float, got complex128",
    ),
    "object": (
        lambda _: np.array([[None, None]]),
        "load_image: image must be uint8, uint16, bool or float, got object: "
        "pictures of different sizes go in a list",
    ),
    "int64 range": (
        lambda _: np.array([[-3, 300]]),
        "load_image: image of int64 must lie in 0…255, got -3…300: scale them and pass uint8",
    ),
    "float 255": (
        lambda _: np.array([[0.0, 254.5]]),
        "load_image: image of float64 must lie in 0…1, got 0…254.5: "
        "divide by 255, or pass 0…255 as uint8",
    ),
    "normalised": (
        lambda _: torch.linspace(-2.25, 2.5, 48).reshape(1, 6, 8),
        "load_image: image of float32 must lie in 0…1, got -2.25…2.5: undo the normalisation",
    ),
    "nan": (
        lambda _: np.array([[0.5, np.nan, np.inf]]),
        "load_image: image must hold finite values, got NaN or infinity in 2 of 3",
    ),
    "tensor batch": (
        lambda _: torch.ones(2, 3, 6, 8),
        f"load_image: {TENSOR_OF}, got (2, 3, 6, 8): one picture at a time, pass list(images)",
    ),
    "tensor channels": (
        lambda _: torch.ones(2, 6, 8),
        f"load_image: {TENSOR_OF}, got (2, 6, 8)",
    ),
    "ambiguous tensor": (
        lambda _: torch.ones(3, 6, 3),
        "load_image: image must have an unambiguous shape, got (3, 6, 3), which may be "
        "(C, H, W) or (H, W, C): pass a NumPy array, which is always (H, W, C)",
    ),
    "empty tensor": (
        lambda _: torch.ones(3, 0, 8),
        "load_image: image must have pixels, got shape (0, 8, 3)",
    ),
    "complex tensor": (
        lambda _: torch.ones(6, 8, dtype=torch.complex64),
        "load_image: image must be uint8, uint16, bool or float, got complex64",
    ),
    "meta tensor": (
        lambda _: torch.ones(3, 6, 8, device="meta"),
        "load_image: image must be a dense tensor with data, "
        "got torch.strided torch.float32 on meta",
    ),
    "sparse tensor": (
        lambda _: torch.ones(6, 8).to_sparse(),
        "load_image: image must be a dense tensor with data, "
        "got torch.sparse_coo torch.float32 on cpu",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_message(kind: str, tmp_path: Path) -> None:
    make, reason = BAD_FILES[kind]
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert str(caught.value) == f"{path}: {reason}"
    if path.is_file():
        with pytest.raises(InputError) as caught, path.open("rb") as stream:
            load_image(stream)
        assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("kind", BAD_OBJECTS)
def test_bad_object_message(kind: str, tmp_path: Path) -> None:
    make, message = BAD_OBJECTS[kind]
    with pytest.raises(InputError) as caught:
        load_image(make(tmp_path))
    assert str(caught.value) == message


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "a.jpg")

    monkeypatch.setattr(Path, "open", denied)  # the tests may run as root, whom nothing is denied
    with pytest.raises(InputError) as caught:
        load_image("a.jpg")
    assert str(caught.value) == "a.jpg: permission denied"


@pytest.mark.parametrize(("width", "height"), [(2003, 2000), (70_001, 59), (31, 130_007)])
def test_large_pictures_are_copied_whole(width: int, height: int) -> None:
    """Strip by strip: of a size that is no multiple of a strip's, and of rows wider than one."""
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(pixels)
    found = load_image(picture)
    np.testing.assert_array_equal(found, pixels)
    found[:] = 0
    np.testing.assert_array_equal(np.asarray(picture), pixels)  # its own memory


def test_mode_that_has_no_rgb_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise ValueError("conversion not supported by this version of Pillow")

    monkeypatch.setattr(Image.Image, "convert", refused)
    with pytest.raises(InputError) as caught:
        load_image(Image.new("LAB", (4, 4)))
    assert str(caught.value) == "image: pixels of mode LAB are not supported: convert them to RGB"


def test_other_read_errors_say_what_the_system_says() -> None:
    name = "x" * 300 + ".jpg"
    with pytest.raises(InputError) as caught:
        load_image(name)
    assert str(caught.value) == f"{name}: cannot be read (File name too long)"


def test_names_that_do_not_print_are_escaped(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_image("two\nlines.jpg")
    assert str(caught.value) == "'two\\nlines.jpg': no such file"


def test_letters_of_all_languages_print_in_names() -> None:
    assert shown("Fotos/Ümläüt 写真.png") == "Fotos/Ümläüt 写真.png"
    assert shown("Fotos/Ümläüt\n.png") == "'Fotos/Ümläüt\\n.png'"


def test_name_is_used_for_what_has_none() -> None:
    with pytest.raises(InputError, match=r"^image 3: the file is empty"):
        load_image(b"", name="image 3")


def test_size_limit_is_ours_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Image.open would refuse both
    np.testing.assert_array_equal(load_image(PNG), colours())
    monkeypatch.setattr(images, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    for source in (PNG, Image.fromarray(colours())):
        with pytest.raises(InputError, match="8 × 6 pixels are more than the 47 allowed"):
            load_image(source)


FUZZED = [
    encoded(Image.fromarray(colours()).resize((20, 14)), kind, **options)
    for kind, options in [
        ("PNG", {}),
        (
            "JPEG",
            {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},
        ),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("BMP", {}),
        ("PPM", {}),
    ]
]


@settings(max_examples=250, deadline=None)
@given(
    content=st.sampled_from(FUZZED),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    length=st.integers(1, 2000),
)
def test_damaged_files_give_a_picture_or_input_error(
    content: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    damaged = bytearray(content[:length])
    for position, value in changes:
        damaged[position % len(damaged)] = value
    # Sizes that damage makes up would cost a lot of memory, and nothing is learnt from them.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 1_000_000)
        try:
            pixels = load_image(bytes(damaged))
        except InputError as error:
            assert str(error).startswith("image: ")
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3


# --- files by name ---


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", ".git/c.jpg", "sub/deep/d.webp")
    touch(tmp_path, "odd[1].jpg", "empty/readme.md")
    found = {
        ("b.jpg",): ["b.jpg"],
        ("./b.jpg", "b.jpg"): ["b.jpg"],
        ("notes.txt", "none.jpg"): ["notes.txt", "none.jpg"],
        (".",): ["a.PNG", "b.jpg", "odd[1].jpg", "sub/deep/d.webp"],
        ("sub", "."): ["sub/deep/d.webp", "a.PNG", "b.jpg", "odd[1].jpg"],
        ("*.jpg",): ["b.jpg", "odd[1].jpg"],
        ("**/*.webp",): ["sub/deep/d.webp"],
        ("*",): ["a.PNG", "b.jpg", "odd[1].jpg", "sub/deep/d.webp"],
        ("odd[1].jpg",): ["odd[1].jpg"],
        (str(tmp_path / "sub" / "**"),): [str(tmp_path / "sub/deep/d.webp")],
    }
    for paths, expected in found.items():
        files, errors = find_images(paths)
        assert [str(file) for file in files] == [str(Path(name)) for name in expected], paths
        assert errors == []


def test_find_images_reports_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.jpg", "empty/readme.md")
    files, errors = find_images(["empty", "a.jpg", "*.tiff", "", "nul\0"])
    assert files == [Path("a.jpg")]
    assert [str(error) for error in errors] == [
        "empty: no pictures in this folder",
        "*.tiff: no pictures match this pattern",
        "find_images: paths must be names, got ''",
        "find_images: paths must be names, got 'nul\\x00'",
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["a.jpg"]),
        *(("*", ["a.jpg"]), ("**", ["a.jpg"]), ("**/*.jpg", ["a.jpg"])),
        *(("*/*.jpg", []), ("locked", []), ("locked/*.jpg", []), ("l*/**", [])),
    ],
)
def test_find_images_names_folders_it_cannot_read_once(
    path: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    scan = os.scandir

    def denied(path: str) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    files, errors = find_images([tmp_path / path])
    assert files == [tmp_path / name for name in found]
    reason = "the folder cannot be read (Permission denied)"
    assert [str(error) for error in errors] == [f"{tmp_path / 'locked'}: {reason}"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a/x.jpg", "b/x.jpg", "a/x.png", "a/x.webp", "x.annotated.png"])))
def test_annotated_names_never_meet(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        files = [root / each for each in dict.fromkeys(names)]
        for target in (root, root / "drawn", root / "a"):
            places = annotated_names(files, target)
            assert list(places) == files
            assert len(set(places.values())) == len(files)
            assert not set(places.values()) & set(files)
            assert all(target in place.parents for place in places.values())


def test_annotated_names_by_hand() -> None:
    files = [Path("p/a/x.jpg"), Path("p/b/x.jpg"), Path("p/b/x.png"), Path("p/b/x.webp")]
    assert list(annotated_names(files, Path("out")).values()) == [
        Path("out/a/x.annotated.jpg"),
        Path("out/b/x.annotated.jpg"),
        Path("out/b/x.annotated.png"),
        Path("out/b/x-2.annotated.png"),
    ]
