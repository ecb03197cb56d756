"""Engines and exported files: what a face costs in each, what starting costs, what int8 costs.

    python benchmarks/bench_engines.py files times starts accuracy --files FOLDER
        [--threads N] [--data ../shared/data] [--json FILE]

files: exports the packaged networks, float32 and int8, into FOLDER (minutes, once).
times: in FOLDER's files, and in the engines, beside the authors' eager form and torch's prepared
    one; all in turn, round by round, so that a busy machine slows all alike; medians.
starts: making a Recognizer with each engine, without a cache of graphs and with it.
accuracy: FER+ valid by the int8 file, and what bfloat16 moves, on faces and on patterns.
Each part's figures replace its own in the JSON file; times are kept by number of threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from bench_networks import _plain_detector
from bench_predict import photograph
from shared import Stages, medians, processor, require_native
from torch import Tensor

from pcnn import Recognizer, load_image
from pcnn.commands import export as export_command
from pcnn.datasets.loading import load_faces
from pcnn.engines.classifier import prepare
from pcnn.engines.select import ENGINES, movement, prepare_classifier, prepare_detector
from pcnn.engines.sessions import Session, open_session
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.alignment import align_faces
from pcnn.faces.detector import Detector
from pcnn.weights.detector import normalise_images
from pcnn.weights.expression import load_expression
from pcnn.weights.known import DEFAULT_DETECTOR

OTHERS = ("openvino", "onnxruntime")
SIZE = 480, 640  # of the detector's files
PHOTOGRAPHS = 150
PARTS = ("files", "times", "starts", "accuracy")


def main() -> int:
    """Measure, print and note; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--files", type=Path, required=True, help="where exported files lie")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="note the figures in this file")
    arguments = parser.parse_args()
    require_native()
    torch.set_num_threads(arguments.threads)
    noted: dict[str, Any] = {}
    if arguments.json and arguments.json.is_file():
        noted = json.loads(arguments.json.read_text())
    noted |= {"processor": processor(), "torch": torch.__version__}
    if "files" in arguments.parts:
        noted["files"] = export_files(arguments.files, arguments.data)
    if "times" in arguments.parts:
        with torch.inference_mode():
            times = measure_times(arguments.files, arguments.rounds)
        noted.setdefault("milliseconds", {})[f"{arguments.threads} threads"] = times
    if "starts" in arguments.parts:
        noted["seconds to start, first and again"] = measure_starts()
    if "accuracy" in arguments.parts:
        noted["accuracy"] = measure_accuracy(arguments.files, arguments.data / "ferplus")
    text = json.dumps(noted, indent=1, ensure_ascii=False)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 0


def export_files(folder: Path, data: Path) -> dict[str, float]:
    """Write the files by `pcnn-export`; returns the seconds that each took."""
    folder.mkdir(parents=True, exist_ok=True)
    photographs = folder / "photographs"
    if not photographs.is_dir():
        with tarfile.open(data / "lfw" / "lfw_faces.tar") as archive:
            some = [member for member in archive if member.isfile()][: 4 * PHOTOGRAPHS : 4]
            archive.extractall(photographs, some, filter="data")
    size = f"{SIZE[1]}x{SIZE[0]}"
    int8 = ["--int8", "--calibrate"]
    commands = {
        "classifier.onnx": ["classifier"],
        "classifier.int8.onnx": ["classifier", *int8, str(data / "ferplus"), "--split", "train"],
        "detector.onnx": ["detector", "--size", size],
        "detector.int8.onnx": ["detector", "--size", size, *int8, str(photographs)],
    }
    seconds: dict[str, float] = {}
    for name, words in commands.items():
        began = time.perf_counter()
        if export_command.main([*words, "--output", str(folder / name)]):
            raise SystemExit(f"{name} was not written")
        seconds[name] = round(time.perf_counter() - began, 1)
    return seconds


