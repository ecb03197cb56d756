"""Training of the landmark network, from pictures and a teacher's mesh to a weights file."""

from __future__ import annotations

import json
import time
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
from pcnn.terminal import training_progress
from pcnn.training.expression.curves import trim_log
from pcnn.training.landmarks.loop import LandmarkTraining
from pcnn.training.landmarks.options import LandmarkOptions, fingerprint
from pcnn.training.movements.faces import (
    TEMPLATE,
    TaughtFaces,
    mesh_landmarks,
    read_faces,
    read_photographs,
    read_table,
)
from pcnn.training.movements.run import PHOTOGRAPHS, SHEETS, learning_photographs
from pcnn.weights.landmarks import write_landmarks

_LOG = "landmarks.log.jsonl"


@own_settings(gradients=True)
def train_landmarks(options: LandmarkOptions) -> Path:
    """Train a landmark network, or continue from a checkpoint with the same options.

    One in ten photographs (`is_held_out`) is left out. An interrupted and resumed run gives the
    same weights as an uninterrupted one, on the same machine and number of threads.
    Returns the path of the weights file.
    Raises InputError: unusable data or answers, or a checkpoint of other options.
    """
    sheets = read_faces(options.data, read_table(options.labels / SHEETS))
    photographs = read_photographs(
        options.photographs, learning_photographs(read_table(options.labels / PHOTOGRAPHS))
    )
    offset = _mean_difference(sheets, Detector.load(options.detector, landmarks=None))
    groups = [_with_landmarks(group, offset) for group in (sheets, photographs)]
    training = LandmarkTraining(options, groups)
    training.resume()
    options.folder.mkdir(parents=True, exist_ok=True)
    trim_log(options.folder / _LOG, training.step)
    begun = time.time()
    with training_progress("landmarks", total=options.steps, done=training.step) as progress:
        (task,) = progress.task_ids
        for distance in training.run():
            means = training.mean_losses({"distance": distance})
            if means is not None:
                note = f"distance {means['distance']:.3f}"
                progress.update(task, completed=training.step, note=note)
                entry = {"step": training.step, **means, "seconds": time.time() - begun}
                with (options.folder / _LOG).open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
            if training.step % options.save_every == 0 or training.step == options.steps:
                training.save()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    provenance = (
        f"Trained from random numbers by pcnn-train landmarks on a teacher's landmarks of "
        f"{len(sheets)} faces of {options.data.name} and {len(photographs)} of "
        f"{options.photographs.name}, one photograph in ten held out; {fingerprint(options)}"
    )
    metadata = {"licence": "Apache-2.0", "provenance": provenance}
    write_landmarks(options.output, training.average, TEMPLATE, metadata)
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
