"""Detection end to end: files that load and files that do not, images of every shape."""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pcnn import load_image, weights
from pcnn.errors import InputError, WeightsError
from pcnn.faces.detector import HINT_SIDE, Detector, ScaledImage, network_size
from pcnn.faces.levels import merged as merged_levels
from pcnn.networks.anchors import anchor_grid, decode_boxes, decode_landmarks
from pcnn.networks.boxes import nms
from pcnn.networks.retinaface import RetinaFace
from pcnn.results.values import Detection
from pcnn.weights.detector import DetectorSettings, normalise_images, read_detector

MOBILENET = "retinaface-mobilenet0.25"
PACKAGED = Path(__file__).parent.parent.parent / "weights" / "detector-mobilenet.safetensors"
# A face found again in a moved or differently batched image: float32 sums in another order,
# seen through offsets of up to a hundred pixels.
SAME_PLACE = 0.05


@cache
def _state(architecture: str = MOBILENET) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return RetinaFace(architecture).state_dict()


def _metadata(**changes: object) -> dict[str, Any]:
    return {"kind": "detector", **DetectorSettings().to_metadata(), **changes}


@pytest.fixture(scope="module")
def teacher(shared_data: Path) -> Detector:
    return Detector.load(shared_data / "teacher" / "retinaface_mobilenet0.25.pth")


@pytest.fixture(scope="module")
def portraits(shared_data: Path) -> list[NDArray[np.uint8]]:
    """The archive's first three photographs, 250 × 250."""
    images = []
    with tarfile.open(shared_data / "lfw" / "lfw_faces.tar") as archive:
        for _ in range(3):
            file = archive.extractfile(archive.next())  # type: ignore[arg-type]
            images.append(np.asarray(Image.open(io.BytesIO(file.read()))))  # type: ignore[union-attr]
    return images


@pytest.fixture(scope="module")
def untrained() -> Detector:
    """A network that has learnt nothing and sees faces everywhere."""
    network = RetinaFace(MOBILENET)
    network.load_state_dict(_state())
    return Detector(network, replace(DetectorSettings(), confidence=0.3))


# Files


