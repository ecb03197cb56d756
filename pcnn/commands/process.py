"""What the commands do about the process they run in: garbage, exit status, errors.

Nothing here imports torch, so that a command with wrong arguments ends at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence

_NOTHING_DONE = 2
_INTERRUPTED, _PIPE_CLOSED = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells report them


@contextlib.contextmanager
def few_collections(argv: Sequence[str] | None) -> Iterator[None]:
    """Spare a command the search for garbage among all that torch is made of.

    Python would go through it again and again while it is made, and once more at the end of the
    process (benchmarks/bench_predict.py times both ways). Only for commands that last seconds:
    a training has garbage of its own. Nothing is changed where a program gives argv.
    """
    if argv is None:
        gc.set_threshold(100_000, 20, 20)
    try:
        yield
    finally:
        if argv is None:
            gc.freeze()


def guarded(program: str, work: Callable[[], int]) -> int:
    """Run a command's work; what goes wrong in expected ways is one line, not a traceback.

    Returns the work's exit status; 2 where it could not be done, 130 interrupted, 141 the reader
    of stdout has gone.
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
        reason = _expected(error)
        if not reason:
            raise
    print(f"{program}: {reason}", file=sys.stderr)
    return _NOTHING_DONE


def _expected(error: Exception) -> str:
    """What to tell of an error that is the user's to mend; nothing for any other."""
    from pcnn.errors import InputError, NativeError, WeightsError

    if isinstance(error, (InputError, WeightsError, NativeError)):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported here
        return "out of memory on the device: use a smaller --batch-size, or --device cpu"
    return ""
