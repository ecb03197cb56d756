"""Embeddings of labelled pictures: one face of each, kept for the next run."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcnn.disk import whole_file
from pcnn.embeddings.heads import Vectors
from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.recognition.recognizer import Recognizer
from pcnn.terminal import track
from pcnn.training.folds import digests_of
from pcnn.version import __version__

_LONG = 16  # pictures from which a progress bar is shown
_AT_ONCE = 256  # pictures whose embeddings are written together


class Found(NamedTuple):
    """A picture's faces: their number, and the largest one's embedding; zeros without a face."""

    faces: int
    vector: Vectors


@dataclass(frozen=True, eq=False)
class Examples:
    """One face of each picture that has any.

    places: (M,) int64, indices of the pictures. features: (M, D) float32.
    digests: M SHA-256 of the pictures' files: copies have the same.
    several: how many of these pictures have more than one face; the largest one is taken.
    problems: a line for each picture that cannot be read or has no face.
    """

    places: NDArray[np.int64]
    features: Vectors
    digests: tuple[str, ...]
    several: int
    problems: tuple[str, ...]


def examples_of(
    recognizer: Recognizer, files: Sequence[Path], cache: Path, *, faces: bool
) -> Examples:
    """The largest face of each picture, as an embedding. Shows its progress on a terminal.

    cache: an `.npz` of what earlier runs computed, by the pictures' contents. It is renewed, and
        passed over if it belongs to other weights, another detector, engine or precision, or
        another version of this package.
    faces: True if each picture is one cut-out face.
    """
    digests, problems = digests_of(files)
    settings = _settings(recognizer, faces)
    known = _read(cache, settings)
    todo = {digest: files[at] for at, digest in digests.items() if digest not in known}
    failed: dict[str, str] = {}
    for found, broken in _compute(recognizer, todo, faces=faces):
        failed |= broken
        known |= found
        if found:  # after each part, so that a run that is broken off has not worked in vain
            _write(cache, settings, {digest: known[digest] for digest in sorted(known)})
    places = []
    for at, digest in digests.items():
        if digest in failed:
            problems[at] = failed[digest].replace(shown(todo[digest]), shown(files[at]))
        elif not known[digest].faces:
            problems[at] = f"{shown(files[at])}: no face found"
        else:
            places.append(at)
    chosen = [known[digests[at]] for at in places]
    return Examples(
        places=np.array(places, np.int64),
        features=np.array([each.vector for each in chosen], np.float32).reshape(
            -1, recognizer.embedding_size
        ),
        digests=tuple(digests[at] for at in places),
        several=sum(each.faces > 1 for each in chosen),
        problems=tuple(problems[at] for at in sorted(problems)),
    )


def _compute(
    recognizer: Recognizer, todo: dict[str, Path], *, faces: bool
) -> Iterator[tuple[dict[str, Found], dict[str, str]]]:
    """The faces of pictures by their digests, and the reasons why others cannot be read.

    In parts of _AT_ONCE pictures, a multiple of the recognizer's batches: a run that goes on after
    a part makes the same batches, and so the same last digits.
    """
    results = track(
        zip(todo, _largest(recognizer, list(todo.values()), faces=faces), strict=True),
        "faces",
        total=len(todo),
        shown=len(todo) >= _LONG,
    )
    found: dict[str, Found] = {}
    failed: dict[str, str] = {}
    for count, (digest, result) in enumerate(results, 1):
        if isinstance(result, InputError):
            failed[digest] = str(result)
        else:
            found[digest] = result
        if count % _AT_ONCE == 0 or count == len(todo):
            yield found, failed
            found, failed = {}, {}


def _largest(
    recognizer: Recognizer, files: Sequence[Path], *, faces: bool
) -> Iterator[Found | InputError]:
    """The largest face of each picture, or the reason why it cannot be read, in order."""
    if faces:
        for vector in recognizer.embed_crops(iter(files), on_error="return"):
            yield vector if isinstance(vector, InputError) else Found(1, vector)
        return
    for result in recognizer.embed(iter(files), on_error="return", boxes=True):
        if isinstance(result, InputError):
            yield result
            continue
        vectors, boxes = result
        if not len(vectors):
            yield Found(0, np.zeros(recognizer.embedding_size, np.float32))
            continue
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        yield Found(len(vectors), vectors[int(areas.argmax())])


def _settings(recognizer: Recognizer, faces: bool) -> str:
    """A hash of what the embeddings depend on beside the pictures."""
    finder = recognizer.finder
    # Of "torch 2.9, float32, 2 threads" the engine with its version, and the precision.
    engine = dict(recognizer.info())["engine"].split(", ")[:2]
    parts: list[object] = [__version__, recognizer.weights_sha256, *engine]
    parts += [finder.fingerprint, finder.align_crops, faces]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(cache: Path, settings: str) -> dict[str, Found]:
    """What an earlier run computed; nothing if there is none, or with other settings."""
    try:
        with np.load(cache) as arrays:  # without allow_pickle the file can run no code
            if str(arrays["settings"]) != settings:
                return {}
            rows = zip(arrays["digests"], arrays["faces"], arrays["features"], strict=True)
            return {str(digest): Found(int(count), vector) for digest, count, vector in rows}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def _write(cache: Path, settings: str, known: dict[str, Found]) -> None:
    with whole_file(cache) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            settings=np.array(settings),
            digests=np.array(list(known), np.str_),
            faces=np.array([each.faces for each in known.values()], np.int64),
            features=np.array([each.vector for each in known.values()], np.float32),
        )
