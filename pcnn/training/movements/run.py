"""Training of the movement network, from pictures and a teacher's answers to a weights file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pcnn.devices import own_settings
from pcnn.training.movements.loop import MovementTraining
from pcnn.training.movements.options import MovementOptions
from pcnn.training.teacher_answers import TEMPLATE, read_groups
from pcnn.training.teacher_options import fingerprint
from pcnn.training.weight_average import finish
from pcnn.weights.files import locate, sha256
from pcnn.weights.movements import is_movements, write_movements

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
