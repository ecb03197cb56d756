"""`pcnn-predict`: the expressions in many files, and what --info shows."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pcnn.commands.shared import (
    DONE,
    NOTHING_DONE,
    SOME_FAILED,
    add_cluster,
    add_engine,
    load_recognizer,
    photograph_hint,
    positive,
    predict_on_ray,
    probability,
    run_command,
    settle_address,
    wrong_on_ray,
)
from pcnn.errors import InputError, NativeError, WeightsError, counted
from pcnn.images.files import annotated_names, find_images, shown
from pcnn.terminal import stderr_console
from pcnn.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.progress import Progress

    from pcnn.commands.reports import Report
    from pcnn.recognition.recognizer import Recognizer
    from pcnn.results.parquet import ParquetReport
    from pcnn.results.values import Expression, Prediction


_PROGRESS_FROM = 5  # files


_EXAMPLES = """\
examples:
  pcnn-predict photo.jpg                              a table of the faces in it
  pcnn-predict photos --annotate drawn                a folder, with pictures to look at
  pcnn-predict photo.jpg --explain why                what each region says, and the heat
  pcnn-predict 'photos/**/*.jpg' --format csv --output faces.csv
  pcnn-predict photos --format jsonl | jq .faces[].label
  pcnn-predict photos --format parquet --output faces.parquet
  pcnn-predict --ray photos --output faces.parquet    many processes, or a cluster; resumable
  pcnn-predict --faces fer/*.png                      pictures that already are faces
  pcnn-predict --info                                 versions, device, weights, ops

exit status: 0 all predicted, 1 some pictures failed (each named on stderr), 2 nothing done.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="picture, folder (searched), or glob pattern")
    add("--format", choices=("table", "json", "jsonl", "csv", "parquet"), default="table")
    add("--output", type=Path, metavar="FILE", help="write there instead of to stdout")
    add("--annotate", type=Path, metavar="DIR", help="save a copy of each picture, drawn on")
    add("--explain", type=Path, metavar="DIR", help="save a picture of why each face is read so")
    add("--faces", action="store_true", help="each picture is a face, cut out already")
    add("--as-they-are", action="store_true", help="align no such face, even if the weights ask")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    add_engine(parser)
    add("--min-score", type=probability, metavar="P", help="least detection score, 0…1")
    add("--batch-size", type=positive, metavar="N", help="pictures in one pass")
    add("--info", action="store_true", help="show versions, device, weights, ops; then stop")
    add_cluster(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what the parsed arguments ask; returns the exit status.

    Raises InputError, WeightsError, NativeError: nothing can be done at all.
    """
    if arguments.info:
        return show_info(arguments)
    return predict_on_ray(arguments) if arguments.ray else predict_files(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-predict`; argv, exit status, SystemExit: see shared.run_command."""
    description = "Find the faces in pictures and read their expressions."
    return run_command(
        *("pcnn-predict", description, add_arguments, run, argv),
        epilog=_EXAMPLES,
        check=_check,
        short=True,
    )


def _check(arguments: argparse.Namespace) -> str:
    settle_address(arguments)
    if not arguments.paths and not arguments.info:
        return "give at least one picture, folder or pattern (or --info)"
    if arguments.faces and (arguments.annotate or arguments.min_score is not None):
        return "--faces takes each picture for a face, so --annotate and --min-score have no place"
    if arguments.ray:
        return wrong_on_ray(arguments)
    if arguments.format == "parquet" and (arguments.output is None or arguments.info):
        return "--format parquet writes faces to a file: give --output FILE, and no --info"
    return ""


def predict_files(arguments: argparse.Namespace) -> int:
    """Predict all files, complain of each that fails, and return the exit status.

    arguments: as `pcnn-predict` parses them.
    Raises InputError, WeightsError, NativeError: nothing can be done at all.
    """
    from pcnn.results.values import Prediction

    files, errors = find_images(arguments.paths)
    for error in errors:
        _tell(error)
    if not files:
        return NOTHING_DONE
    drawn = _targets(arguments.annotate, files, word="annotated", jpeg=True)
    explained = _targets(arguments.explain, files, word="explained", jpeg=False)
    recognizer = load_recognizer(arguments)
    if arguments.faces and (hint := photograph_hint(files)):
        _tell(hint)
    failed = 0
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(_report(arguments, files, recognizer.classes))
        # Inside of the report: a table printed while the bar is there would be torn.
        bar = stack.enter_context(_progress(arguments, len(files)))
        for file, result in _results(recognizer, files, arguments):
            try:
                if isinstance(result, InputError):
                    raise result
                report.add(str(file), result)
                if isinstance(result, Prediction) and drawn:
                    _save(result.draw(file), drawn[file])
                if explained:
                    _explain(recognizer, file, explained[file], arguments)
            except InputError as error:
                failed += 1
                _tell(error, bar)
                if result is error:
                    report.fail(str(file), error)
            if bar:
                bar.advance(bar.task_ids[0])
    if failed == len(files):
        return NOTHING_DONE
    return SOME_FAILED if failed or errors else DONE


def show_info(arguments: argparse.Namespace) -> int:
    """Print what is installed and what would be used.

    Raises InputError, WeightsError, NativeError: the recognizer cannot be made; after
    printing the rest.
    """
    import numpy as np
    import PIL
    import torch

    pairs = [
        ("pcnn", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", f"{torch.__version__}, {counted(torch.get_num_threads(), 'thread')}"),
        ("numpy", np.__version__),
        ("pillow", PIL.__version__),
    ]
    failure: Exception | None = None
    try:
        pairs += load_recognizer(arguments).info()
    except (InputError, WeightsError, NativeError) as error:
        failure = error
    with _opened(arguments.output, []) as stream:
        if arguments.format in ("json", "jsonl"):
            stream.write(json.dumps(dict(pairs), indent=2) + "\n")
        else:
            width = max(len(name) for name, _ in pairs)
            stream.writelines(f"{name:{width}}  {text}\n" for name, text in pairs)
    if failure is not None:
        raise failure
    return DONE


def _results(
    recognizer: Recognizer, files: Sequence[Path], arguments: argparse.Namespace
) -> Iterator[tuple[Path, Prediction | Expression | InputError]]:
    """The result of each file, in order, with a bounded number of pictures in memory."""
    results: Iterator[Prediction | Expression | InputError]
    if arguments.faces:
        results = recognizer.predict_crops(iter(files), on_error="return")
    else:
        results = recognizer.predict(iter(files), min_score=arguments.min_score, on_error="return")
    return zip(files, results, strict=True)


def _explain(
    recognizer: Recognizer, file: Path, target: Path, arguments: argparse.Namespace
) -> None:
    """Save the explanations of one picture's faces below each other; nothing without faces.

    Raises InputError: the file cannot be read any more, or the picture not be written.
    """
    from pcnn.results.style import stack

    found = (
        [recognizer.explain_crops(file)]
        if arguments.faces
        else recognizer.explain(file, min_score=arguments.min_score)
    )
    if found:
        numbers = range(1, len(found) + 1) if len(found) > 1 else [None]
        drawn = [each.draw(number=number) for each, number in zip(found, numbers, strict=True)]
        _save(stack(drawn), target)


def _save(picture: Image, target: Path) -> None:
    """Write one drawn picture. Raises InputError: it cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=92)
    except OSError as error:
        raise _not_written(target, error) from error


@contextlib.contextmanager
def _report(
    arguments: argparse.Namespace, files: Sequence[Path], classes: Sequence[str]
) -> Iterator[Report | ParquetReport]:
    """What takes the results, in the format that the arguments ask for.

    Raises InputError: the output is one of the pictures, or cannot be written.
    """
    from pcnn.commands.reports import open_report

    if arguments.format == "parquet":
        from pcnn.results.parquet import parquet_report

        _check_output(arguments.output, files)
        with parquet_report(arguments.output, classes) as parquet:
            yield parquet
        return
    with (
        _opened(arguments.output, files) as stream,
        contextlib.closing(
            open_report(arguments.format, stream, classes=classes, crops=arguments.faces)
        ) as report,
    ):
        yield report


def _check_output(output: Path, files: Sequence[Path]) -> None:
    """Raises InputError: the output is one of the pictures."""
    if output.resolve() in {file.resolve() for file in files}:
        raise InputError(f"{shown(output)}: --output is one of the pictures: choose another name")


@contextlib.contextmanager
def _opened(output: Path | None, files: Sequence[Path]) -> Iterator[TextIO]:
    """The stream for data: stdout, or `output`, which must be none of the pictures.

    Raises InputError: `output` is one of them, or cannot be written.
    """
    if output is None:
        with contextlib.suppress(AttributeError):  # a caller may have put another stream there
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        yield sys.stdout
        sys.stdout.flush()
        return
    _check_output(output, files)
    try:
        stream = output.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise _not_written(output, error) from error
    with stream:
        yield stream


def _targets(
    folder: Path | None, files: Sequence[Path], *, word: str, jpeg: bool
) -> dict[Path, Path]:
    """Where in the folder, which is made, each file's drawn picture goes; none without a folder.

    Raises InputError: the folder cannot be made.
    """
    if folder is None:
        return {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(folder, error) from error
    return annotated_names(files, folder, word=word, jpeg=jpeg)


def _not_written(path: Path, error: OSError) -> InputError:
    """The error to raise where a file or folder cannot be made."""
    return InputError(f"{shown(path)}: cannot be written ({error.strerror or error})")


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace, count: int) -> Iterator[Progress | None]:
    """A progress bar on stderr with one task; None where it would be in the way.

    It is, for few files, where stderr is no terminal, and where stdout is one on which
    lines of data appear meanwhile.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from pcnn.commands.reports import STREAMED

    streaming = arguments.output is None and arguments.format in STREAMED
    if count < _PROGRESS_FROM or not sys.stderr.isatty() or (streaming and sys.stdout.isatty()):
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr_console()
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        bar.add_task("", total=count)
        yield bar


def _tell(what: object, bar: Progress | None = None) -> None:
    """One line on stderr, past the progress bar: an error, or a hint."""
    line = f"pcnn-predict: {what}"
    if bar is None:
        print(line, file=sys.stderr)
    else:
        bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
