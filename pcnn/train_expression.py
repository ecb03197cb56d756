"""`pcnn-train trunk` and `pcnn-train expression`: the commands and the files they write."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pcnn import weights
from pcnn.augment import resample
from pcnn.datasets import FaceSet, load_ferplus
from pcnn.detector import Detector
from pcnn.errors import InputError
from pcnn.evaluate import predict_logits
from pcnn.metrics import accuracy, fit_temperature
from pcnn.train import Training, TrainOptions

_CHECKPOINT_SECONDS = 120


def train_expression(options: TrainOptions) -> Path:
    """Train to the end, going on from a checkpoint beside `output` if there is one.

    Beside the weights file stand `<output>.log.jsonl` (a line every epoch) and, until the end,
    `<output>.checkpoint`. Returns the weights file's path.
    Raises InputError: data, checkpoint or options that do not fit.
    """
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = output.with_name(output.name + ".checkpoint")
    log = output.with_name(output.name + ".log.jsonl")
    train, valid = (load_ferplus(options.data, split) for split in ("train", "valid"))
    # Loaded now: a name that is wrong should not show after hours.
    detector = Detector.load(options.detector) if options.network == "pcnn" else None
    training = Training(options, train)
    if checkpoint.exists():
        training.resume(checkpoint)
    _run(training, valid, checkpoint, log)
    training.save(checkpoint)
    _write_weights(training, valid, output, detector)
    checkpoint.unlink(missing_ok=True)
    return output


def _run(training: Training, valid: FaceSet, checkpoint: Path, log: Path) -> None:
    began = saved = time.monotonic()
    running = math.nan
    with _progress() as progress:
        task = progress.add_task("training", total=training.steps, completed=training.step, note="")
        while training.step < training.steps:
            loss = training.advance()
            running = loss if math.isnan(running) else 0.98 * running + 0.02 * loss
            progress.update(task, completed=training.step, note=f"loss {running:.3f}")
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                training.save(checkpoint)
                saved = time.monotonic()
            if training.step % training.epoch_steps == 0 or training.step == training.steps:
                score = accuracy(predict_logits(training.average, valid.faces)[0], valid.votes)
                record = {
                    "step": training.step,
                    "epoch": training.step / training.epoch_steps,
                    "loss": running,
                    "valid_accuracy": score,
                    "seconds": time.monotonic() - began,
                }
                with log.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                progress.console.print(
                    f"epoch {record['epoch']:.2f}: loss {running:.3f}, valid {100 * score:.2f} %"
                )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _write_weights(
    training: Training, valid: FaceSet, output: Path, detector: Detector | None
) -> None:
    network, options = training.average, training.options
    logits, regions = predict_logits(network, valid.faces)
    metadata: dict[str, Any] = {
        "kind": "expression",
        "architecture": options.network,
        "config": dataclasses.asdict(network.config),
        "native_size": training.train.faces.shape[-1],
        "training": _portable(options),
        "trained_on": "FER+ training split, argmax-8, without duplicates",
        "licence": "Apache-2.0",
        "scores": {"FER+ valid, argmax-8, without duplicates": accuracy(logits, valid.votes)},
    }
    if detector is not None:
        metadata["template"] = measure_template(detector, training.train)
        metadata["temperature"] = fit_temperature(logits, valid.votes)
        metadata["region_temperatures"] = {
            name: fit_temperature(own, valid.votes) for name, own in regions.items()
        }
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    weights.write(output, halves, metadata)


def _portable(options: TrainOptions) -> dict[str, Any]:
    """The options as they may be published: files by their names, wherever they lay."""
    files = ("data", "output", "init", "detector")
    return {
        name: Path(value).name if name in files and value else value
        for name, value in dataclasses.asdict(options).items()
    }


def measure_template(detector: Detector, faces: FaceSet, count: int = 2000) -> list[list[float]]:
    """Where the landmarks of training faces lie on average, by the detector's word.

    The first `count` faces are enlarged to 192 pixels and framed by as much of their edge
    colour as lets the detector see them as faces in a picture. Returns five (x, y), fractions
    of the face's side; the mean over the faces in which exactly one face is found.
    Raises InputError: no face was found in any.
    """
    side, frame = 192, 48
    found = []
    for chosen in faces.faces[:count].split(64):
        large = resample(chosen[:, None].float() / 255, side)
        framed = F.pad(large, (frame,) * 4, mode="replicate")  # (64, 1, 288, 288)
        grey = (framed[:, 0] * 255).round().to(torch.uint8).numpy()
        pictures = [np.repeat(face[:, :, None], 3, axis=2) for face in grey]
        hits = detector.detect(pictures, min_score=0.9)
        found += [faces_there[0].landmarks for faces_there in hits if len(faces_there) == 1]
    if not found:
        raise InputError("measure_template: the detector found no face in the training faces")
    mean = (np.mean(found, 0) - frame) / side
    return [[float(x), float(y)] for x, y in mean]


def add_trunk_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pcnn-train trunk`."""
    _add_common(parser, size=64, epochs=6, lr=2e-3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pcnn-train expression`."""
    _add_common(parser, size=96, epochs=12, lr=1e-3)
    parser.add_argument("--init", help="weights made by `pcnn-train trunk` to start from")
    parser.add_argument(
        "--detector",
        default="mobilenet",
        help="name or file of the detector by which the template is measured [%(default)s]",
    )


def _add_common(parser: argparse.ArgumentParser, *, size: int, epochs: float, lr: float) -> None:
    parser.add_argument("--data", required=True, help="folder with FER+ contact sheets and CSVs")
    parser.add_argument("--output", required=True, help="the weights file to write")
    parser.add_argument(
        "--size", type=int, default=size, help="side of the face view [%(default)s]"
    )
    parser.add_argument("--width", type=int, default=64, help="channels of stage 1 [%(default)s]")
    parser.add_argument("--epochs", type=float, default=epochs, help="[%(default)s]")
    parser.add_argument("--batch", type=int, default=64, help="faces a step [%(default)s]")
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    parser.add_argument("--threads", type=int, help="CPU threads [all cores]")


def run_trunk(arguments: argparse.Namespace) -> int:
    """Carry out `pcnn-train trunk`."""
    return _run_command(arguments, "trunk")


def run(arguments: argparse.Namespace) -> int:
    """Carry out `pcnn-train expression`."""
    return _run_command(arguments, "pcnn")


def _run_command(arguments: argparse.Namespace, network: str) -> int:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = ("data", "output", "size", "width", "epochs", "batch", "lr", "seed")
    optional = ("init", "detector") if network == "pcnn" else ()
    chosen = {name: getattr(arguments, name) for name in (*names, *optional)}
    path = train_expression(TrainOptions(network=network, **chosen))
    Console(stderr=True).print(f"wrote {path}")
    return 0
