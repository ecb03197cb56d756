"""The options that an output was begun with, compared by --resume."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cli
import pytest
from PIL import Image

from pcnn.commands import predict as commands
from pcnn.commands.predict import add_arguments
from pcnn.commands.run_options import RESUMABLE, RunOptions
from pcnn.errors import InputError
from pcnn.results.values import Prediction
from pcnn.weights import locate, read, write

BEGUN = ("--weights", "small", "--min-confidence", "0.3")


class Blind:
    """Finds no face; a KeyboardInterrupt comes at `stop.png`, an error at a missing file."""

    classes, value_names, movements = ("a", "b"), (), ()

    def predict(self, images, **_):  # type: ignore[no-untyped-def]
        for path in images:
            if path.name == "stop.png":
                raise KeyboardInterrupt
            known = path.exists()
            yield Prediction((), str(path), 8, 8) if known else InputError(f"{path}: is gone")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two pictures in it; a run is broken off at the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "load_recognizer", lambda _: Blind())
    for name in ("first.png", "stop.png"):
        Image.new("RGB", (8, 8), (90, 60, 30)).save(name)
    return tmp_path


def broken_off(kind: str) -> Path:
    """An output with one picture of two."""
    assert cli.predict(["first.png", "stop.png", *BEGUN, *options_of(kind)]) == 130
    output = Path(f"x.{kind}")
    if kind == "jsonl":
        assert len(output.read_text().splitlines()) == 1
    return output


def options_of(kind: str) -> list[str]:
    return ["--output", f"x.{kind}", *(["--all-rows"] if kind == "csv" else [])]


@pytest.mark.parametrize("kind", RESUMABLE)
def test_the_same_options_go_on_and_the_file_stays(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_off(kind)
    words = ["first.png", *options_of(kind), "--resume"]
    others = ["--device", "cpu", "--batch-size", "3", "--engine", "auto"]  # the same rows
    path = str(locate("small"))  # the same file
    assert cli.predict([*words, "--weights", path, *BEGUN[2:], *others]) == 0
    assert capsys.readouterr().err == ""
    assert Path(f"x.{kind}.options").exists()
    assert cli.predict([*words, "--weights", "mobile", *BEGUN[2:]]) == 2
    assert "wrote it: --weights (another file): give" in capsys.readouterr().err
    assert cli.predict(["first.png", *options_of(kind)]) == 0  # from its beginning
    assert not Path(f"x.{kind}.options").exists()


@pytest.mark.parametrize("kind", RESUMABLE)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--weights", "mobile", *BEGUN[2:]], "--weights (another file)"),
        ([*BEGUN[2:]], "--weights (another file)"),
        ([*BEGUN[:2]], "--min-confidence (0.3, now 0)"),
        ([*BEGUN, "--movements"], "--movements (not given, now given)"),
        ([*BEGUN, "--labels", "fer2013"], "--labels (none, now fer2013)"),
        ([*BEGUN, "--faces"], "--faces (not given, now given)"),
        ([*BEGUN, "--every", "2"], "--every (none, now 2)"),
        (
            ["--weights", "small", "--prior", "uniform"],
            "--prior (data, now uniform), --min-confidence (0.3, now 0)",
        ),
    ],
)
def test_other_options_are_named_and_nothing_is_cut(
    kind: str, words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = broken_off(kind)
    before = output.read_bytes()
    assert cli.predict(["first.png", "stop.png", *words, *options_of(kind), "--resume"]) == 2
    assert capsys.readouterr().err == (
        f"pcnn-predict: x.{kind}: --resume cannot continue this file, because other options wrote "
        f"it: {told}: give the same options, or choose another --output\n"
    )
    assert output.read_bytes() == before


def test_a_complete_run_leaves_its_output_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["first.png", "--output", "x.jsonl"]
    assert cli.predict(words) == 0
    assert not list(folder.glob("*.options"))
    assert cli.predict([*words, "--resume"]) == 0
    assert capsys.readouterr().err == (
        "pcnn-predict: hint: no x.jsonl.options says which options wrote x.jsonl: --resume takes "
        "them for the same\n"
    )
    assert cli.predict([*words, "--resume", "--min-quality", "0.5"]) == 2
    assert "--min-quality (0, now 0.5)" in capsys.readouterr().err
    assert cli.predict(["first.png", "--format", "csv"]) == 0  # on stdout: no file at all
    assert cli.predict(["first.png", "--output", "x.json"]) == 0
    assert [path.name for path in folder.glob("*.options")] == ["x.jsonl.options"]


def test_a_run_of_which_a_picture_failed_keeps_its_options(folder: Path) -> None:
    assert cli.predict(["first.png", "gone.png", "--output", "x.jsonl"]) == 1
    assert Path("x.jsonl.options").exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"\xff", b"{}", b'{"files": 3, "options": {}}', b"[" * 100_000,
                b'{"files": {}, "options": 3}', b'{"files": {}, "options": "format"}',
                b'{"files": {}, "options": {}, "films": 3}']
)  # fmt: skip
def test_a_damaged_file_is_named(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_off("jsonl")
    Path("x.jsonl.options").write_bytes(content)
    assert cli.predict(["first.png", *BEGUN, "--output", "x.jsonl", "--resume"]) == 2
    err = capsys.readouterr().err
    assert "x.jsonl" in err and ("delete it" in err or "--weights (another file)" in err)


def test_a_file_that_cannot_be_written_is_a_warning(folder: Path) -> None:
    Path("x.jsonl.options").mkdir()
    for picture, status in (("stop.png", 130), ("first.png", 0)):
        with pytest.warns(UserWarning, match=r"x\.jsonl\.options: cannot be kept"):
            assert cli.predict([picture, "--output", "x.jsonl"]) == status


def _parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["first.png", "--output", "x.csv", "--format", "csv", *words])


def test_an_option_of_another_version_is_no_difference(folder: Path) -> None:
    output = Path("x.csv")
    output.write_text("source\n")
    RunOptions(_parsed()).keep()
    kept = Path("x.csv.options")
    found = json.loads(kept.read_text())
    del found["options"]["min_quality"]
    kept.write_text(json.dumps(found | {"later": 1}))
    assert RunOptions(_parsed("--resume", "--min-quality", "0.5")).compare() == ""


def test_a_file_that_changed_under_its_name_is_another(folder: Path) -> None:
    tensors, metadata = read(locate("small"))
    write("a.safetensors", tensors, metadata)
    write("b.safetensors", tensors, metadata | {"note": "another"})
    Path("x.csv").write_text("source\n")
    RunOptions(_parsed("--weights", "a.safetensors")).keep()
    Path("a.safetensors").write_bytes(Path("b.safetensors").read_bytes())  # under the same name
    with pytest.raises(InputError, match=r"--weights \(another file\)"):
        RunOptions(_parsed("--weights", "a.safetensors", "--resume")).compare()
