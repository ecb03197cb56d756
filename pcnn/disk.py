"""Files on disk: the cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder for what is downloaded or made anew: $XDG_CACHE_HOME/pcnn or ~/.cache/pcnn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcnn"
