"""Real clusters of Ray on this machine, against one process: what is killed costs no picture.

Slow: Ray takes ten seconds to start, and each worker its time to load torch.
"""

from __future__ import annotations

import io
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
from PIL import Image

from pcnn import Recognizer, to_arrow
from pcnn.distributed import predict_dataset
from pcnn.distributed.deaths import MOST_DEATHS
from pcnn.distributed.runs import patiently
from pcnn.errors import InputError

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    # Ray's own, and sockets and files that it leaves to the end of the process.
    pytest.mark.filterwarnings("ignore"),
]
SMALL = {"weights": "small"}
STORE = 80 * 1024 * 1024  # bytes: about the least that Ray takes
PARTITIONS, SIZE = 51, 10  # of the job's output, and pictures of each
WAIT_S = 900  # only a machine that stands still takes so long


@pytest.fixture(scope="module", autouse=True)
def _workers_that_get_their_share() -> Iterator[None]:
    """Ray's workers let all other processes go first, and on a busy machine start never."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def spilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spilled")


@pytest.fixture(scope="module")
def ray(spilled: Path) -> Iterator[Any]:
    """A cluster of this machine, with two cores and a small object store."""
    import ray
    import ray.data

    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    options |= {"object_spilling_directory": str(spilled), "object_store_memory": STORE}
    patiently(lambda: ray.init("local", num_cpus=2, logging_level="ERROR", **options))
    ray.data.DataContext.get_current().enable_progress_bars = False
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
    assert len({row["source"] for row in rows}) == 501
    assert sum(row["error"] is not None for row in rows) == 25
    assert sum(row["face"] is not None for row in rows) > 475
    return rows


def assert_same_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Words and whole numbers equal; others but for what another batch rounds differently."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            if isinstance(value, float):
                # An angle in degrees moves more than pixels do: landmarks lie near each other.
                few = 1e-2 if name == "angle" else 1e-3
                assert one[name] == pytest.approx(value, rel=1e-4, abs=few), (name, one)
            else:
                assert one[name] == value, (name, one)


def by_place(row: dict[str, Any]) -> tuple[str, int]:
    return row["source"], row["face"] or 0


def recognising() -> dict[int, int]:
    """Processes below this one that recognise, each with its parent, its node: no other's Ray."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        parents[int(folder.name)], titles[int(folder.name)] = parent, title
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: parents[pid] for pid in below if "ray::MapWorker" in titles.get(pid, "")}


def test_two_workers_answer_as_one_process_though_one_is_killed_and_the_store_is_small(
    ray: Any, spilled: Path, paths: list[str], expected: list[dict[str, Any]]
) -> None:
    items = [{"bytes": uncompressed(Path(path)), "path": path} for path in paths]
    assert sum(len(item["bytes"]) for item in items) > 1.1 * STORE
    dataset = ray.data.from_items(items, override_num_blocks=50)
    assert any(file.is_file() for file in spilled.rglob("*")), "the store has spilt to the disk"
    faces = predict_dataset(dataset, recognizer_options=SMALL, concurrency=2, batch_size=10)
    rows = iter(faces.iter_rows())
    found = [next(rows)]
    os.kill(min(recognising()), signal.SIGKILL)
    found += rows
    assert_same_rows(sorted(map(dict, found), key=by_place), expected)


def uncompressed(path: Path) -> bytes:
    """A picture with the same pixels in more bytes; one that cannot be read as it is."""
    try:
        with Image.open(path) as picture:
            stream = io.BytesIO()
            picture.save(stream, "BMP")
            return stream.getvalue().ljust(250_000, b"\0")  # what follows the pixels is not read
    except OSError:
        return path.read_bytes()


