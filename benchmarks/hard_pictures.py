"""What becomes of photographs that are turned, badly lit, cut or blown up.

    python benchmarks/hard_pictures.py --photographs lfw_faces.tar [--json FILE] [--page FILE]
    python benchmarks/hard_pictures.py --photographs lfw_faces.tar --light 400

The second command takes so many photographs and changes only their light. The label of the
photograph as it is counts as the right one, its landmarks, moved along, as the right places. The
photographs are `random.Random(1).sample(sorted(names), 60)` of the archive.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from shared import Array, keep

from pcnn import Face, Recognizer
from pcnn.faces.detector import Detector

ANGLES = (0, 15, 30, 45, 60, 90, 135, 180, 225, 270, 315)
# Landmarks within this mean distance of their places, in distances between the eyes, are right.
NEAR = 0.08
_Change: TypeAlias = Callable[[Image.Image], Image.Image]
_Best: TypeAlias = "Face | None"


def _point(change: Callable[[float], float]) -> _Change:
    table = [int(min(255, max(0, change(v)))) for v in range(256)]
    return lambda picture: picture.point(table * 3)


def _tinted(*gains: float) -> _Change:
    table = [int(min(255, gain * v)) for gain in gains for v in range(256)]
    return lambda picture: picture.point(table)


LIGHT: dict[str, _Change] = {
    "an eighth of the light": _point(lambda v: v // 8),
    "a sixteenth of the light": _point(lambda v: v // 16),
    "over-exposed, 2 ×": _point(lambda v: 2 * v),
    "over-exposed, 3 ×": _point(lambda v: 3 * v),
    "over-exposed, 4 ×": _point(lambda v: 4 * v),
    "an eighth of the contrast": _point(lambda v: 128 + (v - 128) / 8),
    "tinted red (1, ¼, ¼)": _tinted(1, 0.25, 0.25),
    "tinted blue (¼, 0.35, 1)": _tinted(0.25, 0.35, 1),
    "nearly blue alone (0.05, 0.05, 1)": _tinted(0.05, 0.05, 1),
    "tinted orange (1, 0.6, 0.15)": _tinted(1, 0.6, 0.15),
}


def main() -> None:
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    recognizer = Recognizer(arguments.weights, device="cpu")
    if arguments.cost:
        print(_cost(recognizer, arguments.photographs))
        return
    if arguments.light:
        pictures = read_sample(arguments.photographs, count=arguments.light)
        rows = _in_other_light(recognizer, pictures, _best(recognizer, pictures))
        print(_as_markdown({"turned": [], "others": rows}))
        return
    pictures = read_sample(arguments.photographs)
    upright = _best(recognizer, pictures)
    turned = []
    for angle in ANGLES:
        changed = [picture.rotate(angle, expand=True) for picture in pictures]
        places = [
            None if face is None else turned_points(face.landmarks, angle, old.size, new.size)
            for face, old, new in zip(upright, pictures, changed, strict=True)
        ]
        turned.append({"angle": angle, **_scored(recognizer, changed, upright, places)})
    rows = _in_other_light(recognizer, pictures[:40], upright[:40])
    for name, make in (("cut by the border at half", _cut), ("blown up to 1600 pixels", _blown)):
        pairs = [(p, f) for p, f in zip(pictures[:40], upright[:40], strict=True) if f]
        found = _scored(recognizer, [make(*pair) for pair in pairs], [f for _, f in pairs], None)
        rows.append({"condition": name, **found})
    record = {
        "weights_sha256": recognizer.weights_sha256,
        "turned": turned,
        "others": rows,
    }
    text = _as_markdown(record)
    print(text)
    keep(record, text, "hard_pictures", json_to=arguments.json, page=arguments.page)


def _in_other_light(
    recognizer: Recognizer, pictures: Sequence[Image.Image], upright: Sequence[_Best]
) -> list[dict[str, Any]]:
    kept = [None if face is None else face.landmarks for face in upright]
    return [
        {"condition": name}
        | _scored(recognizer, [change(picture) for picture in pictures], upright, kept)
        for name, change in LIGHT.items()
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--weights", help="of the expressions; default: the packaged ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--light", type=int, help="only the light of so many photographs")
    parser.add_argument("--cost", action="store_true", help="only what upright pictures cost")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--page", type=Path, help="put the tables where this page is marked")
    return parser.parse_args()


def read_sample(archive: Path, *, count: int = 60, seed: int = 1) -> list[Image.Image]:
    """Photographs of an archive, drawn by seed."""
    with tarfile.open(archive) as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".jpg"))
        chosen = random.Random(seed).sample(names, count)
        files = [tar.extractfile(name) for name in chosen]
        return [Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file]


def turned_points(
    points: Array, angle: float, size: tuple[int, int], new_size: tuple[int, int]
) -> Array:
    """Where points of a picture lie after `picture.rotate(angle, expand=True)`.

    points: (N, 2) pixels. size, new_size: width and height before and after.
    """
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # With y downwards, a turn counterclockwise takes (1, 0) to (cos, -sin).
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    moved: Array = (points - np.array(size) / 2) @ matrix.T + np.array(new_size) / 2
    return moved


def _cut(picture: Image.Image, face: Face) -> Image.Image:
    """The photograph cut off along the middle of its face."""
    return picture.crop((round((face.box[0] + face.box[2]) / 2), 0, *picture.size))


def _blown(picture: Image.Image, face: Face) -> Image.Image:
    """The face with a fifth of its side around it, enlarged until it is 1600 pixels wide."""
    left, top, right, bottom = face.box
    margin = (right - left) / 5
    box = tuple(map(round, (left - margin, top - margin, right + margin, bottom + margin)))
    part = picture.crop(box)
    scale = 1600 / (right - left)
    return part.resize((round(part.width * scale), round(part.height * scale)), Image.BICUBIC)


def _best(recognizer: Recognizer, pictures: Sequence[Image.Image]) -> list[_Best]:
    """The best face of each."""
    found = recognizer.predict([np.asarray(picture) for picture in pictures])
    return [next(iter(prediction.faces), None) for prediction in found]


def _scored(
    recognizer: Recognizer,
    pictures: Sequence[Image.Image],
    upright: Sequence[_Best],
    places: Sequence[Array | None] | None,
) -> dict[str, Any]:
    """How many faces are found, with the label of the upright one, with landmarks in place.

    upright: the face as it is. places: (5, 2) where landmarks should lie; None where unknown.
    Of several faces the one nearest to the place counts.
    """
    found = recognizer.predict([np.asarray(picture) for picture in pictures])
    faces: list[_Best] = []
    errors: list[float] = []
    for number, prediction in enumerate(found):
        place = None if places is None else places[number]
        best = next(iter(prediction.faces), None)
        if place is not None and best is not None:
            eyes = float(np.linalg.norm(place[1] - place[0]))
            own = [np.linalg.norm(f.landmarks - place, axis=1).mean() for f in prediction.faces]
            nearest = int(np.argmin(own))
            best = prediction.faces[nearest]
            errors.append(float(own[nearest]) / eyes)
        faces.append(best)
    pairs = zip(faces, upright, strict=True)
    same = [own is not None and was is not None and own.label == was.label for own, was in pairs]
    counts = {"of": len(pictures), "found": sum(f is not None for f in faces), "same": sum(same)}
    if not errors:
        return counts
    return {
        **counts,
        "near": sum(error <= NEAR for error in errors),
        "error_median": float(np.median(errors)),
        "error_mean": float(np.mean(errors)),
    }


def _cost(recognizer: Recognizer, archive: Path) -> str:
    """What upright photographs cost more than with a single look of the detector and no more.

    CPU time, which other programs disturb less, each batch both ways in turn. The light of views
    is not taken apart: it is part of both.
    """
    detector = Detector.load("mobilenet", landmarks=None)  # which both ways would refine
    arrays = [np.asarray(picture) for picture in read_sample(archive, count=400, seed=7)]
    spent = {"one": 0.0, "two": 0.0, "all": 0.0}
    ways = {
        "one": detector.detect_upright,
        "two": detector.detect,
        "all": recognizer.predict,
    }
    for start in range(0, len(arrays), 8):
        for name, way in ways.items():
            began = time.process_time()
            way(arrays[start : start + 8])
            spent[name] += 1000 * (time.process_time() - began) / len(arrays)
    more = spent["two"] - spent["one"]
    return (
        f"CPU time of 400 upright photographs, each: one look {spent['one']:.2f} ms, with second "
        f"looks {spent['two']:.2f} ms, all of predict {spent['all']:.2f} ms; second looks add "
        f"{100 * more / (spent['all'] - more):.1f} %."
    )


def _as_markdown(record: dict[str, Any]) -> str:
    lines = [
        "| turned by | of | found | same label | landmarks within 8 % | median error | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {row['angle']}° {_cells(row)}" for row in record["turned"]]
    lines += ["", lines[0].replace("turned by", "condition"), lines[1]]
    lines += [f"| {row['condition']} {_cells(row)}" for row in record["others"]]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> str:
    counts = f"| {row['of']} | {row['found']} | {row['same']} "
    if "near" not in row:
        return counts + "| | | |"
    errors = f"{100 * row['error_median']:.1f} % | {100 * row['error_mean']:.1f} %"
    return counts + f"| {row['near']} | {errors} |"


if __name__ == "__main__":
    main()
