"""Messages of the library in the words of a command."""

import warnings
from pathlib import Path

import pytest

from pcnn.commands.process import exit_status, with_options
from pcnn.datasets.loading import load_faces
from pcnn.errors import InputError, NativeError, WeightsError
from pcnn.faces.detector import Detector
from pcnn.ops import crop_regions
from pcnn.training.expression.options import ExpressionOptions

NAMES = ("engine", "batch_size", "split", "skip_missing", "numbering", "init", "init_share")
OPTIONS = dict.fromkeys((*NAMES, "labels", "batch"))
# What messages begin with must be loaded, as it is where it raises an error.
assert all((load_faces, Detector, ExpressionOptions, crop_regions))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("use engine='torch'", "use --engine torch"),
        ("batch_size=4 is too large", "--batch-size 4 is too large"),
        ("choose one with split=: train, test", "choose one with --split: train, test"),
        ("use missing='skip' to skip them", "use --skip-missing to skip them"),
        ("give numbering={0: 'neutral', …} (see there)", "give --numbering (see there)"),
        ("init_share= needs init=", "--init-share needs --init"),
        ("omit head=", "omit head="),
        ("ExpressionOptions: batch must be at least 1", "--batch must be at least 1"),
        ("ExpressionOptions: width must be at least 1", "width must be at least 1"),
        ("load_faces: init and batch_size must be 1", "--init and --batch-size must be 1"),
        ("load_faces: init, split and engine must be 1", "--init, --split and --engine must be 1"),
        ("load_faces: init and width must be 1", "--init and width must be 1"),
        ("load_faces: missing is only for list", "--skip-missing is only for list"),
        ("load_faces: batch 64 is larger than 9", "--batch 64 is larger than 9"),
        ("load_faces: engine 'x' cannot be used", "--engine x cannot be used"),
        ("labels 'fer': w.safetensors has none", "--labels fer: w.safetensors has none"),
        ("side 'x' cannot be used", "side 'x' cannot be used"),
        ("Detector.detect: the picture is empty", "the picture is empty"),
        ("Detector.unknown: the picture is empty", "Detector.unknown: the picture is empty"),
        ("w.pt: Detector: it has no keys", "w.pt: it has no keys"),
        ("crop_regions: PCNN_OPS=native, but no", "PCNN_OPS=native, but no"),
        ("photo: no such file", "photo: no such file"),
        ("a/load_faces: no such file", "a/load_faces: no such file"),
        ("load_faces.jpg: no such file", "load_faces.jpg: no such file"),
        ("Unknown: width must be at least 1", "Unknown: width must be at least 1"),
        ("no model 'x' (in Python: pcnn.saliency.register adds more)", "no model 'x'"),
        ("convert it (in Python: call register()), or not", "convert it, or not"),
        ("the size must be 1: engine must be x", "the size must be 1: engine must be x"),
        ("omit share=0", "omit share=0"),
        ("PCNN_OPS=native, but", "PCNN_OPS=native, but"),
        ("", ""),
    ],
)
def test_arguments_become_options(message: str, expected: str) -> None:
    assert with_options(message, OPTIONS) == expected


def test_another_commands_name_of_an_option() -> None:
    message = "choose one with split=: train, test"
    expected = "choose one with --valid-split: train, test"
    assert with_options(message, {"valid_split": "valid", "data": "x"}) == expected


def test_a_command_prints_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise InputError("load_faces: choose one with split=: train, test")

    assert exit_status("pcnn-x", work, {"split": None}) == 2
    assert capsys.readouterr().err == "pcnn-x: choose one with --split: train, test\n"


@pytest.mark.parametrize("given", ["load_faces", Path("load_faces"), ["a.jpg", "./load_faces"]])
def test_a_file_that_is_called_like_a_function_keeps_its_name(given: object) -> None:
    message = "load_faces: no such file"
    assert with_options(message, {"paths": given, "output": None}) == message
    assert with_options(message, {"paths": ["other"], "output": None}) == "no such file"


def test_a_file_that_a_pattern_found_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("load_faces").touch()
    message = "load_faces: the file is empty (0 bytes)"
    assert with_options(message, {"paths": ["load*"]}) == message


@pytest.mark.parametrize("kind", [InputError, WeightsError, NativeError])
def test_every_kind_of_error_loses_the_name(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise kind("crop_regions: it is refused")

    assert exit_status("pcnn-x", work) == 2
    assert capsys.readouterr().err == "pcnn-x: it is refused\n"


def test_warnings_of_the_package_are_plain_lines() -> None:
    """Others keep the form that Python gives them, and all do when the command has ended."""
    ours = str(Path(exit_status.__code__.co_filename).parent / "evaluate.py")
    formatted: list[str] = []

    def work() -> int:
        for file in (ours, "elsewhere.py"):
            text = UserWarning("load_faces: 1 of 2 missing; use missing='skip'")
            formatted.append(warnings.formatwarning(text, UserWarning, file, 7, "line"))
        return 0

    before = warnings.formatwarning
    assert exit_status("pcnn-x", work, {"skip_missing": False}) == 0
    assert formatted[0] == "pcnn-x: 1 of 2 missing; use --skip-missing\n"
    assert formatted[1].startswith("elsewhere.py:7: UserWarning: load_faces: 1 of 2")
    assert warnings.formatwarning is before
