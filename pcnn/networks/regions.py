"""The five regions of a face and their places in the face view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pcnn.errors import InputError

REGIONS = ("left_eye", "right_eye", "left_cheek", "right_cheek", "mouth")
VIEWS = ("face", *REGIONS)


class Box(NamedTuple):
    """Half-open rows top:bottom and columns left:right, in pixels of the face view."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class RegionLayout:
    """Places of the regions, as fractions of the face square (Tian et al. 2025, released code).

    middle: the column between left and right.
    eyes_end: the row between eyes and cheeks.
    cheeks_end: the row between cheeks and mouth.
    """

    middle: float = 0.5
    eyes_end: float = 0.5
    cheeks_end: float = 0.65

    def boxes(self, size: int) -> Mapping[str, Box]:
        """View name → Box in a face of size × size pixels, in the order of VIEWS.

        "Left" is the image's left. Raises InputError: the size leaves no pixel for a region.
        """
        column = int(size * self.middle)
        eyes = int(size * self.eyes_end)
        cheeks = int(size * self.cheeks_end)
        boxes = {
            "face": Box(0, 0, size, size),
            "left_eye": Box(0, 0, eyes, column),
            "right_eye": Box(0, column, eyes, size),
            "left_cheek": Box(eyes, 0, cheeks, column),
            "right_cheek": Box(eyes, column, cheeks, size),
            "mouth": Box(cheeks, 0, size, size),
        }
        for name, box in boxes.items():
            if min(box.size) < 1:
                raise InputError(
                    f"RegionLayout.boxes: size {size} leaves no pixel for {name}; use a larger size"
                )
        return boxes
