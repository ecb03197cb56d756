"""Write a teacher's movements, meshes and poses for the training of the movement network.

    python benchmarks/label_movements.py faces ferplus --split train --task face_landmarker.task \
        --output labels/fer_train.npz
    python benchmarks/label_movements.py photographs lfw_faces.tar --task face_landmarker.task \
        --output labels/photographs.npz
    python benchmarks/label_movements.py agreement lfw_faces.tar --task face_landmarker.task

The last command prints how well the teacher's movements agree with those that it sees in the mirror
images of the held-out faces.

The teacher is MediaPipe's Face Landmarker (Apache-2.0): `pip install mediapipe` for this script
alone. It sees a cut-out face enlarged to 192 pixels on grey, and a photograph's face in a square of
twice its box. A face of a photograph counts as found if the teacher's five landmarks are near the
detector's. `--answers` writes the means of so many answers, to the face and to its mirror image in
turn, from the third on turned, scaled and moved a little at random. They have less noise.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcnn.datasets.ferplus import Pixels, read_tiles
from pcnn.faces.detector import Detector
from pcnn.networks.movements import mirror_names
from pcnn.results.values import Detection
from pcnn.terminal import track
from pcnn.training.photographs import is_held_out
from pcnn.training.teacher_answers import FIVE
from pcnn.weights.known import DEFAULT_DETECTOR

_CANVAS, _TILE, _GREY = 320, 192, 128  # pixels, pixels, level
_LEAST_SCORE, _LEAST_SIDE = 0.8, 24  # of the detector's faces
_VARIES = 0.05  # the least deviation of a movement that counts as one that varies
# The teacher's mean distance from the detector's landmarks, of the box's width. Also the distance
# of another answer's middle, of that between the eyes.
_NEAR = 0.2
_TURN, _SCALE, _SHIFT = 12.0, 0.1, 6.0  # of moved canvases: degrees, logarithm, pixels, at most
_BATCH = 8

Answer: TypeAlias = "tuple[NDArray[Any], NDArray[Any], NDArray[Any]]"  # points, movements, matrix
Look: TypeAlias = "Callable[[Pixels], Answer | None]"


def main() -> None:
    arguments = _parse()
    with _teacher(arguments.task) as (look, names):
        if arguments.kind == "agreement":
            print(json.dumps(_agreement(arguments.path, look, names), indent=2))
            return
        often = partial(_mean_answer, look, names, arguments.answers)
        if arguments.kind == "faces":
            table = _faces(arguments.path, arguments.split, often)
        else:
            table = _photographs(arguments.path, often)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.output, names=np.array(names), **table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("faces", "photographs", "agreement"))
    parser.add_argument("path", type=Path, help="folder of contact sheets, or tar of photographs")
    parser.add_argument("--split", default="train", help="of the contact sheets [train]")
    parser.add_argument("--task", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--answers", type=int, default=1, help="to take the mean of [1]")
    parser.add_argument("--output", type=Path, help=".npz file to write")
    arguments = parser.parse_args()
    if arguments.answers < 1:
        parser.error("--answers must be at least 1")
    if arguments.answers > 1 and arguments.kind == "agreement":
        parser.error("--answers is for faces and photographs")
    if arguments.output is None and arguments.kind != "agreement":
        parser.error("--output is missing")
    return arguments


@contextlib.contextmanager
def _teacher(task: Path) -> Iterator[tuple[Look, list[str]]]:
    """A function from a picture to the teacher's answer, and the movements' names."""
    import mediapipe
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    landmarker = vision.FaceLandmarker.create_from_options(
        vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(task)),
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            num_faces=1,
            min_face_detection_confidence=0.1,
            min_face_presence_confidence=0.1,
        )
    )
    names: list[str] = []

    def look(pixels: Pixels) -> Answer | None:
        image = mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels)
        )
        found = landmarker.detect(image)
        if not found.face_landmarks:
            return None
        shapes = found.face_blendshapes[0]
        names[:] = [shape.category_name for shape in shapes]
        height, width = pixels.shape[:2]
        points = [(p.x * width, p.y * height, p.z * width) for p in found.face_landmarks[0]]
        return (
            np.array(points, np.float32),
            np.array([shape.score for shape in shapes], np.float32),
            np.asarray(found.facial_transformation_matrixes[0], np.float32),
        )

    with contextlib.closing(landmarker):
        yield look, names


def _faces(folder: Path, split: str, look: Look) -> dict[str, Any]:
    """Answers for the faces of contact sheets, in pixels of the 48 × 48 face."""
    tiles = read_tiles(folder)
    with (folder / f"{split}.csv").open(encoding="utf-8") as file:
        names = [row["image"] for row in csv.DictReader(file) if row["duplicate"] == "0"]
    edge = (_CANVAS - _TILE) // 2
    answers = []
    for name in track(names, "faces"):
        tile = tiles[name]
        canvas = np.full((_CANVAS, _CANVAS, 3), _GREY, np.uint8)
        large = Image.fromarray(tile).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
        canvas[edge:-edge, edge:-edge] = np.asarray(large)[..., None]
        scale = tile.shape[0] / _TILE
        answers.append(_placed(look(canvas), scale, np.array([-edge, -edge]) * scale))
    return _table(names, answers)


def _photographs(archive: Path, look: Look) -> dict[str, Any]:
    """Answers for the faces of photographs, in their pixels, with the detector's landmarks."""
    names, answers, found = [], [], []
    for cut in _cut_faces(archive):
        answer = _placed(look(cut.canvas), cut.scale, cut.corner)
        if answer is not None:
            left, _, right, _ = cut.face.box
            apart = np.linalg.norm(answer[0][list(FIVE), :2] - cut.face.landmarks, axis=1)
            answer = answer if apart.mean() < _NEAR * (right - left) else None
        names.append(cut.name)
        answers.append(answer)
        found.append(cut.face)
    return {
        **_table(names, answers),
        "boxes": np.array([face.box for face in found], np.float32),
        "landmarks": np.array([face.landmarks for face in found], np.float32),
        "scores": np.array([face.score for face in found], np.float32),
    }


