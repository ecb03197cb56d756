"""Films without end, ended by Ctrl-C: what there is of them is whole."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cli
import pytest
from films import PEOPLE, av, face, scene, write_film
from PIL import Image

from pcnn import Recognizer

PREDICT = "import sys; from pcnn.commands.predict import main; sys.exit(main())"
SECONDS = 900  # after which a process that never ends is killed
ROWS = 40  # after which Ctrl-C comes: the process waits for its pipe then, or will soon
COUNT = 60


@pytest.fixture(scope="module")
def film(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of one person, in a container that can be read from a pipe."""
    picture = face(shared_data / "lfw" / "lfw_faces.tar", PEOPLE[0], 120)
    frames = [scene([(picture, 90 + step, 100)], size=(256, 200)) for step in range(COUNT)]
    return write_film(tmp_path_factory.mktemp("films") / "endless.mkv", frames)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
def test_a_pipe_without_end_is_ended_by_ctrl_c(film: Path, tmp_path: Path) -> None:
    words = ["-", "--weights", "small", "--format", "csv"]
    words += ["--annotate", "a", "--timeline", "t", "--subtitles", "s"]
    process = subprocess.Popen(
        [sys.executable, "-c", PREDICT, *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    killer = threading.Timer(SECONDS, process.kill)
    killer.start()
    with process:
        try:
            process.stdin.write(film.read_bytes())
            process.stdin.flush()  # and it stays open
            lines = [process.stdout.readline() for _ in range(1 + ROWS)]
            process.send_signal(signal.SIGINT)
            lines += process.stdout.readlines()
            told, status = process.stderr.read(), process.wait()
        finally:
            killer.cancel()
            process.kill()
    assert (status, told) == (130, b"")
    assert lines[-1].endswith(b"\n")
    table = list(csv.DictReader(line.decode() for line in lines))
    assert [int(row["frame"]) for row in table] == list(range(len(table)))
    assert {row["track"] for row in table} == {"1"}
    assert all(None not in row and None not in row.values() for row in table)
    with av.open(str(tmp_path / "a" / "standard-input.annotated.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == len(table) >= ROWS
    with Image.open(tmp_path / "t" / "standard-input.timeline.png") as picture:
        picture.load()
    assert (tmp_path / "s" / "standard-input.expressions.srt").read_text().startswith("1\n")
    assert not list(tmp_path.rglob("*part-*"))


@pytest.mark.parametrize(("kind", "end"), [("table", "neutral 100%"), ("json", "\n]")])
def test_an_interrupted_film_has_its_table_and_its_json(
    kind: str,
    end: str,
    film: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recognizer = Recognizer("small", device="cpu")
    predict_video = recognizer.predict_video

    class Interrupted:
        """A film whose frames end as by Ctrl-C."""

        def __init__(self, *source: object, **options: object) -> None:
            self._film = predict_video(*source, **options)  # type: ignore[arg-type]
            self.info, self.broken = self._film.info, 0

        def __enter__(self) -> Interrupted:
            return self

        def __exit__(self, *_: object) -> None:
            self._film.close()

        def __iter__(self) -> Iterator[object]:
            for frame, _ in zip(self._film, range(5), strict=False):
                yield frame
            raise KeyboardInterrupt

    monkeypatch.setattr("pcnn.commands.predict.load_recognizer", lambda _: recognizer)
    monkeypatch.setattr(recognizer, "predict_video", Interrupted)
    assert cli.predict([str(film), "--format", kind]) == 130
    out = capsys.readouterr().out
    assert "\n".join(line.rstrip() for line in out.splitlines() if line.strip()).endswith(end)
    assert "0:00.3" in out or out.count('"frame"') == 5
