"""Heads that give numbers for a face, such as valence and arousal, and the loading of any head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.devices import own_settings
from pcnn.embeddings.heads import (
    Head,
    Vectors,
    check_align_crops,
    check_features,
    check_fitted_on,
    check_strength,
    numbers_of,
    read_linear,
    write_linear,
)
from pcnn.errors import InputError, check_texts, check_types
from pcnn.representation import Brief
from pcnn.weights.files import WeightsFile
from pcnn.weights.kinds import VALUE_HEAD

_ARCHITECTURE = "values"
# Strengths of the ridge penalty that are tried, relative to the features' mean squared length.
STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-10, 3))

# Of a number to learn: far below float32's largest, as slopes can be much larger than numbers.
_LARGEST = 1e30


@dataclass(frozen=True, eq=False, repr=False)
class ValueHead(Brief):
    """A linear map from a face's embedding to numbers with names.

    names: of the numbers, in order. matrix: (names, D) float32. bias: (names,) float32.
    weights_sha256: of the weights whose embeddings it was fitted on.
    align_crops: how its examples were read if they were pictures of faces, see Head.
    Raises InputError: shapes do not fit together, no name, or a repeated name.

    >>> import numpy as np
    >>> from pcnn.embeddings import ValueHead
    >>> head = ValueHead(("valence",), np.ones((1, 2), np.float32), np.zeros(1, np.float32), "")
    >>> head.predict([[0.5, 0.25]])
    array([[0.75]], dtype=float32)
    """

    names: tuple[str, ...]
    matrix: Vectors
    bias: Vectors
    weights_sha256: str
    align_crops: bool | None = None

    def __post_init__(self) -> None:
        check_texts("ValueHead: names", self.names)
        check_types(self, np.ndarray, "matrix", "bias")
        check_align_crops(self)
        count = len(self.names)
        if count < 1 or len(set(self.names)) < count:
            raise InputError(f"ValueHead: names must be one or more, all different: {self.names}")
        if self.matrix.ndim != 2 or len(self.matrix) != count or self.bias.shape != (count,):
            raise InputError(
                f"ValueHead: matrix must be ({count}, D) and bias ({count},), "
                f"got {self.matrix.shape} and {self.bias.shape}"
            )

    @classmethod
    def fit(
        cls,
        features: ArrayLike,
        values: ArrayLike,
        names: Sequence[str],
        *,
        weights: str,
        strength: float | None = None,
    ) -> ValueHead:
        """Fit a ridge regression to examples.

        features: (N, D), finite, from `Recognizer.embed`; N ≥ 3. values: (N, names), finite.
        weights: `Recognizer.weights_sha256` of the recognizer that made the features.
        strength: of the penalty, above 0, relative to N. None tries STRENGTHS for each number and
            takes the one with the least squared error of examples left out one at a time.
        Raises InputError: wrong shapes or values.
        """
        examples = check_features("ValueHead.fit", features).astype(np.float64)
        wanted = numbers_of("ValueHead.fit: values", values, np.float64)
        if len(examples) < 3 or wanted.shape != (len(examples), len(names)):
            raise InputError(
                f"ValueHead.fit: values must be (N, {len(names)}) with a row for each of N ≥ 3 "
                f"features, got {wanted.shape} and {len(examples)} features"
            )
        if not np.isfinite(wanted).all():
            raise InputError("ValueHead.fit: values must be finite, got NaN or infinity")
        if np.abs(wanted).max() > _LARGEST:
            raise InputError("ValueHead.fit: values are too large for float32: divide them")
        if strength is not None:
            check_strength("ValueHead.fit", strength)
        centre, middle = examples.mean(0), wanted.mean(0)
        spread = max(float(np.sqrt(((examples - centre) ** 2).sum(1).mean())), 1e-12)
        tried = STRENGTHS if strength is None else (strength,)
        slopes = _ridge((examples - centre) / spread, wanted - middle, tried) / spread
        return cls(
            names=tuple(names),
            matrix=slopes.astype(np.float32),
            bias=(middle - slopes @ centre).astype(np.float32),
            weights_sha256=weights,
        )

    @property
    def size(self) -> int:
        """D, the number of values of an embedding."""
        return int(self.matrix.shape[1])

    def predict(self, features: ArrayLike) -> Vectors:
        """The numbers (N, names) float32 for features (N, D); N may be 0.

        Raises InputError: another D, values that are not finite.
        """
        vectors = check_features("ValueHead.predict", features, self.size)
        return np.asarray(vectors @ self.matrix.T + self.bias, np.float32)

    def save(self, path: str | Path) -> None:
        """Write the head as safetensors, for `load` and for `Recognizer(head=path)`."""
        write_linear(path, _ARCHITECTURE, "names", self.names, self)

    @classmethod
    @own_settings()
    def load(cls, path: str | Path) -> ValueHead:
        """Read a file that `save` wrote. Raises WeightsError: missing, damaged, or another file."""
        return cls(*read_linear(path, _ARCHITECTURE, "names", VALUE_HEAD))

    def check_weights(self, sha256: str, name: str) -> None:
        """Raise WeightsError unless the head was fitted on embeddings of these weights.

        name: the head's name in the message.
        """
        check_fitted_on(self.weights_sha256, sha256, name)


def load_head(path: str | Path) -> Head | ValueHead:
    """Read the file of a head of either kind. Raises WeightsError: as `Head.load`."""
    if WeightsFile(path).metadata.get("architecture") == _ARCHITECTURE:
        return ValueHead.load(path)
    return Head.load(path)


def _ridge(
    examples: NDArray[np.float64], wanted: NDArray[np.float64], strengths: Sequence[float]
) -> NDArray[np.float64]:
    """Slopes (values, D), for each value with the strength that predicts left-out examples best.

    examples: (N, D) and wanted: (N, values), both of mean 0.
    An example's error when it is left out is its error with it, divided by 1 − its leverage
    (Allen 1974, The Relationship between Variable Selection and Data Augmentation).
    """
    count = len(examples)
    left, scale, right = np.linalg.svd(examples, full_matrices=False)
    projected = left.T @ wanted  # (rank, values)
    errors, slopes = [], []
    for strength in strengths:
        shares = scale**2 / (scale**2 + strength * count)
        leverage = 1 / count + (left**2) @ shares
        residual = wanted - left @ (shares[:, None] * projected)
        errors.append(((residual / np.maximum(1 - leverage, 1e-9)[:, None]) ** 2).mean(0))
        factors = scale / (scale**2 + strength * count)
        slopes.append((right.T @ (factors[:, None] * projected)).T)
    best = np.argmin(errors, axis=0)
    return np.stack([slopes[place][value] for value, place in enumerate(best)])
