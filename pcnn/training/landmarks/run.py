"""Training of the landmark network, from pictures and a teacher's mesh to a weights file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.faces.alignment import dataset_landmarks
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import similarity
from pcnn.training.landmarks.loop import LandmarkTraining
from pcnn.training.landmarks.options import LandmarkOptions, fingerprint
from pcnn.training.teacher_answers import (
    TEMPLATE,
    TaughtFaces,
    mesh_landmarks,
    read_groups,
)
from pcnn.training.weight_average import finish
from pcnn.weights.landmarks import write_landmarks


@own_settings(gradients=True)
def train_landmarks(options: LandmarkOptions) -> Path:
    """Train a landmark network, or continue from a checkpoint with the same options.

    One in ten photographs (`is_held_out`) is left out. An interrupted and resumed run gives the
    same weights as an uninterrupted one, on the same machine and number of threads.
    Returns the path of the weights file.
    Raises InputError: unusable data or answers, or a checkpoint of other options.
    """
    sheets, photographs = read_groups(options)
    offset = _mean_difference(sheets, Detector.load(options.detector, landmarks=None))
    groups = [_with_landmarks(group, offset) for group in (sheets, photographs)]
    training = LandmarkTraining(options, groups)
    training.resume()
    finish(training, ({"distance": own} for own in training.run()), options, "landmarks")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start = "random numbers" if options.init == "none" else Path(options.init).name
    provenance = (
        f"Trained from {start} by pcnn-train landmarks on a teacher's landmarks of "
        f"{len(sheets)} faces of {options.data.name} and {len(photographs)} of "
        f"{options.photographs.name}, one photograph in ten held out; {fingerprint(options)}"
    )
    metadata = {"licence": "Apache-2.0", "provenance": provenance}
    write_landmarks(options.output, training.average, TEMPLATE, metadata)
    training.path.unlink(missing_ok=True)
    return options.output


def _with_landmarks(faces: TaughtFaces, offset: NDArray[np.float64]) -> TaughtFaces:
    """The faces with the teacher's landmarks as both `landmarks` and `points`, moved by `offset`.

    offset: see _mean_difference.
    """
    five = mesh_landmarks(faces.points.numpy())
    moved = [own + offset @ similarity(TEMPLATE, own)[:, :2].T for own in five]
    points = torch.from_numpy(np.array(moved, np.float32))
    nothing = torch.empty(len(faces), 0)
    return replace(faces, landmarks=points, points=points, movements=nothing, names=())


def _mean_difference(sheets: TaughtFaces, detector: Detector) -> NDArray[np.float64]:
    """How far a detector's landmarks lie from the teacher's on average.

    Returns (5, 2), in sides of the view of a face that is aligned by the teacher's landmarks.
    Raises InputError: the detector finds no face.
    """
    five = mesh_landmarks(sheets.points.numpy())
    found = dataset_landmarks(sheets.pictures[..., 0], detector)
    known = np.isfinite(found).all((1, 2))
    if not known.any():
        raise InputError("train_landmarks: the detector found no face in the sheets")
    apart = [
        (theirs - own) @ np.linalg.inv(similarity(TEMPLATE, own)[:, :2]).T
        for own, theirs in zip(five[known], found[known], strict=True)
    ]
    mean: NDArray[np.float64] = np.mean(apart, axis=0)
    return mean
