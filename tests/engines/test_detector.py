"""The prepared detector network against the plain one, and which halves it is run on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks.test_retinaface import MOBILENET, RESNET, random_state
from torch import Tensor

from pcnn import load_image
from pcnn.engines.detector import PreparedRetinaFace
from pcnn.engines.folding import fold_batch_norms
from pcnn.faces.detector import Detector
from pcnn.networks.retinaface import load_state
from pcnn.weights.detector import DetectorSettings, normalise_images

# Folding, and pixels of up to 255 where normalised values were of order 1: float32 rounding over
# some forty layers, relative to the largest output.
SAME = {"rtol": 1e-3, "atol": 1e-4}


@pytest.mark.parametrize(
    ("architecture", "leak", "channels", "size"),
    [
        (MOBILENET, 0.0, "rgb", (64, 96)),
        (MOBILENET, 0.1, "bgr", (32, 64)),
        (MOBILENET, 0.0, "bgr", (320, 288)),
        (RESNET, 0.0, "rgb", (32, 64)),
    ],
)
def test_predictions_are_the_plain_network_s(
    architecture: str, leak: float, channels: str, size: tuple[int, int]
) -> None:
    """Of two images in one batch, one of which fills only a part of it."""
    settings = replace(DetectorSettings(), channels=channels)
    state = random_state(architecture)
    network = load_state(state, leak=leak)
    numbers = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (height, width, 3), generator=numbers, dtype=torch.uint8)
        for height, width in (size, (size[0] - 5, size[1] - 13))
    ]
    batch = torch.zeros(2, 3, *size)
    for place, image in zip(batch, images, strict=True):
        pixels = image.permute(2, 0, 1)[None].float()
        place[:, : image.shape[0], : image.shape[1]] = normalise_images(pixels, settings)[0]
    if size[0] > 100:  # also as the detector hands it over, already folded
        network = fold_batch_norms(network)
    prepared = PreparedRetinaFace(
        network, channels=settings.channels, mean=settings.mean, std=settings.std
    )
    with torch.inference_mode():
        logits, boxes, landmarks = network(batch)
        found = prepared(prepared.canvas(images, *size))
        coarse = prepared(prepared.canvas(images, *size), fine=False)
    expected = torch.cat((logits[..., 1:] - logits[..., :1], boxes, landmarks), 2)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, **SAME)
    skipped = size[0] * size[1] // 64 * 2  # two anchors at each of the finest level's cells
    torch.testing.assert_close(coarse, found[:, skipped:], **SAME)


@pytest.mark.parametrize("architecture", [MOBILENET, RESNET])
def test_bfloat16_predicts_nearly_the_same(architecture: str) -> None:
    network = load_state(random_state(architecture), leak=0.1)
    images = [torch.randint(0, 256, (96, 64, 3), dtype=torch.uint8)]
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        prepared = PreparedRetinaFace(
            network, channels="bgr", mean=(104, 117, 123), std=(1, 1, 1), dtype=dtype
        )
        with torch.inference_mode():
            found.append(prepared(prepared.canvas(images, 96, 64)))
    plain, rounded = found
    assert rounded.dtype == torch.float32
    # Eight bits over some forty layers, relative to the largest output.
    assert 0 < (rounded - plain).abs().max() < 0.1 * plain.abs().max()


def test_bfloat16_finds_the_same_face(astronaut: Path) -> None:
    picture = load_image(astronaut)
    (plain,), (rounded,) = (
        Detector.load("mobilenet", precision=precision).detect([picture])[0]
        for precision in ("float32", "bfloat16")
    )
    assert plain.box != rounded.box
    assert np.abs(np.array(plain.box) - rounded.box).max() < 1  # pixels, of a face of 100
    assert np.abs(plain.landmarks - rounded.landmarks).max() < 1
    assert abs(plain.score - rounded.score) < 0.01


@pytest.fixture(scope="module")
def packaged() -> Detector:
    return Detector.load("mobilenet")


class _Counting:
    """A prepared network that notes the sizes and kinds of its runs."""

    def __init__(self, inner: PreparedRetinaFace) -> None:
        self.inner, self.runs = inner, []
        self.canvas = inner.canvas

    def __call__(self, canvas: Tensor, *, fine: bool) -> Tensor:
        self.runs.append((*canvas.shape[1:3], fine))
        return self.inner(canvas, fine=fine)


@pytest.mark.parametrize(("side", "runs"), [(64, 1), (150, 2), (330, 3)])
def test_images_are_halved_where_a_face_may_be_large(
    packaged: Detector,
    astronaut: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
    runs: int,
) -> None:
    """The portrait's face, 89 pixels wide, made `side` pixels wide on a canvas of 640 × 480."""
    scale = side / 89
    portrait = torch.from_numpy(load_image(astronaut)[20:220, 120:340].copy())
    size = round(200 * scale), round(220 * scale)
    pixels = torch.nn.functional.interpolate(
        portrait.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    image = np.full((480, 640, 3), 128, np.uint8)
    shown = pixels[:480, :640].numpy()
    image[: shown.shape[0], : shown.shape[1]] = shown
    counting = _Counting(packaged._prepared)
    monkeypatch.setattr(packaged, "_prepared", counting)
    (faces,) = packaged.detect_upright([image])
    assert [run[2] for run in counting.runs] == [True, False, False][:runs]
    assert len(faces) == 1
    width = faces[0].box[2] - faces[0].box[0]
    assert width == pytest.approx(side, rel=0.2)


def test_a_low_score_asked_for_is_a_hint_too(
    packaged: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = _Counting(packaged._prepared)
    monkeypatch.setattr(packaged, "_prepared", counting)
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    packaged.detect_upright([image])
    assert len(counting.runs) == 1
    packaged.detect_upright([image], min_score=0.0)
    assert len(counting.runs) == 3
