"""Options of the wrong kind, which are refused by their names."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcnn import Detection, InputError, Recognizer, WeightsError
from pcnn.embeddings import Head, ValueHead
from pcnn.faces.detector import Detector
from pcnn.recognition.choices import checksums, movement_weights
from pcnn.weights.files import locate

NO_NUMBERS = ["a", "0.5", None, float("nan"), np.float32("nan"), True, [0.5], np.ones(2)]
PIXELS = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer("small", device="cpu")


@pytest.mark.parametrize("wrong", [*NO_NUMBERS, -0.1, 1.5, float("inf")], ids=repr)
@pytest.mark.parametrize("name", ["min_confidence", "min_quality"])
def test_shares(name: str, wrong: Any) -> None:
    with pytest.raises(InputError) as error:
        Recognizer("small", device="cpu", **{name: wrong})
    assert str(error.value) == f"Recognizer: {name} must lie in 0…1, got {wrong!r}"


@pytest.mark.parametrize(
    "wrong", [*(each for each in NO_NUMBERS if each is not None), 2.5, 8.0], ids=repr
)
def test_the_batch_size(wrong: Any) -> None:
    with pytest.raises(InputError, match="Recognizer: batch_size must be a whole number, got "):
        Recognizer("small", device="cpu", batch_size=wrong)


@pytest.mark.parametrize("wrong", [each for each in NO_NUMBERS if each is not None], ids=repr)
def test_the_least_face_and_score(wrong: Any, recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match="Recognizer: min_face must be pixels of at least 1, got"):
        Recognizer("small", device="cpu", min_face=wrong)
    with pytest.raises(InputError, match=r"^Recognizer: min_score must be 0…1, got"):
        recognizer.predict(PIXELS, min_score=wrong)
    detector = Detector.load("mobilenet")
    with pytest.raises(InputError, match=r"Detector\.detect: min_face must be pixels of at"):
        detector.detect([PIXELS], min_face=wrong)


@pytest.mark.parametrize("wrong", [each for each in NO_NUMBERS if each is not None], ids=repr)
@pytest.mark.parametrize("name", ["every", "start", "end", "smoothing", "min_score"])
def test_numbers_of_films(name: str, wrong: Any, recognizer: Recognizer) -> None:
    pytest.importorskip("av")
    with pytest.raises(InputError, match=f"Recognizer.predict_video: {name} must be "):
        recognizer.predict_video("missing.mp4", **{name: wrong})


def test_a_search_of_films_needs_a_number(recognizer: Recognizer) -> None:
    for wrong in NO_NUMBERS:
        with pytest.raises(InputError, match="search_every must be seconds of at least 0, got"):
            recognizer.predict_video("missing.mp4", search_every=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": 5}, "weights must be a name or the path of a file, got 5"),
        ({"movements": 5}, "weights must be a name or the path of a file, got 5"),
        ({"head": 5}, "Recognizer: head must be a Head, a ValueHead or a file, got 5"),
        ({"head": True}, "Recognizer: head must be a Head, a ValueHead or a file, got True"),
        ({"labels": ["fer2013"]}, r"labels \['fer2013'\]: .* has second labels: "),
        ({"labels": 5}, "labels 5: .* has second labels: "),
        ({"device": None}, "Recognizer: device 'None' cannot be used"),
        ({"device": 2.5}, "Recognizer: device '2.5' cannot be used"),
    ],
)
def test_names_and_paths(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recognizer(**{"weights": "small", "device": "cpu", **options})


@pytest.mark.parametrize("kind", [Head, ValueHead])
@pytest.mark.parametrize("aligned", [True, False])
def test_faces_are_read_as_the_heads_examples_were(
    aligned: bool, kind: Any, recognizer: Recognizer, tmp_path: Path
) -> None:
    """An explicit `align_crops` wins; a head that does not say leaves it to the weights."""
    matrix = np.zeros((2, recognizer.embedding_size), np.float32)
    parts = (("a", "b"), matrix, np.zeros(2, np.float32), recognizer.weights_sha256)
    kind(*parts, align_crops=aligned).save(tmp_path / "mine.safetensors")
    for head in (kind(*parts, align_crops=aligned), tmp_path / "mine.safetensors"):
        assert Recognizer(device="cpu", head=head).finder.align_crops is aligned
        other = Recognizer(device="cpu", head=head, align_crops=not aligned)
        assert other.finder.align_crops is not aligned
    usual = recognizer.finder.align_crops
    assert Recognizer(device="cpu", head=kind(*parts)).finder.align_crops is usual


def test_a_detectors_device() -> None:
    for wrong in ("abacus", None, 2.5):
        with pytest.raises(InputError, match=f"Detector: device '{wrong}' cannot be used"):
            Detector.load("mobilenet", device=wrong)  # type: ignore[arg-type]


class Blind:
    """A detector of one's own, which sees nothing."""

    def detect(self, images: Any, *, min_score: float | None = None) -> list[tuple[()]]:
        return [() for _ in images]


def test_the_least_score_is_checked_for_a_detector_of_ones_own() -> None:
    recognizer = Recognizer("small", Blind(), "cpu")
    assert recognizer.predict(PIXELS, min_score=1).faces == ()
    for wrong in (7, -0.1, "a"):
        with pytest.raises(InputError, match=f"^Recognizer: min_score must be 0…1, got {wrong!r}"):
            recognizer.predict(PIXELS, min_score=wrong)  # type: ignore[call-overload]


