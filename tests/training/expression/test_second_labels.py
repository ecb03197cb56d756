"""The faces of a data set that have a label of FER2013."""

from __future__ import annotations

import pytest
import torch

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError
from pcnn.training.expression import second_labels as module
from pcnn.training.expression.second_labels import second_labels


def faces(names: tuple[str, ...], classes: tuple[str, ...]) -> FaceSet:
    """Grey faces, the first as bright as 1, with votes for the classes in turn."""
    count = len(names)
    pixels = (1 + torch.arange(count, dtype=torch.uint8))[:, None, None].expand(count, 4, 4)
    votes = torch.eye(len(classes))[torch.arange(count) % len(classes)]
    return FaceSet(pixels.contiguous(), votes, names, classes)


def test_labels_belong_to_faces_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    others = faces(("d", "b", "z"), ("fear", "anger"))
    monkeypatch.setattr(module, "load_faces", lambda *_, **__: others)
    own = faces(("a", "b", "c", "d"), ("neutral", "happiness", "fear"))
    found = second_labels("ferplus", "valid", own)
    assert found.names == ("b", "d") and found.classes == ("fear", "anger")
    assert found.faces[:, 0, 0].tolist() == [2, 4]  # the pixels stay those of the faces given
    assert found.votes.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(InputError, match="no face of valid has a label of FER2013"):
        second_labels("ferplus", "valid", faces(("x", "y"), ("neutral", "fear")))
