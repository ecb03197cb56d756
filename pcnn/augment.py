"""Random variations of training faces, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """How far each variation goes.

    rotation_deg: at most this far either way. scale: factor between 1 − scale and 1 + scale.
    shift: at most this fraction of the side. contrast: as scale. brightness: at most this much
    of the full range. erase: the probability that a rectangle of 2–12 % of the face is made grey.
    """

    rotation_deg: float = 20
    scale: float = 0.15
    shift: float = 0.08
    contrast: float = 0.3
    brightness: float = 0.15
    erase: float = 0.25

    def calmer(self) -> Augmentation:
        """Half as far, and nothing erased."""
        return Augmentation(
            rotation_deg=self.rotation_deg / 2,
            scale=self.scale / 2,
            shift=self.shift / 2,
            contrast=self.contrast / 2,
            brightness=self.brightness / 2,
            erase=0,
        )


class Augmenter:
    """Varies faces by kornia's augmentations.

    Raises InputError: kornia is not installed, or options out of range.
    """

    def __init__(self, options: Augmentation) -> None:
        try:
            import kornia.augmentation as K
        except ImportError as error:
            raise InputError("training needs kornia: pip install 'pcnn[train]'") from error
        if not (0 <= options.shift <= 1 and 0 <= options.scale < 1 and 0 <= options.erase <= 1):
            raise InputError(
                "Augmentation: shift and erase must lie in 0…1 and scale below 1, got "
                f"{options.shift}, {options.erase} and {options.scale}"
            )
        self._vary = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomAffine(
                degrees=options.rotation_deg,
                translate=(options.shift, options.shift),
                scale=(1 - options.scale, 1 + options.scale),
                padding_mode="border",
                p=1.0,
            ),
            K.ColorJiggle(brightness=options.brightness, contrast=options.contrast, p=1.0),
            K.RandomErasing(p=options.erase, scale=(0.02, 0.12), ratio=(0.4, 2.5), value=0.5),
            data_keys=["input"],
        )

    def __call__(self, faces: Tensor, size: int, seed: int) -> Tensor:
        """Faces resampled to the network's size and varied.

        faces: (B, C, h, w) float, 0…1. seed: of all that is drawn at random.
        Returns (B, C, size, size) float, 0…1. Positions outside read the nearest edge.
        """
        devices = [faces.device] if faces.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            varied: Tensor = self._vary(resample(faces, size))
        return varied


def resample(faces: Tensor, size: int) -> Tensor:
    """(B, C, h, w) → (B, C, size, size), bilinear about half-pixel centres, edges replicated."""
    batch, channels = faces.shape[:2]
    theta = torch.eye(2, 3, device=faces.device).expand(batch, 2, 3)
    grid = F.affine_grid(theta, [batch, channels, size, size], align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="border", align_corners=False)
