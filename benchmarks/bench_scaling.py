"""How the cost grows with the faces of a pass and with the pixels of a photograph, and its floors.

    python benchmarks/bench_scaling.py [--threads N] [--json FILE] [--page FILE] [--picture FILE]

The classifier with 1 to 64 faces: the authors' definition as they run it, the prepared one, and in
the engines that are installed; beside the least that the arithmetic and the memory allow, by what
a large matrix product and a plain copy reach in the same run. Photographs of 0.3 to 24
megapixels with one face: stage by stage. All of a row is timed in turn, round by round; medians.
Writes the figures as JSON, tables into the page, and milliseconds a face against faces as a
picture. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_predict import photograph
from matplotlib.figure import Figure
from PIL import Image
from shared import Stages, medians, processor, put_into_page, require_native

from pcnn import InputError, Recognizer, load_image
from pcnn.engines.select import prepare_classifier
from pcnn.evaluation.cost import measure_cost
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import AlignedFaces
from pcnn.faces.views import cut_views
from pcnn.weights.expression import load_expression
from pcnn.weights.known import DEFAULT_WEIGHTS

ROOT = Path(__file__).parent.parent
FACES = (1, 2, 4, 8, 16, 32, 64)
SIZES = ((640, 480), (1280, 960), (2560, 1920), (4000, 3000), (5656, 4242))
SQUARE = 1536  # side of the matrices whose product is timed
COPIED = 2**26  # numbers of 4 bytes that are copied


def main() -> int:
    """Measure, print, write; returns the exit status."""
    arguments = _arguments()
    require_native()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        rates = _rates()
        faces = {str(count): _faces(count, max(3, arguments.rounds // count)) for count in FACES}
    record = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rates": rates,
        "floors": _floors(rates),
        "faces": faces,
        "photographs": _photographs(max(3, arguments.rounds // 4)),
    }
    arguments.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _draw(record, arguments.picture)
    text = _tables(record)
    print(text)
    put_into_page(arguments.page, text, "<!-- benchmarks/bench_scaling.py -->", "<!-- end -->")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--threads", type=int, help="of the CPU (PyTorch's choice)")
    add("--rounds", type=int, default=24)
    add("--json", type=Path, default=ROOT / "benchmarks" / "scaling.json")
    add("--page", type=Path, default=ROOT / "docs" / "performance.md")
    add("--picture", type=Path, default=ROOT / "docs" / "images" / "performance-faces.png")
    return parser.parse_args()


# --- floors ---


def _rates() -> dict[str, float]:
    """What this machine reaches at best: multiplications with addition, and bytes, a second."""
    one, other = torch.rand(SQUARE, SQUARE), torch.rand(SQUARE, SQUARE)
    source, target = torch.rand(COPIED), torch.empty(COPIED)
    stages: Stages = {"product": lambda: one @ other, "copy": lambda: target.copy_(source)}
    seconds = {name: each / 1000 for name, each in medians(stages, 9).items()}
    return {
        "macs": SQUARE**3 / seconds["product"],
        "bytes": 2 * 4 * COPIED / seconds["copy"],  # read and written
    }


def _floors(rates: dict[str, float]) -> dict[str, float]:
    """Milliseconds that a face's arithmetic takes at that rate, and the reading of the weights."""
    cost = measure_cost(load_expression(DEFAULT_WEIGHTS).network, runs=0)
    return {
        "macs": cost.macs,
        "parameters": cost.parameters,
        "arithmetic": 1000 * cost.macs / rates["macs"],
        "weights": 1000 * 4 * cost.parameters / rates["bytes"],
    }


# --- what is measured ---


