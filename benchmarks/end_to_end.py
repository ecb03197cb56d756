"""How right a photograph's reading is, face finding and alignment included, and what it withstands.

    python benchmarks/end_to_end.py [--faces N] [--least-side N] [--json FILE] [--page FILE]

There are no photographs with labels here, so labelled faces of FER+ valid become photographs: each
is enlarged or reduced, laid on a ground that continues its edges, turned, darkened or damaged, and
given to `Recognizer.predict`, which has to find and align it. The same faces as they are, given to
`predict_crops`, are what it is held against.
"""

from __future__ import annotations

import argparse
import datetime
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console
from rich.progress import Progress
from shared import DATA, Array, interval, keep

from pcnn import Recognizer
from pcnn.datasets.loading import load_ferplus
from pcnn.faces.detector import Detector
from pcnn.weights.known import DEFAULT_WEIGHTS

# The ground around a face, as a share of its side, and the usual side in pixels.
_MARGIN, _SIDE = 0.5, 96
# Found with so much less than the usual score is counted as well.
_LOW = 0.5
_Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def photograph(face: Array, side: int, turned_deg: float = 0.0) -> Image.Image:
    """A picture of 2 × 2 sides with the face (48, 48) uint8 in its middle, turned."""
    margin = round(_MARGIN * face.shape[0])
    ground = Image.fromarray(np.pad(face, margin, mode="edge"))
    whole = round(side * (1 + 2 * _MARGIN))
    turned = ground.rotate(turned_deg, Image.Resampling.BICUBIC, fillcolor=int(face.mean()))
    return turned.resize((whole, whole), Image.Resampling.BICUBIC)


def _as_jpeg(quality: int) -> _Change:
    def change(picture: Image.Image, _: np.random.Generator) -> Image.Image:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return change


def _noisy(deviation: float) -> _Change:
    def change(picture: Image.Image, random: np.random.Generator) -> Image.Image:
        noise = random.normal(0, deviation, picture.size[::-1])
        return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))

    return change


def _lit(gain: float, shift: float) -> _Change:
    return lambda picture, _: picture.point([min(255, gain * i + shift) for i in range(256)])


def _blurred(radius: float) -> _Change:
    return lambda picture, _: picture.filter(ImageFilter.GaussianBlur(radius))


def _covered(share: float) -> _Change:
    """A grey square somewhere on the face, its side a share of the face's."""

    def change(picture: Image.Image, random: np.random.Generator) -> Image.Image:
        side = picture.width / (1 + 2 * _MARGIN)
        left, top = _MARGIN * side + random.uniform(0, (1 - share) * side, 2)
        picture.paste(110, tuple(map(round, (left, top, left + share * side, top + share * side))))
        return picture

    return change


# Name → side in pixels, degrees turned, what is done to the picture.
CONDITIONS: dict[str, tuple[int, float, _Change | None]] = {
    "face of 24 pixels": (24, 0, None),
    "32 pixels": (32, 0, None),
    "48 pixels": (48, 0, None),
    "96 pixels": (_SIDE, 0, None),
    "300 pixels": (300, 0, None),
    "turned by 15°": (_SIDE, 15, None),
    "turned by 30°": (_SIDE, 30, None),
    "turned by 45°": (_SIDE, 45, None),
    "JPEG of quality 20": (_SIDE, 0, _as_jpeg(20)),
    "noise of deviation 20": (_SIDE, 0, _noisy(20)),
    "a third of the light": (_SIDE, 0, _lit(1 / 3, 0)),
    "half the contrast": (_SIDE, 0, _lit(1 / 2, 64)),
    "blurred, radius 3": (_SIDE, 0, _blurred(3)),
    "a square of 0.3 sides covered": (_SIDE, 0, _covered(0.3)),
}


