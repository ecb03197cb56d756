"""Random variations of training faces, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError
from pcnn.faces.resampling import resample


@dataclass(frozen=True)
class Augmentation:
    """How far each variation goes.

    rotation_deg: at most this far either way. scale: factor between 1 − scale and 1 + scale.
    shift: at most this fraction of the side. contrast: as scale. brightness: at most this much
    of the full range. erase: the probability that a rectangle of 2–12 % of the face is made grey.
    blur: the probability that a face is shrunk to a side between `coarsest` and its own, drawn
    evenly in the logarithm, and enlarged again. noise: at most this standard deviation of the full
    range, drawn for each face. gamma: values are raised to a power between 1 / gamma and gamma.
    """

    rotation_deg: float = 20
    scale: float = 0.15
    shift: float = 0.08
    contrast: float = 0.3
    brightness: float = 0.15
    erase: float = 0.25
    blur: float = 0.0
    coarsest: int = 24
    noise: float = 0.0
    gamma: float = 1.0

    def calmer(self) -> Augmentation:
        """Half as far, and nothing erased."""
        return Augmentation(
            rotation_deg=self.rotation_deg / 2,
            scale=self.scale / 2,
            shift=self.shift / 2,
            contrast=self.contrast / 2,
            brightness=self.brightness / 2,
            erase=0,
            blur=self.blur,
            coarsest=self.coarsest,
            noise=self.noise / 2,
            gamma=self.gamma**0.5,
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
        for name in ("shift", "erase", "blur", "scale", "noise"):
            if not 0 <= getattr(options, name) <= 1:
                raise InputError(
                    f"Augmentation: {name} must lie in 0…1, got {getattr(options, name)}"
                )
        if options.gamma < 1 or options.coarsest < 1:
            raise InputError(
                "Augmentation: gamma and coarsest must be at least 1, got "
                f"{options.gamma} and {options.coarsest}"
            )
        self._options = options
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
            return self._degrade(varied)

    def _degrade(self, faces: Tensor) -> Tensor:
        """Faces (B, C, S, S) of 0…1, darker or lighter, coarser and noisier."""
        options, device = self._options, faces.device
        each = (len(faces), 1, 1, 1)
        if options.gamma > 1:
            spread = 2 * torch.rand(each, device=device) - 1
            faces = faces.clamp(1e-4, 1) ** (options.gamma**spread)
        if options.blur:
            faces = _coarsen(faces, options.blur, options.coarsest)
        if options.noise:
            level = options.noise * torch.rand(each, device=device)
            faces = faces + level * torch.randn_like(faces)
        return faces.clamp(0, 1)


# Faces of a batch are made coarser in so many groups: each group is one call.
_GROUPS = 4


def _coarsen(faces: Tensor, share: float, coarsest: int) -> Tensor:
    """Faces of which about `share` were shrunk and enlarged again, group by group."""
    size, count = faces.shape[3], len(faces)
    order = torch.randperm(count, device=faces.device)
    coarse = faces.clone()
    least = min(1.0, coarsest / size)
    for place in order[: round(share * count)].chunk(_GROUPS):
        side = round(size * least ** float(torch.rand(())))
        small = F.interpolate(
            faces[place], size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )
        coarse[place] = F.interpolate(
            small, size=(size, size), mode="bilinear", align_corners=False
        )
    return coarse
