"""The two commands, with a recognizer that needs no weights; and once with the real one."""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
from PIL import Image

from pcnn import __version__
from pcnn.commands import cluster, reports, shared, train
from pcnn.commands import predict as commands
from pcnn.distributed import runs
from pcnn.engines.select import ENGINES, PRECISIONS
from pcnn.errors import InputError, NativeError, WeightsError, counted
from pcnn.images.loading import load_image, stored_size
from pcnn.recognition.recognizer import Recognizer
from pcnn.results.values import Expression, Face, Prediction
from pcnn.weights.expression import PRIORS

CLASSES = ("neutral", "happiness", "anger")
SCORES = {"neutral": 0.25, "happiness": 0.625, "anger": 0.125}


class FakeRecognizer:
    """Finds as many faces in a picture as its height has tens of pixels."""

    classes = CLASSES
    value_names = ()
    movements = ()

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.min_scores: list[float | None] = []

    def predict(
        self, images: Iterator[Path], *, min_score: float | None, on_error: str
    ) -> Iterator[Prediction | InputError]:
        assert on_error == "return"
        self.min_scores.append(min_score)
        for path in images:
            self.asked.append(path.name)
            yield self._one(path)

    def predict_crops(
        self, images: Iterator[Path], *, on_error: str
    ) -> Iterator[Expression | InputError]:
        assert on_error == "return"
        for path in images:
            self.asked.append(path.name)
            found = self._one(path)
            if not isinstance(found, InputError):
                yield Expression("happiness", 0.625, SCORES, {"mouth": SCORES})
            else:
                yield found

    def info(self) -> list[tuple[str, str]]:
        return [("device", "cpu"), ("weights", "w.safetensors")]

    def _one(self, path: Path) -> Prediction | InputError:
        try:
            height, width = load_image(path).shape[:2]
        except InputError as error:
            return error
        landmarks = np.array([[3, 3], [7, 3], [5, 5], [4, 7], [6, 7]], np.float32)
        face = Face(
            *("happiness", 0.625, SCORES, {"mouth": SCORES}), (1.4, 2, 8.6, 9), 0.875, landmarks
        )
        return Prediction((face,) * (height // 10), str(path), width, height)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRecognizer:
    recognizer = FakeRecognizer()
    monkeypatch.setattr(commands, "load_recognizer", lambda _: recognizer)
    return recognizer


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder: photos/ with one face, two faces and none, and a bad file beside it."""
    monkeypatch.chdir(tmp_path)
    for name, height in [("one.png", 10), ("two.png", 20), ("none.jpg", 9)]:
        save(tmp_path / "photos" / name, height)
    (tmp_path / "bad.jpg").write_bytes(b"")
    return tmp_path


def save(path: Path, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (300, height), (90, 60, 30)).save(path)


def run(*words: str) -> int:
    return cli.predict(list(words))


Captured = pytest.CaptureFixture[str]


# --- formats ---


def test_table(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    assert run("photos") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert " ".join(lines[0]) == "file face expression confidence then box x1 y1 x2 y2"
    found = ["happiness", "62.5%", "neutral", "25%,", "anger", "12%", "1", "2", "9", "9"]
    assert lines[2:] == [
        ["photos/none.jpg", "–", "no", "face", "found"],
        ["photos/one.png", "1", *found],
        ["photos/two.png", "1", *found],
        ["photos/two.png", "2", *found],
    ]


def test_table_neither_cuts_names_nor_reads_them_as_markup(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    name = "photos/[bold]" + "x" * 150 + ":smile:.png"
    save(photos / name, 10)
    assert run(name) == 0
    assert name in capsys.readouterr().out


def test_json(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    assert run("photos", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["source"], len(each["faces"])) for each in told] == [
        ("photos/none.jpg", 0),
        ("photos/one.png", 1),
        ("photos/two.png", 2),
    ]
    assert told[1] == commands.load_recognizer(None)._one(Path("photos/one.png")).to_dict()  # type: ignore[arg-type, attr-defined]


def test_json_of_failures_alone_is_an_empty_list(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    assert run("bad.jpg", "--format", "json") == 2
    assert json.loads(capsys.readouterr().out) == []


def test_jsonl(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    assert run("photos", "--format", "jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["width"] for line in lines] == [300, 300, 300]


def test_csv(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    assert run("photos", "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["source"], row["face"]) for row in rows] == [
        ("photos/one.png", "1"),
        ("photos/two.png", "1"),
        ("photos/two.png", "2"),
    ]
    assert rows[0]["happiness"] == "0.625"
    assert rows[0]["x1"] == "1.4"


def test_csv_without_any_face_has_its_header(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    assert run("photos/none.jpg", "--format", "csv") == 0
    columns = "source,face,label,confidence,x1,y1,x2,y2,detection_score,angle,quality"
    assert capsys.readouterr().out == f"{columns},neutral,happiness,anger\n"


def test_csv_with_a_row_for_each_picture(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    assert run("photos", "bad.jpg", "--format", "csv", "--all-rows") == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["source"], row["face"]) for row in rows] == [
        ("photos/none.jpg", ""),
        ("photos/one.png", "1"),
        ("photos/two.png", "1"),
        ("photos/two.png", "2"),
    ]
    assert set(rows[0].values()) == {"photos/none.jpg", ""}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("cut", [0, 40, 150, 10_000])
def test_an_unfinished_output_is_finished(
    kind: str, cut: int, fake: FakeRecognizer, photos: Path, tmp_path: Path
) -> None:
    whole, torn = (tmp_path / f"{name}.{kind}" for name in ("whole", "torn"))
    words = ("photos", "--format", kind, "--output")
    assert run(*words, str(whole)) == 0
    torn.write_bytes(whole.read_bytes()[:cut])
    fake.asked.clear()
    assert run(*words, str(torn), "--resume") == 0
    assert torn.read_bytes() == whole.read_bytes()
    # The last whole picture may be unfinished and is read again; those before are not.
    assert len(fake.asked) <= 3 if cut < 10_000 else len(fake.asked) <= 2


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses such names")
def test_csv_of_a_name_with_a_line_end(fake: FakeRecognizer, photos: Path) -> None:
    names = ["odd/a\rb.png", "odd/c\n.png", "odd/d.png"]
    for name in names:
        save(photos / name, 10)
    words = ("odd", "--format", "csv", "--output", "odd.csv")
    assert run(*words) == 0
    whole = Path("odd.csv").read_bytes()
    with Path("odd.csv").open(newline="") as file:
        assert [row["source"] for row in csv.DictReader(file)] == names
    for length in (len(whole), whole.index(b"\n.png") + 5):
        Path("odd.csv").write_bytes(whole[:length])
        assert run(*words, "--resume") == 0
        assert Path("odd.csv").read_bytes() == whole


@pytest.mark.tables
def test_parquet(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    from pyarrow import parquet

    output = photos / "faces.parquet"
    assert run("photos", "bad.jpg", "--format", "parquet", "--output", str(output)) == 1
    assert "bad.jpg: the file is empty" in capsys.readouterr().err
    rows = parquet.read_table(output).to_pylist()
    assert [(row["source"], row["face"], row["label"]) for row in rows] == [
        ("photos/none.jpg", None, None),
        ("photos/one.png", 1, "happiness"),
        ("photos/two.png", 1, "happiness"),
        ("photos/two.png", 2, "happiness"),
        ("bad.jpg", None, None),
    ]
    assert rows[4]["error"].startswith("bad.jpg: the file is empty")
    assert rows[1]["neutral"] == 0.25 and rows[1]["x1"] == np.float32(1.4)


@pytest.mark.tables
def test_parquet_in_several_groups_and_of_faces(
    fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    from pcnn.results import parquet as reports

    monkeypatch.setattr(reports, "_PICTURES_AT_ONCE", 2)
    assert run("photos", "--faces", "--format", "parquet", "--output", "faces.parquet") == 0
    file = parquet.ParquetFile("faces.parquet")
    assert file.num_row_groups == 2 and file.metadata.num_rows == 3
    assert file.read()["label"].to_pylist() == ["happiness"] * 3
    assert not list(photos.glob("part-*"))


@pytest.mark.tables
def test_parquet_that_cannot_be_written(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    assert run("photos", "--format", "parquet", "--output", "none/faces.parquet") == 2
    assert "none/faces.parquet: cannot be written" in capsys.readouterr().err
    assert run("photos", "--format", "parquet", "--output", "photos/one.png") == 2
    assert "--output is one of the pictures" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["table", "json", "jsonl", "csv"])
def test_faces(fake: FakeRecognizer, photos: Path, capsys: Captured, kind: str) -> None:
    assert run("photos/one.png", "--faces", "--format", kind) == 0
    out = capsys.readouterr().out
    if kind == "table":
        row = "photos/one.png happiness 62.5% neutral 25%, anger 12%"
        assert " ".join(out.splitlines()[-2].split()) == row
    elif kind == "csv":
        assert out.splitlines() == [
            "source,label,confidence,neutral,happiness,anger",
            "photos/one.png,happiness,0.625,0.25,0.625,0.125",
        ]
    else:
        told = json.loads(out)
        told = told[0] if kind == "json" else told
        assert told == {
            "source": "photos/one.png",
            "label": "happiness",
            "confidence": 0.625,
            "scores": SCORES,
            "regions": {"mouth": SCORES},
        }


def test_films_are_no_cut_out_faces(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    """The others are read; a film that is not there is said to be missing."""
    (photos / "film.MP4").write_bytes(b"\0\0\0\x18ftypisom")
    cause = "a film, but --faces is for pictures of cut-out faces: omit it for films"
    for name, shown in (
        ("film.MP4", "film.MP4"),
        ("camera:0", "camera:0"),
        ("-", "standard input"),
    ):
        assert run(name, "--faces") == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"pcnn-predict: {shown}: {cause}\n")
    assert run("photos/one.png", "film.MP4", "--faces", "--format", "csv") == 1
    out, err = capsys.readouterr()
    assert cause in err and [row["source"] for row in csv.DictReader(io.StringIO(out))] == [
        "photos/one.png"
    ]
    assert run("absent.mp4", "--faces") == 2
    assert "absent.mp4: no such file" in capsys.readouterr().err


def test_csv_of_faces_has_the_digits_of_json() -> None:
    stream = io.StringIO()
    names = reports.Names(("a", "b"))
    columns = reports.csv_columns(names, crops=True, pictures=True, films=False)
    report = reports.open_report("csv", stream, names=names, columns=columns, crops=True)
    report.add("a.png", Expression("a", 2 / 3, {"a": 2 / 3, "b": 1 / 3}, {}))
    assert stream.getvalue().splitlines()[1] == "a.png,a,0.666667,0.666667,0.333333"


def test_photographs_taken_for_faces_get_one_hint(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    """300 × 10 pixels are no face; said of the first, and once, with the status unchanged."""
    assert run("photos", "bad.jpg", "--faces", "--format", "csv") == 1
    assert capsys.readouterr().err.splitlines() == [
        "pcnn-predict: hint: photos/none.jpg has 300 × 9 pixels, but --faces expects one "
        "cut-out face in each picture: omit --faces to detect the faces",
        "pcnn-predict: bad.jpg: the file is empty (0 bytes)",
    ]
    assert run("photos") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("size", "hinted"),
    [
        ((48, 48), False),
        ((100, 160), False),
        ((100, 161), True),
        ((1024, 1024), False),
        ((1025, 1024), True),
        ((1920, 1080), True),
    ],
)
def test_only_what_is_unlike_a_face_gets_the_hint(
    fake: FakeRecognizer, photos: Path, capsys: Captured, size: tuple[int, int], hinted: bool
) -> None:
    Image.new("L", size).save(photos / "face.png")
    assert run("face.png", "--faces") == 0
    assert ("hint: " in capsys.readouterr().err) == hinted


@pytest.mark.parametrize(("more", "hinted"), [([], True), (["--format", "csv"], False)])
def test_a_table_says_that_it_shows_no_movements(
    fake: FakeRecognizer, photos: Path, capsys: Captured, more: list[str], hinted: bool
) -> None:
    """Without the hint, --movements would seem to do nothing."""
    cli.predict([str(photos), "--movements", *more])
    assert ("hint: the table has no movements" in capsys.readouterr().err) == hinted


def test_the_first_hundred_pictures_are_looked_at_for_a_hint(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(101)]
    for file in files:
        Image.new("L", (48, 48)).save(file)
    Image.new("L", (100, 20)).save(files[100])
    assert commands.photograph_hint(files) == ""
    assert commands.photograph_hint(files[1:]).startswith(f"hint: {files[100]} has 100 × 20 pixels")


def test_sizes_are_read_of_picture_files_alone(photos: Path) -> None:
    os.mkfifo("pipe")  # to open it would wait for a writer
    found = [stored_size(name) for name in ("photos/two.png", "bad.jpg", "gone.jpg", "pipe")]
    assert found == [(300, 20), None, None, None]
    Path("cut.png").write_bytes(Path("photos/two.png").read_bytes()[:20])
    assert stored_size("cut.png") is None


def test_lines_are_written_as_results_come(
    fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict = fake.predict

    def watched(images: Iterator[Path], **options: Any) -> Any:
        for result in predict(images, **options):
            seen.append(len((photos / "out.jsonl").read_text().splitlines()))
            yield result

    monkeypatch.setattr(fake, "predict", watched)
    assert run("photos", "--format", "jsonl", "--output", "out.jsonl") == 0
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        *((0, "face", "0 faces"), (1, "face", "1 face"), (2000, "face", "2,000 faces")),
        *((1, "class", "1 class"), (2, "class", "2 classes")),
    ],
)
def test_counts_have_the_right_plural(count: int, noun: str, words: str) -> None:
    assert counted(count, noun) == words


# --- failures and exit status ---


def test_failures_are_named_and_the_rest_goes_on(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    assert run("bad.jpg", "gone.jpg", "*.tif", "photos/one.png", "--format", "csv") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.splitlines() == [
        "pcnn-predict: *.tif: no pictures match this pattern",
        "pcnn-predict: bad.jpg: the file is empty (0 bytes)",
        "pcnn-predict: gone.jpg: no such file",
    ]


def test_nothing_done(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    assert run("bad.jpg") == 2
    assert run("nothing*") == 2
    assert fake.asked == ["bad.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give at least one picture, folder or pattern (or --info)"),
        (["a.jpg", "--batch-size", "0"], "argument --batch-size: must be at least 1, got 0"),
        (["a.jpg", "--min-score", "1.5"], "argument --min-score: must lie in 0…1, got 1.5"),
        (["a.jpg", "--min-score", "x"], "argument --min-score: must be a number, got 'x'"),
        (
            ["a.jpg", "--batch-size", "2.5"],
            "argument --batch-size: must be a whole number, got '2.5'",
        ),
        (
            ["a.jpg", "--faces", "--annotate", "d"],
            "--faces takes each picture for one face, so it excludes --annotate, --min-score, "
            "--min-face and --min-quality",
        ),
        (
            ["a.jpg", "--all-rows"],
            "--all-rows needs --format csv: the other formats have all pictures",
        ),
        (
            ["a.jpg", "--format", "parquet"],
            "--format parquet writes faces to a file: give --output FILE, and no --info",
        ),
        (
            ["--ray", "a.jpg"],
            "--ray writes Parquet files into a folder: give --output FOLDER, and no other format",
        ),
        (
            ["--ray", "auto", "a.jpg", "--output", "x", "--explain", "y"],
            "--ray writes tables alone: omit --explain",
        ),
        (
            ["--ray", "a.jpg", "--output", "s3://bucket/faces"],
            "--output must be a folder that all workers reach by this path, not a URI",
        ),
        (
            ["--ray", "a.jpg", "--output", "x", "--faces", "--movements"],
            "--movements needs the landmarks of faces in photographs, so it excludes --faces",
        ),
        (
            ["--ray", "auto", "--output", "x"],
            "give at least one picture, folder or pattern (or --info)",
        ),
        (["a.jpg", "--worker-gpus", "-1"], "argument --worker-gpus: must be at least 0, got -1"),
        (
            ["a.jpg", "--worker-gpus", "nan"],
            "argument --worker-gpus: must be a finite number, got nan",
        ),
        (
            ["a.jpg", "--worker-gpus", "inf"],
            "argument --worker-gpus: must be a finite number, got inf",
        ),
        (
            ["a.jpg", "--workers", "3", "--worker-cpus", "2"],
            "only --ray has workers and partitions: add it, or omit --workers, --worker-cpus",
        ),
        (
            ["--ray", "auto", "a.jpg", "--output", "x", "--all-rows"],
            "--ray writes tables alone: omit --all-rows",
        ),
    ],
)
def test_usage_errors(words: list[str], message: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.predict(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"pcnn-predict: error: {message}\n"


_DETECTOR = ["detector", "--photographs", "x", "--teacher", "y", "--output", "z"]


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (cli.units, ["--data", "x", "--seed", "-1"], "--seed: must be at least 0, got -1"),
        (cli.units, ["--data", "x", "--permutations", "0"], "--permutations: must be at least 1"),
        (cli.train, [*_DETECTOR, "--seed", "-1"], "--seed: must be at least 0, got -1"),
        (cli.train, [*_DETECTOR, "--workers", "-1"], "--workers: must be at least 0, got -1"),
        *(
            (cli.train, [*words, "--threads", "-1"], "--threads: must be at least 1, got -1")
            for words in (
                ["ensemble", "a", "b", "--data", "x", "--output", "y"],
                ["expression", "--data", "x", "--output", "y"],
            )
        ),
    ],
)
def test_numbers_that_others_refuse_are_usage_errors(
    command: Any, words: list[str], message: str, capsys: Captured
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(words)
    assert caught.value.code == 2
    assert f"error: argument {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            WeightsError("w.safetensors: no such weights file"),
            "w.safetensors: no such weights file",
        ),
        (
            InputError(f"{Recognizer.__name__}: device 'x' cannot be used"),
            "--device x cannot be used",
        ),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory …"),
            "out of memory on the device: use a smaller --batch-size, or --device cpu",
        ),
    ],
    ids=["weights", "input", "memory"],
)
def test_errors_that_stop_all_are_one_line(
    error: Exception,
    message: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    def failing(_: argparse.Namespace) -> Any:
        raise error

    monkeypatch.setattr(commands, "load_recognizer", failing)
    (photos / "kept.csv").write_text("earlier results")
    assert run("photos", "--output", "kept.csv") == 2
    assert capsys.readouterr().err == f"pcnn-predict: {message}\n"
    assert (photos / "kept.csv").read_text() == "earlier results"


def test_a_fault_of_ours_is_not_hidden(
    fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "predict", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("photos")


def test_interrupt_leaves_whole_json(
    fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = fake.predict

    def interrupted(images: Iterator[Path], **options: Any) -> Any:
        yield next(predict(images, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "predict", interrupted)
    words = ["photos", "--format", "json", "--output", "out.json"]
    assert run(*words) == 130
    assert len(json.loads((photos / "out.json").read_text())) == 1


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    with contextlib.suppress(OSError):  # a stream may have closed it already
        os.close(writer)


@pytest.mark.parametrize("kind", ["table", "json", "jsonl", "csv"])
@pytest.mark.usefixtures("fake", "photos")
def test_closed_pipe_is_quiet(
    kind: str, closed_pipe: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    with open(closed_pipe, "w", encoding="utf-8", closefd=False) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run("photos", "--format", kind) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("photos")
def test_closed_pipe_is_quiet_at_exit(closed_pipe: int) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv.pop(1), sys.argv.pop(1)]; import test_commands as t; "
        "t.commands.load_recognizer = lambda _: t.FakeRecognizer(); "
        "sys.exit(t.cli.predict(sys.argv[1:]))"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, here, here.parent, "photos", "--format", "csv"],
        stdout=closed_pipe,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")


# --- options ---


def test_batch_sizes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recognizer decides, unless asked otherwise."""
    made: list[int | None] = []

    def make(*_: object, batch_size: int | None, **others: object) -> FakeRecognizer:
        assert others == {
            **{"engine": "torch", "precision": "float32", "align_crops": None},
            **{"labels": None, "prior": "data", "min_confidence": 0.0},
            "min_quality": 0.0,
        }
        made.append(batch_size)
        return FakeRecognizer()

    monkeypatch.setattr("pcnn.recognition.recognizer.Recognizer", make)
    assert run("photos") == 0
    assert run("photos", "--faces") == 0
    assert run("photos", "--batch-size", "7") == 0
    assert made == [None, None, 7]


def test_engine_and_precision_are_passed_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, object]] = []

    def make(*_: object, engine: str, precision: str, **__: object) -> FakeRecognizer:
        made.append((engine, precision))
        return FakeRecognizer()

    monkeypatch.setattr("pcnn.recognition.recognizer.Recognizer", make)
    assert run("photos", "--engine", "compile", "--precision", "auto") == 0
    assert made == [("compile", "auto")]


