"""Files on disk: the cache folder, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """The folder for what is downloaded or made anew: $XDG_CACHE_HOME/pcnn or ~/.cache/pcnn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcnn"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file's path; the file gets the name `path` when the block ends well.

    So a reader finds the old file or the whole new one, never a part of it. Each process has a
    temporary name of its own: two may write at once, and the later rename wins.
    The folder must exist. Raises OSError: the file cannot be renamed.
    """
    # The suffix stays at the end, since some writers choose the format by it.
    temporary = path.with_name(f"part-{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
