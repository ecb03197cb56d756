"""Where `pcnn-predict` writes its results."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.terminal import stderr_console

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.progress import Progress

    from pcnn.commands.reports import Names, Report

STREAMED = ("jsonl", "csv")  # formats that are written line by line, as results come
_PROGRESS_FROM = 5  # files


@contextlib.contextmanager
def report_to(
    arguments: argparse.Namespace,
    files: Sequence[Path],
    names: Names,
    *,
    columns: Sequence[str],
    begun: bool,
) -> Iterator[Report]:
    """What takes the results, in the format that the arguments ask for.

    names: of the classes and values. columns: of CSV, see csv_columns.
    begun: the output has the beginning already.
    Raises InputError: the output is one of the pictures, or cannot be written.
    """
    if arguments.format == "parquet":
        from pcnn.results.parquet import parquet_report

        check_output(arguments.output, files)
        with parquet_report(arguments.output, *names) as parquet:
            yield parquet
        return
    from pcnn.commands.reports import open_report

    with opened(arguments.output, files, append=begun) as stream:
        report = open_report(
            *(arguments.format, stream),
            names=names,
            columns=columns,
            crops=arguments.faces,
            begun=begun,
            all_rows=arguments.all_rows,
        )
        with contextlib.closing(report):
            yield report


def check_output(output: Path, files: Sequence[Path]) -> None:
    """Raises InputError: the output is one of the pictures."""
    if output.resolve() in {file.resolve() for file in files}:
        raise InputError(f"{shown(output)}: --output is one of the pictures: choose another name")


@contextlib.contextmanager
def opened(output: Path | None, files: Sequence[Path], *, append: bool = False) -> Iterator[TextIO]:
    """The stream for data: stdout, or the file `output`.

    append: write after what the file has.
    Raises InputError: `output` is one of the pictures, or cannot be written.
    """
    if output is None:
        with contextlib.suppress(AttributeError):  # the caller may have replaced stdout
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        yield sys.stdout
        sys.stdout.flush()
        return
    check_output(output, files)
    try:
        mode: Literal["a", "w"] = "a" if append else "w"
        stream = output.open(mode, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise not_written(output, error) from error
    with stream:
        yield stream


def not_written(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that cannot be made."""
    return InputError(f"{shown(path)}: cannot be written ({error.strerror or error})")


def save_picture(picture: Image, target: Path) -> None:
    """Write one drawn picture. Raises InputError: it cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target, quality=92)
    except OSError as error:
        raise not_written(target, error) from error


def make_folder(folder: Path) -> None:
    """Make the folder for drawn pictures. Raises InputError: it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error


def has_room(arguments: argparse.Namespace) -> bool:
    """Whether stderr is a terminal, and no lines of data appear there, too."""
    streaming = arguments.output is None and arguments.format in STREAMED
    return sys.stderr.isatty() and not (streaming and sys.stdout.isatty())


@contextlib.contextmanager
def progress(arguments: argparse.Namespace, count: int) -> Iterator[Progress | None]:
    """A progress bar on stderr with one task; None without a bar.

    There is no bar for few files, without a terminal on stderr, or while lines of data appear
    on the terminal.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    if count < _PROGRESS_FROM or not has_room(arguments):
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr_console()
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        bar.add_task("", total=count)
        yield bar
