"""A face landmarker's answers for training faces: landmarks to align by, movements to learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError
from pcnn.faces.alignment import dataset_landmarks
from pcnn.faces.interface import FaceDetector
from pcnn.networks.movements import mirror_names
from pcnn.training.teacher_answers import mesh_landmarks, read_answers

_SHARE = 0.5  # of the faces that get the teacher's landmarks
_LEAST_DEVIATION = 0.04  # of a movement that is learnt; others hardly vary


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


def movement_targets(path: str | Path, names: Sequence[str]) -> Tensor:
    """The movements of faces, standardised; the mean of left and right.

    The mean does not change when a face is mirrored, as the augmentation does.
    path: an .npz of benchmarks/label_movements.py: `image` (N,) names, `found` (N,) bool,
        `movements` (N, M) 0…1, and the movements' `names` (M,).
    names: of the faces.
    Returns (faces, K) float32, NaN where the teacher found no face.
    Raises InputError: the file is missing, has other contents or misses a face, the teacher found
        no face, or no movement varies.
    """
    with read_answers("movements", path, names) as (table, rows):
        found = table["found"][rows].astype(bool)
        taught = table["movements"][rows].astype(np.float32)
        twins = mirror_names(tuple(str(name) for name in table["names"]))
        movements = (taught + taught[:, twins]) / 2
        once = np.arange(len(twins)) <= np.array(twins)
        if not found.any():
            raise InputError("the teacher found no face")
        mean, deviation = movements[found].mean(0), movements[found].std(0)
        kept = once & (deviation >= _LEAST_DEVIATION)
        if not kept.any():
            raise InputError("no movement varies")
        targets = ((movements - mean) / np.maximum(deviation, _LEAST_DEVIATION))[:, kept]
    targets[~found] = np.nan
    return torch.from_numpy(targets.astype(np.float32))
