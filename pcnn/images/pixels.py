"""Conversion of Pillow modes, array dtypes and tensor layouts to RGB uint8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcnn.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8]

CHANNELS = (1, 3, 4)
ARRAY_SHAPES = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"

# Pictures of at least _LARGE pixels are copied in strips of _STRIP pixels (about 200 kB).
_LARGE, _STRIP = 4_000_000, 60_000
# Resampling in float32 or float16 may exceed 0…1 by rounding, but not by more than this.
_FLOAT_SLACK = 1e-3


def picture_to_rgb(picture: Image.Image, *, name: str) -> Pixels:
    """Pixels of a loaded Pillow image of any mode.

    16-bit values are divided by 257. Mode "I" counts as 8 bit if no value exceeds 255, else as 16
    bit. Mode "F" counts as 0…1 if no value exceeds 1, else as 0…255. Transparent pictures are
    blended with white.
    Returns (H, W, 3) uint8 RGB, contiguous and writable.
    Raises InputError: the mode cannot be converted to RGB, or values are out of range.
    """
    if picture.mode.startswith("I;16"):
        return _grey_to_rgb(sixteen_to_eight(np.asarray(picture)))
    if picture.mode in ("I", "F"):
        return _grey_to_rgb(_wide_to_eight(np.asarray(picture), picture.mode, name))
    try:
        if picture.has_transparency_data:
            picture = _on_white(picture)
        return _to_array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except ValueError as error:
        raise InputError(
            f"{name}: pixels of mode {picture.mode} are not supported: convert them to RGB"
        ) from error


def _to_array(picture: Image.Image) -> Pixels:
    """The pixels of an RGB picture; large pictures are copied in strips.

    Pillow copies pixels for NumPy twice into new memory. For large pictures the new memory takes
    more time than the copy. A strip's memory is reused and stays in the processor's cache.
    """
    width, height = picture.size
    if width * height < _LARGE:
        return np.array(picture)
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = np.asarray(strip)
    return pixels


def tensor_to_array(tensor: Tensor, *, name: str) -> NDArray[Any]:
    """A (H, W) or (H, W, C) array with the values of a tensor on any device.

    tensor: (H, W), (C, H, W) or (H, W, C) with C = 1, 3 or 4. bfloat16 and narrower floats become
        float32.
    Raises InputError: another shape, an ambiguous shape, or a tensor that NumPy cannot represent
        (sparse, quantised, meta).
    """
    shape = tuple(tensor.shape)
    _check_tensor_shape(shape, name)
    try:
        dense = tensor.detach().cpu()
        if dense.is_floating_point():
            dense = dense.float()
        array: NDArray[Any] = dense.resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"load_image: {name} must be a dense tensor with data, "
            f"got {tensor.layout} {tensor.dtype} on {tensor.device}"
        ) from error
    if len(shape) == 3 and shape[0] in CHANNELS:
        return array.transpose(1, 2, 0)
    return array


def array_to_rgb(array: NDArray[Any], *, bgr: bool, name: str) -> Pixels:
    """Pixels of an array.

    array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8, bool, uint16 (full range
        0…65535), another integer type within 0…255, or float within 0…1. A fourth channel
        is alpha, 0 = transparent; the colours are blended with white.
    bgr: True if the channels are blue, green, red (, alpha).
    Returns (H, W, 3) uint8 RGB, contiguous and writable. An `array` that already has this form is
        not copied.
    Raises InputError: another shape, no pixels, another dtype, values out of range.
    """
    array = np.asarray(array)
    _check_array_shape(array.shape, name)
    pixels = _to_eight(array, name)
    if pixels.ndim == 2:
        return _grey_to_rgb(pixels)
    if pixels.shape[2] == 1:
        return _grey_to_rgb(pixels[:, :, 0])
    colours = pixels[:, :, 2::-1] if bgr else pixels[:, :, :3]
    if pixels.shape[2] == 4:
        colours = _blend_on_white(colours, pixels[:, :, 3:])
    return np.require(colours, requirements=["C", "W"])


def sixteen_to_eight(values: NDArray[Any]) -> Pixels:
    """Scale 0…65535 to 0…255, rounded. 65535 = 255 · 257, so both ends are exact."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _check_tensor_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise InputError unless a tensor of `shape` is one picture with an unambiguous layout."""
    if len(shape) == 2:
        return
    if len(shape) != 3 or (shape[0] not in CHANNELS and shape[2] not in CHANNELS):
        remedy = ": one picture at a time, pass list(images)" if len(shape) == 4 else ""
        raise InputError(
            f"load_image: {name} must be (H, W), (C, H, W) or (H, W, C) with C = 1, 3 or 4, "
            f"got {shape}{remedy}"
        )
    if shape[0] in CHANNELS and shape[2] in CHANNELS:
        raise InputError(
            f"load_image: {name} must have an unambiguous shape, got {shape}, which may be "
            "(C, H, W) or (H, W, C): pass a NumPy array, which is always (H, W, C)"
        )


