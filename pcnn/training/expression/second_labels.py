"""FER2013's own labels, which a network learns with heads of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from pcnn.datasets.labels import FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.errors import InputError, counted
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy, cautious_temperature
from pcnn.networks.ensemble import ExpressionNetwork

# Their name, also in weights files.
SECOND = "fer2013"


def second_labels(data: str | Path, split: str, faces: FaceSet) -> FaceSet:
    """The faces that have a label of FER2013, with these labels.

    data, split: the data set and its part, which `faces` is from.
    faces: with other labels; any form of their pixels.
    Raises InputError: the data set has no such labels, or none of the faces has one.
    """
    others = load_faces(data, split, labels=SECOND)
    places = {name: index for index, name in enumerate(others.names)}
    kept = [index for index, name in enumerate(faces.names) if name in places]
    if not kept:
        raise InputError(f"second_labels: no face of {split} has a label of FER2013")
    chosen = faces.subset(kept)
    votes = others.votes[[places[name] for name in chosen.names]]
    return dataclasses.replace(chosen, votes=votes, classes=others.classes)


def describe_second(
    network: ExpressionNetwork, valid: FaceSet, *, native_size: int | None = None, mirror: bool
) -> dict[str, Any]:
    """Metadata of heads for second labels: classes, temperatures, scores.

    network: with these heads as its own. valid: faces with their second labels, aligned if the
    network needs that. native_size, mirror: see predict_logits.
    """
    logits, regions = predict_logits(network, valid.faces, native_size=native_size, mirror=mirror)
    return {
        "classes": valid.classes,
        **fitted_temperatures(logits, regions, valid.votes),
        "scores": {counted(len(valid), "validation face"): accuracy(logits, valid.votes)},
    }


def fitted_temperatures(
    logits: Tensor, regions: dict[str, Tensor], votes: Tensor
) -> dict[str, Any]:
    """Metadata of temperatures, fitted on faces with these votes (N, classes)."""
    return {
        "temperature": cautious_temperature(logits, votes),
        "region_temperatures": {
            name: cautious_temperature(own, votes) for name, own in regions.items()
        },
    }
