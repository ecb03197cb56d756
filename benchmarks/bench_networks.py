"""The networks as their authors run them against the prepared ones, and predict stage by stage.

    python benchmarks/bench_networks.py [--threads N] [--clock cpu] [--json FILE]

"Plain" is the definition of the paper run as it stands: float32, contiguous, eager, with batch
norms; of the detector it looks at the image whole, halved and quartered, as the detector did
before it was prepared. All of a table is timed in turn, round by round, so that a busy machine
slows all of it alike; medians are reported. With --clock cpu the time that this process ran, which
on a shared core is the fairer one, for one thread alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bench_predict import photograph
from shared import Stages, medians, processor, require_native
from torch import Tensor

import pcnn
from pcnn import Recognizer, load_image
from pcnn.engines.classifier import _Folded, prepare
from pcnn.engines.detector import PreparedRetinaFace
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import AlignedFaces
from pcnn.faces.resampling import resized
from pcnn.faces.views import cut_views
from pcnn.networks.retinaface import RetinaFace, load_state
from pcnn.weights.detector import DetectorSettings, normalise_images, read_detector
from pcnn.weights.expression import load_expression
from pcnn.weights.known import DEFAULT_WEIGHTS, SINGLE_WEIGHTS

# What the detector looks at in 640 × 480, filled to multiples of 32.
LEVELS = ((480, 640), (256, 320), (128, 160))


def main() -> int:
    """Measure and print; returns the exit status."""
    arguments = _parse()
    require_native()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    tables: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        # Before a detector is prepared, which has memory kept for all.
        alone = {f"{width} × {height}": _plain_network(height, width) for height, width in LEVELS}
        name = "detector's plain network, by itself"
        tables[name] = medians(alone, arguments.rounds, clock)
        for faces in arguments.faces:
            rounds = max(3, arguments.rounds // faces)
            name = f"{arguments.weights}, {faces} face{'s' if faces > 1 else ''}"
            tables[name] = medians(_classifier(arguments.weights, faces), rounds, clock)
        for height, width in LEVELS:
            stages = _detector_network(height, width)
            name = f"detector's network, {width} × {height}"
            tables[name] = medians(stages, arguments.rounds, clock)
    with tempfile.TemporaryDirectory() as folder:
        path = photograph(Path(folder))
        tables["a photograph of 640 × 480, one face"] = medians(
            _pipeline(path), arguments.rounds, clock
        )
        tables["the same of 4000 × 3000"] = medians(
            _large_photograph(path), arguments.rounds // 3, clock
        )
    record = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "clock": arguments.clock,
        "torch": torch.__version__,
        "pcnn": pcnn.__version__,
        "milliseconds": tables,
    }
    print(_as_text(record))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=SINGLE_WEIGHTS, help="of the classifier")
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, help="of the CPU (PyTorch's choice)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


def _classifier(weights: str, faces: int) -> Stages:
    network = load_expression(weights).network
    config = network.config
    numbers = torch.Generator().manual_seed(0)
    squares = torch.randn(faces, config.channels, config.size, config.size, generator=numbers)
    views = [view.contiguous() for view in network.cut(squares)]
    # The memory layout in which faces are cut out.
    last = [view.contiguous(memory_format=torch.channels_last) for view in views]
    folded, prepared = _Folded(network, torch.float32), prepare(network)
    return {
        "plain": lambda: network.forward_views(views),
        "norms folded, channels-last": lambda: folded.forward_views(last),
        "prepared": lambda: prepared.forward_views(last),
    }


def _plain_detector() -> tuple[RetinaFace, DetectorSettings]:
    state, settings = read_detector("mobilenet")
    return load_state(state, leak=settings.leak), settings


def _plain_network(height: int, width: int) -> Callable[[], object]:
    network, settings = _plain_detector()
    images = torch.rand(1, 3, height, width) * 255
    return lambda: network(normalise_images(images, settings))


def _detector_network(height: int, width: int) -> Stages:
    network, settings = _plain_detector()
    prepared = PreparedRetinaFace(
        network, channels=settings.channels, mean=settings.mean, std=settings.std
    )
    numbers = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (height, width, 3), generator=numbers, dtype=torch.uint8)
    images = pixels.permute(2, 0, 1)[None].float().contiguous()
    whole = (height, width) == LEVELS[0]
    return {
        "plain": lambda: network(normalise_images(images, settings)),
        "prepared": lambda: prepared(prepared.canvas([pixels], height, width), fine=whole),
    }


def _pipeline(path: Path) -> Stages:
    recognizer, detector = Recognizer(device="cpu"), Detector.load("mobilenet")
    image = load_image(path)
    loaded = load_expression(DEFAULT_WEIGHTS)
    config = loaded.network.config
    plain, settings = _plain_detector()
    (faces,) = detector.detect([image])
    points = [face.landmarks for face in faces]
    placed = AlignedFaces.of(points, loaded.template)
    options: dict[str, Any] = {
        "native_size": loaded.native_size,
        "names": loaded.network.views,
        "device": torch.device("cpu"),
    }
    views = cut_views([image], [placed], config, **options)
    prepared = prepare(loaded.network)
    levels = [torch.rand(1, 3, *size) * 255 for size in LEVELS]

    def look_plainly() -> list[Tensor]:
        return [plain(normalise_images(level, settings))[0] for level in levels]

    return {
        "detector's plain network, three levels": torch.inference_mode()(look_plainly),
        "read the file": lambda: load_image(path),
        "detect": lambda: detector.detect([image]),
        "cut the views": lambda: cut_views([image], [placed], config, **options),
        "classify": torch.inference_mode()(lambda: loaded.answer(prepared.forward_views, views)),
        "predict an array, all of it": lambda: recognizer.predict(image),
        "predict the file, all of it": lambda: recognizer.predict(path),
    }


def _large_photograph(path: Path) -> Stages:
    """The photograph enlarged to 12 megapixels, in which its face is 730 pixels wide."""
    recognizer = Recognizer(device="cpu")
    loaded = load_expression(DEFAULT_WEIGHTS)
    config = loaded.network.config
    image = resized(torch.from_numpy(load_image(path).copy()), (3000, 4000)).contiguous().numpy()
    points = [face.landmarks for face in recognizer.predict(image).faces]
    placed = AlignedFaces.of(points, loaded.template)
    options: dict[str, Any] = {
        "native_size": loaded.native_size,
        "names": loaded.network.views,
        "device": torch.device("cpu"),
    }

    def cut_whole() -> list[Tensor]:
        with mock.patch("pcnn.faces.views.shrink_face", lambda source, _: source):
            return cut_views([image], [placed], config, **options)

    return {
        "cut the views from the whole picture": cut_whole,
        "cut the views": lambda: cut_views([image], [placed], config, **options),
        "predict an array, all of it": lambda: recognizer.predict(image),
    }


def _as_text(record: dict[str, Any]) -> str:
    lines = [
        f"{record['processor']}, {record['threads']} threads, torch {record['torch']}, "
        f"{record['clock']} time, {record['date']}"
    ]
    for title, figures in record["milliseconds"].items():
        lines.append(f"\n{title:<42}{'ms':>10}{'ratio':>8}")
        first = next(iter(figures.values()))
        lines += [f"  {name:<40}{ms:>10.2f}{first / ms:>8.2f}" for name, ms in figures.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
