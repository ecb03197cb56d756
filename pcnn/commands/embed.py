"""`pcnn-embed`: write the embeddings of the faces in many files to one file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcnn.commands.outputs import check_output
from pcnn.commands.process import complain
from pcnn.commands.shared import (
    DONE,
    NOTHING_DONE,
    SOME_FAILED,
    add_engine,
    load_recognizer,
    photograph_hint,
    positive,
    probability,
    run_command,
)
from pcnn.errors import InputError, counted
from pcnn.images.files import find_images, shown
from pcnn.terminal import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pcnn.recognition.recognizer import Recognizer

    _Found = tuple[NDArray[np.float32], NDArray[np.float32]]  # features (F, D), boxes (F, 4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="picture, folder (searched), or glob pattern")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help=".npz or .parquet")
    add("--faces", action="store_true", help="each picture is one cut-out face")
    add("--as-they-are", action="store_true", help="never align faces (default: weights decide)")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    add_engine(parser)
    add("--min-score", type=probability, metavar="P", help="least detection score, 0…1")
    add("--batch-size", type=positive, metavar="N", help="pictures in one pass")


def run(arguments: argparse.Namespace) -> int:
    """Embed all files, report each that fails, and return the exit status.

    arguments: as `pcnn-embed` parses them. If every file fails, nothing is written.
    Raises InputError, WeightsError, NativeError: no file can be embedded.
    """
    import numpy as np

    from pcnn.embeddings.files import Embeddings, check_suffix

    check_suffix("--output", arguments.output)
    files, errors = find_images(arguments.paths)
    for error in errors:
        complain("pcnn-embed", error, vars(arguments))
    if not files:
        return NOTHING_DONE
    check_output(arguments.output, files)
    recognizer = load_recognizer(arguments)
    features = [np.empty((0, recognizer.embedding_size), np.float32)]
    boxes = [np.empty((0, 4), np.float32)]
    paths: list[str] = []
    places: list[int] = []
    if arguments.faces and (hint := photograph_hint(files)):
        complain("pcnn-embed", hint, vars(arguments))
    failed = 0
    for file, found in _found(recognizer, files, arguments):
        if isinstance(found, InputError):
            failed += 1
            complain("pcnn-embed", found, vars(arguments))
            continue
        features.append(found[0])
        boxes.append(found[1])
        paths += [str(file)] * len(found[0])
        places += range(len(found[0]))
    if failed == len(files):
        return NOTHING_DONE
    embeddings = Embeddings(
        features=np.concatenate(features),
        paths=tuple(paths),
        face_index=np.array(places, np.int64),
        boxes=np.concatenate(boxes),
        weights_sha256=recognizer.weights_sha256,
    )
    embeddings.save(arguments.output)
    faces, size = embeddings.features.shape
    print(
        f"{shown(arguments.output)}: {counted(faces, 'face')} of "
        f"{counted(len(files) - failed, 'picture')}, {counted(size, 'value')} each",
        file=sys.stderr,
    )
    return SOME_FAILED if failed or errors else DONE


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-embed`; argv, exit status, SystemExit: see shared.run_command."""
    text = "Write an embedding of each face in pictures, see docs/embeddings.md."
    return run_command("pcnn-embed", text, add_arguments, run, argv, check=_check, short=True)


def _check(arguments: argparse.Namespace) -> str:
    if arguments.faces and arguments.min_score is not None:
        return "--faces takes each picture for one face, so it excludes --min-score"
    return ""


def _found(
    recognizer: Recognizer, files: Sequence[Path], arguments: argparse.Namespace
) -> Iterator[tuple[Path, _Found | InputError]]:
    """Each file with its features and boxes, or its error, in order; progress on stderr."""
    import numpy as np

    if arguments.faces:
        crops = recognizer.embed_crops(iter(files), on_error="return")
        nowhere = np.full((1, 4), np.nan, np.float32)
        found = (each if isinstance(each, InputError) else (each[None], nowhere) for each in crops)
    else:
        found = recognizer.embed(
            iter(files), min_score=arguments.min_score, on_error="return", boxes=True
        )
    yield from track(
        zip(files, found, strict=True),
        "embedding",
        total=len(files),
        shown=len(files) > recognizer.batch_size,
    )
