"""Frames a second of a film, by stage, and memory. Figures of docs/performance.md.

    python benchmarks/bench_video.py [--weights NAME ...] [--frames N] [--long N]
                                     [--photographs FILE] [--json FILE]

Stages are processor time, so that a machine that others use, too, tells as much as an idle one;
"frames a second" is by the clock, and tells how busy it was.
The film: 1280 × 720, 30 frames a second, two people of LFW who move slowly, H.264. Stages are timed
on frames at hand, one after another; `predict_video` is the whole, which reads and computes side by
side. "search" is that of `predict_video`: near tracks, and of the whole frame three times a second;
"whole frames" searches the whole of each, "photographs" that without a least side of faces.
Memory is the process's resident set after N frames and after --long times as many.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from pcnn import Recognizer
from pcnn.recognition.batches import Picture
from pcnn.recognition.film_search import SEARCH_EVERY_S, FilmSearch
from pcnn.video.annotation import Annotator
from pcnn.video.decoding import DecodedFrame, FilmReader

PHOTOGRAPHS = Path(__file__).parent.parent.parent / "shared" / "data" / "lfw" / "lfw_faces.tar"
SIZE, RATE = (1280, 720), 30


def write_film(path: Path, photographs: Path, count: int) -> None:
    """A film of `count` frames."""
    people = []
    with tarfile.open(photographs) as archive:
        for name in ("Aaron_Eckhart_0001.jpg", "AJ_Cook_0001.jpg"):
            content = archive.extractfile(name)
            assert content is not None
            people.append(Image.open(io.BytesIO(content.read())).resize((300, 300)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            canvas = Image.new("RGB", SIZE, (96, 104, 112))
            sway = round(100 * np.sin(number / 40))
            canvas.paste(people[0], (150 + sway, 200))
            canvas.paste(people[1], (800 - sway, 220))
            container.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        container.mux(stream.encode(None))


def resident_mb() -> float:
    """The process's resident set (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def milliseconds(count: int, work: Callable[[], object]) -> float:
    """Of all processors, for each of `count` frames that `work` does together."""
    began = time.process_time()
    work()
    return round(1000 * (time.process_time() - began) / count, 2)


def last(items: Iterable[Any]) -> Any:
    item = None
    for item in items:  # noqa: B007
        pass
    return item


def search(recognizer: Recognizer, frames: list[DecodedFrame], every: float) -> None:
    """Find and track the people in frames."""
    people = FilmSearch(recognizer.finder, sure=recognizer.finder.confidence, every=every)
    for frame in frames:
        people.update(frame)


def measure(weights: str, film: Path, count: int, long: int) -> dict[str, Any]:
    """Milliseconds of processor time a frame by stage and as a whole, frames a second, memory."""
    recognizer = Recognizer(weights)
    last(recognizer.predict_video(film, end=0.5))  # warm
    frames = list(FilmReader(film, end=count / RATE))
    pictures = [Picture(frame.pixels, False, "frame") for frame in frames]
    found, transforms = recognizer.finder.find(pictures)
    read = list(recognizer.predict_video(film, end=count / RATE, keep_pixels=True))
    annotator = Annotator(recognizer.classes)
    began, busy = time.perf_counter(), time.process_time()
    last(recognizer.predict_video(film, end=count / RATE))
    whole, busy = time.perf_counter() - began, time.process_time() - busy
    after, figures = resident_mb(), {
        "frames": len(frames),
        "faces a frame": sum(map(len, found)) / len(found),
        "decode": milliseconds(count, lambda: last(FilmReader(film, end=count / RATE))),
        "search": milliseconds(count, lambda: search(recognizer, frames, SEARCH_EVERY_S)),
        "whole frames": milliseconds(count, lambda: search(recognizer, frames, 0)),
        "photographs": milliseconds(count, lambda: recognizer.finder.find(pictures)),
        "read": milliseconds(count, lambda: recognizer.reader.expressions(pictures, transforms)),
        "draw": milliseconds(count, lambda: [annotator.draw(f, f.pixels) for f in read]),
        "whole": round(1000 * busy / len(frames), 2),
        "frames a second": round(len(frames) / whole, 1),
    }  # fmt: skip
    last(recognizer.predict_video(film, end=long * count / RATE))
    memory = {"memory, MB": round(after), f"after {long} times": round(resident_mb())}
    return {"weights": weights, "threads": torch.get_num_threads()} | figures | memory


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--weights", nargs="+", default=["small", "pcnn-ferplus"])
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--long", type=int, default=5)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, arguments.photographs, arguments.long * arguments.frames)
        found = [
            measure(name, film, arguments.frames, arguments.long) for name in arguments.weights
        ]
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
