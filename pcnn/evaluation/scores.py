"""Scores of a classifier with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError, check_shape
from pcnn.evaluation.metrics import brier_scores, calibration_error, reliability, risks

OVERALL = (
    *("accuracy", "macro_recall", "macro_f1"),
    *("calibration_error", "log_loss", "brier", "risk_area"),
)
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN if undefined."""

    value: float
    low: float
    high: float


class Bin(NamedTuple):
    """A bar of the reliability diagram: faces, their mean confidence and accuracy (NaN if none)."""

    faces: int
    confidence: float
    accuracy: float


class Coverage(NamedTuple):
    """The accuracy of the most confident answers, their share, and their least confidence."""

    share: float
    accuracy: float
    confidence: float


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class.

    faces, answers: number of faces with this label, and with this answer.
    precision: NaN if the class is never the answer. recall, f1: NaN for a class without faces.
    """

    faces: int
    answers: int
    precision: float
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, eq=False)
class Scores:
    """The result of `score`. Shares and probabilities are 0…1.

    faces: the number of scored faces.
    overall: the names of OVERALL → Estimate; docs/evaluation.md explains them.
    classes: name → ClassScores, in class order.
    confusion: (K, K) int64, faces by label (row) and answer (column).
    reliability: equal-width bins of the confidence, ascending.
    coverage: one entry for each share of COVERAGES. risks: (N,) float64, see metrics.risks.
    """

    faces: int
    overall: Mapping[str, Estimate]
    classes: Mapping[str, ClassScores]
    confusion: NDArray[np.int64]
    reliability: tuple[Bin, ...]
    coverage: tuple[Coverage, ...]
    risks: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """All fields except `risks`, as values for `json.dumps`; NaN becomes None."""
        fields: dict[str, Any] = _plain(
            {
                "faces": self.faces,
                **self.overall,
                "classes": {name: vars(each) for name, each in self.classes.items()},
                "confusion": self.confusion.tolist(),
                "reliability": self.reliability,
                "coverage": self.coverage,
            }
        )
        return fields


@own_settings()
def score(  # noqa: PLR0913 - what is scored, and how intervals are drawn
    probabilities: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Scores:
    """Score calibrated probabilities against labels, with scikit-learn's measures where they exist.

    probabilities: (N, K) float, N ≥ 1, rows sum to 1. labels: (N,) int64, 0…K − 1.
    classes: K ≥ 2 names. Macro averages ignore classes without faces.
    bootstrap: number of resamplings of N faces with replacement. The 95 % intervals are
        percentiles of their scores (Efron 1979). 0: no intervals. seed: of the resamplings.
    groups: N names of groups, such as people, that are resampled whole; None resamples faces.
    Raises InputError: wrong shapes, NaN, or scikit-learn is not installed.
    """
    check_shape("score", "probabilities", probabilities, (None, len(classes)))
    check_shape("score", "labels", labels, (len(probabilities),))
    if len(labels) == 0:
        raise InputError("score: there must be at least one face, got none")
    if not bool(torch.isfinite(probabilities).all()):
        raise InputError("score: probabilities must be finite, got NaN or infinity")
    probabilities = probabilities.double()
    probabilities = probabilities / probabilities.sum(1, keepdim=True)  # float32 is not exact
    values = _by_scikit_learn(probabilities, labels)
    draws = resamplings(len(labels), groups, rounds=bootstrap, seed=seed)
    low, high = _intervals(probabilities, labels, draws)

    def estimate(place: int, value: float) -> Estimate:
        return Estimate(float(value), float(low[place]), float(high[place]))

    count = len(classes)
    first_recall, first_f1 = len(OVERALL), len(OVERALL) + count
    return Scores(
        faces=len(labels),
        overall={name: estimate(i, values.overall[i]) for i, name in enumerate(OVERALL)},
        classes={
            name: ClassScores(
                faces=int(values.confusion[i].sum()),
                answers=int(values.confusion[:, i].sum()),
                precision=float(values.precision[i]),
                recall=estimate(first_recall + i, values.recall[i]),
                f1=estimate(first_f1 + i, values.f1[i]),
            )
            for i, name in enumerate(classes)
        },
        confusion=values.confusion,
        reliability=_bins(probabilities, labels),
        coverage=_coverage(probabilities, labels),
        risks=risks(probabilities, labels).numpy(),
    )


class _Values(NamedTuple):
    """overall: in the order of OVERALL. precision, recall, f1: (K,)."""

    overall: tuple[float, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    confusion: NDArray[np.int64]


def _by_scikit_learn(probabilities: Tensor, labels: Tensor) -> _Values:
    try:
        from sklearn import metrics  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("scoring needs scikit-learn: pip install 'pcnn[train]'") from error
    known, answers = labels.numpy(), probabilities.argmax(1).numpy()
    names = np.arange(probabilities.shape[1])
    precision, recall, f1, faces = metrics.precision_recall_fscore_support(
        known, answers, labels=names, zero_division=np.nan
    )
    f1 = np.where(faces > 0, f1, np.nan)
    overall = (
        float(metrics.accuracy_score(known, answers)),
        float(np.nanmean(recall)),
        float(np.nanmean(f1)),
        calibration_error(probabilities, labels),
        float(metrics.log_loss(known, probabilities.numpy(), labels=names)),
        float(brier_scores(probabilities, labels).mean()),
        float(risks(probabilities, labels).mean()),
    )
    confusion = metrics.confusion_matrix(known, answers, labels=names)
    return _Values(overall, precision, recall, f1, confusion)


def resamplings(
    count: int, groups: Sequence[str] | None = None, *, rounds: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Indices of `rounds` resamplings of 0…count − 1 with replacement (Efron 1979).

    groups: `count` names; groups are resampled whole. None resamples single ones.
    """
    draw = np.random.default_rng(seed)
    if groups is None or len(set(groups)) == count:
        for _ in range(rounds):
            yield draw.integers(0, count, count)
        return
    _, member = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(member == group) for group in range(member.max() + 1)]
    for _ in range(rounds):
        drawn = draw.integers(0, len(members), len(members))
        yield np.concatenate([members[group] for group in drawn])


