"""`pcnn-train movements`: train the network of landmarks, facial movements and head pose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pcnn.commands.shared import number
from pcnn.training.movements.options import MovementOptions
from pcnn.training.teacher_options import TaughtOptions

_COUNTS = (
    ("steps", "updates"),
    ("batch", "faces in each update"),
    ("seed", "seed of all random choices"),
    ("save-every", "steps between checkpoints"),
)
_RATES = (("photographs-share", "share of a batch"), ("learning-rate", "at its peak"))
_PATHS = ("data", "teacher_labels", "photographs", "output", "work")


def add_taught_arguments(parser: argparse.ArgumentParser, options: type[TaughtOptions]) -> None:
    """Add the options of a training on a teacher's answers to FER+ and photographs."""
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of contact sheets of faces (FER+)")
    add("--photographs", type=Path, required=True, help="tar of JPEG files")
    add("--teacher-labels", type=Path, required=True, help="folder of the teacher's answers")
    add("-o", "--output", type=Path, required=True, help="safetensors file to write")
    add("--work", type=Path, help="folder for checkpoint and log")
    for kind, options_of_kind in ((int, _COUNTS), (number, _RATES)):
        for name, text in options_of_kind:
            value = getattr(options, name.replace("-", "_"))
            add(f"--{name}", type=kind, default=value, help=f"{text} ({value})")


def taught_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of add_taught_arguments, by the names of TaughtOptions."""
    names = [*_PATHS, *(name.replace("-", "_") for name, _ in _COUNTS + _RATES)]
    return {name: getattr(arguments, name) for name in names}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcnn-train movements` to a parser."""
    add_taught_arguments(parser, MovementOptions)
    add, default = parser.add_argument, MovementOptions.init
    start = f"expression or movement weights to start from, or none ({default})"
    add("--init", default=default, help=start)
    text = f"share of a batch whose mirror images are also seen ({MovementOptions.symmetry})"
    add("--symmetry", type=number, default=MovementOptions.symmetry, metavar="SHARE", help=text)
    precision = MovementOptions.precision
    add("--precision", choices=("float32", "bfloat16"), default=precision, help=f"({precision})")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from pcnn.training.movements.run import train_movements

    own = {name: getattr(arguments, name) for name in ("init", "precision", "symmetry")}
    train_movements(MovementOptions(**taught_options(arguments), **own))
    return 0
