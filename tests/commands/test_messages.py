"""What commands print: options and files, but no names and no spelling of Python."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pcnn
from pcnn.commands.predict import main as predict
from pcnn.commands.train import _TRAININGS
from pcnn.commands.train import main as train
from pcnn.errors import InputError

COMMANDS = (
    *("predict", "serve", "evaluate", "embed", "export"),
    *("saliency", "deconvnet", "units"),
)
PACKAGE = Path(str(pcnn.__file__)).parent
_DEFINED = re.compile(r"^ *(?:async )?(?:def|class) (\w+)", re.MULTILINE)
# Every function, method and class of the package, found in its source.
NAMES = {
    name
    for file in PACKAGE.rglob("*.py")
    for name in _DEFINED.findall(file.read_text(encoding="utf-8"))
}
# Arguments and their values: precision='float32', numbering={…}, batch_size=4, aligned=True.
_SPELLING = re.compile(r"\b[a-z][a-z_]*=(?:['{\d]|True|False|None|(?=[:;,. ]))")
_CLASSES = re.compile(r"\b[A-Z][a-z]+[A-Z]\w+\b")
# An ensemble joins at least two; which ones does not matter before they are loaded.
_ONE = "pcnn-ferplus-only"
_DETECTOR = ("--photographs", "p.tar", "--teacher", "t", "--output", "o")
_JOINED = (_ONE, _ONE, "--data", "sheets", "--output", "o")
_TAUGHT = ("photos", "--photographs", "p.tar", "--teacher-labels", "t", "--output", "o")


def assert_plain(text: str) -> None:
    """No line begins, after the command's name, with a name of the package's code."""
    assert text
    for line in text.splitlines():
        first = re.match(r"(?:pcnn-\w+: )?([\w.]+): ", line)
        assert first is None or first[1].split(".")[-1] not in NAMES, line
    assert not _SPELLING.search(text), text
    assert not {*_CLASSES.findall(text)} & NAMES, text


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a picture in a folder, and one that cannot be read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (48, 48), (90, 60, 30)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "bad.jpg").write_bytes(b"")
    (tmp_path / "bare").mkdir()
    for split in ("train", "valid"):
        (tmp_path / "sheets" / f"{split}.csv").parent.mkdir(exist_ok=True)
        (tmp_path / "sheets" / f"{split}.csv").write_text("image\n")
        Image.new("L", (48, 48)).save(tmp_path / "sheets" / f"{split}_00.png")
    return tmp_path


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is refused prints, after its name."""
    name, *rest = words
    main = train if name == "train" else importlib.import_module(f"pcnn.commands.{name}").main
    assert main(rest) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"pcnn-{name}: ")
    assert_plain(err)
    return err.removeprefix(f"pcnn-{name}: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "gone.jpg"], "gone.jpg: no such file"),
        (["predict", "bad.jpg"], "bad.jpg: the file is empty (0 bytes)"),
        (["predict", "photos", "--weights", "w.pt"], "w.pt: no such weights file or known name"),
        (["predict", "photos", "--device", "abacus"], "--device abacus cannot be used ("),
        (["predict", "photos", "--precision", "float16"], "--precision float16 needs a GPU: on a"),
        (["predict", "photos", "--labels", "x"], "--labels x: "),
        (["predict", "photos", "--output", "none/x.csv"], "none/x.csv: cannot be written ("),
        (["predict", "--info", "--head", "h"], "h: no such weights file"),
        (["embed", "photos", "-o", "x.txt"], "--output: the file's name must end in"),
        (["embed", "photos", "-o", "x.npz", "--weights", "w"], "w: no such weights file"),
        (["embed", "bad.jpg", "-o", "x.npz"], "bad.jpg: the file is empty"),
        (["export", "--weights", "w"], "w: no such weights file or known name"),
        (["export", "detector", "--size", "33x64"], "a detector's size must be multiples of 32"),
        (["export", "--calibrate", "bare"], "bare has no known layout"),
        (["export", "--calibrate", "sheets"], "sheets has splits: choose one with --split: "),
        (["saliency", "bad.jpg", "-o", "d"], "bad.jpg: the file is empty"),
        (["saliency", "photos", "-o", "d", "--model", "x"], "no saliency model is called 'x'; "),
        (["deconvnet", "photos", "-o", "x.gif"], "--output must be a .png, got x.gif"),
        (
            ["deconvnet", "photos", "-o", "x.png", "--map", "face/17"],
            "--map must be like face/layer3/17, got 'face/17'",
        ),
        (
            ["deconvnet", "photos", "-o", "x.png", "--weights", "pcnn-ferplus"],
            "--weights must be of one network, such as pcnn-ferplus-only, got an ensemble",
        ),
        (["units", "--data", "sheets"], "sheets has splits: choose one with --split: "),
        (["units", "--data", "sheets", "--layout", "x"], "--layout must be auto, "),
        (["train", "detector", *_DETECTOR, "--side", "33"], "--side must be a multiple of 32"),
        (["train", "movements", *_TAUGHT, "--batch", "0"], "--batch must be at least 1"),
        (["train", "landmarks", *_TAUGHT, "--steps", "0"], "--steps must be at least 1"),
        (
            ["train", "ensemble", *_JOINED, "--shares", "-1", "1"],
            "--shares must be positive, one a network, got [-1.0, 1.0]",
        ),
        pytest.param(
            ["evaluate", "--data", "sheets"],
            "sheets has splits: choose one with --split: ",
            marks=pytest.mark.train,
        ),
        pytest.param(
            ["evaluate", "--data", "sheets", "--numbering", "a,b"],
            "--numbering is only for folders and list, got sheets",
            marks=pytest.mark.train,
        ),
        pytest.param(
            ["train", "head", "photos", "--output", "o.txt"],
            "--output must be a file named ….safetensors, got o.txt",
            marks=pytest.mark.train,
        ),
        pytest.param(
            ["train", "trunk", "--data", "sheets", "--output", "o", "--epochs", "0"],
            "--epochs must be above 0 and finite",
            marks=pytest.mark.train,
        ),
        pytest.param(
            ["train", "expression", "--data", "sheets", "--output", "o", "--landmarks", "l"],
            "--landmarks needs --aligned",
            marks=pytest.mark.train,
        ),
        pytest.param(
            ["serve", "--page", "bare"],
            "bare: has no index.html: --page takes the folder of the page",
            marks=pytest.mark.serve,
        ),
        pytest.param(
            ["serve", "--labels", "x"],
            "--labels x: ",
            marks=pytest.mark.serve,
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("photos")
def test_a_refusal_speaks_of_options_and_files(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(words, capsys).startswith(message)


@pytest.mark.parametrize("kind", ["movements", "landmarks"])
def test_answers_for_no_face_are_named(
    kind: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "t").mkdir()
    nobody = {"found": [False], "movements": np.zeros((1, 1)), "matrix": np.eye(4)[None]}
    np.savez(photos / "t" / "fer_train.npz", image=["a"], names=["jawOpen"], **nobody)
    message = refusal(["train", kind, *_TAUGHT], capsys)
    assert message == f"{Path('t', 'fer_train.npz')} has answers for no face"


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "commands").glob("*.py")), ids=lambda file: file.stem
)
def test_numbers_of_all_options_are_finite(file: Path) -> None:
    module = importlib.import_module(f"pcnn.commands.{file.stem}")
    if not hasattr(module, "add_arguments"):
        return
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    for action in parser._actions:
        for text in ("inf", "-inf", "nan", "1e999"):
            try:
                value = action.type(text) if callable(action.type) else text
            except (argparse.ArgumentTypeError, ValueError):
                continue
            assert not isinstance(value, float), (action.dest, value)


