"""Faces cut out of shrunk pictures are those cut out of the whole ones, within stated bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn import Recognizer, load_image, ops
from pcnn.faces import shrinking, views
from pcnn.faces.geometry import face_transforms, picture_transforms
from pcnn.faces.resampling import resized
from pcnn.faces.shrinking import Source, shrink_face
from pcnn.faces.views import cut_views
from pcnn.networks.pcnn import ModelConfig

CONFIG = ModelConfig(size=48, mean=(0.0,), std=(1.0,))
TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
# Views of photographs of faces, values of 0…255: two kernels of one spread but different shape.
MEAN_CHANGE, LARGEST_CHANGE = 0.6, 12.0
# What that may change a probability by: measured 0.025 at most on 25 portraits and six sizes.
PROBABILITY = 0.04


def _cut(source: Source, size: int) -> Tensor:
    """(size, size), 0…255: the first view alone."""
    (view,) = ops.crop_regions(
        source.pixels,
        torch.from_numpy(source.transforms[None, :1]),
        [(size, size)],
        mean=(0.0,),
        std=(1 / 255,),
        footprint=source.footprint,
    )
    return view[0, 0]


def _turned(scale: float, angle: float, shift: tuple[float, float]) -> NDArray[np.float32]:
    """(1, 2, 3): a view that shows the picture `scale` times smaller, turned."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[[c, -s, shift[0]], [s, c, shift[1]]]], np.float32)


def _smooth(height: int, width: int) -> Tensor:
    """A picture linear in x and y: any symmetric average of it is its value in the middle."""
    y, x = np.mgrid[0:height, 0:width]
    ramp = 20 + 100 * x / width + 100 * y / height
    return torch.from_numpy(np.repeat(ramp[:, :, None], 3, 2).round().astype(np.uint8))


def test_resizing_by_hand() -> None:
    pixels = torch.tensor([[[0, 0, 0], [255, 10, 1]]], dtype=torch.uint8)
    assert resized(pixels, (1, 2)) is pixels
    assert resized(pixels, (1, 1)).tolist() == [[[128, 5, 1]]]


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("scale", [4.3, 9.7])
def test_nothing_is_moved(scale: float, angle: float) -> None:
    """On a ramp a shift by a pixel would show as 0.1 to 0.4 of a level everywhere."""
    pixels = _smooth(900, 1000)
    source = Source(pixels, _turned(scale, angle, (480.3, 440.8)), 1.0)
    shrunk = shrink_face(source, 40)
    assert shrunk.pixels.shape[0] < 500
    difference = _cut(shrunk, 40) - _cut(source, 40)
    inner = difference[8:-8, 8:-8]
    assert inner.abs().max() < 1.01  # rounding to whole levels, before and after
    assert inner.mean().abs() < 0.1


@pytest.mark.parametrize(("scale", "footprint"), [(4.2, 1.0), (3.7, 2.0), (9.0, 2.0)])
def test_what_a_pixel_averages_keeps_its_spread(scale: float, footprint: float) -> None:
    """A bright line's image, put together from views moved by parts of a pixel."""
    pixels = torch.zeros(300, 400, 3, dtype=torch.uint8)
    pixels[:, 199:202] = 255
    moments = []
    for shrink in (False, True):
        places, values = [], []
        for phase in np.arange(16) / 16:
            shift = 200 - scale * (15.5 + phase), 150 - scale * 15.5
            source = Source(pixels, _turned(scale, 0.0, shift), footprint)
            view = _cut(shrink_face(source, 32) if shrink else source, 32)
            places.append(np.arange(32) - 15.5 - phase)
            values.append(view[12:20].double().mean(0).numpy())
        x, line = np.concatenate(places), np.concatenate(values)
        middle = np.average(x, weights=line)
        moments.append((line.sum(), middle, np.average((x - middle) ** 2, weights=line)))
    (weight, middle, spread), (own_weight, own_middle, own_spread) = moments
    # The line lies somewhere between the pixels of what is shrunk.
    assert own_weight == pytest.approx(weight, rel=0.03)
    assert own_middle == pytest.approx(middle, abs=0.02)
    assert own_spread == pytest.approx(spread, rel=0.06)


