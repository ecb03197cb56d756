"""Sources of films: files, pipes, addresses and cameras."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from pcnn.errors import InputError
from pcnn.images.files import file_error, shown, what_instead
from pcnn.video.interrupts import interruptible, struck

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# A path, an address, `camera:0`, `-` for standard input, bytes, or a binary file open for reading.
FilmSource: TypeAlias = Any

_CAMERA = "camera:"
# Platform → FFmpeg's name of cameras, and the file or name of camera number %s.
_CAMERAS = {
    "linux": ("v4l2", "/dev/video%s"),
    "darwin": ("avfoundation", "%s"),
    "win32": ("dshow", "video=%s"),
}
_LIVE = ("rtsp://", "rtmp://", "udp://", "rtp://", "srt://")
_ADDRESSES = (*_LIVE, "http://", "https://")
_TIMEOUT_S = 10.0  # for an address that does not answer
_DEAF_S = 0.5  # longest time that a Ctrl-C waits for
_HEAD = 512  # bytes for the reason why a file is no film


def import_av() -> Any:
    """PyAV. Raises InputError: it is not installed."""
    try:
        import av
    except ImportError as error:
        raise InputError(
            f"films need PyAV, which cannot be imported ({error}): pip install 'pcnn[video]'"
        ) from error
    return av


def source_name(source: FilmSource) -> str:
    """The name of a film in messages."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return "standard input" if name == "-" else shown(name)
    return "film"


def is_live(source: FilmSource) -> bool:
    """Whether a source is live, so that no frame may wait for later ones."""
    return isinstance(source, str) and source.startswith((_CAMERA, *_LIVE))


def is_address(source: FilmSource) -> bool:
    """Whether a source is a camera, an address or standard input."""
    return isinstance(source, str) and (source == "-" or source.startswith((_CAMERA, *_ADDRESSES)))


def is_pipe(source: FilmSource) -> bool:
    """Whether a source is read once, from its beginning to its end: standard input, or a pipe."""
    if hasattr(source, "read"):
        return not bool(getattr(source, "seekable", lambda: False)())
    return isinstance(source, str) and source == "-"


def open_container(source: FilmSource) -> InputContainer:
    """Open a film with PyAV.

    Raises InputError: PyAV is not installed; no such file, camera or address; not a film.
    """
    av = import_av()
    name = source_name(source)
    file, options = _opened(source, name)
    try:
        container: InputContainer = interruptible(lambda: av.open(file, **options))
    except av.FFmpegError as error:
        raise InputError(f"{name}: {_reason(source, error)}") from error
    return container


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The first video stream of a container, without cover pictures.

    Raises InputError: there is none, or no decoder for it.
    """
    av = import_av()
    covers = av.stream.Disposition.attached_pic
    films = [each for each in container.streams.video if not each.disposition & covers]
    if not films:
        kinds = sorted({each.type for each in container.streams} - {"video"})
        instead = f", only {' and '.join(kinds)}" if kinds else ""
        raise InputError(f"{name}: no video stream in it{instead}")
    if films[0].codec_context is None:
        raise InputError(f"{name}: its video codec is not supported: convert it to H.264")
    return films[0]


class _Pipe:
    """A file with only a read method, so that PyAV does not try to seek.

    It gives what there is: `read` of a buffered pipe would wait for as much as was asked for, which
    are seconds of a stream.
    """

    def __init__(self, file: Any) -> None:
        self._read = getattr(file, "read1", file.read)

    def read(self, size: int) -> Any:
        # A function of Python, unlike `read1`: it hears of a Ctrl-C from before it waits.
        return b"" if struck() else self._read(size)


class _StandardInput(_Pipe):
    """Standard input without its buffer; `select` knows its descriptor alone."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._descriptor = file.fileno()

    def read(self, size: int) -> Any:
        # A Ctrl-C just before a wait is heard after it: so no wait is long.
        while not struck() and not select.select([self._descriptor], [], [], _DEAF_S)[0]:
            pass
        return super().read(size)


def _standard_input(name: str) -> _Pipe:
    """The pipe at standard input. Raises InputError: it is closed."""
    if sys.stdin is None:
        raise InputError(f"{name}: it is closed")
    file = sys.stdin.buffer
    raw = getattr(file, "raw", None)
    if os.name == "nt" or not isinstance(raw, io.FileIO):
        return _Pipe(
            file
        )  # Windows' `select` knows sockets alone, and a stand-in has no descriptor
    return _StandardInput(raw)


def _opened(source: FilmSource, name: str) -> tuple[Any, dict[str, Any]]:
    """The file and options for PyAV to open a source."""
    if isinstance(source, (bytes, bytearray)):
        return io.BytesIO(source), {}
    if hasattr(source, "read"):
        return (_Pipe(source) if is_pipe(source) else source), {}
    if not isinstance(source, (str, os.PathLike)):
        kind = type(source).__name__
        raise InputError(
            "Recognizer.predict_video: source must be a path, an address, 'camera:0', '-', bytes "
            f"or a binary file, got {kind}"
        )
    path = os.fspath(source)
    if path == "-":
        return _standard_input(name), {}
    if path.startswith(_CAMERA):
        return _camera(path.removeprefix(_CAMERA), name)
    if path.startswith(_ADDRESSES):
        return path, {"timeout": _TIMEOUT_S}
    try:
        _check_rewindable(path, name)
        with open(path, "rb") as file:  # noqa: PTH123  (so that a message names what was passed)
            if not file.read(1):
                raise InputError(f"{name}: {what_instead(b'')}")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise InputError(f"{name}: {file_error(error)}") from error
        raise
    return f"file:{path}", {}  # so that a name with a colon is no address


def _check_rewindable(path: str, name: str) -> None:
    """Raises InputError: a pipe or a device of characters; opened again it would wait for ever.

    Raises OSError: no such file.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        raise InputError(
            f"{name}: a pipe or a device, not a file: pass - and redirect it to standard input "
            "(in Python: pass it opened)"
        )


def _camera(number: str, name: str) -> tuple[str, dict[str, Any]]:
    kind = _CAMERAS.get(sys.platform)
    if kind is None:
        raise InputError(f"{name}: cameras are not supported on {sys.platform}")
    file = kind[1] % number
    if sys.platform == "linux" and not os.path.exists(file):  # noqa: PTH110
        raise InputError(f"{name}: no such camera ({file})")
    return file, {"format": kind[0]}


def _reason(source: FilmSource, error: Exception) -> str:
    """The reason why a film cannot be opened."""
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(source, str) and source.startswith((_CAMERA, *_ADDRESSES)):
        if isinstance(error, import_av().error.ExitError):
            return f"no answer within {_TIMEOUT_S:.0f} seconds"
        return f"cannot be opened ({reason})"
    if is_address(source) or not isinstance(source, (str, os.PathLike)):
        return f"not a film that can be read ({reason})"
    with open(source, "rb") as file:  # noqa: PTH123
        instead = what_instead(file.read(_HEAD))
    if instead.startswith(("not a picture", "a video")):
        return f"not a film that can be read ({reason}): it is damaged or of another kind"
    return f"not a film: {instead.replace(', not a picture', '')}"
