"""Faces with a teacher's answers: points, movements and poses."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pcnn.arrays import read_arrays
from pcnn.datasets.ferplus import read_tiles
from pcnn.errors import InputError, in_words
from pcnn.faces.geometry import similarity
from pcnn.networks.movements import mirror_names
from pcnn.ops import crop_regions
from pcnn.terminal import track
from pcnn.training.photographs import is_held_out
from pcnn.training.teacher_options import TaughtOptions

# The five landmarks' places in the view: the means of FER+, made symmetric, in a square that is
# wider by a sixth than the faces of FER+, so that chin and forehead are inside.
TEMPLATE = ((0.348, 0.38), (0.652, 0.38), (0.5, 0.557), (0.374, 0.709), (0.626, 0.709))
# The points of the teacher's mesh at the five landmarks: two irises, nose tip, mouth corners.
FIVE = (468, 473, 1, 61, 291)
# The same, but for each eye the middle of its corners, which does not follow the look; then the
# nose tip and the mouth corners. Left is the picture's left.
_MIDDLES = ((33, 133), (362, 263), (1,), (61,), (291,))
# Stored crops of photographs: their side in pixels, in how many sides of the view.
_CROP, _MARGIN = 192, 1.8
_FRONTAL = 15.0  # degrees of yaw, at most, of faces whose halves are compared
_SHEETS, _PHOTOGRAPHS = "fer_train.npz", "photographs.npz"  # files of answers
_NEUTRAL = "_neutral"  # the teacher's first movement, which says nothing

Table: TypeAlias = "dict[str, NDArray[Any]]"


@dataclass(frozen=True, eq=False)
class TaughtFaces:
    """Faces with a teacher's answers; places are continuous coordinates of the pictures.

    pictures: (N, S, S, C) uint8, C of 1 or 3. landmarks: (N, 5, 2) float32, pixels, as in
    `Detection`. points: (N, P, 2) float32, pixels. movements: (N, M) float32, 0…1.
    pose: (N, 3) float32, degrees, see results.movements.Pose.
    names: of the movements.
    """

    pictures: Tensor
    landmarks: Tensor
    points: Tensor
    movements: Tensor
    pose: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, chosen: Tensor) -> TaughtFaces:
        parts = ("pictures", "landmarks", "points", "movements", "pose")
        return replace(self, **{name: getattr(self, name)[chosen] for name in parts})


def shares_of_batch(
    options: TaughtOptions, groups: Sequence[TaughtFaces]
) -> list[tuple[TaughtFaces, int]]:
    """The groups that a batch has faces of, and how many.

    groups: faces of sheets and of photographs.
    Raises InputError: a group that has a share is empty.
    """
    sheets, photographs = groups
    share = round(options.batch * options.photographs_share)
    wanted = ((sheets, options.batch - share), (photographs, share))
    shares = [(group, count) for group, count in wanted if count]
    if not all(len(group) for group, _ in shares):
        raise InputError(
            f"{type(options).__name__}: photographs_share={options.photographs_share:g} needs "
            f"faces of sheets and of photographs, got {len(sheets)} and {len(photographs)}"
        )
    return shares


def read_groups(options: TaughtOptions) -> tuple[TaughtFaces, TaughtFaces]:
    """The faces of the sheets and of the photographs to learn from.

    Raises InputError: unusable data or answers.
    """
    sheets = read_faces(options.data, read_table(options.teacher_labels / _SHEETS))
    table = _learning_photographs(read_table(options.teacher_labels / _PHOTOGRAPHS))
    return sheets, read_photographs(options.photographs, table)


def read_table(path: Path) -> Table:
    """A file of the teacher's answers, only the faces that it found.

    The file is an .npz with `image` (N,) names; `found` (N,) bool; `points` (N, P, 3) pixels of
    the source picture; `movements` (N, M) 0…1 and their `names` (M,); `matrix` (N, 4, 4), the
    head's transformation, x to the right, y upwards, z towards the camera; and for photographs
    `landmarks` (N, 5, 2) pixels.
    Raises InputError: the file is missing, has other contents or no face.
    """
    try:
        with np.load(path) as stored:
            table = {name: stored[name] for name in stored.files}
        names = table.pop("names")
        found = table.pop("found").astype(bool)
        table = {name: table[name][found] for name in table}
        kept = names != _NEUTRAL
        table["movements"], table["names"] = table["movements"][:, kept], names[kept]
        table["pose"] = poses(table["matrix"])
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(
            f"read_table: {path} holds no teacher's answers ({in_words(error)})"
        ) from error
    if not found.any():
        raise InputError(f"read_table: {path} has answers for no face")
    return table


def poses(matrices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Yaw, pitch and roll (N, 3) in degrees of head transformations (N, 4, 4).

    A matrix turns the head about x by the pitch, then about y by the yaw, then about the line of
    sight by the roll. So a picture that is turned changes only the roll.
    """
    turn = matrices[:, :3, :3] / np.linalg.norm(matrices[:, :3, :3], axis=1, keepdims=True)
    yaw = np.arcsin(np.clip(-turn[:, 2, 0], -1, 1))
    pitch = -np.arctan2(turn[:, 2, 1], turn[:, 2, 2])
    roll = -np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    angles: NDArray[np.float32] = np.degrees(np.stack((yaw, pitch, roll), 1)).astype(np.float32)
    return angles


