"""When the whole frame is searched, and when only the tracks' surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pcnn import Detection, InputError
from pcnn.recognition.film_search import FilmSearch
from pcnn.recognition.films import FilmOptions
from pcnn.results.values import Face
from pcnn.video.decoding import DecodedFrame

RATE = 15
Box = tuple[float, float, float, float]


def face(x: float, score: float = 0.9) -> Detection:
    return Detection((x, 20.0, x + 40, 60.0), score, np.zeros((5, 2), np.float32))


class Finder:
    """Sees `faces`, near a box those whose middle it holds, and writes down how it was asked."""

    def __init__(self) -> None:
        self.faces: list[Detection] = [face(10)]
        self.hidden: list[Detection] = []  # seen in the whole frame alone
        self.asked: list[str] = []
        self.boxes: list[Box] = []
        self.near = True

    def find_in_frame(self, pixels: Any, min_score: float) -> Sequence[Detection]:
        assert min_score == 0.3
        self.asked.append("whole")
        return [*self.faces, *self.hidden]

    def find_near(
        self, pixels: Any, boxes: Sequence[Box], min_score: float
    ) -> Sequence[Detection] | None:
        if not self.near:
            return None
        self.asked.append("near")
        self.boxes = list(boxes)
        return [
            each
            for each in self.faces
            if any(box[0] < (each.box[0] + each.box[2]) / 2 < box[2] for box in boxes)
        ]


def frame(number: int, pixels: NDArray[np.uint8] | None = None) -> DecodedFrame:
    grey = np.full((96, 96, 3), 90, np.uint8)
    return DecodedFrame(number / RATE, number, grey if pixels is None else pixels)


@pytest.fixture
def finder() -> Finder:
    return Finder()


def search_of(finder: Any, *, sure: float = 0.7, every: float = 1 / 3) -> FilmSearch:
    return FilmSearch(finder, sure=sure, every=every)


def test_the_whole_is_searched_in_each_period(finder: Finder) -> None:
    search = search_of(finder)
    for number in range(12):
        found = search.update(frame(number))
        assert [each for each, _ in found.people] == [1] == list(found.tracks)
    assert finder.asked == ["whole", *["near"] * 4, "whole", *["near"] * 4, "whole", "near"]


def test_the_whole_of_each_frame_with_0(finder: Finder) -> None:
    search = search_of(finder, every=0)
    for number in range(3):
        search.update(frame(number))
    assert finder.asked == ["whole"] * 3


def test_frames_further_apart_than_a_period_are_searched_whole(finder: Finder) -> None:
    search = search_of(finder)
    for number in (0, 5, 6, 13):
        search.update(frame(number))
    assert finder.asked == ["whole", "whole", "near", "whole"]


def test_a_moving_face_is_looked_for_where_it_will_be(finder: Finder) -> None:
    search = search_of(finder)
    for number in range(5):
        finder.faces = [face(10 + 4 * number)]
        search.update(frame(number))
    finder.faces = [face(30)]
    search.update(frame(5))
    finder.faces = [face(34)]
    search.update(frame(6))
    (box,) = finder.boxes
    assert box[0] == pytest.approx(34, abs=1.5)


def test_a_missing_face_has_the_whole_searched_once(finder: Finder) -> None:
    search = search_of(finder)
    search.update(frame(0))
    finder.faces, finder.hidden = [], [face(10)]  # not seen in the surroundings
    assert [number for number, _ in search.update(frame(1)).people] == [1]
    assert finder.asked == ["whole", "near", "whole"]
    finder.hidden = []
    for number in (2, 3):
        assert not search.update(frame(number)).people
    # Missing now, it is still looked for, but the whole frame is searched no more.
    assert finder.asked[3:] == ["near", "whole", "near"]
    finder.faces = [face(10)]
    finder.asked = []
    assert [number for number, _ in search.update(frame(4)).people] == [1]
    assert finder.asked == ["near"]


def test_a_new_face_is_found_in_the_next_period(finder: Finder) -> None:
    search = search_of(finder)
    search.update(frame(0))
    finder.faces = [face(10), face(200)]
    counts = [len(search.update(frame(number)).people) for number in range(1, 7)]
    assert counts == [1, 1, 1, 1, 2, 2]


def test_after_a_cut_the_whole_is_searched_and_tracks_are_new(finder: Finder) -> None:
    search = search_of(finder)
    search.update(frame(0))
    search.update(frame(1))
    other = np.zeros((96, 96, 3), np.uint8)
    other[:, ::24] = other[:, 1::24] = 255
    other[48:] = 255 - other[48:]
    assert [number for number, _ in search.update(frame(2, other)).people] == [2]
    assert finder.asked == ["whole", "near", "whole"]


def test_few_pixels_or_many_faces_have_the_whole_searched(finder: Finder) -> None:
    finder.near = False
    search = search_of(finder)
    for number in range(3):
        search.update(frame(number))
    assert finder.asked == ["whole"] * 3


def test_unsure_faces_start_no_track_and_are_left_out(finder: Finder) -> None:
    finder.faces = [face(10), face(100, 0.5)]
    search = search_of(finder)
    assert [number for number, _ in search.update(frame(0)).people] == [1]


def test_known_faces_are_not_looked_for_and_lead_to_the_same(finder: Finder) -> None:
    every = search_of(finder)
    whole = []
    for number in range(9):
        finder.faces = [face(10.004 + 3.003 * number), face(150.006)]
        whole.append(every.update(frame(number)))
    asked, finder.asked = finder.asked, []
    search = search_of(finder)
    for number in range(9):
        finder.faces = [face(10.004 + 3.003 * number), face(150.006)]
        known = None
        if number < 6:
            known = [written(each) for _, each in whole[number].people]
        found = search.update(frame(number), known)
        assert [track for track, _ in found.people] == [1, 2]
        if number >= 6:
            for (_, one), (_, other) in zip(found.people, whole[number].people, strict=True):
                assert one.box == other.box
    assert finder.asked == asked[-3:] == ["near"] * 3


def written(each: Detection) -> Face:
    """The face as a file has it."""
    box = tuple(round(edge, 2) for edge in each.box)
    return Face("a", 1.0, {"a": 1.0}, {}, box, each.score, each.landmarks)  # type: ignore[arg-type]


@pytest.mark.parametrize("every", [-0.1, float("inf"), float("nan")])
def test_wrong_times(every: float) -> None:
    message = f"predict_video: search_every must be seconds of at least 0, got {every}"
    with pytest.raises(InputError, match=message):
        FilmOptions(sure=0.7, search_every=every, smoothing=None, step=8)
