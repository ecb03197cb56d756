"""Faces through a network, what that costs, and the command `pcnn-evaluate`."""

from __future__ import annotations

import csv
import importlib.util
import json
import weakref
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pcnn import Recognizer, __version__, weights
from pcnn.datasets import loading
from pcnn.datasets.labels import FacePictures, FaceSet, one_hot
from pcnn.errors import InputError
from pcnn.evaluation.cost import measure_cost
from pcnn.evaluation.evaluate import evaluate, match_classes
from pcnn.evaluation.logits import picture_logits, predict_logits
from pcnn.evaluation.scores import score
from pcnn.faces.resampling import to_planes
from pcnn.networks.pcnn import FERPLUS_CLASSES, PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.results.values import Detection

pytestmark = pytest.mark.train

GREY = ModelConfig(size=32, mean=(0.5,), std=(0.25,), width=8)
RGB = ModelConfig(size=32, width=8)
TEMPERATURE = 0.5
NAMES = ("neutral", "happiness")
ROOT = Path(__file__).parent.parent.parent

Captured = pytest.CaptureFixture[str]


class NoDetector:
    """A detector that must not be asked."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        raise AssertionError("faces were looked for")


def network_of(config: ModelConfig, kind: type[Any] = PCNN) -> Any:
    """A network of random numbers, its batch norms settled."""
    torch.manual_seed(0)
    network = kind(config).train()
    for _ in range(5):
        network(torch.randn(4, config.channels, config.size, config.size))
    return network.eval()


@pytest.fixture(scope="module")
def grey() -> PCNN:
    network: PCNN = network_of(GREY)
    return network


@pytest.fixture(scope="module")
def file(grey: PCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a weights file, as if trained on faces of 16 pixels."""
    path = tmp_path_factory.mktemp("weights") / "grey.safetensors"
    points = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
    metadata = {
        "architecture": "pcnn",
        "config": asdict(grey.config),
        "template": points,
        "native_size": 16,
        "temperature": TEMPERATURE,
        "region_temperatures": dict.fromkeys(REGIONS, 1.5),
    }
    weights.write(path, grey.state_dict(), metadata)
    return path


