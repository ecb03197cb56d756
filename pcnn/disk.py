"""Files on disk: paths, the cache folder, atomic writes and lines of CSV."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from pcnn.errors import InputError

_COUNT = itertools.count()  # of temporary files in this process
# Characters of a name in its temporary one. Systems allow 255 bytes, encrypted folders 143.
_KEPT = 30


def as_path(subject: str, value: object) -> Path:
    """A path from the caller. subject: its function and name, at the message's beginning.

    Raises InputError: it is no text and no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{subject} must be a path, got {value!r}")
    return Path(value)


def cache_folder() -> Path:
    """The folder for downloads and converted networks: $XDG_CACHE_HOME/pcnn or ~/.cache/pcnn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcnn"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file's path; the file is renamed to `path` when the block succeeds.

    A reader finds either the old file or the complete new one, also after a loss of power: what was
    written reaches the disk before the rename. Each call has its own temporary name. So several
    may write at once, and the last rename wins.
    The folder must exist. Raises OSError: the file cannot be renamed.
    """
    # The suffix stays at the end: some writers choose the format by it. The beginning of a long
    # name is cut, because with more before it the system may refuse it.
    # Two containers at one folder may have the same process numbers, but not the same threads.
    own = f"{os.getpid()}-{threading.get_ident()}-{next(_COUNT)}"
    temporary = path.with_name(f"part-{own}-{path.name[-_KEPT:]}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def keep_if_possible(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file of a cache, whose loss costs time alone; its folder is made if missing.

    write: writes to the path that it is given. A file that cannot be written is no error but a
    warning, since the caller has what it would hold.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write(temporary)
    except OSError as error:
        reason = error.strerror or error
        warnings.warn(f"{path}: cannot be kept for the next time ({reason})", stacklevel=3)


class CsvStream:
    """A stream for `csv.writer` and `csv.DictWriter` with their own line ends; it writes "\\n".

    Python 3.11 quotes a "\\r", as a file's name may have, only where lines end with "\\r\\n".
    Unquoted it would end a line for whoever reads the file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        """Write one line, as `csv` gives it."""
        return self._stream.write(line.removesuffix("\r\n") + "\n")
