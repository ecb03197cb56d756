"""`pcnn-train detector`: train the face detector."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from pcnn.commands.shared import count, number
from pcnn.training.detector.options import STARTS, DetectorOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcnn-train detector` to a parser."""
    parser.add_argument("--photographs", type=Path, required=True, help="tar of JPEG files")
    parser.add_argument("--teacher", type=Path, required=True, help="weights to learn from")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="safetensors file to write"
    )
    parser.add_argument("--work", type=Path, help="folder for checkpoint and log")
    for name, text in (
        ("steps", "updates"),
        ("early", "the first of these updates, on smaller mosaics"),
        ("polish", "further updates on unchanged photographs"),
        ("batch", "mosaics in each update"),
        ("side", "side of a mosaic, pixels"),
        ("seed", "seed of all random choices"),
        ("save-every", "steps between checkpoints"),
    ):
        default = getattr(DetectorOptions, name.replace("-", "_"))
        kind = count if name == "seed" else int
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} ({default})")
    parser.add_argument(
        "--start",
        choices=STARTS,
        default=DetectorOptions.start,
        help="the teacher's own weights, or random ones (%(default)s)",
    )
    parser.add_argument("--init", type=Path, help="weights to start from instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (%(default)s)")
    parser.add_argument(
        "--workers", type=count, default=0, help="processes that prepare mosaics (%(default)s)"
    )
    for name, text in (
        ("init-share", "share of what the training started from in the weights written"),
        ("turned", "share of photographs that are rotated by any angle"),
        ("harsh", "share of pictures made much darker, lighter, flatter or tinted"),
    ):
        share = getattr(DetectorOptions, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=number, default=share, help=f"{text} ({share})")
    rate = DetectorOptions.learning_rate
    parser.add_argument("--learning-rate", type=number, default=rate, help=f"at its peak ({rate})")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from pcnn.devices import choose_device
    from pcnn.training.detector.run import train_detector

    given = {field.name for field in dataclasses.fields(DetectorOptions)} & vars(arguments).keys()
    train_detector(
        DetectorOptions(**{name: getattr(arguments, name) for name in given}),
        device=str(choose_device(arguments.device, "--device")),
        workers=arguments.workers,
    )
    return 0
