"""Exported files answer as torch does, say what they are, and run where pcnn is not."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pcnn import Recognizer
from pcnn.commands import export as export_command
from pcnn.commands.export import _evenly, _size
from pcnn.engines import export as exporting
from pcnn.engines import sessions
from pcnn.engines.export import export, open_file
from pcnn.engines.export_graphs import AnchorsGraph, FaceGraph, ImageGraph
from pcnn.engines.portable import patterns
from pcnn.errors import InputError, WeightsError
from pcnn.faces.detector import Detector
from pcnn.networks.mirror import read_both
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.weights.expression import ExpressionWeights, load_expression

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "export.md").read_text()
CLASSIFIER, DETECTOR = (
    block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "sys.argv" in block
)
# Where neither can be imported; warnings of what is left are not this project's.
ALONE = "import sys; sys.modules['pcnn'] = sys.modules['torch'] = None\n"


@pytest.fixture(scope="module")
def loaded() -> ExpressionWeights:
    return load_expression("pcnn-ferplus-only")


def _pixels(count: int, channels: int = 1, side: int = 48) -> Tensor:
    """(count, channels, side, side) uint8."""
    return (patterns(count, channels, side, side) * 64 + 128).clamp(0, 255).byte()


def _face_net(loaded: ExpressionWeights, channels: int = 1) -> ExpressionWeights:
    torch.manual_seed(0)
    config = ModelConfig(size=64, mean=(0.5,) * channels, std=(0.25,) * channels, width=8)
    network = FaceNet(config).eval().requires_grad_(False)
    return replace(loaded, network=network, region_temperatures={})


# --- graphs, run by torch ---


def test_a_face_graph_answers_as_the_recognizer_does(loaded: ExpressionWeights) -> None:
    """Pixels in, calibrated scores, regions and vectors out."""
    faces = _pixels(3)
    scores, embedding, regions = FaceGraph(loaded).eval()(faces)
    recognizer = Recognizer("pcnn-ferplus-only", device="cpu", align_crops=False)
    pictures = [np.repeat(face.permute(1, 2, 0).numpy(), 3, 2) for face in faces]
    for row, own, expected in zip(scores, regions, recognizer.predict_crops(pictures), strict=True):
        assert row.tolist() == pytest.approx(list(expected.scores.values()), abs=1e-4)
        for name, values in zip(REGIONS, own, strict=True):
            assert values.tolist() == pytest.approx(list(expected.regions[name].values()), abs=1e-4)
    np.testing.assert_allclose(embedding, recognizer.embed_crops(pictures), atol=1e-5)


def test_mirror_images_are_read_where_the_weights_ask_for_them(loaded: ExpressionWeights) -> None:
    faces = _pixels(2)
    both = replace(loaded, mirror=True)
    graph = FaceGraph(both).eval()
    scores, embedding, _ = graph(faces)
    single = FaceGraph(replace(loaded, mirror=False)).eval()(faces)
    assert not torch.allclose(scores, single[0], atol=1e-3)
    torch.testing.assert_close(embedding, single[1])
    config = loaded.network.config
    wide = nn.functional.interpolate(faces / 255, (config.size,) * 2, mode="bilinear")
    views = loaded.network.cut((wide - config.mean[0]) / config.std[0])
    expected = read_both(loaded.network.forward_views, views)[0] / loaded.temperature
    torch.testing.assert_close(scores, expected.softmax(1), rtol=1e-4, atol=1e-5)


def test_a_face_net_in_rgb(loaded: ExpressionWeights) -> None:
    small = _face_net(loaded, channels=3)
    graph = FaceGraph(small).eval()
    assert graph.outputs == ("scores", "embedding")
    scores, embedding = graph(_pixels(2, 3))
    assert scores.shape == (2, 8) and embedding.shape == (2, 64)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_an_image_graph_says_where_the_face_is(astronaut: Path) -> None:
    detector = Detector.load("mobilenet")
    with Image.open(astronaut) as picture:
        small = np.asarray(picture.convert("RGB").resize((256, 256)))
    scores, boxes, landmarks = (
        values[0]
        for values in ImageGraph(detector.network, detector.settings, 256, 256).eval()(
            torch.from_numpy(small.copy()).permute(2, 0, 1)[None]
        )
    )
    ((face,),) = Detector(detector.network, replace(detector.settings, trusted_side=None)).detect(
        [small]
    )
    best = int(scores.argmax())
    assert float(scores[best]) == pytest.approx(face.score, abs=1e-5)
    np.testing.assert_allclose(boxes[best], face.box, atol=1e-2)
    np.testing.assert_allclose(landmarks[best], face.landmarks, atol=1e-2)


def test_labels_that_agree_are_counted() -> None:
    ours = [torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2]])]
    theirs = [torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.7, 0.3]])]
    assert FaceGraph.agreement(ours, theirs) == 0.75


def test_boxes_that_agree_are_counted() -> None:
    """Of four with ½ in either: one the same, one elsewhere, two in one alone; one in neither."""
    box = torch.tensor([0.0, 0, 10, 10])
    ours = [torch.tensor([[0.9, 0.8, 0.7, 0.2, 0.1]]), box.repeat(1, 5, 1)]
    theirs = [torch.tensor([[0.6, 0.9, 0.4, 0.5, 0.4]]), box.repeat(1, 5, 1)]
    theirs[1][0, 1] += torch.tensor([2.0, 0, 2, 0])  # two thirds of the union are shared
    assert ImageGraph.agreement(ours, theirs) == 0.25
    assert ImageGraph.agreement([ours[0] * 0, ours[1]], [theirs[0] * 0, theirs[1]]) == 1


def test_agreement_of_anchors_counts_those_that_either_finds() -> None:
    ours, theirs = torch.tensor([[0.9, 0.8, 0.1, 0.2]]), torch.tensor([[0.9, 0.3, 0.6, 0.2]])
    nothing, everything = torch.full((1, 4), 0.1), torch.full((1, 4), 0.9)
    assert AnchorsGraph.agreement([ours], [theirs]) == pytest.approx(1 / 3)
    assert AnchorsGraph.agreement([nothing], [everything]) == 0
    assert AnchorsGraph.agreement([everything], [nothing]) == 0
    assert AnchorsGraph.agreement([nothing], [nothing]) == 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "tflite"}, r"format must be onnx, openvino, torch-export, got 'tflite'"),
        ({"kind": "openvino"}, r"a.onnx: a file for openvino must end in .xml"),
        ({"int8": True}, r"export: int8 needs at least 30 samples, got 29"),
        (
            {"target": "a.pt2", "kind": "torch-export", "int8": True},
            r"export: int8 is for onnx and openvino, not for torch-export",
        ),
    ],
)
def test_what_cannot_be_exported(
    options: dict[str, Any],
    message: str,
    loaded: ExpressionWeights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "missing", lambda _: [])
    chosen = {"target": "a.onnx", **options}
    target = tmp_path / chosen.pop("target")
    with pytest.raises(InputError, match=message):
        export(FaceGraph(_face_net(loaded)), target, samples=_pixels(29), **chosen)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("onnx", r"export to onnx needs onnxruntime: pip install 'pcnn\[onnx\]'"),
        ("openvino", r"export to openvino needs openvino: pip install 'pcnn\[openvino\]'"),
    ],
)
def test_a_missing_extra_is_named(
    kind: str,
    message: str,
    loaded: ExpressionWeights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking = "onnxruntime" if kind == "onnx" else "openvino"
    monkeypatch.setattr(sessions, "missing", lambda names: [n for n in names if n == lacking])
    target = tmp_path / f"a{exporting.FORMATS[kind]}"
    with pytest.raises(InputError, match=message):
        export(FaceGraph(_face_net(loaded)), target, kind=kind, samples=_pixels(2))


@pytest.mark.parametrize(("height", "width"), [(0, 64), (64, 100)])
def test_a_detector_s_size_is_of_whole_cells(height: int, width: int) -> None:
    detector = Detector.load("mobilenet")
    with pytest.raises(InputError, match=rf"multiples of 32, got {width} × {height}"):
        ImageGraph(detector.network, detector.settings, height, width)


def test_weights_with_a_saliency_model_are_refused(loaded: ExpressionWeights) -> None:
    network = PCNN(replace(loaded.network.config, width=8, saliency="spectral_residual"))
    with pytest.raises(InputError, match=r"uses the saliency model spectral_residual, which"):
        FaceGraph(replace(loaded, network=network))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--int8"], "--int8 needs --calibrate PATH: pictures that give the value ranges"),
        (["--weights", "resnet50"], "resnet50: holds weights of kind detector"),
        (["detector", "--size", "64x65"], "a detector's size must be multiples of 32"),
    ],
)
def test_the_command_says_what_is_wrong(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.export(words) == 2
    assert message in capsys.readouterr().err


def test_sizes_and_choices_of_the_command() -> None:
    assert _size("640x480") == _size("640×480") == (640, 480)
    for wrong in ("640", "axb", "640x", "-1x3"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be WIDTHxHEIGHT"):
            _size(wrong)
    assert _evenly(3, 5) == [0, 1, 2] and _evenly(10, 4) == [0, 2, 5, 7]


# --- files ---


@pytest.fixture(scope="module")
def exported(
    loaded: ExpressionWeights, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Exports the packaged classifier; its graph, which takes long, is made once."""
    folder = tmp_path_factory.mktemp("exported")
    graph = FaceGraph(loaded)
    made: list[bytes] = []

    def onnx() -> bytes:
        made[:] = made or [FaceGraph.onnx(graph)]
        return made[0]

    graph.onnx = onnx  # type: ignore[method-assign]

    def write(name: str, **options: Any) -> Path:
        export(graph, folder / name, **options)
        return folder / name

    return write