def test_every_name_before_a_message_can_be_left_out() -> None:
    """A message begins with a name that a module of the package has, or a class and a method."""
    before = re.compile(r'Error\(\s*f?"([A-Za-z_]\w*)(?:\.\w+)?: ')
    sources = [file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")]
    named = {name for source in sources for name in before.findall(source)}
    own = re.compile(r"^(?:async )?(?:def|class) (\w+)", re.MULTILINE)
    assert len(named) > 50 and not named - {name for text in sources for name in own.findall(text)}


@pytest.mark.usefixtures("photos")
def test_a_file_that_is_called_like_a_function_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert predict(["load_image"]) == 2
    assert capsys.readouterr().err == "pcnn-predict: load_image: no such file\n"


@pytest.mark.usefixtures("photos")
def test_a_picture_that_fails_beside_others_is_named_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("load_image: it is refused")

    monkeypatch.setattr("pcnn.recognition.batches.load_image", refuse)
    assert predict(["photos", "--format", "csv"]) == 2
    assert capsys.readouterr().err == "pcnn-predict: it is refused\n"


@pytest.mark.parametrize("name", [*COMMANDS, *(f"train {name}" for name in _TRAININGS)])
def test_help_has_no_python(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = name.split()
    main = train if command == "train" else importlib.import_module(f"pcnn.commands.{command}").main
    with pytest.raises(SystemExit):
        main([*rest, "--help"])
    assert_plain(capsys.readouterr().out)


def test_plain_means_no_python() -> None:
    """The check above does see what it looks for."""
    for text in (
        "pcnn-train: load_faces: folder must be",
        "Detector.detect: x",
        "use precision='float32'",
        "choose one with split=: a",
        "needs RecognizerOptions or ExpressionOptions",
    ):
        with pytest.raises(AssertionError):
            assert_plain(text)
    assert_plain("pcnn-predict: photo.jpg: no such file")
