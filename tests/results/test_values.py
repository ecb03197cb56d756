"""Results as dicts and tables, and what is drawn from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pcnn.errors import InputError
from pcnn.results import placement as panels
from pcnn.results.frames import TrackedFace
from pcnn.results.values import FACE_COLUMNS, Detection, Expression, Face, Prediction

SCORES = {
    "neutral": 0.25,
    "happiness": 0.5,
    "surprise": 0.125,
    "sadness": 0.0625,
    "anger": 0.03125,
    "disgust": 0.015625,
    "fear": 0.0078125,
    "contempt": 0.0078125,
}
LANDMARKS = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.1], [-0.15, 0.3], [0.15, 0.3]])


def face_at(x: float, y: float, size: float) -> Face:
    """A happy face whose box is `size` high, with its middle at (x, y)."""
    box = (x - 0.4 * size, y - 0.5 * size, x + 0.4 * size, y + 0.5 * size)
    landmarks = (LANDMARKS * size + (x, y)).astype(np.float32)
    regions = {"mouth": SCORES, "left_eye": SCORES}
    return Face("happiness", 0.5, SCORES, regions, box, 0.75, landmarks)


def prediction_of(*faces: Face, size: tuple[int, int] = (640, 480)) -> Prediction:
    return Prediction(faces, None, *size)


def picture(size: tuple[int, int]) -> np.ndarray:
    """Plain blue, a colour that drawing never uses."""
    return np.full((size[1], size[0], 3), (0, 0, 90), np.uint8)


# --- values ---


def test_field_names_and_order_are_public() -> None:
    fields = {kind: [field.name for field in dataclasses.fields(kind)] for kind in ALL}
    assert fields == {
        Detection: ["box", "score", "landmarks"],
        Expression: ["label", "confidence", "scores", "regions", "values"],
        Face: [
            *("label", "confidence", "scores", "regions", "values"),
            *("box", "detection_score", "landmarks", "motion", "quality"),
        ],
        Prediction: ["faces", "source", "width", "height"],
    }


ALL = (Detection, Expression, Face, Prediction)


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        face_at(100, 100, 50).label = "anger"  # type: ignore[misc]


def test_to_dict_by_hand() -> None:
    prediction = Prediction((face_at(100, 100, 50),), "a.jpg", 640, 480)
    told = prediction.to_dict()
    assert list(told) == ["source", "width", "height", "faces"]
    assert (told["source"], told["width"], told["height"]) == ("a.jpg", 640, 480)
    face = told["faces"][0]
    assert list(face) == [
        *("label", "confidence", "scores", "regions", "box", "detection_score", "angle"),
        "landmarks",
    ]
    told_scores = {**SCORES, "fear": 0.007812, "contempt": 0.007812}  # 6 decimals
    assert face["scores"] == told_scores
    assert list(face["scores"]) == list(SCORES)
    assert face["regions"] == {"mouth": told_scores, "left_eye": told_scores}
    assert face["box"] == [80.0, 75.0, 120.0, 125.0]
    assert face["landmarks"] == [[90, 95], [110, 95], [100, 105], [92.5, 115], [107.5, 115]]
    assert json.loads(json.dumps(told)) == told


def test_to_dict_makes_plain_floats_of_numpys() -> None:
    value = np.float32(0.5)
    box = (value, value, value, value)
    face = Face("a", value, {"a": value}, {"m": {"a": value}}, box, value, np.ones((5, 2)))
    assert json.loads(json.dumps(face.to_dict()))["confidence"] == 0.5


def test_what_is_written_is_rounded_and_the_result_is_not() -> None:
    third, seventh = 1 / 3, 1 / 7
    scores = {"a": third, "b": seventh, "c": 1 - third - seventh}
    box, points = (1.23456, -2.34567, 9.87654, 8.0), np.full((5, 2), 3.14159)
    face = Face("c", scores["c"], scores, {"mouth": scores}, box, 0.98765432, points)
    told = face.to_dict()
    assert (
        told["scores"] == told["regions"]["mouth"] == {"a": 0.333333, "b": 0.142857, "c": 0.52381}
    )
    assert told["confidence"] == told["scores"]["c"]
    assert told["detection_score"] == 0.987654
    assert told["box"] == [1.23, -2.35, 9.88, 8.0] and told["landmarks"] == [[3.14, 3.14]] * 5
    (row,) = Prediction((face,), None, 20, 20).rows()
    assert list(row.values()) == [
        *(None, 1, "c", 0.52381, 1.23, -2.35, 9.88, 8.0, 0.987654, 0.0, None),
        *(0.333333, 0.142857, 0.52381),
    ]
    seen = dataclasses.replace(face, quality=0.123456)
    assert seen.to_dict()["quality"] == 0.1235 and "quality" not in told
    (row,) = Prediction((seen,), None, 20, 20).rows()
    assert row["quality"] == 0.1235 and list(row)[9:11] == ["angle", "quality"]
    assert face.scores["a"] == third and face.box == box and face.confidence == scores["c"]


@given(st.lists(st.floats(0.001, 1), min_size=8, max_size=8))
def test_rounded_probabilities_still_sum_to_one(weights: list[float]) -> None:
    scores = {str(index): weight / sum(weights) for index, weight in enumerate(weights)}
    told = Expression("0", scores["0"], scores, {}).to_dict()["scores"]
    assert abs(sum(told.values()) - 1) < 1e-5


def test_prediction_without_faces() -> None:
    prediction = prediction_of()
    assert prediction.to_dict()["faces"] == []
    assert prediction.rows() == []


def test_rows_are_flat_and_count_from_one() -> None:
    rows = Prediction((face_at(100, 100, 50), face_at(300, 100, 50)), "a.jpg", 640, 480).rows()
    assert list(rows[0]) == [*FACE_COLUMNS, *SCORES]
    assert [row["face"] for row in rows] == [1, 2]
    assert rows[1]["x1"] == 280.0
    assert rows[1]["happiness"] == 0.5


def test_rounded_results_are_what_is_written() -> None:
    third = 1 / 3
    scores, points = {"a": third, "b": 1 - third}, np.full((5, 2), 3.14159, np.float32)
    numbers = {"valence": -0.123456789}
    box = (1.23456, -2.34567, 9.87654, 8.0)
    face = Face(
        *("b", 1 - third, scores, {"mouth": scores}, box, 0.98765432, points),
        values=numbers,
        quality=0.123456,
    )
    found = face.rounded()
    assert found.to_dict() == face.to_dict()
    assert (found.confidence, found.scores["a"], found.regions["mouth"]["a"]) == (
        *(0.666667, 0.333333, 0.333333),
    )
    assert (found.values["valence"], found.quality) == (-0.123457, 0.1235)
    assert (found.box, found.detection_score) == ((1.23, -2.35, 9.88, 8.0), 0.987654)
    assert found.landmarks.dtype == np.float32 and found.landmarks[0, 0] == np.float32(3.14)
    tracked = TrackedFace(**vars(face), track=3, raw=scores).rounded()
    assert isinstance(tracked, TrackedFace) and tracked.raw["a"] == 0.333333
    place = Detection(box, 0.98765432, points).rounded()
    assert (place.box, place.score) == (found.box, found.detection_score)
    np.testing.assert_array_equal(place.landmarks, found.landmarks)


# --- drawing ---


@pytest.mark.parametrize(
    ("size", "faces", "expected"),
    [
        ((512, 512), [(256, 256, 400)], (512, 512)),
        ((2000, 1500), [(500, 900, 30), (1900, 1450, 30)], (2000, 1500)),
        ((640, 480), [(250, 220, 180), (410, 230, 170)], (640, 480)),
        ((640, 480), [(0, 240, 90), (640, 240, 90), (320, 0, 90), (320, 480, 90)], (640, 480)),
        ((640, 480), [(-40, 240, 60), (700, 500, 60)], (640, 480)),
        ((48, 48), [(24, 24, 40)], (480, 480)),
        ((250, 250), [(120, 100, 90), (20, 20, 30)], (500, 500)),
        ((257, 200), [(120, 100, 90)], (257, 200)),
        ((1, 1), [(0, 0, 10)], (512, 512)),
        (
            *((900, 600), [(50 + 90 * (i % 10), 60 + 110 * (i // 10), 60) for i in range(50)]),
            (900, 600),
        ),
    ],
    ids=[
        *("big", "small", "pair", "edges", "outside"),
        *("tiny", "enlarged", "just-not", "one-pixel", "crowd"),
    ],
)
def test_draw_sizes(
    size: tuple[int, int], faces: list[tuple[float, float, float]], expected: tuple[int, int]
) -> None:
    pixels = picture(size)
    before = pixels.copy()
    drawn = prediction_of(*(face_at(*face) for face in faces), size=size).draw(pixels)
    assert drawn.mode == "RGB"
    assert drawn.size == expected
    np.testing.assert_array_equal(pixels, before)
    assert (np.asarray(drawn) != (0, 0, 90)).any()


@pytest.mark.parametrize("size", [(40, 600), (600, 8), (3000, 5)])
def test_a_picture_too_narrow_for_a_label_gets_ground_for_it(size: tuple[int, int]) -> None:
    face = face_at(size[0] / 2, size[1] / 2, 5)
    (place,) = placed(size, [face])
    drawn = np.asarray(prediction_of(face, size=size).draw(picture(size)))
    assert drawn.shape[0] >= max(size[1], place.box.y2)
    assert drawn.shape[1] >= max(size[0], place.box.x2)
    assert (drawn.shape[1], drawn.shape[0]) != size
    rest = drawn[size[1] :] if drawn.shape[0] > size[1] else drawn[:, size[0] :]
    assert (rest == (24, 24, 24)).all(2).any()  # ground, and no more of the picture
    assert not (rest == (0, 0, 90)).all(2).any()


def some_placed(size: tuple[int, int], faces: list[Face]) -> list[panels.Placed | None]:
    drawn = panels.subjects(faces, 1)
    return panels.arrange(drawn, panels.Style(size, [face.title for face in drawn]))


def placed(size: tuple[int, int], faces: list[Face]) -> list[panels.Placed]:
    found = [place for place in some_placed(size, faces) if place is not None]
    assert len(found) == len(faces)
    return found


def texts(monkeypatch: pytest.MonkeyPatch, prediction: Prediction) -> list[str]:
    """What is written on the drawing of a prediction."""
    found: list[str] = []
    draw_text = ImageDraw.ImageDraw.text

    def note(self: Any, place: Any, text: str, *rest: Any, **options: Any) -> None:
        found.append(text)
        draw_text(self, place, text, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    prediction.draw(picture((prediction.width, prediction.height)))
    return found


def test_several_faces_bear_the_numbers_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    two = prediction_of(face_at(100, 240, 80), face_at(500, 240, 60))
    found = texts(monkeypatch, two)
    assert [row["face"] for row in two.rows()] == [1, 2]
    assert found[:2] == ["1", "2"]  # at the boxes, in their order
    assert {"1: happiness 50%", "2: happiness 50%"} <= set(found)


def test_the_only_face_bears_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(monkeypatch, prediction_of(face_at(100, 240, 80)))
    assert "happiness 50%" in found and "1" not in found


@pytest.mark.parametrize("side", [48, 100, 150])
def test_small_pictures_have_a_label(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small = prediction_of(face_at(side / 2, side / 2, 0.8 * side), size=(side, side))
    assert "happiness 50%" in texts(monkeypatch, small)


def test_boxes_of_enlarged_pictures_are_enlarged() -> None:
    """8 × 10 pixels at (20, 19) … (28, 29): its sides lie ten times as far."""
    (face,) = panels.subjects([face_at(24, 24, 10)], 10)
    assert face.box == (200, 190, 280, 290)
    np.testing.assert_allclose(face.landmarks, 10 * face_at(24, 24, 10).landmarks)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(
        one[3], other[3]
    )


@pytest.mark.parametrize("rows", range(1, 5))
@pytest.mark.parametrize("columns", range(1, 7))
def test_panels_stay_inside_and_off_faces_and_each_other(rows: int, columns: int) -> None:
    size = (1200, 900)
    faces = [
        face_at(1200 / columns * (column + 0.5), 900 / rows * (row + 0.5), 80)
        for row in range(rows)
        for column in range(columns)
    ]
    boxes = [place.box for place in placed(size, faces)]
    assert len(boxes) == len(faces)
    for index, panel in enumerate(boxes):
        assert panel[0] >= 0
        assert panel[1] >= 0
        assert panel[2] <= size[0]
        assert panel[3] <= size[1]
        assert not any(overlap(panel, face.box) for face in faces)
        assert not any(overlap(panel, other) for other in boxes[:index])


def test_one_face_gets_the_whole_chart_beside_it() -> None:
    face = face_at(223, 112, 120)
    (place,) = placed((512, 512), [face])
    assert place.clean
    assert [name for name, _ in place.panel.rows][:3] == ["happiness", "neutral", "surprise"]
    assert len(place.panel.rows) == len(SCORES)
    assert place.box.x1 > 223 + 48 + 0.3 * 96  # to the right of box and hair
    assert place.box.y1 == pytest.approx(52 - 0.35 * 120)  # and level with the head's top


def test_labels_go_above_the_head_where_there_is_room() -> None:
    (place,) = placed((640, 480), [face_at(320, 300, 90)])
    assert place.box.y2 <= 255 - 0.35 * 90
    assert (place.box.x1 + place.box.x2) / 2 == pytest.approx(320)


def test_labels_keep_off_the_hair_of_neighbours() -> None:
    """In a row of heads without room above them, all panels lie below."""
    faces = [face_at(100 + 110 * index, 60, 80) for index in range(5)]
    found = placed((640, 300), faces)
    for place in found:
        assert place.clean and len(place.panel.rows) == 3
    for face in faces:
        x1, y1, x2, y2 = face.box
        hair = (x1 - 0.3 * (x2 - x1), y1 - 0.35 * (y2 - y1), x2 + 0.3 * (x2 - x1), y2)
        assert not any(overlap(place.box, hair) for place in found)


def test_large_face_keeps_eyes_to_mouth_free() -> None:
    face = face_at(256, 256, 400)
    (place,) = placed((512, 512), [face])
    assert not place.panel.rows  # a chart would hide more of the head than the label
    low, high = face.landmarks.min(0), face.landmarks.max(0)
    assert not overlap(place.box, (*low, *high))


def test_a_crowd_of_small_faces_has_no_labels_over_each_other_or_over_faces() -> None:
    """48 faces of 20 pixels in 320 × 240: only some labels have room, all boxes a number."""
    faces = [
        face_at(20 + 40 * column, 20 + 40 * row, 20) for row in range(6) for column in range(8)
    ]
    found = some_placed((320, 240), faces)
    assert len(found) == 48 and None in found
    labels = [place.box for place in found if place is not None]
    assert labels
    for index, label in enumerate(labels):
        assert not any(overlap(label, other) for other in labels[:index])
        for face, place in zip(faces, found, strict=True):
            if place is None or place.box != label:
                low, high = face.landmarks.min(0), face.landmarks.max(0)
                assert not overlap(label, (*low, *high))


def test_faces_without_a_label_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    faces = [
        face_at(20 + 40 * column, 20 + 40 * row, 20) for row in range(6) for column in range(8)
    ]
    found = texts(monkeypatch, prediction_of(*faces, size=(320, 240)))
    assert {str(number) for number in range(1, 49)} <= set(found)
    assert len([text for text in found if ":" in text]) < 48


def test_letters_grow_with_the_picture_and_shrink_in_a_crowd() -> None:
    assert panels.Style((512, 512), ["fear"]).title_px == 13
    assert panels.Style((4000, 3000), ["fear"]).title_px == 51
    assert panels.Style((4000, 3000), ["fear"] * 40).title_px == 26
    assert panels.Style((64, 64), ["fear"]).title_px == 12


def test_a_strip_of_a_picture_is_drawn_as_a_strip() -> None:
    for size in ((1_000_000, 1), (1, 1_000_000)):
        width, height = panels.Style(size, ["no face found"]).size
        assert min(width, height) < 300 and max(width, height) == 1_000_000
    # What people take for a panorama keeps its large letters.
    assert panels.Style((8000, 1000), ["fear"]).title_px == 95


def test_picture_without_faces_says_so() -> None:
    drawn = np.asarray(prediction_of().draw(picture((640, 480))))
    changed = np.argwhere((drawn != picture((640, 480))).any(axis=2))
    assert len(changed)
    assert changed[:, 0].min() > 440  # the note is in the lower left corner
    assert changed[:, 1].max() < 120


def test_draw_reads_the_source(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture((640, 480))).save(path)
    faces = (face_at(100, 100, 50),)
    from_source = Prediction(faces, str(path), 640, 480).draw()
    given = prediction_of(*faces).draw(picture((640, 480)))
    np.testing.assert_array_equal(np.asarray(from_source), np.asarray(given))


def test_draw_takes_bgr() -> None:
    drawn = prediction_of().draw(picture((640, 480))[:, :, ::-1], bgr=True)
    assert drawn.getpixel((600, 10)) == (0, 0, 90)


def test_draw_without_image_or_source() -> None:
    with pytest.raises(InputError) as caught:
        prediction_of().draw()
    assert str(caught.value) == (
        "Prediction.draw: image must be given, because the picture had no path: "
        "pass the same picture again"
    )


def test_draw_with_another_picture() -> None:
    with pytest.raises(InputError) as caught:
        prediction_of().draw(picture((480, 640)))
    assert str(caught.value) == (
        "Prediction.draw: image must be 640 × 480 as predicted, got 480 × 640: "
        "pass the same picture"
    )
