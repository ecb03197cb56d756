"""Small linear heads for labels of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pcnn.devices import own_settings
from pcnn.errors import InputError, WeightsError
from pcnn.weights.files import WeightsFile, write
from pcnn.weights.kinds import HEAD
from pcnn.weights.schema import shown

Vectors: TypeAlias = NDArray[np.float32]
Method = Literal["logistic", "balanced", "means"]
_Linear: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]  # (labels, D), (labels,)

_ARCHITECTURE = "head"


def unit_norm(features: Vectors) -> Vectors:
    """(N, D) → the same directions with length 1, float32; a row of zeros stays one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)


@dataclass(frozen=True, eq=False)
class Head:
    """Labels of one's own, read from a face's vector by a linear map and a softmax.

    labels: their names, in the order of the scores. matrix: (labels, D) float32.
    bias: (labels,) float32. weights_sha256: of the weights file whose vectors it was fitted on;
        vectors of other weights mean nothing to it.
    Raises InputError: shapes that do not fit together, fewer than two labels, one twice.
    """

    labels: tuple[str, ...]
    matrix: Vectors
    bias: Vectors
    weights_sha256: str

    def __post_init__(self) -> None:
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
        """Learn labels from examples.

        features: (N, D), finite: what `Recognizer.embed` gives. labels: N names, at least two
            different ones; the head's labels are these in alphabetical order.
        weights: `Recognizer.weights_sha256` of the recognizer that made the features.
        method: "logistic" regression, for which a label is as likely as it is frequent among the
            examples; "balanced", the same with all labels alike however few their examples;
            "means", the label of the nearest class mean, which alone needs no scikit-learn and is
            measurably worse (docs/embeddings.md).
        strength: of the logistic regression's ridge penalty, above 0: the more, the nearer to
            chance. It is for features brought to mean 0 and mean squared length 1.
        Raises InputError: wrong shapes or values, one label only, scikit-learn is missing (it comes
        with `pip install 'pcnn[train]'`).
        """
        examples = _check_features("Head.fit", features)
        names = tuple(sorted(set(labels)))
        if len(labels) != len(examples):
            raise InputError(f"Head.fit: labels must be {len(examples)}, got {len(labels)}")
        if len(names) < 2:
            raise InputError(f"Head.fit: labels must be of two kinds or more, got {names}")
        if method not in ("logistic", "balanced", "means"):
            raise InputError(
                f"Head.fit: method must be 'logistic', 'balanced' or 'means', got {method!r}"
            )
        if not strength > 0:
            raise InputError(f"Head.fit: strength must be above 0, got {strength}")
        places = np.array([names.index(label) for label in labels])
        centre = examples.mean(0, dtype=np.float64)
        spread = np.sqrt(((examples - centre) ** 2).sum(1).mean())
        # One factor for all values: a factor for each would be noise where examples are few.
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
        """D: how many values a vector must have."""
        return int(self.matrix.shape[1])

    @own_settings()
    def predict_proba(self, features: ArrayLike) -> Vectors:
        """(N, D) → (N, labels) float32 probabilities; rows sum to 1, N = 0 gives none.

        Raises InputError: another D, values that are not finite.
        """
        vectors = _check_features("Head.predict_proba", features, self.size)
        logits = vectors @ self.matrix.T + self.bias
        return torch.from_numpy(logits).softmax(1).numpy()

    def predict(self, features: ArrayLike) -> list[str]:
        """The likeliest label of each of (N, D) vectors. Raises InputError: as predict_proba."""
        return [self.labels[best] for best in self.predict_proba(features).argmax(1)]

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, for `load` and for `Recognizer(head=path)`."""
        write(
            path,
            {"matrix": torch.from_numpy(self.matrix), "bias": torch.from_numpy(self.bias)},
            {
                "architecture": _ARCHITECTURE,
                "labels": list(self.labels),
                "weights_sha256": self.weights_sha256,
            },
        )

    @classmethod
    @own_settings()
    def load(cls, path: str | Path) -> Head:
        """Read what `save` wrote. Raises WeightsError: missing, damaged, or something else."""
        file = WeightsFile(path)
        metadata, shape = file.metadata, file.shapes.get("matrix", ())
        if metadata.get("architecture") != _ARCHITECTURE:
            found = shown(metadata.get("architecture"))
            raise WeightsError(f"{path}: holds {found}, expected {_ARCHITECTURE!r}")
        file.check(HEAD)
        labels = tuple(metadata["labels"])
        size = shape[1] if len(shape) == 2 else 1
        with torch.device("meta"):
            file.check_shapes(
                {"matrix": torch.empty(len(labels), size), "bias": torch.empty(len(labels))}
            )
        tensors = file.tensors()
        return cls(
            labels=labels,
            matrix=tensors["matrix"].float().numpy(),
            bias=tensors["bias"].float().numpy(),
            weights_sha256=metadata["weights_sha256"],
        )

    def check_weights(self, sha256: str, name: str) -> None:
        """Raise WeightsError, naming the head, unless it was fitted on these weights' vectors."""
        if sha256 != self.weights_sha256:
            raise WeightsError(
                f"{name}: fitted on embeddings of weights {self.weights_sha256[:8]}, got weights "
                f"{sha256[:8]}: use the first weights, or fit the head again with the second"
            )


def _means(examples: NDArray[np.float64], places: NDArray[np.int64]) -> _Linear:
    """The head whose label is that of the nearest class mean.

    −|x − mean|² is linear in x but for a part that all labels share. Divided by the mean squared
    distance within the classes, it is the logit.
    """
    means = np.stack([examples[places == i].mean(0) for i in range(places.max() + 1)])
    within = ((examples - means[places]) ** 2).sum(1).mean()
    # Single examples do not vary around themselves: then the variance of all stands for it.
    within = within if within > 1e-6 else 1.0
    return 2 * means / within, -(means**2).sum(1) / within


def _logistic(
    examples: NDArray[np.float64], places: NDArray[np.int64], strength: float, balanced: bool
) -> _Linear:
    try:
        # By name, for it has no types.
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
    if len(slopes) == 1:  # of two labels it gives the second one's logit, the first one's being 0
        return np.concatenate((0 * slopes, slopes)), np.concatenate((0 * offsets, offsets))
    return slopes, offsets


def _check_features(function: str, features: ArrayLike, size: int | None = None) -> Vectors:
    """(N, D) float32. Raises InputError: another shape, NaN or infinity."""
    vectors = np.asarray(features, np.float32)
    wanted = "D" if size is None else size
    if vectors.ndim != 2 or size not in (None, vectors.shape[1]):
        raise InputError(f"{function}: features must be (N, {wanted}), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise InputError(f"{function}: features must be finite, got NaN or infinity")
    return vectors