def _intervals(
    probabilities: Tensor, labels: Tensor, draws: Iterable[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """(2, ·): the 2.5th and 97.5th percentiles of `_summary` over resampled faces."""
    classes = probabilities.shape[1]
    rows = [_summary(probabilities[chosen], labels[chosen]) for chosen in draws]
    found = np.array(rows).reshape(len(rows), len(OVERALL) + 2 * classes)
    bounds = np.full((2, found.shape[1]), math.nan)
    some = ~np.isnan(found).all(0)  # a class may be absent from all rounds
    if rows:
        bounds[:, some] = np.nanpercentile(found[:, some], [2.5, 97.5], axis=0)
    return bounds


def _summary(probabilities: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """The values of OVERALL, then each class's recall and F1, as from `_by_scikit_learn`.

    That function takes six times as long (45 ms for 3,500 faces), mostly to check its input.
    """
    count = probabilities.shape[1]
    cells = labels * count + probabilities.argmax(1)
    confusion = cells.bincount(minlength=count * count).view(count, count).double()
    faces, answers, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    recall = right / faces  # NaN without faces
    f1 = (2 * right / (faces + answers)).where(faces > 0, math.nan)
    given = probabilities.gather(1, labels[:, None]).clamp(min=torch.finfo(torch.float64).eps)
    overall = (
        float(right.sum() / len(labels)),
        float(recall.nanmean()),
        float(f1.nanmean()),
        calibration_error(probabilities, labels),
        float(-given.log().mean()),
        float(brier_scores(probabilities, labels).mean()),
        float(risks(probabilities, labels).mean()),
    )
    return np.array([*overall, *recall.tolist(), *f1.tolist()])


def _bins(probabilities: Tensor, labels: Tensor) -> tuple[Bin, ...]:
    faces, confidence, right = reliability(probabilities, labels)
    means, accuracies = confidence / faces, right / faces  # NaN without faces
    return tuple(
        Bin(int(number), mean, accuracy)
        for number, mean, accuracy in zip(
            faces.tolist(), means.tolist(), accuracies.tolist(), strict=True
        )
    )


def _coverage(probabilities: Tensor, labels: Tensor) -> tuple[Coverage, ...]:
    curve = risks(probabilities, labels)
    confidence = probabilities.max(1).values.sort(descending=True).values
    last = [max(1, round(share * len(labels))) - 1 for share in COVERAGES]
    return tuple(
        Coverage(share, 1 - float(curve[i]), float(confidence[i]))
        for share, i in zip(COVERAGES, last, strict=True)
    )


def _plain(value: Any) -> Any:
    """Named tuples and mappings as dicts, other tuples as lists, NaN as None, recursively."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
