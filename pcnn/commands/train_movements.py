"""`pcnn-train movements`: train the network of landmarks, facial movements and head pose."""

from __future__ import annotations

import argparse
from pathlib import Path

from pcnn.training.movements.options import MovementOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pcnn-train movements` to a parser."""
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder of contact sheets of faces (FER+)")
    add("--photographs", type=Path, required=True, help="tar of JPEG files")
    add("--teacher-labels", type=Path, required=True, help="folder of the teacher's answers")
    add("--output", type=Path, required=True, help="safetensors file to write")
    add("--work", type=Path, help="folder for checkpoint and log")
    default = MovementOptions.init
    add("--init", default=default, help=f"expression weights to start from, or none ({default})")
    for name, text in (
        ("steps", "updates"),
        ("batch", "faces in each update"),
        ("seed", "seed of all random choices"),
        ("save-every", "steps between checkpoints"),
    ):
        value = getattr(MovementOptions, name.replace("-", "_"))
        add(f"--{name}", type=int, default=value, help=f"{text} ({value})")
    share = MovementOptions.photographs_share
    add("--photographs-share", type=float, default=share, help=f"share of a batch ({share})")
    rate = MovementOptions.learning_rate
    add("--learning-rate", type=float, default=rate, help=f"at its peak ({rate})")
    precision = MovementOptions.precision
    add("--precision", choices=("float32", "bfloat16"), default=precision, help=f"({precision})")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from pcnn.training.movements.run import train_movements

    train_movements(
        MovementOptions(
            data=arguments.data,
            labels=arguments.teacher_labels,
            photographs=arguments.photographs,
            output=arguments.output,
            work=arguments.work,
            init=arguments.init,
            steps=arguments.steps,
            batch=arguments.batch,
            photographs_share=arguments.photographs_share,
            learning_rate=arguments.learning_rate,
            precision=arguments.precision,
            save_every=arguments.save_every,
            seed=arguments.seed,
        )
    )
    return 0
