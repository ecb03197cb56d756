"""What is kept for the user: converted networks, which take minutes, and measured choices."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from pcnn.disk import cache_folder, keep_if_possible, whole_file
from pcnn.engines.portable import Graph
from pcnn.errors import WeightsError
from pcnn.ops import native
from pcnn.terminal import stderr_console

_Loaded = TypeVar("_Loaded")

# Rounds in which calls are timed.
_ROUNDS = 7
# The files and folders of the package whose code makes a graph.
_SOURCES = ("engines", "networks", "ops/reference.py")


def cached_file(
    graph: Graph,
    name: str,
    write: Callable[[Graph, Path], None],
    *,
    announced: str,
    options: Sequence[str] = (),
) -> Path:
    """The path of a graph's file in the user's cache; the file is written if it is missing.

    name: the file name without the fingerprint, such as "classifier.onnx".
    announced: the message shown while the file is written.
    options: everything else that determines the file. The fingerprint always includes the graph's
        weights, the code and torch's version.
    Raises WeightsError: the cache cannot be written. Also raises the errors of `write`.
    """
    plain = cache_folder() / "engines" / name
    path = plain.with_stem(f"{plain.stem}-{_fingerprint(graph, options)}")
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _announced(announced), whole_file(path) as temporary:
            write(graph, temporary)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "set $XDG_CACHE_HOME to a writable folder"
        ) from error
    return path


def load_cached(file: Callable[[], Path], load: Callable[[Path], _Loaded]) -> _Loaded:
    """Load a file of the cache; one that cannot be loaded, since it is damaged, is written anew.

    file: gives the path, and writes the file if it is missing. load: raises WeightsError for a
        damaged file.
    Raises WeightsError: the new file cannot be loaded either, or the cache cannot be written.
    """
    path = file()
    try:
        return load(path)
    except WeightsError:
        with contextlib.suppress(OSError):
            path.unlink()
        return load(file())


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file."""
    path.write_bytes(graph.onnx())


@contextlib.contextmanager
def _announced(message: str) -> Iterator[None]:
    """Show a message on stderr while the block runs."""
    console = stderr_console()
    if not console.is_terminal:
        console.print(f"pcnn: {message}", highlight=False, soft_wrap=True)
    with console.status(f"pcnn: {message}") if console.is_terminal else contextlib.nullcontext():
        yield


def _fingerprint(graph: Graph, options: Sequence[str]) -> str:
    """A hash of a graph's weights and shapes, the code that makes it, and torch's version."""
    digest = hashlib.sha256(repr(tuple(options)).encode())
    for example in graph.example:
        digest.update(str(tuple(example.shape)).encode())
    for name, values in graph.state_dict().items():
        digest.update(name.encode() + values.cpu().float().contiguous().numpy().tobytes())
    digest.update(_sources_digest())
    digest.update(importlib.metadata.version("torch").encode())
    return digest.hexdigest()[:32]


@functools.cache
def _sources_digest() -> bytes:
    """A digest of the code that makes a graph."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for source in _SOURCES:
        place = package / source
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.digest()


def quickest(calls: Mapping[str, Callable[[], object]]) -> str:
    """The name of the call with the least median time, of interleaved rounds after one to warm up.

    calls: at least one. Of equals the first.

    >>> quickest({"nothing": lambda: None})
    'nothing'
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(_ROUNDS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number:
                times[name].append(time.perf_counter() - began)
    return min(times, key=lambda name: statistics.median(times[name]))


def remembered(
    choice: str, options: Sequence[str], circumstances: Sequence[str], measure: Callable[[], str]
) -> str:
    """One of several options, as measured before under the same circumstances, or measured now.

    choice: what is chosen, such as "engine". options: the possible results of `measure`.
    circumstances: everything that the result depends on. PyTorch's version, the number of its
        threads and this package's compiled code always count.
    A cache that cannot be written is no error: then each process measures by itself.
    """
    threads, compiled = str(torch.get_num_threads()), native.compiled(torch.device("cpu"))
    code = "none" if isinstance(compiled, str) else compiled.SOURCES
    key = repr((choice, *options, *circumstances, threads, torch.__version__, native.choice, code))
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = cache_folder() / "engines" / f"{choice}-{digest}.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if found in options:
        return str(found)
    measured = measure()
    keep_if_possible(path, lambda temporary: temporary.write_text(json.dumps(measured)))
    return measured
