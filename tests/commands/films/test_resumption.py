"""Outputs with films that were broken off: what did not end is continued, whatever follows it."""

from __future__ import annotations

import argparse
import csv
import json
import operator
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
from films import av, scene, shades, write_film
from PIL import Image

from pcnn import Recognizer
from pcnn.commands.films import outputs
from pcnn.commands.films.resumption import BegunFilm, resume
from pcnn.commands.reports import Names, csv_columns
from pcnn.errors import InputError

COUNT = 8
KINDS = pytest.mark.parametrize("kind", ["jsonl", "csv"])


@pytest.fixture(scope="module")
def loaded() -> Recognizer:
    return Recognizer("small", device="cpu")


@pytest.fixture
def media(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: Recognizer, astronaut: Path
) -> Path:
    """A folder in the current one with two films of a face, and one without."""
    monkeypatch.setattr("pcnn.commands.predict.load_recognizer", lambda _: loaded)
    monkeypatch.chdir(tmp_path)
    folder = Path("media")
    folder.mkdir()
    with Image.open(astronaut) as picture:
        person = np.asarray(picture.convert("RGB").crop((130, 20, 330, 220)).resize((120, 120)))
    frames = [scene([(person, 90 + step, 90)], size=(240, 180)) for step in range(COUNT)]
    write_film(folder / "a.mp4", frames)
    write_film(folder / "b.mp4", frames)
    write_film(folder / "grey.mkv", shades(3))
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, loaded: Recognizer) -> dict[str, int]:
    """Which films were read, and how many frames of each were known."""
    found: dict[str, int] = {}
    predict_video = loaded.predict_video

    def watched(film: str, **options: Any) -> Any:
        known = list(options.pop("known"))
        found[film] = len(known)
        return predict_video(film, known=known, **options)

    monkeypatch.setattr(loaded, "predict_video", watched)
    return found


def rows_by_source(path: str) -> dict[str, list[str]]:
    """The lines of each source in a file of rows, without a header."""
    lines = Path(path).read_text().splitlines()
    found: dict[str, list[str]] = {}
    for line in lines[1:] if path.endswith("csv") else lines:
        source = line.split(",")[0] if path.endswith("csv") else json.loads(line)["source"]
        found.setdefault(source, []).append(line)
    return found


