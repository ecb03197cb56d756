"""Expression training, from a data set to a weights file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from pcnn.datasets.labels import FaceSet
from pcnn.devices import own_settings
from pcnn.errors import counted
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy
from pcnn.networks.pcnn import Learner
from pcnn.terminal import training_progress
from pcnn.training.expression.data import TrainingData, read_data
from pcnn.training.expression.loop import ExpressionTraining, class_shares, process_rank
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.own import OwnFaces
from pcnn.training.expression.second_labels import SECOND, describe_second, fitted_temperatures
from pcnn.training.logs import draw_curves, trim_log
from pcnn.weights.compression import narrow, widen
from pcnn.weights.expression import SECOND_PREFIX
from pcnn.weights.files import write

_CHECKPOINT_SECONDS = 120


@own_settings(gradients=True)
def train_expression(
    options: ExpressionOptions,
    *,
    device: str = "cpu",
    valid_split: str = "valid",
    own: OwnFaces | None = None,
) -> Path:
    """Train an expression network, or continue from a checkpoint beside `output`.

    device: the device to compute on. valid_split: the split to score after each epoch.
    own: faces of your own pictures, see own_faces; they take the place of a published data set.
    Other files beside the weights are `<output>.log.jsonl` (a line for each epoch),
    `<output>.png` (its curves) and, during the training, `<output>.checkpoint`.
    Returns the path of the weights file.
    Raises InputError: data, checkpoint or options that do not fit together.
    """
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = output.with_name(output.name + ".checkpoint")
    log = output.with_name(output.name + ".log.jsonl")
    first = process_rank()[0] == 0  # the only process that scores and writes
    data = read_data(options, valid_split, own, scored=first)
    resumed = checkpoint.exists()
    training = ExpressionTraining(
        options,
        data.train,
        device,
        second=data.second,
        photographs=data.photographs,
        movements=data.movements,
        checkpoint=checkpoint if resumed else None,
    )
    if first and resumed:
        trim_log(log, training.step)
    elif first:
        _begin(training, checkpoint, log)
    _run(training, data.valid, checkpoint, log)
    if first:
        training.save(checkpoint)
        _write_weights(training, data)
        draw_curves(log, output.with_name(output.name + ".png"))
        checkpoint.unlink(missing_ok=True)
    return output


def _begin(training: ExpressionTraining, checkpoint: Path, log: Path) -> None:
    """Forget the log of an earlier training; keep the teachers' answers, which take minutes."""
    log.unlink(missing_ok=True)
    if training.options.teachers:
        training.save(checkpoint)


def _run(training: ExpressionTraining, valid: FaceSet, checkpoint: Path, log: Path) -> None:
    began = saved = time.monotonic()
    running = math.nan
    with training_progress(
        "training", total=training.steps, done=training.step, shown=training.rank == 0
    ) as progress:
        (task,) = progress.task_ids
        while training.step < training.steps:
            loss = training.advance()
            running = loss if math.isnan(running) else 0.98 * running + 0.02 * loss
            progress.update(task, completed=training.step, note=f"loss {running:.3f}")
            if training.rank:
                continue
            if training.step % training.epoch_steps == 0 or training.step == training.steps:
                network = training.average.network
                score = accuracy(predict_logits(network, valid.faces)[0], valid.votes)
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
            # After the line for the same step, or a training that continues would lack it.
            if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                training.save(checkpoint)
                saved = time.monotonic()


def _write_weights(training: ExpressionTraining, data: TrainingData) -> None:
    """Write the trained weights, with their scores."""
    learner, options, faces = training.result(), training.options, data.valid
    tensors = narrow(_state(learner), options.storage)
    learner = _stored(learner, widen(tensors))  # scored with the stored precision
    network = learner.network
    logits, regions = predict_logits(network, faces.faces, mirror=options.mirror)
    name = Path(options.data).name
    metadata: dict[str, Any] = {
        "kind": "expression",
        "architecture": options.network,
        "config": dataclasses.asdict(network.config),
        "mirror": options.mirror,
        "aligned": options.aligned,
        "native_size": data.native_size,
        "training": _portable(options),
        "trained_on": f"{name}, {counted(len(training.train), 'face')}",
        "licence": "Apache-2.0",
        "scores": {
            f"{name}, {counted(len(faces), 'validation face')}": accuracy(logits, faces.votes)
        },
        "class_shares": class_shares(training.train.votes),
        "template": data.template,
        **fitted_temperatures(logits, regions, faces.votes),
    }
    if data.valid_second is not None:
        described = describe_second(learner.relabelled(), data.valid_second, mirror=options.mirror)
        metadata["labels"] = {SECOND: {**described, "class_shares": training.second_shares}}
    write(Path(options.output), tensors, metadata)


def _state(learner: Learner) -> dict[str, Tensor]:
    """The tensors of a weights file: the network's, and those of the heads for second labels."""
    state = learner.network.state_dict()
    if learner.second is not None:
        prefix = f"{SECOND_PREFIX}{SECOND}."
        state |= {prefix + name: t for name, t in learner.second.state_dict().items()}
    return state


def _stored(learner: Learner, tensors: Mapping[str, Tensor]) -> Learner:
    """Load the tensors of a weights file into the learner and return it."""
    prefix = f"{SECOND_PREFIX}{SECOND}."
    own = {name: t for name, t in tensors.items() if not name.startswith(prefix)}
    learner.network.load_state_dict(own)
    if learner.second is not None:
        second = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        learner.second.load_state_dict(second)
    return learner


def _portable(options: ExpressionOptions) -> dict[str, Any]:
    """The options for publication: files by their names, without folders."""
    published = dataclasses.asdict(options)
    for name in ("data", "output", "init", "detector", "photographs", "landmarks", "movements"):
        if published[name]:
            published[name] = Path(published[name]).name
    published["teachers"] = [Path(teacher).name for teacher in options.teachers]
    return published


@contextlib.contextmanager
def process_device(device: str) -> Iterator[str]:
    """The device of this process; with torchrun, one of several.

    The process joins torchrun's group for the duration of the block.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "RANK" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()