def _mean_answer(look: Look, names: Sequence[str], count: int, pixels: Pixels) -> Answer | None:
    """The mean of the teacher's answers to views of a canvas; None if it finds no face in it.

    Movements are the mean of all answers, points that of those to views that are not mirrored. The
    matrix is that of the canvas as it is.
    """
    first = look(pixels)
    if first is None or count == 1:
        return first
    random = np.random.default_rng(0)
    points, movements = [first[0]], [first[1]]
    for number in range(1, count):
        view, place = (pixels, np.eye(2, 3)) if number == 1 else _moved(pixels, random)
        mirrored = number % 2 == 1
        answer = look(view[:, ::-1] if mirrored else view)
        if answer is None:
            continue
        seen = answer[0] * (-1, 1, 1) + (_CANVAS, 0, 0) if mirrored else answer[0]
        seen = _in_canvas(seen, place)
        off = np.linalg.norm((seen - first[0]).mean(0)[:2])
        if off > _NEAR * np.linalg.norm(np.subtract(*first[0][list(FIVE[:2]), :2])):
            continue  # another face
        if mirrored:
            movements.append(answer[1][mirror_names(tuple(names))])
        else:
            movements.append(answer[1])
            points.append(seen)
    return np.mean(points, 0), np.mean(movements, 0), first[2]


def _moved(pixels: Pixels, random: np.random.Generator) -> tuple[Pixels, NDArray[Any]]:
    """A canvas turned, scaled and moved a little, and the (2, 3) matrix from it to the canvas."""
    angle = np.radians(random.uniform(-_TURN, _TURN))
    scale = np.exp(random.uniform(-_SCALE, _SCALE))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    middle = np.full(2, _CANVAS / 2)
    place = np.column_stack((turn, middle - turn @ middle + random.uniform(-_SHIFT, _SHIFT, 2)))
    return _canvas(Image.fromarray(pixels), place), place