def test_the_least_face_is_passed_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def make(*_: object, min_face: float | None = None, **__: object) -> FakeRecognizer:
        made.append(min_face)
        return FakeRecognizer()

    monkeypatch.setattr("pcnn.recognition.recognizer.Recognizer", make)
    assert run("photos") == 0
    assert run("photos", "--min-face", "40.5") == 0
    assert made == [None, 40.5]


def test_the_least_score_is_passed_on(fake: FakeRecognizer, photos: Path) -> None:
    assert run("photos") == 0
    assert run("photos", "--min-score", "0.25") == 0
    assert fake.min_scores == [None, 0.25]


def test_output_and_stdout_agree(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    for kind in ("table", "json", "jsonl", "csv"):
        assert run("photos", "--format", kind) == 0
        printed = capsys.readouterr().out
        assert run("photos", "--format", kind, "--output", "out") == 0
        assert capsys.readouterr().out == ""
        assert (photos / "out").read_text(encoding="utf-8") == printed


def test_the_name_of_the_output_says_its_format(
    fake: FakeRecognizer, photos: Path, capsys: Captured
) -> None:
    for kind, name in (
        *(("json", "a.json"), ("jsonl", "a.JSONL"), ("csv", "faces.csv")),
        *(("table", "a.txt"), ("table", "csv")),
    ):
        assert run("photos", "--output", name) == 0
        assert run("photos", "--format", kind, "--output", "same") == 0
        assert (photos / name).read_bytes() == (photos / "same").read_bytes(), name
    assert run("photos", "--format", "table", "--output", "faces.csv") == 0  # if it is asked for
    assert run("photos", "--output", "same") == 0
    assert (photos / "faces.csv").read_bytes() == (photos / "same").read_bytes()
    assert run("photos", "--all-rows", "--output", "rows.csv") == 0
    assert "none.jpg" in (photos / "rows.csv").read_text()


def test_names_outside_unicode_are_written(fake: FakeRecognizer, photos: Path) -> None:
    name = os.fsdecode(b"photos/caf\xe9.png")
    save(photos / name, 10)
    told = {}
    for kind in ("table", "json", "jsonl", "csv"):
        assert run(name, "--format", kind, "--output", "out") == 0
        told[kind] = (photos / "out").read_bytes()
    assert b"'photos/caf\\udce9.png'" in told["table"]
    assert json.loads(told["json"])[0]["source"] == name
    assert b"photos/caf\xe9.png" in told["csv"]


def test_output_is_never_an_input(fake: FakeRecognizer, photos: Path, capsys: Captured) -> None:
    before = (photos / "photos/one.png").read_bytes()
    assert run("photos", "--output", "photos/../photos/one.png") == 2
    assert (photos / "photos/one.png").read_bytes() == before
    message = "photos/../photos/one.png: --output is one of the pictures: choose another name"
    assert capsys.readouterr().err == f"pcnn-predict: {message}\n"


@pytest.mark.parametrize("option", ["--output", "--annotate"])
def test_what_cannot_be_written(
    fake: FakeRecognizer, photos: Path, capsys: Captured, option: str
) -> None:
    assert run("photos", option, "bad.jpg/there") == 2
    message = "bad.jpg/there: cannot be written (Not a directory)"
    assert capsys.readouterr().err == f"pcnn-predict: {message}\n"


def test_annotate_keeps_pictures_of_one_name_apart(fake: FakeRecognizer, photos: Path) -> None:
    save(photos / "more" / "one.png", 20)
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    assert run("photos", "more", "--annotate", "drawn") == 0
    assert sorted(str(path.relative_to(photos)) for path in photos.glob("drawn/**/*.*")) == [
        "drawn/more/one.annotated.png",
        "drawn/photos/none.annotated.jpg",
        "drawn/photos/one.annotated.png",
        "drawn/photos/two.annotated.png",
    ]
    with Image.open("drawn/more/one.annotated.png") as picture:
        assert picture.size == (300, 20)
    assert {path: path.read_bytes() for path in before} == before


def contents(folder: str) -> dict[Path, bytes]:
    """The files below a folder."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.mark.parametrize("option", ["--annotate", "--explain"])
def test_resumed_pictures_are_drawn_where_those_of_a_whole_run_are(
    option: str, fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of one name, and of two folders: all inputs decide the names, not the rest alone."""

    def explained(file: Path, *, min_score: float | None) -> list[types.SimpleNamespace]:
        return [types.SimpleNamespace(draw=lambda number: Image.open(file).convert("RGB"))]

    monkeypatch.setattr(fake, "explain", explained, raising=False)
    monkeypatch.setattr(fake, "reader", types.SimpleNamespace(regions=("mouth",)), raising=False)
    save(photos / "photos" / "one.webp", 20)
    save(photos / "more" / "one.webp", 30)
    words = ["more", "photos", "--output", "x.jsonl", option]
    assert run(*words, "whole") == 0
    lines = Path("x.jsonl").read_bytes().splitlines(keepends=True)
    whole = contents("whole")
    assert len(whole) == len(lines) == 5
    Path("whole").rename("again")
    for count in range(1, 5):
        Path("x.jsonl").write_bytes(b"".join(lines[:count]))
        assert run(*words, "again", "--resume") == 0
        assert contents("again") == whole


def test_annotate_in_the_pictures_own_folder(fake: FakeRecognizer, photos: Path) -> None:
    assert run("photos", "--annotate", "photos") == 0
    before = (photos / "photos/one.annotated.png").read_bytes()
    assert run("photos", "--annotate", "photos") == 0  # now among the inputs, and so kept
    assert (photos / "photos/one.annotated.png").read_bytes() == before
    assert (photos / "photos/one-2.annotated.png").exists()


def test_progress_and_failures_share_a_terminal(
    fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for number in range(6):
        save(photos / "photos" / f"{number}.png", 10)
    assert run("photos", "bad.jpg", "--format", "csv") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 10
    assert "10/10" in err
    assert "pcnn-predict: bad.jpg: the file is empty (0 bytes)\n" in err


def test_table_comes_after_the_progress_bar_is_gone(
    fake: FakeRecognizer, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for number in range(6):
        save(photos / "photos" / f"{number}.png", 10)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", sys.stderr)  # both on one terminal
    assert run("photos") == 0
    bar, table = capsys.readouterr().err.split("file", 1)
    assert "9/9" in bar
    assert "9/9" not in table
    assert "\x1b[1A" not in table  # nothing moves the cursor back up into it


# --- information ---


@pytest.mark.parametrize(
    ("words", "address", "paths"),
    [
        (["--ray", "photos"], "local", ["photos"]),
        (["--ray", "a.jpg", "b.jpg"], "local", ["a.jpg", "b.jpg"]),
        (["photos", "--ray"], "local", ["photos"]),
        (["--ray", "auto", "photos"], "auto", ["photos"]),
        (["--ray", "head.lan:6379", "photos"], "head.lan:6379", ["photos"]),
        (["--ray", "ray://head:10001", "s3://b/c"], "ray://head:10001", ["s3://b/c"]),
        (["--ray", "file:///a"], "local", ["file:///a"]),
        (["photos"], None, ["photos"]),
    ],
)
def test_what_follows_ray_is_an_address_or_a_picture(
    words: list[str], address: str | None, paths: list[str]
) -> None:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser)
    arguments = parser.parse_args(words)
    cluster.settle_address(arguments)
    assert (arguments.ray, arguments.paths) == (address, paths)


def test_the_options_of_films_go_with_a_job_on_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run_job(*arguments: Any, **_: Any) -> Any:
        given.extend(arguments)
        return runs.Summary(faces=1, partitions=1)

    monkeypatch.setattr(runs, "run", run_job)
    words = ["film.mp4", "--ray", "--output", "x", "--every", "0.5", "--search-every", "0"]
    assert cli.predict(words) == 0
    assert given[2].films == {
        **{"every": 0.5, "start": None, "end": None, "smoothing": 0.5, "search_every": 0.0}
    }


def test_info(fake: FakeRecognizer, capsys: Captured) -> None:
    assert run("--info") == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["pcnn"] == __version__
    assert lines["weights"] == "w.safetensors"
    assert {"python", "torch", "numpy", "pillow", "device"} <= set(lines)
    assert run("--info", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"


@pytest.mark.parametrize("kind", [InputError, WeightsError, NativeError])
def test_info_of_what_cannot_be_made(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A refused option prints the error alone; ops that do not run need the versions, too."""

    def failing(_: argparse.Namespace) -> Any:
        raise kind("it is refused")

    monkeypatch.setattr(commands, "load_recognizer", failing)
    assert run("--info") == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"pcnn    {__version__}\n") if kind is NativeError else out == ""
    assert err == "pcnn-predict: it is refused\n"


@pytest.mark.parametrize("command", [cli.predict, cli.train])
def test_version(command: Any, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        command(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pcnn {__version__}\n"


def test_engines_and_precisions_are_all_there_are() -> None:
    assert set(shared.ENGINES) == {"auto", *ENGINES}
    assert shared.PRECISIONS == PRECISIONS
    assert shared.PRIORS == PRIORS


COMMANDS = (
    *("predict", "serve", "train", "evaluate", "embed", "export"),
    *("saliency", "deconvnet", "units"),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_comes_at_once(name: str) -> None:
    code = (
        "import sys, time; began = time.process_time()\n"
        f"from pcnn.commands.{name} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as error: assert error.code == 0\n"
        "print(time.process_time() - began)\n"
        "print([name for name in ('torch', 'numpy', 'rich', 'PIL') if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):  # the best of three: other tests share the caches
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tempfile.gettempdir(),  # in the checkout, its pcnn would hide the installed one
            capture_output=True,
            text=True,
            check=True,
        )
        *usage, took, loaded = done.stdout.splitlines()
        assert usage[0].startswith(f"usage: pcnn-{name}")
        assert loaded == "[]"
        seconds.append(float(took))
    assert min(seconds) < 0.3


@pytest.mark.parametrize("kind", train._TRAININGS)
def test_help_of_a_training_needs_no_torch(kind: str) -> None:
    code = (
        "import sys\n"
        "from pcnn.commands.train import main\n"
        f"try: main(['{kind}', '--help'])\n"
        "except SystemExit as error: assert error.code == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.usefixtures("fake", "photos")
def test_collector_of_a_calling_program_is_left_alone() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    assert run("photos") == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


@pytest.mark.parametrize("command", [cli.predict, cli.embed])
def test_process_of_its_own_ends_without_collecting(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", "absent.png", "--output", "o.npz"])
    monkeypatch.setattr(gc, "set_threshold", lambda *_: calls.append("fewer"))
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("none at the end"))
    usual = signal.getsignal(signal.SIGINT)
    try:
        assert command() == commands.NOTHING_DONE
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # Ctrl-C ends it quietly
    finally:
        signal.signal(signal.SIGINT, usual)  # it would end this process, too
    assert calls == ["fewer", "none at the end"]


# --- pcnn-train ---


def test_train_loads_only_the_chosen_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--epochs", type=int, default=1)

    def work(arguments: argparse.Namespace) -> int:
        seen.append(arguments)
        return 7

    for other in ("train_detector", "train_expression"):
        monkeypatch.setitem(sys.modules, f"pcnn.commands.{other}", None)  # fails to be imported
    stand_in = types.SimpleNamespace(add_arguments=add_arguments, run=work)
    monkeypatch.setitem(sys.modules, "pcnn.commands.train_trunk", stand_in)
    assert cli.train(["trunk", "--epochs", "3"]) == 7
    assert seen[0].epochs == 3
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit):
            cli.train(words)


def test_train_failures_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def work(_: argparse.Namespace) -> int:
        raise InputError("load_image: --data must be a folder, got x")

    stand_in = types.SimpleNamespace(add_arguments=lambda _: None, run=work)
    monkeypatch.setitem(sys.modules, "pcnn.commands.train_trunk", stand_in)
    assert cli.train(["trunk"]) == 2
    message = "pcnn-train: --data must be a folder, got x\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("command", ["detector", "trunk", "expression"])
def test_each_training_shows_its_help(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.train([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: pcnn-train {command}" in capsys.readouterr().out


# --- the real thing ---


def test_astronaut_is_happy(astronaut: Path, tmp_path: Path, capsys: Captured) -> None:
    drawn = tmp_path / "drawn"
    assert run(str(astronaut), "--format", "json", "--annotate", str(drawn)) == 0
    (told,) = json.loads(capsys.readouterr().out)
    (face,) = told["faces"]
    assert face["label"] == "happiness"
    x1, y1, x2, y2 = face["box"]
    assert x1 < 223 < x2  # where her nose is
    assert y1 < 120 < y2
    with Image.open(drawn / "astronaut.annotated.png") as picture:
        assert picture.size == (512, 512)
