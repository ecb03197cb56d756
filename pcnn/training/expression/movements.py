"""A teacher's facial movements of training faces, learnt beside their expressions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError
from pcnn.networks.movements import mirror_names
from pcnn.training.movements.faces import read_answers

_LEAST_DEVIATION = 0.04  # of a movement that is learnt; others hardly vary


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


def movement_loss(answers: Tensor, targets: Tensor) -> Tensor:
    """The mean error, squared below a deviation, of the faces whose movements are known.

    answers, targets: (B, K); rows of NaN in targets are unknown.
    """
    known = targets.isfinite().all(1)
    if not known.any():
        return answers.sum() * 0
    return F.smooth_l1_loss(answers[known], targets[known])
