"""Loading of pictures from files, bytes, Pillow, NumPy and torch as upright RGB uint8."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import (  # noqa: F401  (imported plugins register themselves in Image.OPEN)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pcnn.errors import InputError, in_words
from pcnn.images.files import file_error, shown, what_instead
from pcnn.images.pixels import Pixels, array_to_rgb, picture_to_rgb, tensor_to_array

with contextlib.suppress(ImportError):
    from PIL import AvifImagePlugin  # noqa: F401  (Pillow 11.3 and later)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    ImageSource: TypeAlias = (
        str
        | os.PathLike[str]
        | bytes
        | bytearray
        | memoryview
        | BinaryIO
        | Image.Image
        | NDArray[Any]
        | Tensor
    )

# More than the 200-megapixel sensors of phones (16320 × 12240). Larger files are decompression
# bombs or maps.
MAX_PIXELS = 200_000_000

# Only these decoders read a file's bytes. HEIF works if pillow-heif is installed.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")

_SOURCES = "a path, bytes, a binary file, a PIL image, an array or a tensor"
_ORIENTATION = 0x0112  # Exif 2.32, table 4: the tag; below, the transform that inverts each value
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: ImageSource, *, bgr: bool = False, name: str = "image") -> Pixels:
    """Load the upright pixels of one picture.

    source: a path, the bytes of an image file, a binary file object, a PIL image, an array or a
        tensor. A file object is read from its start and left open. Arrays are (H, W) or
        (H, W, 1|3|4), uint8, uint16 (0…65535), bool or float 0…1. Tensors have these shapes or
        (1|3|4, H, W). The EXIF orientation is applied.
        Transparent pictures are blended with white. Only the first frame or page is used.
    bgr: True if arrays and tensors hold blue, green, red, as in OpenCV. It does not affect files
        and PIL images, whose order is known.
    name: the name in messages of a source without a file name.
    Returns (H, W, 3) uint8 RGB, contiguous and writable. An array or tensor that already has this
        form is not copied, so the result shares its memory.
    Raises InputError: the source is missing, unreadable, damaged, of an unsupported kind, without
        pixels, or a file or PIL image with more than MAX_PIXELS.

    >>> load_image("docs/images/astronaut.png").shape
    (512, 512, 3)
    """
    if isinstance(source, (str, os.PathLike)):
        return _load_file(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _load_stream(io.BytesIO(source), name)
    if isinstance(source, Image.Image):
        return _load_picture(source, name)
    if isinstance(source, np.ndarray):
        return array_to_rgb(source, bgr=bgr, name=name)
    torch = sys.modules.get("torch")  # a tensor cannot exist before torch is imported
    if torch is not None and isinstance(source, torch.Tensor):
        return array_to_rgb(tensor_to_array(source, name=name), bgr=bgr, name=name)
    if hasattr(source, "read"):
        return _load_file_object(source, name)
    remedy = ""
    if isinstance(source, (list, tuple)):
        remedy = ": pass its pictures one by one"
    raise InputError(f"load_image: {name} must be {_SOURCES}, got {type(source).__name__}{remedy}")


def stored_size(source: str | os.PathLike[str] | bytes) -> tuple[int, int] | None:
    """Width and height of a picture file, before its orientation is applied.

    source: a path, or the bytes of a file. Reads only the first part and decodes nothing.
    None for a file that is no readable picture, and for a special file, which can be read only
    once.
    """
    with contextlib.suppress(OSError, InputError):
        if isinstance(source, bytes):
            return _stored_size(io.BytesIO(source))
        if not Path(source).is_file():
            return None
        with Path(source).open("rb") as stream:
            return _stored_size(stream)
    return None


def _stored_size(stream: BinaryIO) -> tuple[int, int] | None:
    kind = _format_of(stream.read(1024))
    stream.seek(0)
    with _pillow_errors("", ""):
        return None if kind is None else Image.OPEN[kind][0](stream, "").size


def _load_file(path: str) -> Pixels:
    """Pixels of the file at `path`."""
    if not isinstance(path, str):
        raise InputError(f"load_image: path must be text, got {path!r}")
    if not path or "\0" in path:
        raise InputError(f"load_image: path must be a file's name, got {path!r}")
    name = shown(path)
    if path.startswith(("http://", "https://")):
        raise InputError(f"{name}: an address, not a file: download it first")
    try:
        with Path(path).open("rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return _load_stream(io.BytesIO(stream.read()), name)
            return _load_stream(stream, name)
    except OSError as error:
        raise InputError(f"{name}: {file_error(error)}") from error


def _load_file_object(source: Any, name: str) -> Pixels:
    """Pixels of an open binary file object of any class."""
    own_name = getattr(source, "name", None)
    name = shown(own_name) if isinstance(own_name, str) and own_name else name
    if getattr(source, "closed", False):
        raise InputError(f"{name}: the file object is closed")
    try:
        if source.seekable():
            source.seek(0)
        content = source.read()
    except UnicodeDecodeError:  # a file opened as text, whose bytes are none
        content = ""
    except Exception as error:  # archives raise errors of their own
        raise InputError(f"{name}: the file object cannot be read ({in_words(error)})") from error
    if not isinstance(content, bytes):
        raise InputError(f"{name}: the file object gives text: open it in binary mode, 'rb'")
    return _load_stream(io.BytesIO(content), name)


def _load_stream(stream: BinaryIO, name: str) -> Pixels:
    """Pixels of an image file. `stream` must be seekable; it is rewound and left open."""
    stream.seek(0)
    head = stream.read(1024)
    kind = _format_of(head)
    if kind is None:
        raise InputError(f"{name}: {what_instead(head)}")
    stream.seek(0)
    with _pillow_errors(f"{name}: the {kind} data are damaged or cut short", name):
        # Image.open would check the size against Pillow's global limit, and warn.
        picture = Image.OPEN[kind][0](stream, "")
        return _to_pixels(picture, name)


def _load_picture(picture: Image.Image, name: str) -> Pixels:
    """Pixels of a PIL image, which may not be loaded yet."""
    filename = getattr(picture, "filename", "")
    name = shown(filename) if isinstance(filename, str) and filename else name
    with _pillow_errors(f"{name}: the PIL image is closed, damaged or cut short", name):
        return _to_pixels(picture, name)


def _to_pixels(picture: Image.Image, name: str) -> Pixels:
    """Check the size, decode, apply the orientation, convert."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: {width} × {height} pixels are more than the {MAX_PIXELS:,} allowed "
            "(in Python: pcnn.images.loading.MAX_PIXELS)"
        )
    if width < 1 or height < 1:
        raise InputError(f"{name}: the picture has no pixels ({width} × {height})")
    picture.load()
    # After load: TIFF is upright then, and PNG has read its orientation.
    turn = _UPRIGHT.get(_orientation(picture))
    return picture_to_rgb(picture if turn is None else picture.transpose(turn), name=name)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1…8; like viewers, 1 if it is missing or damaged."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
        return int(value)
    except Exception:  # damaged EXIF raises many kinds of errors; the pixels are still usable
        return 1