@contextlib.contextmanager
def read_answers(
    kind: str, path: str | Path, names: Sequence[str]
) -> Iterator[tuple[Table, list[int]]]:
    """A file of answers as it is, and the rows of faces by their names; for a block that uses them.

    kind: of answers, for messages. path: see read_table; only `image` must be there.
    Raises InputError: the file is missing or misses a face, or the block shows by a ValueError, a
        KeyError or an IndexError that it has other contents.
    """
    try:
        table = read_arrays(Path(path))
        place = {str(name): index for index, name in enumerate(table["image"])}
        yield table, [place[name] for name in names]
    except (ValueError, KeyError, IndexError) as error:  # InputError is a ValueError
        message = f"{kind} {path}: holds no {kind} of these faces ({in_words(error)})"
        raise InputError(message) from error


def read_faces(folder: Path, table: Table) -> TaughtFaces:
    """The faces of contact sheets for which there are answers.

    folder: see datasets.ferplus. table: see read_table.
    Raises InputError: a face is not on the sheets, or see datasets.ferplus.read_tiles.
    """
    tiles = read_tiles(folder)
    missing = [name for name in table["image"].tolist() if name not in tiles]
    if missing:
        raise InputError(f"read_faces: {folder} has no face {missing[0]}")
    pictures = np.stack([tiles[name] for name in table["image"].tolist()])[..., None]
    points = table["points"][..., :2]
    return _taught(pictures, points[:, FIVE], points, table["pose"], table)


def read_photographs(archive: Path, table: Table) -> TaughtFaces:
    """The faces of photographs, cut out upright with much of their surroundings.

    archive: tar of JPEG or PNG files. table: see read_table; with `landmarks`.
    Raises InputError: the archive or a photograph in it is missing or unreadable.
    """
    side = _CROP / _MARGIN
    places = (np.array(TEMPLATE) - 0.5) * side + _CROP / 2
    pictures = np.empty((len(table["image"]), _CROP, _CROP, 3), np.uint8)
    five, points, pose = (table[n].copy() for n in ("landmarks", "points", "pose"))
    points = points[..., :2]
    open_photograph = _Photographs(archive)
    for i, name in enumerate(track(table["image"].tolist(), "photographs")):
        there = similarity(places, five[i])  # from the crop to the photograph
        pictures[i] = _cut(open_photograph(name), there)
        back = _inverse(there)
        five[i] = five[i] @ back[:, :2].T + back[:, 2]
        points[i] = points[i] @ back[:, :2].T + back[:, 2]
        roll = pose[i, 2] - np.degrees(np.arctan2(there[1, 0], there[0, 0]))
        pose[i, 2] = (roll + 180) % 360 - 180
    return _taught(pictures, five, points, pose, table)


