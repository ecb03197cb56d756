"""`pcnn-train`: train the networks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from pcnn.commands.process import CommandParser, exit_status
from pcnn.version import __version__

# Name → summary, and the module in this folder that has add_arguments and run.
_TRAININGS = {
    "head": ("fit your own labels or numbers to your own pictures", "train_head"),
    "detector": ("train the face detector", "train_detector"),
    "trunk": ("train a single trunk, from which all six start", "train_trunk"),
    "expression": ("train the expression network", "train_expression"),
    "movements": ("train the network of facial movements", "train_movements"),
    "landmarks": ("train the network that refines landmarks", "train_landmarks"),
    "ensemble": ("join trained expression networks in one file", "train_ensemble"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-train`: train a network from data.

    argv: the arguments; the first names the network to train. None means those of the process.
    Exit status, SystemExit: see shared.run_command.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = CommandParser(
        prog="pcnn-train", description="Train the networks of pcnn.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"pcnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, module) in _TRAININGS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            training = import_module(f"pcnn.commands.{module}")
            training.add_arguments(command)
            command.set_defaults(run=training.run)
    arguments = parser.parse_args(words)
    return exit_status(parser.prog, lambda: int(arguments.run(arguments)), vars(arguments))
