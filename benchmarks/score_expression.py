"""How right expression weights are on FER+ valid, and whether their probabilities can be trusted.

    python benchmarks/score_expression.py [--weights NAME_OR_PATH] [--data FOLDER] [--json FILE]

Protocol: argmax-8 without duplicates (../shared/data/README.md). Every face goes through
`Recognizer.predict_crops`, the way a user's would.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn import Recognizer
from pcnn.datasets import load_ferplus
from pcnn.metrics import calibration_error
from pcnn.results import Detection

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "ferplus"


class _NoDetector:
    """Faces that are cut out already need none."""

    def detect(self, images: object, *, min_score: float | None = None) -> list[list[Detection]]:
        raise NotImplementedError


def interval(right: NDArray[np.bool_], rounds: int = 2000) -> tuple[float, float]:
    """The bootstrap's 95 % interval of an accuracy, in percent."""
    draw = np.random.default_rng(0)
    means = [right[draw.integers(0, len(right), len(right))].mean() for _ in range(rounds)]
    low, high = np.percentile(means, [2.5, 97.5])
    return 100 * float(low), 100 * float(high)


def main() -> int:
    """Score and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="a name or a path; the default weights if left out")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    recognizer = Recognizer(arguments.weights, _NoDetector(), batch_size=64)
    faces = load_ferplus(arguments.data, "valid")
    found = recognizer.predict_crops([face.numpy() for face in faces.faces])
    scores = torch.tensor([list(face.scores.values()) for face in found])
    labels = faces.votes.argmax(1)
    right = (scores.argmax(1) == labels).numpy()
    recalls = {
        name: float(right[(labels == i).numpy()].mean())
        for i, name in enumerate(recognizer.classes)
    }
    low, high = interval(right)
    record = {
        "faces": len(faces),
        "accuracy": 100 * float(right.mean()),
        "accuracy_95": [low, high],
        "mean_recall": 100 * float(np.mean(list(recalls.values()))),
        "calibration_error": calibration_error(scores, labels),
        "recall": {name: 100 * value for name, value in recalls.items()},
    }
    print(f"{record['faces']} faces of FER+ valid, argmax-8, without duplicates")
    print(f"accuracy           {record['accuracy']:6.2f} %  (95 %: {low:.2f} … {high:.2f})")
    print(f"mean recall        {record['mean_recall']:6.2f} %")
    print(f"calibration error  {record['calibration_error']:6.4f}")
    for name, value in recalls.items():
        count = int((labels == recognizer.classes.index(name)).sum())
        print(f"  {name:<16} {100 * value:6.2f} %  of {count}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