def mesh_landmarks(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The five landmarks (N, 5, 2) in meshes (N, P, 2) of MediaPipe's numbering.

    A detector's eyes and mouth lie a little higher.
    """
    return np.stack([points[:, list(own)].mean(1) for own in _MIDDLES], 1).astype(np.float32)


def twins_of(faces: TaughtFaces) -> Tensor:
    """(P,) int64: each mesh point's counterpart in a mirrored face.

    A point's counterpart is the one nearest to its mirror image, in the mean meshes of nearly
    frontal faces that show each movement; one mean mesh would confuse the two lips.
    Raises InputError: the counterparts are no exchange of pairs.
    """
    frontal = faces[(faces.pose[:, 0].abs() < _FRONTAL).nonzero()[:, 0]]
    upright = torch.polar(torch.ones(len(frontal)), -torch.deg2rad(frontal.pose[:, 2]))[:, None]
    meshes = torch.view_as_complex(frontal.points.contiguous()) * upright
    meshes = meshes - meshes.mean(1, keepdim=True)
    meshes = meshes / meshes.abs().mean(1, keepdim=True)  # (F, P)
    yaw = frontal.pose[:, :1]  # what it does to the meshes is taken away
    meshes = meshes - yaw * (yaw * (meshes - meshes.mean(0))).mean(0) / yaw.square().mean().clamp(
        min=1e-9
    )
    shown = frontal.movements + frontal.movements[:, mirror_names(faces.names)] + 1e-6
    means = (shown / shown.sum(0)).t().to(meshes) @ meshes  # (M, P)
    places = torch.view_as_real(means).permute(1, 0, 2)  # (P, M, 2)
    reflected = places * places.new_tensor((-1.0, 1.0))
    twins = torch.cdist(reflected.flatten(1), places.flatten(1)).argmin(1)
    if not torch.equal(twins[twins], torch.arange(len(twins))):
        raise InputError("twins_of: points must be those of a mesh of two equal halves")
    return twins


def _learning_photographs(table: Table) -> Table:
    """A table without the photographs that are held out. Raises InputError: none is left."""
    learning = np.array([not is_held_out(name) for name in table["image"].tolist()], bool)
    if not learning.any():
        raise InputError("read_groups: every photograph is held out")
    return {name: own if name == "names" else own[learning] for name, own in table.items()}


class _Photographs:
    """A function from a name in an archive to its pixels; the last photograph is kept."""

    def __init__(self, path: Path) -> None:
        self._path, self._name = path, ""
        self._pixels = np.zeros((1, 1, 3), np.uint8)
        try:
            with tarfile.open(path) as archive:
                self._files = {
                    Path(member.name).name: file.read()
                    for member in archive
                    if (file := archive.extractfile(member)) is not None
                }
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"read_photographs: cannot read archive {path} ({error})") from error

    def __call__(self, name: str) -> NDArray[np.uint8]:
        if name != self._name:
            if name not in self._files:
                raise InputError(f"read_photographs: {self._path} has no photograph {name}")
            try:
                with Image.open(io.BytesIO(self._files[name])) as image:
                    self._pixels = np.array(image.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise InputError(f"read_photographs: cannot decode {name} ({error})") from error
            self._name = name
        return self._pixels


def _cut(pixels: NDArray[np.uint8], there: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The crop (S, S, 3) of a photograph. there: (2, 3), continuous coordinates, to the photo."""
    shift = there[:, :2] @ (0.5, 0.5) + there[:, 2] - 0.5  # of pixel centres
    maps = torch.from_numpy(np.column_stack((there[:, :2], shift)).astype(np.float32))
    (view,) = crop_regions(
        torch.from_numpy(pixels),
        maps[None, None],
        [(_CROP, _CROP)],
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
    )
    return view[0].round().clamp(0, 255).permute(1, 2, 0).to(torch.uint8).numpy()


def _inverse(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack((linear, -linear @ transform[:, 2]))


def _taught(
    pictures: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    points: NDArray[np.float32],
    pose: NDArray[np.float32],
    table: Table,
) -> TaughtFaces:
    names: Sequence[str] = table["names"].tolist()
    return TaughtFaces(
        torch.from_numpy(pictures),
        torch.from_numpy(np.ascontiguousarray(landmarks)),
        torch.from_numpy(np.ascontiguousarray(points)),
        torch.from_numpy(table["movements"]),
        torch.from_numpy(pose),
        tuple(names),
    )
