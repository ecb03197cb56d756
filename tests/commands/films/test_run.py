"""`pcnn-predict` with films: rows, files beside them, broken-off runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import cli
import numpy as np
import pytest
from films import PEOPLE, av, face, scene, shades, write_film
from PIL import Image

from pcnn import Recognizer, to_arrow
from pcnn.commands import shared
from pcnn.commands.films import outputs
from pcnn.commands.films.options import DEFAULT_SEARCH_EVERY_S, DEFAULT_SMOOTHING_S, clock
from pcnn.errors import InputError
from pcnn.recognition.film_search import SEARCH_EVERY_S
from pcnn.results.frames import FILM_COLUMNS
from pcnn.results.values import FACE_COLUMNS
from pcnn.video.smoothing import SMOOTHING_S

COUNT = 12


@pytest.fixture(scope="module")
def loaded() -> Recognizer:
    return Recognizer("small", device="cpu")


@pytest.fixture
def folder(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loaded: Recognizer,
    astronaut: Path,
) -> Path:
    """The current folder, with `media` in it: a film with sound, one of greys, a picture."""
    monkeypatch.setattr("pcnn.commands.predict.load_recognizer", lambda _: loaded)
    monkeypatch.chdir(tmp_path)
    media = tmp_path / "media"
    media.mkdir()
    pictures = [face(shared_data / "lfw" / "lfw_faces.tar", name, 120) for name in PEOPLE[::2]]
    frames = [
        scene([(pictures[0], 90, 100), (pictures[1], 250 - step, 100)], size=(341, 201))
        for step in range(COUNT)
    ]
    write_film(media / "people.mp4", [frame[:200, :340] for frame in frames], sound_s=0.8)
    write_film(media / "grey.mkv", shades(COUNT))
    with Image.open(astronaut) as picture:
        picture.crop((130, 20, 330, 220)).save(media / "portrait.png")
    return tmp_path


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_of_both_as_csv(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.predict(["media", "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = rows_of(captured.out)
    assert [row["source"] for row in rows] == [
        "media/portrait.png", *["media/people.mp4"] * 2 * COUNT
    ]  # fmt: skip
    assert (rows[0]["label"], rows[0]["frame"], rows[0]["track"]) == ("happiness", "", "")
    assert [(row["frame"], row["track"]) for row in rows[1:]] == [
        (str(frame), track) for frame in range(COUNT) for track in ("1", "2")
    ]
    assert float(rows[-1]["time"]) == pytest.approx((COUNT - 1) / 15, abs=1e-3)


def test_pictures_and_films_have_the_columns_of_both_in_csv(
    folder: Path, shared_data: Path, loaded: Recognizer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row has what the same input has alone, and what else is known."""
    people = [face(shared_data / "lfw" / "lfw_faces.tar", name, 120) for name in PEOPLE]
    places = [(person, 80 + 150 * i, 100) for i, person in enumerate(people)]
    Image.fromarray(scene(places)).save("three.png")

    def table(*inputs: str) -> list[dict[str, str]]:
        assert cli.predict([*inputs, "--every", "0.4", "--format", "csv"]) == 0
        return rows_of(capsys.readouterr().out)

    pictures, film = table("three.png"), table("media/people.mp4")
    classes = list(loaded.classes)
    raw = [f"raw_{name}" for name in classes]
    assert list(pictures[0]) == [*FACE_COLUMNS, *classes]
    assert list(film[0]) == [*FILM_COLUMNS, *classes, *raw]
    both = table("three.png", "media/people.mp4")
    assert list(both[0])[:7] == [
        *("source", "time", "frame", "track", "face", "label", "confidence"),
    ]
    assert set(both[0]) == {*pictures[0], *film[0]} and list(both[0])[-16:] == [*classes, *raw]
    assert [row["face"] for row in both] == ["1", "2", "3", *["1", "2"] * 2]
    for row, alone in zip(both, [*pictures, *film], strict=True):
        assert {name: row[name] for name in alone} == alone
    faces = loaded.predict("three.png").faces
    for row, found in zip(both, faces, strict=False):
        points = [float(row[name]) for name in FILM_COLUMNS[-10:]]
        assert points == pytest.approx(found.landmarks.flatten().tolist(), abs=0.006)
        assert {row[name] for name in ("time", "frame", "track", *raw)} == {""}
    assert all(-180 < float(row["angle"]) <= 180 for row in both)


