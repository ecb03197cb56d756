"""Linear heads on embeddings, for your own labels."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pcnn.devices import own_settings
from pcnn.errors import InputError, WeightsError, check_texts, check_types, is_number
from pcnn.representation import Brief
from pcnn.weights.files import WeightsFile, name_of_sha256, write
from pcnn.weights.kinds import HEAD
from pcnn.weights.schema import Rule, shown

Vectors: TypeAlias = NDArray[np.float32]
Method = Literal["logistic", "balanced", "means"]
_Linear: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]  # (labels, D), (labels,)

_ARCHITECTURE = "head"


def unit_norm(features: Vectors) -> Vectors:
    """Scale the rows of (N, D) to length 1, float32; a row of zeros stays zero."""
    # In double precision squares neither overflow nor vanish.
    lengths = np.linalg.norm(np.asarray(features, np.float64), axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Head(Brief):
    """A linear classifier with softmax for your own labels, on a face's embedding.

    labels: their names, in the order of the scores. matrix: (labels, D) float32.
    bias: (labels,) float32. weights_sha256: of the weights whose embeddings it was fitted on.
        Embeddings of other weights do not fit.
    align_crops: how its examples were read if they were pictures of faces, as in Recognizer, which
        reads such pictures in the same way. None: as the weights decide.
    Raises InputError: shapes do not fit together, fewer than two labels, or a repeated label.

    >>> matrix = np.eye(2, 256, dtype=np.float32)
    >>> head = Head(("no", "yes"), matrix, np.zeros(2, np.float32), recognizer.weights_sha256)
    >>> head.predict(matrix)
    ['no', 'yes']
    """

    labels: tuple[str, ...]
    matrix: Vectors
    bias: Vectors
    weights_sha256: str
    align_crops: bool | None = None

    def __post_init__(self) -> None:
        check_texts("Head: labels", self.labels)
        check_types(self, np.ndarray, "matrix", "bias")
        check_align_crops(self)
        count = len(self.labels)
        if count < 2 or len(set(self.labels)) < count:
            raise InputError(f"Head: labels must be two or more, all different, got {self.labels}")
        if self.matrix.ndim != 2 or len(self.matrix) != count or self.bias.shape != (count,):
            raise InputError(
                f"Head: matrix must be ({count}, D) and bias ({count},), "
                f"got {self.matrix.shape} and {self.bias.shape}"
            )

    @classmethod
    def fit(
        cls,
        features: ArrayLike,
        labels: Sequence[str],
        *,
        weights: str,
        method: Method = "logistic",
        strength: float = 1.0,
    ) -> Head:
        """Fit a head to examples.

        features: (N, D), finite, from `Recognizer.embed`. labels: N names, at least two different
            ones. The head has them in alphabetical order.
        weights: `Recognizer.weights_sha256` of the recognizer that made the features.
        method: "logistic" is logistic regression; frequent labels are more likely. "balanced"
            gives all labels the same weight, even with few examples. "means" is the nearest class
            mean; it needs no scikit-learn and is measurably worse (docs/embeddings.md).
        strength: of the logistic regression's ridge penalty, above 0. Larger values give less
            certain predictions. Features are first scaled to mean 0 and mean squared length 1.
        Raises InputError: wrong shapes or values, a single label, or scikit-learn is missing (it
            is part of `pip install 'pcnn[train]'`).
        """
        examples = check_features("Head.fit", features)
        if len(labels) != len(examples):
            raise InputError(f"Head.fit: labels must be {len(examples)}, got {len(labels)}")
        names = tuple(sorted(set(labels)))
        if len(names) < 2:
            raise InputError(f"Head.fit: labels must be of two kinds or more, got {names}")
        if method not in ("logistic", "balanced", "means"):
            raise InputError(
                f"Head.fit: method must be 'logistic', 'balanced' or 'means', got {method!r}"
            )
        check_strength("Head.fit", strength)
        places = np.array([names.index(label) for label in labels])
        centre = examples.mean(0, dtype=np.float64)
        spread = np.sqrt(((examples - centre) ** 2).sum(1).mean())
        # One scale for all values; separate scales would be noisy with few examples.
        scaled = (examples - centre) / max(spread, 1e-12)
        if method == "means":
            slopes, offsets = _means(scaled, places)
        else:
            slopes, offsets = _logistic(scaled, places, strength, method == "balanced")
        slopes = slopes / max(spread, 1e-12)
        return cls(
            labels=names,
            matrix=slopes.astype(np.float32),
            bias=(offsets - slopes @ centre).astype(np.float32),
            weights_sha256=weights,
        )

    @property
    def size(self) -> int:
        """D, the number of values of an embedding."""
        return int(self.matrix.shape[1])

    @own_settings()
    def predict_proba(self, features: ArrayLike) -> Vectors:
        """Probabilities (N, labels) float32 for features (N, D); rows sum to 1; N may be 0.

        Raises InputError: another D, values that are not finite.
        """
        vectors = check_features("Head.predict_proba", features, self.size)
        logits = vectors @ self.matrix.T + self.bias
        return torch.from_numpy(logits).softmax(1).numpy()

    def predict(self, features: ArrayLike) -> list[str]:
        """The likeliest label of each of (N, D) embeddings. Raises InputError: as predict_proba."""
        return [self.labels[best] for best in self.predict_proba(features).argmax(1)]

    def save(self, path: str | Path) -> None:
        """Write the head as safetensors, for `load` and for `Recognizer(head=path)`."""
        write_linear(path, _ARCHITECTURE, "labels", self.labels, self)

    @classmethod
    @own_settings()
    def load(cls, path: str | Path) -> Head:
        """Read a file that `save` wrote. Raises WeightsError: missing, damaged, or another file."""
        return cls(*read_linear(path, _ARCHITECTURE, "labels", HEAD))

    def sharpened(self, temperature: float) -> Head:
        """The head whose logits are divided by `temperature`, above 0; below 1 it is surer."""
        return dataclasses.replace(
            self,
            matrix=(self.matrix / temperature).astype(np.float32),
            bias=(self.bias / temperature).astype(np.float32),
        )

    def check_weights(self, sha256: str, name: str) -> None:
        """Raise WeightsError unless the head was fitted on embeddings of these weights.

        name: the head's name in the message.
        """
        check_fitted_on(self.weights_sha256, sha256, name)


class Linear(Protocol):
    """A linear map of embeddings, fitted on those of some weights."""

    @property
    def matrix(self) -> Vectors:
        """(names, D)."""

    @property
    def bias(self) -> Vectors:
        """(names,)."""

    @property
    def weights_sha256(self) -> str:
        """Of the weights, hexadecimal."""

    @property
    def align_crops(self) -> bool | None:
        """Whether the examples were aligned, see Head."""


def write_linear(
    path: str | Path, architecture: str, field: str, names: Sequence[str], head: Linear
) -> None:
    """Write a head of either kind as safetensors. field: the metadata's entry for the names."""
    alignment = {} if head.align_crops is None else {"align_crops": head.align_crops}
    write(
        path,
        {"matrix": torch.from_numpy(head.matrix), "bias": torch.from_numpy(head.bias)},
        {
            "architecture": architecture,
            field: list(names),
            "weights_sha256": head.weights_sha256,
            **alignment,
        },
    )


