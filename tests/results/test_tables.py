"""The tidy table of faces, in pandas, Arrow and supervision."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcnn.errors import InputError
from pcnn.results import tables
from pcnn.results.frames import FILM_COLUMNS, Frame, TrackedFace
from pcnn.results.tables import COLUMNS, face_schema, to_arrow, to_pandas
from pcnn.results.values import Expression, Face, Prediction

SCORES = {"neutral": 1 / 3, "happiness": 0.5, "anger": 1 / 6}
PAGE = "docs/tables.md"
LANDMARKS = np.arange(10, dtype=np.float32).reshape(5, 2) + 0.25
pytestmark = [
    pytest.mark.tables,
    # supervision's own, where OpenCV is not installed.
    pytest.mark.filterwarnings("ignore:OpenCV"),
]


def face(left: float = 1.5) -> Face:
    box = (left, 2.0, 30.125, 40.0)
    return Face("happiness", 0.5, SCORES, {"mouth": SCORES}, box, 0.875, LANDMARKS)


def two_faces() -> Prediction:
    return Prediction((face(), face(9.0)), "two.jpg", 640, 480)


def film_frame() -> Frame:
    tracked = TrackedFace(**vars(face()), track=1, raw=SCORES)
    return Frame(0.5, 2, (tracked,), "film.mp4", 640, 480)


def test_a_row_a_face_by_hand() -> None:
    rows = to_arrow(two_faces()).to_pylist()
    assert [row["face"] for row in rows] == [1, 2]
    assert rows[1]["x1"] == 9.0
    points = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    landmarks = {
        f"{point}_{axis}": LANDMARKS[i, j]
        for i, point in enumerate(points)
        for j, axis in enumerate("xy")
    }
    third, sixth = np.float32(1 / 3), np.float32(1 / 6)
    assert rows[0] == {
        **{"source": "two.jpg", "frame": None, "time_s": None, "face": 1},
        **{"label": "happiness", "confidence": 0.5},
        **{"x1": 1.5, "y1": 2.0, "x2": 30.125, "y2": 40.0, "detection_score": 0.875},
        "angle": np.float32(two_faces().faces[1].angle),
        "quality": None,
        **landmarks,
        **{"track": None, "width": 640, "height": 480, "error": None},
        **{"neutral": third, "happiness": 0.5, "anger": sixth},
    }


def test_the_columns_are_those_of_the_docs(pytestconfig: pytest.Config) -> None:
    page = (pytestconfig.rootpath / PAGE).read_text()
    listed = [
        (name, line.split("|")[2].strip())
        for line in page.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].replace("`", "").replace(",", " ").split()
    ]
    assert listed == [*COLUMNS.items(), ("neutral", "float32"), ("valence", "float32")]


def test_landmarks_of_films_are_named_as_in_tables() -> None:
    named = [name for name in COLUMNS if name.endswith(("_x", "_y"))]
    assert list(FILM_COLUMNS[-10:]) == named
    (row,) = film_frame().rows()
    (own,) = to_arrow(film_frame()).to_pylist()
    assert [row[name] for name in named] == [own[name] for name in named]


def test_pictures_without_faces_and_errors_have_one_row() -> None:
    results = [Prediction((), "none.jpg", 8, 9), InputError("bad.jpg: empty"), two_faces()]
    table = to_arrow(results, sources=["none.jpg", "bad.jpg", "two.jpg"])
    assert table["source"].to_pylist() == ["none.jpg", "bad.jpg", "two.jpg", "two.jpg"]
    assert table["face"].to_pylist() == [None, None, 1, 2]
    assert table["error"].to_pylist() == [None, "bad.jpg: empty", None, None]
    assert table["width"].to_pylist() == [8, None, 640, 640]
    assert table["happiness"].to_pylist() == [None, None, 0.5, 0.5]


def test_faces_that_were_cut_out_have_no_place() -> None:
    (row,) = to_arrow(Expression("anger", 0.5, SCORES, {}), sources=["a.png"]).to_pylist()
    assert (row["source"], row["face"], row["label"], row["x1"]) == ("a.png", 1, "anger", None)


def test_nothing_and_iterators() -> None:
    assert to_arrow([]).num_rows == 0 and to_arrow([]).column_names == list(COLUMNS)
    assert to_arrow(iter([two_faces(), two_faces()])).num_rows == 4
    empty = to_arrow([], classes=["a", "b"])
    assert empty.column_names[-2:] == ["a", "b"]
    assert json.loads(empty.schema.metadata[b"pcnn"]) == {"schema": 1, "classes": ["a", "b"]}


def test_names_that_are_no_unicode_are_escaped() -> None:
    broken = "\udcff.jpg"
    found = [dataclasses.replace(two_faces(), source=broken), InputError("no such file")]
    for table in (to_arrow(found, sources=[broken, broken]), to_arrow(found[0])):
        assert set(table.column("source").to_pylist()) == {"\\udcff.jpg"}
    assert set(to_pandas(found[0])["source"]) == {"\\udcff.jpg"}


def test_pandas_types_and_missing_values() -> None:
    table = to_pandas([two_faces(), Prediction((), "none.jpg", 8, 9)])
    assert list(table.columns) == [*COLUMNS, *SCORES]
    assert str(table.face.dtype) == "Int32" and str(table.track.dtype) == "Int64"
    assert str(table.happiness.dtype) == "float32" and str(table.time_s.dtype) == "float64"
    assert table.face.isna().tolist() == [False, False, True]
    assert np.isnan(table.confidence[2]) and table.confidence.mean() == 0.5
    assert table.label.dropna().tolist() == ["happiness", "happiness"]
    assert to_pandas([]).shape == (0, len(COLUMNS))


def test_a_predictions_own_table_is_the_same() -> None:
    for prediction in (two_faces(), Prediction((), "none.jpg", 8, 9)):
        assert prediction.to_pandas().equals(to_pandas(prediction))


def test_numbers_and_movements_of_any_face_have_columns() -> None:
    valued = Expression("anger", 0.5, SCORES, {}, values={"age": 30.5})
    plain = Expression("anger", 0.5, SCORES, {})
    for found in ([plain, valued], [valued, plain]):
        table = to_pandas(found, sources=[Path("a.png"), None])
        assert sorted(table.age, key=np.isnan)[0] == 30.5 and table.age.isna().sum() == 1
        assert table.source[0] == "a.png"


def test_videos_frames_and_tracks_have_their_columns() -> None:
    class Other:
        index, time, faces = 7, 0.28, (face(),)

    object.__setattr__(Other.faces[0], "track", 3)
    (row,) = to_arrow([Other()]).to_pylist()  # type: ignore[list-item]
    assert (row["frame"], row["time_s"], row["track"], row["width"]) == (7, 0.28, 3, None)


@pytest.mark.parametrize("convert", [to_pandas, to_arrow])
def test_errors(convert: Any) -> None:
    other = Prediction((Face("a", 1.0, {"a": 1.0}, {}, (0, 0, 1, 1), 1.0, LANDMARKS),), None, 1, 1)
    with pytest.raises(InputError, match="all have the classes neutral, happiness, anger; got a"):
        convert([two_faces(), other])
    with pytest.raises(InputError, match="sources must be one for each of 1 predictions, got 2"):
        convert(two_faces(), sources=["a", "b"])
    own = convert.__name__
    for kind, name in (("classes", "error"), ("values", "nose_x")):
        message = f"{own}: {kind} must not be named like other columns, got '{name}'"
        with pytest.raises(InputError, match=message):
            convert([], **{kind: [name]})


@pytest.mark.parametrize("convert", [to_pandas, to_arrow])
@pytest.mark.parametrize("wrong", [["x"], "x", b"x", None, 5, [two_faces(), None], {"a": 1}])
def test_what_is_no_prediction_is_refused(convert: Any, wrong: Any) -> None:
    with pytest.raises(InputError, match=rf"{convert.__name__}: predictions must be what Recogni"):
        convert(wrong)


@pytest.mark.parametrize("name", ["sources", "classes", "values", "movements"])
@pytest.mark.parametrize("wrong", ["ab", 5, [1, 2], {"a", "b"}, [b"a", b"b"]])
def test_names_that_are_no_texts_are_refused(name: str, wrong: Any) -> None:
    with pytest.raises(InputError, match=f"to_arrow: {name} must be (a list of )?texts, got "):
        to_arrow([two_faces(), two_faces()], **{name: wrong})
    if name != "sources":
        with pytest.raises(InputError, match=f"face_schema: {name} must be"):
            face_schema(**{"classes": ["a"], name: wrong})


def test_names_may_be_the_keys_of_scores() -> None:
    assert to_arrow(two_faces(), classes=SCORES.keys()).num_rows == 2  # type: ignore[arg-type]
    assert to_arrow([], classes=SCORES).column_names[-3:] == list(SCORES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "package", "call"),
    [
        ("to_pandas", "pandas", lambda: to_pandas([])),
        ("to_pandas", "pandas", lambda: two_faces().to_pandas()),
        ("to_arrow", "pyarrow", lambda: to_arrow([])),
        ("face_schema", "pyarrow", lambda: face_schema(["a"])),
        ("Prediction.to_supervision", "supervision", lambda: two_faces().to_supervision()),
        ("Frame.to_supervision", "supervision", lambda: film_frame().to_supervision()),
    ],
)
def test_missing_packages_are_named(
    function: str, package: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(tables, "importlib", type("none", (), {"import_module": missing}))
    with pytest.raises(InputError, match=f"^{function}: {package} must be installed: pip"):
        call()


def test_supervision() -> None:
    detections = two_faces().to_supervision()
    assert detections.xyxy.tolist() == [[1.5, 2.0, 30.125, 40.0], [9.0, 2.0, 30.125, 40.0]]
    assert detections.confidence.tolist() == [0.5, 0.5]
    assert detections.class_id.tolist() == [1, 1]
    assert detections.data["class_name"].tolist() == ["happiness"] * 2
    assert detections.data["scores"].shape == (2, 3)
    np.testing.assert_array_equal(detections.data["landmarks"], [LANDMARKS] * 2)
    second = detections[1]  # its own indexing carries all of it
    assert second.data["landmarks"].shape == (1, 5, 2) and second.xyxy[0, 0] == 9.0
    assert len(Prediction((), None, 8, 9).to_supervision()) == 0


def test_uncertain_faces_and_tracks_in_supervision() -> None:
    plain = face()
    unsure = Prediction((dataclasses.replace(plain, label="uncertain"),), None, 8, 9)
    detections = unsure.to_supervision()
    assert detections.class_id.tolist() == [1], "the likeliest"
    assert detections.data["class_name"].tolist() == ["uncertain"]
    assert detections.tracker_id is None
    fields = {each.name: getattr(plain, each.name) for each in dataclasses.fields(plain)}
    people = tuple(TrackedFace(**fields, track=track, raw=SCORES) for track in (3, 7))
    frame = Frame(0.28, 7, people, "film.mp4", 640, 480)
    assert frame.to_supervision().tracker_id.tolist() == [3, 7]
    assert [row["track"] for row in to_arrow(frame).to_pylist()] == [3, 7]


def test_the_examples_of_the_page_run(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").symlink_to(pytestconfig.rootpath / "docs")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", (tmp_path / PAGE).read_text(), re.DOTALL):
        exec(compile(example, PAGE, "exec"), scope)
