"""Whether networks taught small faces read sharp photographs better blurred or as they are.

    python benchmarks/native_size.py --photographs lfw_faces.tar --labels labels [--json FILE]
        [--page docs/results.md]

Faces of held-out photographs, at least 60 pixels wide, cut where a teacher saw their landmarks,
with the detail of the training faces (the weights' native size) and with all that the network's
input holds. Photographs have no expression labels, but a teacher's movements (label_movements.py).
So scores of happiness are held against smiles: the area under the curve of "smile above 0.5", and
the rank correlation. Labels of both readings are compared with each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from movements import Answer, Pixels, area, held_out
from numpy.typing import NDArray
from shared import keep, require_native

from pcnn.faces.detector import Detector
from pcnn.faces.geometry import face_transforms
from pcnn.faces.views import cut_views
from pcnn.training.teacher_answers import read_table
from pcnn.weights import load_expression
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.known import DEFAULT_DETECTOR

_LEAST_SIDE = 60  # pixels: no less detail than the training faces have
_AT_ONCE = 64
_SMILES = ("mouthSmileLeft", "mouthSmileRight")


def main() -> int:
    """Measure, print, write."""
    arguments = _parse()
    require_native()
    torch.set_num_threads(arguments.threads)
    table = arguments.labels / "photographs.npz"
    answers, pictures = held_out(arguments.photographs, table)
    answers = [own for own in answers if _side(own) >= _LEAST_SIDE][: arguments.most]
    answers, landmarks = _found(answers, pictures)
    smiling = np.isin(read_table(table)["names"], _SMILES)
    smiles = np.array([own.movements[smiling].mean() for own in answers])
    record: dict[str, Any] = {"faces": len(answers), "smiles": int((smiles > 0.5).sum())}
    for name in arguments.weights:
        loaded = load_expression(name)
        record[name] = {}
        labels = []
        for side in (loaded.native_size, loaded.network.config.size):
            scores = _scores(loaded, answers, landmarks, pictures, side)
            happiness = scores[:, loaded.network.config.classes.index("happiness")]
            labels.append(scores.argmax(1))
            record[name][side] = {
                "smile_auc": area(happiness, smiles > 0.5),
                "smile_rank_correlation": _rank_correlation(happiness, smiles),
                "mean_confidence": float(scores.max(1).mean()),
            }
        record[name]["same_label"] = float((labels[0] == labels[1]).mean())
    text = _as_markdown(record, arguments.weights)
    print(text)
    keep(record, text, "native_size", json_to=arguments.json, page=arguments.page)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--photographs", type=Path, required=True, help="tar of JPEG files")
    add("--labels", type=Path, required=True, help="folder of a teacher's answers")
    add("--weights", nargs="+", default=["pcnn-ferplus-only", "mobile", "small"])
    add("--most", type=int, help="read only so many faces")
    add("--threads", type=int, default=1)
    add("--json", type=Path, help="write the figures to this file as well")
    add("--page", type=Path, help="put the table where this page is marked")
    return parser.parse_args()


def _side(answer: Answer) -> float:
    left, top, right, bottom = answer.box
    return float(min(right - left, bottom - top))


def _found(
    answers: Sequence[Answer], pictures: Callable[[str], Pixels]
) -> tuple[list[Answer], list[NDArray[np.float32]]]:
    """The answers whose face the detector finds, and its landmarks (5, 2)."""
    detector = Detector.load(DEFAULT_DETECTOR)
    kept, landmarks = [], []
    for answer in answers:
        (faces,) = detector.detect([pictures(answer.name)])
        middle = (answer.box[:2] + answer.box[2:]) / 2
        near = [face.landmarks for face in faces if _apart(face.landmarks, middle) < _side(answer)]
        if near:
            kept.append(answer)
            landmarks.append(min(near, key=lambda points: _apart(points, middle)))
    return kept, landmarks


def _apart(points: NDArray[Any], middle: NDArray[Any]) -> float:
    return float(np.linalg.norm(points.mean(0) - middle))


def _scores(
    loaded: ExpressionWeights,
    answers: Sequence[Answer],
    landmarks: Sequence[NDArray[np.float32]],
    pictures: Callable[[str], Pixels],
    side: int,
) -> NDArray[np.float32]:
    """Calibrated probabilities (F, classes), read with the detail of faces of `side` pixels."""
    config = loaded.network.config
    logits = []
    for start in range(0, len(answers), _AT_ONCE):
        chosen = slice(start, start + _AT_ONCE)
        transforms = [
            face_transforms([points], loaded.template, config.size, config.layout)
            for points in landmarks[chosen]
        ]
        views = cut_views(
            [pictures(own.name) for own in answers[chosen]],
            transforms,
            config,
            native_size=side,
            device=torch.device("cpu"),
            names=loaded.network.views,
        )
        with torch.inference_mode():
            logits.append(loaded.network.forward_views(views)[0])
    return (torch.cat(logits) / loaded.temperature).softmax(1).numpy()


def _rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's correlation; equal values are rare here and ranked as they come."""
    one, other = (values.argsort(kind="stable").argsort() for values in (first, second))
    return float(np.corrcoef(one, other)[0, 1])


def _as_markdown(record: dict[str, Any], names: Sequence[str]) -> str:
    lines = [
        "| weights | detail, pixels | smiles: area under the curve | rank correlation "
        "| mean confidence | same label |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in names:
        for side, own in record[name].items():
            if side == "same_label":
                continue
            lines.append(
                f"| `{name}` | {side} | {own['smile_auc']:.3f} "
                f"| {own['smile_rank_correlation']:.3f} | {own['mean_confidence']:.3f} "
                f"| {record[name]['same_label']:.1%} |".replace("%", " %")
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
