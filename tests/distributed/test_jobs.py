"""Jobs on disk, without a cluster: plans, whole files, what is left to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pcnn.distributed.jobs import (
    Done,
    JobOptions,
    PartitionRecognizer,
    clear,
    file_name,
    outcome,
    partition_of,
    prepare,
)
from pcnn.distributed.sources import Partition
from pcnn.errors import InputError
from pcnn.results import parquet as reports

pytestmark = pytest.mark.tables
OPTIONS = JobOptions({"weights": "small"})


@pytest.fixture
def plan(astronaut: Path) -> list[Partition]:
    return [Partition(0, (str(astronaut), "missing.jpg")), Partition(1, (str(astronaut),))]


def test_partitions_travel_as_json(plan: list[Partition]) -> None:
    both = [*plan, Partition(2, (), "x.parquet", (3, 4)), Partition(3, film="a.mp4")]
    assert [partition_of(json.loads(json.dumps(asdict(each)))) for each in both] == both


def test_each_partition_is_written_once_and_whole(tmp_path: Path, plan: list[Partition]) -> None:
    from pyarrow import parquet

    output = tmp_path / "faces.parquet"
    assert prepare(output, plan, OPTIONS) == plan
    worker = PartitionRecognizer(str(output), OPTIONS)
    told = {"partition": [json.dumps(asdict(plan[0]))]}
    assert json.loads(worker(told)["done"][0]) == asdict(Done(0, faces=1, failed=1))
    assert prepare(output, plan, OPTIONS) == plan[1:]
    first = output / file_name(0)
    before = first.stat().st_mtime_ns
    assert worker.write(plan[0]) == Done(0, faces=1, failed=1), "a second try finds the file"
    assert first.stat().st_mtime_ns == before
    assert worker.write(plan[1]) == Done(1, faces=1) == outcome(output / file_name(1), 1)
    assert prepare(output, plan, OPTIONS) == []
    table = parquet.read_table(output)  # the folder, as people read it
    assert table.column("source").to_pylist() == [*plan[0].pictures, *plan[1].pictures]
    assert table.column("error").to_pylist() == [None, "missing.jpg: no such file", None]


def test_what_a_killed_worker_leaves_is_in_nobodys_way(
    tmp_path: Path, plan: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    class KilledError(BaseException):
        pass

    def killed(source: str, target: str, replace: Callable[..., None] = os.replace) -> None:
        if Path(target).parent == tmp_path:  # the file is whole, but has not got its last name
            raise KilledError
        replace(source, target)

    prepare(tmp_path, plan, OPTIONS)
    worker = PartitionRecognizer(str(tmp_path), OPTIONS)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(os, "replace", killed)
        worker.write(plan[0])
    assert len(list((tmp_path / "_job").glob("*.parquet"))) == 1
    assert prepare(tmp_path, plan, OPTIONS) == plan
    assert worker.write(plan[0]).faces == 1
    assert parquet.read_table(tmp_path).num_rows == 2
    clear(tmp_path)
    assert sorted(each.name for each in (tmp_path / "_job").iterdir()) == ["plan.json"]


def test_a_partition_that_cannot_be_read_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    gone = Partition(0, (), str(tmp_path / "gone.parquet"), (0,))
    prepare(tmp_path, [gone], OPTIONS)
    done = PartitionRecognizer(str(tmp_path), OPTIONS).write(gone)
    assert "gone.parquet: not a Parquet file that can be read" in done.problem
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_failure_of_any_kind_leaves_the_other_partitions(
    tmp_path: Path, plan: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, plan, OPTIONS)
    worker = PartitionRecognizer(str(tmp_path), OPTIONS)

    def failing(self: object, pictures: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(PartitionRecognizer, "_predict", failing)
        done = worker.write(plan[0])
    assert done.problem == "faces-00000000.parquet: RuntimeError: out of memory"
    assert not list(tmp_path.rglob("*.parquet"))
    assert worker.write(plan[0]).faces == 1


def test_movements_have_their_columns(tmp_path: Path, plan: list[Partition]) -> None:
    from pyarrow import parquet

    options = JobOptions({"weights": "small", "movements": True})
    prepare(tmp_path, plan, options)
    assert PartitionRecognizer(str(tmp_path), options).write(plan[0]) == Done(0, 1, 1)
    face, missing = parquet.read_table(tmp_path).to_pylist()
    assert 0.5 < face["mouthSmileLeft"] <= 1 and len(face["mesh"]) == 2 * 478
    assert missing["yaw"] is None and missing["mesh"] is None


def test_another_job_is_refused(tmp_path: Path, plan: list[Partition]) -> None:
    prepare(tmp_path / "out", plan, OPTIONS)
    for other_plan, other in [
        (plan[:1], OPTIONS),
        ([plan[0], replace(plan[1], pictures=("b.jpg",))], OPTIONS),
        (plan, replace(OPTIONS, min_score=0.5)),
        (plan, replace(OPTIONS, weights_sha256="0")),
        (plan, replace(OPTIONS, films={"every": 2.0})),
    ]:
        with pytest.raises(InputError, match="has results of another job"):
            prepare(tmp_path / "out", other_plan, other)
    assert prepare(tmp_path / "out", plan, OPTIONS) == plan
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder of Parquet files"):
        prepare(tmp_path / "file", plan, OPTIONS)
    (tmp_path / "x.parquet").write_text("")
    with pytest.raises(InputError, match="has other files in it"):
        prepare(tmp_path, plan, OPTIONS)


def test_faces_that_were_cut_out(tmp_path: Path, plan: list[Partition]) -> None:
    options = replace(OPTIONS, crops=True)
    prepare(tmp_path, plan, options)
    assert PartitionRecognizer(str(tmp_path), options).write(plan[0]) == Done(0, 1, 1)


def test_counts_come_from_all_row_groups(
    tmp_path: Path, astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_PICTURES_AT_ONCE", 2)
    plan = [Partition(0, (str(astronaut), "a.jpg", str(astronaut), "b.jpg", "c.jpg"))]
    prepare(tmp_path, plan, OPTIONS)
    assert PartitionRecognizer(str(tmp_path), OPTIONS).write(plan[0]) == Done(0, 2, 3)
