"""`pcnn-train ensemble`: join trained networks in one weights file."""

from __future__ import annotations

import argparse

from pcnn.commands.shared import number, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("weights", nargs="+", metavar="NAME|FILE", help="two or more trained expression weights")
    add("--data", required=True, metavar="PATH", help="a data set, to fit the temperatures on")
    add("--valid-split", default="valid", help="the part of it that is used [%(default)s]")
    add("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    add("--shares", type=number, nargs="+", metavar="X", help="weights of the answers [equal]")
    text = "the same for second labels [those of --shares]"
    add("--second-shares", type=number, nargs="+", metavar="X", help=text)
    add("--mirror", action="store_true", help="read each face with its mirror image")
    add("--threads", type=positive, metavar="N", help="CPU threads [torch's own number]")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises InputError, WeightsError, OSError: networks that do not fit together, or files that
    cannot be read or written.
    """
    import torch
    from rich.console import Console

    from pcnn.training.expression.ensemble import join_networks

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    score = join_networks(
        arguments.weights,
        arguments.data,
        arguments.output,
        shares=arguments.shares,
        second_shares=arguments.second_shares,
        mirror=arguments.mirror,
        valid_split=arguments.valid_split,
    )
    Console(stderr=True).print(
        f"wrote {arguments.output}, {100 * score:.2f} % on {arguments.valid_split}"
    )
    return 0
