"""Pictures in poor light: dark, washed out, without contrast, tinted.

The networks know pictures in ordinary light. What lies far outside is brought into it before
faces are looked for a second time, and face by face before expressions are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.networks.pcnn import ModelConfig

# Levels between which all but the darkest and the brightest hundredth of a picture lie.
_PERCENTILES = (1, 99)
# A picture whose channels reach over so many levels is in ordinary light already.
_FULL_RANGE = 200
# A channel of fewer levels holds nothing but noise.
_LEAST_RANGE = 4
# A face's view is in ordinary light with a mean between these and at least this deviation, of 0…1:
# so are all 3,500 faces of FER+ valid, and all of lfw (benchmarks/hard_pictures.py).
_FACE_MEAN, _FACE_DEVIATION = (0.08, 0.87), 0.06
# What another one is given: the medians of FER+ valid.
_USUAL_MEAN, _USUAL_DEVIATION = 0.51, 0.21
# Faces brighter than this on average are read from the darkest channel where that says more.
_BRIGHT = 0.8
# It does in a face whose channels differ by so many levels on average, as no grey face's do.
_COLOURED = 4
# So many pixels along a side are enough to know a picture's light.
_SAMPLES = 96
# Where in a face, as shares of its view, its light is read: (2, n).
_FACE_PLACES = np.stack(np.meshgrid(*[np.linspace(0.1, 0.9, 5, dtype=np.float32)] * 2)).reshape(
    2, -1
)
# Every how many pixels of a view are enough for its mean and deviation.
_FACE_STEP = 4
# Less deviation, in normalised values, is no face but rounding.
_LEAST_DEVIATION = 1e-3
# Where more than this share of a picture's pixels has no level below this, it is over-exposed.
_WHITE, _WHITE_SHARE = 250, 0.25


def stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with each of its channels stretched over all levels.

    picture: (H, W, 3) uint8 RGB. Dark pictures become bright, flat ones contrasty, and a tint
    goes. Of an over-exposed picture only the darkest channel of each pixel is taken, in which skin
    keeps its shades longest.
    Returns `picture` itself where its light is ordinary, else a new array.
    """
    few = picture[_few(picture)].reshape(-1, 3)
    if (few.max(1) >= _WHITE).mean() > _WHITE_SHARE:
        return _darkest(picture)
    low, high = np.percentile(few, _PERCENTILES, axis=0)
    if (high - low).min() >= _FULL_RANGE:
        return picture
    tables = [_table(few[:, channel]) for channel in range(3)]
    return np.stack([table[picture[..., c]] for c, table in enumerate(tables)], axis=2)


def readable(
    picture: NDArray[np.uint8], transforms: NDArray[np.float32], size: int
) -> NDArray[np.uint8]:
    """The picture that faces are to be cut out of: another one where they are over-exposed.

    picture: (H, W, 3) uint8 RGB. transforms: (faces, 6, 2, 3), see geometry; of views of
    size × size pixels.
    Returns `picture` itself, or where its coloured faces are nearly white the darkest channel of
    each pixel, stretched (see stretched).
    """
    places = transforms[:, 0, :, :2] @ (_FACE_PLACES * size) + transforms[:, 0, :, 2:]
    if not len(places) or not np.isfinite(places).all():
        return picture
    limits = np.array(picture.shape[1::-1])[:, None] - 1
    columns, rows = places.clip(0, limits).astype(int).swapaxes(0, 1)  # (faces, n) each
    values = picture[rows, columns]  # (faces, n, 3)
    if values.mean() < 255 * _BRIGHT or np.ptp(values, axis=2).mean() < _COLOURED:
        return picture
    return _darkest(picture)


def even_light(views: Sequence[Tensor], config: ModelConfig) -> list[Tensor]:
    """The views of faces, those in poor light brought into the usual one.

    views: (B, C, h, w) each, normalised as config says, the whole face first.
    A face whose view has an unusual mean or hardly any contrast is scaled and shifted, in all its
    views alike, each channel by itself. Others stay as they are, to the bit.
    """
    whole = views[0]
    mean, std = (whole.new_tensor(each)[:, None, None] for each in (config.mean, config.std))
    few = whole[:, :, ::_FACE_STEP, ::_FACE_STEP]
    deviation, middle = torch.std_mean(few, (2, 3), correction=0, keepdim=True)
    level, contrast = middle * std + mean, deviation * std  # of 0…1
    usual = (level > _FACE_MEAN[0]) & (level < _FACE_MEAN[1]) & (contrast > _FACE_DEVIATION)
    if whole.device.type == "cpu" and bool(usual.all()):
        return list(views)
    gain = (_USUAL_DEVIATION / std) / deviation.clamp(min=_LEAST_DEVIATION)
    target = (_USUAL_MEAN - mean) / std
    return [torch.where(usual, view, (view - middle) * gain + target) for view in views]


def _darkest(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The darkest channel of each pixel, stretched over all levels, three times."""
    darkest = picture.min(2)
    table = _table(darkest[_few(picture)])
    lit: NDArray[np.uint8] = np.repeat(table[darkest][..., None], 3, axis=2)
    return lit


def _few(picture: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Pixels of a picture, spread over it, that are enough to know its light."""
    height, width = picture.shape[:2]
    return np.s_[:: max(1, height // _SAMPLES), :: max(1, width // _SAMPLES)]


def _table(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256,) uint8: each level's place when the values are stretched over all of them."""
    low, high = np.percentile(values, _PERCENTILES)
    levels = (np.arange(256) - low) * (255 / max(high - low, _LEAST_RANGE))
    table: NDArray[np.uint8] = levels.round().clip(0, 255).astype(np.uint8)
    return table
