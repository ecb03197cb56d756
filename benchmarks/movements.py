"""Score a movement network on held-out photographs and on faces with expression labels.

    python benchmarks/movements.py --photographs lfw_faces.tar --labels DIR --data ferplus

DIR holds a teacher's answers, `photographs.npz` (docs/training.md says how it is made). Only the
photographs that training keeps out are scored (one in ten, by the hash of their names), each
through the detector, as users' photographs are. --data adds what depends on no teacher: smiles
against the votes for happiness, and open mouths against those for surprise.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from shared import medians, require_native

from pcnn.datasets import load_faces
from pcnn.faces.alignment import dataset_landmarks
from pcnn.faces.detector import Detector
from pcnn.networks.movements import mirror_names
from pcnn.recognition.batches import Picture
from pcnn.recognition.movements import MovementReader
from pcnn.results.movements import FaceMotion
from pcnn.results.values import Detection
from pcnn.training.photographs import is_held_out
from pcnn.training.teacher_answers import read_table
from pcnn.weights.known import DEFAULT_DETECTOR, DEFAULT_MOVEMENTS
from pcnn.weights.movements import load_movements

_VARIES = 0.05  # the least deviation of a movement that counts as one that varies
_IRISES = (468, 473)
_SMALL = 48  # pixels, the side of a face after shrinking
_TURN = 15.0  # degrees
_ROUNDS = 200
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Answer:
    """A teacher's answer for one face. box: x1 y1 x2 y2. points: (P, 2). pose: (3,)."""

    name: str
    box: NDArray[np.float32]
    points: NDArray[np.float32]
    movements: NDArray[np.float32]
    pose: NDArray[np.float32]

    @property
    def eyes(self) -> float:
        """The distance between the irises, in pixels."""
        left, right = self.points[list(_IRISES)]
        return float(np.linalg.norm(right - left))


class Seen:
    """Reads pictures through the detector and keeps the face nearest to a place."""

    def __init__(self, weights: str | None) -> None:
        weights = weights or DEFAULT_MOVEMENTS
        self.reader = MovementReader(weights, torch.device("cpu"))
        self.side = load_movements(weights).network.config.size
        self.detector = Detector.load(DEFAULT_DETECTOR)

    def face(self, pixels: Pixels, middle: NDArray[Any], eyes: float) -> FaceMotion | None:
        """The motion of the face at a place; None if the detector finds none there."""
        (faces,) = self.detector.detect([pixels])
        near = [
            (float(np.linalg.norm(face.landmarks[:3].mean(0) - middle)), i)
            for i, face in enumerate(faces)
        ]
        if not near or min(near)[0] > 0.7 * eyes:
            return None
        return self.motion(pixels, faces[min(near)[1]])

    def motion(self, pixels: Pixels, face: Detection) -> FaceMotion:
        return self.reader.read([Picture(pixels, False, "picture")], [[face]])[0]


def main() -> int:
    """Print the figures as JSON."""
    arguments = _parse()
    require_native()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    seen = Seen(arguments.weights)
    answers, pictures = held_out(arguments.photographs, arguments.labels / "photographs.npz")
    answers = answers[: arguments.most]
    report: dict[str, Any] = {"faces": len(answers), "threads": torch.get_num_threads()}
    report["held_out"] = _scores(seen, answers, lambda answer: pictures(answer.name))
    report["held_out_48_pixels"] = _scores(seen, answers, lambda answer: shrunk(answer, pictures))
    report["mirror"] = _mirror(seen, answers, pictures)
    report["roll"] = _roll(seen, answers, pictures)
    if arguments.data is not None:
        report["ferplus_valid"] = _against_votes(seen, arguments.data)
    report["milliseconds"] = _times(seen, answers[0], pictures(answers[0].name))
    print(json.dumps(report, indent=2))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="tar of JPEG files")
    parser.add_argument("--labels", type=Path, required=True, help="a teacher's answers")
    parser.add_argument("--data", type=Path, help="folder of FER+ contact sheets")
    parser.add_argument("--weights", help="movement weights [the packaged ones]")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--most", type=int, help="score only so many faces")
    return parser.parse_args()


def held_out(archive: Path, labels: Path) -> tuple[list[Answer], Callable[[str], Pixels]]:
    """The answers for held-out photographs, and a function from a name to pixels."""
    table = read_table(labels)
    rows = [i for i, name in enumerate(table["image"].tolist()) if is_held_out(name)]
    answers = [
        Answer(
            str(table["image"][i]),
            table["boxes"][i],
            table["points"][i, :, :2],
            table["movements"][i],
            table["pose"][i],
        )
        for i in rows
    ]
    wanted = {answer.name for answer in answers}
    with tarfile.open(archive) as opened:
        files = {
            member.name: file.read()
            for member in opened
            if member.name in wanted and (file := opened.extractfile(member)) is not None
        }

    def pictures(name: str) -> Pixels:
        with Image.open(io.BytesIO(files[name])) as image:
            return np.asarray(image.convert("RGB"))

    return answers, pictures


def shrunk(answer: Answer, pictures: Callable[[str], Pixels]) -> Pixels:
    """A photograph shrunk until the face has 48 pixels, and enlarged to its size again."""
    image = Image.fromarray(pictures(answer.name))
    side = float(min(answer.box[2] - answer.box[0], answer.box[3] - answer.box[1]))
    share = min(1.0, _SMALL / side)
    small = image.resize(
        (max(1, round(share * image.width)), max(1, round(share * image.height))),
        Image.Resampling.LANCZOS,
    )
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def middle_of(answer: Answer) -> NDArray[Any]:
    """About the middle of eyes and nose."""
    return answer.points[[*_IRISES, 1]].mean(0)


