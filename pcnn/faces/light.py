"""Correction of poor light: dark, over-exposed, flat or tinted pictures.

The networks were trained on ordinary light. Pictures in very different light are corrected before
a second search for faces. Each face is corrected before its expression is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.networks.regions import ViewFormat

# Percentiles that limit a picture's levels: the darkest and brightest hundredth are ignored.
_PERCENTILES = (1, 99)
# Channels with this range of levels are in ordinary light.
_FULL_RANGE = 200
# A channel with a smaller range contains only noise.
_LEAST_RANGE = 4
# Mean and least deviation of a face's view in ordinary light, of 0…1. All 3,500 faces of FER+ valid
# and all of lfw are within these limits (benchmarks/hard_pictures.py).
_FACE_MEAN, _FACE_DEVIATION = (0.08, 0.87), 0.06
# Mean and deviation of a corrected face: the medians of FER+ valid.
_USUAL_MEAN, _USUAL_DEVIATION = 0.51, 0.21
# Coloured faces with a higher mean are read from the darkest channel.
_BRIGHT = 0.8
# The least mean difference between the channels of a coloured face, in levels.
_COLOURED = 4
# Samples along a side for measuring a picture's light.
_SAMPLES = 96
# Places of samples in a face, as fractions of its view: (2, n).
_FACE_PLACES = np.stack(np.meshgrid(*[np.linspace(0.1, 0.9, 5, dtype=np.float32)] * 2)).reshape(
    2, -1
)
# The distance between samples of a view for its mean and deviation, in pixels.
_FACE_STEP = 4
# Smaller deviations, in normalised values, are only rounding.
_LEAST_DEVIATION = 1e-3
# A face is white if more than half of its view is above this level, of 0…1.
_WHITE_LEVEL, _WHITE_HALF = 0.99, 0.5
# A picture is over-exposed if more than this share of its pixels has a channel above this level.
_WHITE, _WHITE_SHARE = 250, 0.25


def stretched(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with each channel stretched over all levels.

    picture: (H, W, 3) uint8 RGB. Dark pictures become brighter, flat ones get contrast, and tints
        are removed. For an over-exposed picture only the darkest channel of each pixel is used,
        because it keeps the shades of skin longest.
    Returns `picture` itself if its light is ordinary, else a new array.
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
    """The picture for cutting out faces, corrected if they are over-exposed.

    picture: (H, W, 3) uint8 RGB. transforms: (faces, 6, 2, 3), see geometry; of views of
        size × size pixels.
    Returns `picture` itself. If its coloured faces are nearly white, returns the darkest channel
    of each pixel, stretched (see stretched).
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


def even_light(views: Sequence[Tensor], config: ViewFormat) -> list[Tensor]:
    """The views of faces, with poor light corrected.

    views: (B, C, h, w) each, normalised by the config, the whole face first.
    A face with an unusual mean or very little contrast is scaled and shifted, separately for each
    channel but equally in all its views. Other faces do not change. Nor do white ones: in
    training, too, over-exposed skin is white.
    """
    whole = views[0]
    mean, std = (whole.new_tensor(each)[:, None, None] for each in (config.mean, config.std))
    few = whole[:, :, ::_FACE_STEP, ::_FACE_STEP]
    deviation, middle = torch.std_mean(few, (2, 3), correction=0, keepdim=True)
    level, contrast = middle * std + mean, deviation * std  # of 0…1
    usual = (level > _FACE_MEAN[0]) & (level < _FACE_MEAN[1]) & (contrast > _FACE_DEVIATION)
    if whole.device.type == "cpu" and bool(usual.all()):
        return list(views)
    white = (few * std + mean >= _WHITE_LEVEL).all(1, keepdim=True)
    usual |= white.to(few.dtype).mean((2, 3), keepdim=True) > _WHITE_HALF
    gain = (_USUAL_DEVIATION / std) / deviation.clamp(min=_LEAST_DEVIATION)
    target = (_USUAL_MEAN - mean) / std
    return [torch.where(usual, view, (view - middle) * gain + target) for view in views]


def _darkest(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The darkest channel of each pixel, stretched over all levels, in three channels."""
    darkest = picture.min(2)
    table = _table(darkest[_few(picture)])
    lit: NDArray[np.uint8] = np.repeat(table[darkest][..., None], 3, axis=2)
    return lit


def _few(picture: NDArray[np.uint8]) -> tuple[slice, slice]:
    """An index of evenly spread pixels of a picture, for measuring its light."""
    height, width = picture.shape[:2]
    return np.s_[:: max(1, height // _SAMPLES), :: max(1, width // _SAMPLES)]


def _table(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A lookup table (256,) uint8 that stretches the values over all levels."""
    low, high = np.percentile(values, _PERCENTILES)
    levels = (np.arange(256) - low) * (255 / max(high - low, _LEAST_RANGE))
    table: NDArray[np.uint8] = levels.round().clip(0, 255).astype(np.uint8)
    return table
