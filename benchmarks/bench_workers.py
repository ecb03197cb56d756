"""What workers on Ray do of what plain `pcnn-predict` does with as many threads.

    python benchmarks/bench_workers.py --photographs lfw_faces.tar [--count N] [--workers N …]
        [--weights NAME] [--json FILE] [--page docs/scale.md]

Plain `pcnn-predict --format parquet` reads a tenth of the photographs and all, in processes of
their own; the difference is what a further photograph costs. Each worker on Ray takes the times of
its partitions; the first, in which it warms up, does not count. "Core ms" are the processor's time,
which other work on the machine changes less than a clock's. By the clock the figures are those of
the machine only where nothing else runs, on as many cores as there are workers. Needs `pcnn[ray]`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench_scale import unpack
from shared import keep, processor, require_native

from pcnn.distributed.jobs import PartitionRecognizer

PARTITION = 100  # pictures; small ones cost more, since each ends with a batch that is not full
COMMAND = "import sys; from pcnn.commands.predict import main; sys.exit(main(sys.argv[1:]))"
TIMES = "BENCH_WORKERS_TIMES"  # of the environment: the folder for what workers measure


class TimedRecognizer(PartitionRecognizer):
    """A worker that writes down how long each partition took."""

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        begin = time.time(), time.process_time()
        done = super().__call__(batch)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        line = json.dumps([begin[0], time.time(), time.process_time() - begin[1], memory])
        with (Path(os.environ[TIMES]) / str(os.getpid())).open("a") as file:
            file.write(line + "\n")
        return done


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--photographs", type=Path, required=True, help="a tar of JPEG files")
    add("--count", type=int, default=1000)
    add("--workers", type=int, nargs="+", default=[1, 2])
    add("--weights", default="pcnn-ferplus")
    add("--json", type=Path, help="write the figures to this file as well")
    add("--page", type=Path, help="put the table into this page")
    add("--job", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        return job(arguments.job, arguments.photographs, arguments.weights)
    require_native()
    few, found = arguments.count // 10, {}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "few", Path(name) / "all"]
        for folder, count in zip(folders, (few, arguments.count), strict=True):
            folder.mkdir()
            unpack(arguments.photographs, folder, count)
        for workers in arguments.workers:
            started, whole = (plain(workers, folder, arguments.weights) for folder in folders)
            further = [
                (b - a) / (arguments.count - few) for a, b in zip(started, whole, strict=True)
            ]
            found[str(workers)] = {
                "plain": {"core": further[0], "clock": further[1]},
                "ray": on_ray(workers, folders[1], arguments.weights),
            }
    record = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "weights": arguments.weights,
        "count": arguments.count,
        "workers": found,
    }
    table = "\n".join(lines(found))
    print(table)
    keep(record, table, "bench_workers", json_to=arguments.json, page=arguments.page)
    return 0


def plain(threads: int, folder: Path, weights: str) -> tuple[float, float]:
    """Seconds of cores and of the clock that `pcnn-predict` takes for a folder."""
    output = ["--format", "parquet", "--output", str(folder / f"{threads}.parquet")]
    words = [str(folder / "pictures"), "--weights", weights, *output]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-c", COMMAND, *words], env=environment, check=True)
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def on_ray(workers: int, folder: Path, weights: str) -> dict[str, float]:
    """What a picture costs warm workers, seconds, and the memory of the largest, MB."""
    times = folder / f"times-{workers}"
    times.mkdir()
    here = str(Path(__file__).parent)
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", TIMES: str(times)},
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
    }
    words = ["--photographs", str(folder), "--weights", weights, "--job", str(workers)]
    subprocess.run([sys.executable, __file__, *words], env=environment, check=True)
    each = [
        [json.loads(line) for line in file.read_text().splitlines()] for file in times.iterdir()
    ]
    warm = [partition for worker in each for partition in worker[1:]]
    # While all workers are warm: from the end of the last first partition to the first last one.
    begin, end = max(worker[0][1] for worker in each), min(worker[-1][1] for worker in each)
    between = sum(begin < partition[1] <= end for partition in warm)
    return {
        "core": sum(seconds for *_, seconds, _ in warm) / len(warm) / PARTITION,
        "clock": (end - begin) / max(1, between) / PARTITION,
        "memory": max(memory for worker in each for *_, memory in worker),
        "workers": len(each),
    }


def job(workers: int, folder: Path, weights: str) -> int:
    """A job of `pcnn-predict --ray`, but with workers that measure."""
    import bench_workers  # by this name the workers find it, too

    from pcnn.distributed import jobs, runs

    jobs.PartitionRecognizer = bench_workers.TimedRecognizer  # type: ignore[misc]
    done = runs.run(
        [str(folder / "pictures")],
        folder / f"ray-{workers}",
        jobs.JobOptions({"weights": weights}),
        runs.Cluster(workers=workers),
        size=PARTITION,
        tell=print,
    )
    return int(bool(done.failed or done.missing))


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as a table in Markdown."""
    rows = [
        "| workers | core ms a picture, plain | on Ray | efficiency | by the clock "
        "| memory of a worker |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for workers, kinds in found.items():
        one, other = kinds["plain"], kinds["ray"]
        cells = [
            workers,
            f"{1000 * one['core']:.1f}",
            f"{1000 * other['core']:.1f}",
            *(f"{one[name] / other[name]:.2f}" for name in ("core", "clock")),
            f"{other['memory']:.0f} MB",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
