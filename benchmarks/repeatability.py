"""How far a detector's landmarks move when the photograph is moved, mirrored or resized.

    python benchmarks/repeatability.py --photographs lfw_faces.tar [--detector NAME_OR_PATH]

A measure of the noise in the landmarks themselves: the mean distance between those of a
photograph and those of its changed copy, carried back, as a share of the eye distance.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcnn import load_image
from pcnn.faces.detector import Detector
from pcnn.training.photographs import is_held_out

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
_MIRRORED = (1, 0, 2, 4, 3)


def _resized(pixels: Pixels, scale: float) -> Pixels:
    height, width = pixels.shape[:2]
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


# Name → the change, and what carries points of the changed copy back into the photograph.
_CHANGES: dict[str, tuple[Callable[[Pixels], Pixels], Callable[[Points, int], Points]]] = {
    "moved by 4 pixels": (
        lambda pixels: np.pad(pixels, ((4, 0), (4, 0), (0, 0)), mode="edge"),
        lambda points, _: points - 4,
    ),
    "mirrored": (
        lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
        lambda points, width: (np.array([width, 0]) + points * (-1, 1))[list(_MIRRORED)],
    ),
    "resized by 0.8": (lambda pixels: _resized(pixels, 0.8), lambda points, _: points / 0.8),
    "resized by 1.3": (lambda pixels: _resized(pixels, 1.3), lambda points, _: points / 1.3),
}


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--detector", default="mobilenet")
    parser.add_argument("--count", type=int, default=150)
    arguments = parser.parse_args()
    detector = Detector.load(arguments.detector)
    with tarfile.open(arguments.photographs) as archive:
        names = sorted(name for name in archive.getnames() if is_held_out(name))
        photographs = [
            load_image(archive.extractfile(name).read()) for name in names[: arguments.count]
        ]
    for name, (change, back) in _CHANGES.items():
        moved = []
        for pixels in photographs:
            (faces,), (changed,) = (
                detector.detect([pixels]),
                detector.detect([np.ascontiguousarray(change(pixels))]),
            )
            if not faces or not changed:
                continue
            points = faces[0].landmarks.astype(np.float64)
            eyes = float(np.linalg.norm(points[1] - points[0]))
            returned = [
                back(face.landmarks.astype(np.float64), pixels.shape[1]) for face in changed
            ]
            moved.append(min(_distance(points, other) for other in returned) / eyes)
        print(f"{name:<20} {100 * np.mean(moved):5.2f} % of the eye distance, {len(moved)} faces")
    return 0


def _distance(one: Points, other: Points) -> float:
    return float(np.linalg.norm(one - other, axis=1).mean())


if __name__ == "__main__":
    raise SystemExit(main())
