"""Films as partitions of a job, each with its tracks, or with its error."""

from __future__ import annotations

from pathlib import Path

import cli
import pytest
from films import PEOPLE, face, scene, shades, write_film

from pcnn import Recognizer, to_arrow
from pcnn.distributed.jobs import Done, JobOptions, PartitionRecognizer, prepare
from pcnn.distributed.sources import Partition

pytestmark = pytest.mark.tables
OPTIONS = JobOptions({"weights": "small"}, films={"every": 0.2, "smoothing": 0.5})


@pytest.fixture
def film(shared_data: Path, tmp_path: Path) -> Path:
    picture = face(shared_data / "lfw" / "lfw_faces.tar", PEOPLE[0], 120)
    frames = [scene([(picture, 90 + step, 100)], size=(320, 200)) for step in range(10)]
    write_film(tmp_path / "film.mp4", frames)
    return tmp_path / "film.mp4"


def test_a_film_by_its_path_and_by_its_uri(film: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    plan = [Partition(0, film=str(film)), Partition(1, film=film.as_uri())]
    prepare(tmp_path / "out", plan, OPTIONS)
    worker = PartitionRecognizer(str(tmp_path / "out"), OPTIONS)
    assert [worker.write(each) for each in plan] == [Done(0, faces=4), Done(1, faces=4)]
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    frames = list(Recognizer("small").predict_video(film, every=0.2, smoothing=0.5))
    assert [frame.index for frame in frames] == [0, 3, 6, 9]
    assert rows[:4] == to_arrow(frames).to_pylist()
    assert rows[4:] == [{**row, "source": film.as_uri()} for row in rows[:4]]
    assert {row["track"] for row in rows} == {1}


def test_a_film_that_cannot_be_read_has_a_row(film: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    film.write_bytes(film.read_bytes()[:200])
    plan = [Partition(0, film=str(film)), Partition(1, film="file:///nowhere/a.mp4")]
    prepare(tmp_path / "out", plan, OPTIONS)
    worker = PartitionRecognizer(str(tmp_path / "out"), OPTIONS)
    assert [worker.write(each) for each in plan] == [Done(0, failed=1), Done(1, failed=1)]
    broken, missing = parquet.read_table(tmp_path / "out").to_pylist()
    assert broken["source"] == str(film) and str(film) in broken["error"]
    assert missing["source"] in missing["error"] and missing["track"] is None


def test_a_film_that_kills_its_workers_is_left_out(film: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    class Watch:
        def start(self) -> None: ...

        def begin(self, key: str) -> int:
            assert key == "partition 0/"
            return 2

        def end(self, key: str) -> None: ...

        def forget(self) -> None: ...

    plan = [Partition(0, film=str(film))]
    prepare(tmp_path / "out", plan, OPTIONS)
    worker = PartitionRecognizer(str(tmp_path / "out"), OPTIONS, watch=Watch())
    assert worker.write(plan[0]) == Done(0, failed=1)
    (row,) = parquet.read_table(tmp_path / "out").to_pylist()
    assert row["error"] == f"{film}: left out, as 2 workers died while they read this film"


def test_what_must_be_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(tmp_path / "grey.mkv", shades(2))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert cli.predict(["--ray", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "av must be installed: pip install 'pcnn[video]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
