"""Results of a film: frames with tracked faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pcnn.representation import Brief
from pcnn.results import rounding
from pcnn.results.values import Face

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
LANDMARK_COLUMNS = tuple(f"{point}_{axis}" for point in _POINTS for axis in "xy")
# Columns of a table of a film's faces, before those of the classes.
FILM_COLUMNS = (
    *("source", "time", "frame", "track", "label", "confidence"),
    *("x1", "y1", "x2", "y2", "detection_score", "quality"),
    *LANDMARK_COLUMNS,
)
RAW = "raw_"  # prefix of the columns of raw probabilities


@dataclass(frozen=True, eq=False, repr=False)
class TrackedFace(Face):
    """A Face that belongs to a track of a film.

    label, confidence, scores: smoothed over this frame and earlier ones; `regions` and `values`
        are not.
    track: the number of the track, from 1 in the order of appearance, never repeated.
    raw: name → probability from this frame only, in class order.
    """

    track: int
    raw: Mapping[str, float] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values for `json.dumps`, rounded as in Face."""
        raw = rounding.probabilities(self.raw)
        return {"track": self.track, **super().to_dict(), "raw": raw}

    def rounded(self) -> TrackedFace:
        """As `Face.rounded`."""
        return replace(super().rounded(), raw=rounding.probabilities(self.raw))


@dataclass(frozen=True, eq=False, repr=False)
class Frame(Brief):
    """One frame of a film.

    time: seconds from the film's start. index: number of the frame in the film, from 0.
    faces: ordered by track; may be empty.
    source: the film's path or address; None for an object.
    width, height: of the upright frame, in pixels.
    pixels: (height, width, 3) uint8 RGB if requested, else None.
    """

    time: float
    index: int
    faces: tuple[TrackedFace, ...]
    source: str | None
    width: int
    height: int
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields except `pixels`, as values for `json.dumps`."""
        return {
            "source": self.source,
            "time": rounding.seconds(self.time),
            "frame": self.index,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict for each face: FILM_COLUMNS, each class, `raw_` with each class, `values`.

        Pose and movements follow, see `FaceMotion.row`. Times and
        probabilities have 6 decimals, pixels 2. Without faces the list is empty.
        """
        return [self._row(face) for face in self.faces]

    def to_supervision(self) -> Any:
        """The faces as `Prediction.to_supervision` gives them, with their tracks as `tracker_id`.

        Raises InputError: supervision is not installed.
        """
        from pcnn.results.supervision import detections_of

        return detections_of(self)

    def _row(self, face: TrackedFace) -> dict[str, Any]:
        plain = face.to_dict()
        values = (
            *(self.source, rounding.seconds(self.time), self.index, face.track),
            *(plain["label"], plain["confidence"], *plain["box"], plain["detection_score"]),
            *(plain.get("quality"), *landmark_cells(plain)),
        )
        raw = {f"{RAW}{name}": score for name, score in plain["raw"].items()}
        named = dict(zip(FILM_COLUMNS, values, strict=True))
        motion = face.motion.row() if face.motion else {}
        return {**named, **plain["scores"], **raw, **plain.get("values", {}), **motion}


def landmark_cells(plain: Mapping[str, Any]) -> list[float]:
    """The values of LANDMARK_COLUMNS for a face's `to_dict`."""
    return [value for point in plain["landmarks"] for value in point]