def fail_from(film: str, frame: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the annotated copy of one film fail at a frame, as where the disk is full."""
    add = outputs.FilmOutputs.add

    def full(self: outputs.FilmOutputs, each: Any) -> None:
        if each.source == film and each.index >= frame:
            raise InputError("a.mp4: cannot be written (No space left on device)")
        add(self, each)

    monkeypatch.setattr(outputs.FilmOutputs, "add", full)


@KINDS
def test_a_film_that_failed_before_another_one_is_continued(
    kind: str, media: Path, monkeypatch: pytest.MonkeyPatch, read: dict[str, int]
) -> None:
    words = ["media", "--annotate", "drawn", "--output"]
    assert cli.predict([*words, f"whole.{kind}"]) == 0
    with monkeypatch.context() as patch:
        fail_from("media/a.mp4", 5, patch)
        assert cli.predict([*words, f"part.{kind}"]) == 1
    before = rows_by_source(f"part.{kind}")
    assert {film: len(rows) for film, rows in before.items()} == {
        "media/a.mp4": 5,
        "media/b.mp4": COUNT,
    }
    shutil.rmtree("drawn")
    read.clear()
    assert cli.predict([*words, f"part.{kind}", "--resume"]) == 0
    assert read == {"media/a.mp4": 5}  # and no film that ended, with faces or without
    assert rows_by_source(f"part.{kind}") == rows_by_source(f"whole.{kind}")
    with av.open("drawn/a.annotated.mp4") as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == COUNT
    read.clear()
    assert cli.predict([*words, f"part.{kind}", "--resume"]) == 0
    assert read == {}
    assert rows_by_source(f"part.{kind}") == rows_by_source(f"whole.{kind}")


@KINDS
def test_a_film_is_continued_after_pictures_that_came_later(
    kind: str,
    media: Path,
    loaded: Recognizer,
    monkeypatch: pytest.MonkeyPatch,
    read: dict[str, int],
) -> None:
    words = ["media", "--output", f"part.{kind}", "--resume"]
    words += ["--all-rows"] if kind == "csv" else []

    def stop_at(frame: int) -> Any:
        add = outputs.FilmOutputs.add

        def stopped(self: outputs.FilmOutputs, each: Any) -> None:
            if each.index >= frame:
                raise KeyboardInterrupt
            add(self, each)

        return stopped

    with monkeypatch.context() as patch:
        patch.setattr(outputs.FilmOutputs, "add", stop_at(6))
        assert cli.predict(words) == 130
    for name in ("x", "y"):
        Image.new("RGB", (64, 64)).save(media / f"{name}.png")
    with monkeypatch.context() as patch:
        patch.setattr(outputs.FilmOutputs, "add", stop_at(0))
        assert cli.predict(words) == 130
    sources = list(rows_by_source(f"part.{kind}"))
    assert sources == ["media/a.mp4", "media/x.png", "media/y.png"]
    read.clear()
    assert cli.predict(words) == 0
    assert read["media/a.mp4"] == 5  # the sixth was the last when it was broken off
    assert cli.predict(["media", "--output", f"whole.{kind}", *words[4:]]) == 0
    if kind == "jsonl":
        assert rows_by_source("part.jsonl") == rows_by_source("whole.jsonl")
        return
    # The columns stay those of films alone, with which the file began.
    part, whole = (table_of(f"{name}.csv") for name in ("part", "whole"))
    columns = csv_columns(names_of(loaded), crops=False, pictures=False, films=True)
    assert tuple(part[0]) == columns
    by_place = operator.itemgetter("source", "frame")
    assert sorted(part, key=by_place) == sorted(
        ({name: row[name] for name in columns} for row in whole), key=by_place
    )


def test_a_film_is_continued_after_its_pictures_are_gone(
    media: Path, loaded: Recognizer, read: dict[str, int], astronaut: Path
) -> None:
    """The columns stay those of both, with which the file began."""
    shutil.copy(astronaut, media / "x.png")
    assert cli.predict(["media", "--output", "whole.csv"]) == 0
    rows = table_of("whole.csv")
    both = csv_columns(names_of(loaded), crops=False, pictures=True, films=True)
    assert tuple(rows[0]) == both and rows[0]["source"] == "media/x.png"
    lines = Path("whole.csv").read_text().splitlines(keepends=True)
    (media / "x.png").unlink()
    Path("part.csv").write_text("".join(lines[:6]))  # the header, the picture and four frames
    read.clear()
    assert cli.predict(["media", "--output", "part.csv", "--resume"]) == 0
    assert read["media/a.mp4"] == 3
    assert Path("part.csv").read_text() == "".join(lines)
    Path("part.csv").write_text("".join(lines[:2]))  # all is cut off, and then of films alone
    assert cli.predict(["media", "--output", "part.csv", "--resume"]) == 0
    alone = csv_columns(names_of(loaded), crops=False, pictures=False, films=True)
    assert tuple(table_of("part.csv")[0]) == alone


def table_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def names_of(recognizer: Recognizer) -> Names:
    return Names(tuple(recognizer.classes))


def test_without_the_file_beside_it_no_film_counts_as_finished(
    media: Path, read: dict[str, int]
) -> None:
    words = ["media", "--output", "x.jsonl"]
    assert cli.predict(words) == 0
    whole = Path("x.jsonl").read_bytes()
    assert not Path("x.jsonl.options").exists()
    assert cli.predict([*words, "--resume"]) == 0
    assert Path("x.jsonl").read_bytes() == whole
    assert read == {"media/a.mp4": COUNT, "media/b.mp4": COUNT - 1, "media/grey.mkv": 0}
    told = json.loads(Path("x.jsonl.options").read_text())
    ended = {"media/a.mp4": COUNT, "media/b.mp4": COUNT, "media/grey.mkv": 0}
    assert told["films"] == ended
    read.clear()
    assert cli.predict([*words, "--resume"]) == 0
    assert read == {}
    Path("x.jsonl").write_bytes(whole[: len(whole) // 4])  # it lost rows since
    assert cli.predict([*words, "--resume"]) == 0
    assert Path("x.jsonl").read_bytes() == whole
    assert list(read) == ["media/a.mp4", "media/b.mp4"]
    assert cli.predict(["media/b.mp4", "--output", "x.jsonl"]) == 0  # from its beginning
    assert list(rows_by_source("x.jsonl")) == ["media/b.mp4"]


def test_a_continued_film_is_drawn_with_its_mesh(
    media: Path, monkeypatch: pytest.MonkeyPatch, astronaut: Path
) -> None:
    """All frames are read anew for it, and rows are not repeated."""
    moving = Recognizer("small", device="cpu", movements=True)
    monkeypatch.setattr("pcnn.commands.predict.load_recognizer", lambda _: moving)
    words = ["media/a.mp4", "--movements", "--output", "x.csv"]
    assert cli.predict([*words, "--annotate", "whole"]) == 0
    lines = Path("x.csv").read_text().splitlines(keepends=True)
    Path("x.csv").write_text("".join(lines[:5]))
    assert cli.predict([*words, "--annotate", "again", "--resume"]) == 0
    assert Path("x.csv").read_text().splitlines(keepends=True) == lines
    whole, again = (list(pixels_of(f"{name}/a.annotated.mp4")) for name in ("whole", "again"))
    assert np.array_equal(whole, again)


def pixels_of(path: str) -> Iterator[np.ndarray]:
    with av.open(path) as film:
        for frame in film.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


# --- files by hand ---

NAMES = Names(("u", "v"))


def row(source: str, frame: int | None = None) -> dict[str, object]:
    """A row of a picture, or of a film's frame, with numbers that tell them apart."""
    columns = csv_columns(NAMES, crops=False, pictures=True, films=True)
    if frame is None:
        return dict.fromkeys(columns) | {"source": source}
    return dict.fromkeys(columns, 10 + frame) | {"source": source, "frame": frame}


def written(kind: str, rows: list[dict[str, object]], path: Path) -> list[int]:
    """Write rows; returns where each begins, and the end."""
    lines = [json.dumps(each) + "\n" for each in rows]
    begins = [0]
    if kind == "csv":
        head = ",".join(rows[0]) + "\n"
        cells = [["" if cell is None else str(cell) for cell in each.values()] for each in rows]
        lines = [",".join(each) + "\n" for each in cells]
        lines[0] = head + lines[0]
    for line in lines:
        begins.append(begins[-1] + len(line))
    path.write_text("".join(lines))
    return begins


@KINDS
@pytest.mark.parametrize(
    ("ended", "rest", "expected"),
    [
        # Nothing is known to have ended; the last frame of c, two faces, may not be whole.
        ({}, 7, ({"p"}, {"a": (1, 3, 0), "b": (0, 1, 4)})),
        # b ended, and so did d without a row. Of a there are too few.
        ({"a": 4, "b": 1, "d": 0}, 7, ({"p", "b", "d"}, {"a": (1, 3, 0)})),
        # c ended: nothing is cut.
        ({"c": 2}, 9, ({"p", "c"}, {"a": (1, 3, 0), "b": (0, 1, 4)})),
    ],
)
def test_what_is_finished_and_what_was_begun(
    kind: str,
    ended: dict[str, int],
    rest: int,
    expected: tuple[set[str], dict[str, tuple[int, int, int]]],
    tmp_path: Path,
) -> None:
    """expected: finished sources; last frame, rows and first row of each film that is begun."""
    finished, films = expected
    rows = [row("a", 0), row("p"), row("a", 1), row("a", 1), row("b", 0), row("p"), row("p")]
    rows += [row("c", 3), row("c", 3)]
    path = tmp_path / f"x.{kind}"
    begins = written(kind, rows, path)
    arguments = argparse.Namespace(output=path, format=kind, faces=False)
    with path.open("a") as file:
        file.write('{"source": "z')  # half a row
    found = resume(arguments, NAMES, films=True, ended=ended)
    assert found.size == path.stat().st_size == begins[rest]
    assert found.finished == finished
    assert found.films == {
        film: BegunFilm(frame, count, begins[place])
        for film, (frame, count, place) in films.items()
    }
    for film, (_, count, _) in films.items():
        known = [(frame, face.box[0]) for frame, faces in found.known(film) for face in faces]
        own = [each["frame"] for each in rows if each["source"] == film]
        assert known == [(frame, 10.0 + frame) for frame in own] and len(known) == count
