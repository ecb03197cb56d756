"""Chart of a training's log."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from pcnn.errors import InputError


def read_log(log: Path) -> list[dict[str, float]]:
    """The records of a training's log, one for each step, in the order of the steps.

    A training that was killed may leave a line that is torn, and repeats steps after its last
    checkpoint: of two lines for one step the later one counts.
    """
    records: dict[float, dict[str, float]] = {}
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            records[record["step"]] = {
                name: float(record[name]) for name in ("epoch", "loss", "valid_accuracy")
            }
    return [records[step] for step in sorted(records)]


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss and validation accuracy over the epochs.

    log: JSON lines with epoch, loss and valid_accuracy (0…1), as `pcnn-train` writes them.
    picture: the PNG to write. Raises InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing curves needs matplotlib: pip install 'pcnn[train]'") from error
    records = read_log(log)
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
