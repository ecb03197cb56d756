"""Whether one set of weights is better than another: both read the same faces.

    python benchmarks/compare.py WEIGHTS WEIGHTS … [--data FOLDER] [--json FILE] [--page FILE]

The faces are FER+ valid without duplicates, read as each file asks for (aligned, with mirror
images), and, where it asks for alignment, once more as they are. Gains are over the first file,
face by face: their intervals are of a bootstrap that draws the same faces for both, and see smaller
differences than two intervals of pcnn-evaluate do. Needs pcnn[train].
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import DATA, Array, draws, gain_text, interval, keep

from pcnn.datasets.labels import FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.alignment import suited_faces
from pcnn.weights.expression import ExpressionWeights, load_expression

ROUNDS = 2000  # of the bootstrap


def main() -> int:
    """Read, compare, print, write; returns the exit status."""
    arguments = _arguments()
    faces = load_faces(arguments.data, "valid")
    readings = [(name, reading) for file in arguments.weights for name, reading in _readings(file)]
    marks = np.stack([_marks(reading, faces) for _, reading in readings])  # (K, 2, N)
    gains = marks - marks[0]
    drawn = np.stack([gains[..., own].mean(2) for _, own in draws(len(faces), 1, ROUNDS)])
    rows = []
    for i, (name, _) in enumerate(readings):
        row: dict[str, Any] = {"weights": name}
        for column, (score, scale) in enumerate((("accuracy", 100), ("log_loss", 1))):
            row[score] = scale * float(marks[i, column].mean())
            row[f"{score}_gain"] = scale * float(gains[i, column].mean())
            row[f"{score}_gain_interval"] = interval(scale * drawn[:, i, column])
        rows.append(row)
    text = _table(rows, len(faces))
    print(text)
    record = {"faces": len(faces), "rounds": ROUNDS, "readings": rows}
    keep(record, text, "compare", json_to=arguments.json, page=arguments.page)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", nargs="+", help="names or files; the first is the base")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    return parser.parse_args()


def _readings(file: str) -> Iterator[tuple[str, ExpressionWeights]]:
    loaded, name = load_expression(file), Path(file).stem
    yield name, loaded
    if loaded.aligned:
        yield f"{name}, faces as they are", dataclasses.replace(loaded, aligned=False)


def _marks(reading: ExpressionWeights, faces: FaceSet) -> Array:
    """Of each face whether the answer is right, and its label's loss: (2, N)."""
    seen, native_size = suited_faces(reading, faces.faces)
    logits, _ = predict_logits(
        reading.network, seen, native_size=native_size, mirror=reading.mirror
    )
    labels = faces.votes.argmax(1)
    losses = torch.nn.functional.cross_entropy(
        logits / reading.temperature, labels, reduction="none"
    )
    return np.stack([(logits.argmax(1) == labels).double().numpy(), losses.double().numpy()])


def _table(rows: list[dict[str, Any]], faces: int) -> str:
    lines = [
        f"{faces:,} faces of FER+ valid; gains over the first row.",
        "",
        "| weights | accuracy, % | gain | log loss | gain |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy, loss = (
            gain_text(row[f"{score}_gain"], row[f"{score}_gain_interval"], digits)
            for score, digits in (("accuracy", 1), ("log_loss", 3))
        )
        gains = ("", "") if row is rows[0] else (accuracy, loss)
        lines.append(
            f"| {row['weights']} | {row['accuracy']:.1f} | {gains[0]} "
            f"| {row['log_loss']:.3f} | {gains[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