def _canvas(picture: Image.Image, place: NDArray[Any]) -> Pixels:
    """A part of a picture. place: (2, 3), from the canvas to the picture."""
    canvas = picture.transform(
        (_CANVAS, _CANVAS),
        Image.Transform.AFFINE,
        tuple(place.ravel()),
        Image.Resampling.BICUBIC,
        fillcolor=(_GREY,) * 3,
    )
    return np.asarray(canvas)


def _in_canvas(points: NDArray[Any], place: NDArray[Any]) -> NDArray[Any]:
    """Points (P, 3) of a moved canvas in the canvas as it is; depths are scaled."""
    turn = place[:, :2]
    flat = points[:, :2] @ turn.T + place[:, 2]
    deep = points[:, 2:] * np.sqrt(np.linalg.det(turn))
    return np.concatenate((flat, deep), 1, dtype=np.float32)


def _agreement(archive: Path, look: Look, names: Sequence[str]) -> dict[str, Any]:
    """Correlations of the teacher's movements with those of the mirror images.

    names: the movements'; they are known once `look` has answered.
    """
    pairs = []
    for cut in _cut_faces(archive, only=is_held_out):
        one, two = look(cut.canvas), look(cut.canvas[:, ::-1])
        if one is not None and two is not None:
            pairs.append((one[1], two[1]))
    straight, mirror = (np.array(own) for own in zip(*pairs, strict=True))
    mirror = mirror[:, mirror_names(tuple(names))]
    found = {
        name: float(np.corrcoef(straight[:, i], mirror[:, i])[0, 1])
        for i, name in enumerate(names)
        if straight[:, i].std() >= _VARIES
    }
    return {
        "faces": len(pairs),
        "mean_correlation": float(np.mean(list(found.values()))),
        "correlations": {name: round(value, 3) for name, value in sorted(found.items())},
    }


@dataclass(frozen=True, eq=False)
class Cut:
    """A photograph's face, on the teacher's canvas: photograph = canvas · scale + corner."""

    name: str
    face: Detection
    canvas: Pixels
    scale: float
    corner: NDArray[Any]


def _cut_faces(archive: Path, only: Callable[[str], bool] = bool) -> Iterator[Cut]:
    """The faces that the detector finds in an archive's photographs.

    only: whether a photograph of this name is wanted.
    """
    with tarfile.open(archive) as opened:
        files = sorted(
            (member.name, file.read())
            for member in opened
            if only(member.name) and (file := opened.extractfile(member)) is not None
        )
    detector = Detector.load(DEFAULT_DETECTOR)
    for start in track(range(0, len(files), _BATCH), "photographs"):
        part = files[start : start + _BATCH]
        pictures = [Image.open(io.BytesIO(encoded)).convert("RGB") for _, encoded in part]
        looks = detector.detect_upright([np.asarray(p) for p in pictures], min_score=_LEAST_SCORE)
        for (name, _), picture, faces in zip(part, pictures, looks, strict=True):
            for face in faces:
                left, top, right, bottom = face.box
                if min(right - left, bottom - top) < _LEAST_SIDE:
                    continue
                side = 2 * max(right - left, bottom - top)
                corner = np.array([left + right - side, top + bottom - side]) / 2
                scale = side / _CANVAS
                place = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
                yield Cut(name, face, _canvas(picture, place), scale, corner)


def _placed(answer: Answer | None, scale: float, corner: NDArray[Any]) -> Answer | None:
    """An answer whose points are in pixels of the source: canvas · scale + corner."""
    if answer is None:
        return None
    points = answer[0] * np.float32(scale)
    points[:, :2] += corner
    return points, *answer[1:]


def _table(names: list[str], answers: list[Answer | None]) -> dict[str, Any]:
    """The arrays of a table, NaN where the teacher found no face."""
    first = next(answer for answer in answers if answer is not None)
    nothing = tuple(np.full_like(part, np.nan) for part in first)
    rows = [answer or nothing for answer in answers]
    parts = zip(("points", "movements", "matrix"), zip(*rows, strict=True), strict=True)
    return {
        "image": np.array(names),
        "found": np.array([answer is not None for answer in answers]),
        **{name: np.stack(own) for name, own in parts},
    }


if __name__ == "__main__":
    main()
