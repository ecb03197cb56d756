"""Which feature maps answer to which units of facial action; see docs/deconvnet.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.analysis.deconvnet import FeatureMap
from pcnn.datasets.action_units import UNITS, UnitFaces
from pcnn.errors import InputError, counted
from pcnn.faces.views import face_views
from pcnn.networks.pcnn import PCNN, FaceNet

Array = NDArray[np.float64]

SIGNIFICANT = 0.05
_SHUFFLES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How far apart the maximal responses of M maps are, with and without each of K units.

    distances: (M, K), in standard deviations, positive where the map responds more to faces
        that show the unit (see measure). p_values: (M, K), of 0…1, for all maps and units
        together. shown: (K,) faces that show the unit, of `faces`. permutations: behind p_values.
    """

    maps: tuple[FeatureMap, ...]
    units: tuple[int, ...]
    distances: Array
    p_values: Array
    shown: NDArray[np.int64]
    faces: int
    permutations: int

    @property
    def significant(self) -> NDArray[np.bool_]:
        """(M, K): what is no chance finding, at 5 % for all of them together."""
        return self.p_values <= SIGNIFICANT

    def own_units(self) -> list[tuple[int, ...]]:
        """For each map the unit it is a detector of: that of the largest distance among those
        to which it responds significantly more; several where they mark the same faces, and
        none where it responds more to no unit."""
        answers = np.where(self.significant & (self.distances > 0), self.distances, -np.inf)
        best = answers.max(1, keepdims=True)
        chosen = (answers > -np.inf) & (answers >= best * (1 - 1e-6))
        return [tuple(np.array(self.units)[row].tolist()) for row in chosen]

    def most_sensitive(self, unit: int, count: int = 9) -> list[FeatureMap]:
        """The maps that respond most to a unit, the strongest first, without chance findings.

        Raises InputError: not one of the units.
        """
        if unit not in self.units:
            known = ", ".join(map(str, self.units))
            raise InputError(f"most_sensitive: unit must be one of {known}, got {unit}")
        column = self.units.index(unit)
        order = np.argsort(-self.distances[:, column], kind="stable")
        kept = self.significant[:, column] & (self.distances[:, column] > 0)
        return [self.maps[index] for index in order if kept[index]][:count]

    def to_dict(self) -> dict[str, Any]:
        """What was found, as values that `json.dumps` takes.

        For each unit the faces that show it and the maps that respond to it, the most sensitive
        first, their distances None where infinite; for each map that is a detector its units.
        """
        units: dict[str, Any] = {}
        for column, unit in enumerate(self.units):
            name, part = UNITS[unit]
            maps = [
                {
                    "map": str(each),
                    "distance": _finite(self.distances[self.maps.index(each), column]),
                    "p": float(self.p_values[self.maps.index(each), column]),
                }
                for each in self.most_sensitive(unit, len(self.maps))
            ]
            shown = int(self.shown[column])
            units[str(unit)] = {"name": name, "part": part, "faces": shown, "maps": maps}
        own = zip(self.maps, self.own_units(), strict=True)
        return {
            "faces": self.faces,
            "maps": len(self.maps),
            "units": units,
            "detectors": {str(each): list(found) for each, found in own if found},
        }


