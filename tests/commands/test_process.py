"""Messages of the library in the words of a command."""

import pytest

from pcnn.commands.process import exit_status, with_options
from pcnn.errors import InputError

OPTIONS = ("engine", "batch_size", "split", "skip_missing", "numbering", "init", "init_share")


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
        ("Options: batch_size must be at least 1", "--batch-size must be at least 1"),
        ("Options: width must be at least 1", "Options: width must be at least 1"),
        ("Options: init and batch_size must be 1", "--init and --batch-size must be 1"),
        ("Options: init, split and engine must be 1", "--init, --split and --engine must be 1"),
        ("Options: init and width must be 1", "Options: init and width must be 1"),
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
    assert with_options(message, ("valid_split", "data")) == expected


def test_a_command_prints_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise InputError("load_faces: choose one with split=: train, test")

    assert exit_status("pcnn-x", work, {"split": None}) == 2
    assert capsys.readouterr().err == "pcnn-x: load_faces: choose one with --split: train, test\n"
