"""Training of the movement network, from pictures and a teacher's answers to a weights file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.terminal import training_progress
from pcnn.training.detector.photographs import is_held_out
from pcnn.training.expression.curves import trim_log
from pcnn.training.movements.faces import TEMPLATE, Table, read_faces, read_photographs, read_table
from pcnn.training.movements.loop import MovementTraining
from pcnn.training.movements.options import MovementOptions, fingerprint
from pcnn.weights.files import locate, sha256
from pcnn.weights.movements import write_movements

SHEETS, PHOTOGRAPHS = "fer_train.npz", "photographs.npz"  # the teacher's answers
_LOG = "movements.log.jsonl"
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
    sheets = read_faces(options.data, read_table(options.labels / SHEETS))
    photographs = read_photographs(
        options.photographs, learning_photographs(read_table(options.labels / PHOTOGRAPHS))
    )
    groups = sheets, photographs
    training = MovementTraining(options, groups)
    training.resume()
    options.folder.mkdir(parents=True, exist_ok=True)
    trim_log(options.folder / _LOG, training.step)
    begun = time.time()
    with training_progress("movements", total=options.steps, done=training.step) as progress:
        (task,) = progress.task_ids
        for losses in training.run():
            means = training.mean_losses(dict(zip(_LOSSES, losses, strict=True)))
            if means is not None:
                note = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
                progress.update(task, completed=training.step, note=note)
                _log(options, {"step": training.step, **means, "seconds": time.time() - begun})
            if training.step % options.save_every == 0 or training.step == options.steps:
                training.save()
    _write_output(options, training, len(sheets), len(photographs))
    return options.output


def learning_photographs(table: Table) -> Table:
    """A table without the photographs that are held out. Raises InputError: none is left."""
    learning = np.array([not is_held_out(name) for name in table["image"].tolist()], bool)
    if not learning.any():
        raise InputError("learning_photographs: every photograph is held out")
    return {name: own if name == "names" else own[learning] for name, own in table.items()}


def _log(options: MovementOptions, entry: dict[str, Any]) -> None:
    """Append one line of JSON to the log."""
    with (options.folder / _LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _write_output(
    options: MovementOptions, training: MovementTraining, sheets: int, photographs: int
) -> None:
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start = "random numbers"
    if options.init != "none":
        path = locate(options.init)
        start = f"the trunk of {path.name} (sha256 {sha256(path)})"
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
                f"{fingerprint(options)}"
            ),
        },
    )
