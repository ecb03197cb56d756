"""`pcnn-train landmarks`: train the network that refines five landmarks."""

from __future__ import annotations

import argparse

from pcnn.commands.shared import number
from pcnn.commands.train_movements import add_taught_arguments, taught_options
from pcnn.training.landmarks.options import LandmarkOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcnn-train landmarks` to a parser."""
    add_taught_arguments(parser, LandmarkOptions)
    default = LandmarkOptions.detector
    parser.add_argument("--detector", default=default, help=f"whose landmarks ({default})")
    start = f"landmark weights to start from, or none ({LandmarkOptions.init})"
    parser.add_argument("--init", default=LandmarkOptions.init, help=start)
    text = f"largest factor of over-exposed faces ({LandmarkOptions.exposure})"
    parser.add_argument("--exposure", type=number, default=LandmarkOptions.exposure, help=text)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from pcnn.training.landmarks.run import train_landmarks

    own = {name: getattr(arguments, name) for name in ("detector", "init", "exposure")}
    train_landmarks(LandmarkOptions(**taught_options(arguments), **own))
    return 0
