"""Checks of PyTorch's files before torch.load reads them: sizes that lie, and programs."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch

from pcnn.arrays import check_members
from pcnn.errors import WeightsError

# How torch.load recognises both of its formats: the first bytes of an archive, and the first
# number of the older one (torch.serialization.MAGIC_NUMBER).
_ARCHIVE = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C


class Skipped:
    """A placeholder for objects that are not built; it accepts all operations of the pickle."""

    def __new__(cls, *_: Any, **__: Any) -> Skipped:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Skipped:
        return self

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...


def check_container(path: Path) -> None:
    """Raise WeightsError unless a file is one of PyTorch's, with sizes that it bears out.

    Refused are TorchScript archives and tar archives, which torch.load would run or unpack to the
    disk, archives that unpack to a multiple of their size, and numbers that the file lacks. An
    archive of a single file is looked into. Nothing in the file is run.
    """
    try:
        with path.open("rb") as file:
            _check(file)
    except FileNotFoundError:
        raise
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, pickle and torch raise many kinds of errors
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: not a readable PyTorch checkpoint ({reason})") from error


def _check(file: BinaryIO, *, within: bool = False) -> None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(len(_ARCHIVE)) != _ARCHIVE:
        _check_older(file, size)
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        check_members(members, size)
        _refuse_programs(member.filename for member in members)
        if len(members) == 1 and not within:
            _check(io.BytesIO(archive.read(members[0])), within=True)
            return
    # torch's own reader, too, since another one may find other files in a hostile archive.
    file.seek(0)
    _refuse_programs(torch._C.PyTorchFileReader(file).get_all_records())


def _refuse_programs(names: Iterable[str]) -> None:
    """Raise WeightsError for the files of a TorchScript archive, which torch.load would run."""
    if any(name.endswith("constants.pkl") for name in names):
        raise WeightsError("is a TorchScript archive, expected a checkpoint")


def _check_older(file: BinaryIO, size: int) -> None:
    """A file of the format before PyTorch 1.6: four pickles, a fifth with names, the numbers."""
    file.seek(0)
    if _Rehearsal(file, size).load() != _MAGIC:
        raise ValueError("it is none of PyTorch's formats")
    for _ in range(4):  # the protocol's number, the machine, the objects, the names of the storages
        _Rehearsal(file, size).load()


class _Bounded:
    """A file for an unpickler, which refuses to read what is not there before it takes memory."""

    def __init__(self, file: BinaryIO) -> None:
        place = file.tell()
        self._file, self._size = file, file.seek(0, io.SEEK_END)
        file.seek(place)

    def read(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise EOFError("it ends too early")
        return self._file.read(count)

    def readline(self) -> bytes:
        return self._file.readline()


class CarefulUnpickler(pickle._Unpickler):
    """Python's own unpickler, in which all objects are Skipped.

    That in C takes memory for the largest number of an object that a file names, whether it has
    so many or not: ten bytes may ask for gigabytes. Here every length that an opcode names is
    held against the rest of the file first.

    file: open for reading, with seek.
    """

    def __init__(self, file: BinaryIO, **options: Any) -> None:
        super().__init__(_Bounded(file), **options)

    def load_bytearray8(self: Any) -> None:
        # Python's own takes memory for the whole array before it reads it.
        count = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(count)))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }

    def find_class(self, module: str, name: str) -> Any:
        return Skipped


class _Rehearsal(CarefulUnpickler):
    """Reads a pickle for its sizes alone."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file)
        self._most = size

    def persistent_load(self, pid: Any) -> Any:
        kind, *described = pid
        if kind not in ("storage", b"storage"):
            raise ValueError(f"it holds {kind!r:.40}")
        count = described[3]
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= self._most:
            raise ValueError(f"it names {count!r:.40} numbers in {self._most:,} bytes")
        return Skipped()
