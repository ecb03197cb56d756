"""Trainings on your own pictures, with your own classes, from weights with other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from PIL import Image

from pcnn import InputError, Recognizer, weights
from pcnn.datasets.labels import FaceSet
from pcnn.datasets.loading import load_ferplus
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.training.expression.data import read_data
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.own import OwnFaces, options_for_own, own_faces
from pcnn.training.expression.start import options_of

pytestmark = pytest.mark.train

TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
LABELS = {"happiness": 1, "very calm": 0}
COUNT = 6


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a narrow network with FER+'s classes."""
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=64, mean=(0.4,), std=(0.3,), width=4))
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    metadata = {
        "architecture": "pcnn",
        "config": asdict(network.config),
        "template": TEMPLATE,
        "native_size": 48,
        "temperature": 1.0,
        "region_temperatures": dict.fromkeys(REGIONS, 1.0),
    }
    weights.write(path, network.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def album(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels of six tiles, and a file that is no picture."""
    root = tmp_path_factory.mktemp("album")
    faces = load_ferplus(shared_data / "ferplus", "valid")
    for label, place in LABELS.items():
        (root / label).mkdir()
        for at in np.flatnonzero(faces.votes.numpy()[:, place] > 0.8)[:COUNT]:
            Image.fromarray(faces.faces[at].numpy()).save(root / label / f"{at}.png")
    (root / "happiness" / "broken.png").write_bytes(b"")
    return root


def test_weights_decide_the_options(start: Path) -> None:
    common = {"colour": False, "width": 4, "backbone": "resnet18", "saliency": None}
    assert options_of(str(start), "pcnn") == {**common, "size": 64}
    assert options_of(str(start), "trunk") == common


def test_few_pictures_have_options_of_their_own() -> None:
    common = {"aligned": True, "mirror": True}
    assert options_for_own({}) == common
    started = {**common, "init": "mobile", "epochs": 8.0, "learning_rate": 3e-4}
    assert options_for_own({"init": "mobile"}) == started
    chosen = {"init": "mobile", "epochs": 2.0, "learning_rate": 1e-3, "mirror": False, "batch": 5}
    assert options_for_own(chosen, 80) == {"aligned": True, **chosen}
    batches = [options_for_own({}, count)["batch"] for count in (3, 80, 10_000)]
    assert batches == [2, 20, 64]


def test_no_detector_is_loaded_for_faces_that_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = torch.eye(2).repeat(2, 1)
    faces = FaceSet(torch.zeros(4, 64, 64).byte(), votes, tuple("abcd"), tuple(LABELS))
    own = OwnFaces(faces, faces, TEMPLATE, 48, ())
    monkeypatch.delattr("pcnn.faces.detector.Detector.load")
    data = read_data(ExpressionOptions("pcnn", "x", "x", aligned=True), "valid", own)
    assert data.train is data.valid is faces and data.native_size == 48
    with pytest.raises(InputError, match="second must be 0 for your own pictures"):
        read_data(ExpressionOptions("pcnn", "x", "x", second=1.0), "valid", own)


def test_faces_are_cut_as_in_prediction_and_a_fifth_is_held_out(album: Path, start: Path) -> None:
    options = ExpressionOptions("pcnn", str(album), "x", init=str(start), size=64)
    found = own_faces(album, options, faces=True)
    assert found.train.classes == found.valid.classes == ("happiness", "very calm")
    assert found.problems == (f"{album}/happiness/broken.png: the file is empty (0 bytes)",)
    assert len(found.train) + len(found.valid) == 2 * COUNT
    assert found.valid.votes.sum(0).tolist() in ([2, 2], [2, 1], [1, 2], [1, 1])
    assert not set(found.train.names) & set(found.valid.names)
    assert found.train.faces.shape[1:] == (64, 64) and found.native_size == 48
    np.testing.assert_allclose(found.template, TEMPLATE)
    again = own_faces(album, options, faces=True)
    assert again.train.names == found.train.names
    assert torch.equal(again.train.faces, found.train.faces)
    numbers = album / "numbers.csv"
    numbers.write_text("picture,valence\nhappiness/0.png,1\n")
    with pytest.raises(InputError, match="a network is trained on labels: use pcnn-train head"):
        own_faces(numbers, options)
    numbers.unlink()


def _people(album: Path, groups: dict[str, Sequence[int]]) -> Path:
    """A CSV of the tiles of both labels, by their places among them, with groups."""
    lines = ["picture,label,group"]
    for label in LABELS:
        tiles = sorted((album / label).glob("[0-9]*.png"))
        for group, places in groups.items():
            lines += [f"{label}/{tiles[at].name},{label},{group}" for at in places]
    path = album / "people.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_largest_group_is_learnt_and_copies_stay_together(album: Path, start: Path) -> None:
    options = ExpressionOptions("pcnn", str(album), "x", init=str(start), size=64)
    found = own_faces(_people(album, {"Ann": range(4), "Bo": [4], "Cy": [5]}), options, faces=True)
    assert len(found.train) == 10 and found.valid.votes.sum(0).tolist() == [1, 1]
    # Bo and Cy share a picture.
    shared = {"Ann": [0], "Bo": [1, 2], "Cy": [2, 3], "Di": [4, 5]}
    found = own_faces(_people(album, shared), options, faces=True)
    (album / "people.csv").unlink()
    train, valid = set(found.train.names), set(found.valid.names)
    assert not train & valid and len(found.valid.names) in (2, 4)


def test_the_command_trains_and_the_weights_predict(
    album: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.safetensors"
    words = [str(album), "--faces", "--init", str(start), "--output", str(output)]
    assert cli.train(["expression", *words, "--epochs", "1", "--device", "cpu"]) == 0
    told = capsys.readouterr().err
    assert (
        "left out: " in told
        and "held out to score (" in told
        and "%); labels: happiness, very calm" in told
    )
    recognizer = Recognizer(output)
    assert recognizer.classes == ("happiness", "very calm")
    answer = recognizer.predict_crops(next((album / "very calm").glob("*.png")))
    assert set(answer.scores) == set(LABELS) and set(answer.regions) == set(REGIONS)
    loaded = weights.load_expression(output)
    assert loaded.network.config.mean == (0.4,) and loaded.network.config.width == 4
    assert loaded.native_size == 48 and loaded.aligned and loaded.mirror


def test_wrong_calls(album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "x.safetensors")]
    for words in ([str(album), "--data", "ferplus"], []):
        assert cli.train(["expression", *words, *output]) == 2
        assert "give your own pictures, FOLDER, or a published" in capsys.readouterr().err
    words = [str(album), "--init", "pcnn-ferplus", "--width", "8", "--faces", "--device", "cpu"]
    assert cli.train(["expression", *words, *output]) == 2
    assert "--width must be that of the weights to start from, 32, got 8" in capsys.readouterr().err
    words = [str(album), "--init", "pcnn-ferplus", "--init-share", "0.5", "--faces"]
    assert cli.train(["expression", *words, *output, "--device", "cpu"]) == 2
    assert "--init-share needs --init of the same classes" in capsys.readouterr().err


@pytest.mark.parametrize("network_type", [PCNN, FaceNet])
def test_heads_are_new_where_classes_differ(network_type: type[PCNN | FaceNet]) -> None:
    """Trunks are copied; of the heads, the rows of classes that both have."""
    shape = {"size": 64, "mean": (0.5,), "std": (0.25,), "width": 4}
    torch.manual_seed(1)
    given = network_type(ModelConfig(classes=("a", "b", "c"), **shape))  # type: ignore[arg-type]
    network = network_type(ModelConfig(classes=("new", "c"), **shape))  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.start_from(given)  # type: ignore[arg-type]
    ours, theirs = network.state_dict(), given.state_dict()
    heads = [name for name in ours if "head" in name]
    assert len(heads) == (12 if network_type is PCNN else 2)
    for name, value in ours.items():
        if name in heads:
            assert torch.equal(value[1], theirs[name][2])
            assert torch.equal(value[0], before[name][0])
        else:
            assert torch.equal(value, theirs[name]), name
