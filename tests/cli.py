"""The commands by short names, for tests that call them."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

__all__ = [
    "deconvnet",
    "embed",
    "evaluate",
    "export",
    "predict",
    "saliency",
    "serve",
    "train",
    "units",
]


def help_of(command: Callable[..., Any]) -> str:
    """What `--help` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        command(["--help"])
    return printed.getvalue()
