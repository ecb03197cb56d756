"""The five regions of a face, their places in the face view, and the format of views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class ViewFormat:
    """The format of a network's views.

    size: the side of the square face view, in pixels.
    mean, std: normalisation of values 0…1; three numbers for an RGB network, one for a grey one.
    layout: the places of the regions.
    saliency: the model whose maps weigh the faces, see saliency.weigh; None for no model.
    Raises InputError: mean and std do not fit together.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: RegionLayout = field(default_factory=RegionLayout)
    saliency: str | None = None

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise InputError(
                f"{type(self).__name__}: mean and std must be one (grey) or three (RGB) numbers, "
                f"got {self.mean} and {self.std}"
            )

    @property
    def channels(self) -> int:
        """3 for RGB input, 1 for grey."""
        return len(self.mean)

    @classmethod
    def levels(cls, size: int, channels: int) -> ViewFormat:
        """The format of views with values 0…255, as FaceSets have them."""
        return ViewFormat(size, mean=(0.0,) * channels, std=(1 / 255,) * channels)


def normalise(faces: Tensor, view: ViewFormat) -> Tensor:
    """A network's input for faces (B, C, H, W) of 0…1: normalised, channels-last."""
    mean = faces.new_tensor(view.mean).view(1, -1, 1, 1)
    std = faces.new_tensor(view.std).view(1, -1, 1, 1)
    return ((faces - mean) / std).to(memory_format=torch.channels_last)
