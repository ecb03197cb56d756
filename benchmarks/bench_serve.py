"""pcnn-serve under load, and pcnn-predict on the same pictures.

    python benchmarks/bench_serve.py --json benchmarks/serve.json

Clients ask without a pause, each one picture a request over a connection that stays open. The
server is asked for its time and memory through /proc. Both are compared by processor time, since
the clients and whatever else runs take some of the machine's; latencies are by the clock.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from shared import ROOT, processor

sys.path.insert(0, str(ROOT / "tests"))
from served import Server

_FEW = 8  # pictures of a run that is subtracted, so that the command's start does not count
_START = "import sys; from pcnn.commands.predict import main; sys.exit(main(sys.argv[1:]))"


class Client(threading.Thread):
    """Asks until `end` by time.monotonic. seconds: of each answer; statuses: their counts."""

    def __init__(self, port: int, bodies: list[bytes], first: int, end: float) -> None:
        super().__init__()
        self._port, self._bodies, self._first, self._end = port, bodies, first, end
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        at = self._first
        while (began := time.monotonic()) < self._end:
            try:
                connection.request("POST", "/predict", self._bodies[at % len(self._bodies)])
                answer = connection.getresponse()
                answer.read()
                self.statuses[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
            self.seconds.append(time.monotonic() - began)
            at += 1
        connection.close()


def load(server: Server, bodies: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """What so many clients measured in so many seconds."""
    server.ask("POST", "/predict", bodies[0])
    before, began = processor_seconds(server.pid), time.monotonic()
    asking = [
        Client(server.port, bodies, number * len(bodies) // clients, began + seconds)
        for number in range(clients)
    ]
    memory = []
    for client in asking:
        client.start()
    while any(client.is_alive() for client in asking):
        memory.append(resident_mb(server.pid))
        time.sleep(1)
    took = time.monotonic() - began
    used = processor_seconds(server.pid) - before
    times = sorted(second for client in asking for second in client.seconds)
    statuses = sum((client.statuses for client in asking), Counter[str]())
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "requests": len(times),
        "statuses": dict(statuses),
        "p50_ms": round(1000 * statistics.median(times)),
        "p99_ms": round(1000 * times[int(0.99 * len(times))]),
        "a_second": round(len(times) / took, 1),
        "processor_share": round(used / took, 2),
        "processor_ms_a_picture": round(1000 * used / statuses["200"], 1),
        "resident_mb": {"first": memory[0], "middle": memory[len(memory) // 2], "last": memory[-1]},
    }


def command_ms(paths: list[Path]) -> float:
    """Milliseconds of processor time that pcnn-predict takes for a picture, its start excluded."""

    def used(some: list[Path]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", _START, "--weights", "small", "--format", "jsonl"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, *map(str, some)], stdout=subprocess.DEVNULL, env=environment, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return 1000 * (used(paths) - used(paths[:_FEW])) / (len(paths) - _FEW)


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> int:
    """Memory that a process holds, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tar = ROOT.parent / "shared" / "data" / "lfw" / "lfw_faces.tar"
    parser.add_argument("--photographs", type=Path, default=tar, metavar="TAR")
    parser.add_argument("--count", type=int, default=300, help="different photographs")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--limit", type=int, default=30, help="the server's --seconds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        with tarfile.open(arguments.photographs) as archive:
            for member in archive:
                if len(paths) < arguments.count and member.name.endswith(".jpg"):
                    paths.append(Path(folder) / Path(member.name).name)
                    content = archive.extractfile(member)
                    assert content is not None
                    paths[-1].write_bytes(content.read())
        first = command_ms(paths)
        server = Server(*("--waiting", str(arguments.clients), "--seconds", str(arguments.limit)))
        bodies = [path.read_bytes() for path in paths]
        found = load(server, bodies, arguments.clients, arguments.seconds)
        stopped = server.stop()
        second = command_ms(paths)
    command = statistics.mean((first, second))
    result = {
        "machine": {"processor": processor(), "torch": torch.__version__},
        "cores": len(os.sched_getaffinity(0)),
        "photographs": len(paths),
        "server": found,
        "limit": arguments.limit,
        "exit_status": stopped,
        "command_processor_ms_a_picture": [round(first, 1), round(second, 1)],
        "throughput_of_the_command": round(command / found["processor_ms_a_picture"], 2),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
