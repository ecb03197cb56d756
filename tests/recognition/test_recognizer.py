"""The pipeline: its plumbing on a small random network, its answers on the packaged weights."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import pcnn
from pcnn import InputError, Recognizer, WeightsError, weights
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.resampling import resample
from pcnn.networks.pcnn import FERPLUS_CLASSES, PCNN, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.results.values import Detection, Expression, Prediction

TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]


class Planted:
    """A detector that finds as many faces as the red of the upper left pixel says."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> list[tuple[Detection, ...]]:
        return [
            tuple(self._face(image, i) for i in range(int(image[0, 0, 0]) % 10)) for image in images
        ]

    def _face(self, image: NDArray[np.uint8], number: int) -> Detection:
        side = 20.0 + 10 * number
        points = (np.array(TEMPLATE) * side + number).astype(np.float32)
        return Detection((number, number, number + side, number + side), 0.9, points)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a narrow network of random numbers whose answers differ from face to face."""
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8))
    network.train()
    for _ in range(20):  # settles the batch norms
        network(torch.randn(8, 1, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    metadata = {
        "architecture": "pcnn",
        "config": asdict(network.config),
        "template": TEMPLATE,
        "native_size": 48,
        "temperature": 0.5,
        "region_temperatures": dict.fromkeys(REGIONS, 1.5),
    }
    weights.write(path, network.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def recognizer(small: Path) -> Recognizer:
    return Recognizer(small, Planted(), "cpu", batch_size=3)


def _picture(faces: int, seed: int = 0, size: int = 80) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size + 7, 3), dtype=np.uint8)
    pixels[0, 0, 0] = faces
    return pixels


def _close(one: Expression, other: Expression) -> None:
    assert one.scores == pytest.approx(dict(other.scores), abs=1e-5)
    for region in REGIONS:
        assert one.regions[region] == pytest.approx(dict(other.regions[region]), abs=1e-5)


def test_the_form_of_a_prediction(recognizer: Recognizer) -> None:
    prediction = recognizer.predict(_picture(2))
    assert isinstance(prediction, Prediction) and len(prediction.faces) == 2
    assert (prediction.width, prediction.height, prediction.source) == (87, 80, None)
    face = prediction.faces[1]
    assert tuple(face.scores) == recognizer.classes == FERPLUS_CLASSES
    assert sum(face.scores.values()) == pytest.approx(1, abs=1e-5)
    assert face.confidence == max(face.scores.values()) == face.scores[face.label]
    assert tuple(face.regions) == REGIONS
    assert sum(face.regions["mouth"].values()) == pytest.approx(1, abs=1e-5)
    assert face.box == (1, 1, 31, 31) and face.landmarks.shape == (5, 2)


def test_a_batch_is_the_same_as_one_by_one(recognizer: Recognizer) -> None:
    """Across batches of 3, with none to 4 faces in a picture."""
    pictures = [
        _picture(faces, seed, size=50 + seed) for seed, faces in enumerate([2, 0, 4, 1, 0, 3, 1])
    ]
    together = recognizer.predict(pictures)
    assert [len(prediction.faces) for prediction in together] == [2, 0, 4, 1, 0, 3, 1]
    for picture, prediction in zip(pictures, together, strict=True):
        for face, alone in zip(prediction.faces, recognizer.predict(picture).faces, strict=True):
            _close(face, alone)
    labels = {face.confidence for prediction in together for face in prediction.faces}
    assert len(labels) == 11  # the faces were told apart


def test_no_pictures(recognizer: Recognizer) -> None:
    assert recognizer.predict([]) == []
    assert recognizer.predict_crops([]) == []


def test_one_bad_picture_does_not_end_a_run(recognizer: Recognizer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    pictures = [_picture(1), bad, _picture(2), tmp_path / "absent.png"]
    found = recognizer.predict(pictures, on_error="return")
    assert [type(result) for result in found] == [Prediction, InputError, Prediction, InputError]
    assert "bad.jpg" in str(found[1]) and "absent.png" in str(found[3])
    with pytest.raises(InputError, match=r"bad\.jpg"):
        recognizer.predict(pictures)
    with pytest.raises(InputError, match="on_error must be 'raise' or 'return', got 'skip'"):
        recognizer.predict(pictures, on_error="skip")
    assert isinstance(recognizer.predict(bad, on_error="return"), InputError)
    crops = recognizer.predict_crops(pictures, on_error="return")
    assert isinstance(crops[0], Expression) and isinstance(crops[1], InputError)


def test_paths_are_kept_as_source(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(_picture(1)).save(path)
    assert recognizer.predict(path).source == str(path)
    assert recognizer.predict([str(path)])[0].source == str(path)


def test_bgr(recognizer: Recognizer) -> None:
    picture = _picture(3)
    swapped = np.ascontiguousarray(picture[:, :, ::-1])
    for one, other in zip(
        recognizer.predict(picture).faces, recognizer.predict(swapped, bgr=True).faces, strict=True
    ):
        _close(one, other)


def test_crops_are_scored_as_in_training(recognizer: Recognizer, small: Path) -> None:
    """48 × 48 grey faces through the pipeline = the same through evaluate.predict_logits."""
    faces = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (5, 48, 48), np.uint8))
    loaded = weights.load_expression(small)
    logits, regions = predict_logits(loaded.network, faces)
    for i, crop in enumerate(recognizer.predict_crops([face.numpy() for face in faces])):
        expected = (logits[i] / 0.5).softmax(0).tolist()
        assert list(crop.scores.values()) == pytest.approx(expected, abs=2e-5)
        expected = (regions["mouth"][i] / 1.5).softmax(0).tolist()
        assert list(crop.regions["mouth"].values()) == pytest.approx(expected, abs=2e-5)


def test_a_face_in_a_photograph_is_scored_like_its_crop(recognizer: Recognizer) -> None:
    """A 48-pixel face whose landmarks lie on the template, planted in a larger picture."""

    class At(Planted):
        def _face(self, image: NDArray[np.uint8], number: int) -> Detection:
            points = (np.array(TEMPLATE) * 48 + (100, 60)).astype(np.float32)
            return Detection((100, 60, 148, 108), 0.9, points)

    face = resample(torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(2)), 48)
    pixels = (face[0, 0] * 255).to(torch.uint8).numpy()
    # The crop reads its edge pixels beyond its edge, so the picture goes on with them.
    picture = np.pad(pixels, ((60, 52), (100, 52)), mode="edge")
    picture[0, 0] = 1
    other = Recognizer(recognizer._weights.path, At(), "cpu")
    _close(other.predict(picture).faces[0], recognizer.predict_crops(pixels))


def test_threads_do_not_disturb_each_other(recognizer: Recognizer) -> None:
    pictures = [_picture(2, seed) for seed in range(8)]
    expected = [recognizer.predict(picture) for picture in pictures]
    found: list[list[Prediction]] = [[] for _ in range(4)]

    def work(slot: int) -> None:
        found[slot] = [recognizer.predict(picture) for picture in pictures]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for predictions in found:
        for prediction, wanted in zip(predictions, expected, strict=True):
            for one, other in zip(prediction.faces, wanted.faces, strict=True):
                _close(one, other)


def test_modules_that_the_documentation_names_are_there_at_once(tmp_path: Path) -> None:
    program = "import pcnn; pcnn.weights.load_upstream; pcnn.ops.crop_regions"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_what_cannot_be_constructed(small: Path) -> None:
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        Recognizer(small, Planted(), batch_size=0)
    with pytest.raises(InputError, match=r"device 'abacus' cannot be used \(expected auto, cpu, c"):
        Recognizer(small, Planted(), "abacus")
    with pytest.raises(WeightsError, match="nonsense: no such weights file"):
        Recognizer("nonsense", Planted())
    with pytest.raises(WeightsError, match="holds weights of kind detector, expected expres"):
        Recognizer("resnet50", Planted())
    with pytest.raises(InputError, match=r"detector must be a name, a path or an object .* got 5$"):
        Recognizer(small, detector=5)  # type: ignore[arg-type]


def test_info_names_what_is_used(recognizer: Recognizer, small: Path) -> None:
    info = dict(recognizer.info())
    assert info["device"] == "cpu" and info["weights"] == str(small)
    assert info["weights sha256"] == weights.sha256(small)
    assert any(name.startswith("op ") for name in info)


def test_the_precision_is_that_of_the_detector_too(small: Path, astronaut: Path) -> None:
    plain, rounded = (
        Recognizer(small, precision=precision).predict(astronaut).faces[0].box
        for precision in ("float32", "bfloat16")
    )
    assert plain != rounded and plain == pytest.approx(rounded, abs=1)  # pixels


def test_public_names() -> None:
    assert sorted(pcnn.__all__) == sorted(
        [
            *("Detection", "Explanation", "Expression", "Face", "InputError", "NativeError"),
            *("Prediction", "Recognizer", "WeightsError", "__version__", "load_image"),
            *("from_pretrained", "push_to_hub", "to_arrow", "to_pandas"),
        ]
    )
    for name in pcnn.__all__:
        assert getattr(pcnn, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Recogniser'"):
        _ = pcnn.Recogniser
    assert "Recognizer" in dir(pcnn)


def test_more_cut_out_faces_than_photographs_go_in_a_pass(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is the commands' own; a number that is given counts for both."""
    pixels = np.full((40, 40, 3), 90, np.uint8)
    for chosen, expected in ((None, [64, 6]), (50, [50, 20])):
        recognizer = Recognizer(small, Planted(), "cpu", batch_size=chosen)
        passes: list[int] = []
        expressions = recognizer.reader.expressions

        def counted(pictures: Any, *rest: Any, read: Any = expressions, to: Any = passes) -> Any:
            to.append(len(pictures))
            return read(pictures, *rest)

        monkeypatch.setattr(recognizer.reader, "expressions", counted)
        recognizer.predict_crops([pixels] * 70)
        assert passes == expected
        assert recognizer.batch_size == (chosen or 8)
