"""Folds, temperature and intervals of a head's cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcnn.errors import InputError
from pcnn.training.folds import assign_folds, check_labels, united_groups
from pcnn.training.head.validation import calibrated_temperature, logits_for, out_of_fold, share_of


def test_folds_spread_labels_evenly() -> None:
    kinds = np.array([0] * 40 + [1] * 10 + [2] * 5)
    folds = assign_folds(kinds, [str(i) for i in range(55)], 5, seed=0)
    for kind, count in enumerate((8, 2, 1)):
        assert np.bincount(folds[kinds == kind], minlength=5).tolist() == [count] * 5
    again = assign_folds(kinds, [str(i) for i in range(55)], 5, seed=0)
    other = assign_folds(kinds, [str(i) for i in range(55)], 5, seed=1)
    assert folds.tolist() == again.tolist() != other.tolist()


def test_folds_keep_groups_whole() -> None:
    draw = np.random.default_rng(0)
    people = [f"person {number}" for number in draw.integers(0, 12, 100)]
    kinds = draw.integers(0, 3, 100)
    folds = assign_folds(kinds, people, 4, seed=2)
    assert set(folds) == {0, 1, 2, 3}
    for person in set(people):
        assert len({fold for fold, own in zip(folds, people, strict=True) if own == person}) == 1


def test_each_label_stands_in_two_folds() -> None:
    """The second: dealt out by size, both labels of p3 would be alone; another order helps."""
    for people in (
        {"p1": "c" * 50 + "b", "p2": "c" * 80, "p3": "c" * 10 + "b" * 5},
        {"p1": "c" * 50, "p2": "b" * 40, "p3": "c" * 10 + "b" * 10},
    ):
        labels = np.array(list("".join(people.values())))
        groups = [name for name, own in people.items() for _ in own]
        for seed in range(5):
            folds = assign_folds((labels == "b").astype(np.int64), groups, 2, seed)
            assert all(len(set(folds[labels == label])) == 2 for label in "cb")


def test_labels_that_no_folds_divide_are_named() -> None:
    """Any two of the labels share a group, so that no two folds divide all three."""
    people = {"p1": (0, 1), "p2": (1, 2), "p3": (0, 2)}
    kinds = np.array([kind for own in people.values() for kind in own])
    groups = [name for name, own in people.items() for _ in own]
    with pytest.raises(
        InputError, match=r"label '[abc]' cannot be .*; its groups are p[12], p[23]"
    ):
        assign_folds(kinds, groups, 2, 0, classes=("a", "b", "c"))
    assert set(assign_folds(kinds, groups, 3, 0)) == {0, 1, 2}


def test_groups_that_share_a_picture_are_one() -> None:
    assert united_groups([], ["1", "2", "1"]) == ["1", "2", "1"]
    groups = united_groups(list("abcdabd"), list("1233425"))
    assert groups == ["a", "b", "c", "c", "a", "b", "c"]
    assert united_groups(list("abcab"), list("12312")) == list("abcab")
    assert set(united_groups(list("abcd"), list("1122"))) == {"a", "c"}
    assert len(set(united_groups(list("abcdbc"), list("112211")))) == 1


def test_each_answer_is_by_a_head_that_has_not_seen_it() -> None:
    folds = np.array([0, 1, 0, 2])

    def answer(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
        assert not set(known) & set(asked) and len(known) + len(asked) == 4
        return np.stack([asked, asked * 10], 1).astype(np.float32)

    assert out_of_fold(folds, answer).tolist() == [[0, 0], [1, 10], [2, 20], [3, 30]]


def test_a_class_that_a_fold_lacks_is_unlikely() -> None:
    logits = logits_for(("a", "b", "c"), ("a", "c"), np.array([[0.25, 0.75]], np.float32))
    np.testing.assert_allclose(np.exp(logits), [[0.25, 1e-6, 0.75]], rtol=1e-4)


def test_few_right_answers_do_not_make_certain() -> None:
    """12 of 12 right in 3 classes: the mean probability is (12 + 1) / (12 + 3), by Laplace."""
    labels = np.arange(12) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    temperature = calibrated_temperature(logits, labels)
    sure = (torch.from_numpy(logits) / temperature).softmax(1).max(1).values
    assert sure.mean() == pytest.approx(13 / 15, abs=1e-3)


def test_wilsons_interval() -> None:
    """9 of 10 by hand: (0.9 + 0.1921 ± 1.96 · √(0.009 + 0.0096)) / 1.3841."""
    right = np.array([True] * 9 + [False])
    share = share_of(right, [str(number) for number in range(10)])
    assert share == (0.9, pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
    perfect = share_of(np.ones(10, bool), [str(number) for number in range(10)])
    assert perfect == (1, pytest.approx(0.7225, abs=1e-3), pytest.approx(1))


def test_groups_widen_wilsons_interval() -> None:
    right = np.repeat([True, True, True, False, True], 20)
    single = share_of(right, [str(number) for number in range(100)])
    people = share_of(right, [str(number // 20) for number in range(100)])
    assert people.value == single.value == 0.8
    assert people.high - people.low > 3 * (single.high - single.low)
    # All right: five people are five answers.
    five = share_of(np.ones(100, bool), [str(number // 20) for number in range(100)])
    assert five.low == pytest.approx(share_of(np.ones(5, bool), list("abcde")).low)


def test_labels_need_pictures_and_groups() -> None:
    labels, groups = ["a"] * 6 + ["b"] * 5, [str(number) for number in range(11)]
    assert check_labels(labels, groups, ("a", "b"), subject="mine") == 5
    assert check_labels(labels, ["x", "y", "z"] * 3 + ["x", "y"], ("a", "b"), subject="mine") == 3
    with pytest.raises(InputError, match="mine: there must be two labels or more, got 'a' alone"):
        check_labels(labels[:6], groups[:6], ("a",), subject="mine")
    with pytest.raises(InputError) as error:
        check_labels(
            *(labels[:-1], groups[:-1], ("a", "b")),
            subject="mine",
            problems=["b/5.jpg: no face found"],
        )
    assert str(error.value) == (
        "mine: label 'b' has 4 pictures with a face, but needs 5: add pictures, or leave the label "
        "out (1 left out, such as b/5.jpg: no face found); use faces= if each picture is one "
        "cut-out face"
    )
    with pytest.raises(InputError, match="all pictures of label 'b' are of one group or copies"):
        check_labels(labels, groups[:6] + ["Bo"] * 5, ("a", "b"), subject="mine")
