"""`pcnn-train expression`: train the expression network."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pcnn.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_common(parser, "96")


def add_common(parser: argparse.ArgumentParser, size: str) -> None:
    """Add the arguments of both expression trainings. size: its default, shown in the help."""
    add = parser.add_argument
    add("--data", required=True, help="a data set, see docs/data.md")
    add("--output", required=True, help="the weights file to write")
    add("--recipe", help="TOML file of options; options given here override it")
    add("--init", help="weights to start from: a trunk or the same network")
    add("--init-share", type=float, help="weight of --init in the average that is saved [0]")
    add("--aligned", action="store_true", default=None, help="align faces by their landmarks")
    add("--size", type=int, help=f"side of the face view, pixels [{size}]")
    add("--width", type=int, help="channels of stage 1 [64]")
    add("--epochs", type=float, help="[12]")
    add("--batch", type=int, help="faces in each step [64]")
    add("--lr", type=float, help="peak learning rate [0.001]")
    add("--seed", type=int, help="[0]")
    add("--precision", choices=("float32", "bfloat16"), help="of the arithmetic [float32]")
    add("--backbone", help="backbone of the trunks: resnet18, mobilenet [resnet18]")
    add("--photographs", help="archive of photographs; teachers label their faces")
    add("--teachers", nargs="+", help="weights whose answers are also learnt")
    add(
        "--saliency",
        metavar="MODEL",
        help="weigh faces by its maps, see docs/saliency.md",
    )
    add("--detector", help="detector for alignment and the template [mobilenet]")
    add("--valid-split", default="valid", help="split to score after each epoch [%(default)s]")
    add("--device", default="auto", help="auto, cpu, cuda, … [%(default)s]")
    add("--threads", type=int, help="CPU threads [all cores]")


# Options of the command line that are fields of ExpressionOptions.
_OPTIONS = (
    "init",
    "init_share",
    "aligned",
    "size",
    "width",
    "epochs",
    "batch",
    "lr",
    "seed",
    "precision",
    "saliency",
    "detector",
    "backbone",
    "photographs",
    "teachers",
)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    return run_training(arguments, "pcnn", 96)


def run_training(arguments: argparse.Namespace, network: str, size: int) -> int:
    """Train an expression network with the parsed arguments; returns the exit status.

    network: see ExpressionOptions. size: the default side of the face view, in pixels.
    Raises InputError: options or data that do not fit together.
    """
    import torch
    from rich.console import Console

    from pcnn.training.expression.options import ExpressionOptions
    from pcnn.training.expression.recipes import read_recipe
    from pcnn.training.expression.run import process_device, train_expression

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    chosen: dict[str, Any] = {"size": size}
    if arguments.recipe:
        chosen |= read_recipe(arguments.recipe)
        if chosen.setdefault("network", network) != network:
            raise InputError(
                f"recipe {arguments.recipe}: network must be {network!r}, got {chosen['network']!r}"
            )
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    chosen |= {name: value for name, value in given.items() if value is not None}
    if "teachers" in chosen:
        chosen["teachers"] = tuple(chosen["teachers"])
    chosen |= {"network": network, "data": arguments.data, "output": arguments.output}
    options = ExpressionOptions(**chosen)
    with process_device(arguments.device) as device:
        path = train_expression(options, device=device, valid_split=arguments.valid_split)
    if os.environ.get("RANK", "0") == "0":
        Console(stderr=True).print(f"wrote {path}")
    return 0
