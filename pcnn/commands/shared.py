"""Parts that several commands share: their start, argument types and the recognizer."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.process import (
    CommandParser,
    exit_status,
    few_collections,
    quiet_end,
)
from pcnn.images.files import shown
from pcnn.version import __version__

if TYPE_CHECKING:
    from pcnn.recognition.recognizer import Recognizer
    from pcnn.weights.expression import ExpressionWeights

DONE, SOME_FAILED, NOTHING_DONE = 0, 1, 2  # exit statuses

# The choices of engines.select, repeated to avoid its import; a test compares both.
ENGINES = ("auto", "torch", "compile", "openvino", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
PRIORS = ("data", "uniform")

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
    parser = CommandParser(
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
    with quiet_end(argv), few_collections(argv) if short else contextlib.nullcontext():
        return exit_status(program, lambda: run(arguments), options)


def load_recognizer(arguments: argparse.Namespace) -> Recognizer:
    """The recognizer that the arguments describe.

    Its module is imported here, so wrong paths are reported before torch is loaded.
    """
    from pcnn.recognition.recognizer import Recognizer

    options = recognizer_options(arguments)
    first = [options.pop(name) for name in ("weights", "detector", "device")]
    return Recognizer(*first, **options)


def load_weights(
    arguments: argparse.Namespace, name: str | Path, labels: str | None = None
) -> ExpressionWeights:
    """Expression weights, see load_expression; with --as-they-are they do not align faces."""
    import dataclasses

    from pcnn.weights.expression import load_expression

    loaded = load_expression(name, labels)
    return dataclasses.replace(loaded, aligned=False) if arguments.as_they_are else loaded


def recognizer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same as arguments of Recognizer by name."""
    head, min_face = getattr(arguments, "head", None), getattr(arguments, "min_face", None)
    return {
        "weights": arguments.weights,
        "detector": arguments.detector,
        "device": arguments.device,
        "engine": arguments.engine,
        "precision": arguments.precision,
        "batch_size": arguments.batch_size,
        "align_crops": False if arguments.as_they_are else None,
        # Not every command has these.
        "labels": getattr(arguments, "labels", None),
        "prior": getattr(arguments, "prior", "data"),
        "min_confidence": getattr(arguments, "min_confidence", 0.0),
        "min_quality": getattr(arguments, "min_quality", 0.0),
        **({"head": str(head)} if head else {}),
        **({"min_face": min_face} if min_face else {}),
        **({"movements": True} if getattr(arguments, "movements", False) else {}),
    }


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


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine and --precision."""
    add = parser.add_argument
    add("--engine", choices=ENGINES, default="torch", help="software for inference [%(default)s]")
    add(
        "--precision", choices=PRECISIONS, default="float32", help="of the arithmetic [%(default)s]"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading a data set, which is named by --data."""
    add = parser.add_argument
    add("--split", help="part of the data set, such as valid or test")
    add("--layout", default="auto", help="layout of the data set [%(default)s]")
    add("--images", metavar="DIR", help="folder with the faces of a list, or FER+")
    add("--numbering", type=names, metavar="A,B,…", help="names of the classes 0, 1, …")
    add("--skip-missing", action="store_true", help="skip listed pictures that do not exist")
    add("--skip-damaged", action="store_true", help="skip pictures that cannot be read")


def data_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_data` as arguments of load_faces by name."""
    return {
        "split": arguments.split,
        "layout": arguments.layout,
        "images": arguments.images,
        "numbering": dict(enumerate(arguments.numbering)) if arguments.numbering else None,
        "missing": "skip" if arguments.skip_missing else "raise",
        "on_error": "skip" if arguments.skip_damaged else "raise",
    }


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
        "--min-quality",
        type=probability,
        default=0.0,
        metavar="Q",
        help='a face of a photograph that can be seen less well is "uncertain", 0…1 [0]',
    )
    add(
        "--prior",
        choices=PRIORS,
        default="data",
        help="how frequent expressions are taken to be: as in training, or equally [%(default)s]",
    )
    add("--labels", metavar="NAME", help="the weights' second labels, such as fer2013")


def number(text: str) -> float:
    """A finite number, as the type of an argument. Raises ArgumentTypeError: any other text."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def share(text: str) -> float:
    """A number of at least 0, as the type of an argument."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def probability(text: str) -> float:
    """A number of 0…1, as the type of an argument."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0…1, got {text}")
    return value


def pixels(text: str) -> float:
    """Pixels of at least 1, as the type of an argument."""
    value = number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be pixels of at least 1, got {text}")
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