def main() -> None:
    arguments = _parse()
    detector = Detector.load("mobilenet")
    if arguments.least_side is not None:
        detector.settings = replace(detector.settings, least_side=arguments.least_side)
    recognizer = Recognizer(arguments.weights, detector, "cpu")
    valid = load_ferplus(arguments.data, "valid")
    chosen = np.random.default_rng(0).permutation(len(valid))[: arguments.faces]
    faces = valid.faces.numpy()[chosen]
    labels = valid.votes.numpy()[chosen].argmax(1)
    direct = _answers(recognizer, recognizer.predict_crops(list(faces)))
    rows = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name, (side, turned_deg, change) in progress.track(CONDITIONS.items()):
            pictures = _pictures(faces, side, turned_deg, change)
            best = [next(iter(found.faces), None) for found in recognizer.predict(pictures)]
            answers = np.full(len(faces), -1)
            seen = [face is not None for face in best]
            answers[seen] = _answers(recognizer, list(itertools.compress(best, seen)))
            pictures = _pictures(faces, side, turned_deg, change)
            low = [bool(detector.detect([each], min_score=_LOW)[0]) for each in map(_rgb, pictures)]
            scored = _scored(answers, direct, labels)
            rows.append({"condition": name, "found_low": float(np.mean(low)), **scored})
    record = {
        "date": datetime.date.today().isoformat(),
        "weights_sha256": recognizer.weights_sha256,
        "faces": len(faces),
        "least_side": detector.settings.least_side,
        "conditions": rows,
    }
    text = _as_markdown(record, rows)
    print(text)
    keep(record, text, "end_to_end", json_to=arguments.json, page=arguments.page)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--faces", type=int, default=1500, help="of FER+ valid, drawn at random")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--least-side", type=int, help="of the detector, see DetectorSettings")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--page", type=Path, help="put the table where this page is marked")
    return parser.parse_args()


def _answers(recognizer: Recognizer, expressions: Sequence[Any]) -> Array:
    """The places of their labels among the classes."""
    return np.array([recognizer.classes.index(each.label) for each in expressions], int)


def _pictures(
    faces: Array, side: int, turned_deg: float, change: _Change | None
) -> Iterator[Image.Image]:
    random = np.random.default_rng(1)
    for face in faces:
        picture = photograph(face, side, turned_deg)
        yield picture if change is None else change(picture, random)


def _rgb(picture: Image.Image) -> Array:
    return np.array(picture.convert("RGB"))


def _scored(answers: Array, direct: Array, labels: Array) -> dict[str, Any]:
    """Shares of what was found, right, and answered as the face itself was; 0…1.

    answers: -1 where no face was found. direct: what the faces themselves are taken for.
    """
    found = answers >= 0
    if not found.any():
        return {"found": 0.0}
    gains = (answers == labels).astype(float) - (direct == labels)
    draw = np.random.default_rng(2)
    rounds = draw.choice(gains[found], (2000, int(found.sum()))).mean(1)
    return {
        "found": float(found.mean()),
        "right": float((answers == labels)[found].mean()),
        "right_as_crops": float((direct == labels)[found].mean()),
        "difference": interval(rounds),
        "agree": float((answers == direct)[found].mean()),
    }


def _as_markdown(record: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    about = f"Weights {record['weights_sha256'][:8]}, {record['faces']:,} faces of FER+ valid"
    lines = [
        f"{about}; percent.",
        "",
        f"| | found | with `min_score={_LOW}` | of the found right | the same as crops "
        "| difference | same answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if not row["found"]:
            lines.append(f"| {row['condition']} | 0 | {100 * row['found_low']:.1f} | | | | |")
            continue
        low, high = row["difference"]
        lines.append(
            f"| {row['condition']} | {row['found']:.1%} | {row['found_low']:.1%} "
            f"| {row['right']:.1%} "
            f"| {row['right_as_crops']:.1%} | {100 * low:+.1f} … {100 * high:+.1f} "
            f"| {row['agree']:.1%} |".replace("%", "")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