def test_our_own_file_says_all_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    settings = replace(DetectorSettings(), max_side=320, confidence=0.55, leak=0.1)
    weights.write(path, _state(), {"kind": "detector", **settings.to_metadata()})
    loaded = Detector.load(path)
    assert loaded.settings == settings
    assert loaded.description == f"{MOBILENET}, {path}; landmarks by landmarks"
    plain = Detector.load(path, landmarks=None)
    assert plain.description == f"{MOBILENET}, {path}"
    assert Detector.load(path, settings=DetectorSettings()).settings == DetectorSettings()
    younger = ("trusted_side", "least_side")
    old = {name: value for name, value in _metadata().items() if name not in younger}
    weights.write(path, _state(), old)
    assert Detector.load(path).settings == DetectorSettings()


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"kind": "expression"}, "holds no detector but 'expression'"),
        ({"kind": "detector"}, r"other.safetensors: .*\(min_sizes is missing\)"),
        (_metadata(channels="grey"), "channels must be rgb or bgr, got 'grey'"),
        (_metadata(mean=[1, 2]), r"mean must be a list of 3, got \[1, 2\]"),
        (_metadata(confidence="high"), "confidence must be a number in 0…1, got 'high'"),
        (_metadata(least_side="all"), "least_side must be a whole number in 0…8192, got 'all'"),
        (_metadata(trusted_side="all"), "trusted_side must be a number in 8…8192, got 'all'"),
        (_metadata(steps=[8, 16]), r"steps must be \[8, 16, 32\], got \[8, 16\]"),
    ],
)
def test_a_file_of_ours_that_cannot_be_used_says_why(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    path = tmp_path / "other.safetensors"
    weights.write(path, _state(), metadata)
    with pytest.raises(WeightsError, match=message):
        Detector.load(path)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_pytorch_retinaface_checkpoints_load(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    state = {prefix + name: value for name, value in _state().items()}
    path = tmp_path / "mobilenet0.25_Final.pth"
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    settings = Detector.load(path).settings
    assert settings.channels == "bgr" and settings.mean == (104, 117, 123)
    assert settings.min_sizes == ((16, 32), (64, 128), (256, 512))
    assert settings.leak == 0.1


def test_resnet50_checkpoints_are_told_apart_by_their_input(tmp_path: Path) -> None:
    state = dict(_state("retinaface-resnet50"))
    path = tmp_path / "retinaface_resnet50_2020-07-20.pth"
    torch.save(state, path)
    _, settings = read_detector(path)
    assert settings.channels == "rgb" and settings.confidence == 0.7
    assert settings.mean == (123.675, 116.28, 103.53) and settings.nms_iou == 0.4
    # Fed with 0…255, the first convolution's output varies some thousand times as much.
    state["body.bn1.running_var"] = state["body.bn1.running_var"] * 3000
    torch.save(state, path)
    _, settings = read_detector(path)
    assert settings.channels == "bgr" and settings.mean == (104, 117, 123)


def test_a_checkpoint_alone_in_a_zip_loads(tmp_path: Path) -> None:
    inner, outer = tmp_path / "weights.pth", tmp_path / "weights.zip"
    torch.save(_state(), inner)
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "retinaface.pth")
    assert Detector.load(outer).settings.channels == "bgr"
    torch.save(_state(), outer)  # PyTorch's own format is a zip too
    assert Detector.load(outer).settings.channels == "bgr"


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("own_name", [False, True])
def test_heads_of_other_names_load(tmp_path: Path, nested: bool, own_name: bool) -> None:
    state = {}
    for name, value in _state().items():
        for ours, theirs in (("ClassHead", "class"), ("BboxHead", "bbox")):
            if name.startswith(ours):
                head = f"{theirs}_head.{theirs}_head" if nested else f"{theirs}_head"
                name = name.replace(ours, head)  # noqa: PLW2901 - a new name for the same thing
                name = name if own_name else name.replace(".conv1x1", "")  # noqa: PLW2901
        state[name] = value
    path = tmp_path / "other.pth"
    torch.save(state, path)
    read, _ = read_detector(path)
    assert set(read) == set(_state())


def test_checkpoints_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(WeightsError, match=r"x.pth: no such weights file"):
        Detector.load(path)
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(WeightsError, match=r"x.pth: not a readable PyTorch checkpoint"):
        Detector.load(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(WeightsError, match=r"x.pth: holds no state dict, but list"):
        Detector.load(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match=r"x.pth: holds no state dict, but dict"):
        Detector.load(path)
    torch.save({"conv.weight": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"x.pth: not a RetinaFace state dict"):
        Detector.load(path)
    state = dict(_state())
    del state["BboxHead.1.conv1x1.bias"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"x.pth: .* misses BboxHead.1.conv1x1.bias"):
        Detector.load(path)


class _Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a checkpoint's code was run",))


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": _state(), "recorder": _Payload()}, path)
    with pytest.raises(WeightsError, match="not a readable PyTorch checkpoint"):
        Detector.load(path)


# Images


def test_normalising_worked_by_hand() -> None:
    images = torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1)
    settings = replace(DetectorSettings(), mean=(1, 2, 3), std=(1, 2, 4))
    assert normalise_images(images, settings).flatten().tolist() == [9, 9, 6.75]
    settings = replace(settings, channels="bgr")
    assert normalise_images(images, settings).flatten().tolist() == [29, 9, 1.75]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (33, 65), (3000, 4000)])
