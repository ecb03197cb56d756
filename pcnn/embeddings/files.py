"""Files of embeddings, and search for the nearest ones."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.arrays import read_arrays
from pcnn.disk import as_path, whole_file
from pcnn.embeddings.heads import Head, numbers_of, unit_norm
from pcnn.embeddings.triplets import (
    Triplets,
    TripletScore,
    embed_triplets,
    interval,
    read_triplets,
    triplet_accuracy,
)
from pcnn.errors import InputError, check_count, check_texts, check_types
from pcnn.images.files import as_unicode
from pcnn.representation import Brief

__all__ = [
    "Embeddings",
    "Head",
    "TripletScore",
    "Triplets",
    "embed_triplets",
    "interval",
    "nearest",
    "read_triplets",
    "triplet_accuracy",
    "unit_norm",
]

SUFFIXES = (".npz", ".parquet")
_EDGES = ("x1", "y1", "x2", "y2")
# NumPy's kinds of numbers and text for each array.
_KINDS = {"features": "f", "paths": "U", "face_index": "iu", "boxes": "f", "weights_sha256": "U"}
# Queries and similarities that `nearest` has in memory, each similarity with its place.
_ROWS_AT_ONCE, _SIMILARITIES_AT_ONCE = 1024, 1 << 25


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings(Brief):
    """Embeddings of many faces, with their places.

    features: (N, D) float32, of unit norm. paths: N file names.
    face_index: (N,) int64, the number of the face in its picture, from 0, the highest detection
        score first.
    boxes: (N, 4) float32, x1 y1 x2 y2 in pixels; NaN for cut-out faces.
    weights_sha256: of the network's weights.
    Raises InputError: the lengths differ.

    >>> vectors = recognizer.embed("docs/images/astronaut.png")
    >>> places = np.zeros(1, np.int64), np.zeros((1, 4), np.float32)
    >>> found = Embeddings(vectors, ("astronaut.png",), *places, recognizer.weights_sha256)
    >>> found.save("faces.npz")
    >>> Embeddings.load("faces.npz").features.shape
    (1, 1280)
    """

    features: NDArray[np.float32]
    paths: tuple[str, ...]
    face_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    weights_sha256: str

    def __post_init__(self) -> None:
        check_texts("Embeddings: paths", self.paths)
        check_types(self, np.ndarray, "features", "face_index", "boxes")
        count = len(self.paths)
        shapes = (self.features.shape[:1], self.face_index.shape, self.boxes.shape)
        if self.features.ndim != 2 or shapes != ((count,), (count,), (count, 4)):
            raise InputError(
                f"Embeddings: features, face_index and boxes must be ({count}, D), ({count},) and "
                f"({count}, 4), got {self.features.shape}, {shapes[1]} and {shapes[2]}"
            )

    def save(self, path: str | Path) -> None:
        """Write the fields as `.npz` (NumPy arrays) or `.parquet` (needs pyarrow).

        A parquet file has the columns path, face_index, x1, y1, x2, y2 and features, a list. Its
        text is UTF-8: names of files that are no Unicode are escaped.
        Raises InputError: another suffix, a file that cannot be written, no pyarrow.
        """
        path = as_path("Embeddings.save: path", path)
        check_suffix("Embeddings.save", path)
        try:
            with whole_file(path) as temporary:
                if path.suffix.lower() == ".npz":
                    self._write_npz(temporary)
                else:
                    self._write_parquet(temporary)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{path}: cannot be written ({reason})") from error

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read a file that `save` wrote.

        Raises InputError: another suffix, a missing file, other content, no pyarrow.
        """
        path = as_path("Embeddings.load: path", path)
        check_suffix("Embeddings.load", path)
        try:
            if path.suffix.lower() == ".npz":
                return cls._read_npz(path)
            return cls._read_parquet(path)
        except Exception as error:  # pyarrow raises many kinds of errors
            raise InputError(f"{path}: cannot be read as embeddings ({error})") from error

    def _write_npz(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(
                file,
                features=self.features,
                paths=np.array(self.paths, np.str_),
                face_index=self.face_index,
                boxes=self.boxes,
                weights_sha256=np.array(self.weights_sha256),
            )

    @classmethod
    def _read_npz(cls, path: Path) -> Embeddings:
        return cls._of(read_arrays(path))

    def _write_parquet(self, path: Path) -> None:
        arrow, parquet = _pyarrow("Embeddings.save")
        flat = arrow.array(self.features.ravel())
        columns = {
            "path": [as_unicode(name) for name in self.paths],
            "face_index": self.face_index,
            **{edge: self.boxes[:, i] for i, edge in enumerate(_EDGES)},
            "features": arrow.FixedSizeListArray.from_arrays(flat, self.features.shape[1]),
        }
        described = {"weights_sha256": self.weights_sha256}
        parquet.write_table(arrow.table(columns).replace_schema_metadata(described), path)

    @classmethod
    def _read_parquet(cls, path: Path) -> Embeddings:
        _, parquet = _pyarrow("Embeddings.load")
        table = parquet.read_table(path)
        column = table.column("features").combine_chunks()
        width = getattr(column.type, "list_size", None)
        if width is None:
            raise ValueError(f"features must be lists of one length, got {column.type}")
        lengths = {len(table.column(name)) for name in table.column_names}
        if lengths != {len(column)} or len(column.flatten()) != len(column) * width:
            raise ValueError("features must be lists without gaps")
        paths = table.column("path").to_pylist()
        if not all(isinstance(each, str) for each in paths):
            raise ValueError("path must be text")
        return cls._of(
            {
                "features": np.asarray(column.flatten()).reshape(-1, width),
                "paths": np.array(paths, np.str_),
                "face_index": np.asarray(table.column("face_index")),
                "boxes": np.stack([np.asarray(table.column(edge)) for edge in _EDGES], 1),
                "weights_sha256": np.array(table.schema.metadata[b"weights_sha256"].decode()),
            }
        )

    @classmethod
    def _of(cls, arrays: Mapping[str, NDArray[Any]]) -> Embeddings:
        """Embeddings from arrays by name. Raises KeyError, ValueError: missing or invalid ones."""
        for name, kinds in _KINDS.items():
            kind = arrays[name].dtype
            if kind.kind not in kinds:
                raise ValueError(f"{name} must not be {kind}")
        features = arrays["features"].astype(np.float32)
        if not np.isfinite(features).all():
            raise ValueError("features must be finite")
        if arrays["paths"].ndim != 1 or arrays["weights_sha256"].ndim:
            raise ValueError("paths must be a row of texts, weights_sha256 one text")
        return cls(
            features=features,
            paths=tuple(map(str, arrays["paths"])),
            face_index=arrays["face_index"].astype(np.int64),
            boxes=arrays["boxes"].astype(np.float32),
            weights_sha256=str(arrays["weights_sha256"]),
        )


def check_suffix(function: str, path: Path) -> None:
    """Raise InputError unless a file has one of SUFFIXES, with pyarrow installed if it needs it.

    function: the function's name in the message.
    """
    if path.suffix.lower() not in SUFFIXES:
        wanted = " or ".join(SUFFIXES)
        raise InputError(f"{function}: the file's name must end in {wanted}, got {path.name!r}")
    if path.suffix.lower() == ".parquet":
        _pyarrow(function)


def _pyarrow(function: str) -> tuple[ModuleType, ModuleType]:
    try:
        arrow = importlib.import_module("pyarrow")
        return arrow, importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            f"{function}: .parquet needs pyarrow: pip install pyarrow, or choose .npz"
        ) from error


