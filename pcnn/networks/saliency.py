"""Saliency maps, which say where in a face the eye is drawn, and faces multiplied by them.

The product of face and map as a network's input is that of Mavani, Raman and Miyapuram 2017,
Facial Expression Recognition using Visual Saliency and Deep Learning (arXiv 1708.08016).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError, check_shape
from pcnn.networks.pcnn import ModelConfig
from pcnn.networks.regions import VIEWS
from pcnn.ops.reference import LUMA

# Faces (B, 1 or 3, H, W) of 0…1 → maps (B, 1, H, W) of 0…1; the same faces always give the same
# maps, whatever stands beside them in the batch. Called from several threads at once.
SaliencyModel: TypeAlias = Callable[[Tensor], Tensor]

DEFAULT_MODEL = "spectral_residual"

# Hou and Zhang 2007: the side of the picture that is analysed, the frequencies that are averaged,
# and the standard deviation, in pixels, of the final Gaussian, as in their published program.
_SIDE, _NEIGHBOURS, _SIGMA = 64, 3, 2.5
_LEAST_AMPLITUDE = 1e-5  # of a picture of 0…1: less than 8 bits can show
_LEAST_CONTRAST = 0.5 / 255  # between the darkest and the lightest place

_CENTRE_SIGMA = 0.25  # of the side


def spectral_residual(faces: Tensor) -> Tensor:
    """Maps of what is unlike the rest of the picture, by its spectrum.

    faces: (B, 1 or 3, H, W) float of 0…1, of which the luma is analysed at 64 × 64 pixels.
    Returns (B, 1, H, W) of 0…1, about 1 at the most salient place of each; 1 everywhere for a
    picture of one value. Source: Hou and Zhang 2007, Saliency Detection: A Spectral Residual
    Approach. Unlike theirs the picture is continued by its mirror image, not repeated: faces fill
    their pictures, and the jump from one edge to the opposite one would be all that stands out.
    """
    weights = faces.new_tensor(LUMA if faces.shape[1] == 3 else (1.0,)).view(1, -1, 1, 1)
    small = _resized((faces * weights).sum(1, keepdim=True), (_SIDE, _SIDE))
    # The Fourier transform of a picture continued by its mirror image is its cosine transform.
    waves = _cosines(_SIDE).to(small)
    spectrum = waves @ small @ waves.T / _SIDE**2  # (B, 1, 64, 64)
    log_amplitude = (spectrum.abs() + _LEAST_AMPLITUDE).log()
    around = F.pad(log_amplitude, (_NEIGHBOURS // 2,) * 4, mode="reflect")
    usual = F.avg_pool2d(around, _NEIGHBOURS, stride=1)
    residual = spectrum * (-usual).exp()  # of log-amplitude `log_amplitude − usual`, same phase
    residual[:, :, 0, 0] = 0  # the mean brightness stands nowhere out
    waves[0] /= 2  # each of the others stands for two frequencies, k and −k
    energy = blur((waves.T @ residual @ waves).square()[:, 0], _SIGMA)[:, None]
    maps = energy / energy.amax((2, 3), keepdim=True)
    flat = small.amax((2, 3), keepdim=True) - small.amin((2, 3), keepdim=True) < _LEAST_CONTRAST
    maps = _resized(torch.where(flat, 1.0, maps), (faces.shape[2], faces.shape[3]))
    return maps.clamp(max=1)  # sums of weights are 1 but for rounding


def centre(faces: Tensor) -> Tensor:
    """The same map for every face: a Gaussian about its middle, σ a quarter of the side.

    faces, returned maps: as for `spectral_residual`. It knows nothing of the face: the control
    that shows what a map's content is worth.
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
    """Make a model of one's own known by a name, which weights files record.

    Whoever uses such weights must have registered the model before they are loaded.
    Raises InputError: the name is taken.
    """
    if name in _MODELS:
        raise InputError(f"register: {name!r} is already the name of a saliency model")
    _MODELS[name] = model


def model_names() -> tuple[str, ...]:
    """The names of the models that are known."""
    return tuple(_MODELS)


def find_model(name: str) -> SaliencyModel:
    """The model of a name. Raises InputError: there is none."""
    if name not in _MODELS:
        raise InputError(
            f"no saliency model is called {name!r}; known are {', '.join(_MODELS)}; "
            "pcnn.saliency.register adds more"
        )
    return _MODELS[name]


def saliency_maps(faces: Tensor, model: str | SaliencyModel = DEFAULT_MODEL) -> Tensor:
    """The maps of faces by a model, checked.

    faces: (B, 1 or 3, H, W) float of 0…1. model: a name, or a model itself.
    Returns (B, 1, H, W) of 0…1, without gradient; empty for B = 0.
    Raises InputError: faces of another shape, no such model, maps of another shape or range.
    """
    if faces.dim() != 4 or faces.shape[1] not in (1, 3):
        raise InputError(f"saliency_maps: faces must be (B, 1 or 3, H, W), got {_shape(faces)}")
    compute = find_model(model) if isinstance(model, str) else model
    wanted = (len(faces), 1, *faces.shape[2:])
    if not len(faces):
        return faces.new_empty(wanted)
    with torch.no_grad():
        maps = compute(faces)
    check_shape("saliency_maps", "what the model returns", maps, wanted)
    low, high = maps.aminmax()
    if not (low >= 0 and high <= 1):  # nor NaN
        raise InputError(
            f"saliency_maps: what the model returns must lie in 0…1, got {low:.3g}…{high:.3g}"
        )
    return maps


def weigh(
    views: Sequence[Tensor], config: ModelConfig, model: str | SaliencyModel | None = None
) -> list[Tensor]:
    """Views multiplied by the saliency map of the face they belong to.

    views: the first of VIEWS, at least the face's, each (B, C, h, w), normalised.
    model: None takes the one that the configuration names; where it names none, the views are
        returned as they are.
    The map is computed once, of the face view; a region's view gets its own part of it. What is
    multiplied are the values of 0…1, which are then normalised again.
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
    """(B, H, W) under a Gaussian of `sigma` pixels, edges replicated."""
    reach = round(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    maps = F.pad(maps[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(maps, kernel), kernel.transpose(2, 3))[:, 0]


def _cosines(size: int) -> Tensor:
    """(frequencies, places), float64: row k is cos(π (n + ½) k / size) over places n."""
    steps = torch.arange(size, dtype=torch.float64)
    return torch.cos(math.pi / size * steps[:, None] * (steps + 0.5))


def _resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, h, w) → (B, 1, *size), bilinear; each pixel averages what it covers."""
    if planes.shape[2:] == size:
        return planes
    return F.interpolate(planes, size, mode="bilinear", antialias=True)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
