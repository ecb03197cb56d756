"""`pcnn-train head` and `pcnn-predict --head` on faces of FER+, as a user would run them."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import cli
import numpy as np
import pytest
from PIL import Image

from pcnn import Recognizer
from pcnn.datasets.loading import load_ferplus
from pcnn.embeddings.heads import Head
from pcnn.results.tables import to_arrow
from pcnn.training.head import run as training

pytestmark = pytest.mark.train

ROOT = Path(__file__).parent.parent.parent
LABELS = {"glad": 1, "calm": 0, "startled": 2}  # in FER+: happiness, neutral, surprise
TRAIN, HELD_OUT = 10, 6
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def album(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `train` and `held out` with three labels of tiles, and a CSV of numbers."""
    root = tmp_path_factory.mktemp("album")
    faces = load_ferplus(shared_data / "ferplus", "valid")
    votes = faces.votes.numpy()
    numbers = [("picture", "valence", "arousal")]
    for label, place in LABELS.items():
        sure = np.flatnonzero(votes[:, place] > 0.6)[: TRAIN + HELD_OUT]
        for count, at in enumerate(sure):
            folder = "train" if count < TRAIN else "held out"
            path = root / folder / label / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(faces.faces[at].numpy()).save(path)
            valence = votes[at, 1] - votes[at, 3:].sum()
            if folder == "train":
                numbers.append((f"{label}/{at}.png", f"{valence:.3f}", f"{votes[at, 2]:.3f}"))
    with (root / "train" / "values.csv").open("w", newline="") as file:
        csv.writer(file).writerows(numbers)
    return root


