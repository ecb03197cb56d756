"""How surely the detector knows from an image whether to look at its halves.

    python benchmarks/hints.py --photographs lfw_faces.tar [--count 60]

Held-out photographs are enlarged so that faces fill a tenth to all of 640 × 480 pixels, and turned,
darkened, half covered or blurred. Each is looked at in all its halves, and only where there is a
hint; the faces found are compared, and the hints listed by how strong they were.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pcnn.faces import detector as module
from pcnn.faces.detector import Detector
from pcnn.faces.levels import shorter_side
from pcnn.faces.resampling import resized
from pcnn.networks.boxes import box_overlaps
from pcnn.results.values import Detection
from pcnn.training.photographs import is_held_out

SIZES = ((640, 480), (480, 640), (640, 640), (1280, 960))


def main() -> int:
    """Print what was compared; returns 1 where faces were lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60, help="of photographs")
    arguments = parser.parse_args()
    detector = Detector.load("mobilenet")
    images = faces = lost = extra = looks = 0
    weakest: list[float] = []
    for number, picture in enumerate(_photographs(arguments.photographs, arguments.count)):
        for image in _variants(picture, number):
            with mock.patch.object(module, "HINT_SIDE", -np.inf):
                expected = detector.detect_upright([image])[0]
            found = detector.detect_upright([image])[0]
            hints = _hints(detector, image, expected)
            images, faces, looks = images + 1, faces + len(expected), looks + len(hints)
            weakest += hints
            lost += _missing(expected, found)
            extra += _missing(found, expected)
    print(f"{images} images, {faces} faces in all their halves: {lost} lost, {extra} new by hints")
    print(f"{looks} times a halved image had a face that counts; the best hints then:")
    print("  least " + ", ".join(f"{score:.3f}" for score in sorted(weakest)[:5]))
    return int(lost > 0)


def _hints(
    detector: Detector, image: NDArray[np.uint8], faces: tuple[Detection, ...]
) -> list[float]:
    """The best score of a large candidate at each level after which a larger face is reported."""
    trusted = detector.settings.trusted_side or 0
    sides = detector.levels(image.shape)
    source, scores = detector.on_device(image), []
    for side in sides[:-1]:
        size = module.network_size(image.shape, side)
        scale = image.shape[1] / size[1]
        scaled = module.ScaledImage(resized(source, size), (scale, scale), True)
        ((candidates, _),) = detector.search_once([scaled], 0.01)
        beyond = module.TRUSTED_RANGE[1] * trusted * scale
        if any(shorter_side(face) >= beyond for face in faces):
            large = [
                face.score
                for face in candidates
                if shorter_side(face) / scale >= module.HINT_SIDE * trusted
            ]
            scores.append(max(large, default=0.0))
    return scores


def _missing(expected: tuple[Detection, ...], found: tuple[Detection, ...]) -> int:
    if not expected or not found:
        return len(expected)
    one, other = (torch.tensor([face.box for face in faces]) for faces in (expected, found))
    return int((box_overlaps(one, other).amax(1) < 0.5).sum())


def _photographs(path: Path, count: int) -> Iterator[Image.Image]:
    with tarfile.open(path) as archive:
        names = [name for name in sorted(archive.getnames()) if name.endswith(".jpg")]
        for name in [name for name in names if is_held_out(name)][:count]:
            yield Image.open(io.BytesIO(archive.extractfile(name).read())).convert("RGB")  # type: ignore[union-attr]


def _variants(picture: Image.Image, number: int) -> Iterator[NDArray[np.uint8]]:
    """The photograph at three sizes of its face, and once turned and spoilt."""
    random = np.random.default_rng(number)
    width, height = SIZES[number % 4]
    for zoom in (0.6, 1.2, 2.4):
        yield np.asarray(_zoomed(picture, zoom * random.uniform(0.8, 1.25), (width, height)))
    turned = picture.rotate(random.uniform(-40, 40), Image.Resampling.BILINEAR)
    image = _zoomed(turned, random.uniform(1, 2.6), (width, height))
    kind = number // 4 % 4
    if kind == 0:
        image = image.filter(ImageFilter.GaussianBlur(6)).convert("L").convert("RGB")
    spoilt = np.array(image)
    if kind == 1:
        spoilt //= 4
    if kind == 2:
        spoilt[:, : width // 2] = random.integers(0, 256, 3)
    if kind == 3:
        spoilt[height // 2 :] = random.integers(0, 256, 3)
    yield spoilt


def _zoomed(picture: Image.Image, zoom: float, size: tuple[int, int]) -> Image.Image:
    """The middle of a photograph, its shorter side's 1 / zoom filling the size's shorter one."""
    scale = min(picture.size) / zoom / min(size)
    across, down = scale * size[0], scale * size[1]
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    box = left, top, left + across, top + down
    return picture.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)


if __name__ == "__main__":
    raise SystemExit(main())