class _Quiet:
    """Context manager that suppresses Pillow's warnings while any thread is in it.

    All threads share the warning filters. `warnings.catch_warnings` would restore an old list that
    other threads have changed. So the first thread adds one filter for Pillow's own modules, and
    the last thread removes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                warnings.filterwarnings("ignore", module=r"PIL\b")
                self._filter = warnings.filters[0]
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                # The filter is missing if other code has restored an earlier list.
                with contextlib.suppress(ValueError, AttributeError):
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_quiet = _Quiet()


@contextlib.contextmanager
def _pillow_errors(message: str, name: str) -> Iterator[None]:
    """Convert all errors of Pillow to InputError(message), and suppress its warnings."""
    with _quiet:
        try:
            yield
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{name}: too large for the available memory") from error
        except Image.DecompressionBombError as error:
            raise InputError(f"{name}: more pixels than PIL.Image.MAX_IMAGE_PIXELS") from error
        except Exception as error:  # its decoders have no common base class
            raise InputError(message) from error


def _format_of(head: bytes) -> str | None:
    """The format of FORMATS whose signature is at the start of `head`; None without one."""
    for kind in FORMATS:
        accept = Image.OPEN[kind][1] if kind in Image.OPEN else None
        if accept is not None and accept(head[:16]) is True:
            return kind
    return None
