"""PyTorch's global settings, whatever they are, change no answer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import write_kind
from numpy.typing import NDArray

from pcnn import Recognizer
from pcnn.datasets.labels import FaceSet
from pcnn.devices import own_settings
from pcnn.embeddings.heads import Head
from pcnn.engines.export import export, open_file
from pcnn.engines.export_graphs import FaceGraph, ImageGraph
from pcnn.evaluation.evaluate import evaluate
from pcnn.faces.detector import Detector
from pcnn.networks.saliency import saliency_maps
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions
from pcnn.weights.expression import load_expression


@contextlib.contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def meta() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def bfloat16() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@contextlib.contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@contextlib.contextmanager
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@contextlib.contextmanager
def everything() -> Iterator[None]:
    with float64(), bfloat16(), meta():
        yield


SETTINGS = (float64, meta, bfloat16, inference, no_gradients, everything)


@pytest.fixture(params=SETTINGS, ids=lambda setting: setting.__name__)
def setting(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for kind in ("pcnn", "trunk", "mobile"):
        write_kind(kind, folder / f"{kind}.safetensors")
    return folder


def same(found: Any, expected: Any) -> None:
    """Both alike to the last bit, in kind, too."""
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.device == expected.device
        assert torch.equal(found, expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            same(found[name], expected[name])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == expected


def unchanged(make: Callable[[], Any], setting: Callable[[], Any]) -> None:
    """What is made under a setting is what is made without, and the setting outlives it."""
    expected = make()
    with setting():
        before = (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_autocast_enabled("cpu"),
        )
        found = make()
        after = (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_autocast_enabled("cpu"),
        )
    assert before == after
    same(found, expected)


def pipeline(astronaut: Path, **options: Any) -> list[Any]:
    recognizer = Recognizer(device="cpu", batch_size=2, **options)
    found = [recognizer.predict(astronaut), *recognizer.predict([astronaut] * 5)]
    found += recognizer.predict(iter([astronaut] * 5))
    answers = [each.to_dict() for each in found]
    crop = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    return [answers, recognizer.embed(astronaut), recognizer.predict_crops(crop).to_dict()]


def test_the_pipeline(astronaut: Path) -> None:
    unchanged(lambda: pipeline(astronaut), everything)


def test_the_small_weights(setting: Callable[[], Any], astronaut: Path) -> None:
    unchanged(lambda: pipeline(astronaut, weights="small"), setting)


@pytest.mark.parametrize("kind", ["pcnn", "mobile"])
def test_other_networks(astronaut: Path, files: Path, kind: str) -> None:
    unchanged(lambda: pipeline(astronaut, weights=files / f"{kind}.safetensors"), everything)


def test_made_and_used_under_different_settings(
    setting: Callable[[], Any], astronaut: Path, files: Path
) -> None:
    made = Recognizer(files / "pcnn.safetensors", device="cpu")
    unchanged(lambda: [each.to_dict() for each in made.predict([astronaut] * 9)], setting)
    with setting():
        again = Recognizer(files / "pcnn.safetensors", device="cpu")
    same(again.predict(astronaut).to_dict(), made.predict(astronaut).to_dict())


def test_explanations(setting: Callable[[], Any], astronaut: Path, files: Path) -> None:
    def explain() -> list[Any]:
        recognizer = Recognizer(files / "pcnn.safetensors", device="cpu")
        (explained,) = recognizer.explain(astronaut)
        return [explained.heat, explained.without, explained.label, explained.picture]

    unchanged(explain, setting)


def _faces() -> FaceSet:
    faces = (torch.arange(16 * 32 * 32) * 7).remainder(251).view(16, 32, 32).to(torch.uint8)
    votes = torch.eye(2, dtype=torch.float32).repeat(8, 1)
    return FaceSet(faces, votes, tuple(map(str, range(16))), ("a", "b"))


@pytest.mark.train
@pytest.mark.parametrize("network", ["pcnn", "trunk"])
@pytest.mark.parametrize("saliency", [None, "spectral_residual"])
def test_training_steps(
    setting: Callable[[], Any], network: str, saliency: str | None, tmp_path: Path
) -> None:
    data = _faces()
    options = ExpressionOptions(network, "x", "x", size=32, width=4, batch=8, saliency=saliency)

    def train() -> list[Any]:
        training = ExpressionTraining(options, data)
        losses = [training.advance() for _ in range(3)]
        training.save(tmp_path / "x.checkpoint.pt")
        again = ExpressionTraining(options, data, checkpoint=tmp_path / "x.checkpoint.pt")
        losses.append(again.advance())
        moments = again.optimizer.state_dict()["state"].values()
        # PyTorch counts steps in the default kind of number.
        counts = [float(own.pop("step")) for own in map(dict, moments)]
        averages = [{name: own[name] for name in own if name != "step"} for own in moments]
        return [losses, again.result().state_dict(), counts, averages]

    unchanged(train, setting)


@pytest.mark.engines
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
def test_export(form: str, files: Path, tmp_path: Path) -> None:
    samples = (torch.arange(4 * 32 * 32) * 7).remainder(251).view(4, 1, 32, 32).to(torch.uint8)
    suffix = {"torch-export": ".pt2", "onnx": ".onnx"}[form]

    def write() -> dict[str, NDArray[np.float32]]:
        graph = FaceGraph(load_expression(files / "pcnn.safetensors"))
        export(graph, tmp_path / f"x{suffix}", kind=form, samples=samples)
        answered = open_file(tmp_path / f"x{suffix}", form)({graph.inputs[0]: samples.numpy()})
        assert all(values.dtype == np.float32 for values in answered.values())
        return {name: np.array(values) for name, values in answered.items()}

    unchanged(write, everything)


@pytest.mark.engines
def test_exported_detectors(tmp_path: Path) -> None:
    samples = (torch.arange(1 * 3 * 64 * 64) * 7).remainder(251).view(1, 3, 64, 64).to(torch.uint8)

    def write() -> dict[str, NDArray[np.float32]]:
        detector = Detector.load("mobilenet")
        graph = ImageGraph(detector.network, detector.settings, 64, 64)
        export(graph, tmp_path / "x.onnx", kind="onnx", samples=samples)
        return dict(open_file(tmp_path / "x.onnx", "onnx")({graph.inputs[0]: samples.numpy()}))

    unchanged(write, everything)


@pytest.mark.train
def test_evaluation_heads_and_saliency(setting: Callable[[], Any], files: Path) -> None:
    data = _faces()
    data = FaceSet(
        data.faces,
        torch.eye(3, dtype=torch.float32)[torch.arange(16) % 3],
        data.names,
        ("a", "b", "c"),
    )
    pixels = data.faces[:, None].float() / 255
    head = Head(("a", "b"), np.eye(2, 8, dtype=np.float32), np.zeros(2, np.float32), "ab" * 32)
    features = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)

    def answer() -> list[Any]:
        loaded = load_expression(files / "pcnn.safetensors")
        scores = evaluate(loaded, data).to_dict()
        return [scores, head.predict_proba(features), saliency_maps(pixels)]

    unchanged(answer, setting)


def test_other_threads_keep_what_they_chose() -> None:
    """The default kind of number is the process's: it is not changed, not even for a moment."""
    kinds: list[torch.dtype] = []
    with float64(), own_settings():
        other = threading.Thread(target=lambda: kinds.append(torch.ones(1).dtype))
        other.start()
        other.join()
        assert torch.ones(1).dtype == torch.float32
    assert kinds == [torch.float64]


def test_within_the_package_numbers_are_as_ever() -> None:
    single, whole = torch.ones(2, dtype=torch.float32), torch.arange(3)

    def make() -> list[torch.Tensor]:
        return [
            *(torch.zeros(2), torch.tensor([0.1, 0.2]), torch.tensor(3), torch.arange(3.0)),
            *(
                whole / 3,
                whole + 0.5,
                whole.sqrt(),
                single.new_tensor([0.1]),
                torch.full((2,), 0.5),
            ),
            *(torch.full((2,), 1), torch.linspace(0, 1, 7), torch.nn.Linear(2, 3).bias * 0),
            *(torch.tensor(np.array([0.1])), torch.from_numpy(np.array([0.1])), single.double()),
            *(torch.zeros(2, dtype=torch.float64) + 1, single.to(torch.float64).sum()),
            *(torch.as_tensor(np.float64(0.5)), torch.rand(2).dtype == torch.float32, whole > 0.5),
            *(torch.hann_window(4), torch.cat([whole, whole]) * 0.1, single.double().mean()),
        ]  # type: ignore[list-item]

    def settled() -> list[torch.Tensor]:
        with own_settings():
            return make()

    unchanged(settled, float64)
    unchanged(settled, everything)
