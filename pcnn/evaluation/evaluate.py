"""Evaluation of an expression network on a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcnn.datasets.labels import FacePictures, FaceSet, canonical, moved_votes, one_hot
from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.evaluation.logits import face_logits, picture_logits
from pcnn.evaluation.scores import Scores, score
from pcnn.faces.interface import FaceDetector
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.known import DEFAULT_DETECTOR


@dataclass(frozen=True, eq=False)
class Common:
    """The faces of a data set whose labels are also classes of a network.

    faces: with the common classes, in the network's order; votes are one-hot.
    network_only, data_only: classes that only the network or only the data set has.
    left_out: the number of faces with a label of `data_only`.
    """

    faces: FaceSet | FacePictures
    network_only: tuple[str, ...]
    data_only: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate`.

    scores: with the weights' own setting of `mirror`. If `mirror` is True, the logits of each
        face and its mirror image are averaged.
    other: scores with the opposite setting of `mirror`; None if not requested.
    aligned: whether faces were aligned by their landmarks, as the weights require.
    outside: number of faces whose likeliest class is in `common.network_only`. The probabilities
        of the common classes are renormalised after this count.
    """

    common: Common
    scores: Scores
    mirror: bool
    aligned: bool
    other: Scores | None
    outside: int

    def to_dict(self) -> dict[str, Any]:
        """All results, as values for `json.dumps`."""
        return {
            "classes": {
                "common": list(self.common.faces.classes),
                "network_only": list(self.common.network_only),
                "data_only": list(self.common.data_only),
                "faces_left_out": self.common.left_out,
                "faces_answered_outside": self.outside,
            },
            "scores": self.scores.to_dict(),
            "mirror": self.mirror,
            "aligned": self.aligned,
            "other": None if self.other is None else self.other.to_dict(),
        }


@own_settings()
def evaluate(  # noqa: PLR0913
    loaded: ExpressionWeights,
    faces: FaceSet | FacePictures,
    *,
    batch_size: int = 64,
    compare_mirror: bool = False,
    bootstrap: int = 2000,
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
) -> Evaluation:
    """Score a network on labelled faces, on the network's device.

    Faces are read as in `predict_crops`, except that aligned faces of a FaceSet are rounded to
    whole levels.

    faces: see loading.open_faces for pictures that differ in size. A face's label is the class
        with most votes, the first one of equals. If the classes differ from the network's, only
        common ones count; see Common.
    batch_size: faces in one pass.
    compare_mirror: also score with the opposite of the weights' setting of `mirror`.
    bootstrap: see scores.score.
    detector: its landmarks align the faces, if the weights require aligned faces.
    Raises InputError: fewer than two common classes, no face with one of them, or a picture that
        cannot be read.
    """
    classes = loaded.network.config.classes
    common = match_classes(faces, classes)
    mirror = compare_mirror or loaded.mirror
    if isinstance(common.faces, FacePictures):
        pictures = common.faces.pictures
        answers = picture_logits(loaded, pictures, detector, batch_size=batch_size, mirror=mirror)
    else:
        pixels = common.faces.faces
        answers = face_logits(loaded, pixels, detector, batch_size=batch_size, mirror=mirror)
    alone, both = answers
    used, other = (both, alone) if loaded.mirror else (alone, both)
    labels = common.faces.votes.argmax(1)
    columns = [classes.index(name) for name in common.faces.classes]

    def scored(answers: Tensor) -> Scores:
        # The softmax of some logits equals the renormalised softmax of all.
        probabilities = (answers[:, columns].double() / loaded.temperature).softmax(1)
        return score(probabilities, labels, common.faces.classes, bootstrap=bootstrap)

    inside = torch.isin(used.argmax(1), torch.tensor(columns))
    return Evaluation(
        common=common,
        scores=scored(used),
        mirror=loaded.mirror,
        aligned=loaded.aligned,
        other=scored(other) if compare_mirror else None,
        outside=int((~inside).sum()),
    )


def match_classes(faces: FaceSet | FacePictures, classes: Sequence[str]) -> Common:
    """The faces whose label is one of a network's classes; names may differ in spelling.

    Raises InputError: fewer than two common classes, or no face with one of them.
    """
    ours = {canonical(name) or name: name for name in classes}
    theirs = {canonical(name) or name: name for name in faces.classes}
    shared = tuple(ours[meaning] for meaning in ours if meaning in theirs)
    if len(shared) < 2:
        raise InputError(
            "match_classes: network and data must share at least two classes; the "
            f"network has {', '.join(classes)}, the data {', '.join(faces.classes)}"
        )
    # Each face has one label, so that votes for other classes cannot change it.
    labels = [faces.classes[place] for place in faces.votes.argmax(1).tolist()]
    kept, votes = moved_votes(one_hot(labels, faces.classes), faces.classes, shared)
    if not kept:
        raise InputError(f"match_classes: no face has one of the labels {', '.join(shared)}")
    return Common(
        faces=dataclasses.replace(faces.subset(kept), votes=votes, classes=shared),
        network_only=tuple(name for name in classes if name not in shared),
        data_only=tuple(theirs[meaning] for meaning in theirs if meaning not in ours),
        left_out=len(faces) - len(kept),
    )