def _run(script: str, *words: str) -> str:
    """What a script prints in a new Python that has neither pcnn nor torch."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE + script, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.engines
def test_an_onnx_file_runs_alone(
    exported: Callable[..., Path], loaded: ExpressionWeights, tmp_path: Path
) -> None:
    """The script of docs/export.md, in no more than 20 lines, beside the recognizer."""
    assert len(CLASSIFIER.splitlines()) <= 20
    path = exported("a.onnx", samples=_pixels(4))
    expected = []
    for index, face in enumerate(_pixels(3)):
        picture = tmp_path / f"{index}.png"
        Image.fromarray(face[0].numpy()).save(picture)
        answer = Recognizer("pcnn-ferplus-only", device="cpu", align_crops=False).predict_crops(
            picture
        )
        expected.append(f"{picture} {answer.label} {answer.confidence:.3f}")
    found = _run(CLASSIFIER, str(path), *(str(tmp_path / f"{i}.png") for i in range(3)))
    for line, wanted in zip(found.splitlines(), expected, strict=True):
        *start, score = line.split()
        *begin, confidence = wanted.split()
        assert start == begin and float(score) == pytest.approx(float(confidence), abs=2e-3)


@pytest.mark.engines
def test_onnx_files_say_what_they_are(exported: Callable[..., Path]) -> None:
    import onnx

    model = onnx.load(exported("b.onnx", samples=_pixels(2)))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["classes"])[:2] == ["neutral", "happiness"]
    assert json.loads(told["regions"]) == list(REGIONS)
    assert told["precision"] == "float32" and model.producer_name == "pcnn"
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert str(ROOT).encode() not in model.SerializeToString()


@pytest.mark.engines
def test_openvino_s_own_files(exported: Callable[..., Path]) -> None:
    import openvino

    path = exported("c.xml", kind="openvino", samples=_pixels(2))
    assert path.with_suffix(".bin").is_file()
    told = json.loads(openvino.Core().read_model(path).get_rt_info("pcnn").astype(str))
    assert told["outputs"] == ["scores", "embedding", "region_scores"]
    found = open_file(path, "openvino")({"face": _pixels(5).numpy()})
    assert found["scores"].shape == (5, 8) and found["region_scores"].shape == (5, 5, 8)


@pytest.mark.engines
@pytest.mark.parametrize(("name", "kind"), [("d.onnx", "onnx"), ("d.xml", "openvino")])
def test_int8_on_faces_held_out(
    name: str,
    kind: str,
    exported: Callable[..., Path],
    loaded: ExpressionWeights,
    shared_data: Path,
) -> None:
    from pcnn.datasets.loading import load_faces

    faces = load_faces(shared_data / "ferplus", "valid").faces[:150, None]
    path = exported(name, kind=kind, samples=faces, int8=True)
    size = sum(each.stat().st_size for each in path.parent.glob("d.*") if each.stem == path.stem)
    assert size < 20e6
    found = open_file(path, kind)({"face": faces[2::3].numpy()})["scores"]
    expected = FaceGraph(loaded).eval()(faces[2::3])[0]
    assert (found.argmax(1) == expected.argmax(1).numpy()).mean() >= exporting.LEAST_AGREEMENT
    assert np.abs(found - expected.detach().numpy()).mean() < 0.01


@pytest.mark.engines
@pytest.mark.parametrize("int8", [True, False])
def test_a_file_that_answers_otherwise_is_not_written(
    int8: bool, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "LEAST_AGREEMENT", 1.1)
    monkeypatch.setattr(exporting, "MOST_DIFFERENCE", -1.0)
    message = r"int8 agrees with torch on \d+\.\d % of 10" if int8 else r"a score differs from torc"
    with pytest.raises(WeightsError, match=rf"refused.onnx: not written: {message}"):
        exported("refused.onnx", samples=_pixels(30), int8=int8)
    monkeypatch.undo()
    folder = exported("e.onnx", samples=_pixels(2)).parent
    assert not [each for each in folder.iterdir() if each.is_dir() or "refused" in each.name]


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_a_torch_export_file_needs_torch_alone(loaded: ExpressionWeights, tmp_path: Path) -> None:
    small, path = _face_net(loaded), tmp_path / "a.pt2"
    found = export(FaceGraph(small), path, kind="torch-export", samples=_pixels(3))
    assert (found.samples, found.agreement) == (3, 1.0) and found.difference < 1e-6
    script = (
        "import sys; sys.modules['pcnn'] = None; import torch\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        "for count in (0, 1, 5):\n"
        "    print(*module(torch.zeros(count, 1, 48, 48, dtype=torch.uint8))[0].shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "8", "1", "8", "5", "8"]


@pytest.mark.engines
def test_the_command_writes_a_detector_that_runs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], astronaut: Path
) -> None:
    path = tmp_path / "detector.onnx"
    assert cli.export(["detector", "--size", "256x256", "--output", str(path)]) == 0
    told = capsys.readouterr().out
    assert re.match(
        rf"{path}: float32, \d\.\d MB; compared with torch on 2 patterns: largest", told
    )
    with Image.open(astronaut) as picture:
        small = np.asarray(picture.convert("RGB").resize((256, 256)))
        Image.fromarray(small).save(tmp_path / "small.png")
    detector = Detector.load("mobilenet")
    settings = replace(detector.settings, trusted_side=None)
    ((face,),) = Detector(detector.network, settings).detect([small])
    (line,) = _run(DETECTOR, str(path), str(tmp_path / "small.png")).splitlines()
    score, *box = (float(word) for word in line.split())
    assert score == pytest.approx(face.score, abs=2e-3)
    np.testing.assert_allclose(box, face.box, atol=0.6)


def test_photographs_are_shrunk_into_their_place(tmp_path: Path) -> None:
    """A wide one in the upper left, all of it, with grey below."""
    Image.new("RGB", (200, 50), (255, 0, 0)).save(tmp_path / "wide.png")
    (placed,) = export_command._photographs(str(tmp_path), 64, 96)
    assert placed.shape == (3, 64, 96)
    assert placed[0, :24].min() == 255 and placed[1, :24].max() == 0
    assert (placed[:, 24:] == 128).all()


def test_faces_are_chosen_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("anger", range(0, 40, 10)), ("happiness", range(100, 140, 10))):
        (tmp_path / name).mkdir()
        for value in values:
            Image.new("L", (48, 48), value).save(tmp_path / name / f"{value:03}.png")
    monkeypatch.setattr(export_command, "_FACES", 4)
    arguments = argparse.Namespace(
        network="classifier", calibrate=str(tmp_path), split=None, layout="auto"
    )
    graph = argparse.Namespace(example=(torch.zeros(2, 1, 24, 24),))
    found = export_command._samples(arguments, graph)  # type: ignore[arg-type]
    assert found.shape == (4, 1, 24, 24) and found.dtype == torch.uint8
    assert sorted(found[:, 0, 0, 0].tolist()) == [0, 20, 100, 120]
