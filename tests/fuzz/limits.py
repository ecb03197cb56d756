"""What an execution may do: its errors, time, memory, and nothing beside reading."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

from pcnn.errors import InputError, WeightsError

DOCUMENTED = (InputError, WeightsError)
# Seconds of processor time for one input, so that a busy machine changes nothing.
SECONDS = 10.0
# Bytes of memory beyond those of the process before.
MEMORY = 1 << 30

_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"),
    *("pickle.find_class", "os.putenv", "os.kill", "os.chmod", "ctypes.dlopen"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class ForbiddenError(BaseException):
    """An input made the package do what reading never needs; no `except Exception` hides it."""


class FaultError(Exception):
    """What is wrong with an execution. signature: the same for the same fault."""

    def __init__(self, signature: str, details: str) -> None:
        super().__init__(signature)
        self.signature, self.details = signature, details


def limit_process(scratch: Path) -> None:
    """Hold the whole process to the limits, from now on and for ever."""
    sys.dont_write_bytecode = True
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, wherever it hangs
    sys.addaudithook(_refuser(str(scratch)))


def _refuser(scratch: str) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            raise ForbiddenError(f"{event} {arguments!r:.200}")
        if event == "exec" and isinstance(arguments[0], CodeType):
            code = arguments[0]
            if code.co_filename.startswith("<") and "frozen" not in code.co_filename:
                raise ForbiddenError(f"exec of {code!r}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else scratch
            path = os.fsdecode(path)
            if not path.startswith((scratch, "/dev/null")):
                raise ForbiddenError(f"open of {path!r} to write")

    return hook


def attempt(read: Callable[[bytes, Path], None], content: bytes, scratch: Path) -> str:
    """Read one input within the limits: "read", or which error it was and where it was raised.

    Raises FaultError: another exception than the documented ones, too much memory, or what reading
        never needs. The process ends by SIGPROF if the time is over.
    """
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        read(content, scratch)
    except DOCUMENTED as error:
        if _lacked_memory(error):
            raise _fault("memory", error) from error
        return _outcome(error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise _fault(type(error).__name__, error) from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def _outcome(error: BaseException) -> str:
    """Class and place of an error, and of what caused it."""
    frames = traceback.extract_tb(error.__traceback__)
    cause = f" from {type(error.__cause__).__name__}" if error.__cause__ else ""
    last = frames[-1]
    return f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}{cause}"


def _lacked_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _fault(kind: str, error: BaseException) -> FaultError:
    """A fault named by the error and the last line of the package that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}pcnn{os.sep}" in frame.filename] or frames
    place = f"{Path(own[-1].filename).stem}.{own[-1].name}:{own[-1].lineno}"
    details = "".join(traceback.format_exception(error))[-4000:]
    return FaultError(f"{kind} at {place}", details)