def _faces(count: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a pass of so many faces, from views to logits, by what computes it."""
    loaded = load_expression(DEFAULT_WEIGHTS)
    network, config = loaded.network, loaded.network.config
    numbers = torch.Generator().manual_seed(0)
    squares = torch.randn(count, config.channels, config.size, config.size, generator=numbers)
    views = [view.contiguous() for view in network.cut(squares)]
    last = [view.contiguous(memory_format=torch.channels_last) for view in views]
    stages: Stages = {"authors' form": lambda: network.forward_views(views)}
    for engine in ("torch", "openvino", "onnxruntime"):
        try:
            own, _ = prepare_classifier(loaded, engine)
        except InputError:  # not installed
            continue
        stages[engine] = lambda own=own: own.forward_views(last)  # type: ignore[misc]
    return medians(stages, rounds)


def _photographs(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each stage of a JPEG's way, by its width × height."""
    recognizer, detector = Recognizer(device="cpu"), Detector.load("mobilenet")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        original = photograph(Path(folder))
        for size in SIZES:
            path = Path(folder) / f"{size[0]}.jpg"
            with Image.open(original) as picture:
                picture.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
            stages = _stages(path, recognizer, detector)
            found[f"{size[0]} × {size[1]}"] = medians(stages, rounds)
    return found


def _stages(path: Path, recognizer: Recognizer, detector: Detector) -> Stages:
    loaded = load_expression(DEFAULT_WEIGHTS)
    config = loaded.network.config
    image = load_image(path)
    (faces,) = detector.detect([image])
    if len(faces) != 1:
        raise SystemExit(f"{path.name} shows {len(faces)} faces, not one")
    placed = AlignedFaces.of([faces[0].landmarks], loaded.template)
    options: dict[str, Any] = {
        "native_size": loaded.native_size,
        "device": torch.device("cpu"),
        "names": loaded.network.views,
    }
    views = cut_views([image], [placed], config, **options)
    prepared, _ = prepare_classifier(loaded, "torch")
    answer = torch.inference_mode()(lambda: loaded.answer(prepared.forward_views, views))
    return {
        "read": lambda: load_image(path),
        "detect": lambda: detector.detect([image]),
        "cut": lambda: cut_views([image], [placed], config, **options),
        "classify": answer,
        "predict": lambda: recognizer.predict(path),
    }


# --- tables and the picture ---


def _tables(record: dict[str, Any]) -> str:
    rates, floors = record["rates"], record["floors"]
    names = list(record["faces"]["1"])
    lines = [
        f"{record['processor']}, {record['threads']} threads, torch {record['torch']}, "
        f"{record['date']}. A product of two {SQUARE} × {SQUARE} matrices reaches "
        f"{rates['macs'] / 1e9:.0f} billion multiplications with addition a second, a plain copy "
        f"{rates['bytes'] / 1e9:.1f} GB a second. At that a face, {floors['macs'] / 1e6:.0f} "
        f"million of them, takes at least {floors['arithmetic']:.1f} ms, and to read the "
        f"{floors['parameters'] / 1e6:.1f} million weights {floors['weights']:.1f} ms a pass.",
        "",
        "Milliseconds a face, in brackets the ratio to the authors' form:",
        "",
        "| faces in a pass | " + " | ".join(names) + " | share of the floor, torch |",
        "|---" * (len(names) + 2) + "|",
    ]
    for count, times in record["faces"].items():
        each = {name: value / int(count) for name, value in times.items()}
        first = each[names[0]]
        cells = [f"{first:.1f}"]
        cells += [f"{each[name]:.1f} ({first / each[name]:.1f}×)" for name in names[1:]]
        # The two may overlap: the larger one is the floor.
        floor = max(floors["arithmetic"], floors["weights"] / int(count))
        lines.append(f"| {count} | " + " | ".join(cells) + f" | {floor / each['torch']:.0%} |")
    lines += ["", "A JPEG with one face, milliseconds:", ""]
    stages = list(next(iter(record["photographs"].values())))
    lines += ["| photograph | " + " | ".join(stages) + " |", "|---" * (len(stages) + 1) + "|"]
    for size, times in record["photographs"].items():
        lines.append(f"| {size} | " + " | ".join(f"{times[name]:.1f}" for name in stages) + " |")
    return "\n".join(lines)


def _draw(record: dict[str, Any], path: Path) -> None:
    """Milliseconds a face against the faces of a pass, and the floor."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    counts = [int(count) for count in record["faces"]]
    for name in record["faces"]["1"]:
        times = [record["faces"][str(count)][name] / count for count in counts]
        axes.plot(counts, times, marker="o", markersize=4, label=name)
    floor = record["floors"]["arithmetic"]
    axes.axhline(floor, color="grey", linestyle="--", linewidth=1, label="arithmetic alone")
    axes.set(xscale="log", yscale="log", xlabel="faces in a pass", ylabel="milliseconds a face")
    axes.set_xticks(counts, [str(count) for count in counts], minor=False)
    axes.minorticks_off()
    ticks = [1, 2, 5, 10, 20, 50]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