@dataclass
class Finding:
    """A detector that gives the same face for each picture."""

    face: Any

    def detect(self, images: Sequence[Any], *, min_score: float | None = None) -> list[list[Any]]:
        del min_score
        return [[self.face] for _ in images]


LANDMARKS = np.array([[20, 20], [40, 20], [30, 30], [22, 42], [38, 42]], np.float32)


def test_landmarks_of_a_detector_of_ones_own_may_be_lists() -> None:
    face = Detection((10, 10, 50, 50), 0.9, LANDMARKS.tolist())  # type: ignore[arg-type]
    (found,) = Recognizer("small", Finding(face), "cpu").predict(PIXELS).faces
    assert found.to_dict()["landmarks"] == LANDMARKS.tolist()


@pytest.mark.parametrize(
    ("face", "message"),
    [
        (object(), "must give Detections: 'object' object has no attribute 'box'"),
        (Detection((10, 10, 50, np.nan), 0.9, LANDMARKS), r"box must be \(4,\) and finite"),
        (Detection((50, 10, 10, 50), 0.9, LANDMARKS), "box must be x1, y1, x2, y2 in order"),
        (Detection((10, 10, 50, 50), 2.0, LANDMARKS), r"score must be 0…1, got 2\.0"),
        (Detection((10, 10, 50, 50), 0.9, LANDMARKS[:4]), r"landmarks must be \(5, 2\) and"),
        (Detection((10, 10, 50, 50), 0.9, LANDMARKS * np.inf), r"landmarks must be \(5, 2\) and"),
    ],
)
def test_what_a_detector_of_ones_own_gives_is_checked(face: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recognizer("small", Finding(face), "cpu").predict(PIXELS)


def test_a_detector_gives_an_answer_for_each_image() -> None:
    detector = Finding(None)
    detector.detect = lambda images, min_score=None: []  # type: ignore[method-assign]
    with pytest.raises(InputError, match="must give the faces of 1 images, got 0"):
        Recognizer("small", detector, "cpu").predict(PIXELS)


def test_a_loaded_detector_is_used_as_it_is() -> None:
    detector = Detector.load("mobilenet")
    assert Recognizer("small", detector, "cpu").finder._detector is detector


@pytest.mark.parametrize("argument", ["weights", "detector", "movements"])
def test_an_empty_name_is_not_the_default(argument: str) -> None:
    with pytest.raises(WeightsError, match="no such weights file or known name"):
        Recognizer(**{"weights": "small", argument: ""})
    with pytest.raises(WeightsError, match="no such weights file or known name"):
        checksums({"weights": "small", argument: ""})


def test_switches_take_truth_values_of_numpy_and_no_others() -> None:
    assert Recognizer("small", None, "cpu", movements=np.True_).movements  # type: ignore[arg-type]
    with pytest.raises(InputError, match="align_crops must be True, False or None, got 'no'"):
        Recognizer("small", None, "cpu", align_crops="no")  # type: ignore[arg-type]


def test_numbers_beyond_floats_are_none() -> None:
    with pytest.raises(InputError, match="min_face must be pixels of at least 1"):
        Recognizer("small", None, "cpu", min_face=10**400)


@pytest.mark.parametrize(
    ("labels", "movements", "message"),
    [
        (("raw_b", "b"), False, "the head's class 'raw_b' is also a column of films"),
        (("mesh", "b"), True, "the head's class 'mesh' is also a column of movements"),
        (("uncertain", "b"), False, "'uncertain' is also a label of faces that are too uncertain"),
    ],
)
def test_labels_of_heads_are_no_other_columns(
    labels: tuple[str, str], movements: bool, message: str
) -> None:
    recognizer = Recognizer("small", None, "cpu")
    vectors = np.random.default_rng(0).standard_normal((40, recognizer.embedding_size))
    head = Head.fit(vectors, list(labels) * 20, weights=recognizer.weights_sha256, method="means")
    with pytest.raises(InputError, match=message):
        Recognizer("small", None, "cpu", head=head, movements=movements)


def test_copies_know_their_files_in_another_folder_and_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer("small", None, "cpu")
    random = np.random.default_rng(0)
    for name in ("first", "second"):
        vectors = random.standard_normal((40, recognizer.embedding_size))
        head = Head.fit(vectors, ["a", "b"] * 20, weights=recognizer.weights_sha256, method="means")
        head.save(tmp_path / f"{name}.safetensors")
    shutil.copyfile(locate("small"), tmp_path / "own.safetensors")
    monkeypatch.chdir(tmp_path)
    with_head = Recognizer("own.safetensors", None, "cpu", head="first.safetensors")
    before = with_head.predict_crops(PIXELS).scores
    (tmp_path / "second.safetensors").rename("first.safetensors")
    monkeypatch.chdir("/")
    assert copy.deepcopy(with_head).predict_crops(PIXELS).scores == before
    assert pickle.loads(pickle.dumps(with_head)).predict_crops(PIXELS).scores == before


def test_movement_weights_are_chosen_in_one_place() -> None:
    for asked in (False, None):
        assert movement_weights(asked) is None
    assert movement_weights(True) == "movements"
    assert movement_weights(Path("mine.safetensors")) == Path("mine.safetensors")
    without, packaged = checksums({"weights": "small"}), checksums({"movements": True})
    assert "movements" not in without
    assert packaged["movements"] == checksums({"movements": "movements"})["movements"]


def test_numbers_of_numpy_are_numbers() -> None:
    kinds: dict[str, Any] = {"batch_size": np.int64(4), "min_confidence": np.float32(0.5)}
    found = Recognizer("small", device="cpu", min_face=np.int32(40), **kinds)
    assert found.batch_size == 4
