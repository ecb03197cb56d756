"""The commands `pcnn-predict`, `pcnn-train`, `pcnn-evaluate`, `pcnn-embed` and others.

torch and the rest are imported once the arguments are known to be good, so that --help and
mistyped options answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from pcnn import __version__
from pcnn.commands.process import few_collections, guarded

_ENGINES = ("auto", "torch", "compile", "openvino", "onnxruntime")
_PRECISIONS = ("float32", "bfloat16", "float16", "auto")

_EXAMPLES = """\
examples:
  pcnn-predict photo.jpg                              a table of the faces in it
  pcnn-predict photos --annotate drawn                a folder, with pictures to look at
  pcnn-predict photo.jpg --explain why                what each region says, and the heat
  pcnn-predict 'photos/**/*.jpg' --format csv --output faces.csv
  pcnn-predict photos --format jsonl | jq .faces[].label
  pcnn-predict --faces fer/*.png                      pictures that already are faces
  pcnn-predict --info                                 versions, device, weights, ops

exit status: 0 all predicted, 1 some pictures failed (each named on stderr), 2 nothing done.
"""


def predict(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-predict`: read the expressions in pictures.

    argv: the arguments; None takes the process's own.
    Returns the exit status: 0 all right, also where pictures have no face; 1 some inputs
    failed; 2 nothing could be done; 130 interrupted; 141 the reader of stdout has gone.
    Raises SystemExit: --help, --version (0) and wrong usage (2), as argparse does.
    """
    parser = _predict_parser()
    arguments = parser.parse_args(argv)
    if not arguments.paths and not arguments.info:
        parser.error("give at least one picture, folder or pattern (or --info)")
    if arguments.faces and (arguments.annotate or arguments.min_score is not None):
        parser.error(
            "--faces takes each picture for a face, so --annotate and --min-score have no place"
        )
    with few_collections(argv):
        return guarded(parser.prog, lambda: _predict(arguments))


def train(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-train`: train a network from data.

    argv: the arguments, the first of which names what to train; None takes the process's own.
    Returns the exit status. Raises SystemExit as `predict` does.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog="pcnn-train", description="Train the networks of pcnn.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"pcnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, load) in _TRAININGS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:  # only this one's arguments cost an import of torch
            add_arguments, run = load()
            add_arguments(command)
            command.set_defaults(run=run)
    arguments = parser.parse_args(words)
    run = arguments.run
    return guarded(parser.prog, lambda: int(run(arguments)))


def evaluate(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-evaluate`: score an expression network on labelled faces.

    argv: the arguments; None takes the process's own.
    Returns the exit status: 0 or, where nothing could be scored, 2. Raises SystemExit as
    `predict` does.
    """
    parser = _evaluate_parser()
    arguments = parser.parse_args(argv)
    return guarded(parser.prog, lambda: _evaluate(arguments))


def embed(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-embed`: the vectors of the faces in pictures, into one file.

    argv, exit status, SystemExit: as `predict`.
    """
    parser = _embed_parser()
    arguments = parser.parse_args(argv)
    if arguments.faces and arguments.min_score is not None:
        parser.error("--faces takes each picture for a face, so --min-score has no place")
    with few_collections(argv):
        return guarded(parser.prog, lambda: _embed(arguments))


def deconvnet(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-deconvnet`: what feature maps answer to, as pictures.

    argv, exit status, SystemExit: as `evaluate`.
    """
    from pcnn import deconvnet_command

    text = "Draw what feature maps answer to in faces, see docs/deconvnet.md."
    return _run("pcnn-deconvnet", text, deconvnet_command, argv)


def units(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-units`: which feature maps answer to which units of facial action.

    argv, exit status, SystemExit: as `evaluate`.
    """
    from pcnn import units_command

    text = "Measure which feature maps answer to which facial units, see docs/deconvnet.md."
    return _run("pcnn-units", text, units_command, argv)


def export(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-export`: a network as a file that runs without pcnn.

    argv, exit status, SystemExit: as `evaluate`.
    """
    from pcnn import export_command

    text = "Write a network as a file that runs without pcnn, see docs/export.md."
    return _run("pcnn-export", text, export_command, argv)


def saliency(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-saliency`: faces, their saliency maps, and the products of both.

    argv, exit status, SystemExit: as `predict`.
    """
    from pcnn import saliency_command as command

    text = "Draw where in faces the eye is drawn, see docs/saliency.md."
    return _run("pcnn-saliency", text, command, argv)


# --- pcnn-predict ---


def _predict_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pcnn-predict",
        description="Find the faces in pictures and read their expressions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="picture, folder (searched), or glob pattern")
    add("--format", choices=("table", "json", "jsonl", "csv"), default="table")
    add("--output", type=Path, metavar="FILE", help="write there instead of to stdout")
    add("--annotate", type=Path, metavar="DIR", help="save a copy of each picture, drawn on")
    add("--explain", type=Path, metavar="DIR", help="save a picture of why each face is read so")
    add("--faces", action="store_true", help="each picture is a face, cut out already")
    add("--as-they-are", action="store_true", help="align no such face, even if the weights ask")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    _add_engine(parser)
    add("--min-score", type=_probability, metavar="P", help="least detection score, 0…1")
    add("--batch-size", type=_positive, metavar="N", help="pictures in one pass")
    add("--info", action="store_true", help="show versions, device, weights, ops; then stop")
    add("--version", action="version", version=f"pcnn {__version__}")
    return parser


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--engine", choices=_ENGINES, default="torch", help="what runs the networks [%(default)s]")
    add("--precision", choices=_PRECISIONS, default="float32", help="of expressions [%(default)s]")


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0…1, got {text}")
    return value


def _positive(text: str) -> int:
    return _whole(text, least=1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _count(text: str) -> int:
    return _whole(text, least=0)


def _whole(text: str, *, least: int) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be whole, got {text!r}") from error
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return value


def _predict(arguments: argparse.Namespace) -> int:
    from pcnn import commands

    return commands.show_info(arguments) if arguments.info else commands.predict_files(arguments)


# --- pcnn-train ---

_Arguments = Callable[[argparse.ArgumentParser], None]
_Run = Callable[[argparse.Namespace], int]


def _detector_training() -> tuple[_Arguments, _Run]:
    from pcnn import train_detector

    return train_detector.add_arguments, train_detector.run


def _trunk_training() -> tuple[_Arguments, _Run]:
    from pcnn import train_expression

    return train_expression.add_trunk_arguments, train_expression.run_trunk


def _expression_training() -> tuple[_Arguments, _Run]:
    from pcnn import train_expression

    return train_expression.add_arguments, train_expression.run


_TRAININGS: dict[str, tuple[str, Callable[[], tuple[_Arguments, _Run]]]] = {
    "detector": ("train the face detector", _detector_training),
    "trunk": ("train one trunk alone, for all six to start from", _trunk_training),
    "expression": ("train the expression network", _expression_training),
}


# --- pcnn-evaluate ---


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pcnn-evaluate",
        description="Score an expression network on labelled faces (needs pcnn[train]).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", required=True, metavar="PATH", help="a data set, see docs/data.md")
    add("--split", help="the part of it to score, such as valid or test")
    add("--layout", default="auto", help="how the data set lies there [%(default)s]")
    add("--protocol", choices=("argmax", "majority"), default="argmax", help="[%(default)s]")
    add("--labels", choices=("votes", "fer2013"), help="which of FER+'s labels [votes]")
    add("--duplicates", action="store_true", help="keep near-copies of faces of other splits")
    add("--images", metavar="DIR", help="where the faces of a list are: a folder of them, or FER+")
    add("--numbering", type=_names, metavar="A,B,…", help="what the classes' numbers 0, 1, … mean")
    add("--skip-missing", action="store_true", help="leave out listed pictures that are not there")
    add("--skip-damaged", action="store_true", help="leave out pictures that cannot be read")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--output", type=Path, metavar="DIR", help="write report, tables and pictures there")
    add("--json", action="store_true", help="print the report as JSON instead of tables")
    add("--flip", action="store_true", help="score with and without the mirrored face")
    add("--as-they-are", action="store_true", help="align no face, even if the weights ask")
    add("--bootstrap", type=_count, default=2000, metavar="N", help="rounds [%(default)s]")
    add("--batch-size", type=_positive, default=64, metavar="N", help="[%(default)s]")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … [%(default)s]")
    add("--no-latency", action="store_true", help="do not time single faces")
    add("--version", action="version", version=f"pcnn {__version__}")
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    from pcnn import evaluate_expression

    return evaluate_expression.run(arguments)


# --- pcnn-embed ---


def _embed_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pcnn-embed",
        description="Write the faces in pictures as vectors, see docs/embeddings.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="picture, folder (searched), or glob pattern")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help=".npz or .parquet")
    add("--faces", action="store_true", help="each picture is a face, cut out already")
    add("--as-they-are", action="store_true", help="align no such face, even if the weights ask")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    _add_engine(parser)
    add("--min-score", type=_probability, metavar="P", help="least detection score, 0…1")
    add("--batch-size", type=_positive, metavar="N", help="pictures in one pass")
    add("--version", action="version", version=f"pcnn {__version__}")
    return parser


def _embed(arguments: argparse.Namespace) -> int:
    from pcnn import embed_files

    return embed_files.run(arguments)


# --- all ---


def _run(program: str, text: str, command: ModuleType, argv: Sequence[str] | None) -> int:
    """Parse and run a command whose module has its arguments and its work."""
    parser = argparse.ArgumentParser(program, description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pcnn {__version__}")
    command.add_arguments(parser)
    arguments = parser.parse_args(argv)
    return guarded(program, lambda: int(command.run(arguments)))
