"""`pcnn-train movements`: train the network of landmarks, facial movements and head pose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.training.movements.options import MovementOptions

if TYPE_CHECKING:
    from pcnn.training.landmarks.options import LandmarkOptions

_COUNTS = (
    ("steps", "updates"),
    ("batch", "faces in each update"),
    ("seed", "seed of all random choices"),
    ("save-every", "steps between checkpoints"),
)
_TAUGHT = ("data", "photographs", "output", "work", "photographs_share", "learning_rate")


def add_taught_arguments(
    parser: argparse.ArgumentParser, options: type[MovementOptions] | type[LandmarkOptions]
) -> None:
    """Add the options of a training on a teacher's answers to FER+ and photographs."""
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of contact sheets of faces (FER+)")
    add("--photographs", type=Path, required=True, help="tar of JPEG files")
    add("--teacher-labels", type=Path, required=True, help="folder of the teacher's answers")
    add("--output", type=Path, required=True, help="safetensors file to write")
    add("--work", type=Path, help="folder for checkpoint and log")
    for name, text in _COUNTS:
        value = getattr(options, name.replace("-", "_"))
        add(f"--{name}", type=int, default=value, help=f"{text} ({value})")
    share, rate = options.photographs_share, options.learning_rate
    add("--photographs-share", type=float, default=share, help=f"share of a batch ({share})")
    add("--learning-rate", type=float, default=rate, help=f"at its peak ({rate})")


def taught_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of add_taught_arguments, by the names of MovementOptions."""
    names = [*_TAUGHT, *(name.replace("-", "_") for name, _ in _COUNTS)]
    return {name: getattr(arguments, name) for name in names} | {"labels": arguments.teacher_labels}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcnn-train movements` to a parser."""
    add_taught_arguments(parser, MovementOptions)
    add, default = parser.add_argument, MovementOptions.init
    add("--init", default=default, help=f"expression weights to start from, or none ({default})")
    precision = MovementOptions.precision
    add("--precision", choices=("float32", "bfloat16"), default=precision, help=f"({precision})")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from pcnn.training.movements.run import train_movements

    own = {"init": arguments.init, "precision": arguments.precision}
    train_movements(MovementOptions(**taught_options(arguments), **own))
    return 0