def faces_of(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random pixels."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)


# --- predict_logits ---


def test_faces_are_read_as_the_recognizer_reads_them(grey: PCNN, file: Path) -> None:
    """RGB, larger than the training faces, not square, by batches of two."""
    faces = faces_of(5, 40, 50, 3)
    recognizer = Recognizer(file, detector=NoDetector(), device="cpu")
    expected = recognizer.predict_crops([face.numpy() for face in faces])
    logits, regions = predict_logits(grey, faces, batch_size=2, native_size=16)
    found = (logits / TEMPERATURE).softmax(1)
    scores = torch.tensor([list(each.scores.values()) for each in expected])
    torch.testing.assert_close(found, scores, atol=1e-5, rtol=1e-4)
    mouth = torch.tensor([list(each.regions["mouth"].values()) for each in expected])
    torch.testing.assert_close((regions["mouth"] / 1.5).softmax(1), mouth, atol=1e-5, rtol=1e-4)
    plain, _ = predict_logits(grey, faces)
    assert (plain - logits).abs().max() > 0.01  # without the blur to 16 pixels


def test_faces_are_aligned_where_the_weights_ask_for_it(file: Path) -> None:
    class Tilted:
        """Sees every face a little turned."""

        def detect(
            self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
        ) -> list[list[Detection]]:
            points = np.array(weights.load_expression(file).template) @ [[0.9, 0.4], [-0.4, 0.9]]
            found = Detection((48, 48, 144, 144), 0.9, (points * 96 + 48).astype(np.float32))
            return [[found] for _ in images]

    pixels, loaded, labels = faces_of(80, 16, 16), weights.load_expression(file), []
    for aligned in (False, True):
        loaded = replace(loaded, aligned=aligned)
        recognizer = Recognizer(file, Tilted(), "cpu", align_crops=aligned)
        read = recognizer.predict_crops(list(pixels.numpy()))
        labels.append([expression.label for expression in read])
        faces = FaceSet(pixels, one_hot(labels[-1], FERPLUS_CLASSES), tuple(map(str, range(80))))
        found = evaluate(loaded, faces, bootstrap=0, detector=Tilted())
        # Aligned faces are rounded to whole levels, which may turn a face that is a draw.
        assert found.scores.overall["accuracy"].value >= (0.97 if aligned else 1)
    assert labels[0] != labels[1]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("config", [GREY, RGB], ids=["grey", "rgb"])
def test_pictures_that_differ_in_size_are_read_as_the_recognizer_reads_them(
    config: ModelConfig, aligned: bool, file: Path, tmp_path: Path, capsys: Captured
) -> None:
    """Also in the mirror. They come in the data set's order, which is not that of their sizes."""
    path = tmp_path / "network.safetensors"
    metadata = {**weights.read(file)[1], "config": asdict(config), "aligned": aligned}
    weights.write(path, network_of(config).state_dict(), metadata)
    files, labels = [], [0, 1] * 10
    with Image.open(ROOT / "docs" / "images" / "astronaut.png") as picture:
        for i, label in enumerate(labels):
            side = 90 + 7 * (i * 3 % 20)
            moved = picture.convert("RGB").crop((150 + i, 40, 150 + i + side, 40 + side + i % 3))
            files.append(tmp_path / "data" / ("neutral", "happiness")[label] / f"{i:02}.png")
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            moved.save(files[-1])
    options = ["--data", str(tmp_path / "data"), "--weights", str(path), "--device", "cpu"]
    options += ["--bootstrap", "0", "--no-latency", "--json", "--compare-mirror"]
    options += ["--batch-size", "3"]
    assert cli.evaluate(options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["aligned"] == aligned
    for mirror, found in ((False, told["scores"]), (True, told["other"])):
        weights.write(path, network_of(config).state_dict(), metadata | {"mirror": mirror})
        read = Recognizer(path, device="cpu").predict_crops(files)
        shares = torch.tensor([[each.scores[name] for name in NAMES] for each in read]).double()
        shares /= shares.sum(1, keepdim=True)
        expected = score(shares, torch.tensor(labels), NAMES, bootstrap=0)
        for name in ("accuracy", "log_loss"):
            value = expected.overall[name].value
            assert found[name]["value"] == pytest.approx(value, abs=1e-5), (mirror, name)


def test_few_pictures_that_differ_in_size_are_held_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[NDArray[np.uint8]]] = []
    most = 0

    def watched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        nonlocal most
        pixels = np.repeat(picture[..., None], 3, 2)
        alive.append(weakref.ref(pixels))
        most = max(most, sum(each() is not None for each in alive))
        return pixels

    monkeypatch.setattr("pcnn.evaluation.logits.load_image", watched)
    pictures = [faces_of(20 + i, 20).numpy() for i in range(20)]
    loaded = weights.load_expression(file)
    alone, both = picture_logits(loaded, pictures, NoDetector(), batch_size=4)
    assert alone.shape == (20, 8) and torch.equal(alone, both)
    assert len(alive) == 20 and most <= 8  # a batch, and that before it


@pytest.mark.parametrize("differ", [False, True])
def test_a_pass_has_as_many_faces_as_the_batch_size_says(
    file: Path, monkeypatch: pytest.MonkeyPatch, differ: bool
) -> None:
    loaded, passes = weights.load_expression(file), []
    forward = loaded.network.forward_views

    def counted(views: Sequence[torch.Tensor]) -> Any:
        passes.append(len(views[0]))
        return forward(views)

    monkeypatch.setattr(loaded.network, "forward_views", counted)
    faces: FaceSet | FacePictures = face_set(["sad", "happy"] * 75, ("sad", "happy"))
    if differ:
        faces = FacePictures(tuple(faces.faces.numpy()), faces.votes, faces.names, faces.classes)
    evaluate(loaded, faces, batch_size=140, compare_mirror=True, bootstrap=0)
    assert passes == [140, 140, 10, 10]  # each with the pass of its mirror images


def test_faces_no_finer_than_the_training_faces_are_not_blurred(grey: PCNN) -> None:
    faces = faces_of(3, 16, 16)
    found, _ = predict_logits(grey, faces, native_size=16)
    torch.testing.assert_close(found, predict_logits(grey, faces)[0], atol=1e-4, rtol=1e-4)


def test_grey_faces_and_rgb_networks() -> None:
    network = network_of(RGB)
    faces = faces_of(3, 24, 24)
    thrice = faces[..., None].expand(-1, -1, -1, 3)
    for native_size in (None, 24):
        found, _ = predict_logits(network, faces, native_size=native_size)
        expected, _ = predict_logits(network, thrice, native_size=native_size)
        torch.testing.assert_close(found, expected)


def test_rgb_faces_and_grey_networks(grey: PCNN) -> None:
    """They are seen as Pillow turns them grey, to its rounding to whole numbers."""
    faces = faces_of(3, 24, 24, 3)
    luma = np.stack([np.asarray(Image.fromarray(face.numpy()).convert("L")) for face in faces])
    found, _ = predict_logits(grey, faces)
    expected, _ = predict_logits(grey, torch.from_numpy(luma))
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_a_facenet_has_no_regions() -> None:
    network = network_of(GREY, FaceNet).train()
    faces = faces_of(3, 24, 24)
    logits, regions = predict_logits(network, faces)
    assert logits.shape == (3, 8) and regions == {}
    assert not network.training
    alike, _ = predict_logits(network, faces, native_size=24)
    torch.testing.assert_close(alike, logits, atol=1e-4, rtol=1e-4)
    blurred, _ = predict_logits(network, faces, native_size=8)
    assert (blurred - logits).abs().max() > 0.01


def test_pictures_by_hand() -> None:
    red = torch.tensor([[[[255, 0, 0]]]], dtype=torch.uint8)
    assert to_planes(red).flatten().tolist() == [1, 0, 0]
    assert to_planes(red, 1).flatten().tolist() == pytest.approx([0.299])
    assert to_planes(red, 3).shape == (1, 3, 1, 1)
    dark = torch.tensor([[[51]]], dtype=torch.uint8)
    assert to_planes(dark).shape == to_planes(dark, 1).shape == (1, 1, 1, 1)
    assert to_planes(dark, 3).flatten().tolist() == pytest.approx([0.2] * 3)


# --- cost ---


def test_the_papers_network_costs_what_the_paper_says() -> None:
    """25.9 M parameters and 3.68 GMACs a face at 224 (Tian et al. 2025, released code)."""
    with torch.device("meta"):  # shapes without numbers: nothing is computed
        network = PCNN(ModelConfig(), initialised=False)
    cost = measure_cost(network, runs=0)
    assert cost.parameters / 1e6 == pytest.approx(25.9, abs=0.05)
    assert cost.macs / 1e9 == pytest.approx(3.68, abs=0.005)
    assert cost.latency_ms is None


def test_latency_is_measured(grey: PCNN) -> None:
    cost = measure_cost(grey, runs=3)
    assert cost.latency_ms is not None and 0 < cost.latency_ms < 60_000
    assert cost.to_dict() == {
        "parameters": sum(each.numel() for each in grey.parameters()),
        "macs": cost.macs,
        "latency_ms": cost.latency_ms,
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }


# --- vocabularies ---


def face_set(labels: list[str], classes: tuple[str, ...]) -> FaceSet:
    faces = faces_of(len(labels), 16, 16)
    names = tuple(str(i) for i in range(len(labels)))
    return FaceSet(faces, one_hot(labels, classes), names, classes)


def test_the_same_classes_by_other_names_in_another_order() -> None:
    faces = face_set(["sad", "happy", "sad"], ("sad", "happy"))
    common = match_classes(faces, ("happiness", "sadness"))
    assert common.faces.classes == ("happiness", "sadness")
    assert common.faces.votes.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert (common.network_only, common.data_only, common.left_out) == ((), (), 0)


def test_only_classes_in_common_count() -> None:
    """A face whose majority the network does not know is left out, whatever else it got."""
    faces = face_set(["happy", "bored", "sad"], ("happy", "bored", "sad"))
    votes = torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.3, 0.3, 0.4]])
    faces = FaceSet(faces.faces, votes, faces.names, faces.classes)
    common = match_classes(faces, FERPLUS_CLASSES)
    assert common.faces.classes == ("happiness", "sadness")
    assert common.faces.names == ("0", "2")
    assert common.faces.votes.tolist() == [[1, 0], [0, 1]]
    assert common.data_only == ("bored",)
    assert common.left_out == 1
    assert set(common.network_only) == set(FERPLUS_CLASSES) - {"happiness", "sadness"}


