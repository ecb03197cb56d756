"""Random augmentation of training faces, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError
from pcnn.faces.resampling import resample


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes.

    rotation_deg: largest angle in either direction. scale: factors of 1 − scale … 1 + scale.
    shift: largest shift, as a fraction of the side. contrast: as scale.
    brightness: largest change, as a fraction of the full range.
    erase: probability of a grey rectangle over 2–12 % of the face.
    blur: probability that a face is reduced and enlarged again. The smaller side is between
        `coarsest` and the face's own, uniform in the logarithm.
    noise: largest standard deviation, as a fraction of the full range; drawn for each face.
    gamma: values are raised to a power between 1 / gamma and gamma.
    exposure: the largest factor of over-exposed faces, see over_expose. 1 for none.
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
    exposure: float = 1.0

    def calmer(self) -> Augmentation:
        """Half the ranges, without erasing."""
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
            exposure=self.exposure,
        )


class Augmenter:
    """Random augmentation of faces with kornia.

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
        if min(options.gamma, options.coarsest, options.exposure) < 1:
            raise InputError(
                "Augmentation: gamma, coarsest and exposure must be at least 1, got "
                f"{options.gamma}, {options.coarsest} and {options.exposure}"
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
        """Resample faces to the network's size and change them at random.

        faces: (B, C, h, w) float, 0…1. seed: of all random choices.
        Returns (B, C, size, size) float, 0…1. Positions outside a face take its nearest pixel.
        """
        devices = [faces.device] if faces.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            varied: Tensor = self._vary(resample(faces, size))
            return self._degrade(varied)

    def _degrade(self, faces: Tensor) -> Tensor:
        """Change the light, resolution and noise of faces (B, C, S, S) of 0…1."""
        options, device = self._options, faces.device
        each = (len(faces), 1, 1, 1)
        if options.gamma > 1:
            spread = 2 * torch.rand(each, device=device) - 1
            faces = faces.clamp(1e-4, 1) ** (options.gamma**spread)
        if options.exposure > 1:
            faces = over_expose(faces, options.exposure)
        if options.blur:
            faces = _coarsen(faces, options.blur, options.coarsest)
        if options.noise:
            level = options.noise * torch.rand(each, device=device)
            faces = faces + level * torch.randn_like(faces)
        return faces.clamp(0, 1)


_EXPOSED = 0.15  # share of over-exposed faces, each by chance


def over_expose(faces: Tensor, most: float, generator: torch.Generator | None = None) -> Tensor:
    """Over-expose some of the faces at random.

    faces: (B, C, H, W) float, 0…1. most: the largest factor; factors are uniform in the logarithm.
        Values above 1 become 1. The darkest level left is moved towards 0 by a random share, as
        the correction of poor light does (see faces.light).
    generator: of the random choices; None for the default one.
    Returns a new tensor of the same shape, 0…1.
    """
    each = (len(faces), 1, 1, 1)
    chance, power, moved = (
        torch.rand(each, device=faces.device, generator=generator) for _ in range(3)
    )
    bright = (faces * most**power).clamp(0, 1)
    low = moved * bright.amin((1, 2, 3), keepdim=True).clamp(max=0.9)
    return torch.where(chance < _EXPOSED, (bright - low) / (1 - low), faces)


# Number of groups in which faces of a batch are made coarser; each group is one call.
_GROUPS = 4


def _coarsen(faces: Tensor, share: float, coarsest: int) -> Tensor:
    """Reduce and enlarge about a `share` of the faces, group by group."""
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
