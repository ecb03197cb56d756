"""A training's log, and its chart."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from pcnn.disk import whole_file
from pcnn.errors import InputError


def trim_log(log: Path, step: int) -> None:
    """Leave the lines of a log up to a step, which a training that continues there repeats.

    A training that was killed leaves later lines, and may leave one that is torn.
    """
    if not log.exists():
        return
    kept = []
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
    with whole_file(log) as temporary:
        temporary.write_text("".join(kept))


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss and validation accuracy over the epochs.

    log: JSON lines with epoch, loss and valid_accuracy (0…1), as `pcnn-train` writes them.
    picture: the PNG to write. Raises InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing curves needs matplotlib: pip install 'pcnn[train]'") from error
    records = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.plot(epochs, [record["loss"] for record in records], "o-", color="tab:grey", ms=3)
    left.set(xlabel="epoch", ylabel="training loss (grey)")
    accuracies = [100 * record["valid_accuracy"] for record in records]
    right.plot(epochs, accuracies, "o-", color="tab:blue", ms=3)
    right.set_ylabel("validation accuracy, % (blue)")
    right.grid(axis="y", alpha=0.3)
    figure.savefig(picture, dpi=120)
