"""A teacher's landmarks for training faces, mixed with those of the detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcnn.datasets.labels import FaceSet
from pcnn.faces.alignment import dataset_landmarks
from pcnn.faces.interface import FaceDetector
from pcnn.training.movements.faces import mesh_landmarks, read_answers

_SHARE = 0.5  # of the faces that get the teacher's landmarks


def mixed_landmarks(
    path: str | Path, faces: FaceSet, detector: FaceDetector
) -> NDArray[np.float32]:
    """The landmarks of a data set's faces: a teacher's for one half, else the detector's.

    So the network learns faces that are aligned exactly, and faces that are aligned as in
    predictions. Where one of them found no face, the other's landmarks are taken.

    path: an .npz of benchmarks/label_movements.py: `image` (N,) names, `found` (N,) bool, and
        `points` (N, P, 3), MediaPipe's mesh in pixels of the face.
    Returns (faces, 5, 2), NaN where nobody found a face. The mean difference of both kinds of
    landmarks is taken away, because the teacher's eyes and mouth are a little lower.
    Raises InputError: the file is missing, has other contents, or misses a face.
    """
    with read_answers("landmarks", path, faces.names) as (table, rows):
        taught = mesh_landmarks(table["points"][rows][:, :, :2].astype(np.float32))
        found = table["found"][rows].astype(bool) & np.isfinite(taught).all((1, 2))
    return _mixed(taught, found, dataset_landmarks(faces.faces, detector))


def _mixed(
    taught: NDArray[np.float32], found: NDArray[np.bool_], own: NDArray[np.float32]
) -> NDArray[np.float32]:
    known = np.isfinite(own).all((1, 2))
    both = found & known
    if both.any():
        taught = taught + (own[both].mean(0) - taught[both].mean(0))
    drawn = np.random.default_rng(0).random(len(own)) < _SHARE
    chosen = found & (drawn | ~known)
    return np.where(chosen[:, None, None], taught, own).astype(np.float32)