def read_linear(
    path: str | Path, architecture: str, field: str, rule: Rule
) -> tuple[tuple[str, ...], Vectors, Vectors, str, bool | None]:
    """The fields of a head of either kind, in their order, of a file of write_linear.

    Raises WeightsError: missing, damaged, or another file.
    """
    file = WeightsFile(path)
    metadata, shape = file.metadata, file.shapes.get("matrix", ())
    if metadata.get("architecture") != architecture:
        found = shown(metadata.get("architecture"))
        raise WeightsError(f"{path}: holds {found}, expected {architecture!r}")
    file.check(rule)
    names = tuple(metadata[field])
    size = shape[1] if len(shape) == 2 else 1
    with torch.device("meta"):
        file.check_shapes(
            {"matrix": torch.empty(len(names), size), "bias": torch.empty(len(names))}
        )
    tensors = file.tensors()
    matrix, bias = (tensors[name].float().numpy() for name in ("matrix", "bias"))
    return names, matrix, bias, metadata["weights_sha256"], metadata.get("align_crops")


def check_align_crops(head: Linear) -> None:
    """Raise InputError unless a head's `align_crops` is True, False or None."""
    if head.align_crops is not None and not isinstance(head.align_crops, bool):
        kind, value = type(head).__name__, head.align_crops
        raise InputError(f"{kind}: align_crops must be True, False or None, got {value!r}")


