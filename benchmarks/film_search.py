"""What it costs not to search every frame of a film as a whole. Figures of docs/video.md.

    python benchmarks/film_search.py [--films N] [--frames N] [--seed N] [--photographs FILE]
                                     [--json FILE]

Each film (1280 × 720, 30 frames a second, H.264) has three people of LFW whose true places are
known. One is there from the start, one comes in from the side, one appears at once at any time.
They move at up to two face sides a second, and sway; faces are 25 to 200 pixels wide; the camera
trembles by two pixels. Every way of searching sees the same frames.
Recall: the share of true faces that are tracked; "once found": after the frame of their first. A
true face is counted if at least nine tenths of it are in the frame, and no more than three tenths
are hidden. Late: milliseconds from the moment it is counted until its track begins. Landmarks: the
mean error, as a share of the distance of the eyes. Changes: how often the number of the same person
changes. False: tracked faces that are none.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pcnn import Detection, Recognizer
from pcnn.faces.detector import Detector
from pcnn.faces.levels import shorter_side
from pcnn.recognition.film_search import SEARCH_EVERY_S, FilmSearch
from pcnn.recognition.finder import FaceFinder
from pcnn.video.decoding import FilmReader

PHOTOGRAPHS = Path(__file__).parent.parent.parent / "shared" / "data" / "lfw" / "lfw_faces.tar"
SIZE, RATE = (1280, 720), 30
SIDES = (25.0, 200.0)  # of faces, pixels
SPEED, TREMBLE = 2.0, 2.0  # face sides a second; pixels
INSIDE, HIDDEN = 0.9, 0.3
BINS = (25, 50, 100, 200)
Array = NDArray[Any]


@dataclass(frozen=True)
class Person:
    """A photograph with one face, and how it moves: its first frame, place, speed and sway."""

    picture: Image.Image
    box: Array  # (4,), of the face in the picture
    landmarks: Array  # (5, 2)
    first: int
    place: Array  # (2,), of the picture's corner in frame `first`
    speed: Array  # (2,), pixels a frame
    sway: tuple[float, float]  # pixels, radians a frame

    def corner(self, number: int) -> Array:
        step = number - self.first
        swayed = self.sway[0] * np.sin(self.sway[1] * step)
        return (self.place + step * self.speed + (swayed, 0)).round()


@dataclass
class Tally:
    """What one way of searching found."""

    seen: dict[int, list[bool]] = field(default_factory=lambda: {low: [] for low in BINS[:-1]})
    kept: list[bool] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    changes: int = 0
    false: int = 0
    frames: int = 0
    seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        every = [hit for hits in self.seen.values() for hit in hits]
        recalls = {f"recall from {low}": round(float(np.mean(hits)), 4)
                   for low, hits in self.seen.items() if hits}  # fmt: skip
        return {
            "recall": round(float(np.mean(every)), 4), **recalls, "faces": len(every),
            "recall once found": round(float(np.mean(self.kept)), 4),
            "late, ms": round(1000 * float(np.mean(self.late)), 1),
            "late, 95 %": round(1000 * float(np.quantile(self.late, 0.95)), 1),
            "landmarks": round(float(np.mean(self.errors)), 4),
            "changes": self.changes, "false": self.false,
            "ms a frame": round(1000 * self.seconds / self.frames, 2),
        }  # fmt: skip


def read_people(path: Path, detector: Detector, count: int, seed: int) -> list[tuple[Any, ...]]:
    """Photographs with exactly one face: picture, box, landmarks."""
    people = []
    with tarfile.open(path) as archive:
        names = [member for member in archive.getmembers() if member.name.endswith(".jpg")]
        for index in np.random.default_rng(seed).permutation(len(names)):
            content = archive.extractfile(names[index])
            assert content is not None
            picture = Image.open(io.BytesIO(content.read())).convert("RGB")
            faces = detector.detect([np.asarray(picture)], min_score=0.3)[0]
            if len(faces) == 1 and faces[0].score > 0.9:
                people.append((picture, np.array(faces[0].box), faces[0].landmarks))
                if len(people) == count:
                    break
    return people


def cast(people: list[tuple[Any, ...]], count: int, generator: np.random.Generator) -> list[Person]:
    """Three people for a film of `count` frames."""
    persons = []
    for kind in range(3):
        picture, box, points = people[generator.integers(len(people))]
        side = np.exp(generator.uniform(*np.log(SIDES)))
        scale = side / min(box[2] - box[0], box[3] - box[1])
        picture = picture.resize((round(scale * picture.width), round(scale * picture.height)))
        limits = np.maximum(1, np.array(SIZE) - picture.size)
        place = generator.uniform((0, 0), limits)
        angle = generator.uniform(0, 2 * np.pi)
        speed = side * generator.uniform(0, SPEED) / RATE * np.array((np.cos(angle), np.sin(angle)))
        if kind == 1:  # from the left
            place[0], speed[0] = -picture.width, max(abs(speed[0]), 0.7 * picture.width / count * 3)
        first = int(generator.integers(5, count // 2)) if kind == 2 else 0
        sway = side * generator.uniform(0, 0.3), generator.uniform(0.05, 0.3)
        persons.append(Person(picture, scale * box, scale * points, first, place, speed, sway))
    return persons


def write_film(path: Path, persons: list[Person], count: int, generator: Any) -> Array:
    """Write a film, and return the camera's trembling (count, 2) in pixels."""
    ground = generator.integers(60, 200, (9, 16, 3)).astype(np.uint8)
    background = Image.fromarray(ground).resize(SIZE, Image.Resampling.BICUBIC)
    moved = generator.normal(0, TREMBLE, (count, 2)).round()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            canvas = background.copy()
            for person in persons:
                if number >= person.first:
                    x, y = person.corner(number) + moved[number]
                    canvas.paste(person.picture, (int(x), int(y)))
            container.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        container.mux(stream.encode(None))
    return moved


