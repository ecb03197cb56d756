"""Engines and precisions: every one gives torch's answers; what cannot be had is named."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import tolerances
import torch
from torch import Tensor, nn

from pcnn import Recognizer, load_image
from pcnn.engines import cache as graph_cache
from pcnn.engines import select as engines
from pcnn.engines import sessions
from pcnn.engines.cache import write_onnx
from pcnn.engines.classifier import prepare
from pcnn.engines.portable import Graph, ViewsGraph, patterns
from pcnn.engines.select import (
    choose_engine,
    movement,
    prepare_classifier,
    prepare_detector,
    quick_precision,
)
from pcnn.errors import InputError, WeightsError
from pcnn.faces.detector import Detector
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.networks.trunk import initialise
from pcnn.weights.expression import ExpressionWeights, load_expression

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OTHERS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def loaded() -> ExpressionWeights:
    return load_expression("pcnn-ferplus-only")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for all tests of the module, so that each graph is made once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "pcnn" / "engines"


def _small_face_net() -> FaceNet:
    """Weights at random, with norms that do something."""
    torch.manual_seed(0)
    network = FaceNet(ModelConfig(size=48, mean=(0.5,), std=(0.25,), width=8))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval().requires_grad_(False)


def _views(loaded: ExpressionWeights, count: int, portrait: Path) -> list[Tensor]:
    """The portrait's face and patterns, as crop_regions lays them out: channels-last."""
    config = loaded.network.config
    faces = patterns(max(count, 1), config.channels, config.size, config.size)[:count]
    if count:
        grey = torch.from_numpy(load_image(portrait)[60:260, 120:320].copy()).float().mean(2)
        small = nn.functional.interpolate(grey[None, None] / 255, (config.size, config.size))
        faces[0] = (small[0] - config.mean[0]) / config.std[0]
    views = loaded.network.cut(faces)
    return [view.contiguous(memory_format=torch.channels_last) for view in views]


# --- what is chosen, and what cannot be had ---


def test_torch_is_always_there() -> None:
    assert choose_engine("torch", CPU) == choose_engine("torch", CUDA) == "torch"


