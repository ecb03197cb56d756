"""Facial action units (FACS, Ekman and Friesen 1978), and faces labelled with them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.datasets.labels import FaceSet, canonical
from pcnn.disk import as_path
from pcnn.errors import InputError, check_count, counted
from pcnn.images.files import file_error
from pcnn.networks.regions import RegionLayout

PARTS = ("eyes", "cheeks", "mouth")
# A unit belongs to the part of regions.RegionLayout that contains most of its change.
_EYES = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    7: "lid tightener",
    43: "eyes closed",
    45: "blink",
    46: "wink",
}
_CHEEKS = {6: "cheek raiser", 9: "nose wrinkler", 11: "nasolabial deepener", 13: "cheek puffer"}
_MOUTH = {
    10: "upper lip raiser",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    18: "lip pucker",
    20: "lip stretcher",
    22: "lip funneler",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
    27: "mouth stretch",
    28: "lip suck",
}
# Unit → its name and its part of the face.
UNITS: Mapping[int, tuple[str, str]] = {
    unit: (name, part)
    for part, units in zip(PARTS, (_EYES, _CHEEKS, _MOUTH), strict=True)
    for unit, name in units.items()
}
# The usual combinations of EMFACS (Wikipedia, "Facial Action Coding System"). The two units of
# contempt appear on only one side of the face.
PROTOTYPES: Mapping[str, tuple[int, ...]] = {
    "neutral": (),
    "happiness": (6, 12),
    "sadness": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
    "fear": (1, 2, 4, 5, 7, 20, 26),
    "anger": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
    "contempt": (12, 14),
}
_LEAST = 10  # faces with a unit, and faces without it, that an analysis of the unit needs
# Estimates with a smaller deviation say nothing; of the others the strongest quarter counts.
_LEAST_SPREAD, _STRONGEST = 0.02, 0.25
_COLUMN = re.compile(r"(?:au)?[\s_-]*0*(\d{1,2})", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class UnitFaces:
    """Faces with their action units.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8. units: K numbers, ascending.
    present: (N, K) bool. left_out: units that are present or absent in too few faces.
    """

    faces: Tensor
    units: tuple[int, ...]
    present: NDArray[np.bool_]
    left_out: tuple[int, ...] = ()

    @property
    def alike(self) -> list[tuple[int, ...]]:
        """Groups of units that mark the same faces and so cannot be distinguished."""
        groups: dict[bytes, list[int]] = {}
        for unit, column in zip(self.units, self.present.T, strict=True):
            groups.setdefault(column.tobytes(), []).append(unit)
        return [tuple(group) for group in groups.values() if len(group) > 1]


def from_prototypes(faces: FaceSet) -> UnitFaces:
    """Faces with the units of their expressions, from PROTOTYPES.

    A face's expression is the class with most votes, the first one of equals.
    Raises InputError: a class has no prototype, or no unit is left.
    """
    meant = {name: canonical(name) for name in faces.classes}
    unknown = [name for name, meaning in meant.items() if meaning not in PROTOTYPES]
    if unknown:
        raise InputError(
            f"from_prototypes: no prototype for {', '.join(unknown)}; known are "
            f"{', '.join(PROTOTYPES)}"
        )
    units = sorted({unit for prototype in PROTOTYPES.values() for unit in prototype})
    table = np.array(
        [[unit in PROTOTYPES[str(meant[name])] for unit in units] for name in faces.classes]
    )
    return _usable(faces.faces, units, table[faces.votes.argmax(1).numpy()], "from_prototypes")


def from_table(faces: FaceSet, path: str | Path) -> UnitFaces:
    """Faces with the units of a CSV file; faces without a line are left out.

    path: a header `image,AU1,AU2,…` (also `1` or `AU01`), then for each face its name in
        `faces.names`, and 1 or 0 for each unit. Lines for other faces are ignored.
    Raises InputError: the file cannot be read or is no such table; a unit is not in UNITS; a
        value is neither 0 nor 1; a face has two lines; or no face has a line.
    """
    path = as_path("from_table: path", path)
    rows: dict[str, list[bool]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            units = _units_of(next(lines, []), path)
            for name, values in _lines_of(lines, len(units), path):
                if name in rows:
                    raise InputError(f"{path}: {name} has two lines")
                rows[name] = values
    except OSError as error:
        raise InputError(f"{path}: {file_error(error)}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    kept = [index for index, name in enumerate(faces.names) if name in rows]
    if not kept:
        raise InputError(
            f"{path}: no line names one of the {counted(len(faces), 'face')}; "
            f"the first face is {faces.names[0] if faces.names else 'missing'}"
        )
    order = np.argsort(units)
    present = np.array([rows[faces.names[index]] for index in kept])[:, order]
    return _usable(faces.faces[kept], sorted(units), present, str(path))


def from_estimates(faces: FaceSet, estimates: Mapping[int, NDArray[np.float64]]) -> UnitFaces:
    """Faces with the units that they show most, by estimates of their strength.

    estimates: unit → (N,) numbers of any scale, such as `action_units` makes of movements.
    A unit is present in the quarter of the faces with the largest estimates; of equal ones at the
    limit all are out. Units whose estimates hardly vary are left out.
    Raises InputError: a unit is not in UNITS, or no unit is left.
    """
    if not estimates:
        raise InputError("from_estimates: estimates must be of one unit or more, got none")
    units = sorted(estimates)
    unknown = [unit for unit in units if unit not in UNITS]
    if unknown:
        raise InputError(f"from_estimates: unit {unknown[0]} is unknown; known are {sorted(UNITS)}")
    table = np.stack([np.asarray(estimates[unit], np.float64) for unit in units], 1)
    present = table > np.quantile(table, 1 - _STRONGEST, axis=0)
    present[:, table.std(0) < _LEAST_SPREAD] = False  # then it is left out
    return _usable(faces.faces, units, present, "from_estimates")


def balanced(faces: FaceSet, most: int, seed: int = 0) -> FaceSet:
    """At most `most` faces of each expression, chosen at random, in their original order.

    Raises InputError: `most` is below 1.
    """
    check_count("balanced", "most", most)
    labels = faces.votes.argmax(1).numpy()
    order = np.random.default_rng(seed).permutation(len(faces))
    drawn = [order[labels[order] == each][:most] for each in range(len(faces.classes))]
    return faces.subset(np.sort(np.concatenate(drawn)).tolist())


def chimeras(labelled: UnitFaces, layout: RegionLayout, seed: int = 0) -> UnitFaces:
    """Compose as many new faces, each of the eyes, cheeks and mouth of three random faces.

    layout: gives the rows between the parts, which extend over the whole width. Each part of each
        face is used once.
    A unit is present if the face that gave its part has it. So units of different parts are
    independent, unlike in whole faces, where expressions connect them.
    """
    random = np.random.default_rng(seed)
    count, height = labelled.faces.shape[:2]
    edges = (0, int(height * layout.eyes_end), int(height * layout.cheeks_end), height)
    donors = {part: random.permutation(count) for part in PARTS}
    bands = [
        labelled.faces[torch.from_numpy(donors[part]), top:bottom]
        for part, top, bottom in zip(PARTS, edges, edges[1:], strict=False)
    ]
    present = [
        labelled.present[donors[UNITS[unit][1]], column]
        for column, unit in enumerate(labelled.units)
    ]
    return UnitFaces(torch.cat(bands, 1), labelled.units, np.stack(present, 1), labelled.left_out)


def _usable(
    faces: Tensor, units: Sequence[int], present: NDArray[np.bool_], name: str
) -> UnitFaces:
    """Leave out units that are present or absent in too few faces. Raises InputError: all are."""
    shown = present.sum(0)
    kept = (shown >= _LEAST) & (len(present) - shown >= _LEAST)
    numbers = np.array(units)
    if not kept.any():
        raise InputError(
            f"{name}: no unit is present in at least {_LEAST} faces and absent in at least "
            f"{_LEAST}, of {counted(len(present), 'face')}"
        )
    return UnitFaces(
        faces, tuple(numbers[kept].tolist()), present[:, kept], tuple(numbers[~kept].tolist())
    )


def _units_of(header: Sequence[str], path: Path) -> list[int]:
    """The units of a table's columns after the first."""
    expected = "expected a header image,AU1,AU2,…"
    if len(header) < 2 or header[0].strip().lower() != "image":
        raise InputError(f"{path}: {expected}, got {','.join(header)[:80]!r}")
    units = []
    for column in header[1:]:
        match = _COLUMN.fullmatch(column.strip())
        unit = int(match.group(1)) if match else 0
        if unit not in UNITS:
            known = ", ".join(map(str, sorted(UNITS)))
            raise InputError(f"{path}: column {column!r} is not an action unit; known are {known}")
        if unit in units:
            raise InputError(f"{path}: unit {unit} has two columns")
        units.append(unit)
    return units


def _lines_of(
    lines: Iterator[list[str]], count: int, path: Path
) -> Iterator[tuple[str, list[bool]]]:
    """Name and values of each line; blank lines are ignored."""
    for number, line in enumerate(lines, 2):
        if not any(line):
            continue
        values = [value.strip() for value in line[1:]]
        if len(values) != count or not set(values) <= {"0", "1"}:
            raise InputError(
                f"{path}, line {number}: expected a name and {counted(count, 'value')} of 0 or 1, "
                f"got {','.join(line)[:80]!r}"
            )
        yield line[0].strip(), [value == "1" for value in values]
