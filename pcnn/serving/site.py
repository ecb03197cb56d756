"""What the page needs besides its own files: networks for the browser, and what runs them.

The networks are made of any weights. The runtime, ONNX Runtime Web, is published on npm alone, so
it is fetched once, here; `pip install` of a checkout in which this has run takes it along.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from pcnn.disk import whole_file
from pcnn.engines.export import export
from pcnn.engines.export_graphs import AnchorsGraph, FaceGraph, FileGraph, LandmarksGraph
from pcnn.engines.portable import patterns
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.serving.pages import BUILT, PAGE
from pcnn.version import __version__
from pcnn.weights.expression import load_expression
from pcnn.weights.files import locate, sha256
from pcnn.weights.known import DEFAULT_DETECTOR, DEFAULT_LANDMARKS
from pcnn.weights.landmarks import load_landmarks

# The runtime, its files that the page loads, and what the largest of them must be.
RUNTIME = "onnxruntime-web@1.30.0"
_MODULE, _LOADER = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs"
_WASM = "ort-wasm-simd-threaded.wasm"
_WASM_SHA256 = "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
_SAMPLES, _ANY_SIZE = 8, (256, 320)


def build_site(folder: Path | None = None, *, weights: str | Path = "small") -> dict[str, Any]:
    """Build the page's networks and fetch its runtime; returns what is then in its manifest.

    folder: of the page; it becomes a site that any server of files can serve. None is the
        packaged page's own; another one gets a copy of the page.
    weights: of the classifier, a name or a file.
    Raises InputError: missing packages, no npm; WeightsError: a network cannot be exported.
    """
    if folder is None:
        folder = PAGE
    elif folder.resolve() != PAGE:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(BUILT))
    built = folder / BUILT
    if built.is_dir():
        shutil.rmtree(built)
    built.mkdir(parents=True)
    loaded, detector = load_expression(weights), Detector.load(DEFAULT_DETECTOR)
    faces = FaceGraph(loaded, loaded.network.config.size)
    side, channels = faces.side, loaded.network.config.channels
    images = AnchorsGraph(detector.network, detector.settings)
    points = LandmarksGraph(load_landmarks(DEFAULT_LANDMARKS))
    manifest = {
        "pcnn": __version__,
        "runtime": _fetch_runtime(built),
        "classifier": _write(faces, built, _pixels(channels, side, side), loaded.path),
        "detector": _write(
            images,
            built,
            _pixels(3, *_ANY_SIZE).permute(0, 2, 3, 1),
            locate(DEFAULT_DETECTOR, kind="detector"),
        ),
        "landmarks": _write(
            points, built, _pixels(1, points.side, points.side), points.weights.path
        ),
    }
    with whole_file(built / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def _pixels(channels: int, height: int, width: int) -> Any:
    made = patterns(_SAMPLES, channels, height, width)
    return (made * 64 + 128).clamp(0, 255).byte()


def _write(graph: FileGraph, built: Path, samples: Any, weights: Path) -> dict[str, Any]:
    """Export a graph under a name that changes with its content; its entry in the manifest."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "network.onnx"
        export(graph, path, samples=samples)
        content = path.read_bytes()
    name = f"{weights.stem}-{hashlib.sha256(content).hexdigest()[:12]}.onnx"
    entry = _place(content, built / name, packed=True)
    return {**entry, "weights_sha256": sha256(weights), **graph.metadata}


def _fetch_runtime(built: Path) -> dict[str, Any]:
    """The runtime's files in a folder named by its version; their entry in the manifest."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"build_site: npm must be installed, to fetch {RUNTIME}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", RUNTIME]
        done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, check=False)
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise InputError(f"build_site: npm could not fetch {RUNTIME}: {done.stderr.strip()}")
        folder = built / RUNTIME.replace("@", "-")
        folder.mkdir()
        entries = {}
        with tarfile.open(archives[0]) as archive:
            for key, name in (("module", _MODULE), ("loader", _LOADER), ("wasm", _WASM)):
                member = archive.extractfile(f"package/dist/{name}")
                if member is None:
                    raise InputError(f"build_site: {RUNTIME} has no {name}")
                content = member.read()
                if name == _WASM and hashlib.sha256(content).hexdigest() != _WASM_SHA256:
                    raise InputError(f"build_site: {name} of {RUNTIME} is not the expected one")
                entries[key] = _place(content, folder / name, packed=name == _WASM)
    return entries


def _place(content: bytes, target: Path, *, packed: bool) -> dict[str, Any]:
    """Write a file of the site; its entry in the manifest.

    packed: True writes it packed by gzip, with `.gz` after its name, for the page to unpack. So it
        is as small from a server that packs nothing.
    """
    sent = gzip.compress(content, 9, mtime=0) if packed else content
    target = target.with_name(f"{target.name}.gz") if packed else target
    target.write_bytes(sent)
    name = target.relative_to(next(p for p in target.parents if p.name == BUILT)).as_posix()
    return {"file": f"{BUILT}/{name}", "bytes": len(sent), "unpacked_bytes": len(content)}
