"""A whole job on Ray, from sources to the folder of faces: what `pcnn-predict --ray` does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pcnn.distributed import jobs
from pcnn.distributed.datasets import ray_modules
from pcnn.distributed.sources import partitions
from pcnn.errors import InputError, counted
from pcnn.images.files import shown
from pcnn.recognition.choices import checksums
from pcnn.results.tables import needed
from pcnn.terminal import track

T = TypeVar("T")
LOCAL = "local"
_STARTS = 4  # tries
_STORE_BYTES = 100 * 1024 * 1024  # of a local cluster: only names and counts travel


@dataclass(frozen=True)
class Cluster:
    """Where a job runs: Ray's address ("local" starts processes of its own), and its workers.

    workers: recognizers, None for one on each core or GPU. num_cpus, num_gpus: of each.
    """

    address: str = LOCAL
    workers: int | None = None
    num_cpus: int = 1
    num_gpus: float = 0


@dataclass(frozen=True)
class Summary:
    """A job's outcome: faces, pictures that failed, and partitions without a file."""

    faces: int = 0
    failed: int = 0
    partitions: int = 0
    missing: int = 0


def run(  # noqa: PLR0913
    sources: Sequence[str],
    output: Path,
    options: jobs.JobOptions,
    cluster: Cluster,
    *,
    size: int,
    tell: Callable[[str], None],
) -> Summary:
    """Do what is left of a job.

    sources, size: as for `sources.partitions`. output: a folder, see jobs.
    tell: takes lines about what cannot be read and how far it is.
    Raises InputError: nothing can be done at all, see jobs.prepare; ray is not installed or the
    cluster does not answer. WeightsError: see weights.locate.
    """
    plan, errors = partitions(sources, size, films=not options.crops)
    for error in errors:
        tell(str(error))
    if not plan:
        return Summary()
    if any(each.film for each in plan):
        needed("av", "pcnn-predict --ray", "video")
    options = _settled(options)
    todo = jobs.prepare(output, plan, options)
    waiting = {each.number for each in todo}
    if len(todo) < len(plan):
        tell(f"{len(plan) - len(todo)} of {counted(len(plan), 'partition')} are there already")
    done = [
        jobs.outcome(output / jobs.file_name(each.number), each.number)
        for each in plan
        if each.number not in waiting
    ]
    if todo:
        with _connected(cluster):
            outcomes = jobs.run_on_ray(
                *(output, todo, options),
                workers=cluster.workers,
                num_cpus=cluster.num_cpus,
                num_gpus=cluster.num_gpus,
            )
            done += track(_named(outcomes), "partitions", total=len(todo))
    problems = [each.problem for each in done if each.problem]
    for problem in problems:
        tell(f"{problem}; the next run tries this partition again")
    if not problems:
        jobs.clear(output)
    faces, failed = sum(each.faces for each in done), sum(each.failed for each in done)
    tell(f"{counted(faces, 'face')} in {shown(output)}, {counted(failed, 'picture')} failed")
    return Summary(faces, failed + len(errors), len(plan), len(problems))


def _settled(options: jobs.JobOptions) -> jobs.JobOptions:
    """The same with files by their full paths, as workers may run in other folders, and the
    checksums of all weights and the head, as a file may change while its name stays."""
    recognizer = dict(options.recognizer)
    found = checksums(recognizer)
    for part in ("weights", "detector", "head"):
        name = recognizer.get(part)
        if name and Path(name).is_file():
            recognizer[part] = str(Path(name).resolve())
    return replace(options, recognizer=recognizer, weights_sha256=" ".join(found.values()))


def _named(outcomes: Iterator[jobs.Done]) -> Iterator[jobs.Done]:
    """The outcomes; where no worker can start, its error without Ray's pages of calls.

    Raises InputError: so it is.
    """
    ray = ray_modules("pcnn-predict --ray")
    try:
        yield from outcomes
    except ray.exceptions.RayError as error:
        told = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        reason = told[-1].removeprefix(f"{InputError.__module__}.")
        raise InputError(f"--ray: a worker cannot go on: {reason}") from error


def patiently(start: Callable[[], T]) -> T:
    """The result of starting Ray's processes, tried several times.

    Each may take at most 30 seconds, says Ray, and on a busy machine one takes longer.
    """
    for _ in range(_STARTS - 1):
        with contextlib.suppress(Exception):  # Ray raises that very class
            return start()
    return start()


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """A connection to the cluster; a local one is made for the job. One that is there is used.

    Raises InputError: ray is not installed, or the cluster does not answer.
    """
    ray = ray_modules("pcnn-predict --ray")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {}
    if cluster.address == LOCAL:
        cores = cluster.workers and cluster.workers * cluster.num_cpus
        own = {"num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}

    def connect() -> None:
        ray.init(cluster.address, logging_level="ERROR", log_to_driver=False, **own)

    try:
        patiently(connect) if cluster.address == LOCAL else connect()
    except Exception as error:  # Ray raises that very class where its processes do not start
        raise InputError(
            f"--ray {cluster.address}: the cluster does not answer ({error})"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
