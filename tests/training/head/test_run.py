"""Training of heads: what is written and told, with a recognizer whose embeddings are planted."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pcnn.embeddings.heads import Head
from pcnn.embeddings.values import ValueHead, load_head
from pcnn.errors import InputError
from pcnn.images.loading import load_image
from pcnn.training.folds import digests_of
from pcnn.training.head import features, run
from pcnn.training.head.reports import LabelReport, ValueReport
from pcnn.training.head.run import HeadOptions, train_head

pytestmark = pytest.mark.train

SHA = "ab" * 32


class Finder:
    fingerprint = "planted"
    align_crops = True


class PlantedRecognizer:
    """Embeds a picture's mean colour; a picture has as many faces as its height has tens.

    The faces grow, and only the last, the largest one has the picture's colour.
    """

    weights_sha256 = SHA
    embedding_size = 3
    classes = ("neutral", "happiness")
    finder = Finder()

    def __init__(self) -> None:
        self.read: list[Path] = []
        self.engine = "torch 2.9, float32, 2 threads"

    def info(self) -> list[tuple[str, str]]:
        return [("device", "cpu"), ("engine", self.engine)]

    def embed(
        self, images: Iterator[Path], *, on_error: str, boxes: bool
    ) -> Iterator[tuple[Any, Any] | InputError]:
        assert on_error == "return" and boxes
        for path in images:
            self.read.append(path)
            try:
                pixels = load_image(path)
            except InputError as error:
                yield error
                continue
            count = len(pixels) // 10
            vectors = np.zeros((count, 3), np.float32)
            vectors[-1:] = pixels.mean((0, 1)) / 255
            edges = np.arange(1, count + 1, dtype=np.float32)[:, None]
            yield vectors, np.concatenate([0 * edges, 0 * edges, edges, edges], 1)

    def embed_crops(self, images: Iterator[Path], *, on_error: str) -> Iterator[Any]:
        for found in self.embed(images, on_error=on_error, boxes=True):
            yield found if isinstance(found, InputError) else found[0][-1]


def _picture(path: Path, colour: Sequence[float], height: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, 10, 3), np.clip(colour, 0, 255), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def _album(root: Path, count: int = 12, noise: float = 25) -> Path:
    """Three labels of red, green and blue pictures, with noise; all pictures differ."""
    draw = np.random.default_rng(0)
    for place, label in enumerate(("amused", "bored", "calm")):
        for number in range(count):
            colour = 100 + 60 * np.eye(3)[place] + draw.normal(0, noise, 3)
            _picture(root / label / f"{number}.png", colour)
    return root


def _files(album: Path) -> list[Path]:
    return sorted(album.rglob("*.png"))


@pytest.fixture
def recognizer(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(run, "ROUNDS", 50)  # intervals take most of the time
    return PlantedRecognizer()


def _options(tmp_path: Path, **changed: Any) -> HeadOptions:
    return HeadOptions(**{"data": tmp_path / "a", "output": tmp_path / "m.safetensors", **changed})


def test_labels_are_learnt_and_what_is_told_is_so(tmp_path: Path, recognizer: Any) -> None:
    _album(tmp_path / "a")
    report = train_head(_options(tmp_path), recognizer)
    assert isinstance(report, LabelReport)
    assert tuple(report.scores.classes) == ("amused", "bored", "calm")
    assert report.accuracy.value > 0.75 and report.accuracy.low > 0.5
    right = report.probabilities.argmax(1) == np.repeat(np.arange(3), 12)
    assert report.accuracy.value == right.mean()
    head = Head.load(tmp_path / "m.safetensors")
    assert head.labels == ("amused", "bored", "calm") and head.weights_sha256 == SHA
    assert head.predict(np.array([[160, 100, 100], [100, 100, 160]]) / 255) == ["amused", "calm"]
    lines = list(report.lines())
    assert lines[0] == "36 faces of 36 pictures"
    assert "Cross-validated in 5 folds: each face is read by a head that has not seen it." in lines
    with Image.open(tmp_path / "m.safetensors.png") as chart:
        assert min(chart.size) > 200
    with (tmp_path / "m.safetensors.csv").open() as file:
        rows = list(csv.DictReader(file))
    own = [float(row["probability_of_label"]) for row in rows]
    assert len(rows) == 36 and own == sorted(own)
    assert {row["picture"] for row in rows} == {
        f"{label}/{number}.png" for label in head.labels for number in range(12)
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses such names")
def test_the_table_quotes_a_name_with_a_line_end(tmp_path: Path, recognizer: Any) -> None:
    album = _album(tmp_path / "a")
    (album / "calm" / "0.png").rename(album / "calm" / "0\r.png")
    train_head(_options(tmp_path), recognizer)
    with (tmp_path / "m.safetensors.csv").open(newline="") as file:
        names = [row["picture"] for row in csv.DictReader(file)]
    assert len(names) == 36 and "calm/0\r.png" in names


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path, recognizer: Any) -> None:
    """With what the first run kept, without it, and from a folder elsewhere."""
    _album(tmp_path / "a")
    options = _options(tmp_path)
    train_head(options, recognizer)
    first = options.output.read_bytes()
    assert len(recognizer.read) == 36
    train_head(options, recognizer)
    assert options.output.read_bytes() == first and len(recognizer.read) == 36
    (tmp_path / "m.safetensors.features.npz").write_bytes(b"no archive")
    train_head(options, recognizer)
    assert options.output.read_bytes() == first and len(recognizer.read) == 72
    _album(tmp_path / "b")
    train_head(replace(options, data=tmp_path / "b"), recognizer)
    assert options.output.read_bytes() == first and len(recognizer.read) == 72


@pytest.mark.parametrize("aligned", [True, False])
def test_the_file_says_how_faces_were_read(
    aligned: bool, tmp_path: Path, recognizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Finder, "align_crops", aligned)
    album = _album(tmp_path / "a")
    rows = [f"{file.relative_to(tmp_path)},{place % 7}" for place, file in enumerate(_files(album))]
    table = tmp_path / "values.csv"
    table.write_text("\n".join(["picture,valence", *rows]))
    for data in (album, table):
        options = _options(tmp_path, data=data, faces=True)
        train_head(options, recognizer)
        assert load_head(options.output).align_crops is aligned
    train_head(_options(tmp_path), recognizer)  # photographs are read in one way alone
    assert load_head(options.output).align_crops is None


def test_only_what_is_new_is_read_again(tmp_path: Path, recognizer: Any) -> None:
    """A picture that moves to another label keeps its embedding; other faces mean a new start."""
    _album(tmp_path / "a")
    train_head(_options(tmp_path), recognizer)
    (tmp_path / "a/bored/3.png").rename(tmp_path / "a/calm/moved.png")
    new = _picture(tmp_path / "a/calm/new.png", (90, 90, 170))
    recognizer.read.clear()
    train_head(_options(tmp_path), recognizer)
    assert recognizer.read == [new]
    train_head(_options(tmp_path, faces=True), recognizer)
    assert len(recognizer.read) == 1 + 37


@pytest.mark.parametrize("part", ["version", "weights", "engine", "precision", "detector"])
def test_embeddings_of_anything_else_are_not_taken_again(
    part: str, tmp_path: Path, recognizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _album(tmp_path / "a")
    train_head(_options(tmp_path), recognizer)
    recognizer.read.clear()
    recognizer.engine = "torch 2.9, float32, 1 thread"  # which changes nothing
    train_head(_options(tmp_path), recognizer)
    assert not recognizer.read
    if part == "version":
        monkeypatch.setattr(features, "__version__", "0.0.9")
    elif part == "weights":
        recognizer.weights_sha256 = "cd" * 32
    elif part == "detector":
        monkeypatch.setattr(Finder, "fingerprint", "another")
    else:
        recognizer.engine = {
            "engine": "openvino 2025.3, float32, 1 thread",
            "precision": "torch 2.9, bfloat16, 1 thread",
        }[part]
    train_head(_options(tmp_path), recognizer)
    assert len(recognizer.read) == 36


def test_bad_pictures_are_told_and_the_rest_is_used(tmp_path: Path, recognizer: Any) -> None:
    _album(tmp_path / "a")
    (tmp_path / "a/calm/broken.jpg").write_bytes(b"no picture")
    _picture(tmp_path / "a/calm/empty.png", (9, 9, 9), height=5)
    _picture(tmp_path / "a/bored/crowd.png", (100, 170, 100), height=30)
    for again in range(2):  # the second run knows them already
        report = train_head(_options(tmp_path), recognizer)
        lines = "\n".join(report.lines())
        assert lines.startswith("37 faces of 39 pictures\n"), again
        assert "Several faces in 1 picture: the largest was taken." in lines
        assert "Left out: 2\n" in lines
        assert f"{tmp_path}/a/calm/broken.jpg: " in lines
        assert f"{tmp_path}/a/calm/empty.png: no face found" in lines
    with (tmp_path / "m.safetensors.csv").open() as file:
        assert [row["problem"] for row in csv.DictReader(file)].count("") == 37


def test_a_folder_without_pictures_is_no_picture(tmp_path: Path, recognizer: Any) -> None:
    _album(tmp_path / "a")
    (tmp_path / "a/empty").mkdir()
    (tmp_path / "a/notes.txt").write_text("calm ones were taken in May")
    lines = list(train_head(_options(tmp_path), recognizer).lines())
    assert lines[0] == "36 faces of 36 pictures"
    assert lines[1:3] == [
        f"Note: {tmp_path}/a/empty: no pictures in this folder",
        f"Note: {tmp_path}/a: files outside of the labels' folders: 1",
    ]
    (tmp_path / "a/few").mkdir()
    _picture(tmp_path / "a/few/1.png", (9, 9, 9))
    with pytest.raises(InputError, match=r"label 'few' has .* \(.*empty: no pictures in this"):
        train_head(_options(tmp_path), recognizer)


def test_a_picture_in_the_wrong_folder_is_found(tmp_path: Path, recognizer: Any) -> None:
    _album(tmp_path / "a", noise=5)
    _picture(tmp_path / "a/bored/wrong.png", (160, 100, 100))
    report = train_head(_options(tmp_path), recognizer)
    assert isinstance(report, LabelReport)
    assert [report.pictures.names[at] for at in report.suspects] == ["bored/wrong.png"]
    told = "\n".join(report.lines())
    assert "Look at 1 picture that may be mislabelled:\n  bored/wrong.png: labelled bored (" in told
    assert "looks like amused (" in told
    (tmp_path / "a/bored/wrong.png").unlink()
    assert "No picture looks mislabelled." in list(
        train_head(_options(tmp_path), recognizer).lines()
    )


def test_copies_and_groups_stay_in_one_fold(tmp_path: Path, recognizer: Any) -> None:
    """Labels of chance, each picture ten times: only a head that has seen a copy is right."""
    draw = np.random.default_rng(1)
    colours = draw.uniform(0, 255, (10, 3))
    lines = ["picture,label,group"]
    for number in range(10):
        for copy in range(10):
            _picture(tmp_path / f"a/{number}-{copy}.png", colours[number])
            lines.append(f"{number}-{copy}.png,{'ab'[number % 2]},{number}")
    table = tmp_path / "a/mine.csv"
    table.write_text("\n".join(lines))
    grouped = train_head(_options(tmp_path, data=table), recognizer)
    assert "Cross-validated in 5 folds, groups kept whole" in "\n".join(grouped.lines())
    table.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    copies = train_head(_options(tmp_path, data=table), recognizer)
    for report in (grouped, copies):
        assert isinstance(report, LabelReport)
        folds = report.pictures.folds.reshape(10, 10)
        assert (folds == folds[:, :1]).all()
        assert report.accuracy.high - report.accuracy.low > 0.3  # ten pictures, not a hundred


def test_numbers_are_learnt(tmp_path: Path, recognizer: Any) -> None:
    draw = np.random.default_rng(0)
    lines = ["picture,valence,arousal,chance"]
    for number in range(60):
        red, green, _ = colour = draw.integers(0, 255, 3)
        _picture(tmp_path / f"a/{number}.png", colour)
        lines.append(f"{number}.png,{red / 100 - 1},{(green - red) / 255},{draw.normal()}")
    lines.append("absent.png,0,0,0")
    table = tmp_path / "a/mine.csv"
    table.write_text("\n".join(lines))
    options = _options(tmp_path, data=table)
    report = train_head(options, recognizer)
    assert isinstance(report, ValueReport)
    assert report.scores["valence"].ccc.low > 0.95 and report.scores["arousal"].ccc.low > 0.95
    assert report.scores["chance"].ccc.value < 0.4
    assert report.scores["chance"].rmse.value > 0.9 * report.scores["chance"].spread
    head = ValueHead.load(options.output)
    np.testing.assert_allclose(head.predict([[1, 0, 0]])[0, :2], [1.55, -1], atol=0.1)
    first = options.output.read_bytes()
    train_head(options, recognizer)
    assert options.output.read_bytes() == first
    told = "\n".join(report.lines())
    assert "60 faces of 61 pictures" in told and "absent.png: no such file" in told
    assert (tmp_path / "m.safetensors.png").is_file()
    with (tmp_path / "m.safetensors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["picture", "valence", "arousal"] and len(rows) == 61
    chosen = train_head(replace(options, values=("valence",)), recognizer)
    assert isinstance(chosen, ValueReport) and list(chosen.scores) == ["valence"]


def test_what_no_head_can_be_trained_on(tmp_path: Path, recognizer: Any) -> None:
    _album(tmp_path / "a", count=4)
    with pytest.raises(InputError, match=r"label 'amused' has 4 pictures with a face, but needs 5"):
        train_head(_options(tmp_path), recognizer)
    with pytest.raises(InputError, match=r"output must be a file named ….safetensors, got "):
        train_head(_options(tmp_path, output=tmp_path / "mine.bin"), recognizer)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written"):
        train_head(_options(tmp_path, output=tmp_path / "file/m.safetensors"), recognizer)
    _album(tmp_path / "b")
    (tmp_path / "b/calm").rename(tmp_path / "b/label")
    with pytest.raises(InputError, match="'label' is the name of another column of results"):
        train_head(_options(tmp_path, data=tmp_path / "b"), recognizer)
    numbers = tmp_path / "b/numbers.csv"
    for name in ("happiness", "yaw", "jawOpen"):
        numbers.write_text(f"picture,{name}\nbored/1.png,1\n")
        with pytest.raises(InputError, match=f"'{name}' is the name of another column of results"):
            train_head(_options(tmp_path, data=numbers), recognizer)
    rows = [f"bored/{number}.png,{number}" for number in range(9)]
    numbers.write_text("\n".join(["picture,v", *rows]))
    with pytest.raises(
        InputError, match=r"numbers need 10 pictures with a face, .* got 9 pictures"
    ):
        train_head(_options(tmp_path, data=numbers), recognizer)
    numbers.write_text("\n".join(["picture,v", *(f"bored/{n}.png,1" for n in range(12))]))
    with pytest.raises(InputError, match="column 'v' has 1 in every row"):
        train_head(_options(tmp_path, data=numbers), recognizer)
    assert not list(tmp_path.glob("*.safetensors"))


def test_wrong_options_end_before_any_work(tmp_path: Path, recognizer: Any) -> None:
    _album(tmp_path / "a")
    (tmp_path / "folder.safetensors").mkdir()
    table = tmp_path / "t.safetensors.csv"
    table.write_text("picture,label\n")
    for changed, message in (
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"values": ("a", "b", "a")}, "values must differ, got a, b, a"),
        ({"output": tmp_path / "folder.safetensors"}, "is a folder, not a file"),
        ({"output": tmp_path / "t.safetensors", "data": table}, "output would overwrite "),
    ):
        with pytest.raises(InputError, match=message):
            train_head(_options(tmp_path, **changed), recognizer)
    assert not recognizer.read and table.read_text() == "picture,label\n"


def test_a_name_with_a_nul_is_a_bad_picture(tmp_path: Path) -> None:
    picture = _picture(tmp_path / "a.png", (1, 2, 3))
    digests, problems = digests_of([Path("a\0.png"), picture])
    assert set(digests) == {1} and "cannot be opened (embedded null" in problems[0]