def test_vocabularies_too_far_apart() -> None:
    with pytest.raises(InputError, match="share at least two classes; the network has neutral"):
        match_classes(face_set(["happy"], ("happy", "bored")), FERPLUS_CLASSES)
    bored = face_set(["bored"], ("happy", "sad", "bored"))
    with pytest.raises(InputError, match="no face has one of the labels happiness, sadness"):
        match_classes(bored, FERPLUS_CLASSES)


def test_probabilities_are_renormalised_over_the_classes_in_common(file: Path) -> None:
    loaded = weights.load_expression(file)
    faces = face_set(["sad", "happy", "sad", "happy", "bored"], ("sad", "bored", "happy"))
    found = evaluate(loaded, faces, batch_size=2, compare_mirror=True, bootstrap=0)
    logits = [
        predict_logits(loaded.network, each, native_size=16)[0]
        for each in (faces.faces, faces.faces.flip(2))
    ]
    labels, columns = torch.tensor([1, 0, 1, 0]), [1, 3]  # happiness, sadness
    for answers, scores in (
        (logits[0], found.scores),
        ((logits[0] + logits[1]) / 2, found.other),
    ):
        everything = (answers[:4] / TEMPERATURE).softmax(1)
        shares = everything[:, columns] / everything[:, columns].sum(1, keepdim=True)
        expected = score(shares, labels, ("happiness", "sadness"), bootstrap=0)
        assert scores is not None
        for name, estimate in expected.overall.items():
            assert scores.overall[name].value == pytest.approx(estimate.value, abs=1e-5), name
    likeliest = logits[0][:4].argmax(1).tolist()
    assert found.outside == sum(each not in columns for each in likeliest)


