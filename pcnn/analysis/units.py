"""Sensitivity of feature maps to facial action units; see docs/deconvnet.md."""

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
from pcnn.devices import own_settings
from pcnn.errors import InputError, check_count, counted
from pcnn.faces.views import face_views
from pcnn.networks.ensemble import Ensemble, ExpressionNetwork
from pcnn.networks.pcnn import PCNN, FaceNet

Array = NDArray[np.float64]

SIGNIFICANT = 0.05
_SHUFFLES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Distances between the maximal responses of M maps with and without each of K units.

    distances: (M, K), in standard deviations; positive if the map responds more to faces that
        show the unit (see measure).
    p_values: (M, K), 0…1, corrected for all maps and units together.
    shown: (K,) number of faces that show the unit, out of `faces`.
    permutations: the number of permutations for p_values.
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
        """(M, K) True for findings significant at 5 %, corrected for all of them together."""
        return self.p_values <= SIGNIFICANT

    def own_units(self) -> list[tuple[int, ...]]:
        """For each map the units that it detects.

        This is the unit with the largest distance among those with a significantly stronger
        response. There are several units if these mark the same faces, and none without a
        significantly stronger response.
        """
        answers = np.where(self.significant & (self.distances > 0), self.distances, -np.inf)
        best = answers.max(1, keepdims=True)
        chosen = (answers > -np.inf) & (answers >= best * (1 - 1e-6))
        return [tuple(np.array(self.units)[row].tolist()) for row in chosen]

    def most_sensitive(self, unit: int, count: int = 9) -> list[FeatureMap]:
        """The maps with significantly stronger responses to a unit, the largest distance first.

        Raises InputError: an unknown unit.
        """
        return [self.maps[row] for row in self.sensitive_rows(unit)[:count]]

    def sensitive_rows(self, unit: int) -> list[int]:
        """The rows of all maps of `most_sensitive`, in its order. Raises InputError: as it does."""
        if unit not in self.units:
            known = ", ".join(map(str, self.units))
            raise InputError(f"Sensitivity.most_sensitive: unit must be one of {known}, got {unit}")
        column = self.units.index(unit)
        order = np.argsort(-self.distances[:, column], kind="stable")
        kept = self.significant[:, column] & (self.distances[:, column] > 0)
        return [int(row) for row in order[kept[order]]]

    def to_dict(self) -> dict[str, Any]:
        """The findings, as values for `json.dumps`.

        Each unit has its number of faces and its maps, the most sensitive first. An infinite
        distance is None. Each map that detects a unit has its units.
        """
        units: dict[str, Any] = {}
        for column, unit in enumerate(self.units):
            name, part = UNITS[unit]
            maps = [
                {
                    "map": str(self.maps[row]),
                    "distance": _finite(self.distances[row, column]),
                    "p": float(self.p_values[row, column]),
                }
                for row in self.sensitive_rows(unit)
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


@own_settings()
def measure(  # noqa: PLR0913
    maps: Sequence[FeatureMap],
    responses: Tensor,
    labelled: UnitFaces,
    *,
    permutations: int = 1000,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> Sensitivity:
    """Measure the distances between the maps' maximal responses with and without each unit.

    maps: M maps. responses: (N, M), see deconvnet.maximal_responses. labelled: the same N faces.
    Distance: the mean with the unit minus the mean without it, divided by the pooled standard
    deviation; 0 for a map with constant responses.
    P-value: the faces' units are shuffled `permutations` times. The p-value is the share of
    shuffles whose largest correlation of any map with any unit is at least as large as this one
    (Westfall and Young's single-step maxT, two-sided).
    groups: (N,) numbers, such as those of expressions. Responses and units are then taken as
        differences from their means in a group, and units are shuffled within groups. What is
        found holds for faces of one group.
    Raises InputError: shapes do not fit, no permutation, a unit that all faces or none show.
    """
    values = responses.double().numpy()
    expected = (len(labelled.present), len(maps))
    if values.shape != expected:
        raise InputError(f"measure: responses must be {expected}, got {values.shape}")
    check_count("measure", "permutations", permutations)
    faces, shown = len(values), labelled.present.sum(0)
    idle = [unit for unit, n in zip(labelled.units, shown, strict=True) if n in (0, faces)]
    if idle or faces < 3:
        raise InputError(
            "measure: each unit must be present in some and absent in other faces, of at least 3; "
            f"got {counted(faces, 'face')}, unsuitable: {', '.join(map(str, idle)) or 'none'}"
        )
    present = labelled.present.astype(np.float64)
    order = np.zeros(faces, np.int64)
    if groups is not None:
        order = groups
        values, present = _within(values, groups), _within(present, groups)
    scores, marks = _standardised(values), _standardised(present)
    correlations = scores.T @ marks / faces  # (M, K)
    # Without groups that is share · (1 - share). A unit that all or none of each group show has 0.
    spread = present.var(0)
    with np.errstate(divide="ignore", invalid="ignore"):  # groups without spread: infinite
        distances = correlations / np.sqrt(
            spread * (1 - correlations**2).clip(0) * faces / (faces - 2)
        )
    distances[:, spread == 0] = 0
    largest = _largest_by_chance(scores, marks, order, permutations, seed)
    # The margin keeps rounding from making a correlation larger than its equal.
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
    """The distance; None if infinite, because JSON has no such number."""
    return float(distance) if np.isfinite(distance) else None


@own_settings()
def untrained_like(
    network: ExpressionNetwork, faces: Tensor, *, native_size: int, seed: int = 0
) -> PCNN | FaceNet:
    """An untrained network of the same shape, in eval mode.

    faces: (N, H, W) or (N, H, W, 3) uint8. They give the means and variances of the batch norms,
    so that maps neither vanish nor explode. native_size: see views.face_views.
    Raises InputError: fewer than two faces, or the network is an ensemble.
    """
    if isinstance(network, Ensemble):
        raise InputError("untrained_like: the weights must be of one network, not an ensemble")
    if len(faces) < 2:
        raise InputError(f"untrained_like: faces must be 2 or more, got {len(faces)}")
    device = next(network.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        fresh = type(network)(network.config).to(device).train()
        for module in fresh.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the plain mean over all parts
        # Shuffled, in parts of nearly equal size, so that the mean over parts fits all faces.
        mixed = faces[torch.randperm(len(faces))]
        for chunk in mixed.tensor_split(max(1, len(faces) // 64)):
            fresh.forward_views(face_views(fresh, chunk, native_size))
    return fresh.eval()


def _within(values: Array, groups: NDArray[np.int64]) -> Array:
    """Columns as differences from their means in each group; a constant column becomes 0."""
    _, member = np.unique(groups, return_inverse=True)
    sums = np.zeros((member.max() + 1, values.shape[1]))
    np.add.at(sums, member, values)
    centred = values - (sums / np.bincount(member)[:, None])[member]
    centred[:, np.abs(centred).max(0) <= 1e-9 * np.abs(values).max(0)] = 0
    return centred


def _shuffled(groups: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """An order of N faces in which each place has a face of its own group."""
    mixed = random.permutation(len(groups))
    order = np.empty_like(mixed)
    order[np.argsort(groups, kind="stable")] = mixed[np.argsort(groups[mixed], kind="stable")]
    return order


def _standardised(values: Array) -> Array:
    """Columns scaled to mean 0 and variance 1; a constant column becomes 0."""
    centred = values - values.mean(0)
    spread = centred.std(0)
    # A constant column may have a tiny spread by rounding.
    flat = spread <= 1e-9 * np.abs(values).max(0).clip(min=1e-30)
    scaled: Array = np.where(flat, 0, centred / np.where(flat, 1, spread))
    return scaled


def _largest_by_chance(
    scores: Array, marks: Array, groups: NDArray[np.int64], permutations: int, seed: int
) -> Array:
    """(permutations,) the largest absolute correlations with shuffled marks, ascending.

    groups: (N,); marks are shuffled within them.
    """
    random = np.random.default_rng(seed)
    narrow = scores.astype(np.float32)
    found = []
    for start in range(0, permutations, _SHUFFLES_AT_ONCE):
        some = range(min(_SHUFFLES_AT_ONCE, permutations - start))
        shuffled = [marks[_shuffled(groups, random)] for _ in some]
        columns = np.concatenate(shuffled, 1).astype(np.float32)  # (N, some · K)
        largest = abs(narrow.T @ columns).max(0) / len(marks)
        found.append(largest.reshape(len(some), -1).max(1))
    return np.sort(np.concatenate(found).astype(np.float64))
