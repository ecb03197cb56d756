"""Photographs for training and scoring the detector, with the teacher's faces."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pcnn.disk import whole_file
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.results.values import Detection

# The teacher's candidates below DOUBTFUL are noise; those between both limits are doubtful.
DOUBTFUL, CONFIDENT = 0.3, 0.9
_LABEL_BATCH = 8
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


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
        """(H, W, 3) uint8 RGB."""
        with Image.open(io.BytesIO(self.encoded)) as image:
            return np.array(image.convert("RGB"))


def is_held_out(name: str) -> bool:
    """Whether a photograph is excluded from training: one in ten, by the hash of its file name."""
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest(), 16) % 10 == 0


def read_photographs(
    path: str | Path, teacher: Detector, *, cache: str | Path | None = None
) -> list[Photograph]:
    """All photographs of a tar archive with the teacher's faces, sorted by name.

    cache: an .npz file that keeps the teacher's faces between runs. It is written if it is missing
        or belongs to other photographs or another teacher.
    Raises InputError: the archive is missing, unreadable, or has no JPEG or PNG file.
    """
    files = _read_archive(Path(path))
    cache = None if cache is None else Path(cache)
    fingerprint = _fingerprint(files, teacher)
    found = _cached_faces(cache, fingerprint) if cache is not None and cache.exists() else None
    if found is None:
        found = _label(files, teacher)
        if cache is not None:
            _write_cache(cache, fingerprint, found)
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
    except (OSError, tarfile.TarError) as error:
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
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
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


def _cached_faces(cache: Path, fingerprint: str) -> dict[str, NDArray[np.float32]] | None:
    with np.load(cache) as stored:
        if str(stored["fingerprint"]) != fingerprint:
            return None
        return {name: stored[name] for name in ("counts", "boxes", "landmarks", "scores")}


def _write_cache(cache: Path, fingerprint: str, found: dict[str, NDArray[np.float32]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(cache) as temporary:
        np.savez(temporary, fingerprint=np.array(fingerprint), **found)  # type: ignore[arg-type]
