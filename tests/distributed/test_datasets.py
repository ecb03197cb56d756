"""A real Ray cluster of two workers on this machine, against one process.

Slow: Ray takes half a minute to start, and each worker its time to load torch.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
import pytest

from pcnn import Recognizer, to_arrow
from pcnn.distributed import predict_dataset
from pcnn.errors import InputError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    # Ray's own, and sockets and files that it leaves to the end of the process.
    pytest.mark.filterwarnings("ignore"),
]
SMALL = {"weights": "small"}
STORE = 80 * 1024 * 1024  # bytes: about the least that Ray takes


def start_ray() -> Any:
    import ray
    import ray.data

    for left in (2, 1, 0):
        try:
            ray.init(
                "local",
                num_cpus=2,
                object_store_memory=STORE,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
            break
        except Exception:  # a busy machine is too slow for Ray's 30 seconds
            if not left:
                raise
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = start_ray()
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def paths(photographs: Path) -> list[str]:
    return sorted(map(str, photographs.iterdir()))


@pytest.fixture(scope="module")
def expected(paths: list[str]) -> list[dict[str, Any]]:
    """The rows of one process."""
    recognizer = Recognizer(**SMALL)
    results = recognizer.predict(iter(paths), on_error="return")
    table = to_arrow(results, sources=paths, classes=recognizer.classes)
    rows: list[dict[str, Any]] = table.to_pylist()
    assert sum(row["error"] is not None for row in rows) == 10
    assert sum(row["face"] is not None for row in rows) > 190
    return rows


def assert_same_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Words and whole numbers equal; others but for what another batch rounds differently."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            if isinstance(value, float):
                assert one[name] == pytest.approx(value, rel=1e-4, abs=1e-3), (name, one)
            else:
                assert one[name] == value, (name, one)


def by_place(row: dict[str, Any]) -> tuple[str, int]:
    return row["source"], row["face"] or 0


def kill_one_worker(marker: str, killed: list[int]) -> None:
    """End one of the processes that recognise, as soon as there is one."""
    for _ in range(1200):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if marker in title and int(folder.name) in own_descendants():
                time.sleep(2)
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
                return
        time.sleep(0.1)


def own_descendants() -> set[int]:
    """The processes below this one: no other's Ray is touched."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def test_two_workers_answer_as_one_process_though_one_is_killed(
    ray: Any, paths: list[str], expected: list[dict[str, Any]]
) -> None:
    items = [{"bytes": Path(path).read_bytes(), "path": path} for path in paths]
    dataset = ray.data.from_items(items, override_num_blocks=20)
    faces = predict_dataset(dataset, recognizer_options=SMALL, concurrency=2, batch_size=10)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one_worker, args=("ray::MapWorker", killed))
    killer.start()
    found = sorted(faces.iter_rows(), key=by_place)
    killer.join()
    assert len(killed) == 1
    assert_same_rows([dict(row) for row in found], expected)


def test_errors_and_what_a_cluster_can_hold(ray: Any) -> None:
    dataset = ray.data.from_items([{"path": "a.jpg"}])
    for options, message in [
        ({"column": "image"}, "column must be 'bytes' or 'path'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"concurrency": 3}, "concurrency must be at most 2.* 2 cores and 0 GPUs, got 3"),
        ({"num_gpus": 1}, "concurrency must be at most 0"),
        ({"num_cpus": 0}, "num_cpus must be above 0"),
    ]:
        with pytest.raises(InputError, match=message):
            predict_dataset(dataset, **options)  # type: ignore[arg-type]


def test_a_killed_job_goes_on(
    paths: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    from pyarrow import parquet

    output, few = tmp_path / "faces.parquet", paths[:60]
    words = [
        *("--ray", *few, "--output", str(output), "--weights", "small"),
        *("--workers", "2", "--partition", "6"),
    ]
    program = "import sys, cli; sys.exit(cli.predict(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *words]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 600
        while len(list(output.glob("faces-*.parquet"))) < 3:
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[1]
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
    whole = {path: path.stat().st_mtime_ns for path in output.glob("faces-*.parquet")}
    assert 3 <= len(whole) < 10, "it was killed in the middle"
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert again.returncode == 1, again.stderr  # three pictures cannot be read
    # A worker may finish the partition that it was at after its driver was killed.
    there = re.search(r"(\d+) of 10 partitions are there already", again.stderr)
    assert there and len(whole) <= int(there[1]) < 10
    assert "3 pictures failed" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in whole} == whole, "nothing was read twice"
    table = parquet.read_table(output)
    assert_same_rows(table.to_pylist(), [row for row in expected if row["source"] in few])
    assert json.loads(table.schema.metadata[b"pcnn"])["schema"] == 1
    assert sorted(path.name for path in (output / "_job").iterdir()) == ["plan.json"]
    assert cli.predict(words) == 1, "a finished job starts no Ray"
