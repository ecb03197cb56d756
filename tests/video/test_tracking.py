"""Who is who: hand-made boxes, whose right numbers are plain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcnn.video.motion import BoxMotion
from pcnn.video.tracking import HELD_FRAMES, Tracker, assign


def box(x: float, y: float = 100.0, side: float = 50.0) -> tuple[float, float, float, float]:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def test_assign_an_example_by_hand() -> None:
    # Greedy takes 1 first and pays 1 + 9; together 2 + 3 is least.
    assert assign(np.array([[1.0, 2.0], [3.0, 9.0]]), most=10) == [(0, 1), (1, 0)]
    # Nothing above `most` is a pair, and no other pair is given up for it.
    assert assign(np.array([[1.0, 2.0], [3.0, 9.0]]), most=2.5) == [(0, 0)]
    assert assign(np.empty((0, 3)), most=1) == []
    assert assign(np.empty((3, 0)), most=1) == []


@given(
    st.integers(1, 5).flatmap(
        lambda rows: st.integers(1, 5).flatmap(
            lambda columns: st.lists(
                st.integers(0, 9), min_size=rows * columns, max_size=rows * columns
            ).map(lambda values: np.array(values, float).reshape(rows, columns))
        )
    )
)
def test_assign_is_as_cheap_as_the_best_of_all(costs: np.ndarray) -> None:
    pairs = assign(costs, most=9)
    small, large = sorted(costs.shape)
    table = costs if costs.shape[0] == small else costs.T
    best = min(
        sum(table[row, column] for row, column in enumerate(chosen))
        for chosen in itertools.permutations(range(large), small)
    )
    assert len(pairs) == small == len({r for r, _ in pairs}) == len({c for _, c in pairs})
    assert sum(costs[pair] for pair in pairs) == best


def test_motion_learns_a_speed_and_goes_on_with_it() -> None:
    motion = BoxMotion(box(100))
    for step in range(1, 31):  # 90 pixels a second
        motion.predict(1 / 30, seen=True)
        motion.update(box(100 + 3 * step), 0.99)
    motion.predict(0.5, seen=False)
    np.testing.assert_allclose(motion.box, box(100 + 90 + 45), atol=3)


def test_motion_is_the_same_at_each_frame_rate() -> None:
    ends = []
    for rate in (10, 60):
        motion = BoxMotion(box(100))
        for step in range(1, 2 * rate + 1):
            motion.predict(1 / rate, seen=True)
            motion.update(box(100 + 60 * step / rate), 0.99)
        motion.predict(1.0, seen=False)
        ends.append(motion.box)
    np.testing.assert_allclose(*ends, atol=1.5)


def test_an_unsure_box_moves_it_less() -> None:
    moved = []
    for score in (0.99, 0.5):
        motion = BoxMotion(box(100))
        motion.predict(0.03, seen=True)
        motion.update(box(120), score)
        moved.append(motion.box[0] - box(100)[0])
    assert 0 < moved[1] < moved[0] / 2


def follow(frames: list[list[tuple[float, float]]], rate: float = 15.0) -> list[list[int | None]]:
    """The numbers of faces given by x and score, frame after frame."""
    tracker = Tracker(sure=0.7)
    return [
        tracker.update(number / rate, [box(x) for x, _ in faces], [score for _, score in faces])
        for number, faces in enumerate(frames)
    ]


def test_numbers_count_from_one_and_stay() -> None:
    numbers = follow([[(100 + i, 0.9), (300 - i, 0.95)] for i in range(20)])
    assert numbers == [[1, 2]] * 20


def test_order_of_the_detector_does_not_matter() -> None:
    frames = [[(100, 0.9), (300, 0.95)], [(300, 0.95), (100, 0.9)], [(100, 0.9), (300, 0.95)]]
    assert follow(frames) == [[1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize("rate", [5.0, 15.0, 60.0])
def test_a_gap_of_ten_frames_is_bridged(rate: float) -> None:
    seen = [[(100, 0.9)]] * 5
    assert follow([*seen, *[[]] * 10, *seen], rate)[-1] == [1]


def test_who_was_away_for_long_has_another_number_and_none_comes_twice() -> None:
    seen = [[(100, 0.9)]] * 3
    numbers = follow([*seen, *[[]] * (HELD_FRAMES + 20), *seen])
    assert numbers[-1] == [2]


def test_unsure_faces_continue_a_track_and_begin_none() -> None:
    frames = [[(100, 0.9)], [(102, 0.4), (300, 0.4)], [(104, 0.9)]]
    assert follow(frames) == [[1], [1, None], [1]]


def test_two_who_cross_keep_their_numbers() -> None:
    """The second is hidden for eight frames, half hidden before: a worse box, a lower score."""
    frames = []
    for step in range(41):
        left, right = 100 + 5.0 * step, 300 - 5.0 * step
        hidden = abs(left - right) < 40
        half = abs(left - right) < 60
        frames.append([(left, 0.98)] + ([] if hidden else [(right, 0.55 if half else 0.96)]))
    numbers = follow(frames)
    assert numbers[0] == numbers[-1] == [1, 2]
    assert {number for row in numbers for number in row} <= {1, 2, None}


def test_after_a_cut_all_numbers_are_new() -> None:
    tracker = Tracker(sure=0.7)
    assert tracker.update(0.0, [box(100)], [0.9]) == [1]
    tracker.end_all()
    assert tracker.update(0.1, [box(100)], [0.9]) == [2]
    assert tracker.numbers == [2]


def test_predicted_places_and_who_is_missing_there() -> None:
    tracker = Tracker(sure=0.6)
    assert tracker.predict(0.0) == []
    assert not tracker.misses([])
    for step in range(10):  # 100 pixels a second, and one who stands still
        tracker.update(step / 10, [box(100 + 10 * step), box(400)], [0.9, 0.9])
    moving, still = tracker.predict(1.0)
    np.testing.assert_allclose(moving, box(200), atol=2)
    np.testing.assert_allclose(still, box(400), atol=1e-6)
    assert not tracker.misses([box(400), box(200)])
    assert tracker.misses([box(400)])
    assert tracker.misses([box(400), box(300)])
    # To predict the same moment again changes nothing, nor does `misses`.
    assert tracker.predict(1.0) == [moving, still]
    assert tracker.update(1.0, [box(400)], [0.9]) == [2]
    # Missing before, the first is no longer missed, but still expected.
    assert len(tracker.predict(1.1)) == 2
    assert not tracker.misses([box(400)])
    assert tracker.misses([])
