"""Parts that several commands share: their start, argument types and the recognizer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcnn.commands.process import exit_status, few_collections
from pcnn.images.files import shown
from pcnn.version import __version__

if TYPE_CHECKING:
    from pcnn.recognition.recognizer import Recognizer

DONE, SOME_FAILED, NOTHING_DONE = 0, 1, 2  # exit statuses

# The choices of engines.select, repeated to avoid its import; a test compares both.
ENGINES = ("auto", "torch", "compile", "openvino", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
PRIORS = ("data", "uniform")

_BATCH_SIZE, _CROPS_BATCH_SIZE = 8, 64

# Cut-out faces rarely exceed these limits; photographs often do.
_FACE_RATIO, _FACE_PIXELS = 1.6, 1024 * 1024
_HINT_FILES = 100


def run_command(  # noqa: PLR0913
    program: str,
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    *,
    epilog: str | None = None,
    check: Callable[[argparse.Namespace], str] | None = None,
    short: bool = False,
) -> int:
    """Parse a command's arguments and do its work.

    argv: the arguments; None means those of the process.
    check: returns the error in arguments that parse, or "".
    short: the command lasts seconds, see process.few_collections.
    Returns the exit status: 0 success, even if pictures have no face; 1 some inputs failed;
    2 nothing could be done; 130 interrupted; 141 the reader of stdout has closed it.
    Raises SystemExit: --help, --version (0) and wrong usage (2), as argparse does.
    """
    parser = argparse.ArgumentParser(
        program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"pcnn {__version__}")
    arguments = parser.parse_args(argv)
    if check is not None and (wrong := check(arguments)):
        parser.error(wrong)
    options = vars(arguments)
    if not short:
        return exit_status(program, lambda: run(arguments), options)
    with few_collections(argv):
        return exit_status(program, lambda: run(arguments), options)


def load_recognizer(arguments: argparse.Namespace) -> Recognizer:
    """The recognizer that the arguments describe.

    Its module is imported here, so wrong paths are reported before torch is loaded.
    """
    from pcnn.recognition.recognizer import Recognizer

    return Recognizer(
        *(arguments.weights, arguments.detector, arguments.device),
        engine=arguments.engine,
        precision=arguments.precision,
        batch_size=step_size(arguments),
        align_crops=False if arguments.as_they_are else None,
        labels=getattr(arguments, "labels", None),
        prior=getattr(arguments, "prior", "data"),
        min_confidence=getattr(arguments, "min_confidence", 0.0),
    )


def photograph_hint(files: Sequence[Path]) -> str:
    """A hint if one of the pictures given with --faces looks like a photograph; else "".

    Only the first hundred pictures are checked.
    """
    from pcnn.images.loading import stored_size

    for file in files[:_HINT_FILES]:
        size = stored_size(file)
        if size and (max(size) > _FACE_RATIO * min(size) or size[0] * size[1] > _FACE_PIXELS):
            return (
                f"hint: {shown(file)} has {size[0]} × {size[1]} pixels, but --faces expects one "
                "cut-out face in each picture: omit --faces to detect the faces"
            )
    return ""


def step_size(arguments: argparse.Namespace) -> int:
    """The number of pictures in one pass."""
    chosen: int | None = arguments.batch_size
    return chosen or (_CROPS_BATCH_SIZE if arguments.faces else _BATCH_SIZE)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine and --precision."""
    add = parser.add_argument
    add("--engine", choices=ENGINES, default="torch", help="software for inference [%(default)s]")
    add(
        "--precision", choices=PRECISIONS, default="float32", help="of classification [%(default)s]"
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what decides how faces are read."""
    add = parser.add_argument
    add(
        "--min-confidence",
        type=probability,
        default=0.0,
        metavar="P",
        help='below it a face is "uncertain", 0…1 [0]',
    )
    add(
        "--prior",
        choices=PRIORS,
        default="data",
        help="how frequent expressions are taken to be: as in training, or equally [%(default)s]",
    )
    add("--labels", metavar="NAME", help="the weights' second labels, such as fer2013")


def probability(text: str) -> float:
    """A number of 0…1, as the type of an argument."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0…1, got {text}")
    return value


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an argument."""
    return whole(text, least=1)


def names(text: str) -> list[str]:
    """Names separated by commas, as the type of an argument."""
    return [name.strip() for name in text.split(",")]


def count(text: str) -> int:
    """A whole number of at least 0, as the type of an argument."""
    return whole(text, least=0)


def whole(text: str, *, least: int) -> int:
    """A whole number of at least `least`. Raises ArgumentTypeError: any other text."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from error
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return value