@pytest.mark.tables
def test_a_folder_of_both_as_parquet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pyarrow import parquet

    (folder / "media" / "broken.mp4").write_bytes(b"no film at all")
    words = ["media", "--every", "0.25", "--annotate", "drawn"]
    assert cli.predict([*words, "--format", "parquet", "--output", "faces.parquet"]) == 1
    rows = parquet.read_table("faces.parquet").to_pylist()
    kinds = {name: [row for row in rows if row["source"] == f"media/{name}"] for name in (
        *("portrait.png", "people.mp4", "grey.mkv", "broken.mp4"),)}  # fmt: skip
    assert sum(map(len, kinds.values())) == len(rows)
    (portrait,), (broken,) = kinds["portrait.png"], kinds["broken.mp4"]
    assert (portrait["label"], portrait["frame"], portrait["track"]) == ("happiness", None, None)
    assert broken["face"] is None and "broken.mp4" in broken["error"]
    people = [(row["frame"], row["face"], row["track"]) for row in kinds["people.mp4"]]
    frames = sorted({frame for frame, *_ in people})
    assert people == [(frame, track, track) for frame in frames for track in (1, 2)]
    times = [row["time_s"] for row in kinds["people.mp4"]]
    assert times == pytest.approx([frame / 15 for frame, *_ in people], abs=1e-3)
    assert [row["face"] for row in kinds["grey.mkv"]] == [None] * len(frames)
    # The same as Python's table.
    film = Recognizer("small", device="cpu").predict_video("media/people.mp4", every=0.25)
    assert to_arrow(film).to_pylist() == kinds["people.mp4"]


