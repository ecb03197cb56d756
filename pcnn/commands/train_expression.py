"""`pcnn-train expression`: train the expression network."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.shared import number, positive
from pcnn.errors import InputError, counted

if TYPE_CHECKING:
    from pcnn.training.expression.own import OwnFaces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_common(parser, "96")


_OWN = "your own labelled pictures, FOLDER/label/pictures, see docs/own-labels.md"


def add_common(parser: argparse.ArgumentParser, size: str) -> None:
    """Add the arguments of both expression trainings. size: its default, shown in the help."""
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="FOLDER|CSV", help=_OWN)
    add("--data", help="instead of FOLDER: a published data set, see docs/data.md")
    add("--faces", action="store_true", help="each picture of FOLDER is one cut-out face")
    add("-o", "--output", required=True, help="the weights file to write")
    add("--recipe", help="TOML file of options; options given here override it")
    add("--init", help="weights to start from: a trunk or a network; they decide --size, --width …")
    add("--init-share", type=number, help="weight of --init in the average that is saved [0]")
    add("--aligned", action="store_true", default=None, help="align faces by their landmarks")
    add("--size", type=int, help=f"side of the face view, pixels [{size}]")
    add("--width", type=int, help="channels of stage 1 [64]")
    add("--epochs", type=number, help="[12; FOLDER with --init: 8]")
    add("--batch", type=int, help="faces in each step [64; FOLDER: a quarter of few faces]")
    add(
        "--learning-rate",
        type=number,
        help="peak learning rate [0.001; FOLDER with --init: 0.0003]",
    )
    add("--seed", type=int, help="[0]")
    add("--precision", choices=("float32", "bfloat16"), help="of the arithmetic [float32]")
    add("--backbone", help="backbone of the trunks: resnet18, mobilenet [resnet18]")
    add("--landmarks", metavar="FILE", help="a teacher's landmarks, which align half of the faces")
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
    add("--threads", type=positive, help="CPU threads [all cores]")


# Options of the command line that are fields of ExpressionOptions.
_OPTIONS = (
    "init",
    "init_share",
    "aligned",
    "size",
    "width",
    "epochs",
    "batch",
    "learning_rate",
    "seed",
    "precision",
    "saliency",
    "detector",
    "backbone",
    "photographs",
    "landmarks",
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
    from pcnn.training.expression.own import options_for_own, own_faces
    from pcnn.training.expression.recipes import read_recipe
    from pcnn.training.expression.run import process_device, train_expression
    from pcnn.training.expression.start import options_of

    if (arguments.folder is None) == (arguments.data is None):
        raise InputError("give your own pictures, FOLDER, or a published data set, --data")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given: dict[str, Any] = {}
    if arguments.recipe:
        given |= read_recipe(arguments.recipe)
        if given.setdefault("network", network) != network:
            raise InputError(
                f"recipe {arguments.recipe}: network must be {network!r}, got {given['network']!r}"
            )
    typed = {name: getattr(arguments, name) for name in _OPTIONS}
    given |= {name: value for name, value in typed.items() if value is not None}
    if "teachers" in given:
        given["teachers"] = tuple(given["teachers"])
    chosen: dict[str, Any] = {"size": size}
    if given.get("init"):
        chosen |= options_of(given["init"], network)
    if arguments.folder is not None:
        chosen |= options_for_own(given)
    chosen |= {**given, "network": network, "output": arguments.output}
    options = ExpressionOptions(data=str(arguments.folder or arguments.data), **chosen)
    main = os.environ.get("RANK", "0") == "0"
    own = None
    if arguments.folder is not None:
        own = own_faces(arguments.folder, options, faces=arguments.faces)
        batch = options_for_own(given, len(own.train))["batch"]
        options = dataclasses.replace(options, batch=batch)
        if main:
            _tell(own)
    with process_device(arguments.device) as device:
        path = train_expression(options, device=device, valid_split=arguments.valid_split, own=own)
    if main:
        Console(stderr=True).print(f"wrote {path}")
    return 0


def _tell(own: OwnFaces) -> None:
    """Print how many faces there are on stderr, and which pictures were left out."""
    lines = [f"pcnn-train: left out: {each}" for each in own.problems]
    share = len(own.valid) / (len(own.train) + len(own.valid))
    counts = f"{counted(len(own.train), 'face')} to learn, {len(own.valid)} held out to score"
    counts += f" ({share:.0%})"
    lines.append(f"pcnn-train: {counts}; labels: {', '.join(own.train.classes)}")
    sys.stderr.write("".join(f"{line}\n" for line in lines))