@pytest.mark.parametrize(
    ("lacking", "timed"),
    [
        ((), ("torch", "onnxruntime", "openvino")),
        (("onnxruntime",), ("torch", "openvino")),
        (("openvino",), ("torch", "onnxruntime")),
        (("onnxscript",), None),
    ],
)
def test_auto_times_what_is_there_and_waits_for_no_compiler(
    lacking: Sequence[str], timed: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(engines: Sequence[str]) -> str:
        asked.append(engines)
        return engines[-1]

    monkeypatch.setattr(sessions, "missing", lambda names: [n for n in names if n in lacking])
    monkeypatch.setattr(engines, "_quickest_engine", answer)
    assert choose_engine("auto", CPU) == ("torch" if timed is None else timed[-1])
    assert asked == ([] if timed is None else [timed])
    assert choose_engine("auto", CUDA) == "torch"


@pytest.mark.parametrize("slow", ["torch", "other"])
def test_the_quickest_engine_is_measured_once(
    slow: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1")
    prepared = []

    class Pass:
        def __init__(self, engine: str) -> None:
            prepared.append(engine)
            self._seconds = 0.01 if engine == slow else 0.0

        def canvas(self, images: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:
            assert images[0].shape == (height, width, 3)
            return images[0]

        def __call__(self, _: torch.Tensor) -> None:
            time.sleep(self._seconds)

    monkeypatch.setattr(engines, "prepare_detector", lambda _, __, engine: Pass(engine))
    quick = {"torch": "other", "other": "torch"}[slow]
    assert engines._quickest_engine(("torch", "other")) == quick
    assert engines._quickest_engine(("torch", "other")) == quick
    assert prepared == ["torch", "other"]
    torch.set_num_threads(2)
    try:
        engines._quickest_engine(("torch", "other"))
    finally:
        torch.set_num_threads(1)
    assert len(prepared) == 4  # other circumstances


@pytest.mark.parametrize(
    ("engine", "device", "message"),
    [
        (
            "tensorrt",
            CPU,
            r"^choose_engine: engine must be auto, torch, compile, .*, got 'tensorrt'",
        ),
        (
            "openvino",
            CUDA,
            r"^choose_engine: engine='openvino' runs on the CPU, not on cuda: use device='cpu'",
        ),
    ],
)
def test_engines_that_cannot_be_had(
    engine: str, device: torch.device, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "missing", lambda _: [])
    with pytest.raises(InputError, match=message):
        choose_engine(engine, device)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("openvino", r"engine='openvino' needs openvino, onnxscript: pip install 'pcnn\[openvino"),
        ("onnxruntime", r"engine='onnxruntime' needs onnxscript: pip install 'pcnn\[onnx\]'"),
    ],
)
def test_a_missing_extra_is_named(
    engine: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    astronaut: Path,
) -> None:
    lacking = ("openvino", "onnxscript")
    monkeypatch.setattr(sessions, "missing", lambda names: [n for n in names if n in lacking])
    with pytest.raises(InputError, match=message):
        Recognizer(device="cpu", engine=engine)
    assert cli.predict([str(astronaut), "--engine", engine]) == 2
    assert capsys.readouterr().err.startswith(f"pcnn-predict: --engine {engine} needs")


def test_missing_names_what_is_not_installed() -> None:
    assert sessions.missing(["torch", "no_such_package", "numpy"]) == ["no_such_package"]


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("torch", "int4", r"must be float32, bfloat16, float16, auto, got 'int4'"),
        ("onnxruntime", "float16", r"'onnxruntime' supports only float32 on the CPU: use"),
        (
            "torch",
            "float16",
            r"='float16' needs a GPU: on a CPU use precision='bfloat16' or",
        ),
        ("onnxruntime", "bfloat16", r"'onnxruntime' supports only float32 on the CPU: use"),
    ],
)
def test_precisions_that_cannot_be_had(
    loaded: ExpressionWeights, engine: str, precision: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare_classifier(loaded, engine, precision)


# --- precision ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", "bfloat16"),
        ("Features\t: fp asimd bf16 i8mm", "bfloat16"),
        ("flags\t\t: fpu avx512f avx512_vnni", None),
    ],
)
def test_instructions_are_those_that_the_processor_tells(
    words: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: words)
    assert quick_precision(CPU) == expected


