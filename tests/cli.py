"""The commands by short names, for tests that call them."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

from pcnn.commands.deconvnet import main as deconvnet
from pcnn.commands.embed import main as embed
from pcnn.commands.evaluate import main as evaluate
from pcnn.commands.export import main as export
from pcnn.commands.predict import main as predict
from pcnn.commands.saliency import main as saliency
from pcnn.commands.serve import main as serve
from pcnn.commands.train import main as train
from pcnn.commands.units import main as units

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
