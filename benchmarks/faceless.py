"""How often the detector reports a face where there is none.

    python benchmarks/faceless.py --photographs lfw_faces.tar [--json FILE] [--page docs/results.md]

Photographs of lfw whose faces, also doubtful ones, are painted over with a colour, as they are and
over-exposed four times; white pages with text and drawings; noise, fine and coarse.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hard_pictures import read_sample
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shared import keep, require_native

from pcnn.faces.detector import Detector
from pcnn.weights.known import DEFAULT_DETECTOR

_DOUBTFUL = 0.1  # faces of a lower score are not painted over
_OVER_EXPOSED = 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> int:
    """Count, print, write."""
    arguments = _parse()
    require_native()
    torch.set_num_threads(arguments.threads)
    detector, chance = Detector.load(DEFAULT_DETECTOR), np.random.default_rng(0)
    painted = _painted(detector, arguments.photographs, arguments.count, chance)
    bright = [(_OVER_EXPOSED * own.astype(int)).clip(0, 255).astype(np.uint8) for own in painted]
    kinds: dict[str, list[NDArray[np.uint8]]] = {
        "photographs with painted faces": painted,
        f"the same, over-exposed, {_OVER_EXPOSED} ×": bright,
        "pages of text and drawings": [_page(chance, number) for number in range(60)],
        "noise": [_noise(chance, 8 if number % 3 else 1) for number in range(60)],
    }
    record = {}
    for kind, pictures in kinds.items():
        scores = [max(face.score for face in faces) for faces in detector.detect(pictures) if faces]
        record[kind] = {"of": len(pictures), "with_faces": len(scores), "scores": scores}
    lines = [
        "| pictures without faces | of | with a face reported | its score |",
        "|---|---|---|---|",
    ]
    for kind, own in record.items():
        scores = ", ".join(f"{score:.2f}" for score in own["scores"])
        lines.append(f"| {kind} | {own['of']} | {own['with_faces']} | {scores} |")
    text = "\n".join(lines)
    print(text)
    keep(record, text, "faceless", json_to=arguments.json, page=arguments.page)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--photographs", type=Path, required=True, help="tar of JPEG files")
    add("--count", type=int, default=200, help="photographs [%(default)s]")
    add("--threads", type=int, default=1)
    add("--json", type=Path, help="write the figures to this file as well")
    add("--page", type=Path, help="put the table where this page is marked")
    return parser.parse_args()


def _painted(
    detector: Detector, archive: Path, count: int, chance: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Photographs, with twice the box of each face filled with a colour."""
    pictures = [np.array(own) for own in read_sample(archive, count=count, seed=9)]
    for picture, faces in zip(
        pictures, detector.detect_upright(pictures, min_score=_DOUBTFUL), strict=True
    ):
        for face in faces:
            left, top, right, bottom = (round(edge) for edge in face.box)
            wide, high = (right - left) // 2, (bottom - top) // 2
            rows = slice(max(0, top - high), bottom + high)
            picture[rows, max(0, left - wide) : right + wide] = chance.integers(0, 256, 3)
    return pictures


def _page(chance: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """A white page with lines of random words; every second one with circles, some coloured."""
    page = Image.new("RGB", (600, 800), "white")
    pen = ImageDraw.Draw(page)
    pick: Callable[..., NDArray[np.int64]] = chance.integers
    for line in range(20, 780, 16 + number % 9):
        words = ("".join(_LETTERS[i] for i in pick(0, 26, pick(2, 9))) for _ in range(12))
        pen.text((20, line), " ".join(words), fill="black")
    for _ in range(12 if number % 2 else 0):
        (x, y), side = pick(0, 500, 2).tolist(), int(pick(10, 100))
        fill = tuple(pick(0, 256, 3).tolist()) if number % 4 == 1 else None
        pen.ellipse((x, y, x + side, y + side), outline="black", fill=fill)
    return np.asarray(page)


def _noise(chance: np.random.Generator, grain: int) -> NDArray[np.uint8]:
    """Noise in three channels, in squares of `grain` pixels."""
    levels = chance.integers(0, 256, (240 // grain, 320 // grain, 3), dtype=np.uint8)
    return levels.repeat(grain, 0).repeat(grain, 1)


if __name__ == "__main__":
    sys.exit(main())