def measure_times(files: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds by table and stage."""
    tables = {
        "classifier, 1 face": medians(_classifier(files, 1), rounds),
        "classifier, 8 faces": medians(_classifier(files, 8), max(3, rounds // 4)),
        f"detector, {SIZE[1]} × {SIZE[0]}": medians(_detector(files), max(3, rounds // 2)),
    }
    with tempfile.TemporaryDirectory() as folder:
        picture = load_image(photograph(Path(folder)))
    engines = {name: Recognizer(device="cpu", engine=name) for name in ENGINES}
    stages: Stages = {
        name: lambda own=own: own.predict(picture)  # type: ignore[misc]
        for name, own in engines.items()
    }
    tables["a photograph of 640 × 480, one face"] = medians(stages, max(3, rounds // 2))
    return {
        title: {name: round(value, 2) for name, value in times.items()}
        for title, times in tables.items()
    }


def measure_starts() -> dict[str, list[float]]:
    """Seconds of making a Recognizer twice, in a new cache, by engine."""
    seconds: dict[str, list[float]] = {}
    for engine in ENGINES:
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.dict(os.environ, XDG_CACHE_HOME=folder),
        ):
            for _ in range(2):
                began = time.perf_counter()
                Recognizer(device="cpu", engine=engine)
                seconds.setdefault(engine, []).append(round(time.perf_counter() - began, 1))
    return seconds


def _sessions(files: Path, kind: str) -> Iterator[tuple[str, Session]]:
    for engine in OTHERS:
        for name in (f"{kind}.onnx", f"{kind}.int8.onnx"):
            yield f"{engine}, {name}", open_session(files / name, engine)


def _classifier(files: Path, faces: int) -> Stages:
    loaded = load_expression("pcnn-ferplus-only")
    network, config = loaded.network, loaded.network.config
    numbers = torch.Generator().manual_seed(0)
    squares = torch.randn(faces, config.channels, config.size, config.size, generator=numbers)
    views = [view.contiguous() for view in network.cut(squares)]
    last = [view.contiguous(memory_format=torch.channels_last) for view in views]
    pixels = np.random.default_rng(0).integers(0, 256, (faces, 1, 48, 48), np.uint8)
    prepared = {name: prepare_classifier(loaded, name)[0] for name in ENGINES}
    stages: Stages = {"plain": lambda: network.forward_views(views)}
    if loaded.mirror:  # as the files read faces
        both = lambda: loaded.answer(network.forward_views, views)  # noqa: E731
        stages["plain, and mirrored"] = both
    for name, own in prepared.items():
        stages[name] = lambda own=own: own.forward_views(last)  # type: ignore[misc]
    for name, session in _sessions(files, "classifier"):
        stages[name] = lambda session=session: session({"face": pixels})  # type: ignore[misc]
    return stages


def _detector(files: Path) -> Stages:
    network, settings = _plain_detector()
    detector = Detector.load("mobilenet")
    numbers = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (*SIZE, 3), generator=numbers, dtype=torch.uint8)
    images = pixels.permute(2, 0, 1)[None].float().contiguous()
    planes = pixels.permute(2, 0, 1)[None].contiguous().numpy()
    stages: Stages = {"plain": lambda: network(normalise_images(images, settings))}
    for name in ("torch", *OTHERS):
        own = prepare_detector(detector.network, settings, name)
        stages[name] = lambda own=own: own(own.canvas([pixels], *SIZE))  # type: ignore[misc]
    for name, session in _sessions(files, "detector"):
        stages[name] = lambda session=session: session({"image": planes})  # type: ignore[misc]
    return stages


def measure_accuracy(files: Path, data: Path) -> dict[str, Any]:
    """FER+ valid by each form of the network, and what differs from float32."""
    loaded, faces = load_expression("pcnn-ferplus-only"), load_faces(data, "valid")
    if loaded.aligned:  # which files leave to others
        side, detector = loaded.native_size, Detector.load(DEFAULT_DETECTOR)
        pixels = align_faces(faces.faces, loaded.template, side, side, detector)
        faces = dataclasses.replace(faces, faces=pixels)
    labels = faces.votes.argmax(1)
    logits, _ = predict_logits(loaded.network, faces.faces, mirror=loaded.mirror)
    exact = (logits / loaded.temperature).softmax(1)

    def compared(found: Tensor) -> dict[str, float]:
        return {
            "accuracy": float((found.argmax(1) == labels).float().mean()),
            "same label": float((found.argmax(1) == exact.argmax(1)).float().mean()),
            "largest difference": float((found - exact).abs().max()),
            "mean difference": float((found - exact).abs().mean()),
        }

    table = {"faces": len(faces), "float32": compared(exact)}
    for name, session in _sessions(files, "classifier"):
        parts = [session({"face": some.numpy()}) for some in faces.faces[:, None].split(64)]
        table[name] = compared(torch.cat([torch.from_numpy(part["scores"]) for part in parts]))
    half = prepare(loaded.network, torch.bfloat16)
    loaded.network.forward_views = half.forward_views  # type: ignore[method-assign]
    some = faces.faces[:400]
    found, _ = predict_logits(loaded.network, some, mirror=loaded.mirror)
    moved = ((found / loaded.temperature).softmax(1) - exact[:400]).abs().max()
    plain = load_expression("pcnn-ferplus-only")
    table["bfloat16 moves"] = {"400 faces": float(moved), "patterns": movement(plain, half)}
    return table


if __name__ == "__main__":
    raise SystemExit(main())
