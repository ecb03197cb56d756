"""What a job over very many pictures costs: seconds of a core, memory of a worker, bytes written.

    python benchmarks/bench_scale.py --photographs lfw_faces.tar [--count N] [--price USD]
        [--json FILE] [--page docs/scale.md]

Each of the two packaged networks runs in a process of its own, as a job's worker does: one thread,
partitions of photographs (250 × 250 pixels, one face or two) into Parquet files. Counted is the
processor's time, which a machine shared with others changes less than a clock's, though not
nothing: cores share caches and clock rates. The cost of a million pictures is that time at a
price for a core's hour, with the worker's start once for each 100,000 pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from shared import keep, processor, require_native

BETWEEN_STARTS = 100_000  # pictures of a worker before it starts anew: a machine taken away, say


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True, help="a tar of JPEG files")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--price", type=float, default=0.04, help="of a core's hour")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--page", type=Path, help="put the table into this page")
    parser.add_argument("--worker", nargs=2, metavar=("WEIGHTS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    require_native()
    if arguments.worker:
        print(json.dumps(work(arguments.worker[0], Path(arguments.worker[1]))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(arguments.photographs, folder, arguments.count)
        figures = {weights: measured(weights, folder) for weights in ("pcnn-ferplus", "small")}
    for each in figures.values():
        each["cost of a million"] = cost(each, 1_000_000, arguments.price)
    table = "\n".join(lines(figures, arguments.price))
    print(table)
    record = {"processor": processor(), "cores": os.cpu_count(), **figures}
    keep(record, table, "bench_scale", json_to=arguments.json, page=arguments.page)
    return 0


def unpack(archive: Path, folder: Path, count: int) -> None:
    """The first photographs of a tar as files."""
    (folder / "pictures").mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                target = folder / "pictures" / Path(member.name).name
                target.write_bytes(stream.read())
                count -= 1
            if not count:
                return


def measured(weights: str, folder: Path) -> dict[str, float]:
    """The figures of one worker, in a process of its own with one thread."""
    command = [sys.executable, __file__, "--photographs", "-", "--worker", weights, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def work(weights: str, folder: Path) -> dict[str, float]:
    """What this process needs to start, and for each picture of the folder."""
    from pcnn.distributed.jobs import JobOptions, PartitionRecognizer, file_name, prepare
    from pcnn.distributed.sources import partitions

    options = JobOptions({"weights": weights})
    plan, _ = partitions([str(folder / "pictures")], 50)
    output = folder / weights
    prepare(output, plan, options)
    worker = PartitionRecognizer(str(output), options, threads=1)
    worker.write(plan[0])  # the first partition warms up
    start, clock = time.process_time(), time.perf_counter()
    for partition in plan[1:]:
        worker.write(partition)
    spent, passed = time.process_time() - start, time.perf_counter() - clock
    count = sum(len(each.pictures) for each in plan[1:])
    size = sum((output / file_name(each.number)).stat().st_size for each in plan)
    return {
        "start (s of a core)": start - spent / count * len(plan[0].pictures),
        "picture (s of a core)": spent / count,
        "picture (s of the clock)": passed / count,
        "memory (MB)": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "written (bytes a picture)": size / sum(len(each.pictures) for each in plan),
    }


def cost(figures: dict[str, float], pictures: int, price: float) -> float:
    """What so many pictures cost at a price for a core's hour."""
    seconds = pictures * figures["picture (s of a core)"]
    starts = max(1, pictures / BETWEEN_STARTS) * figures["start (s of a core)"]
    return (seconds + starts) / 3600 * price


def lines(figures: dict[str, Any], price: float) -> list[str]:
    """The figures as a table in Markdown."""
    head = ["|  | " + " | ".join(f"`{name}`" for name in figures) + " |", "|---|---:|---:|"]
    rows = [
        ("pictures a second of a core", lambda f: f"{1 / f['picture (s of a core)']:.1f}"),
        ("core seconds to start a worker", lambda f: f"{f['start (s of a core)']:.1f}"),
        ("memory of a worker, at most", lambda f: f"{f['memory (MB)']:.0f} MB"),
        ("Parquet for a million pictures", lambda f: f"{f['written (bytes a picture)']:.0f} MB"),
        (
            "core hours for a million",
            lambda f: f"{cost(f, 1_000_000, 1):.1f}",
        ),
        (
            f"a million at {price:g} USD for a core hour",
            lambda f: f"{cost(f, 1_000_000, price):.2f} USD",
        ),
        (
            "a billion",
            lambda f: f"{cost(f, 1_000_000_000, price):,.0f} USD",
        ),
    ]
    return head + [
        f"| {name} | " + " | ".join(told(each) for each in figures.values()) + " |"
        for name, told in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
