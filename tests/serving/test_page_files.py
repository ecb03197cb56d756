"""Odd files given to the page: each is read as Python reads it, or named with the reason."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from served import Server

from pcnn import Recognizer

if TYPE_CHECKING:
    from chromium import Browser

pytestmark = pytest.mark.browser

MANY = 30
MOVING = ("moving.gif", "moving.png", "moving.webp", "really_gif.jpg")
ORIENTATION = 0x112  # EXIF


def readable(portrait: Path, folder: Path) -> list[Path]:
    """The portrait in kinds of files that a browser reads."""
    with Image.open(portrait) as opened:
        picture = opened.convert("RGB").resize((256, 256))
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    moving = [picture, Image.new("RGB", picture.size, "navy")]
    picture.rotate(90).save(folder / "turned.jpg", exif=turned, quality=95)
    picture.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(grey).save(folder / "deep.png")
    picture.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    for name in MOVING:
        kind = "GIF" if name.endswith("jpg") else None  # a wrong name; else by its name
        moving[0].save(folder / name, kind, save_all=True, append_images=moving[1:], loop=0)
    return sorted(folder.iterdir())


def huge(path: Path, side: int = 10_000) -> Path:
    """A PNG of side × side black pixels, in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def test_odd_files_are_read_as_by_python_or_named(
    page_server: Server, browser: Browser, astronaut: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    good = readable(astronaut, folder)
    empty, text, heic = folder / "empty.png", folder / "notes.txt", folder / "photo.heic"
    empty.write_bytes(b"")
    text.write_text("no picture")
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    bad = [empty, text, heic, huge(folder / "huge.png")]
    browser.open(page_server)
    browser.find("#files").send_keys("\n".join(map(str, [*bad, *good])))
    for count in range(1, len(good) + 1):  # each within the time that one may take
        browser.until(lambda count=count: browser.count(".picture") >= count)
    assert browser.find("#failure").text.split("\n") == [
        "empty.png: is empty",
        "notes.txt: this browser cannot read it as a picture",
        "photo.heic: this browser cannot read HEIC files: save it as JPEG or PNG",
        "huge.png: 10000 × 10000 pixels are more than this page takes",
    ]
    found = json.loads(browser.downloaded("#json", "faces.json"))
    expected = [each.to_dict() for each in Recognizer("small").predict(good)]
    for ours, theirs, path in zip(found, expected, good, strict=True):
        (one,), (other,) = ours["faces"], theirs["faces"]
        assert one["label"] == other["label"] == "happiness", path
        assert one["box"] == pytest.approx(other["box"], abs=2), path
        # Colours of CMYK are made in another way.
        least = 0.1 if path.name == "cmyk.jpg" else 0.02
        assert one["scores"] == pytest.approx(other["scores"], abs=least), path
    # What moves stands still, so that its boxes lie on what was read.
    drawn = browser.js(
        """const drawn = [...document.querySelectorAll(".stage canvas")];
        return Object.fromEntries(drawn.map((canvas) => {
          const pixel = canvas.getContext("2d").getImageData(128, 60, 1, 1).data;
          return [canvas.getAttribute("aria-label"), [...pixel]];
        }));"""
    )
    assert set(drawn) == {*MOVING, "alpha.webp"}  # a WebP may always move
    with Image.open(astronaut) as first:
        expected_pixel = first.convert("RGB").resize((256, 256)).getpixel((128, 60))
    for name, pixel in drawn.items():  # the second picture is navy
        assert pixel == pytest.approx([*expected_pixel, 255], abs=40), name
    assert browser.count(".stage img") == len(good) - len(drawn)


def test_many_files_at_once_and_clearing_in_their_midst(
    page_server: Server, browser: Browser, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number:02}.png" for number in range(MANY)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 48), (8 * number, 90, 90)).save(path)
    browser.open(page_server)
    browser.find("#files").send_keys("\n".join(map(str, paths)))
    for count in range(1, MANY + 1):  # each within the time that one may take
        browser.until(lambda count=count: browser.count(".picture") >= count)
    assert browser.find(".picture h3").text == "29.png: no faces"  # the last one on top
    assert browser.find("#status").text == "no faces in 29.png"
    browser.js(
        """const files = new DataTransfer();
        files.items.add(new File(["none"], "first.png", { type: "image/png" }));
        files.items.add(new File(["none"], "second.png", { type: "image/png" }));
        const box = document.querySelector("#files");
        box.files = files.files;
        box.dispatchEvent(new Event("change"));
        document.querySelector("#clear").click();"""
    )
    browser.until(lambda: browser.count(".picture") == 0)
    browser.find("#files").send_keys(str(paths[3]))
    browser.until(lambda: browser.count(".picture") == 1)
    assert browser.find("#failure").text == ""


def test_failures_stay_until_their_file_is_read_or_all_are_cleared(
    page_server: Server, browser: Browser, tmp_path: Path
) -> None:
    one, two, good = (tmp_path / name for name in ("one.png", "two.png", "good.png"))
    one.write_text("no picture")
    two.write_bytes(b"")
    Image.new("RGB", (64, 48), "olive").save(good)
    cannot, empty = "one.png: this browser cannot read it as a picture", "two.png: is empty"

    def lines() -> list[str]:
        return str(browser.find("#failure").text).split("\n")

    browser.open(page_server)
    browser.find("#files").send_keys(f"{one}\n{two}")
    browser.until(lambda: lines() == [cannot, empty])
    assert not browser.find("#json").is_enabled()  # there is nothing to download, only to clear
    browser.find("#files").send_keys(str(good))
    browser.until(lambda: browser.count(".picture") == 1)
    assert lines() == [cannot, empty]
    assert browser.find("#json").is_enabled()
    browser.find("#files").send_keys(str(one))  # it fails again: one line, the last
    browser.until(lambda: lines() == [empty, cannot])
    good.rename(two)
    browser.find("#files").send_keys(str(two))
    browser.until(lambda: browser.count(".picture") == 2)
    assert lines() == [cannot]
    browser.find("#clear").click()
    assert lines() == [""]
    assert not browser.find("#clear").is_displayed()


def test_a_camera_that_is_not_there_leaves_the_button_as_it_was(
    page_server: Server, browser: Browser
) -> None:
    browser.open(page_server)
    browser.js(
        """window.asked = 0;
        navigator.mediaDevices.getUserMedia = () => {
          window.asked += 1;
          return Promise.reject(new DOMException("no such device", "NotFoundError"));
        };"""
    )
    for times in (1, 2):  # the second time the line is not there twice
        browser.find("#camera").click()
        browser.until(lambda times=times: browser.js("return window.asked") == times)
        browser.until(lambda: browser.find("#failure").text)
        assert browser.find("#failure").text == "The camera cannot be used: no such device"
        assert browser.find("#camera").get_attribute("aria-pressed") == "false"
        assert browser.find("#camera").text == "Switch the camera on"
