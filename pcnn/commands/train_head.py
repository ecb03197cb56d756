"""`pcnn-train head`: fit a head for your own labels or numbers to your own pictures."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from pcnn.commands.shared import count, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("data", type=Path, metavar="FOLDER|CSV", help="FOLDER/label/pictures, or a CSV of them")
    add(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the .safetensors to write"
    )
    add("--faces", action="store_true", help="each picture is one cut-out face")
    add("--as-they-are", action="store_true", help="never align faces (default: weights decide)")
    add("--values", type=names, metavar="A,B,…", default=[], help="the CSV's columns of numbers")
    add("--balanced", action="store_true", help="rare labels count as much as frequent ones")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    add("--seed", type=count, default=0, help="of folds and intervals [%(default)s]")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises InputError, WeightsError: no head can be fitted.
    """
    from pcnn.images.files import shown
    from pcnn.recognition.recognizer import Recognizer
    from pcnn.training.head.run import HeadOptions, check_head_options, train_head

    options = HeadOptions(
        data=arguments.data,
        output=arguments.output,
        faces=arguments.faces,
        values=tuple(arguments.values),
        balanced=arguments.balanced,
        seed=arguments.seed,
    )
    check_head_options(options)
    recognizer = Recognizer(
        *(arguments.weights, arguments.detector, arguments.device),
        align_crops=False if arguments.as_they_are else None,
    )
    report = train_head(options, recognizer)
    output = shown(arguments.output)
    weights = f" --weights {shlex.quote(arguments.weights)}" if arguments.weights else ""
    quoted = shlex.quote(str(arguments.output))
    faces = " --faces" if arguments.faces else ""
    lines = [
        *report.lines(),
        f"Wrote {output}, its chart {output}.png and a table of all pictures, {output}.csv.",
        f"Use it: pcnn-predict{weights} --head {quoted}{faces} photo.jpg",
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    return 0
