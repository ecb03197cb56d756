"""What a worker on Ray does of what plain `pcnn-predict` does on the same cores.

    python benchmarks/bench_workers.py --photographs lfw_faces.tar [--counts FEW MANY]
        [--workers N …] [--weights NAME] [--json FILE] [--page docs/scale.md]

Each command reads few photographs and many, in a process of its own; the difference is what each
further photograph costs, and the rest what the start costs. Counted is the processor's time, which
other work on the machine changes less than a clock's: that of the processes that recognise, and
that of all below the command, Ray's own included. Ray's own are never idle, so on a busy machine,
where everything lasts longer, they take more. For N workers plain `pcnn-predict` has N threads. On
a machine that has nothing else to do, look at the clock: it counts waiting as well. Needs Linux
and `pcnn[ray]`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_scale import unpack
from shared import keep, processor, require_native

PARTITION = 50
NAMES = (
    "picture (s of workers' cores)",
    "picture (s of all cores)",
    "picture (s of the clock)",
)
TICKS = os.sysconf("SC_CLK_TCK")
COMMAND = "import sys; from pcnn.commands.predict import main; sys.exit(main(sys.argv[1:]))"


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--photographs", type=Path, required=True, help="a tar of JPEG files")
    add("--counts", type=int, nargs=2, default=(100, 900), metavar=("FEW", "MANY"))
    add("--workers", type=int, nargs="+", default=[1, 2])
    add("--weights", default="pcnn-ferplus")
    add("--json", type=Path, help="write the figures to this file as well")
    add("--page", type=Path, help="put the table into this page")
    arguments = parser.parse_args()
    require_native()
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for count in arguments.counts:
            folders.append(Path(name) / str(count))
            folders[-1].mkdir()
            unpack(arguments.photographs, folders[-1], count)
        found = {
            str(workers): {
                kind: each_further(kind, workers, folders, arguments) for kind in ("plain", "ray")
            }
            for workers in arguments.workers
        }
    record = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "weights": arguments.weights,
        "counts": list(arguments.counts),
        "workers": found,
    }
    table = "\n".join(lines(found))
    print(table)
    keep(record, table, "bench_workers", json_to=arguments.json, page=arguments.page)
    return 0


def each_further(
    kind: str, workers: int, folders: list[Path], arguments: argparse.Namespace
) -> dict[str, float]:
    """What a further photograph costs, what the start does, and the memory of the largest."""
    few, many = (run(kind, workers, folder, arguments.weights) for folder in folders)
    further = arguments.counts[1] - arguments.counts[0]
    own, core, clock = (many[name] - few[name] for name in ("own", "core", "clock"))
    return {
        "picture (s of workers' cores)": own / further,
        "picture (s of all cores)": core / further,
        "picture (s of the clock)": clock / further,
        "start (s of cores)": few["core"] - core / further * arguments.counts[0],
        "memory (MB)": many["memory"],
    }


def run(kind: str, workers: int, folder: Path, weights: str) -> dict[str, float]:
    """Seconds of the workers, of all processes and of the clock, and MB of the largest process."""
    output = folder / f"{kind}-{workers}"
    words = [str(folder / "pictures"), "--weights", weights, "--output", str(output)]
    threads = workers if kind == "plain" else 1
    if kind == "plain":
        words += ["--format", "parquet"]
    else:
        words = ["--ray", *words, "--workers", str(workers), "--partition", str(PARTITION)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=environment)
    seen: dict[int, tuple[float, float, bool]] = {}
    while process.poll() is None:
        seen.update(below(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{kind} with {workers}: exit status {process.returncode}")
    recognising = [s for s, _, worker in seen.values() if worker or kind == "plain"]
    return {
        "own": sum(recognising),
        "core": sum(seconds for seconds, *_ in seen.values()),
        "clock": time.perf_counter() - began,
        "memory": max(memory for _, memory, _ in seen.values()),
    }


def below(root: int) -> dict[int, tuple[float, float, bool]]:
    """Processes from `root` downwards: seconds of cores so far, most MB, whether it recognises."""
    parents: dict[int, int] = {}
    used: dict[int, tuple[float, float, bool]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            status = (folder / "status").read_text()
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        pid = int(folder.name)
        peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        parents[pid] = int(fields[1])
        seconds, memory = sum(map(int, fields[11:13])) / TICKS, int(peak[0]) / 1024 if peak else 0.0
        used[pid] = (seconds, memory, b"ray::MapWorker" in title)
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: used[pid] for pid in found if pid in used}


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as a table in Markdown."""
    rows = [
        "| workers | | core ms a picture | with Ray's own | core seconds to start "
        "| largest process | efficiency, core ms | with Ray's own | by the clock |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for workers, kinds in found.items():
        plain = kinds["plain"]
        for kind, each in kinds.items():
            shares = [f"{plain[name] / each[name]:.0%}" if kind == "ray" else "" for name in NAMES]
            cells = [
                workers,
                "`--ray`" if kind == "ray" else "plain",
                *(f"{1000 * each[name]:.1f}" for name in NAMES[:2]),
                f"{each['start (s of cores)']:.1f}",
                f"{each['memory (MB)']:.0f} MB",
                *shares,
            ]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
