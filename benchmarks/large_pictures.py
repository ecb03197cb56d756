"""How many small faces of large pictures are found, and how long that takes.

    python benchmarks/large_pictures.py --photographs lfw_faces.tar [--threads 2]

Forty photographs of lfw lie reduced on a grey picture of 6000 × 4000. Their faces are about 0.38
of their side wide. Bystanders are found, too. The tiles of 1000 × 1000 pixels, each searched alone,
say what there is to find; they cut some faces.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from hard_pictures import read_sample
from PIL import Image
from shared import Array

from pcnn.faces.detector import Detector

SIZE = (4000, 6000)
SIDES = (400, 250, 200, 160, 125, 100)
FACE = 0.38  # of a photograph's side
TILE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    detector = Detector.load("mobilenet")
    photographs = read_sample(arguments.photographs, count=40)
    print("| faces, pixels | found | ms | with min_face | ms | in tiles |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        wall = _wall(photographs, side)
        found, ms = _timed(detector, [wall])
        asked, asked_ms = _timed(detector, [wall], FACE * side / 1.25)
        tiles, _ = _timed(detector, _tiles(wall))
        print(f"| {FACE * side:.0f} | {found} | {ms:.0f} | {asked} | {asked_ms:.0f} | {tiles} |")
    for name, wall in (("no face", _wall([], 1)), ("a large face", _wall(photographs[:1], 2000))):
        found, ms = _timed(detector, [wall])
        print(f"{name}: {found} found, {ms:.0f} ms")


def _wall(photographs: list[Image.Image], side: int) -> Array:
    """The photographs with this side, ten in a row."""
    wall = np.full((*SIZE, 3), 120, np.uint8)
    for number, photograph in enumerate(photographs):
        y, x = 200 + number // 10 * 900, 100 + number % 10 * 580
        wall[y : y + side, x : x + side] = np.asarray(photograph.resize((side, side)))
    return wall


def _tiles(wall: Array) -> list[Array]:
    height, width = SIZE
    return [
        np.ascontiguousarray(wall[top : top + TILE, left : left + TILE])
        for top in range(0, height, TILE)
        for left in range(0, width, TILE)
    ]


def _timed(
    detector: Detector, images: list[Array], min_face: float | None = None
) -> tuple[int, float]:
    """The number of faces, and the milliseconds of the quicker of two searches."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        found = detector.detect(images, min_face=min_face)
        times.append(1000 * (time.perf_counter() - began))
    return sum(map(len, found)), min(times)


if __name__ == "__main__":
    main()