@pytest.fixture(scope="module")
def heads(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labels.safetensors and numbers.safetensors, and what the command printed."""
    folder = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "ROUNDS", 100)
        for name, data in (("labels", "train"), ("numbers", "train/values.csv")):
            output = folder / f"{name}.safetensors"
            words = ["head", str(album / data), "--output", str(output), "--faces"]
            assert cli.train(words) == 0
    return folder


def test_held_out_faces_are_read_by_their_own_labels(
    album: Path, heads: Path, capsys: Captured
) -> None:
    """18 faces; by chance 6 are right, and 12 or more once in 250 times."""
    words = ["--faces", str(album / "held out"), "--head", str(heads / "labels.safetensors")]
    assert cli.predict([*words, "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 * HELD_OUT
    assert all(list(row["scores"]) == sorted(LABELS) for row in rows)
    right = [row["label"] == Path(row["source"]).parent.name for row in rows]
    assert sum(right) >= 12


def test_a_second_run_writes_the_same_bytes(
    album: Path, heads: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(training, "ROUNDS", 100)
    output = heads / "labels.safetensors"
    before = output.read_bytes()
    assert cli.train(["head", str(album / "train"), "--output", str(output), "--faces"]) == 0
    assert output.read_bytes() == before
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{3 * TRAIN} faces of {3 * TRAIN} pictures"
    assert told[1].startswith("Note: ") and told[1].endswith(
        "files outside of the labels' folders: 1"
    )
    assert any(line.startswith("  accuracy     ") for line in told)
    assert told[-1] == f"Use it: pcnn-predict --head {output} --faces photo.jpg"


def test_faces_are_read_as_they_were_validated(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The printed line has no `--as-they-are`: the head's file says it."""
    monkeypatch.setattr(training, "ROUNDS", 100)
    output = tmp_path / "mine.safetensors"
    words = ["head", str(album / "train"), "--output", str(output), "--faces"]
    assert cli.train([*words, "--as-they-are"]) == 0
    use = capsys.readouterr().out.splitlines()[-1]
    assert use == f"Use it: pcnn-predict --head {output} --faces photo.jpg"
    with np.load(f"{output}.features.npz") as kept:
        validated = Head.load(output).predict_proba(kept["features"])
        digests = kept["digests"].tolist()
    words = ["--head", str(output), "--faces", str(album / "train"), "--format", "jsonl"]
    assert cli.predict(words) == 0
    for line in capsys.readouterr().out.splitlines():
        row = json.loads(line)
        digest = hashlib.sha256(Path(row["source"]).read_bytes()).hexdigest()
        scores = validated[digests.index(digest)]
        np.testing.assert_allclose(list(row["scores"].values()), scores, atol=1e-3)


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_numbers_beside_the_expressions(
    form: str, heads: Path, astronaut: Path, capsys: Captured
) -> None:
    head = str(heads / "numbers.safetensors")
    assert cli.predict([str(astronaut), "--head", head, "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        (face,) = json.loads(out)[0]["faces"]
        assert face["label"] == "happiness" and list(face["values"]) == ["valence", "arousal"]
        assert face["values"]["valence"] > 0.3
    elif form == "csv":
        (row,) = csv.DictReader(out.splitlines())
        assert list(row)[-3:] == ["contempt", "valence", "arousal"]
        assert float(row["valence"]) > 0.3
    else:
        assert re.search(r"values +box", out) and re.search(r"valence \S+, arousal ", out)


def test_numbers_in_python(heads: Path, astronaut: Path) -> None:
    recognizer = Recognizer(head=heads / "numbers.safetensors", labels=None, prior="uniform")
    assert recognizer.value_names == ("valence", "arousal")
    assert recognizer.classes[0] == "neutral"
    prediction = recognizer.predict(astronaut)
    (face,) = prediction.faces
    assert face.label == "happiness" and list(face.values) == ["valence", "arousal"]
    assert set(face.regions) and face.to_dict()["values"].keys() == face.values.keys()
    assert list(prediction.rows()[0])[-2:] == ["valence", "arousal"]
    assert recognizer.explain(astronaut)[0].label == "happiness"
    assert prediction.draw().size == (512, 512)


@pytest.mark.tables
def test_numbers_in_parquet(heads: Path, astronaut: Path) -> None:
    recognizer = Recognizer(head=heads / "numbers.safetensors")
    table = to_arrow(recognizer.predict(astronaut))
    assert table.column_names[-2:] == ["valence", "arousal"]
    assert json.loads(table.schema.metadata[b"pcnn"])["values"] == ["valence", "arousal"]
    empty = to_arrow([], classes=recognizer.classes, values=recognizer.value_names)
    assert empty.schema == table.schema


def test_what_is_refused_is_named_by_its_options(
    heads: Path, astronaut: Path, tmp_path: Path, capsys: Captured
) -> None:
    head = str(heads / "labels.safetensors")
    for words, message in (
        (["--weights", "mobile"], "use --weights pcnn-ferplus, or fit the head again"),
        (["--prior", "uniform"], "a head has its own labels: omit --labels and --prior"),
        (["--explain", str(tmp_path)], "--explain explains the weights' own labels: omit --head"),
        (["--info", "--weights", "mobile"], "use --weights pcnn-ferplus"),
    ):
        assert cli.predict([str(astronaut), "--head", head, *words]) == 2
        out, err = capsys.readouterr()
        assert out == "" and message in err
    output = str(tmp_path / "x.safetensors")
    assert cli.train(["head", str(tmp_path / "absent"), "--output", output]) == 2
    assert "no such folder or CSV" in capsys.readouterr().err
    for label in ("a", "b"):
        (tmp_path / "few" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "few" / label / "grey.png")
    assert cli.train(["head", str(tmp_path / "few"), "--output", output]) == 2
    err = capsys.readouterr().err
    assert "label 'a' has 0 pictures with a face, but needs 5" in err
    assert "use --faces if each picture is one cut-out face" in err


def test_the_examples_of_the_page_run(
    heads: Path, astronaut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    page = (ROOT / "docs" / "own-labels.md").read_text(encoding="utf-8")
    (tmp_path / "photo.jpg").symlink_to(astronaut)
    (tmp_path / "mine.safetensors").symlink_to(heads / "labels.safetensors")
    (tmp_path / "numbers.safetensors").symlink_to(heads / "numbers.safetensors")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "own-labels.md", "exec"), {})
    assert capsys.readouterr().out.startswith("glad 0.")