def test_a_picture_that_kills_its_workers_is_a_row_with_an_error(ray: Any, tmp_path: Path) -> None:
    class Deadly:
        """A detector that no worker survives where the picture is 71 pixels wide."""

        def __init__(self, deaths: Path) -> None:
            self.deaths = deaths

        def detect(self, images: Any, *, min_score: float | None = None) -> list[list[Any]]:
            if any(image.shape[1] == 71 for image in images):
                (self.deaths / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return [[] for _ in images]

    rows = []
    for name, width in (("a", 70), ("b", 71), ("c", 72), ("d", 73)):
        stream = io.BytesIO()
        Image.new("RGB", (width, 60)).save(stream, "PNG")
        rows.append({"bytes": stream.getvalue(), "path": name})
    dataset = ray.data.from_items(rows, override_num_blocks=1)
    options = {**SMALL, "detector": Deadly(tmp_path)}
    faces = predict_dataset(dataset, recognizer_options=options, concurrency=1, batch_size=3)
    found = [(row["source"], row["width"], row["error"]) for row in faces.take_all()]
    left_out = "b: left out, as 2 workers died while they read this picture alone"
    assert found == [("a", 70, None), ("b", None, left_out), ("c", 72, None), ("d", 73, None)]
    assert len(list(tmp_path.iterdir())) == 1 + MOST_DEATHS


def test_errors_and_what_a_cluster_can_hold(ray: Any) -> None:
    dataset = ray.data.from_items([{"path": "a.jpg"}])
    for options, message in [
        ({"column": "image"}, "column must be 'bytes' or 'path'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"concurrency": 3}, "concurrency must be at most 2.* 2 cores and 0 GPUs, got 3"),
        ({"num_gpus": 1}, "concurrency must be at most 0"),
        ({"num_cpus": 0}, "num_cpus must be above 0"),
        (
            {"num_cpus": "a"},
            "num_cpus must be above 0 .* both finite, got 'a'",
        ),
        ({"num_gpus": float("inf")}, "both finite, got 1 and inf"),
        ({"concurrency": 2.5}, "concurrency must be a whole number, got 2.5"),
        ({"concurrency": (2, 1)}, "concurrency must be the least and the most"),
        ({"batch_size": "a"}, "batch_size must be a whole number, got 'a'"),
    ]:
        with pytest.raises(InputError, match=message):
            predict_dataset(dataset, **options)  # type: ignore[arg-type]


def job(photographs: Path, output: Path, *address: str) -> list[str]:
    """The words of `pcnn-predict` for a job with two workers."""
    words = ["--ray", *address, str(photographs), "--output", str(output), "--weights", "small"]
    return [*words, "--workers", "2", "--partition", str(SIZE)]


def finished(output: Path) -> list[Path]:
    return list(output.glob("faces-*.parquet"))


def assert_whole(output: Path, expected: list[dict[str, Any]]) -> None:
    from pyarrow import parquet

    table = parquet.read_table(output)
    assert_same_rows(table.to_pylist(), expected)
    assert json.loads(table.schema.metadata[b"pcnn"])["schema"] == 1
    assert sorted(path.name for path in (output / "_job").iterdir()) == ["plan.json"]


def test_a_job_whose_driver_is_killed_goes_on(
    photographs: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "faces.parquet"
    words = job(photographs, output)
    program = "import sys, cli; sys.exit(cli.predict(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *words]
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + WAIT_S
        while len(finished(output)) < 3:
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[1]
            time.sleep(0.05)
    finally:
        first.kill()
        first.wait()
    whole = {path: path.stat().st_mtime_ns for path in finished(output)}
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert again.returncode == 1, again.stderr  # some pictures cannot be read
    # A worker may finish the partitions that it was given before its driver was killed.
    there = re.search(rf"(\d+) of {PARTITIONS} partitions are there already", again.stderr)
    assert there and 3 <= len(whole) <= int(there[1]) < PARTITIONS
    assert "25 pictures failed" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in whole} == whole, "nothing was read twice"
    assert_whole(output, expected)
    assert cli.predict(words) == 1, "a finished job starts no Ray"


def test_a_job_on_two_nodes_of_which_one_is_lost(
    photographs: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    import ray
    from ray.cluster_utils import Cluster

    output = tmp_path / "faces.parquet"
    of_each = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=of_each))
    nodes: set[int] = set()

    def lose_one() -> None:
        """Ends a node when both work; late in the job also if the other is still about to."""
        deadline = time.monotonic() + WAIT_S
        while (done := len(finished(output))) < 40 and time.monotonic() < deadline:
            nodes.update(recognising().values())
            if done >= 3 and len(nodes) == 2:
                break
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    loser = threading.Thread(target=lose_one)
    try:
        second = patiently(lambda: cluster.add_node(**of_each))
        loser.start()
        status = cli.predict(job(photographs, output, cluster.address))
        loser.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert status == 1, "some pictures cannot be read"
    assert len(finished(output)) == PARTITIONS
    assert_whole(output, expected)
