"""Many mixed photographs: what reaches the caller a second, against what the stages could give.

    python benchmarks/bench_stream.py --photographs lfw_faces.tar [--count N] [--json FILE]

The photographs are those of the archive (250 × 250, one face or two), every second one enlarged to
640 × 480, 1600 × 1200 or 4000 × 3000, as JPEG files of quality 90. Each stage (read, detect,
recognise) is measured by itself at its best: on all cores, by as many threads as the stream has,
in batches as large; the stages' sum is what a photograph must cost at least. The stream, the
list and one picture after another are then timed in turn, over the same photographs, and the
largest memory is read after each quarter of the stream.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from shared import require_native

from pcnn import Recognizer
from pcnn.recognition.batches import Picture
from pcnn.recognition.threads import in_order, worker_count

SIZES = ((250, 250), (640, 480), (250, 250), (1600, 1200), (250, 250), (4000, 3000))
ROUNDS = 3
_Item = TypeVar("_Item")


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="a tar of JPEG files")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--timed", type=int, default=96, help="how many of them are timed")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    require_native()
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(arguments.photographs, Path(folder), arguments.count)
        recognizer = Recognizer(device="cpu")
        memory = stream_memory(recognizer, paths)
        few = paths[: min(len(paths), arguments.timed)]
        stages, whole = throughput(recognizer, few)
    figures = {
        **{f"{name} (ms a photograph)": value for name, value in stages.items()},
        "sum of the stages (ms)": sum(stages.values()),
        **{f"{name} (ms a photograph)": value for name, value in whole.items()},
        "stages' sum / stream": sum(stages.values()) / whole["stream"],
        "one by one / stream": whole["one by one"] / whole["stream"],
        **{f"largest memory after {name} (MB)": value for name, value in memory.items()},
    }
    print(f"{len(paths)} photographs, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, value in figures.items():
        print(f"{name:<44}{value:>10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def photographs(archive: Path, folder: Path, count: int) -> list[Path]:
    """Files of mixed sizes, made of the archive's photographs."""
    paths = []
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.name.endswith(".jpg"))
        sizes = itertools.cycle(SIZES)
        for member, size in zip(itertools.islice(members, count), sizes, strict=False):
            stream = tar.extractfile(member)
            assert stream is not None
            picture = Image.open(io.BytesIO(stream.read())).resize(size, Image.Resampling.BICUBIC)
            paths.append(folder / f"{len(paths):05d}.jpg")
            picture.save(paths[-1], quality=90)
    return paths


def stream_memory(recognizer: Recognizer, paths: list[Path]) -> dict[str, float]:
    """The largest memory of this process (MB) after each quarter of a stream of all files."""
    memory = {}
    results = recognizer.predict(iter(paths))
    for quarter in range(4):
        start, end = (len(paths) * part // 4 for part in (quarter, quarter + 1))
        for _ in itertools.islice(results, end - start):
            pass
        memory[f"{end}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return memory


def throughput(
    recognizer: Recognizer, paths: list[Path]
) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds a photograph: of each stage, and of three ways to have all of it."""
    pictures = [Picture(path, bgr=False, name="") for path in paths]
    batches = _batches(pictures, recognizer.batch_size)
    found = {id(batch[0]): recognizer.finder.find(batch)[1] for batch in batches}

    def read(batch: list[Path]) -> None:
        for path in batch:
            Picture(path, bgr=False, name="")

    def detect(batch: list[Picture]) -> None:
        recognizer.finder.find(batch)

    def recognise(batch: list[Picture]) -> None:
        recognizer.reader.expressions(batch, found[id(batch[0])])

    files = _batches(paths, recognizer.batch_size)
    stages: dict[str, Callable[[], object]] = {
        "read": lambda: _side_by_side(files, read),
        "detect": lambda: _side_by_side(batches, detect),
        "recognise": lambda: _side_by_side(batches, recognise),
    }
    whole: dict[str, Callable[[], object]] = {
        "stream": lambda: list(recognizer.predict(iter(paths))),
        "list": lambda: recognizer.predict(paths),
        "one by one": lambda: [recognizer.predict(path) for path in paths],
    }
    times: dict[str, list[float]] = {name: [] for name in (*stages, *whole)}
    for _ in range(ROUNDS):
        for name, stage in {**stages, **whole}.items():
            began = time.perf_counter()
            stage()
            times[name].append(1000 * (time.perf_counter() - began) / len(paths))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: medians[name] for name in stages}, {name: medians[name] for name in whole}


def _batches(items: list[_Item], size: int) -> list[list[_Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _side_by_side(batches: list[list[_Item]], work: Callable[[list[_Item]], None]) -> None:
    for _ in in_order(batches, work, workers=worker_count(torch.device("cpu"))):
        pass


if __name__ == "__main__":
    raise SystemExit(main())
