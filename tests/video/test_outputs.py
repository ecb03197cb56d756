"""Summaries, curves, subtitles and drawings of frames made by hand: all values are plain."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from films import av, shades

from pcnn.errors import InputError
from pcnn.results.frames import Frame, TrackedFace
from pcnn.video import summaries
from pcnn.video.annotation import Annotator
from pcnn.video.curves import axis_ticks, clock, sampled, segments
from pcnn.video.cuts import CutFinder
from pcnn.video.encoding import FilmWriter
from pcnn.video.page import timeline_page
from pcnn.video.subtitles import Cue, Subtitles
from pcnn.video.summaries import Summary
from pcnn.video.timeline import draw_timeline

CLASSES = ("calm", "<glad>")


def tracked(
    track: int, glad: float, box: tuple[float, float, float, float] = (20, 20, 60, 70)
) -> TrackedFace:
    scores = {"calm": 1 - glad, "<glad>": glad}
    label = max(scores, key=lambda name: scores[name])
    points = np.array([[30, 35], [50, 35], [40, 45], [33, 58], [47, 58]], np.float32)
    return TrackedFace(label, scores[label], scores, {}, box, 0.9, points, track, scores)


def frames(*moments: tuple[float, list[TrackedFace]]) -> list[Frame]:
    pixels = np.full((120, 160, 3), 90, np.uint8)
    return [
        Frame(time, number, tuple(faces), "film.mp4", 160, 120, pixels)
        for number, (time, faces) in enumerate(moments)
    ]


# Person 1: calm for 1 s, glad for 3 s, away for 2 s, calm in the last frame. Person 2: once.
FILM = frames(
    (0.0, [tracked(1, 0.2)]),
    (1.0, [tracked(1, 0.9), tracked(2, 0.4, (90, 20, 130, 70))]),
    (2.0, [tracked(1, 0.8)]),
    (4.0, []),
    (6.0, [tracked(1, 0.15)]),
)


def summed(film: list[Frame]) -> Summary:
    summary = Summary(CLASSES)
    for frame in film:
        summary.add(frame)
    return summary


def test_shares_of_time_by_hand() -> None:
    one, two = summed(FILM).tracks()
    assert (one.track, one.first, one.last, one.frames) == (1, 0.0, 6.0, 4)
    # The last frame lasts as long as the others on average: 6 s in 4 steps.
    assert one.seconds == pytest.approx(1 + 3 + 1.5)
    assert one.shares == pytest.approx({"<glad>": 3 / 5.5, "calm": 2.5 / 5.5})
    assert list(one.shares) == ["<glad>", "calm"]
    assert (two.first, two.last, two.shares) == (1.0, 1.0, {"calm": 1.0})
    assert summed(FILM).seconds == 6.0


def test_the_clearest_face_of_each_expression_is_kept() -> None:
    one, _ = summed(FILM).tracks()
    assert [(best.label, best.time) for best in one.best] == [("<glad>", 1.0), ("calm", 6.0)]
    assert one.best[0].picture().size == (96, 96)


def test_long_films_have_wider_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_MOST_BINS", 100)
    summary = summed(frames(*((0.04 * step, [tracked(1, step / 1000)]) for step in range(1000))))
    (one,) = summary.tracks()
    assert 25 <= len(one.times) <= 100
    np.testing.assert_allclose(one.curve[:, 1], one.times / 40, atol=summary.width_s / 40)


def test_many_people_do_not_widen_the_bins_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "_MOST_BINS", 10)
    summary = summed(frames(*((0.04 * step, [tracked(step + 1, 0.5)]) for step in range(100))))
    assert summary.width_s < 1
    assert [one.times[0] for one in summary.tracks()] == pytest.approx(
        0.04 * np.arange(100), abs=summary.width_s
    )


def test_curves_have_gaps_where_the_face_was_away() -> None:
    film = frames(*((0.1 * step, [tracked(1, 0.5)]) for step in (*range(10), *range(40, 50))))
    (one,) = summed(film).tracks()
    assert [piece.stop - piece.start for piece in segments(one)] == [10, 10]
    rows = sampled(one, np.array([0.5, 2.0, 4.5]))
    np.testing.assert_allclose(rows, [[0.5, 0.5], [0, 0], [0.5, 0.5]])


def test_ticks_and_clocks() -> None:
    assert [text for _, text in axis_ticks(0, 4)] == ["0:00.0", "0:00.5", *(
        f"0:0{second}.{tenth}" for second in (1, 2, 3) for tenth in (0, 5)), "0:04.0"]  # fmt: skip
    assert [clock(time) for time in (0, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]
    assert [clock(time, 0.1) for time in (4.24, 59.96, 119.97, 3599.96, 3723)] == [
        "0:04.2", "1:00.0", "2:00.0", "1:00:00.0", "1:02:03.0"]  # fmt: skip
    week = axis_ticks(0, 7 * 86_400)
    assert len(week) <= 11 and week[1] == (64_800, "18:00:00")


def test_subtitles_by_hand() -> None:
    subtitles = Subtitles()
    for frame in FILM:
        subtitles.add(frame)
    assert subtitles.cues() == [
        Cue(0.0, 1.0, "1: calm"),
        Cue(1.0, 2.0, "1: <glad>\n2: calm"),
        Cue(2.0, 4.0, "1: <glad>"),
        Cue(6.0, 8.0, "1: calm"),
    ]
    assert subtitles.srt().startswith("1\n00:00:00,000 --> 00:00:01,000\n1: calm\n\n2\n")
    assert "\n00:00:06.000 --> 00:00:08.000\n1: calm\n" in subtitles.webvtt()
    assert "\n1: &lt;glad&gt;\n2: calm\n" in subtitles.webvtt()


def test_the_only_frame_of_a_film_is_shown_for_a_moment_wherever_it_begins() -> None:
    subtitles = Subtitles()
    subtitles.add(frames((10.0, [tracked(1, 0.2)]))[0])
    assert subtitles.cues() == [Cue(10.0, 10.04, "1: calm")]


def test_the_picture_and_the_page_show_everybody() -> None:
    picture = np.asarray(draw_timeline(summed(FILM), "film.mp4"))
    grey = np.all(picture == (190, 190, 190), axis=2).mean()
    yellow = np.all(picture == (240, 228, 66), axis=2).mean()
    assert picture.shape[1] == 1600 and grey > 0.005 and yellow > 0.01
    page = timeline_page(summed(FILM), "<film>")
    assert page.count("<section>") == 2 and page.count("<polygon") >= 4
    assert "&lt;film&gt;" in page and "<glad>" not in page
    for nobody in (draw_timeline(Summary(CLASSES), "x"), timeline_page(Summary(CLASSES), "x")):
        assert nobody is not None


@pytest.mark.parametrize("count", [799, 801, 1599])
def test_a_long_curve_has_few_points_and_reaches_its_end(count: int) -> None:
    film = frames(*((0.04 * step, [tracked(1, 0.5)]) for step in range(count)))
    summary = summed(film)
    (one,) = summary.tracks()
    points = re.findall(r'points="([^"]*)"', timeline_page(summary, "x"))[0].split()
    assert len(points) == 2 * min(count, 800)
    ends = [float(point.split(",")[0]) for point in points]
    assert max(ends) == pytest.approx(1000 * one.times[-1] / summary.seconds, abs=0.1)


def test_an_uncertain_face_is_drawn_and_counted_as_such() -> None:
    unsure = dataclasses.replace(tracked(1, 0.5), label="uncertain")
    summary = summed(frames((0.0, [tracked(1, 0.9)]), (1.0, [unsure]), (2.0, [unsure])))
    (person,) = summary.tracks()
    assert person.shares == pytest.approx({"uncertain": 2 / 3, "<glad>": 1 / 3})
    page = timeline_page(summary, "film")
    assert "<th>uncertain</th>" in page and "uncertain 67%" in page
    assert "uncertain" not in timeline_page(summed(FILM), "film")
    assert draw_timeline(summary, "film").width == 1600
    (frame,) = frames((0.0, [unsure]))
    assert (Annotator(CLASSES).draw(frame, np.full((120, 160, 3), 90, np.uint8)) != 90).any()


def test_frames_are_drawn_on_and_left_alone_without_faces() -> None:
    annotator = Annotator(CLASSES)
    pixels = np.full((120, 160, 3), 90, np.uint8)
    for frame in FILM:
        drawn = annotator.draw(frame, pixels)
        assert (pixels == 90).all() and drawn.shape == pixels.shape
        assert (drawn != 90).any() == bool(frame.faces)


def test_a_written_film_has_its_times_and_even_sides(tmp_path: Path) -> None:
    moments = [1.0, 1.04, 1.5, 3.0]
    writer = FilmWriter(tmp_path / "out.mp4", start=1.0, rate=25)
    for time, pixels in zip(moments, shades(4, size=(65, 49)), strict=True):
        writer.add(time, pixels)
    writer.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = [(frame.time, frame.width, frame.height) for frame in container.decode(video=0)]
    assert [time for time, *_ in found] == pytest.approx([0.0, 0.04, 0.5, 2.0], abs=1e-4)
    assert {size for _, *size in map(tuple, found) for size in [tuple(size)]} == {(66, 50)}
    with pytest.raises(InputError, match="cannot be written"):
        FilmWriter(tmp_path / "no" / "out.mp4")


def test_cuts_are_found_and_flashes_and_movements_are_none() -> None:
    generator = np.random.default_rng(0)
    one, two = (generator.integers(0, 256, (12, 16, 3)).repeat(10, 0).repeat(10, 1) for _ in "ab")
    finder = CutFinder()
    scenes = [one, np.roll(one, 3, 1), one // 2 + 90, two, two]
    found = [finder.update(scene.astype(np.uint8)) for scene in scenes]
    assert found == [False, False, False, True, False]
