"""The page's JavaScript makes of the same inputs what Python makes of them."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from vectors import NODE, answers, image_of

from pcnn.engines.export_graphs import LandmarksGraph
from pcnn.faces.detector import Detector, network_size
from pcnn.faces.geometry import face_transforms, similarity
from pcnn.faces.landmarks import LandmarkRefiner
from pcnn.faces.levels import merged
from pcnn.faces.resampling import resized
from pcnn.faces.views import cut_views
from pcnn.images.loading import load_image
from pcnn.networks.anchors import anchor_grid, decode_boxes, decode_landmarks
from pcnn.networks.boxes import nms
from pcnn.networks.pcnn import ModelConfig
from pcnn.networks.regions import REGIONS, RegionLayout
from pcnn.results.values import Detection, Face, Prediction
from pcnn.weights.detector import DetectorSettings
from pcnn.weights.known import DEFAULT_LANDMARKS
from pcnn.weights.landmarks import load_landmarks

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

# By how much a pixel may differ, in levels: rounded twice, and PyTorch's weights for bytes have
# 15 bits.
LEVELS = 2
SETTINGS = DetectorSettings()
TEMPLATE = [[0.33, 0.38], [0.67, 0.38], [0.5, 0.59], [0.36, 0.76], [0.64, 0.75]]
LANDMARKS = [[210.0, 118.5], [246.0, 112.0], [233.5, 138.0], [214.0, 160.5], [249.0, 153.0]]
DETECTOR = Path(__file__).parent.parent.parent / "weights" / "detector-mobilenet.safetensors"


@pytest.fixture(scope="module")
def pixels(astronaut: Path) -> NDArray[np.uint8]:
    return load_image(astronaut)


def model(channels: int, size: int = 96, native_size: int = 48) -> dict[str, Any]:
    return {
        "side": size,
        "mean": [0.5] * channels,
        "template": TEMPLATE,
        "footprint": size / native_size,
        "classes": ["neutral", "happiness"],
        "regions": ["left_eye", "mouth"],
    }


@pytest.mark.parametrize("size", [(100, 120), (512, 300), (700, 600), (1, 1)])
def test_resizing(pixels: NDArray[np.uint8], size: tuple[int, int]) -> None:
    height, width = size
    found = answers(
        it={"task": "resize", "image": image_of(pixels), "width": width, "height": height}
    )
    ours = resized(torch.from_numpy(pixels), size).numpy()
    theirs = np.array(found["it"], np.int64).reshape(height, width, 4)[..., :3]
    assert abs(theirs - ours).max() <= LEVELS


def test_rounding_as_python_does() -> None:
    values = [0.5, 1.5, 2.5, 2.4999, -0.5, 3.7, 10.5, 11.5]
    found = answers(it={"task": "roundEven", "values": values})
    assert found["it"] == [round(value) for value in values]


def test_alignment() -> None:
    shared = {"template": TEMPLATE, "landmarks": LANDMARKS}
    found = answers(
        similarity={"task": "similarity", "source": TEMPLATE, "target": LANDMARKS},
        transform={"task": "transform", "size": 96, **shared},
    )
    assert np.allclose(found["similarity"], similarity(TEMPLATE, LANDMARKS), atol=1e-9)
    points = np.array(LANDMARKS, np.float32)
    expected = face_transforms([points], TEMPLATE, 96, RegionLayout())[0, 0]
    assert np.allclose(found["transform"], expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("enlarged", [0.4, 1, 2, 5])  # the largest is shrunk before it is cut
def test_views(pixels: NDArray[np.uint8], channels: int, enlarged: float) -> None:
    side = round(512 * enlarged)
    picture = resized(torch.from_numpy(pixels), (side, side)).numpy()
    points = np.array(LANDMARKS, np.float32) * enlarged
    config = ModelConfig(size=96, mean=(0.0,) * channels, std=(1 / 255,) * channels)
    transforms = face_transforms([points], TEMPLATE, 96, config.layout)
    (expected,) = cut_views(
        [picture], [transforms], config, native_size=48, device=torch.device("cpu"), names=["face"]
    )
    found = answers(
        it={
            "task": "face",
            "image": image_of(picture),
            "landmarks": points.tolist(),
            "model": model(channels),
        }
    )
    theirs = np.array(found["it"]).reshape(channels, 96, 96)
    assert abs(theirs - expected[0].numpy()).max() <= LEVELS


def test_a_view_over_the_edge_repeats_it(pixels: NDArray[np.uint8]) -> None:
    points = np.array(LANDMARKS, np.float32) - (230, 120)
    config = ModelConfig(size=48, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    transforms = face_transforms([points], TEMPLATE, 48, config.layout)
    (expected,) = cut_views(
        [pixels], [transforms], config, native_size=48, device=torch.device("cpu"), names=["face"]
    )
    task = {"task": "face", "image": image_of(pixels), "landmarks": points.tolist()}
    found = answers(it={**task, "model": model(3, 48)})
    theirs = np.array(found["it"]).reshape(3, 48, 48)
    assert abs(theirs - expected[0].numpy()).max() <= LEVELS


def test_sizes_at_which_the_network_looks() -> None:
    sizes = [(640, 480), (100, 80), (3000, 4000), (161, 160), (20, 20), (2000, 31)]
    found = answers(it={"task": "levels", "sizes": sizes, "settings": SETTINGS.to_metadata()})
    detector = Detector.load(DETECTOR, settings=SETTINGS)
    assert found["it"] == [detector.levels((height, width)) for width, height in sizes]


def test_anchors_and_what_they_stand_for() -> None:
    settings = SETTINGS.to_metadata()
    grid = anchor_grid(96, 160, min_sizes=SETTINGS.min_sizes, steps=SETTINGS.steps)
    offsets = torch.randn(len(grid), 14, generator=torch.Generator().manual_seed(0)) * 2
    offsets[3, 2] = 1e4  # would overflow
    found = answers(
        grid={"task": "anchors", "width": 160, "height": 96, "settings": settings},
        decoded={
            "task": "decode",
            "offsets": offsets.flatten().tolist(),
            "anchors": grid[:, :3].tolist(),
            "variances": SETTINGS.variances,
        },
    )
    assert np.allclose(np.array(found["grid"]).reshape(-1, 3), grid[:, :3])
    boxes = decode_boxes(offsets[:, :4], grid, SETTINGS.variances)
    landmarks = decode_landmarks(offsets[:, 4:], grid, SETTINGS.variances).unflatten(1, (5, 2))
    assert np.allclose([each["box"] for each in found["decoded"]], boxes, rtol=1e-4, atol=1e-2)
    theirs = [each["landmarks"] for each in found["decoded"]]
    assert np.allclose(theirs, landmarks, rtol=1e-4, atol=1e-2)


def test_suppression() -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(60, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(60, 2, generator=generator)], 1)
    scores = torch.rand(60, generator=generator)
    faces = [
        {"index": i, "box": box, "score": score}
        for i, (box, score) in enumerate(zip(boxes.tolist(), scores.tolist(), strict=True))
    ]
    found = answers(it={"task": "suppress", "faces": faces, "iou": 0.4})
    assert found["it"] == nms(boxes, scores, iou=0.4).tolist()


def test_levels_are_merged() -> None:
    def face(left: float, side: float, score: float) -> Detection:
        box = (left, 10.0, left + side, 10.0 + side)
        return Detection(box, score, np.zeros((5, 2), np.float32))

    # Sides are trusted from 56 to 143 pixels as the network sees them, which halves the image.
    levels = [
        (face(0, 40, 0.9), face(100, 130, 0.8), face(300, 200, 0.95), face(600, 100, 0.75)),
        (face(105, 125, 0.85), face(310, 210, 0.9), face(900, 60, 0.99)),
    ]
    sides = [640, 320]
    expected = merged((640, 480), sides, levels, SETTINGS)
    assert 0 < len(expected) < 7
    found = answers(
        it={
            "task": "merged",
            "found": [[{"box": f.box, "score": f.score} for f in level] for level in levels],
            "sides": sides,
            "longest": 640,
            "trusted": SETTINGS.trusted_side,
        }
    )
    assert [(tuple(each["box"]), each["score"]) for each in found["it"]] == [
        (each.box, each.score) for each in expected
    ]


def test_the_network_s_canvas(pixels: NDArray[np.uint8]) -> None:
    settings = {**SETTINGS.to_metadata(), "channels": "bgr", "mean": [104, 117.4, 123]}
    found = answers(
        it={"task": "canvas", "image": image_of(pixels[:50, :70]), "settings": settings}
    )["it"]
    assert (found["width"], found["height"]) == (96, 64)
    canvas = np.array(found["data"]).reshape(64, 96, 3)
    assert np.array_equal(canvas[:50, :70], pixels[:50, :70])
    assert np.array_equal(canvas[50:].reshape(-1, 3), [[123, 117, 104]] * (14 * 96))


def test_faces_are_found_as_by_the_detector(pixels: NDArray[np.uint8]) -> None:
    """With what the network says given, so that it is the rest that is compared."""
    detector = Detector.load(DETECTOR, landmarks=None)
    looks, sizes = [], []
    settings = detector.settings
    for side in detector.levels(pixels.shape):
        height, width = (-(-edge // 32) * 32 for edge in network_size(pixels.shape, side))
        small = resized(torch.from_numpy(pixels), network_size(pixels.shape, side))
        canvas = detector._prepared.canvas([small], height, width)
        found = detector._prepared(canvas)[0]
        scores, offsets = found[:, 0].sigmoid().tolist(), found[:, 1:].flatten().tolist()
        looks.append({"scores": scores, "offsets": offsets})
        sizes.append([width, height])
    task = {"task": "find", "image": image_of(pixels), "settings": settings.to_metadata()}
    found = answers(it={**task, "answers": looks})["it"]
    (expected,) = detector.detect([pixels])
    assert found["seen"] == sizes[: len(found["seen"])]
    assert len(found["faces"]) == len(expected) == 1
    assert found["faces"][0]["box"] == pytest.approx(expected[0].box, abs=0.5)
    assert np.allclose(found["faces"][0]["landmarks"], expected[0].landmarks, atol=0.5)
    assert found["faces"][0]["score"] == pytest.approx(expected[0].score, abs=0.01)


def test_landmarks_are_refined_as_by_the_refiner(pixels: NDArray[np.uint8]) -> None:
    """With what the network sees compared, and what it says given."""
    loaded = load_landmarks(DEFAULT_LANDMARKS)
    faces = [
        Detection((190.0, 60.0, 270.0, 180.0), 0.9, np.array(LANDMARKS, np.float32)),
        Detection((100.0, 60.0, 270.0, 280.0), 0.8, np.array(LANDMARKS, np.float32) * 1.4 - 60),
    ]
    refiner = LandmarkRefiner(loaded, torch.device("cpu"))
    seen: list[Tensor] = []
    answer = refiner._answer
    refiner._answer = lambda views: seen.append(views) or answer(views)
    (expected,) = refiner.refine([pixels], [faces])
    graph = LandmarksGraph(loaded)
    config = loaded.network.config
    views = (seen[0] * config.std[0] + config.mean[0]) * 255
    (points,) = graph(views.round().byte())
    task = {
        "task": "refine",
        "image": image_of(pixels),
        "faces": [{"landmarks": face.landmarks.tolist(), "score": face.score} for face in faces],
        "model": graph.metadata,
        "points": points.tolist(),
    }
    found = answers(it=task)["it"]
    assert abs(np.array(found["seen"]) - views.flatten().numpy()).max() <= LEVELS
    for ours, theirs in zip(found["faces"], expected, strict=True):
        assert ours["score"] == theirs.score
        # A hundredth of the distance between the eyes: what is seen is rounded to bytes here.
        assert np.allclose(ours["landmarks"], theirs.landmarks, atol=0.35)


def test_answers_are_named() -> None:
    answer = {"scores": [0.25, 0.75, 0.6, 0.4], "region_scores": [i / 8 for i in range(8)]}
    views = [[0] * 12, [1] * 12]
    found = answers(it={"task": "read", "views": views, "model": model(3, 2), "answer": answer})
    one, two = found["it"]
    assert (one["label"], one["confidence"]) == ("happiness", 0.75)
    assert (two["label"], two["scores"]) == ("neutral", {"neutral": 0.6, "happiness": 0.4})
    assert two["regions"]["mouth"] == {"neutral": 0.75, "happiness": 0.875}


def test_regions_lie_where_they_do_in_python() -> None:
    layout = RegionLayout(middle=0.47, eyes_end=0.5, cheeks_end=0.66)
    found = answers(it={"task": "boxes", "side": 65, "layout": asdict(layout)})["it"]
    expected = layout.boxes(65)
    assert list(found) == list(REGIONS)
    for name, (left, top, right, bottom) in found.items():
        assert expected[name] == (top, left, bottom, right)


def test_what_is_hidden_is_the_training_faces_mean() -> None:
    shape = {"mean": [0.5, 0.25], "side": 4}
    task = {"task": "hide", "view": list(range(32)), "model": shape}
    found = answers(
        inside={**task, "box": [1, 2, 3, 4]}, over_the_edge={**task, "box": [-2, -1, 1, 2]}
    )
    expected = np.arange(32).reshape(2, 4, 4)
    expected[0, 2:4, 1:3], expected[1, 2:4, 1:3] = 128, 64
    assert np.array_equal(np.array(found["inside"]).reshape(2, 4, 4), expected)
    expected = np.arange(32).reshape(2, 4, 4)
    expected[0, :2, :1], expected[1, :2, :1] = 128, 64
    assert np.array_equal(np.array(found["over_the_edge"]).reshape(2, 4, 4), expected)


def test_hiding_shows_what_the_answer_needs() -> None:
    shape = {**model(1, 24), "layout": asdict(RegionLayout()), "mean": [0.0], "regions": []}
    view = [200] * (24 * 24)
    found = answers(it={"task": "explain", "view": view, "model": shape})["it"]
    assert found["without"]["left_eye"] == {"neutral": 1, "happiness": 0}
    assert found["without"]["mouth"] == {"neutral": 0, "happiness": 1}
    heat = np.array(list(found["heat"]["heat"].values())).reshape(12, 12)
    assert heat[2:4, 2:4].min() > 0
    assert heat[:, 8:].max() == heat[8:].max() == 0
    # A hidden square of 6 × 6 of the 12 × 12 pixels that count leaves three quarters.
    assert found["heat"]["least"] == pytest.approx(0.75)


def test_json_and_csv_are_those_of_pcnn_predict() -> None:
    scores = {"neutral": 0.1234567, "happiness": 0.8765433}
    box, landmarks = (1.005, 2.25, 30.126, 40.0), np.array(LANDMARKS, np.float32)
    parts = ({"mouth": scores}, box, 0.99, landmarks)
    face = Face("happiness", 0.8765433, scores, *parts, quality=0.61284)
    prediction = Prediction((face,), 'a "b", c.png', 512, 300)
    given = {
        **{"source": prediction.source, "width": 512, "height": 300},
        "faces": [
            {
                **{"label": face.label, "confidence": face.confidence, "scores": scores},
                **{"regions": {"mouth": scores}, "box": box, "score": 0.99, "quality": 0.61284},
                "landmarks": LANDMARKS,
            }
        ],
    }
    hostile = {**given, "source": "=1+1.png"}
    task = {"task": "table", "classes": list(scores), "pictures": [given, hostile]}
    found = answers(it=task)["it"]
    assert found["json"][0] == prediction.to_dict()
    rows = list(csv.DictReader(io.StringIO(found["csv"])))
    expected = prediction.rows()[0]
    assert list(rows[0]) == list(expected)
    for name, value in expected.items():
        if value is None or isinstance(value, str):
            assert rows[0][name] == (value or "")
        else:  # JavaScript writes 1.0 as 1
            assert float(rows[0][name]) == value
    assert rows[1]["source"] == "'=1+1.png"
