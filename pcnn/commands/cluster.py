"""`pcnn-predict --ray`: the same on a cluster, into a folder of Parquet files, resumable."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.shared import DONE, NOTHING_DONE, SOME_FAILED, positive, step_size
from pcnn.errors import InputError, counted
from pcnn.images.files import shown
from pcnn.terminal import track

if TYPE_CHECKING:
    from pcnn.distributed.jobs import JobOptions

LOCAL = "local"
# Addresses of clusters; any other text after --ray is a picture.
_ADDRESS = re.compile(r"auto|local|ray://.+|[\w.-]+:\d+")
_STORE_BYTES = 100 * 1024 * 1024  # of a local cluster, which transfers only names and counts


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for running a job on a cluster."""
    group = parser.add_argument_group("on a cluster, or many processes of this machine")
    add = group.add_argument
    add(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="distribute the work with Ray: auto, host:port, ray://…, or local [local]",
    )
    add("--workers", type=positive, metavar="N", help="recognizers (default: one for each core)")
    add("--worker-cpus", type=positive, default=1, metavar="N", help="cores of each [1]")
    add("--worker-gpus", type=share, default=0.0, metavar="X", help="GPUs of each, 0.5 too [0]")
    add("--partition", type=positive, default=1000, metavar="N", help="pictures in a file [1000]")


def share(text: str) -> float:
    """A GPU's share, or several: a number of 0 or more."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def settle_address(arguments: argparse.Namespace) -> None:
    """Treat the text after --ray as a picture if it is no address."""
    if arguments.ray is not None and not _ADDRESS.fullmatch(arguments.ray):
        arguments.paths.insert(0, arguments.ray)
        arguments.ray = LOCAL


def wrong_on_ray(arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments of a job on Ray, or ""."""
    if arguments.output is None or arguments.format not in ("table", "parquet"):
        return "--ray writes Parquet files into a folder: give --output FOLDER, and no other format"
    if arguments.annotate or arguments.explain or arguments.info:
        return "--ray writes tables alone, so --annotate, --explain and --info have no place"
    return ""


def predict_on_ray(arguments: argparse.Namespace) -> int:
    """Do what is left of a job, and return the exit status.

    Raises InputError: nothing can be done at all, see jobs.prepare.
    """
    from pcnn.distributed import jobs
    from pcnn.distributed.sources import partitions

    plan, errors = partitions(arguments.paths, arguments.partition)
    for error in errors:
        _complain(str(error))
    if not plan:
        return NOTHING_DONE
    options, output = _options(arguments), arguments.output
    todo = jobs.prepare(output, plan, options)
    waiting = {each.number for each in todo}
    if len(todo) < len(plan):
        _complain(f"{len(plan) - len(todo)} of {counted(len(plan), 'partition')} already exist")
    done = [
        jobs.outcome(output / jobs.file_name(each.number), each.number)
        for each in plan
        if each.number not in waiting
    ]
    if todo:
        with _ray(arguments):
            outcomes = jobs.run_on_ray(
                *(output, todo, options),
                workers=arguments.workers,
                num_cpus=arguments.worker_cpus,
                num_gpus=arguments.worker_gpus,
            )
            done += track(outcomes, "partitions", total=len(todo))
    problems = [each.problem for each in done if each.problem]
    for problem in problems:
        _complain(f"{problem}; the next run tries this partition again")
    if not problems:
        jobs.clear(output)
    faces, failed = sum(each.faces for each in done), sum(each.failed for each in done)
    _complain(f"{counted(faces, 'face')} in {shown(output)}, {counted(failed, 'picture')} failed")
    if len(problems) == len(done):
        return NOTHING_DONE
    return SOME_FAILED if failed or errors or problems else DONE


def _options(arguments: argparse.Namespace) -> JobOptions:
    """What decides the results, with the weights' own checksum, which a file's name does not."""
    from pcnn.distributed.jobs import JobOptions
    from pcnn.weights.files import DEFAULT_WEIGHTS, locate, sha256

    weights = locate(arguments.weights or DEFAULT_WEIGHTS, kind="expression")
    recognizer = {
        "weights": _found_anywhere(arguments.weights),
        "detector": _found_anywhere(arguments.detector),
        "device": arguments.device,
        "engine": arguments.engine,
        "precision": arguments.precision,
        "batch_size": step_size(arguments),
        "align_crops": False if arguments.as_they_are else None,
    }
    return JobOptions(recognizer, arguments.faces, arguments.min_score, sha256(weights))


def _found_anywhere(weights: str | None) -> str | None:
    """A name as it is, a file by its full path: workers may run in other folders."""
    return str(Path(weights).resolve()) if weights and Path(weights).is_file() else weights


@contextlib.contextmanager
def _ray(arguments: argparse.Namespace) -> Iterator[None]:
    """A connection to the cluster; a local one is made for the job. One that is there is used.

    Raises InputError: ray is not installed, or the cluster cannot be reached.
    """
    from pcnn.distributed.datasets import ray_modules

    ray = ray_modules("pcnn-predict --ray")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    local = arguments.ray == LOCAL
    own: dict[str, Any] = {}
    if local:
        cores = arguments.workers and arguments.workers * arguments.worker_cpus
        own = {"num_cpus": cores, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(arguments.ray, logging_level="ERROR", log_to_driver=False, **own)
    except Exception as error:  # Ray raises that very class where its processes do not start
        raise InputError(f"--ray {arguments.ray}: the cluster does not answer ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _complain(line: str) -> None:
    print(f"pcnn-predict: {line}", file=sys.stderr)
