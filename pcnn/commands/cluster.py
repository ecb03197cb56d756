"""`pcnn-predict --ray`: the arguments of a job on a cluster, their checks, and the job."""

from __future__ import annotations

import argparse
import re

from pcnn.commands.process import complain, switch
from pcnn.commands.run_options import FILM_OPTIONS
from pcnn.commands.shared import (
    DONE,
    NOTHING_DONE,
    SOME_FAILED,
    positive,
    recognizer_options,
    share,
)

# Options for --ray alone, and their defaults.
_CLUSTER = {"workers": None, "worker_cpus": 1, "worker_gpus": 0.0, "partition": 1000}
# What can be the address of a cluster: anything else after --ray is a picture.
_ADDRESS = re.compile(r"auto|local|ray://.+|[\w.-]+:\d+")
# The beginning of a URI after Path has made one slash of its two; C:/ is a folder of Windows.
_URI = re.compile(r"[a-z][a-z0-9+.-]+:/")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where a job of many processes runs."""
    add = parser.add_argument_group("on a cluster, or many processes of this machine").add_argument
    ray = "share the work out by Ray: auto, host:port, ray://…, or local [local]"
    add("--ray", nargs="?", const="local", metavar="ADDRESS", help=ray)
    add("--workers", type=positive, metavar="N", help="recognizers (default: one for each core)")
    add("--worker-cpus", type=positive, metavar="N", help="cores of each [1]")
    add("--worker-gpus", type=share, metavar="X", help="GPUs of each, 0.5 too [0]")
    add("--partition", type=positive, metavar="N", help="pictures in a file [1000]")
    parser.set_defaults(**_CLUSTER)


def settle_address(arguments: argparse.Namespace) -> None:
    """Take what stands after --ray for a picture where it is no address of a cluster."""
    if arguments.ray is not None and not _ADDRESS.fullmatch(arguments.ray):
        arguments.paths.insert(0, arguments.ray)
        arguments.ray = "local"


def wrong_on_ray(arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments of a job on Ray, or ""."""
    if arguments.output is None or arguments.format not in ("table", "parquet"):
        return "--ray writes Parquet files into a folder: give --output FOLDER, and no other format"
    if _URI.match(str(arguments.output)):
        return "--output must be a folder that all workers reach by this path, not a URI"
    others = ("annotate", "explain", "info", "timeline", "subtitles", "all_rows")
    given = [switch(name) for name in others if getattr(arguments, name)]
    if given:
        return f"--ray writes tables alone: omit {', '.join(given)}"
    return ""


def wrong_without_ray(arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments of work in this process, or ""."""
    given = [switch(name) for name, usual in _CLUSTER.items() if getattr(arguments, name) != usual]
    if given:
        return f"only --ray has workers and partitions: add it, or omit {', '.join(given)}"
    return ""


def predict_on_ray(arguments: argparse.Namespace) -> int:
    """Do what is left of a job on a cluster, and return the exit status.

    Raises InputError, WeightsError: nothing can be done at all, see distributed.runs.
    """
    from pcnn.distributed.jobs import JobOptions
    from pcnn.distributed.runs import Cluster, run

    done = run(
        arguments.paths,
        arguments.output,
        JobOptions(
            recognizer_options(arguments),
            arguments.faces,
            arguments.min_score,
            {name: getattr(arguments, name) for name in FILM_OPTIONS},
        ),
        Cluster(*(arguments.ray, arguments.workers, arguments.worker_cpus, arguments.worker_gpus)),
        size=arguments.partition,
        tell=lambda line: complain("pcnn-predict", line, vars(arguments)),
    )
    if done.missing == done.partitions:
        return NOTHING_DONE
    return SOME_FAILED if done.failed or done.missing else DONE
