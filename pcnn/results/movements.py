"""What a face does: facial movements, head pose and a mesh of points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pcnn.representation import Brief
from pcnn.results import rounding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Columns of a table of faces before those of the movements.
POSE_COLUMNS = ("yaw", "pitch", "roll")


@dataclass(frozen=True, repr=False)
class Pose(Brief):
    """The direction of a head, in degrees; all 0 for a face that looks straight at the camera.

    yaw: above 0 the face is turned to the right side of the picture.
    pitch: above 0 it looks up. roll: clockwise in the picture, as `Face.angle`.
    """

    yaw: float
    pitch: float
    roll: float

    def to_dict(self) -> dict[str, float]:
        """The angles by name, with 2 decimals."""
        return {name: rounding.degrees(getattr(self, name)) for name in POSE_COLUMNS}


@dataclass(frozen=True, eq=False, repr=False)
class FaceMotion(Brief):
    """The movements, pose and mesh of one face; see docs/movements.md.

    movements: name → 0…1, in ARKit's names. Left and right are those of the person.
    mesh: (P, 2) float32, x y in pixels of the upright image.
    """

    movements: Mapping[str, float]
    pose: Pose
    mesh: NDArray[np.float32] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Movements, pose and mesh by name, as values for `json.dumps`.

        Movements have 4 decimals, degrees and pixels 2. The mesh is a list of [x, y].
        """
        return {
            "movements": self._rounded(),
            "pose": self.pose.to_dict(),
            "mesh": rounding.points(self.mesh),
        }

    def row(self) -> dict[str, float]:
        """Pose and movements as one flat dict, as in `movement_columns`; no mesh."""
        return {**self.pose.to_dict(), **self._rounded()}

    def _rounded(self) -> dict[str, float]:
        return {name: rounding.share(value) for name, value in self.movements.items()}


class Moving:
    """What a face with a `motion` gives under shorter names; all None without one."""

    motion: FaceMotion | None

    @property
    def movements(self) -> Mapping[str, float] | None:
        """Name → 0…1, see FaceMotion."""
        return self.motion.movements if self.motion else None

    @property
    def pose(self) -> Pose | None:
        """Yaw, pitch and roll in degrees."""
        return self.motion.pose if self.motion else None

    @property
    def mesh(self) -> NDArray[np.float32] | None:
        """(P, 2) float32, x y in pixels of the upright image."""
        return self.motion.mesh if self.motion else None


def movement_columns(names: Iterable[str]) -> tuple[str, ...]:
    """The columns of a flat table for movements of these names; none without names."""
    names = tuple(names)
    return (*POSE_COLUMNS, *names) if names else ()


# Action units of the Facial Action Coding System (Ekman and Friesen 1978) that a movement takes
# part in: unit → movements. An estimate is the largest of their values.
ACTION_UNITS: Mapping[str, tuple[str, ...]] = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"),
    "AU14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"),
    "AU16": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "AU17": ("mouthShrugLower",),
    "AU18": ("mouthPucker",),
    "AU20": ("mouthStretchLeft", "mouthStretchRight"),
    "AU22": ("mouthFunnel",),
    "AU24": ("mouthPressLeft", "mouthPressRight"),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower", "mouthRollUpper"),
    "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}


def action_units(movements: Mapping[str, float]) -> dict[str, float]:
    """Estimates of action units from movements, 0…1; no coder's intensities.

    movements: name → 0…1. A unit is the largest of its movements, one side's or both sides'.
    Units without any movement among the names are left out.

    >>> action_units({"jawOpen": 0.4, "mouthSmileLeft": 0.2, "mouthSmileRight": 0.6})
    {'AU12': 0.6, 'AU26': 0.4}
    """
    present = {unit: [n for n in names if n in movements] for unit, names in ACTION_UNITS.items()}
    return {unit: max(movements[n] for n in names) for unit, names in present.items() if names}
