"""Work in a forked process that is killed at a chosen moment: a change of a file, or a time."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_WRITING = os.O_WRONLY | os.O_RDWR


def run_killed(
    work: Callable[[], object], folder: Path, *, change: int = 0, seconds: float = 0.0
) -> int | None:
    """Fork, and do some work in the child; it is killed before a change, or after a time.

    folder: changes of files in it count. change: the number of the one before which the child is
        killed, from 1; 0 for none. seconds: of processor time, after which it is killed; 0 for
        never.
    Returns how many changes a child made that was not killed; None if it was.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads
        child = os.fork()
    if not child:
        _work(work, str(folder), change, seconds, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        counted = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (-signal.SIGKILL, -signal.SIGPROF):
        return None
    assert status == 0, f"the child failed with {status}"
    return int(counted)


def _work(
    work: Callable[[], object], folder: str, change: int, seconds: float, writing: int
) -> None:
    count, status = 0, 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if not (opened or event in _CHANGES) or isinstance(arguments[0], int):
            return
        if os.fsdecode(arguments[0]).startswith(folder):
            count += 1
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process as abruptly as a kill
        signal.setitimer(signal.ITIMER_PROF, seconds)
        work()
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(writing, str(count).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
