"""Score the landmark network on held-out photographs and on faces with expression labels.

    python benchmarks/landmarks.py --photographs lfw_faces.tar --labels DIR --data ferplus

DIR holds a teacher's answers, `photographs.npz` and `fer_valid.npz` (docs/training.md says how they
are made). Only the photographs that training keeps out are scored. Each error is the mean distance
of the five landmarks in distances between the eyes, of the detector alone and refined. The mean
difference to the teacher's landmarks is taken away, because both mean slightly other places.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from movements import Answer, held_out, middle_of, shrunk
from numpy.typing import NDArray
from PIL import Image
from shared import medians, require_native

from pcnn.datasets import load_faces
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy
from pcnn.faces.alignment import align_faces, dataset_landmarks
from pcnn.faces.detector import Detector
from pcnn.training.teacher_answers import mesh_landmarks, read_table
from pcnn.weights.expression import ExpressionWeights, load_expression
from pcnn.weights.known import DEFAULT_DETECTOR, DEFAULT_LANDMARKS

_TURN = 15.0  # degrees
_ROUNDS = 200
Points: TypeAlias = "NDArray[np.float32]"  # (5, 2)
Pixels: TypeAlias = "NDArray[np.uint8]"
Finder: TypeAlias = Callable[[Pixels, Answer], "Points | None"]


def main() -> int:
    """Print the figures as JSON."""
    arguments = _parse()
    require_native()
    torch.set_num_threads(arguments.threads)
    detectors = {
        "detector": Detector.load(DEFAULT_DETECTOR, landmarks=None),
        "refined": Detector.load(DEFAULT_DETECTOR, landmarks=arguments.weights),
    }
    answers, pictures = held_out(arguments.photographs, arguments.labels / "photographs.npz")
    answers = answers[: arguments.most]
    report: dict[str, Any] = {"photographs": len(answers), "threads": torch.get_num_threads()}
    for name, detector in detectors.items():
        report[name] = {
            "held_out": _error(detector, answers, lambda a: pictures(a.name)),
            "held_out_48_pixels": _error(detector, answers, lambda a: shrunk(a, pictures)),
            "turned_by_15_degrees": _turned(detector, answers, lambda a: pictures(a.name)),
            "ferplus_valid": _sheets(detector, arguments.data, arguments.labels),
        }
    for name in arguments.read:
        report[name] = _accuracies(load_expression(name), detectors, arguments)
    photograph = pictures(answers[0].name)
    report["milliseconds"] = _times(detectors["refined"], photograph)
    print(json.dumps(report, indent=2))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="tar of JPEG files")
    parser.add_argument("--labels", type=Path, required=True, help="a teacher's answers")
    parser.add_argument("--data", type=Path, required=True, help="folder of FER+ contact sheets")
    parser.add_argument("--weights", default=DEFAULT_LANDMARKS, help="landmark weights")
    read = "expression weights, whose accuracy on FER+ valid is measured with each alignment"
    parser.add_argument("--read", nargs="*", default=[], help=read)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch [1]")
    parser.add_argument("--most", type=int, help="score only so many photographs")
    return parser.parse_args()


def _found(detector: Detector, pixels: Pixels, place: NDArray[Any], eyes: float) -> Points | None:
    """The landmarks of the face at a place; None if the detector finds none there."""
    (faces,) = detector.detect([pixels])
    near = [(float(np.linalg.norm(f.landmarks[:3].mean(0) - place)), f.landmarks) for f in faces]
    best = min(near, key=lambda pair: pair[0], default=None)
    return None if best is None or best[0] > 0.7 * eyes else best[1]


def _error(
    detector: Detector, answers: Sequence[Answer], picture: Callable[[Answer], Pixels]
) -> dict[str, float]:
    ours, theirs = [], []
    for answer in answers:
        found = _found(detector, picture(answer), middle_of(answer), answer.eyes)
        if found is not None:
            ours.append(found / answer.eyes)
            theirs.append(mesh_landmarks(answer.points[None])[0] / answer.eyes)
    return _summary(np.array(ours) - np.array(theirs))


def _summary(apart: NDArray[Any]) -> dict[str, float]:
    """Of differences (N, 5, 2) in eye distances, without their mean."""
    distances = np.linalg.norm(apart - apart.mean(0), axis=2).mean(1)
    return {
        "faces": len(apart),
        "mean": round(float(distances.mean()), 4),
        "median": round(float(np.median(distances)), 4),
        "within_8_percent": round(float((distances <= 0.08).mean()), 4),
    }


def _turned(
    detector: Detector, answers: Sequence[Answer], picture: Callable[[Answer], Pixels]
) -> dict[str, float]:
    """How far the landmarks of a turned picture lie from those of the picture, turned."""
    angle = np.radians(_TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    apart = []
    for answer in answers:
        image = Image.fromarray(picture(answer))
        other = image.rotate(-_TURN, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
        centre = np.array(image.size) / 2
        place = middle_of(answer)
        one = _found(detector, np.asarray(image), place, answer.eyes)
        there = turn @ (place - centre) + centre
        two = _found(detector, np.asarray(other), there, answer.eyes)
        if one is not None and two is not None:
            apart.append((two - centre - (one - centre) @ turn.T) / answer.eyes)
    return _summary(np.array(apart))


def _sheets(detector: Detector, data: Path, labels: Path) -> dict[str, float]:
    """The errors on FER+ valid without duplicates, where the teacher found a face."""
    faces = load_faces(data, split="valid", duplicates=False)
    table = read_table(labels / "fer_valid.npz")
    rows = {name: i for i, name in enumerate(table["image"].tolist())}
    found = dataset_landmarks(faces.faces, detector)
    kept = [i for i, n in enumerate(faces.names) if n in rows and np.isfinite(found[i]).all()]
    theirs = mesh_landmarks(table["points"][[rows[faces.names[i]] for i in kept], :, :2])
    eyes = np.linalg.norm(theirs[:, 1] - theirs[:, 0], axis=1)[:, None, None]
    return _summary((found[kept] - theirs) / eyes)


def _accuracies(
    loaded: ExpressionWeights, detectors: dict[str, Detector], arguments: argparse.Namespace
) -> dict[str, float]:
    """The accuracy on FER+ valid without duplicates, without and with mirror images.

    Faces are aligned by the detector's landmarks, the refined ones, and the teacher's, where it
    found a face; the mean difference to the detector's is taken away.
    """
    faces = load_faces(arguments.data, split="valid", duplicates=False)
    table = read_table(arguments.labels / "fer_valid.npz")
    rows = {name: i for i, name in enumerate(table["image"].tolist())}
    places = {name: dataset_landmarks(faces.faces, own) for name, own in detectors.items()}
    own = places["detector"]
    known = np.array([name in rows for name in faces.names])
    meshes = table["points"][[rows[name] for name in faces.names if name in rows], :, :2]
    taught = np.full_like(own, np.nan)
    taught[known] = mesh_landmarks(meshes)
    both = known & np.isfinite(own).all((1, 2))
    taught += own[both].mean(0) - taught[both].mean(0)
    places["teacher"] = np.where(known[:, None, None], taught, own).astype(np.float32)
    size = loaded.network.config.size
    found = {}
    for name, landmarks in places.items():
        seen = align_faces(faces.faces, loaded.template, size, loaded.native_size, landmarks)
        for mirror in (False, True):
            logits = [
                predict_logits(loaded.network, chunk, native_size=size, mirror=mirror)[0]
                for chunk in seen.split(128)
            ]
            score = accuracy(torch.cat(logits), faces.votes)
            found[f"{name}, mirrored" if mirror else name] = round(score, 4)
    return found


def _times(detector: Detector, pixels: Pixels) -> dict[str, float]:
    """Milliseconds of refinement alone, for one face and for each of eight."""
    (faces,) = detector.detect([pixels])
    stages = {
        "one_face": lambda: detector.refine([pixels], [faces[:1]]),
        "eight_faces": lambda: detector.refine([pixels] * 8, [faces[:1]] * 8),
    }
    times = medians(stages, _ROUNDS)
    return {"one_face": times["one_face"], "each_of_eight": times["eight_faces"] / 8}


if __name__ == "__main__":
    sys.exit(main())