def _check_array_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise InputError unless an array of `shape` is one picture with pixels."""
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in CHANNELS):
        remedy = ""
        if len(shape) == 3 and shape[0] in CHANNELS:
            remedy = ": put the channels last, image.transpose(1, 2, 0)"
        elif len(shape) == 4:
            remedy = ": one picture at a time, pass list(images)"
        raise InputError(f"load_image: {name} must be {ARRAY_SHAPES}, got {shape}{remedy}")
    if 0 in shape:
        raise InputError(f"load_image: {name} must have pixels, got shape {shape}")


def _to_eight(array: NDArray[Any], name: str) -> Pixels:
    """Values of any accepted dtype as uint8, same shape."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return sixteen_to_eight(array)
    if array.dtype.kind in "iu":
        _check_range(array, 255, "scale them and pass uint8", name)
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return _float_to_eight(array, name)
    remedy = ": pictures of different sizes go in a list" if array.dtype.kind == "O" else ""
    raise InputError(
        f"load_image: {name} must be uint8, uint16, bool or float, got {array.dtype}{remedy}"
    )


def _float_to_eight(array: NDArray[Any], name: str) -> Pixels:
    """Scale floats of 0…1 to 0…255, rounded."""
    _check_finite(array, name)
    low, high = float(array.min()), float(array.max())
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        remedy = "undo the normalisation" if low < 0 else "divide by 255, or pass 0…255 as uint8"
        raise InputError(
            f"load_image: {name} of {array.dtype} must lie in 0…1, "
            f"got {low:.4g}…{high:.4g}: {remedy}"
        )
    return np.rint(array.clip(0, 1).astype(np.float32) * 255).astype(np.uint8)


def _wide_to_eight(values: NDArray[Any], mode: str, name: str) -> Pixels:
    """Scale one-channel Pillow pixels of 32 bits to 0…255.

    Pictures of these modes may hold 8-bit, 16-bit or unit values. The largest value decides on
    the range: with the wider range, a picture of the narrower one would be black.
    """
    _check_finite(values, name)
    wide, narrow = (255, 1) if mode == "F" else (65535, 255)
    _check_range(values, wide, "convert the picture to mode L", name)
    limit = narrow if values.max() <= narrow else wide
    scaled: Pixels = np.rint(values * (255 / limit)).astype(np.uint8)
    return scaled


def _check_finite(values: NDArray[Any], name: str) -> None:
    """Raise InputError if a value is NaN or infinite."""
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise InputError(
            f"load_image: {name} must hold finite values, "
            f"got NaN or infinity in {bad} of {values.size}"
        )


def _check_range(values: NDArray[Any], limit: int, remedy: str, name: str) -> None:
    """Raise InputError unless all values lie in 0…limit."""
    low, high = values.min(), values.max()
    if low < 0 or high > limit:
        raise InputError(
            f"load_image: {name} of {values.dtype} must lie in 0…{limit}, "
            f"got {low:g}…{high:g}: {remedy}"
        )


def _grey_to_rgb(grey: Pixels) -> Pixels:
    """Repeat grey pixels (H, W) in three channels, (H, W, 3)."""
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _on_white(picture: Image.Image) -> Image.Image:
    """Blend a picture with any kind of transparency with white."""
    if picture.mode in ("La", "PA"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def _blend_on_white(colours: Pixels, alpha: Pixels) -> Pixels:
    """Blend colours (H, W, 3) with white by alpha (H, W, 1)."""
    opacity = alpha.astype(np.uint32)
    blended = colours * opacity + 255 * (255 - opacity)
    return ((blended + 127) // 255).astype(np.uint8)
