"""Graphs made ready for an engine, which takes minutes: files in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from pcnn.disk import cache_folder
from pcnn.engines.portable import Graph
from pcnn.errors import WeightsError

# The code that makes a graph.
_SOURCES = (
    *("compiled.py", "graphs.py", "inference.py", "interaction.py", "model.py"),
    *("prepared_retinaface.py", "regions.py", "retinaface.py", "trunk.py", "ops/reference.py"),
)


def kept(
    graph: Graph,
    name: str,
    write: Callable[[Graph, Path], None],
    *,
    announced: str,
    options: Sequence[str] = (),
) -> Path:
    """A graph's file in the user's cache; written if it is not there.

    name: the file's but for the fingerprint, as "classifier.onnx". announced: what people are told
    who have to wait. options: all that decides about the file but the graph's weights, the code
    and torch.
    Raises WeightsError: the cache cannot be written; what `write` raises.
    """
    plain = cache_folder() / "engines" / name
    path = plain.with_stem(f"{plain.stem}-{_fingerprint(graph, options)}")
    if path.is_file():
        return path
    # A name of its own for each process: two may convert at once, the later rename wins.
    temporary = path.with_name(f"part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _announced(announced):
            write(graph, temporary)
        temporary.replace(path)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "set $XDG_CACHE_HOME to a folder that can"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file."""
    path.write_bytes(graph.onnx())


@contextlib.contextmanager
def _announced(told: str) -> Iterator[None]:
    """What is done within takes long: say so on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"pcnn: {told}", highlight=False)
    with console.status(f"pcnn: {told}") if console.is_terminal else contextlib.nullcontext():
        yield


def _fingerprint(graph: Graph, options: Sequence[str]) -> str:
    """A name for a graph's weights and shapes, the code that makes it, and torch's version."""
    digest = hashlib.sha256(repr(tuple(options)).encode())
    for example in graph.example:
        digest.update(str(tuple(example.shape)).encode())
    for name, values in graph.state_dict().items():
        digest.update(name.encode() + values.cpu().float().contiguous().numpy().tobytes())
    for source in _SOURCES:
        digest.update((Path(__file__).parent / source).read_bytes())
    digest.update(importlib.metadata.version("torch").encode())
    return digest.hexdigest()[:32]
