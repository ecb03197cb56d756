"""Training of the movement network, from pictures and a teacher's answers to a weights file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.terminal import training_progress
from pcnn.training.averaged import AveragedTraining
from pcnn.training.detector.photographs import is_held_out
from pcnn.training.logs import trim_log
from pcnn.training.movements.faces import (
    TEMPLATE,
    Table,
    TaughtFaces,
    read_faces,
    read_photographs,
    read_table,
)
from pcnn.training.movements.loop import MovementTraining
from pcnn.training.movements.options import MovementOptions, TaughtOptions, fingerprint
from pcnn.weights.files import locate, sha256
from pcnn.weights.movements import is_movements, write_movements

_SHEETS, _PHOTOGRAPHS = "fer_train.npz", "photographs.npz"  # the teacher's answers
_LOSSES = ("points", "movements", "pose")


@own_settings(gradients=True)
def train_movements(options: MovementOptions) -> Path:
    """Train a movement network, or continue from a checkpoint with the same options.

    One in ten photographs (`is_held_out`) is left out. An interrupted and resumed run gives the
    same weights as an uninterrupted one, on the same machine and number of threads.
    Returns the path of the weights file.
    Raises InputError: unusable data or answers, or a checkpoint of other options.
    Raises WeightsError: the start cannot be loaded.
    """
    groups = read_groups(options)
    training = MovementTraining(options, groups)
    training.resume()
    losses = (dict(zip(_LOSSES, own, strict=True)) for own in training.run())
    finish(training, losses, options, "movements")
    _write_output(options, training, *map(len, groups))
    training.path.unlink(missing_ok=True)
    return options.output


def read_groups(options: TaughtOptions) -> tuple[TaughtFaces, TaughtFaces]:
    """The faces of the sheets and of the photographs to learn from.

    Raises InputError: unusable data or answers.
    """
    sheets = read_faces(options.data, read_table(options.teacher_labels / _SHEETS))
    table = _learning_photographs(read_table(options.teacher_labels / _PHOTOGRAPHS))
    return sheets, read_photographs(options.photographs, table)


def finish(
    training: AveragedTraining[Any],
    losses: Iterable[Mapping[str, float]],
    options: TaughtOptions,
    kind: str,
) -> None:
    """Run the remaining steps of a training, with progress, log and checkpoints.

    losses: those of each step, which is done when they are asked for. kind: of the training, for
        progress and the name of the log.
    """
    path = options.folder / f"{kind}.log.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    trim_log(path, training.step)
    begun = time.time()
    with training_progress(kind, total=options.steps, done=training.step) as progress:
        (task,) = progress.task_ids
        for own in losses:
            means = training.mean_losses(own)
            if means is not None:
                note = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
                progress.update(task, completed=training.step, note=note)
                entry = {"step": training.step, **means, "seconds": time.time() - begun}
                with path.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
            if training.step % options.save_every == 0 or training.step == options.steps:
                training.save()


def _learning_photographs(table: Table) -> Table:
    """A table without the photographs that are held out. Raises InputError: none is left."""
    learning = np.array([not is_held_out(name) for name in table["image"].tolist()], bool)
    if not learning.any():
        raise InputError("read_groups: every photograph is held out")
    return {name: own if name == "names" else own[learning] for name, own in table.items()}


def _write_output(
    options: MovementOptions, training: MovementTraining, sheets: int, photographs: int
) -> None:
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start = "random numbers"
    if options.init != "none":
        path = locate(options.init)
        part = "" if is_movements(path) else "the trunk of "
        start = f"{part}{path.name} (sha256 {sha256(path)})"
    write_movements(
        options.output,
        training.average,
        TEMPLATE,
        {
            "licence": "Apache-2.0",
            "provenance": (
                f"Started from {start} and trained by pcnn-train movements on a teacher's answers "
                f"for {sheets} faces of {options.data.name} and {photographs} of "
                f"{options.photographs.name}, one photograph in ten held out; "
                f"{fingerprint(replace(options, init=Path(options.init).name))}"
            ),
        },
    )
