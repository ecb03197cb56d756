"""How small a face the detector finds. Figures of docs/performance.md.

    python benchmarks/small_faces.py [--count N] [--seed N] [--photographs FILE] [--json FILE]

Photographs of LFW with one face are reduced until the face's shorter side has so many pixels, and
laid side by side on frames of 1280 × 720, which the detector sees without another reduction.
Recall: the share of faces found (their boxes overlap by 0.4) with the score of a new face, and
with that of one that is followed. Landmarks: the mean error as a share of the distance of the eyes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from film_search import PHOTOGRAPHS, SIZE, overlap, read_people
from numpy.typing import NDArray
from PIL import Image

from pcnn.faces.detector import Detector
from pcnn.recognition.film_search import UNSURE

SIDES = (6, 8, 10, 12, 14, 16, 20, 24, 32, 48)
Array = NDArray[Any]


def mosaics(
    people: list[tuple[Any, ...]], side: int
) -> Iterator[tuple[Array, list[tuple[Array, Array]]]]:
    """Frames with the people's reduced photographs, and the true boxes and landmarks in each."""
    canvas, placed = Image.new("RGB", SIZE, (96, 104, 112)), []
    x = y = row = 0
    for picture, box, points in people:
        scale = side / min(box[2] - box[0], box[3] - box[1])
        small = picture.resize(
            (round(scale * picture.width), round(scale * picture.height)), Image.Resampling.LANCZOS
        )
        if x + small.width > SIZE[0]:
            x, y, row = 0, y + row, 0
        if y + small.height > SIZE[1]:
            yield np.asarray(canvas), placed
            canvas, placed = Image.new("RGB", SIZE, (96, 104, 112)), []
            x = y = row = 0
        canvas.paste(small, (x, y))
        placed.append((scale * box + (x, y, x, y), scale * points + (x, y)))
        x, row = x + small.width + 2, max(row, small.height + 2)
    yield np.asarray(canvas), placed


def measure(detector: Detector, people: list[tuple[Any, ...]], side: int) -> dict[str, float]:
    sure, seen, errors = [], [], []
    for image, placed in mosaics(people, side):
        found = detector.detect_upright([image], min_score=UNSURE)[0]
        for box, points in placed:
            best = max(found, key=lambda face: overlap(np.array(face.box), box), default=None)
            hit = best is not None and overlap(np.array(best.box), box) >= 0.4
            seen.append(hit)
            sure.append(hit and best is not None and best.score >= detector.settings.confidence)
            if hit and best is not None:
                eyes = float(np.linalg.norm(points[0] - points[1]))
                errors.append(np.linalg.norm(best.landmarks - points, axis=1).mean() / eyes)
    return {
        "side": side,
        "recall, new": round(float(np.mean(sure)), 3),
        "recall, followed": round(float(np.mean(seen)), 3),
        "landmarks": round(float(np.mean(errors)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    packaged = Detector.load("mobilenet")
    settings = dataclasses.replace(packaged.settings, max_side=max(SIZE))
    detector = Detector.load("mobilenet", settings=settings)
    people = read_people(arguments.photographs, packaged, arguments.count, arguments.seed)
    found = [measure(detector, people, side) for side in SIDES]
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
