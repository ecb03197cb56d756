"""Data of an expression training: what is learnt, and what is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pcnn.datasets.labels import FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.errors import InputError
from pcnn.faces.alignment import align_faces, measure_template
from pcnn.faces.detector import Detector
from pcnn.faces.interface import FaceDetector
from pcnn.training.expression.landmarker import mixed_landmarks, movement_targets
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.own import OwnFaces
from pcnn.training.expression.photographs import photograph_faces
from pcnn.training.expression.second_labels import second_labels


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a training learns, and what its network is scored on.

    train, second, photographs, movements: see ExpressionTraining.
    valid: faces to score. valid_second: these faces with second labels, if options.second is
        above 0.
    template, native_size: see ExpressionWeights.
    """

    train: FaceSet
    valid: FaceSet
    template: Sequence[Sequence[float]]
    native_size: int
    second: FaceSet | None = None
    valid_second: FaceSet | None = None
    photographs: Tensor | None = None
    movements: Tensor | None = None


def read_data(
    options: ExpressionOptions, valid_split: str, own: OwnFaces | None, *, scored: bool = True
) -> TrainingData:
    """The data that the options ask for, aligned where they say so.

    valid_split, own: see train_expression. scored: False leaves the faces to score as they are.
    The detector is loaded only if it is needed.
    Raises InputError: data that cannot be read, or that do not fit the options.
    """
    if own is None:
        data = _published(options, valid_split, scored=scored)
    elif options.second:
        raise InputError("ExpressionOptions: second must be 0 for your own pictures")
    else:
        data = TrainingData(own.train, own.valid, own.template, own.native_size)
    if options.photographs:
        detector, grey = Detector.load(options.detector), not options.colour
        faces = photograph_faces(
            options.photographs, detector, data.template, options.size, grey=grey
        )
        data = dataclasses.replace(data, photographs=faces)
    if options.movements:
        movements = movement_targets(options.movements, data.train.names)
        data = dataclasses.replace(data, movements=movements)
    return data


def _published(options: ExpressionOptions, valid_split: str, *, scored: bool) -> TrainingData:
    """The faces of a published data set, with second labels."""
    detector, grey = Detector.load(options.detector), not options.colour
    train, valid = (load_faces(options.data, split, grey=grey) for split in ("train", valid_split))
    template, native_size = measure_template(train.faces, detector), train.faces.shape[2]

    def aligned(faces: FaceSet, known: FaceDetector | NDArray[np.float32]) -> FaceSet:
        pixels = align_faces(faces.faces, template, options.size, native_size, known)
        return dataclasses.replace(faces, faces=pixels)

    if options.aligned:
        taught = options.landmarks
        train = aligned(train, mixed_landmarks(taught, train, detector) if taught else detector)
        valid = aligned(valid, detector) if scored else valid
    second = valid_second = None
    if options.second:
        second = second_labels(options.data, "train", train)
        places = {name: place for place, name in reversed([*enumerate(train.names)])}
        train = train.subset([places[name] for name in second.names])
        valid_second = second_labels(options.data, valid_split, valid)
    return TrainingData(train, valid, template, native_size, second, valid_second)
