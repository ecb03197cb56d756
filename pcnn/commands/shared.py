"""What several commands share: how they start, what their arguments may be, what they load."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.process import few_collections, guarded
from pcnn.images.files import shown
from pcnn.version import __version__

if TYPE_CHECKING:
    from pcnn.recognition.recognizer import Recognizer

DONE, SOME_FAILED, NOTHING_DONE = 0, 1, 2  # exit statuses

# What `engines` offers, without importing it: a test holds both together.
ENGINES = ("auto", "torch", "compile", "openvino", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")

_BATCH_SIZE, _CROPS_BATCH_SIZE = 8, 64

# A cut-out face is seldom longer or larger than this, a photograph often is.
_FACE_RATIO, _FACE_PIXELS = 1.6, 1024 * 1024
_HINT_FILES = 100

# What can be the address of a cluster: anything else after --ray is a picture.
_ADDRESS = re.compile(r"auto|local|ray://.+|[\w.-]+:\d+")


def run_command(  # noqa: PLR0913
    program: str,
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    *,
    epilog: str | None = None,
    check: Callable[[argparse.Namespace], str] | None = None,
    short: bool = False,
) -> int:
    """Parse a command's arguments and do its work.

    argv: the arguments; None takes the process's own.
    check: gives what is wrong with arguments that parse, or "".
    short: the command lasts seconds, see process.few_collections.
    Returns the exit status: 0 all right, also where pictures have no face; 1 some inputs failed;
    2 nothing could be done; 130 interrupted; 141 the reader of stdout has gone.
    Raises SystemExit: --help, --version (0) and wrong usage (2), as argparse does.
    """
    parser = argparse.ArgumentParser(
        program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"pcnn {__version__}")
    arguments = parser.parse_args(argv)
    if check is not None and (wrong := check(arguments)):
        parser.error(wrong)
    if not short:
        return guarded(program, lambda: run(arguments))
    with few_collections(argv):
        return guarded(program, lambda: run(arguments))


def load_recognizer(arguments: argparse.Namespace) -> Recognizer:
    """The recognizer that the arguments ask for.

    Imported here, so that wrong paths are reported without waiting for torch.
    """
    from pcnn.recognition.recognizer import Recognizer

    options = recognizer_options(arguments)
    first = [options.pop(name) for name in ("weights", "detector", "device")]
    return Recognizer(*first, **options)


def recognizer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same as arguments of Recognizer by name."""
    return {
        "weights": arguments.weights,
        "detector": arguments.detector,
        "device": arguments.device,
        "engine": arguments.engine,
        "precision": arguments.precision,
        "batch_size": step_size(arguments),
        "align_crops": False if arguments.as_they_are else None,
    }


def photograph_hint(files: Sequence[Path]) -> str:
    """What to say of pictures given with --faces if one looks like a whole photograph; else "".

    Only the first hundred are looked at.
    """
    from pcnn.images.loading import stored_size

    for file in files[:_HINT_FILES]:
        size = stored_size(file)
        if size and (max(size) > _FACE_RATIO * min(size) or size[0] * size[1] > _FACE_PIXELS):
            return (
                f"hint: {shown(file)} has {size[0]} × {size[1]} pixels, but --faces is for faces "
                "that are cut out already, each picture one: leave it out to have the faces found"
            )
    return ""


def step_size(arguments: argparse.Namespace) -> int:
    """How many pictures share a pass."""
    chosen: int | None = arguments.batch_size
    return chosen or (_CROPS_BATCH_SIZE if arguments.faces else _BATCH_SIZE)


def add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--engine", choices=ENGINES, default="torch", help="what runs the networks [%(default)s]")
    add("--precision", choices=PRECISIONS, default="float32", help="of expressions [%(default)s]")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where a job of many processes runs."""
    add = parser.add_argument_group("on a cluster, or many processes of this machine").add_argument
    ray = "share the work out by Ray: auto, host:port, ray://…, or local [local]"
    add("--ray", nargs="?", const="local", metavar="ADDRESS", help=ray)
    add("--workers", type=positive, metavar="N", help="recognizers (default: one for each core)")
    add("--worker-cpus", type=positive, default=1, metavar="N", help="cores of each [1]")
    add("--worker-gpus", type=share, default=0.0, metavar="X", help="GPUs of each, 0.5 too [0]")
    add("--partition", type=positive, default=1000, metavar="N", help="pictures in a file [1000]")


def settle_address(arguments: argparse.Namespace) -> None:
    """Take what stands after --ray for a picture where it is no address of a cluster."""
    if arguments.ray is not None and not _ADDRESS.fullmatch(arguments.ray):
        arguments.paths.insert(0, arguments.ray)
        arguments.ray = "local"


def wrong_on_ray(arguments: argparse.Namespace) -> str:
    """What is wrong with the arguments of a job on Ray, or ""."""
    if arguments.output is None or arguments.format not in ("table", "parquet"):
        return "--ray writes Parquet files into a folder: give --output FOLDER, and no other format"
    if arguments.annotate or arguments.explain or arguments.info:
        return "--ray writes tables alone, so --annotate, --explain and --info have no place"
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
        JobOptions(recognizer_options(arguments), arguments.faces, arguments.min_score),
        Cluster(*(arguments.ray, arguments.workers, arguments.worker_cpus, arguments.worker_gpus)),
        size=arguments.partition,
        tell=lambda line: print(f"pcnn-predict: {line}", file=sys.stderr),
    )
    if done.missing == done.partitions:
        return NOTHING_DONE
    return SOME_FAILED if done.failed or done.missing else DONE


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in 0…1, got {text}")
    return value


def positive(text: str) -> int:
    return whole(text, least=1)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def count(text: str) -> int:
    return whole(text, least=0)


def whole(text: str, *, least: int) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be whole, got {text!r}") from error
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return value