def test_json_lines_have_the_same_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = "media/people.mp4"
    assert cli.predict([film, "--format", "csv", "--every", "0.25"]) == 0
    table = rows_of(capsys.readouterr().out)
    assert cli.predict([film, "--format", "jsonl", "--every", "0.25"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{key: str(value) for key, value in line.items()} for line in lines] == table
    assert [line["frame"] for line in lines] == [0, 0, 4, 4, 8, 8]


def test_the_table_has_a_line_for_each_person(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.predict(["media/people.mp4", "media/grey.mkv", "--every", "0.2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines if line[:1] == ["media/people.mp4"]] == [
        ["media/people.mp4", "1", "0:00.0", "0:00.6"],
        ["media/people.mp4", "2", "0:00.0", "0:00.6"],
    ]
    assert [line[-3:] for line in lines if line[:1] == ["media/grey.mkv"]] == [
        ["no", "face", "found"]
    ]


def test_what_is_made_of_a_film(folder: Path) -> None:
    words = ["--annotate", "a", "--timeline", "t", "--subtitles", "s", "--output", "out.txt"]
    assert cli.predict(["media/people.mp4", *words]) == 0
    with av.open("a/people.annotated.mp4") as drawn:
        assert [stream.type for stream in drawn.streams] == ["video", "audio"]
        frames = list(drawn.decode(video=0))
    with av.open("a/people.annotated.mp4") as drawn:
        sound = np.concatenate([f.to_ndarray().ravel() for f in drawn.decode(audio=0)])
    assert len(frames) == COUNT
    assert [frame.time for frame in frames] == pytest.approx(np.arange(COUNT) / 15, abs=1e-3)
    assert len(sound) == pytest.approx(0.8 * 16000, rel=0.15)
    assert np.abs(sound).max() > 0.1
    with av.open("media/people.mp4") as source:
        before = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    changed = np.abs(frames[5].to_ndarray(format="rgb24").astype(int) - before[5]).max(2) > 60
    assert 0.02 < changed.mean() < 0.4
    with Image.open("t/people.timeline.png") as picture:
        assert picture.size[0] == 1600
        yellow = np.all(np.asarray(picture) == (240, 228, 66), axis=2)  # happiness
    assert yellow.mean() > 0.02
    page = Path("t/people.timeline.html").read_text()
    assert page.count("<section>") == 2 and "person 2" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    cues = Path("s/people.expressions.srt").read_text()
    assert cues.startswith("1\n00:00:00,000 --> ")
    assert "1: " in cues and "2: " in cues
    assert Path("s/people.expressions.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")


def test_without_a_frame_earlier_files_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["media/grey.mkv", "--annotate", "a", "--timeline", "t", "--subtitles", "s"]
    assert cli.predict(words) == 0
    before = {path: path.read_bytes() for path in folder.glob("[ats]/*")}
    assert len(before) == 5
    assert cli.predict([*words, "--start", "1:00"]) == 2
    assert "no frame between start and end" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.glob("[ats]/*")} == before


def test_a_copy_that_cannot_begin_leaves_no_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("FilmWriter: no encoder")

    monkeypatch.setattr(outputs, "FilmWriter", refuse)
    assert cli.predict(["media/grey.mkv", "--annotate", "a"]) == 2
    assert "no encoder" in capsys.readouterr().err
    assert list((folder / "a").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_film_whose_name_is_no_text_has_a_timeline(folder: Path) -> None:
    film = os.fsdecode(b"\xff.mkv")
    shutil.copy("media/grey.mkv", film)
    assert cli.predict([film, "--timeline", "t"]) == 0
    (page,) = (folder / "t").glob("*.html")
    assert "<h1>&#x27;\\udcff.mkv&#x27;</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_broken_off_run_goes_on_to_the_same_end(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch, loaded: Recognizer
) -> None:
    """Cut anywhere, in the midst of a line, of a frame or of a source."""
    shutil.copy("media/people.mp4", "media/zweite.mp4")
    words = ["media", "--format", kind, "--every", "0.13"]
    assert cli.predict([*words, "--output", "whole"]) == 0
    whole = Path("whole").read_bytes()
    looked: list[int] = []
    predict_video = loaded.predict_video

    def watched(*source: object, **options: object) -> object:
        known = list(options.pop("known"))  # type: ignore[call-overload]
        looked.append(len(known))
        return predict_video(*source, known=known, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loaded, "predict_video", watched)
    for share in (0.08, 0.55, 0.93, 1.0):
        Path("part").write_bytes(whole[: round(share * len(whole))])
        assert cli.predict([*words, "--output", "part", "--resume"]) == 0
        assert Path("part").read_bytes() == whole
    assert max(looked) >= 4  # frames that were not looked at again
    Path("part").unlink()
    assert cli.predict([*words, "--output", "part", "--resume"]) == 0
    assert Path("part").read_bytes() == whole


def test_an_output_of_something_else_is_not_gone_on_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.csv").write_text("a,b\n1,2\n")
    words = ["media/people.mp4", "--format", "csv", "--output", "other.csv", "--resume"]
    assert cli.predict(words) == 2
    assert "other.csv: --resume cannot continue this file" in capsys.readouterr().err
    assert Path("other.csv").read_text() == "a,b\n1,2\n"


def test_a_film_goes_on_with_the_same_options_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    words = ["media/people.mp4", "--every", "0.13", "--output", "part.jsonl"]
    with monkeypatch.context() as patch:
        patch.setattr("pcnn.video.summaries.Summary.tracks", stop)  # after the last frame
        assert cli.predict([*words]) == 130
    before = Path("part.jsonl").read_bytes()
    assert cli.predict([*words, "--smoothing", "0", "--start", "0.1", "--resume"]) == 2
    assert (
        "part.jsonl: --resume cannot continue this file, because other options wrote it: "
        "--start (none, now 0.1), --smoothing (0.5, now none): give the same options"
    ) in capsys.readouterr().err
    assert Path("part.jsonl").read_bytes() == before
    assert cli.predict([*words, "--resume"]) == 0
    assert Path("part.jsonl").read_bytes() == before
    assert capsys.readouterr().err == ""


def test_a_bad_film_is_named_and_the_others_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("media/bad.mp4").write_bytes(b"")
    words = ["media/bad.mp4", "media/gone.mp4", "media/people.mp4", "--format", "csv"]
    assert cli.predict([*words, "--every", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "pcnn-predict: media/bad.mp4: the file is empty (0 bytes)",
        "pcnn-predict: media/gone.mp4: no such file",
    ]
    assert len(rows_of(captured.out)) == 2
    assert cli.predict(["media/bad.mp4"]) == shared.NOTHING_DONE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "--resume needs --output and --format jsonl or csv"),
        (["--start", "9", "--end", "0:08"], "--end must be later than --start"),
        (["--min-face", "0"], "argument --min-face: must be pixels of at least 1, got 0"),
        (["--search-every", "-1"], "argument --search-every: must be seconds above 0, got -1"),
        (["--end", "inf"], "argument --end: must be a finite number, got inf"),
        (["--every", "nan"], "argument --every: must be a finite number, got nan"),
        (["--min-face", "inf"], "argument --min-face: must be a finite number, got inf"),
        (["--every", "0"], "argument --every: must be seconds above 0, got 0"),
        (["--start", "1:2:3:4"], "argument --start: must be like 90, 1:30 or 1:02:03.5"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.predict(["film.mp4", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--explain", "why"], "--explain is for photographs, not films"),
        (["--explain", "why", "--min-quality", "0.5"], "--explain and --min-quality are for ph"),
        (["--min-quality", "0.5", "--timeline", "t"], "--min-quality is for photographs, not fi"),
        (["--movements"], "the table has no movements"),
        (["--movements", "--annotate", "a"], ""),
        (["--timeline", "t"], ""),
        ([], ""),
    ],
)
def test_what_films_do_not_heed_is_said_once(
    words: list[str],
    hint: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pcnn.commands.predict._check_explained", lambda *_: None)
    assert cli.predict(["media/grey.mkv", "--every", "0.5", *words]) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"pcnn-predict: hint: {hint}" if hint else "")
    assert said.count("\n") == bool(hint)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ["--timeline", "t", "--every", "2"],
            "--every and --timeline are for films: there is none",
        ),
        (["--smoothing", "0"], "--smoothing is for films: there is none"),
        (["--min-quality", "0.5"], ""),
    ],
)
def test_what_photographs_do_not_heed_is_said_once(
    words: list[str], hint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.predict(["media/portrait.png", *words]) == 0
    assert capsys.readouterr().err == (f"pcnn-predict: hint: {hint}\n" if hint else "")


def test_clock_and_the_defaults() -> None:
    assert [clock(text) for text in ("90", "1:30", "1:02:03.5")] == [90.0, 90.0, 3723.5]
    assert DEFAULT_SMOOTHING_S == SMOOTHING_S
    assert DEFAULT_SEARCH_EVERY_S == SEARCH_EVERY_S