def nearest(
    features: ArrayLike, queries: ArrayLike, k: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k embeddings with the highest cosine similarity to each query, the nearest first.

    features: (N, D). queries: (Q, D). Both may have any norm.
    Returns indices into `features` (Q, min(k, N)) and cosine similarities, −1…1, of the same
    shape. Equal similarities keep their order. A query from `features` finds itself first.
    Raises InputError: wrong shapes, values that are not finite, k below 1.

    >>> places, similar = nearest(np.eye(3), [[0.6, 0.8, 0.0]], k=2)
    >>> places.tolist(), similar.round(2).tolist()
    ([[1, 0]], [[0.800000..., 0.600000...]])
    """
    vectors = numbers_of("nearest: features", features, np.float32)
    asked = numbers_of("nearest: queries", queries, np.float32)
    if vectors.ndim != 2 or asked.ndim != 2 or vectors.shape[1] != asked.shape[1]:
        raise InputError(
            f"nearest: features and queries must be (N, D) and (Q, D), got {vectors.shape} and "
            f"{asked.shape}"
        )
    check_count("nearest", "k", k)
    if not (np.isfinite(vectors).all() and np.isfinite(asked).all()):
        raise InputError("nearest: features and queries must be finite, got NaN or infinity")
    vectors, asked = unit_norm(vectors), unit_norm(asked)
    k = min(k, len(vectors))
    places = np.empty((len(asked), k), np.int64)
    found = np.empty((len(asked), k), np.float32)
    step = min(_ROWS_AT_ONCE, max(1, _SIMILARITIES_AT_ONCE // max(1, len(vectors))))
    for start in range(0, len(asked), step):
        rows = slice(start, start + step)
        similar = asked[rows] @ vectors.T
        best = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        places[rows], found[rows] = best, np.take_along_axis(similar, best, 1)
    return places, found