def measure(
    maps: Sequence[FeatureMap],
    responses: Tensor,
    labelled: UnitFaces,
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> Sensitivity:
    """The distances between the maps' maximal responses with and without each unit.

    maps: M. responses: (N, M), see deconvnet.maximal_responses. labelled: the same N faces.
    Distance: the mean with the unit less the mean without it, over their pooled standard
    deviation; 0 for a map that always responds alike. P-values: how often, the faces' units
    being dealt out anew `permutations` times, the largest correlation of any map with any unit
    is as large as this one (Westfall and Young's single-step maxT, two-sided).
    Raises InputError: shapes that do not fit, no permutation, a unit that all faces show or none.
    """
    values = responses.double().numpy()
    expected = (len(labelled.present), len(maps))
    if values.shape != expected:
        raise InputError(f"measure: responses must be {expected}, got {values.shape}")
    if permutations < 1:
        raise InputError(f"measure: permutations must be at least 1, got {permutations}")
    faces, shown = len(values), labelled.present.sum(0)
    idle = [unit for unit, n in zip(labelled.units, shown, strict=True) if n in (0, faces)]
    if idle or faces < 3:
        raise InputError(
            "measure: each unit must be present in some and absent in other faces, of at least 3; "
            f"got {counted(faces, 'face')}, unsuitable: {', '.join(map(str, idle)) or 'none'}"
        )
    scores, marks = _standardised(values), _standardised(labelled.present.astype(np.float64))
    correlations = scores.T @ marks / faces  # (M, K)
    share = shown / faces
    with np.errstate(divide="ignore"):  # two groups without any spread are infinitely far apart
        distances = correlations / np.sqrt(
            share * (1 - share) * (1 - correlations**2).clip(0) * faces / (faces - 2)
        )
    largest = _largest_by_chance(scores, marks, permutations, seed)
    # Rounding must not make a correlation exceed its equal.
    beaten = np.searchsorted(largest, abs(correlations) - 1e-6)
    return Sensitivity(
        maps=tuple(maps),
        units=labelled.units,
        distances=distances,
        p_values=(1 + permutations - beaten) / (1 + permutations),
        shown=shown.astype(np.int64),
        faces=faces,
        permutations=permutations,
    )


def _finite(distance: float) -> float | None:
    """The distance; None for groups infinitely far apart, which JSON has no number for."""
    return float(distance) if np.isfinite(distance) else None


def untrained_like(
    network: PCNN | FaceNet, faces: Tensor, *, native_size: int, seed: int = 0
) -> PCNN | FaceNet:
    """A network of the same shape as training begins with, in eval mode.

    faces: (N, H, W) or (N, H, W, 3) uint8: its batch norms' means and variances are theirs, so
    that no map dies or explodes for want of training alone. native_size: of face_views.
    Raises InputError: fewer than two faces.
    """
    if len(faces) < 2:
        raise InputError(f"untrained_like: faces must be 2 or more, got {len(faces)}")
    device = next(network.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        fresh = type(network)(network.config).to(device).train()
        for module in fresh.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the plain mean over all parts
        # Mixed, and in parts of nearly one size, so that the mean over parts is that of all.
        mixed = faces[torch.randperm(len(faces))]
        for chunk in mixed.tensor_split(max(1, len(faces) // 64)):
            fresh.forward_views(face_views(fresh, chunk, native_size))
    return fresh.eval()


def _standardised(values: Array) -> Array:
    """Columns of mean 0 and variance 1; all 0 where a column does not vary."""
    centred = values - values.mean(0)
    spread = centred.std(0)
    # What rounding leaves of a constant is not spread.
    flat = spread <= 1e-9 * np.abs(values).max(0).clip(min=1e-30)
    scaled: Array = np.where(flat, 0, centred / np.where(flat, 1, spread))
    return scaled


def _largest_by_chance(scores: Array, marks: Array, permutations: int, seed: int) -> Array:
    """(permutations,) the largest absolute correlations with shuffled marks, ascending."""
    random = np.random.default_rng(seed)
    narrow = scores.astype(np.float32)
    found = []
    for start in range(0, permutations, _SHUFFLES_AT_ONCE):
        some = range(min(_SHUFFLES_AT_ONCE, permutations - start))
        shuffled = [marks[random.permutation(len(marks))] for _ in some]
        columns = np.concatenate(shuffled, 1).astype(np.float32)  # (N, some · K)
        largest = abs(narrow.T @ columns).max(0) / len(marks)
        found.append(largest.reshape(len(some), -1).max(1))
    return np.sort(np.concatenate(found).astype(np.float64))
