"""NumPy's files, which may be damaged, foreign or hostile."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcnn.disk import as_path
from pcnn.errors import InputError

# An archive may unpack to this many bytes, or to this many times its own size.
_MOST_UNPACKED, _MOST_RATIO = 1 << 26, 100
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name; that of an .npy file under the name "".

    Nothing is unpickled, and a size that the file does not bear out costs no memory.
    Raises InputError: the file is missing, damaged, holds objects, or is none of both.
    """
    path = as_path("read_arrays: path", path)
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                return {"": _array(file.read())}
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                check_members(members, path.stat().st_size)
                return {
                    each.filename.removesuffix(".npy"): _array(archive.read(each))
                    for each in members
                }
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors
        raise InputError(f"{path}: not a readable file of arrays ({error})") from error


def check_members(members: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Refuse an archive that takes much more memory than its file has bytes.

    size: of the file, in bytes. Raises ValueError.
    """
    members = list(members)
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_MOST_UNPACKED, _MOST_RATIO * size):
        raise ValueError(f"it unpacks to {unpacked:,} bytes")
    # zipfile takes memory for what the archive says, before it reads.
    if any(member.compress_size > size for member in members):
        raise ValueError("a part of it is larger than the file")


def _array(content: bytes) -> NDArray[Any]:
    """The array of an .npy file's bytes. Raises many kinds of errors for others."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of NumPy's format is unknown")
    shape, by_columns, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("objects are not read")
    body = content[stream.tell() :]
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"{shape} of {dtype} do not fit into {len(body):,} bytes")
    flat = np.frombuffer(body, dtype)
    return flat.reshape(shape, order="F" if by_columns else "C").copy()
