"""One vocabulary for expressions, and sets of faces moved from one to another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcnn.datasets.labels import (
    AFFECTNET_CLASSES,
    FER2013_CLASSES,
    RAFDB_CLASSES,
    FaceSet,
    canonical,
    one_hot,
    relabel,
)
from pcnn.errors import InputError
from pcnn.networks.pcnn import FERPLUS_CLASSES


def _set(votes: list[list[float]], classes: tuple[str, ...] = FERPLUS_CLASSES) -> FaceSet:
    faces = torch.arange(len(votes), dtype=torch.uint8)[:, None, None].expand(-1, 4, 4)
    return FaceSet(faces, torch.tensor(votes), tuple(f"f{i}" for i in range(len(votes))), classes)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("happy", "happiness"),
        ("JOY", "happiness"),
        (" Sad ", "sadness"),
        ("angry", "anger"),
        ("Afraid", "fear"),
        ("scared", "fear"),
        ("fearful", "fear"),
        ("disgusted", "disgust"),
        ("suprise", "surprise"),
        ("Surprised", "surprise"),
        ("neutrality", "neutral"),
        ("natural", "neutral"),
        ("contemptuous", "contempt"),
        ("0_neutral", "neutral"),
        ("3 sad", "sadness"),
        ("07-Contempt", "contempt"),
        ("1happy", "happiness"),
        ("smirk", None),
        ("3", None),
        ("", None),
        ("happy 3", None),
    ],
)
def test_spellings(spelling: str, name: str | None) -> None:
    assert canonical(spelling) == name


@given(st.sampled_from(FERPLUS_CLASSES), st.booleans(), st.sampled_from(["", "4_", "12 ", "3."]))
def test_names_stand_for_themselves(name: str, upper: bool, prefix: str) -> None:
    assert canonical(prefix + (name.upper() if upper else name)) == name


def test_the_orders_of_the_data_sets_are_in_the_vocabulary() -> None:
    assert set(FER2013_CLASSES) == set(RAFDB_CLASSES) == set(FERPLUS_CLASSES) - {"contempt"}
    assert set(AFFECTNET_CLASSES) == set(FERPLUS_CLASSES)


def test_relabel_by_hand() -> None:
    faces = _set(
        [
            [0.2, 0.3, 0, 0, 0, 0, 0, 0.5],  # half of it contempt, which goes
            [0, 0, 0, 0, 0, 0, 0, 1.0],  # all of it contempt: left out
            [0, 0, 0, 0, 0, 0, 1.0, 0],
        ]
    )
    found = relabel(faces, RAFDB_CLASSES)
    assert found.names == ("f0", "f2") and found.classes == RAFDB_CLASSES
    assert found.faces[:, 0, 0].tolist() == [0, 2]
    expected = [[0, 0, 0, 0.6, 0, 0, 0.4], [0, 1.0, 0, 0, 0, 0, 0]]
    torch.testing.assert_close(found.votes, torch.tensor(expected))


def test_relabel_knows_spellings_and_adds_empty_columns() -> None:
    faces = _set([[1.0, 0], [0.25, 0.75]], ("happy", "smirk"))
    found = relabel(faces, ["smirk", "happiness", "fear"])
    torch.testing.assert_close(found.votes, torch.tensor([[0, 1.0, 0], [0.75, 0.25, 0]]))
    assert len(relabel(faces, ["fear", "smirk"])) == 1
    assert len(relabel(_set([[1.0, 0]], ("happy", "smirk")), ["smirk"])) == 0


@settings(max_examples=30)
@given(st.permutations(FERPLUS_CLASSES), st.integers(0, 2**31))
def test_there_and_back(order: list[str], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    faces = _set(torch.softmax(3 * torch.randn(5, 8, generator=draw), 1).tolist())
    moved = relabel(faces, order)
    assert [order[i] for i in moved.votes.argmax(1)] == [
        FERPLUS_CLASSES[i] for i in faces.votes.argmax(1)
    ]
    torch.testing.assert_close(relabel(moved, FERPLUS_CLASSES).votes, faces.votes)


def test_the_same_classes_change_nothing() -> None:
    faces = _set([[0.5, 0.5, 0, 0, 0, 0, 0, 0]])
    assert relabel(faces, list(FERPLUS_CLASSES)) is faces


def test_subset_and_one_hot() -> None:
    chosen = _set([[1.0, 0], [0, 1.0], [0.5, 0.5]], ("a", "b")).subset([2, 0])
    assert chosen.names == ("f2", "f0") and chosen.classes == ("a", "b")
    assert chosen.votes.tolist() == [[0.5, 0.5], [1, 0]] and chosen.faces[:, 3, 3].tolist() == [
        2,
        0,
    ]
    assert len(chosen.subset([])) == 0
    assert one_hot(["b", "a"], ("a", "b", "c")).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert one_hot([], ("a", "b")).shape == (0, 2)


def test_what_cannot_be() -> None:
    faces, votes = torch.zeros(2, 4, 4, dtype=torch.uint8), torch.eye(2)
    with pytest.raises(InputError, match=r"faces must be \(1, H, W\) or \(1, H, W, 3\), got \(2"):
        FaceSet(faces, votes, ("a",), ("x", "y"))
    with pytest.raises(InputError, match=r"faces must be \(2, H, W\) or .* got \(2, 4, 4, 1\)"):
        FaceSet(faces[..., None], votes, ("a", "b"), ("x", "y"))
    with pytest.raises(InputError, match="FaceSet: faces must be of type Tensor, got ndarray"):
        FaceSet(faces.numpy(), votes, ("a", "b"), ("x", "y"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"faces must be uint8, got torch.float32"):
        FaceSet(faces.float(), votes, ("a", "b"), ("x", "y"))
    with pytest.raises(InputError, match=r"votes must be \(2, 8\), a column for .* got \(2, 2\)"):
        FaceSet(faces, votes, ("a", "b"))
    with pytest.raises(InputError, match="relabel: classes must share a name with x, y, got fear"):
        relabel(FaceSet(faces, votes, ("a", "b"), ("x", "y")), ["fear"])
    with pytest.raises(InputError, match="classes must differ in meaning, got joy, happy, fear"):
        relabel(_set([[1.0] + 7 * [0.0]]), ["joy", "happy", "fear"])