@pytest.mark.parametrize(("capability", "expected"), [((6, 1), None), ((7, 0), "float16")])
def test_a_gpu_with_matrix_units_is_quick_in_float16(
    capability: tuple[int, int], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert quick_precision(CUDA) == expected


def test_a_system_that_does_not_tell_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert quick_precision(CPU) is None


@pytest.mark.parametrize(
    ("quick", "moved", "chosen"),
    [
        (None, 0.0, "float32"),
        ("bfloat16", engines.MOST_MOVED, "bfloat16"),
        ("bfloat16", 2 * engines.MOST_MOVED, "float32"),
        ("float16", float("nan"), "float32"),
    ],
)
def test_auto_takes_fewer_bits_where_they_are_quick_and_good(
    loaded: ExpressionWeights,
    quick: str | None,
    moved: float,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "quick_precision", lambda _: quick)
    monkeypatch.setattr(engines, "movement", lambda *_: moved)
    monkeypatch.setattr(engines, "remembered", lambda choice, options, *_: options[-1])
    _, described = prepare_classifier(loaded, "torch", "auto")
    assert described == f"torch {torch.__version__}, {chosen}, 1 thread"


@pytest.mark.parametrize("kept", [None, "float32", "bfloat16", "float8", "{"])
def test_auto_remembers_the_quicker_precision(
    loaded: ExpressionWeights, kept: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "quick_precision", lambda _: "bfloat16")
    monkeypatch.setattr(engines, "movement", lambda *_: 0.0)
    timed = []

    def time_both(calls: Mapping[str, Callable[[], object]]) -> str:
        for call in calls.values():
            call()
        timed.append(list(calls))
        return "bfloat16"

    monkeypatch.setattr(engines, "quickest", time_both)
    prepare_classifier(loaded, "torch", "auto")
    (file,) = (tmp_path / "pcnn" / "engines").iterdir()
    assert timed == [["float32", "bfloat16"]] and json.loads(file.read_text()) == "bfloat16"
    file.unlink() if kept is None else file.write_text(kept if kept == "{" else json.dumps(kept))
    _, described = prepare_classifier(loaded, "torch", "auto")
    expected = "float32" if kept == "float32" else "bfloat16"
    assert f", {expected}, " in described
    assert len(timed) == (1 if kept in ("float32", "bfloat16") else 2)


def test_bfloat16_moves_probabilities_a_little(loaded: ExpressionWeights, astronaut: Path) -> None:
    prepared, described = prepare_classifier(loaded, "torch", "bfloat16")
    assert ", bfloat16," in described
    assert 1e-4 < movement(loaded, prepared) < tolerances.BFLOAT16
    views = _views(loaded, 2, astronaut)
    logits, regions = prepared.forward_views(views)
    assert logits.dtype == regions["mouth"].dtype == prepared.embed_views(views).dtype
    assert logits.dtype == torch.float32
    assert movement(loaded, prepare(loaded.network)) < 1e-5
    halved = movement(loaded, prepare(loaded.network, torch.float16))
    assert 1e-5 < halved < tolerances.BFLOAT16 / 4


def test_a_recognizer_tells_its_engine_and_precision() -> None:
    recognizer = Recognizer(device="cpu", precision="bfloat16")
    assert ("engine", f"torch {torch.__version__}, bfloat16, 1 thread") in recognizer.info()


# --- the other engines ---


@pytest.mark.engines
@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("count", [1, 3, 0, 65])
def test_classifiers_answer_as_torch_does(
    loaded: ExpressionWeights, engine: str, count: int, cache: Path, astronaut: Path
) -> None:
    views = _views(loaded, count, astronaut)
    prepared, _ = prepare_classifier(loaded, engine)
    logits, regions = prepared.forward_views(views)
    expected, own = prepare(loaded.network).forward_views(views)
    torch.testing.assert_close(logits, expected, **tolerances.ENGINE)
    assert list(regions) == list(REGIONS)
    for name in REGIONS:
        torch.testing.assert_close(regions[name], own[name], **tolerances.ENGINE)
    vectors = prepared.embed_views(views)
    wanted = prepare(loaded.network).embed_views(views)
    torch.testing.assert_close(vectors, wanted, **tolerances.ENGINE)


@pytest.mark.engines
@pytest.mark.parametrize("engine", OTHERS)
def test_mobilenet_answers_as_torch_does(
    loaded: ExpressionWeights, engine: str, cache: Path
) -> None:
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=48, mean=(0.5,), std=(0.25,), width=4, backbone="mobilenet"))
    initialise(network)
    network.eval().requires_grad_(False)
    other = replace(loaded, network=network)
    views = network.cut(patterns(3, 1, 48, 48))
    prepared, _ = prepare_classifier(other, engine)
    logits, regions = prepared.forward_views(views)
    expected, own = prepare(network).forward_views(views)
    assert expected.std() > 0
    torch.testing.assert_close(logits, expected, **tolerances.ENGINE)
    for name in REGIONS:
        torch.testing.assert_close(regions[name], own[name], **tolerances.ENGINE)


@pytest.mark.engines
@pytest.mark.parametrize("engine", OTHERS)
def test_a_face_net_has_no_regions(loaded: ExpressionWeights, engine: str, cache: Path) -> None:
    small = replace(loaded, network=_small_face_net(), region_temperatures={})
    faces = patterns(3, 1, 48, 48)
    prepared, _ = prepare_classifier(small, engine)
    logits, regions = prepared.forward_views([faces, faces])  # of more views it takes the first
    torch.testing.assert_close(logits, small.network(faces), **tolerances.ENGINE)
    assert regions == {}


