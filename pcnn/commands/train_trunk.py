"""`pcnn-train trunk`: train a single trunk, from which all six start."""

from __future__ import annotations

import argparse

from pcnn.commands.train_expression import add_common, run_training


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_common(parser, "64")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    return run_training(arguments, "trunk", 64)