def _scores(
    seen: Seen, answers: Sequence[Answer], picture: Callable[[Answer], Pixels]
) -> dict[str, Any]:
    """Agreement with the teacher's answers for the photographs as they are."""
    kept, motions = [], []
    for answer in answers:
        motion = seen.face(picture(answer), middle_of(answer), answer.eyes)
        if motion is not None:
            kept.append(answer)
            motions.append(motion)
    theirs = np.array([answer.movements for answer in kept])
    ours = np.array([list(motion.movements.values()) for motion in motions])
    names = seen.reader.names
    found = {
        name: float(np.corrcoef(theirs[:, i], ours[:, i])[0, 1])
        for i, name in enumerate(names)
        if theirs[:, i].std() >= _VARIES
    }
    apart = [
        float(np.linalg.norm(motion.mesh - answer.points, axis=1).mean()) / answer.eyes
        for answer, motion in zip(kept, motions, strict=True)
    ]
    poses = np.array([list(vars(motion.pose).values()) for motion in motions])
    off = np.abs((poses - [answer.pose for answer in kept] + 180) % 360 - 180)
    return {
        "found": len(kept),
        "movements_that_vary": len(found),
        "mean_correlation": float(np.mean(list(found.values()))),
        "mean_movement_error": float(np.abs(theirs - ours).mean()),
        "mesh_error_eye_distances": float(np.mean(apart)),
        "mesh_error_median": float(np.median(apart)),
        "pose_error_degrees": float(off.mean()),
        "yaw_pitch_roll_error": off.mean(0).round(2).tolist(),
        "correlations": {name: round(value, 3) for name, value in sorted(found.items())},
    }


def _mirror(
    seen: Seen, answers: Sequence[Answer], pictures: Callable[[str], Pixels]
) -> dict[str, float]:
    """Differences between a face and its mirror image, left and right exchanged."""
    twins = mirror_names(seen.reader.names)
    differences = []
    for answer in answers:
        pixels = pictures(answer.name)
        one = seen.face(pixels, middle_of(answer), answer.eyes)
        place = middle_of(answer) * (-1, 1) + (pixels.shape[1], 0)
        two = seen.face(np.ascontiguousarray(pixels[:, ::-1]), place, answer.eyes)
        if one is not None and two is not None:
            first, second = (np.array(list(each.movements.values())) for each in (one, two))
            differences.append(np.abs(first - second[twins]))
    means = np.mean(differences, axis=0)
    return {"mean": float(means.mean()), "worst_movement": float(means.max())}


def _roll(
    seen: Seen, answers: Sequence[Answer], pictures: Callable[[str], Pixels]
) -> dict[str, float]:
    """Degrees by which the roll follows a picture turned clockwise."""
    turned = []
    angle = np.radians(_TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for answer in answers:
        pixels = pictures(answer.name)
        image = Image.fromarray(pixels)
        other = image.rotate(-_TURN, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
        centre = np.array(image.size) / 2
        place = turn @ (middle_of(answer) - centre) + centre
        one = seen.face(pixels, middle_of(answer), answer.eyes)
        two = seen.face(np.asarray(other), place, answer.eyes)
        if one is not None and two is not None:
            turned.append((two.pose.roll - one.pose.roll + 180) % 360 - 180)
    off = np.abs(np.array(turned) - _TURN)
    return {
        "mean_follow": float(np.mean(turned)),
        "mean_error": float(off.mean()),
        "within_1.5_degrees": float((off <= 1.5).mean()),
    }


def _against_votes(seen: Seen, data: Path) -> dict[str, float]:
    """Areas under the curve on FER+ valid without duplicates, by the votes' first class."""
    faces = load_faces(data, split="valid", duplicates=False)
    labels = faces.votes.argmax(1).numpy()
    found = dataset_landmarks(faces.faces, seen.detector)
    pictures, located, kept = [], [], []
    for face, points, label in zip(faces.faces.numpy(), found, labels, strict=True):
        if np.isfinite(points).all():
            pictures.append(Picture(np.repeat(face[..., None], 3, 2), False, "face"))
            located.append([Detection((0.0, 0.0, 48.0, 48.0), 1.0, points)])
            kept.append(label)
    values = [motion.movements for motion in seen.reader.read(pictures, located)]
    smiles = np.array([v["mouthSmileLeft"] + v["mouthSmileRight"] for v in values])
    jaws = np.array([v["jawOpen"] for v in values])
    classes = np.array(kept)
    happy, surprised = (faces.classes.index(name) for name in ("happiness", "surprise"))
    return {
        "faces": len(kept),
        "without_landmarks": len(faces) - len(kept),
        "smile_happiness_auc": area(smiles, classes == happy),
        "jaw_surprise_auc": area(jaws, classes == surprised),
    }


def area(values: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """The area under the receiver operating characteristic; ties count half."""
    order = np.unique(values, return_inverse=True)[1]
    counts = np.bincount(order)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
    yes, no = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def _times(seen: Seen, answer: Answer, pixels: Pixels) -> dict[str, float]:
    """Milliseconds of one face, of eight, and of the network alone."""
    (faces,) = seen.detector.detect([pixels])
    picture = Picture(pixels, False, "picture")
    view = torch.randn(1, 3, seen.side, seen.side).contiguous(memory_format=torch.channels_last)

    def network() -> None:
        with torch.inference_mode():
            seen.reader.answer(view)

    return medians(
        {
            "one_face": lambda: seen.reader.read([picture], [faces[:1]]),
            "eight_faces": lambda: seen.reader.read([picture] * 8, [faces[:1]] * 8),
            "network": network,
        },
        _ROUNDS,
    )


if __name__ == "__main__":
    sys.exit(main())
