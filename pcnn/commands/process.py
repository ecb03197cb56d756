"""The process of a command: its garbage collection, exit status and error messages.

Nothing here imports torch, so a command with wrong arguments ends at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

_NOTHING_DONE = 2
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells report them
# The beginning of a message about arguments: "ExpressionOptions: size and width must be …".
_SUBJECT = re.compile(r"^[\w.]+: (?P<names>[a-z_]+(?:(?:, | and | or )[a-z_]+)*) must\b")
_LONGER = {"split": "valid_split"}  # argument → the name that another command has for it
# A Python argument in a message: split=, split='valid', batch_size=4, numbering={0: 'neutral'}.
_ARGUMENT = re.compile(r"\b(?P<name>[a-z_]+)=(?:'(?P<text>[^']*)'|(?P<number>\d+)|\{[^}]*\})?")


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


def exit_status(program: str, work: Callable[[], int], options: Collection[str] = ()) -> int:
    """Run a command's work; print an expected error as one line, without a traceback.

    options: names of the command's options as attributes, for `with_options`.
    Returns the work's exit status, or 2 after an expected error, 130 when interrupted, 141 when
    the reader of stdout has closed it.
    """
    try:
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
        reason = with_options(_expected(error), options)
        if not reason:
            raise
    print(f"{program}: {reason}", file=sys.stderr)
    return _NOTHING_DONE


def with_options(message: str, options: Collection[str]) -> str:
    """A library's message that names a command's options instead of Python arguments.

    message: may contain arguments such as `batch_size=4` or `engine='torch'`.
    options: names of the command's options as attributes, such as `batch_size`.
    Returns the message with `--batch-size 4` and `--engine torch`. `missing='skip'` becomes
    `--skip-missing` where the command has that option, and `split=` becomes `--valid-split`.
    "Function: size must be …" becomes "--size must be …", also for several arguments. Arguments
    that are no option of the command stay as they are.
    """

    def subject(match: re.Match[str]) -> str:
        parts = re.split("(, | and | or )", match["names"])  # every second one is between names
        if not set(parts[::2]) <= set(options):
            return match[0]
        parts[::2] = [f"--{name.replace('_', '-')}" for name in parts[::2]]
        return f"{''.join(parts)} must"

    def option(match: re.Match[str]) -> str:
        name, value = match["name"], match["text"] or match["number"] or ""
        switch = f"{value}_{name}"
        if switch in options:
            return f"--{switch.replace('_', '-')}"
        name = _LONGER.get(name, name) if name not in options else name
        if name not in options:
            return match[0]
        return f"--{name.replace('_', '-')} {value}".rstrip()

    return _ARGUMENT.sub(option, _SUBJECT.sub(subject, message))


def _expected(error: Exception) -> str:
    """The message of an error that the user can correct; "" for any other."""
    from pcnn.errors import InputError, NativeError, WeightsError

    if isinstance(error, (InputError, WeightsError, NativeError)):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's own, known without importing torch
        return "out of memory on the device: use a smaller --batch-size, or --device cpu"
    return ""
