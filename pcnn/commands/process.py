"""The process of a command: its garbage collection, exit status and error messages.

Nothing here imports torch, so a command with wrong arguments ends at once.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pcnn.errors import InputError, NativeError, WeightsError, without_names

_PACKAGE = "pcnn"
_NOTHING_DONE = 2
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells report them
# The beginning of a message about arguments: "size and width must be …", "batch 64 is larger …",
# "prior 'uniform': …".
_SUBJECT = re.compile(
    r"^(?P<names>[a-z_][a-z\d_]*(?:(?:, | and | or )[a-z_][a-z\d_]*)*)"
    r"(?: '(?P<text>[^']*)'| (?P<number>\d+))?"
    r"(?= (?:must|would|needs|is|cannot)\b|(?<=[\d'])(?::| cannot))"
)
# argument → the name that a command's option has for it
_OTHER_NAMES = {
    "split": "valid_split",
    "missing": "skip_missing",
    "on_error": "skip_damaged",
    "text": "map",
}
# option → what helps where the memory is too small
_REMEDIES = {
    "batch_size": "a smaller --batch-size",
    "batch": "a smaller --batch",
    "device": "--device cpu",
}
# A Python argument in a message: split=, split='valid', batch_size=4, numbering={0: 'neutral'}.
_ARGUMENT = re.compile(r"\b(?P<name>[a-z_]+)=(?:'(?P<text>[^']*)'|(?P<number>\d+)|\{[^}]*\})?")


class CommandParser(argparse.ArgumentParser):
    """A parser that answers wrong usage with one line: the list of all options would bury it."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end the process with status 2."""
        self.exit(_NOTHING_DONE, f"{self.prog}: error: {message}\n")


@contextlib.contextmanager
def few_collections(argv: Sequence[str] | None) -> Iterator[None]:
    """Collect garbage less often while a command runs, to save time.

    Python would search all objects of torch many times during its import, and once more when the
    process ends (benchmarks/bench_predict.py times both ways). Only for commands that last
    seconds: a training makes much garbage. If a program passes argv, nothing changes.
    """
    if argv is None:
        gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        if argv is None:
            gc.freeze()


@contextlib.contextmanager
def quiet_end(argv: Sequence[str] | None) -> Iterator[None]:
    """Let Ctrl-C after a command's work end the process without a traceback.

    All is written then, and Python takes a moment to end. If a program passes argv, nothing
    changes.
    """
    try:
        yield
    finally:
        if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def exit_status(
    program: str, work: Callable[[], int], options: Mapping[str, object] | None = None
) -> int:
    """Run a command's work; print an expected error as one line, without a traceback.

    options: the command's options as attributes, with their values, for `with_options`.
    Returns the work's exit status, or 2 after an expected error, 130 when interrupted, 141 when
    the reader of stdout has closed it.
    """
    options = options or {}
    try:
        with _plain_warnings(program, options):
            return work()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # else Python complains when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}"
    except (ValueError, RuntimeError) as error:
        reason = with_options(_expected(error, options), options)
        if not reason:
            raise
    print(f"{program}: {reason}", file=sys.stderr)
    return _NOTHING_DONE


def complain(program: str, what: object, options: Mapping[str, object]) -> None:
    """Print an error or a hint on stderr, in the words of `with_options`."""
    print(f"{program}: {with_options(str(what), options)}", file=sys.stderr)


def switch(name: str) -> str:
    """The option of an argument's name: `--batch-size` of `batch_size`."""
    return f"--{name.replace('_', '-')}"


def with_options(message: str, options: Mapping[str, object]) -> str:
    """A library's message in the words of a command: options and files, no Python.

    message: may contain arguments such as `batch_size=4` or `engine='torch'`.
    options: the command's options as attributes, such as `batch_size`, with their values.
    Returns the message with `--batch-size 4` and `--engine torch`. `missing='skip'` becomes
    `--skip-missing` where the command has that option, and `split=` becomes `--valid-split`.
    "DetectorOptions: side must be …" becomes "--side must be …", also for several arguments.
    Names of functions and classes of the package are left out before a message, and in it after
    a colon; names of files never are. What is said "(in Python: …)" is left out, too. Arguments
    that are no option of the command stay as they are.
    """

    def known(name: str) -> str:
        name = _OTHER_NAMES.get(name, name) if name not in options else name
        return switch(name) if name in options else ""

    def subject(match: re.Match[str]) -> str:
        parts = re.split("(, | and | or )", match["names"])  # every second one is between names
        parts[::2] = [known(name) or name for name in parts[::2]]
        value = match["text"] or match["number"]
        if value is None:
            return "".join(parts)
        return f"{parts[0]} {value}" if known(match["names"]) else match[0]

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["text"] or match["number"] or ""
        switch = f"{value}_{name}"
        if switch in options:
            return known(switch)
        return f"{known(name)} {value}".rstrip() if known(name) else match[0]

    files = _file_names(options)
    bare = without_names(message, is_file=lambda name: name in files or os.path.lexists(name))
    return _ARGUMENT.sub(option, _SUBJECT.sub(subject, bare))


def _file_names(options: Mapping[str, object]) -> set[str]:
    """What options and arguments are given, as files' names would appear in messages."""
    found: set[str] = set()
    for value in options.values():
        each = value if isinstance(value, (list, tuple)) else (value,)
        found.update(str(Path(one)) for one in each if isinstance(one, (str, Path)))
    return found


@contextlib.contextmanager
def _plain_warnings(program: str, options: Mapping[str, object]) -> Iterator[None]:
    """Print the package's own warnings like errors: as one line, without a place in the code."""
    before, folder = warnings.formatwarning, str(Path(__file__).parents[1])

    def told(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if not filename.startswith(folder):
            return before(message, category, filename, lineno, line)
        plain = str(message).removeprefix(f"{_PACKAGE}: ")
        return f"{program}: {with_options(plain, options)}\n"

    warnings.formatwarning = told
    try:
        yield
    finally:
        warnings.formatwarning = before


def _expected(error: Exception, options: Collection[str]) -> str:
    """The message of an error that the user can correct; "" for any other."""
    if isinstance(error, (InputError, WeightsError, NativeError)):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's own, known without importing torch
        remedies = [text for name, text in _REMEDIES.items() if name in options]
        return f"out of memory on the device{': use ' if remedies else ''}{', or '.join(remedies)}"
    return ""