def check_fitted_on(fitted_on: str, sha256: str, name: str) -> None:
    """Raise WeightsError unless both hashes are equal.

    fitted_on: SHA-256 of the weights of a head. sha256: of the weights in use.
    name: the head's name in the message.
    """
    if sha256 != fitted_on:
        packaged = name_of_sha256(fitted_on)
        first = f"weights={packaged!r}" if packaged else "the first weights"
        raise WeightsError(
            f"{name}: fitted on embeddings of weights {fitted_on[:8]}, got weights {sha256[:8]}: "
            f"use {first}, or fit the head again with the second"
        )


def _means(examples: NDArray[np.float64], places: NDArray[np.int64]) -> _Linear:
    """The head of the nearest class mean.

    −|x − mean|² is linear in x, except for a term that all labels share. Divided by the mean
    squared distance within the classes, it is the logit.
    """
    means = np.stack([examples[places == i].mean(0) for i in range(places.max() + 1)])
    within = ((examples - means[places]) ** 2).sum(1).mean()
    # With single examples the variance within classes is 0; then that of all examples is used.
    within = within if within > 1e-6 else 1.0
    return 2 * means / within, -(means**2).sum(1) / within


def _logistic(
    examples: NDArray[np.float64], places: NDArray[np.int64], strength: float, balanced: bool
) -> _Linear:
    try:
        # Imported by name, because it has no types.
        models = importlib.import_module("sklearn.linear_model")
    except ImportError as error:
        raise InputError(
            "Head.fit: a regression needs scikit-learn: pip install 'pcnn[train]', or use "
            "method='means'"
        ) from error
    balance = "balanced" if balanced else None
    model = models.LogisticRegression(C=1 / strength, max_iter=1000, class_weight=balance)
    fitted = model.fit(examples, places)
    slopes, offsets = fitted.coef_, fitted.intercept_
    if len(slopes) == 1:  # for two labels it has only the second logit; the first one is 0
        return np.concatenate((0 * slopes, slopes)), np.concatenate((0 * offsets, offsets))
    return slopes, offsets


def check_strength(function: str, strength: object) -> None:
    """Raise InputError unless the strength of a fit is a finite number above 0."""
    if not is_number(strength) or not 0 < strength < np.inf:  # type: ignore[operator]
        raise InputError(f"{function}: strength must be a finite number above 0, got {strength!r}")


def numbers_of(subject: str, values: ArrayLike, kind: type[np.floating[Any]]) -> NDArray[Any]:
    """The values as an array of a floating type. Raises InputError: they are no numbers."""
    try:
        return np.asarray(values, kind)
    except (TypeError, ValueError) as error:
        raise InputError(f"{subject} must be numbers ({error})") from error


def check_features(function: str, features: ArrayLike, size: int | None = None) -> Vectors:
    """The features as (N, D) float32.

    Raises InputError: no numbers, another shape, NaN or infinity.
    """
    vectors = numbers_of(f"{function}: features", features, np.float32)
    wanted = "D" if size is None else size
    if vectors.ndim != 2 or size not in (None, vectors.shape[1]):
        raise InputError(f"{function}: features must be (N, {wanted}), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise InputError(f"{function}: features must be finite, got NaN or infinity")
    return vectors
