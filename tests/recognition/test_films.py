"""Films of photographs of LFW: who is in them, when, and with which scores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import PEOPLE, face, scene, write_film

from pcnn import InputError, Recognizer
from pcnn.recognition.films import Film
from pcnn.results.frames import FILM_COLUMNS, Frame
from pcnn.results.values import Face

RATE = 15


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer("small", device="cpu")


@pytest.fixture(scope="module")
def people(shared_data: Path) -> list[np.ndarray]:
    return [face(shared_data / "lfw" / "lfw_faces.tar", name, 120) for name in PEOPLE]


@pytest.fixture(scope="module")
def pair(people: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of a second with two people who stand still."""
    frames = [scene([(people[0], 90, 100), (people[2], 250, 100)], size=(340, 200))] * RATE
    return write_film(tmp_path_factory.mktemp("films") / "pair.mp4", frames)


def tracks(frames: list[Frame]) -> dict[int, list[int]]:
    """Person → the frames they are in."""
    found: dict[int, list[int]] = {}
    for frame in frames:
        for each in frame.faces:
            found.setdefault(each.track, []).append(frame.index)
    return found


def middle(frame: Frame, track: int) -> float:
    (box,) = [each.box for each in frame.faces if each.track == track]
    return (box[0] + box[2]) / 2


def test_two_people_cross_and_keep_their_numbers(
    recognizer: Recognizer, people: list[np.ndarray], tmp_path: Path
) -> None:
    """The first goes right, behind the second, who goes left: half a second hidden."""
    places = [(80 + 8 * step, 400 - 8 * step) for step in range(41)]
    frames = [scene([(people[0], a, 135), (people[2], b, 135)]) for a, b in places]
    found = list(recognizer.predict_video(write_film(tmp_path / "cross.mp4", frames)))
    assert len(found) == 41
    seen = tracks(found)
    assert set(seen) == {1, 2}
    front, back = sorted(seen, key=lambda track: -len(seen[track]))
    assert seen[front] == list(range(41))
    for frame, (a, b) in zip(found, places, strict=True):
        assert abs(middle(frame, front) - b) < 12
        if frame.index in (0, 40):
            assert abs(middle(frame, back) - a) < 12
    assert seen[back][0] == 0 and seen[back][-1] == 40 and len(seen[back]) < 41


class Slow:
    """Photographs that take their time, and say when they are read."""

    def __init__(self, photographs: Any) -> None:
        self._photographs = photographs
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._photographs, name)

    def located(self, *arguments: Any) -> Any:
        self.begun.set()
        assert self.go_on.wait(30)
        return self._photographs.located(*arguments)


def test_another_thread_may_close_a_film_and_none_may_read_it(
    recognizer: Recognizer, pair: Path
) -> None:
    film = recognizer.predict_video(pair)
    slow = film._photographs = Slow(film._photographs)  # type: ignore[assignment]
    read: list[Frame] = []
    reader = threading.Thread(target=lambda: read.extend(film))
    reader.start()
    assert slow.begun.wait(30)
    with pytest.raises(InputError, match="Film: another thread is reading"):
        next(film)
    with pytest.raises(RuntimeError, match="my own"), film:
        raise RuntimeError("my own")
    slow.go_on.set()
    reader.join(30)
    assert not reader.is_alive() and not read and not list(film)


