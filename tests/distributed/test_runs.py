"""Whole jobs with the cluster left out: one recognizer of this process does the partitions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cli
import pytest

from pcnn.distributed import jobs, runs
from pcnn.distributed.jobs import Done, JobOptions, PartitionRecognizer
from pcnn.distributed.runs import Cluster, Summary, run
from pcnn.distributed.sources import Partition
from pcnn.errors import InputError, WeightsError
from pcnn.weights.files import locate, sha256

pytestmark = pytest.mark.tables


class FakeRay:
    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass


OPTIONS = JobOptions({"weights": "small"})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Does without Ray; gives what the cluster was asked for."""
    asked: list[Any] = []

    def here(
        output: Path, todo: Sequence[Partition], options: JobOptions, **shares: Any
    ) -> Iterator[Done]:
        asked.append((len(todo), options, shares))
        worker = PartitionRecognizer(str(output), options)
        for each in reversed(todo):  # a cluster keeps no order
            yield worker.write(each)

    def connected(cluster: Cluster) -> contextlib.AbstractContextManager[None]:
        asked.append(cluster)
        return contextlib.nullcontext()

    monkeypatch.setattr(jobs, "run_on_ray", here)
    monkeypatch.setattr(runs, "ray_modules", lambda _: FakeRay)
    monkeypatch.setattr(runs, "_connected", connected)
    return asked


def test_a_job_of_parquet_and_pictures(asked: list[Any], tmp_path: Path, astronaut: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    contents = pyarrow.table(
        {"bytes": [astronaut.read_bytes(), b"", None], "source": ["a", "b", "c"]}
    )
    parquet.write_table(contents, tmp_path / "in.parquet")
    told: list[str] = []
    sources = [str(astronaut), "missing.jpg", str(tmp_path / "in.parquet"), str(tmp_path / "no")]
    output = tmp_path / "out.parquet"
    cluster = Cluster(workers=2, num_cpus=3)
    done = run(sources, output, OPTIONS, cluster, size=2, tell=told.append)
    assert done == Summary(faces=2, failed=4, partitions=3, missing=0)
    assert told == ["2 faces in " + str(output) + ", 4 pictures failed"]
    count, options, shares = asked[1]
    assert asked[0] == cluster and count == 3
    assert options.weights_sha256 == " ".join(
        sha256(locate(name)) for name in ("small", "mobilenet", "landmarks")
    )
    assert shares == {"workers": 2, "num_cpus": 3, "num_gpus": 0}
    rows = parquet.read_table(output).to_pylist()
    full = [str(astronaut.absolute()), *(str(Path(name).absolute()) for name in ("missing.jpg",))]
    assert [row["source"] for row in rows] == ["a", "b", "c", *full, str(tmp_path / "no")]
    assert [row["label"] for row in rows] == ["happiness", None, None, "happiness", None, None]
    assert rows[1]["error"] == "b: the file is empty (0 bytes)"
    (output / jobs.file_name(1)).unlink()
    again = run(sources, output, OPTIONS, cluster, size=2, tell=told.append)
    assert again == done and asked[3][0] == 1
    assert told[1] == "2 of 3 partitions are there already"
    assert run(sources, output, OPTIONS, cluster, size=2, tell=told.append) == done
    assert len(asked) == 4, "a finished job asks for no cluster"


def test_own_weights_go_by_their_full_path(
    asked: list[Any], tmp_path: Path, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.safetensors").symlink_to(locate("small").resolve())
    monkeypatch.chdir(tmp_path)
    options = JobOptions({"weights": "own.safetensors"})
    run([str(astronaut)], tmp_path / "out", options, Cluster(), size=9, tell=print)
    assert Path(asked[1][1].recognizer["weights"]).is_absolute()
    with pytest.raises(WeightsError, match="no such weights file"):
        run(
            [str(astronaut)],
            tmp_path / "other",
            JobOptions({"weights": "none"}),
            *(Cluster(),),
            size=9,
            tell=print,
        )


def test_exit_statuses(
    asked: list[Any], tmp_path: Path, astronaut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    from pyarrow import parquet

    words = ["--output", str(tmp_path / "out"), "--weights", "small", "--ray"]
    assert cli.predict([*words, str(astronaut)]) == 0
    assert f"1 face in {tmp_path}/out, 0 pictures failed" in capsys.readouterr().err
    assert cli.predict([*words, str(astronaut), "--min-score", "0.5"]) == 2
    assert "has results of another job" in capsys.readouterr().err
    words[1] = str(tmp_path / "second")
    assert cli.predict([*words, str(tmp_path / "none*.jpg")]) == 2
    assert "no pictures match this pattern" in capsys.readouterr().err
    parquet.write_table(pyarrow.table({"image": [b""]}), tmp_path / "bad.parquet")
    assert cli.predict([*words, str(tmp_path / "bad.parquet")]) == 2
    err = capsys.readouterr().err
    assert "must have the column 'bytes'" in err and "tries this partition again" in err


def test_workers_that_cannot_start_are_one_line(
    asked: list[Any],
    tmp_path: Path,
    astronaut: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*arguments: Any, **shares: Any) -> Iterator[Done]:
        raise FakeRay.exceptions.RayError(
            "The actor died\n  File devices.py\npcnn.errors.InputError: no device 'cuda'\n"
        )
        yield

    monkeypatch.setattr(jobs, "run_on_ray", failing)
    words = ["--ray", str(astronaut), "--output", str(tmp_path / "out"), "--weights", "small"]
    assert cli.predict(words) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == ["pcnn-predict: --ray: a worker cannot go on: no device 'cuda'"]


def test_a_busy_machine_has_several_tries() -> None:
    tries: list[int] = []

    def start() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise Exception("The current node timed out during startup")
        return "started"

    assert runs.patiently(start) == "started" and len(tries) == 3
    with pytest.raises(ZeroDivisionError):
        runs.patiently(lambda: 1 // 0)


def test_a_cluster_that_does_not_answer_is_named(
    tmp_path: Path, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRay:
        class data:  # noqa: N801
            class DataContext:
                @staticmethod
                def get_current() -> Any:
                    return NoRay()

        @staticmethod
        def is_initialized() -> bool:
            return False

        @staticmethod
        def init(address: str, **options: Any) -> None:
            assert address == "head:6379" and "num_cpus" not in options
            raise Exception("timed out")

    monkeypatch.setattr(runs, "ray_modules", lambda _: NoRay)
    with pytest.raises(InputError, match=r"--ray head:6379: the cluster does not answer \(timed"):
        run(
            [str(astronaut)],
            tmp_path / "out",
            OPTIONS,
            Cluster("head:6379"),
            size=9,
            tell=print,
        )
