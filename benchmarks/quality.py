"""Whether `face.quality` orders faces by how well they are read, and what it costs.

    python benchmarks/quality.py --data ferplus --photographs lfw_faces.tar [--most N] [--page FILE]

Faces of FER+ valid, in which the detector finds landmarks as in `predict_crops`, by thirds of
their quality: how many are read as the votes have them. Photographs of lfw, made worse: how many
faces are still found, with the label of the photograph as it is, and their median quality. Of each
third of all these faces the same label, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from hard_pictures import read_sample
from PIL import Image, ImageFilter
from shared import DATA, Array, keep

from pcnn import Face, Recognizer
from pcnn.datasets import load_faces
from pcnn.faces.quality import face_qualities
from pcnn.training.head.validation import share_of

Change: TypeAlias = Callable[[Image.Image, Face], Image.Image]
_FRAME = 24  # pixels around the faces of FER+, so that the detector sees all of them


def main() -> None:
    """Measure, print, write."""
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    recognizer = Recognizer(arguments.weights, device="cpu", movements=arguments.movements)
    record: dict[str, Any] = {"weights_sha256": recognizer.weights_sha256}
    record["faces"] = _labelled(recognizer, arguments.data, arguments.most)
    record["conditions"], record["worse"] = _worsened(
        recognizer, read_sample(arguments.photographs, count=arguments.photos, seed=3)
    )
    record["milliseconds"] = _cost(recognizer, arguments.photographs)
    text = _as_markdown(record)
    print(text)
    keep(record, text, "quality", json_to=arguments.json, page=arguments.page)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, default=DATA, help="folder of FER+ contact sheets")
    add("--photographs", type=Path, required=True, help="tar of JPEG files")
    add("--weights", help="of the expressions; default: the packaged ones")
    add("--movements", action="store_true", help="take the turn from poses, not from landmarks")
    add("--most", type=int, help="score only so many faces of FER+, drawn by seed")
    add("--photos", type=int, default=160, help="photographs [%(default)s]")
    add("--threads", type=int, default=1)
    add("--json", type=Path, help="write the figures to this file as well")
    add("--page", type=Path, help="put the tables where this page is marked")
    return parser.parse_args()


# --- FER+ ---


def _labelled(recognizer: Recognizer, folder: Path, most: int | None) -> dict[str, Any]:
    """Faces of FER+ valid, read in a frame as small photographs, by thirds of their quality."""
    faces = load_faces(folder, "valid")
    if most is not None:
        order = np.random.default_rng(0).permutation(len(faces))[:most]
        faces = faces.subset(sorted(order.tolist()))
    frame = (_FRAME, _FRAME)
    pictures = [np.pad(own, (frame, frame), mode="edge") for own in faces.faces.numpy()]
    labels = [faces.classes[i] for i in faces.votes.argmax(1).tolist()]
    found = recognizer.predict([np.repeat(own[..., None], 3, 2) for own in pictures])
    pairs = [
        (max(seen.faces, key=_area), label)
        for seen, label in zip(found, labels, strict=True)
        if seen.faces
    ]
    names = [name for name, seen in zip(faces.names, found, strict=True) if seen.faces]
    right = np.array([face.label == label for face, label in pairs])
    scores = np.array([face.detection_score for face, _ in pairs])
    quality = np.array([face.quality for face, _ in pairs])
    return {
        "of": len(faces),
        "found": len(pairs),
        "by_quality": _thirds(quality, right, names),
        "by_detection_score": _thirds(scores, right, names),
    }


def _area(face: Face) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _thirds(values: Array, right: Array, names: Sequence[str]) -> dict[str, Any]:
    """Limits between thirds of the values, and of each third the share of faces that are right.

    names: of the pictures, since faces of one picture count as fewer for the intervals.
    """
    limits = np.quantile(values, (1 / 3, 2 / 3))
    groups = np.digitize(values, limits)
    ranks = values.argsort(kind="stable").argsort()
    area = (ranks[right].mean() - ranks[~right].mean()) / len(values) + 0.5
    chosen = [np.flatnonzero(groups == i) for i in range(3)]
    shares = [share_of(right[own], [names[i] for i in own]) for own in chosen]
    return {
        "limits": limits.tolist(),
        "faces": len(values),
        "right": [list(share) for share in shares],
        "area_under_curve": float(area),
    }


# --- photographs ---


def _eyes(face: Face) -> float:
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))


def _shrunk(pixels: float) -> Change:
    """The photograph with so many pixels between the eyes, enlarged again."""

    def change(picture: Image.Image, face: Face) -> Image.Image:
        share = pixels / _eyes(face)
        size = [max(1, round(side * share)) for side in picture.size]
        return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS).resize(
            picture.size, Image.Resampling.BICUBIC
        )

    return change


def _blurred(share: float) -> Change:
    """A blur whose deviation is a share of the distance between the eyes."""
    return lambda picture, face: picture.filter(ImageFilter.GaussianBlur(share * _eyes(face)))


def _noisy(levels: float) -> Change:
    """Grey noise of so many levels."""

    def change(picture: Image.Image, _: Face) -> Image.Image:
        pixels = np.asarray(picture, np.float32)
        noise = np.random.default_rng(1).normal(0, levels, (*pixels.shape[:2], 1))
        return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))

    return change


def _covered(part: str) -> Change:
    """A grey bar over the mouth or the eyes, or a grey half of the face."""

    def change(picture: Image.Image, face: Face) -> Image.Image:
        points, eyes = face.landmarks, _eyes(face)
        left, right = points[:, 0].min() - 0.5 * eyes, points[:, 0].max() + 0.5 * eyes
        top, bottom = points[:2, 1].min() - 0.4 * eyes, points[3:, 1].max() + 0.7 * eyes
        if part == "mouth":
            top = points[2, 1]
        elif part == "eyes":
            bottom = points[:2, 1].max() + 0.4 * eyes
        else:
            top, right = top - 0.6 * eyes, points[:, 0].mean()
        drawn = picture.copy()
        drawn.paste((90, 90, 90), tuple(int(edge) for edge in (left, top, right, bottom)))
        return drawn

    return change


CONDITIONS: dict[str, Change] = {
    "as it is": lambda picture, _: picture,
    **{f"{pixels} pixels between the eyes": _shrunk(pixels) for pixels in (16, 12, 9, 7, 5)},
    **{f"blurred by {share} of that distance": _blurred(share) for share in (0.05, 0.1, 0.15)},
    **{f"noise of {levels} levels": _noisy(levels) for levels in (25, 50)},
    **{f"{part} covered": _covered(part) for part in ("mouth", "eyes", "one side")},
}


def _worsened(
    recognizer: Recognizer, pictures: Sequence[Image.Image]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """For each condition what is found and read; and thirds of all faces that are found."""
    known = recognizer.predict([np.asarray(picture) for picture in pictures])
    pairs = [(p, own.faces[0]) for p, own in zip(pictures, known, strict=True) if own.faces]
    rows, qualities, same, names = [], [], [], []
    for name, change in CONDITIONS.items():
        found = recognizer.predict([np.asarray(change(*pair)) for pair in pairs])
        near = [_nearest(own.faces, face) for own, (_, face) in zip(found, pairs, strict=True)]
        both = [(own, face) for own, (_, face) in zip(near, pairs, strict=True) if own]
        names += [str(number) for number, own in enumerate(near) if own]
        qualities += [own.quality for own, _ in both]
        same += [own.label == face.label for own, face in both]
        low, middle, high = np.quantile([own.quality for own, _ in both], (0.1, 0.5, 0.9))
        rows.append(
            {
                "condition": name,
                "of": len(pairs),
                "found": len(both),
                "same": sum(own.label == face.label for own, face in both),
                "quality": [float(low), float(middle), float(high)],
            }
        )
    return rows, _thirds(np.array(qualities), np.array(same), names)


def _nearest(faces: Sequence[Face], known: Face) -> Face | None:
    """The face at the place of a known one; None if there is none."""
    middle = known.landmarks.mean(0)
    apart = [float(np.linalg.norm(own.landmarks.mean(0) - middle)) for own in faces]
    best = int(np.argmin(apart)) if apart else -1
    return faces[best] if apart and apart[best] < 0.8 * _eyes(known) else None


def _cost(recognizer: Recognizer, archive: Path) -> dict[str, float]:
    """Milliseconds of processor time for each photograph: all of `predict`, and quality alone."""
    arrays = [np.array(own) for own in read_sample(archive, count=64, seed=7)]
    found, _ = recognizer.finder.find([_Pixels(own) for own in arrays])
    spent = {"predict": 0.0, "quality": 0.0}
    ways: dict[str, Callable[[int], object]] = {
        "predict": lambda start: recognizer.predict(arrays[start : start + 8]),
        "quality": lambda start: face_qualities(
            arrays[start : start + 8], found[start : start + 8]
        ),
    }
    for start in range(0, len(arrays), 8):
        for name, way in ways.items():
            began = time.process_time()
            way(start)
            spent[name] += 1000 * (time.process_time() - began) / len(arrays)
    return spent


class _Pixels:
    """A picture as the finder takes it."""

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels


# --- tables ---


def _as_markdown(record: dict[str, Any]) -> str:
    faces, worse, times = record["faces"], record["worse"], record["milliseconds"]
    lines = [
        f"{faces['found']} of {faces['of']} faces of FER+ valid are found; of each third so many "
        "are read as the votes have them:",
        "",
        "| thirds by | lowest | middle | highest | area under the curve |",
        "|---|---|---|---|---|",
        f"| quality {_cells(faces['by_quality'])}",
        f"| detection score {_cells(faces['by_detection_score'])}",
        "",
        "Photographs of lfw, made worse. The columns are the faces found, those of them with the "
        "label of the photograph as it is, and their quality. It is the median; a tenth have less "
        "and more.",
        "",
        "| condition | found | same label | quality |",
        "|---|---|---|---|",
    ]
    for row in record["conditions"]:
        low, middle, high = row["quality"]
        share = 100 * row["same"] / row["found"]
        lines.append(
            f"| {row['condition']} | {row['found']} of {row['of']} | {share:.0f} % "
            f"| {middle:.2f} ({low:.2f} … {high:.2f}) |"
        )
    thirds, _, area = _cells(worse).strip(" |").replace(" | ", ", ").rpartition(", ")
    lines += [
        "",
        f"All {worse['faces']} faces of these conditions together, by thirds of quality: {thirds}. "
        f"The area under the curve is {area}.",
        "",
        f"It adds {times['quality']:.2f} ms to the {times['predict'] - times['quality']:.1f} ms "
        "that a photograph takes without it (processor time, one thread).",
    ]
    return "\n".join(lines)


def _cells(thirds: dict[str, Any]) -> str:
    cells = [
        f"{100 * share:.1f} % ({100 * low:.1f} … {100 * high:.1f})"
        for share, low, high in thirds["right"]
    ]
    return f"| {' | '.join(cells)} | {thirds['area_under_curve']:.3f} |"


if __name__ == "__main__":
    main()