def test_reading_ends_while_another_thread_releases_the_film(
    recognizer: Recognizer, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = recognizer.predict_video(pair)
    next(film)
    begun, go_on = threading.Event(), threading.Event()
    release = film._reader.close

    def slow() -> None:
        begun.set()
        assert go_on.wait(30)
        release()

    monkeypatch.setattr(film._reader, "close", slow)
    closer = threading.Thread(target=film.close)
    closer.start()
    assert begun.wait(30)
    assert not list(film)
    go_on.set()
    closer.join(30)
    assert not closer.is_alive()


def test_one_leaves_and_comes_back(
    recognizer: Recognizer, people: list[np.ndarray], tmp_path: Path
) -> None:
    """Away for ten frames the number stays, away for thirty it is a new one."""
    away = {*range(5, 15), *range(20, 50)}
    frames = [
        scene(
            [(people[0], 90, 100)] + ([] if step in away else [(people[2], 250, 100)]),
            size=(340, 200),
        )
        for step in range(55)
    ]
    found = list(recognizer.predict_video(write_film(tmp_path / "back.mp4", frames)))
    seen = tracks(found)
    stayed = next(track for track in (1, 2) if len(seen[track]) == 55)
    assert seen[3 - stayed] == [*range(5), *range(15, 20)]
    assert seen[3] == list(range(50, 55))
    assert set(seen) == {1, 2, 3}


def test_after_a_cut_nobody_is_taken_for_somebody_else(
    recognizer: Recognizer, people: list[np.ndarray], tmp_path: Path
) -> None:
    frames = []
    for step in range(8):
        shot = scene([(people[0 if step < 4 else 2], 170, 100)], size=(340, 200)).copy()
        ground = (shot == (96, 104, 112)).all(2)
        stripes = np.arange(340)[None, :, None] // 60 % 2 == (step >= 4)
        shot[ground] = np.broadcast_to(np.where(stripes, 30, 220), shot.shape)[ground]
        frames.append(shot.astype(np.uint8))
    found = list(recognizer.predict_video(write_film(tmp_path / "cut.mp4", frames)))
    assert tracks(found) == {1: [0, 1, 2, 3], 2: [4, 5, 6, 7]}


def test_frames_have_what_predict_finds_in_them(recognizer: Recognizer, pair: Path) -> None:
    (first, *_) = recognizer.predict_video(pair, every=5.0, smoothing=None, keep_pixels=True)
    assert first.pixels is not None
    alone = recognizer.predict(first.pixels)
    assert (first.width, first.height, first.source) == (340, 200, str(pair))
    assert len(first.faces) == len(alone.faces) == 2
    for tracked, found in zip(first.faces, alone.faces, strict=True):
        assert tracked.label == found.label
        np.testing.assert_allclose(tracked.box, found.box, atol=0.006)
        np.testing.assert_allclose(tracked.landmarks, found.landmarks, atol=0.006)
        assert tracked.scores == tracked.raw == pytest.approx(found.scores, abs=1e-6)


def test_steady_scores_and_raw_ones(recognizer: Recognizer, pair: Path) -> None:
    frames = list(recognizer.predict_video(pair))
    raw = list(recognizer.predict_video(pair, smoothing=None))
    for frame, plain in zip(frames, raw, strict=True):
        for steady, own in zip(frame.faces, plain.faces, strict=True):
            assert steady.raw == own.scores == own.raw
            assert steady.confidence == max(steady.scores.values())
            assert sum(steady.scores.values()) == pytest.approx(1, abs=1e-9)


def test_faces_below_the_least_confidence_are_uncertain(recognizer: Recognizer, pair: Path) -> None:
    sure = [frame.to_dict() for frame in recognizer.predict_video(pair, every=0.5)]
    doubtful = Recognizer("small", device="cpu", min_confidence=1.0).predict_video(pair, every=0.5)
    for frame, other in zip(doubtful, sure, strict=True):
        for each, plain in zip(frame.to_dict()["faces"], other["faces"], strict=True):
            assert each["label"] == "uncertain" != plain["label"]
            assert {**each, "label": plain["label"]} == plain


def test_rows(recognizer: Recognizer, pair: Path) -> None:
    frames = list(recognizer.predict_video(pair, every=0.5))
    rows = [row for frame in frames for row in frame.rows()]
    assert len(rows) == 4
    raw = [f"raw_{name}" for name in recognizer.classes]
    assert list(rows[0]) == [*FILM_COLUMNS, *recognizer.classes, *raw]
    assert [(row["time"], row["frame"], row["track"]) for row in rows] == [
        *((0.0, 0, 1), (0.0, 0, 2)),
        *((pytest.approx(0.533333), 8, 1), (pytest.approx(0.533333), 8, 2)),
    ]


def test_a_run_that_knows_the_first_half_ends_the_same(
    recognizer: Recognizer, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [frame.to_dict() for frame in recognizer.predict_video(pair)]

    def known() -> Iterator[tuple[int, list[Face]]]:
        for frame in whole[:8]:
            yield frame["frame"], [face_of_dict(each) for each in frame["faces"]]

    looked = []
    detect = recognizer.finder._detector.detect
    monkeypatch.setattr(
        recognizer.finder._detector,
        "detect",
        lambda images, **options: looked.extend(images) or detect(images, **options),
    )
    again = [frame.to_dict() for frame in recognizer.predict_video(pair, known=known())]
    assert len(looked) == RATE - 8
    for frame in (*whole, *again):
        for each in frame["faces"]:
            each.pop("regions")
    assert again == whole


@pytest.fixture(scope="module")
def walk(people: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 1.2 seconds, 640 × 360, in which two people walk, and a third comes after 0.6 s."""
    frames = [
        scene(
            [(people[0], 90 + 5 * step, 110), (people[2], 500 - 4 * step, 240)]
            + ([(people[1], 80, 280)] if step >= 9 else []),
            size=(640, 360),
        )
        for step in range(18)
    ]
    return write_film(tmp_path_factory.mktemp("films") / "walk.mp4", frames)


def test_searching_near_tracks_finds_the_same_people(recognizer: Recognizer, walk: Path) -> None:
    """The third is new between two searches of the whole, in frames 5 and 10."""
    every = list(recognizer.predict_video(walk, search_every=0))
    near = list(recognizer.predict_video(walk))
    assert tracks(every) == {1: list(range(18)), 2: list(range(18)), 3: list(range(9, 18))}
    assert tracks(near) == {1: list(range(18)), 2: list(range(18)), 3: list(range(10, 18))}
    for frame, whole in zip(near, every, strict=True):
        for found in frame.faces:
            (other,) = [each for each in whole.faces if each.track == found.track]
            np.testing.assert_allclose(found.box, other.box, atol=12)


def test_known_faces_lead_on_near_tracks_too(recognizer: Recognizer, walk: Path) -> None:
    """Frames 12 and 13 are known, and are in a batch with frames that are not."""
    whole = [frame.to_dict() for frame in recognizer.predict_video(walk)]
    known = [
        (frame["frame"], [face_of_dict(each) for each in frame["faces"]]) for frame in whole[:14]
    ]
    again = [frame.to_dict() for frame in recognizer.predict_video(walk, known=known)]
    for frame in (*whole, *again):
        for each in frame["faces"]:
            each.pop("regions")
    assert again == whole


def test_known_faces_of_other_classes_are_refused(recognizer: Recognizer, walk: Path) -> None:
    place = np.array([[3, 3], [7, 3], [5, 5], [4, 7], [6, 7]], np.float32)
    other = Face("joy", 1.0, {"joy": 1.0}, {}, (0.0, 0.0, 9.0, 9.0), 0.9, place)
    refusal = pytest.raises(InputError, match=r"known faces must have the classes .*, got joy")
    with recognizer.predict_video(walk, known=[(0, [other])]) as film, refusal:
        next(film)


def face_of_dict(each: dict) -> Face:
    label = max(each["raw"], key=each["raw"].get)
    return Face(
        label, each["raw"][label], each["raw"], {}, tuple(each["box"]),
        each["detection_score"], np.array(each["landmarks"], np.float32), quality=each["quality"],
    )  # fmt: skip


def test_it_can_be_left_early_and_closed_twice(recognizer: Recognizer, pair: Path) -> None:
    with recognizer.predict_video(pair) as film:
        assert isinstance(film, Film)
        assert repr(film).startswith(f"<Film: {pair}; FilmInfo(rate=15.0, ")
        assert next(film).index == 0
    film.close()
    with pytest.raises(StopIteration):
        next(film)


def test_a_detector_of_ones_own(pair: Path) -> None:
    from pcnn import Detection

    class Corner:
        """Takes the upper left part for a face, surely or not."""

        def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
            points = np.array([[30, 40], [60, 40], [45, 55], [35, 70], [55, 70]], np.float32)
            return [[Detection((10.0, 10.0, 90.0, 90.0), 0.1, points)] for _ in images]

    film = Recognizer("small", detector=Corner(), device="cpu").predict_video(pair, every=0.2)
    assert tracks(list(film)) == {1: [0, 3, 6, 9, 12]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 1.5}, "predict_video: min_score must be 0…1, got 1.5"),
        ({"smoothing": -1}, "predict_video: smoothing must be None or seconds, got -1"),
        (
            {"search_every": -1},
            "predict_video: search_every must be seconds of at least 0, got -1",
        ),
        ({"every": -1}, "predict_video: every must be seconds above 0, got -1"),
    ],
)
def test_wrong_options(
    recognizer: Recognizer, pair: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        recognizer.predict_video(pair, **options)


@pytest.mark.parametrize(("min_face", "film", "photograph"), [(None, 15.0, None), (60, 60, 60)])
def test_the_least_face_of_films_and_of_photographs(
    walk: Path,
    monkeypatch: pytest.MonkeyPatch,
    min_face: int | None,
    film: float,
    photograph: float | None,
) -> None:
    """By itself a film's is a 24th of the frame's 360 lines."""
    recognizer = Recognizer("small", device="cpu", min_face=min_face)
    asked = []
    detect = recognizer.finder._detector.detect

    def watched(images, **options):  # type: ignore[no-untyped-def]
        asked.append(options.get("min_face"))
        return detect(images, **options)

    monkeypatch.setattr(recognizer.finder._detector, "detect", watched)
    (frame, *_) = recognizer.predict_video(walk, end=0.01, keep_pixels=True)
    assert asked == [film]
    assert len(frame.faces) == 2
    recognizer.predict(frame.pixels)
    assert asked == [film, photograph]


def test_a_detector_of_ones_own_cannot_be_given_min_face() -> None:
    class Blind:
        def detect(self, images, *, min_score=None):  # type: ignore[no-untyped-def]
            return [[] for _ in images]

    message = "Recognizer: a detector of your own cannot be given min_face: omit it"
    with pytest.raises(InputError, match=message):
        Recognizer("small", detector=Blind(), device="cpu", min_face=20)
    message = "Recognizer: min_face must be pixels of at least 1, got 0"
    with pytest.raises(InputError, match=message):
        Recognizer("small", device="cpu", min_face=0)
