"""Saliency maps, which mark the conspicuous places of a face, and faces multiplied by them.

Mavani, Raman and Miyapuram 2017 use the product of face and map as a network's input: Facial
Expression Recognition using Visual Saliency and Deep Learning (arXiv 1708.08016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError, check_shape
from pcnn.networks.regions import VIEWS, ViewFormat
from pcnn.ops.reference import LUMA

# Faces (B, 1 or 3, H, W) of 0…1 → maps (B, 1, H, W) of 0…1. A face always gives the same map,
# whatever else is in the batch. Several threads call it at the same time.
SaliencyModel: TypeAlias = Callable[[Tensor], Tensor]

DEFAULT_MODEL = "spectral_residual"

# Hou and Zhang 2007, published program: the side of the analysed picture, the side of the
# average over frequencies, and the standard deviation of the final Gaussian, in pixels.
_SIDE, _NEIGHBOURS, _SIGMA = 64, 3, 2.5
_LEAST_AMPLITUDE = 1e-5  # for a picture of 0…1; less than 8 bits can represent
_LEAST_CONTRAST = 0.5 / 255  # between the darkest and the lightest place

_CENTRE_SIGMA = 0.25  # of the side


def spectral_residual(faces: Tensor) -> Tensor:
    """Saliency maps from the spectral residual: places that differ from the rest of the picture.

    faces: (B, 1 or 3, H, W) float of 0…1. Their luma is analysed at 64 × 64 pixels.
    Returns (B, 1, H, W) of 0…1, about 1 at the most salient place of each face. A uniform picture
    gives 1 everywhere.
    Source: Hou and Zhang 2007, Saliency Detection: A Spectral Residual Approach. They repeat the
    picture; here it is continued by its mirror image. Faces fill their pictures, so in a repeated
    picture the jump between opposite edges would dominate the map.
    """
    weights = faces.new_tensor(LUMA if faces.shape[1] == 3 else (1.0,)).view(1, -1, 1, 1)
    small = _resized((faces * weights).sum(1, keepdim=True), (_SIDE, _SIDE))
    # The Fourier transform of a picture continued by its mirror image is its cosine transform.
    waves = _cosines(_SIDE).to(small)
    spectrum = waves @ small @ waves.T / _SIDE**2  # (B, 1, 64, 64)
    log_amplitude = (spectrum.abs() + _LEAST_AMPLITUDE).log()
    around = F.pad(log_amplitude, (_NEIGHBOURS // 2,) * 4, mode="reflect")
    usual = F.avg_pool2d(around, _NEIGHBOURS, stride=1)
    residual = spectrum * (-usual).exp()  # log-amplitude `log_amplitude − usual`, same phase
    residual[:, :, 0, 0] = 0  # the mean brightness is no salient place
    waves[0] /= 2  # each other row represents two frequencies, k and −k
    energy = blur((waves.T @ residual @ waves).square()[:, 0], _SIGMA)[:, None]
    maps = energy / energy.amax((2, 3), keepdim=True)
    flat = small.amax((2, 3), keepdim=True) - small.amin((2, 3), keepdim=True) < _LEAST_CONTRAST
    maps = _resized(torch.where(flat, 1.0, maps), (faces.shape[2], faces.shape[3]))
    return maps.clamp(max=1)  # sums of weights may exceed 1 by rounding


def centre(faces: Tensor) -> Tensor:
    """A fixed map for every face: a Gaussian about the middle, σ a quarter of the side.

    faces, returned maps: as for `spectral_residual`. The map ignores the face. As a control it
    shows how much the content of other maps contributes.
    """
    height, width = faces.shape[2:]
    rows, columns = (
        ((torch.arange(size, device=faces.device, dtype=faces.dtype) + 0.5) / size - 0.5)
        for size in (height, width)
    )
    squares = rows.square()[:, None] + columns.square()[None]  # (H, W)
    bump = torch.exp(squares / (-2 * _CENTRE_SIGMA**2))
    return bump.expand(len(faces), 1, height, width)


_MODELS: dict[str, SaliencyModel] = {DEFAULT_MODEL: spectral_residual, "centre": centre}


def register(name: str, model: SaliencyModel) -> None:
    """Register your own saliency model under a name, which weights files record.

    Register the model before you load weights that use it.
    Raises InputError: the name is already used.
    """
    if name in _MODELS:
        raise InputError(f"register: {name!r} is already the name of a saliency model")
    _MODELS[name] = model


def find_model(name: str) -> SaliencyModel:
    """The model of a name. Raises InputError: the name is unknown."""
    if name not in _MODELS:
        raise InputError(
            f"no saliency model is called {name!r}; known are {', '.join(_MODELS)}"
            " (in Python: pcnn.saliency.register adds more)"
        )
    return _MODELS[name]


@own_settings()
def saliency_maps(faces: Tensor, model: str | SaliencyModel = DEFAULT_MODEL) -> Tensor:
    """The saliency maps of faces, with a check of the model's output.

    faces: (B, 1 or 3, H, W) float of 0…1. model: a name, or a function.
    Returns (B, 1, H, W) of 0…1, without gradient; empty for B = 0.
    Raises InputError: faces of another shape, an unknown model, maps of another shape or range.
    """
    if faces.dim() != 4 or faces.shape[1] not in (1, 3):
        raise InputError(f"saliency_maps: faces must be (B, 1 or 3, H, W), got {_shape(faces)}")
    compute = find_model(model) if isinstance(model, str) else model
    wanted = (len(faces), 1, *faces.shape[2:])
    if not len(faces):
        return faces.new_empty(wanted)
    with torch.no_grad():
        maps = compute(faces)
    check_shape("saliency_maps", "the model's maps", maps, wanted)
    low, high = maps.aminmax()
    if not (low >= 0 and high <= 1):  # nor NaN
        raise InputError(
            f"saliency_maps: the model's maps must lie in 0…1, got {low:.3g}…{high:.3g}"
        )
    return maps


@own_settings()
def weigh(
    views: Sequence[Tensor], config: ViewFormat, model: str | SaliencyModel | None = None
) -> list[Tensor]:
    """Views multiplied by the saliency map of their face.

    views: the first of VIEWS, at least the face's, each (B, C, h, w), normalised.
    model: None means the configuration's model. If that is None too, the views are returned
        unchanged.
    The map is computed once, from the face view. A region's view is multiplied by its part of
    the map. Values are multiplied in the range 0…1 and normalised again.
    Raises InputError: as saliency_maps.
    """
    model = config.saliency if model is None else model
    if model is None:
        return list(views)
    mean, std = (views[0].new_tensor(each).view(1, -1, 1, 1) for each in (config.mean, config.std))
    maps = saliency_maps((views[0] * std + mean).clamp(0, 1), model)
    boxes = config.layout.boxes(config.size)
    weighed = []
    for name, view in zip(VIEWS, views, strict=False):
        box = boxes[name]
        part = maps[:, :, box.top : box.bottom, box.left : box.right]
        # ((view · std + mean) · part − mean) / std
        weighed.append(view * part + (part - 1) * (mean / std))
    return weighed


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, H, W) blurred by a Gaussian of `sigma` pixels, with replicated edges."""
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    maps = F.pad(maps[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(maps, kernel), kernel.transpose(2, 3))[:, 0]


def _cosines(size: int) -> Tensor:
    """(frequencies, places) float64; row k is cos(π (n + ½) k / size) over places n."""
    steps = torch.arange(size, dtype=torch.float64)
    return torch.cos(math.pi / size * steps[:, None] * (steps + 0.5))


def _resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, 1, h, w) to (B, 1, *size), bilinear and antialiased."""
    if planes.shape[2:] == size:
        return planes
    return F.interpolate(planes, size, mode="bilinear", antialias=True)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