@pytest.mark.engines
@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("size", [(224, 320), (96, 64), (32, 32)])
def test_detectors_predict_as_torch_does(engine: str, size: tuple[int, int], cache: Path) -> None:
    detector = Detector.load("mobilenet")
    ours = prepare_detector(detector.network, detector.settings)
    theirs = prepare_detector(detector.network, detector.settings, engine)
    generator = torch.Generator().manual_seed(0)
    shapes = ((size[0] - 17, size[1] - 5, 3), (*size, 3))
    images = [torch.randint(0, 256, s, dtype=torch.uint8, generator=generator) for s in shapes]
    for fine in (True, False):
        expected = ours(ours.canvas(images, *size), fine=fine)
        found = theirs(theirs.canvas(images, *size), fine=fine)
        torch.testing.assert_close(found, expected, **tolerances.ENGINE)


@pytest.mark.engines
@pytest.mark.parametrize("engine", OTHERS)
def test_a_recognizer_answers_as_with_torch(engine: str, cache: Path, astronaut: Path) -> None:
    """From several threads at once, each with the answers to its own pictures."""
    recognizer, plain = Recognizer(device="cpu", engine=engine), Recognizer(device="cpu")
    assert dict(recognizer.info())["engine"].startswith(f"{engine} ")
    pictures = [load_image(astronaut), load_image(astronaut)[:, ::-1]]
    found: dict[int, list[Any]] = {}

    def work(index: int) -> None:
        found[index] = [recognizer.predict(pictures[index]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, picture in enumerate(pictures):
        expected = plain.predict(picture).faces[0]
        for prediction in found[index]:
            (face,) = prediction.faces
            assert face.scores == pytest.approx(expected.scores, abs=1e-4)
            assert face.regions["mouth"] == pytest.approx(expected.regions["mouth"], abs=1e-4)
            np.testing.assert_allclose(face.box, expected.box, atol=0.01)
    vectors = recognizer.embed(pictures)
    np.testing.assert_allclose(vectors[0], plain.embed(pictures[0]), atol=1e-5)


@pytest.mark.engines
def test_engines_have_as_many_threads_as_torch(loaded: ExpressionWeights, cache: Path) -> None:
    assert torch.get_num_threads() == 1
    for engine in ("openvino", "onnxruntime"):
        prepared, _ = prepare_classifier(loaded, engine)
        assert prepared._answer._session.threads == 1


@pytest.mark.engines
def test_graphs_are_made_once(
    loaded: ExpressionWeights, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_classifier(loaded, "onnxruntime")
    assert not list(cache.glob("part-*"))

    def fail(_: Graph) -> bytes:
        raise AssertionError("made again")

    monkeypatch.setattr(Graph, "onnx", fail)
    prepare_classifier(loaded, "onnxruntime")
    prepare_classifier(loaded, "openvino")
    other = load_expression("pcnn-ferplus-only")
    other.network.expression_head.bias += 1
    with pytest.raises(AssertionError, match="made again"):
        prepare_classifier(other, "onnxruntime")


@pytest.mark.engines
@pytest.mark.parametrize("engine", OTHERS)
def test_a_damaged_graph_is_named(
    engine: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Graph, "onnx", lambda _: b"no model")
    network = _small_face_net()
    weights = replace(load_expression("pcnn-ferplus-only"), network=network, region_temperatures={})
    with pytest.raises(WeightsError, match=rf"classifier-\w+\.onnx: {engine} cannot load it"):
        prepare_classifier(weights, engine)


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pcnn").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(graph_cache, "_fingerprint", lambda *_: "0")
    with pytest.raises(WeightsError, match=r"cannot be written \(.*\); set \$XDG_CACHE_HOME"):
        graph_cache.cached_file(
            *(ViewsGraph(_small_face_net()), "classifier.onnx", write_onnx),
            announced="making it …",
        )
