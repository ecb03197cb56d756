"""Photographs for training and scoring the detector, with the teacher's faces."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcnn.arrays import read_arrays
from pcnn.disk import keep_if_possible
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.results.values import Detection

# The teacher's candidates below DOUBTFUL are noise; those between both limits are doubtful.
DOUBTFUL, CONFIDENT = 0.3, 0.9
_LABEL_BATCH = 8
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FORMATS = ("JPEG", "PNG", "WEBP")
# The arrays of a cache: counts for each photograph, the others' shapes for each face.
_CACHED: dict[str, tuple[int, ...]] = {
    "counts": (),
    "boxes": (4,),
    "landmarks": (10,),
    "scores": (),
}


@dataclass(frozen=True, eq=False)
class Faces:
    """The teacher's faces in one picture, the highest score first.

    boxes: (F, 4), x1 y1 x2 y2; landmarks: (F, 10); scores: (F,), at least `DOUBTFUL`; all
        float32, pixels.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def confident(self) -> NDArray[np.bool_]:
        """(F,) True for faces with a score of at least CONFIDENT."""
        return np.asarray(self.scores >= CONFIDENT)

    def sides(self) -> NDArray[np.float32]:
        """(F,) the shorter sides of the boxes, in pixels."""
        width, height = (self.boxes[:, 2:] - self.boxes[:, :2]).T
        return np.asarray(np.minimum(width, height), np.float32)


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph, still encoded.

    name: the file's name. encoded: the bytes of a JPEG or PNG file. faces: the teacher's.
    """

    name: str
    encoded: bytes
    faces: Faces

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. Raises InputError: it cannot be decoded."""
        return _decode(self.name, self.encoded)


def is_held_out(name: str) -> bool:
    """Whether a photograph is excluded from training: one in ten, by the hash of its file name."""
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest(), 16) % 10 == 0


def read_photographs(
    path: str | Path, teacher: Detector, *, cache: str | Path | None = None
) -> list[Photograph]:
    """All photographs of a tar archive with the teacher's faces, sorted by name.

    cache: an .npz file that keeps the teacher's faces between runs. It is written if it is missing,
        damaged, or belongs to other photographs or another teacher. If it cannot be written, a
        warning says so.
    Raises InputError: the archive is missing, unreadable, or has no JPEG or PNG file.
    """
    files = _read_archive(Path(path))
    cache = None if cache is None else Path(cache)
    fingerprint = _fingerprint(files, teacher)
    found = None if cache is None else _cached_faces(cache, fingerprint, len(files))
    if found is None:
        found = _label(files, teacher)
        if cache is not None:
            arrays: dict[str, Any] = {"fingerprint": np.array(fingerprint), **found}
            keep_if_possible(cache, lambda path: np.savez(path, **arrays))
    photographs, start = [], 0
    for (name, encoded), count in zip(files, found["counts"], strict=True):
        chosen = slice(start, start + int(count))
        faces = Faces(*(found[part][chosen] for part in ("boxes", "landmarks", "scores")))
        photographs.append(Photograph(name, encoded, faces))
        start += int(count)
    return photographs


def _read_archive(path: Path) -> list[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            files = [
                (member.name, file.read())
                for member in archive
                if member.name.lower().endswith(_SUFFIXES)
                and (file := archive.extractfile(member)) is not None
            ]
    except Exception as error:  # tarfile and its decompressors raise many kinds of errors
        raise InputError(f"read_photographs: cannot read archive {path} ({error})") from error
    if not files:
        raise InputError(f"read_photographs: {path} holds no JPEG or PNG file")
    return sorted(files)


def _label(files: Sequence[tuple[str, bytes]], teacher: Detector) -> dict[str, NDArray[np.float32]]:
    faces: list[tuple[Detection, ...]] = []
    for start in range(0, len(files), _LABEL_BATCH):
        images = [_decode(name, encoded) for name, encoded in files[start : start + _LABEL_BATCH]]
        faces.extend(teacher.detect_upright(images, min_score=DOUBTFUL))
    every = [face for found in faces for face in found]
    return {
        "counts": np.array([len(found) for found in faces], np.float32),
        "boxes": np.array([face.box for face in every], np.float32).reshape(-1, 4),
        "landmarks": np.array([face.landmarks for face in every], np.float32).reshape(-1, 10),
        "scores": np.array([face.score for face in every], np.float32),
    }


def _decode(name: str, encoded: bytes) -> NDArray[np.uint8]:
    """The pixels as they are stored: neither the teacher's faces nor the training turn them."""
    try:
        # By name, since Pillow would try all its formats, and passes some to other programs.
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders have no common base class
        raise InputError(f"read_photographs: cannot decode {name} ({error})") from error


def _fingerprint(files: Sequence[tuple[str, bytes]], teacher: Detector) -> str:
    digest = hashlib.sha256(repr(getattr(teacher, "settings", None)).encode())
    if hasattr(teacher, "network"):
        for value in teacher.network.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
    for name, encoded in files:
        digest.update(name.encode())
        digest.update(encoded)
    return digest.hexdigest()


def _cached_faces(
    cache: Path, fingerprint: str, photographs: int
) -> dict[str, NDArray[np.float32]] | None:
    """The faces in a cache; None if there is none, or a damaged or another one."""
    try:
        stored = read_arrays(cache)
        own = stored.get("fingerprint", np.array(0))
        if own.dtype.kind != "U" or own.shape or str(own) != fingerprint:
            return None
    except ValueError:  # InputError is one, and text that is no text
        return None
    found = {name: stored[name] for name in _CACHED if name in stored}
    numbers = all(each.dtype == np.float32 and np.isfinite(each).all() for each in found.values())
    sound = numbers and len(found) == len(_CACHED) and _fit_together(found, photographs)
    return found if sound else None


def _fit_together(found: Mapping[str, NDArray[np.float32]], photographs: int) -> bool:
    """Whether there is a count for each photograph, and as many faces as they count."""
    counts = found["counts"]
    if counts.shape != (photographs,) or ((counts < 0) | (counts != np.floor(counts))).any():
        return False
    faces = int(counts.sum(dtype=np.float64))
    return all(
        found[name].shape == (faces, *rest) for name, rest in _CACHED.items() if name != "counts"
    )
