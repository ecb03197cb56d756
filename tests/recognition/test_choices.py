"""Options of the wrong kind, which are refused by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcnn import InputError, Recognizer
from pcnn.embeddings import Head, ValueHead
from pcnn.faces.detector import Detector

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
    with pytest.raises(InputError, match=r"Detector\.detect: min_score must be 0…1, got"):
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


def test_numbers_of_numpy_are_numbers() -> None:
    kinds: dict[str, Any] = {"batch_size": np.int64(4), "min_confidence": np.float32(0.5)}
    found = Recognizer("small", device="cpu", min_face=np.int32(40), **kinds)
    assert found.batch_size == 4