@pytest.mark.parametrize("scale", [0.5, 3.9])
def test_faces_that_are_not_large_are_left_alone(scale: float) -> None:
    source = Source(_smooth(300, 300), _turned(scale, 0.3, (20, 30)), 1.0)
    assert shrink_face(source, 40) is source


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_transforms_that_lead_nowhere_are_left_to_the_op(value: float) -> None:
    pixels = _smooth(50, 60)
    for row, column in ((0, 0), (1, 2)):
        maps = _turned(5.0, 0.0, (0, 0))
        maps[0, row, column] = value
        source = Source(pixels, maps, 1.0)
        assert _cut(shrink_face(source, 8), 8).shape == (8, 8)


@pytest.mark.parametrize("shift", [(-4000.0, 0.0), (4000.0, 4000.0), (-30.0, 20.0)])
def test_faces_that_reach_over_the_edge(shift: tuple[float, float]) -> None:
    """Beyond the picture its edge goes on, however far outside the face lies."""
    pixels = _smooth(200, 220)
    source = Source(pixels, _turned(6.0, 0.2, shift), 1.0)
    difference = _cut(shrink_face(source, 30), 30) - _cut(source, 30)
    assert difference.abs().max() < 4


@pytest.fixture(scope="module")
def portrait(astronaut: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The portrait four times as large, and its face's landmarks."""
    recognizer = Recognizer(device="cpu")
    image = load_image(astronaut)
    landmarks = recognizer.predict(image).faces[0].landmarks
    large = resized(torch.from_numpy(image.copy()), (2048, 2048)).numpy()
    return large, landmarks * 4


def test_views_of_a_large_face_change_little(
    portrait: tuple[NDArray[np.uint8], NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shrunk or not, from a face of 360 pixels: the views, and what is read from them."""
    pixels, landmarks = portrait
    maps = face_transforms([landmarks], TEMPLATE, CONFIG.size, CONFIG.layout)
    arguments = ([pixels], [maps], CONFIG)
    options = {"native_size": 48, "device": torch.device("cpu")}
    small = cut_views(*arguments, **options)
    recognizer = Recognizer(device="cpu")
    face = recognizer.predict_crops(pixels[200:900, 600:1300])
    monkeypatch.setattr(views, "shrink_face", lambda source, _: source)
    whole = cut_views(*arguments, **options)
    for one, other in zip(small, whole, strict=True):
        assert not torch.equal(one, other)
        change = 255 * (one - other).abs()
        assert change.mean() < MEAN_CHANGE and change.max() < LARGEST_CHANGE
    expected = recognizer.predict_crops(pixels[200:900, 600:1300])
    assert face.label == expected.label
    assert face.scores == pytest.approx(dict(expected.scores), abs=PROBABILITY)


def test_large_and_small_faces_of_one_picture_keep_their_order(
    portrait: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> None:
    pixels, landmarks = portrait
    every = [landmarks, landmarks / 8 + 700, landmarks * 0.9]
    options = {"native_size": 48, "device": torch.device("cpu")}
    together = cut_views(
        [pixels],
        [face_transforms(every, TEMPLATE, 48, CONFIG.layout)],
        CONFIG,
        **options,  # type: ignore[arg-type]
    )
    assert [view.shape[0] for view in together] == [3] * 6
    for place, points in enumerate(every):
        maps = face_transforms([points], TEMPLATE, 48, CONFIG.layout)
        alone = cut_views([pixels], [maps], CONFIG, **options)  # type: ignore[arg-type]
        for one, view in zip(alone, together, strict=True):
            torch.testing.assert_close(view[place], one[0], rtol=0, atol=1e-6)


def test_the_face_alone_is_cut_where_it_is_all_that_is_wanted() -> None:
    pixels = _smooth(300, 260).numpy()
    maps = picture_transforms(260, 300, 48, CONFIG.layout)
    arguments = ([pixels], [maps], CONFIG)
    options = {"native_size": 48, "device": torch.device("cpu")}
    (face,) = cut_views(*arguments, names=("face",), **options)
    assert torch.equal(face, cut_views(*arguments, **options)[0])
    assert shrinking._MOST_EXTENT < 300 / 48
