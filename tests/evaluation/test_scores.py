"""Scores against hand-worked ones, against scikit-learn's, and as tables and pictures."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from torch import Tensor

from pcnn.errors import InputError
from pcnn.evaluation.charts import draw_confusion, draw_coverage, draw_reliability
from pcnn.evaluation.scores import OVERALL, Scores, _by_scikit_learn, _summary, score
from pcnn.evaluation.tables import class_table, coverage_table, overall_table, write_csv

pytestmark = pytest.mark.train

NAMES = ("calm", "glad", "angry", "absent")
# Answers 0 0 1 1 1 2 of these labels 0 0 0 1 1 2: one of the calm is taken for glad; the class
# "absent" has neither faces nor answers. The confidences fall from 0.9 to 0.4.
LABELS = torch.tensor([0, 0, 0, 1, 1, 2])
ROWS = (
    (0.9, 0.1, 0.0, 0.0),
    (0.8, 0.0, 0.2, 0.0),
    (0.3, 0.7, 0.0, 0.0),
    (0.4, 0.6, 0.0, 0.0),
    (0.1, 0.5, 0.2, 0.2),
    (0.2, 0.2, 0.4, 0.2),
)


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score(torch.tensor(ROWS, dtype=torch.float64), LABELS, NAMES, bootstrap=50)


def test_overall_by_hand(scores: Scores) -> None:
    found = {name: estimate.value for name, estimate in scores.overall.items()}
    given = (0.9, 0.8, 0.3, 0.6, 0.5, 0.4)  # the probabilities of the labels
    brier = (0.02, 0.08, 0.98, 0.32, 0.34, 0.64 / 4 * 3)
    assert found == pytest.approx(
        {
            "accuracy": 5 / 6,
            "macro_recall": (2 / 3 + 1 + 1) / 3,
            "macro_f1": (4 / 5 + 4 / 5 + 1) / 3,
            # Each of the faces has a fifteenth of the confidences to itself.
            "calibration_error": (0.1 + 0.2 + 0.7 + 0.4 + 0.5 + 0.6) / 6,
            "log_loss": -sum(math.log(each) for each in given) / 6,
            "brier": sum(brier) / 6,
            "risk_area": (0 + 0 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6) / 6,
        }
    )


def test_classes_by_hand(scores: Scores) -> None:
    calm, glad, angry, absent = scores.classes.values()
    assert (calm.faces, calm.answers, calm.precision) == (3, 2, 1)
    assert (glad.faces, glad.answers, glad.precision) == (2, 3, pytest.approx(2 / 3))
    assert (calm.recall.value, glad.recall.value) == (pytest.approx(2 / 3), 1)
    assert (calm.f1.value, angry.f1.value) == (pytest.approx(4 / 5), 1)
    assert (absent.faces, absent.answers) == (0, 0)
    unknown = (absent.precision, *absent.recall, *absent.f1)
    assert all(math.isnan(number) for number in unknown)
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0] * 4]


def test_coverage_by_hand(scores: Scores) -> None:
    """100, 90, 80, 70 and 50 % of 6 faces are 6, 5, 5, 4 and 3."""
    accuracies = [each.accuracy for each in scores.coverage]
    assert accuracies == pytest.approx([5 / 6, 4 / 5, 4 / 5, 3 / 4, 2 / 3])
    assert [each.confidence for each in scores.coverage] == pytest.approx([0.4, 0.5, 0.5, 0.6, 0.7])
    assert sum(each.faces for each in scores.reliability) == 6


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 5))
@settings(max_examples=15)
def test_what_is_resampled_is_what_is_reported(seed: int, faces: int, classes: int) -> None:
    """The quick summary of the bootstrap and scikit-learn agree, with classes missing, too."""
    draw = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(faces, classes, generator=draw)).double().softmax(1)
    labels = torch.randint(0, classes, (faces,), generator=draw)
    values = _by_scikit_learn(probabilities, labels)
    expected = np.concatenate((values.overall, values.recall, values.f1))
    np.testing.assert_allclose(_summary(probabilities, labels), expected, rtol=1e-9)


def _four_in_five(count: int) -> tuple[Tensor, Tensor]:
    """Answers of which every fifth is wrong."""
    labels = (torch.arange(count) % 5 == 0).long()
    return torch.tensor([[0.8, 0.2]]).expand(count, 2), labels


def test_the_interval_of_an_accuracy() -> None:
    """About 1.96 standard errors to either side, and exactly NumPy's percentiles."""
    probabilities, labels = _four_in_five(400)
    found = score(probabilities, labels, ("a", "b"), bootstrap=200).overall["accuracy"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    # Percentiles of 200 rounds scatter by about a tenth of the interval.
    assert found == pytest.approx((0.8, 0.8 - half, 0.8 + half), abs=0.01)
    right = (labels == 0).numpy()
    draw = np.random.default_rng(0)
    means = [right[draw.integers(0, 400, 400)].mean() for _ in range(200)]
    assert found[1:] == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_the_seed_decides_the_intervals() -> None:
    probabilities, labels = _four_in_five(50)
    one, same, other = (
        score(probabilities, labels, ("a", "b"), bootstrap=10, seed=seed).overall["log_loss"]
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one.value == other.value and one != other


def test_without_bootstrap_there_are_no_intervals() -> None:
    probabilities, labels = _four_in_five(5)
    found = score(probabilities, labels, ("a", "b"), bootstrap=0)
    assert math.isnan(found.overall["accuracy"].low)
    assert found.to_dict()["accuracy"] == {"value": 0.8, "low": None, "high": None}
    assert overall_table(found).columns[2]._cells[0] == "–"


def test_a_single_face() -> None:
    found = score(torch.tensor([[0.25, 0.75]]), torch.tensor([1]), ("a", "b"), bootstrap=3)
    assert found.overall["accuracy"] == (1, 1, 1)
    assert {each.accuracy for each in found.coverage} == {1}


def test_json_has_all_numbers(scores: Scores) -> None:
    told = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert set(told) == {
        "faces",
        *OVERALL,
        *("classes", "confusion", "reliability", "coverage"),
    }
    assert told["faces"] == 6
    assert told["classes"]["absent"]["recall"] == {"value": None, "low": None, "high": None}
    assert told["coverage"][0] == {
        "share": 1.0,
        "accuracy": pytest.approx(5 / 6),
        "confidence": pytest.approx(0.4),
    }
    assert told["reliability"][0] == {"faces": 0, "confidence": None, "accuracy": None}


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (
            torch.ones(2, 3),
            torch.zeros(2),
            r"score: probabilities must be \(any, 2\), got \(2, 3\)",
        ),
        (torch.ones(2, 2), torch.zeros(3), r"score: labels must be \(2\), got \(3,\)"),
        (torch.ones(0, 2), torch.zeros(0), "score: there must be at least one face, got none"),
        (torch.full((1, 2), math.nan), torch.zeros(1), "score: probabilities must be finite, got"),
    ],
)
def test_what_cannot_be_scored(probabilities: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(probabilities, labels.long(), ("a", "b"))


def test_missing_libraries_are_named(
    scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sklearn", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"scikit-learn: pip install 'pcnn\[train\]'"):
        score(*_four_in_five(5), ("a", "b"))
    for draw in (draw_confusion, draw_reliability, draw_coverage):
        with pytest.raises(InputError, match=r"matplotlib: pip install 'pcnn\[train\]'"):
            draw(scores, tmp_path / "never.png")


# --- tables and pictures ---


def test_tables(scores: Scores) -> None:
    console = Console(width=150)
    with console.capture() as captured:
        for table in (overall_table(scores, scores), class_table(scores), coverage_table(scores)):
            console.print(table)
    lines = [line.split() for line in captured.get().splitlines()]
    low, high = (f"{100 * each:.1f}" for each in scores.overall["accuracy"][1:])
    assert ["accuracy,", "%", "83.3", low, "…", high, "83.3", low, "…", high] in lines
    assert ["absent", "0", "–", "–", "–", "–", "–"] in lines
    assert ["accuracy,", "%", "83.3", "80.0", "80.0", "75.0", "66.7"] in lines
    assert ["from", "confidence", "0.40", "0.50", "0.50", "0.60", "0.70"] in lines


def test_csv_files(scores: Scores, tmp_path: Path) -> None:
    classes, confusion = tmp_path / "classes.csv", tmp_path / "confusion.csv"
    write_csv(scores, classes=classes, confusion=confusion)
    assert confusion.read_text().splitlines() == [
        "label,calm,glad,angry,absent",
        "calm,2,1,0,0",
        "glad,0,2,0,0",
        "angry,0,0,1,0",
        "absent,0,0,0,0",
    ]
    with classes.open(newline="") as file:
        calm, _, _, absent = csv.DictReader(file)
    assert (calm["class"], calm["faces"], calm["answers"]) == ("calm", "3", "2")
    assert float(calm["recall"]) == pytest.approx(2 / 3)
    assert float(calm["recall_low"]) <= float(calm["recall"]) <= float(calm["recall_high"])
    assert (absent["faces"], absent["precision"], absent["f1_high"]) == ("0", "", "")


def test_the_confusion_matrix_has_labels_in_rows(scores: Scores, tmp_path: Path) -> None:
    """All three labels are answered with the first class: the first column alone is dark."""
    sure = torch.tensor([[1.0, 0, 0]]).repeat(3, 1)
    found = score(sure, torch.arange(3), ("a", "b", "c"), bootstrap=0)
    draw_confusion(found, tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn:
        dark = np.asarray(drawn.convert("L")) < 90
    # The dark square is as high as the matrix and a third as wide.
    rows, columns = (np.flatnonzero(dark.mean(axis) > 0.15) for axis in (1, 0))
    assert 2.5 < np.ptp(rows) / np.ptp(columns) < 3.5