def truth(persons: list[Person], number: int, moved: Array) -> list[tuple[int, Array, Array]]:
    """The counted faces of a frame: index of the person, box, landmarks."""
    counted = []
    for index, person in enumerate(persons):
        if number < person.first:
            continue
        corner = person.corner(number) + moved
        box = person.box + np.tile(corner, 2)
        covers = [
            np.concatenate((c, c + other.picture.size))
            for other in persons[index + 1 :]
            if number >= other.first
            for c in [other.corner(number) + moved]
        ]
        frame = np.array((0, 0, *SIZE))
        hidden = sum(shared(box, cover) for cover in covers) / area(box)
        if shared(box, frame) >= INSIDE * area(box) and hidden <= HIDDEN:
            counted.append((index, box, person.landmarks + corner))
    return counted


def area(box: Array) -> float:
    return float((box[2:] - box[:2]).prod())


def shared(one: Array, two: Array) -> float:
    common = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    return float(common.clip(0).prod())


def overlap(one: Array, two: Array) -> float:
    common = shared(one, two)
    return common / (area(one) + area(two) - common)


def score(
    tally: Tally, search: FilmSearch, frames: list[Any], persons: list[Person], moved: Array
) -> None:
    """Follow one film and count."""
    since: dict[int, float] = {}  # person → when first counted, until found
    numbers: dict[int, int] = {}
    begun: set[int] = set()
    for frame in frames:
        before = time.process_time()
        people = list(search.update(frame).people)
        tally.seconds += time.process_time() - before
        tally.frames += 1
        for index, box, points in truth(persons, frame.index, moved[frame.index]):
            hit = best_of(people, box)
            low = max(low for low in BINS[:-1] if low <= max(25, min(box[2:] - box[:2])))
            tally.seen[low].append(hit is not None)
            if index not in begun:
                since.setdefault(index, frame.time)
            else:
                tally.kept.append(hit is not None)
            if hit is None:
                continue
            number, face = hit
            people.remove(hit)
            if index not in begun:
                begun.add(index)
                tally.late.append(frame.time - since[index])
            tally.changes += numbers.get(index, number) != number
            numbers[index] = number
            eyes = float(np.linalg.norm(points[0] - points[1]))
            tally.errors.append(
                float(np.linalg.norm(face.landmarks - points, axis=1).mean()) / eyes
            )
        every = [person.box + np.tile(person.corner(frame.index) + moved[frame.index], 2)
                 for person in persons]  # fmt: skip
        tally.false += sum(
            max(shared(np.array(face.box), box) for box in every) < 0.3 * area(np.array(face.box))
            for _, face in people
        )


def best_of(people: list[tuple[int, Detection]], box: Array) -> tuple[int, Detection] | None:
    best = max(people, key=lambda each: overlap(np.array(each[1].box), box), default=None)
    return best if best is not None and overlap(np.array(best[1].box), box) >= 0.4 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--films", type=int, default=30)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    detector = Detector.load("mobilenet")
    recognizers = {None: Recognizer("small"), 1: Recognizer("small", min_face=1)}
    ways: dict[str, tuple[FaceFinder, float]] = {
        "every frame at its full size": (recognizers[1].finder, 0.0),
        "every frame, as in films": (recognizers[None].finder, 0.0),
        "near tracks": (recognizers[None].finder, SEARCH_EVERY_S),
    }
    tallies = {name: Tally() for name in ways}
    people = read_people(arguments.photographs, detector, 3 * arguments.films, arguments.seed)
    print(len(people), "people, faces of a median side of",
          np.median([shorter_side(Detection(tuple(b), 1.0, p)) for _, b, p in people]))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for film in range(arguments.films):
            generator = np.random.default_rng((arguments.seed, film))
            persons = cast(people, arguments.frames, generator)
            path = Path(folder) / "film.mp4"
            moved = write_film(path, persons, arguments.frames, generator)
            frames = list(FilmReader(path))
            for name, (finder, every) in ways.items():
                search = FilmSearch(finder, sure=finder.confidence, every=every)
                score(tallies[name], search, frames, persons, moved)
    found = {name: tally.figures() for name, tally in tallies.items()}
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