def test_images_of_any_shape(untrained: Detector, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    (faces,) = untrained.detect([image])
    scores = [face.score for face in faces]
    assert scores == sorted(scores, reverse=True) and len(scores) > 0
    assert all(0.3 <= score <= 1 for score in scores)
    assert all(np.isfinite(face.box).all() and face.landmarks.shape == (5, 2) for face in faces)
    assert all(face.landmarks.dtype == np.float32 for face in faces)
    # Coordinates are the image's own: the anchors' centres span it.
    reach = max(face.box[2] for face in faces), max(face.box[3] for face in faces)
    assert reach[0] > 0.8 * shape[1] and reach[1] > 0.8 * shape[0]


def test_no_images_no_results(untrained: Detector) -> None:
    assert untrained.detect([]) == []


def test_views_and_read_only_arrays(untrained: Detector) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    expected = untrained.detect([image])
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    strided.flags.writeable = False
    _assert_same(untrained.detect([strided])[0], expected[0])
    flipped = image[::-1].copy()[::-1]
    _assert_same(untrained.detect([flipped])[0], expected[0])


def test_a_batch_gives_what_its_images_give_alone(untrained: Detector) -> None:
    random = np.random.default_rng(2)
    shapes = [(40, 60), (64, 64), (33, 61), (700, 90)]
    images = [random.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    for image, faces in zip(images, untrained.detect(images), strict=True):
        _assert_same(faces, untrained.detect([image])[0])


def test_the_most_likely_candidates_alone_are_weighed(
    untrained: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    best = untrained.detect_upright([image], min_score=0)[0][0]
    monkeypatch.setattr("pcnn.faces.detector._MOST_CANDIDATES", 1)
    (faces,) = untrained.detect_upright([image], min_score=0)
    assert [face.score for face in faces] == [best.score]


def test_the_faces_are_those_of_the_parts(packaged: Detector, astronaut: Path) -> None:
    """The op decodes and suppresses as networks.anchors and networks.boxes do."""
    settings = packaged.settings
    picture = torch.from_numpy(load_image(astronaut).copy())
    scaled = [ScaledImage(picture[top:, 64:], (0.5, 2.0), True) for top in (0, 8)]
    anchors = anchor_grid(512, 448, min_sizes=settings.min_sizes, steps=settings.steps)
    with torch.inference_mode():
        pixels = [image.pixels for image in scaled]
        predictions = packaged._prepared(packaged._prepared.canvas(pixels, 512, 448))
    for own, (faces, hint) in zip(predictions, packaged.search_once(scaled, 0.05), strict=True):
        scores = own[:, 0].sigmoid()
        boxes = decode_boxes(own[:, 1:5], anchors, settings.variances)
        points = decode_landmarks(own[:, 5:], anchors, settings.variances)
        sure = torch.nonzero(scores >= 0.05)[:, 0]
        kept = sure[nms(boxes[sure], scores[sure], iou=settings.nms_iou)]
        assert 1 < len(faces) == len(kept) < len(sure)
        scale = torch.tensor((0.5, 2.0)).repeat(7)
        expected = torch.cat((boxes, points), 1)[kept] * scale
        found = [[*face.box, *face.landmarks.flatten().tolist()] for face in faces]
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-5, atol=1e-4)
        assert [face.score for face in faces] == pytest.approx(scores[kept].tolist(), rel=1e-6)
        sides = (boxes[sure, 2:] - boxes[sure, :2]).amin(1)
        assert hint == bool((sides >= HINT_SIDE * (settings.trusted_side or 0)).any())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((4, 4), np.uint8), r"images\[0\] must be \(H, W, 3\) .* got \(4, 4\) uint8"),
        (np.ones((4, 4, 4), np.uint8), r"got \(4, 4, 4\) uint8"),
        (np.ones((4, 4, 3)), r"got \(4, 4, 3\) float64"),
        (np.ones((0, 4, 3), np.uint8), r"at least one pixel, got \(0, 4, 3\) uint8"),
        ("face.jpg", r"got str"),
    ],
)
def test_other_images_are_refused(untrained: Detector, image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        untrained.detect([image])


def _found(left: float, top: float, side: float, score: float = 0.9) -> Detection:
    box = (left, top, left + side, top + 1.2 * side)
    return Detection(box, score, np.zeros((5, 2), np.float32))


def test_large_faces_are_looked_for_in_halved_images(untrained: Detector) -> None:
    looking = Detector(untrained.network, replace(DetectorSettings(), trusted_side=100.0))
    # Halved as long as a face of half the trusted side could fill the image.
    assert looking.levels((600, 1200, 3)) == [640, 320, 160, 80]
    assert looking.levels((199, 30, 3)) == [199, 99]
    single = Detector(untrained.network, replace(DetectorSettings(), trusted_side=None))
    assert single.levels((600, 1200, 3)) == [640]


@pytest.mark.parametrize(
    ("shape", "levels", "size"),
    [
        ((48, 96), [160], (80, 160)),
        ((160, 20), [160], (160, 20)),
        ((20, 31), [124], (80, 124)),  # fourfold
        ((1, 1), [4], (4, 4)),
    ],
)
def test_small_images_are_enlarged(
    untrained: Detector, shape: tuple[int, int], levels: list[int], size: tuple[int, int]
) -> None:
    assert untrained.levels(shape) == levels
    assert network_size(shape, levels[0]) == size
    never = Detector(untrained.network, replace(untrained.settings, least_side=0))
    assert never.levels(shape)[0] == max(shape)
    short = Detector(untrained.network, replace(untrained.settings, max_side=100))
    most = max(100, 50 * max(shape) // min(shape))  # a long image keeps half of it across
    assert short.levels(shape)[0] == min(most, levels[0])


def test_levels_are_merged_by_size_the_coarser_first(untrained: Detector) -> None:
    looking = Detector(untrained.network, replace(DetectorSettings(), trusted_side=100.0))
    whole = (
        _found(10, 10, 40, 0.95),  # small and alone: kept
        _found(300, 20, 90, 0.8),  # a part of the large face: dropped
        _found(260, 10, 300, 0.99),  # too large for this level
        _found(20, 300, 105, 0.85),  # both levels may see it: the coarser one's is kept
    )
    halved = (
        _found(270, 15, 200, 0.9),  # the large face
        _found(22, 302, 104, 0.7),
        _found(500, 500, 30, 0.9),  # too small for this level
    )
    merged = merged_levels((640, 640, 3), [640, 320], [whole, halved], looking.settings)
    assert [face.score for face in merged] == [0.95, 0.9, 0.7]
    assert merged[1] is halved[0] and merged[2] is halved[1]


def test_a_score_out_of_range_is_refused(untrained: Detector) -> None:
    with pytest.raises(InputError, match=r"Detector.detect: min_score must be 0…1, got 1.5"):
        untrained.detect([], min_score=1.5)


# Faces


def _assert_same(found: tuple[Detection, ...], expected: tuple[Detection, ...]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=SAME_PLACE)
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=SAME_PLACE)


def _assert_plausible(faces: tuple[Detection, ...], least: float) -> None:
    """One clear face in the middle of an LFW photograph, landmarks where a face has them."""
    face = faces[0]
    left, top, right, bottom = face.box
    assert face.score > least
    assert left < 125 < right and top < 125 < bottom and 60 < right - left < 130
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_the_teacher_finds_the_faces(teacher: Detector, portraits: list[NDArray[np.uint8]]) -> None:
    for faces in teacher.detect(portraits):
        _assert_plausible(faces, least=0.99)


def test_threads_share_a_detector(teacher: Detector, portraits: list[NDArray[np.uint8]]) -> None:
    expected = teacher.detect(portraits)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(teacher.detect, [portraits] * 8):
            for one, other in zip(found, expected, strict=True):
                _assert_same(one, other)


def test_a_large_photograph_gives_its_own_coordinates(
    teacher: Detector, portraits: list[NDArray[np.uint8]]
) -> None:
    (small,) = teacher.detect(portraits[:1])
    enlarged = np.asarray(Image.fromarray(portraits[0]).resize((1000, 750)))
    limited = Detector(teacher.network, replace(teacher.settings, max_side=250))
    (large,) = limited.detect([enlarged])
    # The same face after two resizes, a quarter flatter in between: the network reads it a
    # little differently.
    side = small[0].box[2] - small[0].box[0]
    np.testing.assert_allclose(np.array(large[0].box) / [4, 3, 4, 3], small[0].box, atol=side / 5)
    np.testing.assert_allclose(large[0].landmarks / [4, 3], small[0].landmarks, atol=side / 10)


@pytest.fixture(scope="module")
def packaged() -> Detector:
    if not PACKAGED.exists():
        pytest.skip(f"needs the trained weights {PACKAGED}")
    return Detector.load(PACKAGED)


def test_faces_are_found_in_tiny_pictures(
    packaged: Detector, portraits: list[NDArray[np.uint8]]
) -> None:
    """Portraits of 28 pixels, with faces of some 12: where they are in the large ones."""
    tiny = [np.asarray(Image.fromarray(each).resize((28, 28))).copy() for each in portraits]
    for (small,), (large, *_) in zip(
        packaged.detect(tiny), packaged.detect(portraits), strict=True
    ):
        np.testing.assert_allclose(small.box, np.array(large.box) * 28 / 250, atol=1.5)
        np.testing.assert_allclose(small.landmarks, large.landmarks * 28 / 250, atol=1)
    as_they_are = replace(packaged.settings, least_side=0)
    never = Detector(packaged.network, as_they_are)
    assert sum(map(len, never.detect(tiny))) < 3


def test_min_face_leaves_small_faces_out_and_large_ones_in(
    packaged: Detector, astronaut: Path
) -> None:
    """Two faces, of about 110 and of 14 pixels."""
    with Image.open(astronaut) as picture:
        portrait = picture.convert("RGB").crop((100, 0, 350, 250))
    canvas = Image.new("RGB", (640, 480), (96, 104, 112))
    canvas.paste(portrait, (20, 20))
    canvas.paste(portrait.resize((34, 34), Image.Resampling.BICUBIC), (500, 300))
    image = np.asarray(canvas)
    (both,) = packaged.detect([image], min_score=0.3)
    sides = sorted(min(f.box[2] - f.box[0], f.box[3] - f.box[1]) for f in both)
    assert len(both) == 2 and sides[0] < 20 and sides[1] > 80
    ((large,),) = packaged.detect([image], min_score=0.3, min_face=60)
    assert large.box[2] < 300
    np.testing.assert_allclose(large.box, both[0].box, atol=12)
    with pytest.raises(InputError, match=r"Detector.detect: min_face must be pixels of at least"):
        packaged.detect([image], min_face=0)


def test_the_packaged_weights_are_ours_and_say_so() -> None:
    if not PACKAGED.exists():
        pytest.skip(f"needs the trained weights {PACKAGED}")
    state, metadata = weights.read(PACKAGED)
    assert metadata["kind"] == "detector" and metadata["architecture"] == MOBILENET
    assert metadata["licence"] and metadata["provenance"]
    scores = metadata["scores"]["held_out"]
    assert scores["recall"] >= 0.98 and scores["false_faces"] <= 0.02
    assert metadata["scores"]["held_out_small_faces"]["recall"] >= 0.9
    assert PACKAGED.stat().st_size < 2_000_000
    assert {value.dtype for value in state.values() if value.dim() > 1} == {torch.float16}


@pytest.mark.xfail(reason="6.5 %; the teacher differs from itself by 5 % at a slightly other size")
def test_the_packaged_weights_place_landmarks_within_4_percent_of_the_eye_distance() -> None:
    if not PACKAGED.exists():
        pytest.skip(f"needs the trained weights {PACKAGED}")
    _, metadata = weights.read(PACKAGED)
    assert metadata["scores"]["held_out"]["landmark_error"] <= 0.04


def test_the_packaged_weights_find_the_faces(
    packaged: Detector, portraits: list[NDArray[np.uint8]]
) -> None:
    for faces in packaged.detect(portraits):
        _assert_plausible(faces, least=0.8)


def test_the_packaged_weights_find_turned_grey_small_and_large_faces(
    packaged: Detector, portraits: list[NDArray[np.uint8]]
) -> None:
    image = Image.fromarray(portraits[0])
    variants = [image.rotate(30), image.rotate(-30), image.convert("L").convert("RGB")]
    variants += [image.resize((70, 70)), image.resize((600, 600)), image.resize((1500, 1500))]
    for faces in packaged.detect([np.asarray(variant) for variant in variants]):
        assert len(faces) == 1 and faces[0].score > 0.7


def test_the_packaged_weights_see_no_face_in_none(packaged: Detector) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (200, 300, 3), np.uint8)
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 256, 3))
    assert packaged.detect([noise, np.array(ramp), np.full((64, 64, 3), 127, np.uint8)]) == [()] * 3


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept by glibc's ways")
def test_memory_is_used_again() -> None:
    """By one photograph after the other, alone and in lists: else some 2,000 pages are new."""
    script = """
import numpy as np, resource, torch
from pcnn.faces.detector import Detector
torch.set_num_threads(1)
detector = Detector.load("mobilenet")
image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
for images in ([image], [image] * 8):
    for _ in range(3):
        detector.detect(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        detector.detect(images)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // (4 * len(images)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(int(faults) < 600 for faults in run.stdout.split()), run.stdout
