"""Tiles of large images: each face once, and whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pcnn.faces.detector import Detector
from pcnn.faces.tiles import Tile, joined, tiles_of

LEAST = 960  # the side of a tile


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 480))
def test_tiles_cover_the_image_and_share_the_overlap(height: int, width: int, overlap: int) -> None:
    tiles = tiles_of((height, width, 3), overlap)
    if height * width <= LEAST**2:
        assert tiles == [Tile(0, height, 0, width)]
    rows = sorted({(tile.top, tile.bottom) for tile in tiles})
    columns = sorted({(tile.left, tile.right) for tile in tiles})
    assert len(tiles) == len(rows) * len(columns)
    for ranges, side in ((rows, height), (columns, width)):
        assert ranges[0][0] == 0 and ranges[-1][1] == side
        assert all(end - start <= LEAST for start, end in ranges) or len(tiles) == 1
        for (_, end), (start, _) in itertools.pairwise(ranges):
            assert end - start >= overlap


@pytest.mark.parametrize("overlap", [None, 481, 960, 5000])
def test_where_faces_may_be_large_the_image_stays_whole(overlap: int | None) -> None:
    assert tiles_of((4000, 6000, 3), overlap) == [Tile(0, 4000, 0, 6000)]


def _rows(*faces: Sequence[float], hint: bool = False) -> NDArray[np.float32]:
    """Rows as of ops.decode_faces: score and box of each; all landmarks in the box's corner."""
    rows = np.zeros((len(faces) + 3, 15), np.float32)  # with room that counts for nothing
    rows[0, :2] = len(faces), hint
    for row, (score, x1, y1, x2, y2) in zip(rows[1:], faces, strict=False):
        row[:5] = score, x1, y1, x2, y2
        row[5:] = np.tile((x1, y1), 5)
    return rows


def test_faces_of_tiles_by_hand() -> None:
    tiles = [Tile(0, 500, 0, 900), Tile(0, 500, 700, 1600)]
    left = _rows(
        (0.9, 750, 100, 800, 160),  # also in the right tile, at 50
        (0.8, 860, 10, 898, 60),  # cut off at the right
        (0.7, 1, 1, 40, 50),  # at the image's own edge
    )
    right = _rows(
        (0.95, 51, 101, 101, 161), (0.6, 161, 10, 210, 60), (0.5, 1, 300, 50, 360), hint=True
    )
    found = joined([left, right], tiles, 0.4)
    assert found[0, :2].tolist() == [3, 1]
    assert found[1:, :5].round(2).tolist() == [
        pytest.approx([0.95, 751, 101, 801, 161]),
        pytest.approx([0.7, 1, 1, 40, 50]),
        pytest.approx([0.6, 861, 10, 910, 60]),
    ]
    assert found[1, 5:7].tolist() == [751, 101]
    (alone,) = (joined([left], tiles[:1], 0.4),)
    assert alone is left


@pytest.fixture(scope="module")
def packaged() -> Detector:
    return Detector.load("mobilenet")


def _reduced(portrait: Path, side: int) -> NDArray[np.uint8]:
    """The portrait with this side; its face is a fifth as wide."""
    with Image.open(portrait) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _wall(portrait: Path, side: int, places: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """A grey picture of 3000 × 2000 with small portraits."""
    wall = np.full((2000, 3000, 3), 120, np.uint8)
    for x, y in places:
        wall[y : y + side, x : x + side] = _reduced(portrait, side)
    return wall


@pytest.mark.parametrize("side", [160, 100])
def test_small_faces_in_large_pictures_are_found(
    packaged: Detector, astronaut: Path, side: int
) -> None:
    places = [(x, y) for x in (5, 880, 1450, 2400) for y in (10, 900, 1800)]
    ((alone,),) = packaged.detect([_reduced(astronaut, 512)])
    (found,) = packaged.detect([_wall(astronaut, side, places)])
    assert len(found) == len(places)
    middles = np.array(
        [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in (face.box for face in found)]
    )
    x1, y1, x2, y2 = np.array(alone.box) * side / 512
    for x, y in places:
        off = np.abs(middles - (x + (x1 + x2) / 2, y + (y1 + y2) / 2)).max(1)
        assert (off < side / 20).sum() == 1


def test_the_least_face_decides_how_finely_a_large_picture_is_searched(
    packaged: Detector, astronaut: Path
) -> None:
    wall = _wall(astronaut, 160, [(880, 900)])
    assert len(packaged.detect([wall], min_face=30)[0]) == 1
    assert not packaged.detect([wall], min_face=200)[0]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_of_large_pictures_that_lie_on_their_side(
    packaged: Detector, astronaut: Path, quarters: int
) -> None:
    wall = np.full((2000, 3000, 3), 120, np.uint8)
    wall[300:1300, 1500:2500] = _reduced(astronaut, 1000)
    ((upright,),) = packaged.detect([wall])
    ((found,),) = packaged.detect([np.ascontiguousarray(np.rot90(wall, quarters))])
    assert (found.angle + 90 * quarters - upright.angle + 180) % 360 == pytest.approx(180, abs=3)
    (x, y), (width, height) = upright.landmarks.mean(0), (3000, 2000)
    expected = {1: (y, width - x), 2: (width - x, height - y), 3: (height - y, x)}[quarters]
    assert found.landmarks.mean(0) == pytest.approx(expected, abs=8)


def test_long_pictures_keep_their_shorter_side(packaged: Detector, astronaut: Path) -> None:
    strip = np.concatenate([_reduced(astronaut, 400)] * 60, 1)
    (found,) = packaged.detect([strip])
    assert len(found) == 60
    assert packaged.levels(strip.shape)[0] == 24_000 and packaged.levels((600, 1200))[0] == 960
    assert packaged.levels((1000, 4000))[0] == 1920
