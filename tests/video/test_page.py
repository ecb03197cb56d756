"""A film's page in a real browser: it needs no other file, and fits screens of any width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pcnn.results.frames import Frame, TrackedFace
from pcnn.video.page import timeline_page
from pcnn.video.summaries import Summary

if TYPE_CHECKING:
    from chromium import Browser

pytestmark = pytest.mark.browser
pytest.importorskip("selenium")

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    from chromium import CHROMIUM, DRIVER, Browser

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    made = Browser(tmp_path / "browser")
    yield made
    made.close()


def summary() -> Summary:
    """Two people for six seconds; one is first happy, then surprised."""
    found = Summary(CLASSES)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    for number in range(60):
        faces = []
        for track in (1, 2):
            label = "surprise" if track == 1 and number > 30 else "happiness"
            scores = {name: 0.9 if name == label else 0.1 / 7 for name in CLASSES}
            box = (20.0 + 60 * (track - 1), 20.0, 60.0 + 60 * (track - 1), 70.0 + 0.5 * number)
            points = np.zeros((5, 2), np.float32)
            faces.append(TrackedFace(label, 0.9, scores, {}, box, 0.9, points, track, scores))
        found.add(Frame(number / 10, number, tuple(faces), "film.mp4", 160, 120, pixels))
    return found


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_the_page_fits_and_shows_all(browser: Browser, tmp_path: Path, width: int) -> None:
    page = tmp_path / "film.html"
    page.write_text(timeline_page(summary(), "film.mp4"), encoding="utf-8")
    browser.emulate(width=width, height=900)
    browser.driver.get(page.as_uri())
    assert browser.count("section") == 2 and browser.count("polygon") >= 16
    assert browser.js("return document.documentElement.scrollWidth") == width
    pictures = browser.js(
        "return [...document.images].map(each => [each.complete && each.naturalWidth,"
        " each.getBoundingClientRect().left, each.getBoundingClientRect().right])"
    )
    assert len(pictures) >= 4
    for loaded, left, right in pictures:
        assert loaded == 96 and 0 <= left < right <= width
    assert browser.js("return performance.getEntriesByType('resource').length") == 0
    assert not browser.errors()