# --- the command ---


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FER+ as contact sheets: 40 faces, the votes all for one class after the other."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    folder.mkdir()
    Image.fromarray(faces_of(48, 40 * 48).numpy()).save(folder / "valid_00.png")
    rest = ("unknown", "NF", "fer2013", "duplicate")
    with (folder / "valid.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["image", *FERPLUS_CLASSES, *rest])
        for i in range(40):
            votes = [10 if i % 7 == place else 0 for place in range(8)]
            writer.writerow([f"fer{i:07}", *votes, 0, 0, "neutral", 0])
    return folder


def words(sheets: Path, file: Path) -> list[str]:
    common = ["--data", str(sheets), "--split", "valid", "--weights", str(file)]
    return [*common, "--bootstrap", "20", "--device", "cpu"]


def test_report_and_files(sheets: Path, file: Path, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "new" / "scores"
    options = ["--json", "--compare-mirror", "--output", str(folder), "--batch-size", "16"]
    assert cli.evaluate([*words(sheets, file), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((folder / "report.json").read_text())
    assert told["pcnn"] == __version__
    assert told["weights"] == {"name": str(file), "sha256": weights.sha256(file), "labels": None}
    assert told["data"] == {
        "path": str(sheets),
        "split": "valid",
        "layout": "auto",
        "protocol": "argmax",
        "labels": None,
        "duplicates": False,
        "numbering": None,
        "images": None,
        "skip_missing": False,
        "skip_damaged": False,
    }
    assert told["classes"] == {
        "common": list(FERPLUS_CLASSES),
        "network_only": [],
        "data_only": [],
        "faces_left_out": 0,
        "faces_answered_outside": 0,
    }
    assert told["scores"]["faces"] == told["other"]["faces"] == 40
    assert told["scores"]["classes"]["contempt"]["faces"] == 0
    assert told["scores"]["log_loss"] != told["other"]["log_loss"]
    assert told["cost"]["latency_ms"] > 0
    assert sorted(path.name for path in folder.iterdir()) == [
        *("confusion.csv", "confusion.png", "coverage.png"),
        *("per_class.csv", "reliability.png", "report.json"),
    ]
    for picture in folder.glob("*.png"):
        assert 5_000 < picture.stat().st_size < 100_000
        with Image.open(picture) as drawn:
            assert drawn.format == "PNG" and min(drawn.size) > 300
    with (folder / "confusion.csv").open(newline="") as table:
        rows = [[int(each) for each in row[1:]] for row in list(csv.reader(table))[1:]]
    assert rows == told["scores"]["confusion"]


def test_a_list_of_faces(sheets: Path, file: Path, tmp_path: Path, capsys: Captured) -> None:
    """As the occlusion and pose sets are: names and numbers, faces elsewhere, some missing."""
    table = tmp_path / "occluded.txt"
    lines = [f"{i % 7}_fer{i:07}.png 8 {i % 7}" for i in range(10)]
    table.write_text("\n".join([*lines, "1_fer0999999.png 8 1"]))
    options = ["--data", str(table), "--images", str(sheets), "--weights", str(file)]
    options += ["--bootstrap", "5", "--device", "cpu", "--no-latency"]
    assert cli.evaluate(options) == 2
    assert "fer0999999" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="1 of 11"):
        assert cli.evaluate([*options, "--skip-missing"]) == 0
    assert "occluded.txt (argmax): 10 faces" in capsys.readouterr().out


def test_numbered_folders(file: Path, tmp_path: Path, capsys: Captured) -> None:
    for number in range(3):
        folder = tmp_path / "faces" / str(number)
        folder.mkdir(parents=True)
        Image.fromarray(faces_of(48, 48, seed=number).numpy()).save(folder / "a.png")
    options = ["--data", str(tmp_path / "faces"), "--weights", str(file), "--device", "cpu"]
    options += ["--bootstrap", "5", "--no-latency", "--json"]
    assert cli.evaluate(options) == 2
    assert "has no name; give --numbering" in capsys.readouterr().err
    assert cli.evaluate([*options, "--numbering", "anger, sad,neutral"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"]["common"] == ["neutral", "sadness", "anger"]
    assert told["data"]["numbering"] == ["anger", "sad", "neutral"]


def test_tables_and_temperature(sheets: Path, file: Path, capsys: Captured) -> None:
    """The numbers are those of the faces' probabilities after the file's temperature."""
    assert cli.evaluate([*words(sheets, file), "--no-latency"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == f"{file} on tiny, valid (argmax): 40 faces"
    faces = faces_of(48, 40 * 48).view(48, 40, 48).swapaxes(0, 1)
    logits, _ = predict_logits(weights.load_expression(file).network, faces, native_size=16)
    labels = torch.arange(40) % 7
    expected = score((logits / TEMPERATURE).softmax(1), labels, FERPLUS_CLASSES, bootstrap=20)
    told = {" ".join(line.split()[:2]): line.split() for line in reversed(lines)}
    accuracy, loss = (expected.overall[name] for name in ("accuracy", "log_loss"))
    interval = [f"{100 * accuracy.low:.1f}", "…", f"{100 * accuracy.high:.1f}"]
    assert told["accuracy, %"][2:] == [f"{100 * accuracy.value:.1f}", *interval]
    assert told["log loss"][2] == f"{loss.value:.3f}"
    assert told["neutral 6"][3] == f"{100 * expected.classes['neutral'].recall.value:.1f}"
    assert lines[-1] == "0.4 M parameters, 0.00 GMACs per face"


def test_it_says_what_is_not_in_common(
    sheets: Path, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    faces = face_set(["sad", "happy", "bored", "sad"], ("sad", "happy", "bored"))
    monkeypatch.setattr(loading, "open_faces", lambda *_, **__: faces)
    assert cli.evaluate(words(sheets, file)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("tiny, valid (argmax): 3 faces")
    assert lines[1] == "left out: 1 face of classes that the network lacks (bored)"
    begin = "probabilities renormalised without classes that the data lacks (neutral, surprise, "
    assert lines[2].startswith(begin)
    assert "threads: 1)" in lines[-1]


def test_the_labels_of_fer2013(sheets: Path, file: Path, capsys: Captured) -> None:
    """All faces are neutral there, and contempt is not among the classes."""
    options = ["--labels", "fer2013", "--no-latency", "--weights", str(file)]
    assert (
        cli.evaluate(["--data", str(sheets), "--split", "valid", "--bootstrap", "0", *options]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file} on tiny, valid (labels of FER2013): 40 faces"
    assert "(contempt), which were the likeliest for " in lines[1]
    (neutral,) = (line.split() for line in lines if line.startswith("neutral"))
    assert neutral[1:3] == ["40", "100.0"]


def test_heads_of_their_own_read_the_labels_of_fer2013(sheets: Path, capsys: Captured) -> None:
    options = ["--labels", "fer2013", "--no-latency", "--weights", "mobile", "--json"]
    common = ["--data", str(sheets), "--split", "valid", "--bootstrap", "0", *options]
    assert cli.evaluate(common) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["weights"]["labels"] == "fer2013"
    assert told["classes"]["network_only"] == [] and len(told["classes"]["common"]) == 7
    assert cli.evaluate([word for word in common if word != "--json"]) == 0
    assert "(labels of FER2013, by heads of their own): 40" in capsys.readouterr().out


def test_the_network_decides_between_grey_and_rgb(
    sheets: Path, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def stop(*_: Any, **options: Any) -> FaceSet:
        asked.append(options["options"].grey)
        raise InputError("enough")

    monkeypatch.setattr(loading, "open_faces", stop)
    _, metadata = weights.read(file)
    rgb = tmp_path / "rgb.safetensors"
    network = PCNN(RGB)
    weights.write(rgb, network.state_dict(), {**metadata, "config": asdict(RGB)})
    assert [cli.evaluate(words(sheets, each)) for each in (file, rgb)] == [2, 2]
    assert asked == [True, False]


def test_failures_are_told_without_traceback(
    sheets: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def failure(*options: str) -> str:
        assert cli.evaluate([*words(sheets, file), *options]) == 2
        return capsys.readouterr().err.removeprefix("pcnn-evaluate: ").rstrip()

    assert failure("--device", "abacus").startswith("--device 'abacus' cannot be used (")
    assert failure("--weights", "none.pt").startswith("none.pt: no such weights file")
    assert str(tmp_path / "none") in failure("--data", str(tmp_path / "none"))
    (tmp_path / "file").touch()
    assert failure("--output", str(tmp_path / "file")) == f"{tmp_path / 'file'}: File exists"
    for absent, package in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *, a=absent, f=find: f(name) if name != a else None,
        )
        message = f"{package} must be installed: pip install 'pcnn[train]'"
        assert failure("--output", str(tmp_path / "out")) == message
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: --data"),
        (["--data", "x", "--bootstrap", "-1"], "argument --bootstrap: must be at least 0, got -1"),
        (
            ["--data", "x", "--protocol", "mean"],
            "argument --protocol: invalid choice: 'mean' (choose from 'argmax', 'majority')",
        ),
    ],
)
def test_usage_errors(options: list[str], message: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.evaluate(options)
    assert caught.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    # Python 3.12 and later leave out the quotes about choices.
    assert last.replace("'", "") == f"pcnn-evaluate: error: {message}".replace("'", "")
