"""`pcnn-predict`: predict the expressions in many pictures and films, or show --info."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pcnn.commands.cluster import (
    add_cluster,
    predict_on_ray,
    settle_address,
    wrong_on_ray,
    wrong_without_ray,
)
from pcnn.commands.films.options import (
    add_film_arguments,
    find_inputs,
    idle_hints,
    wrong_film_arguments,
)
from pcnn.commands.outputs import make_folder, opened, progress, report_to, save_picture
from pcnn.commands.process import complain, with_options
from pcnn.commands.run_options import RunOptions
from pcnn.commands.shared import (
    DONE,
    NOTHING_DONE,
    SOME_FAILED,
    add_engine,
    add_reading,
    load_recognizer,
    photograph_hint,
    pixels,
    positive,
    probability,
    run_command,
)
from pcnn.errors import InputError, NativeError, counted
from pcnn.images.files import annotated_names
from pcnn.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.progress import Progress

    from pcnn.commands.reports import Report
    from pcnn.recognition.recognizer import Recognizer
    from pcnn.results.values import Expression, Prediction


_EXAMPLES = """\
examples:
  pcnn-predict photo.jpg                              a table of the faces in it
  pcnn-predict photos --annotate drawn                a folder, with annotated copies
  pcnn-predict photo.jpg --explain why                each region's answer and a heat map
  pcnn-predict 'photos/**/*.jpg' --output faces.csv   also .json, .jsonl, .parquet; or --format
  pcnn-predict photos --format jsonl | jq .faces[].label
  pcnn-predict --ray photos --output faces.parquet    many processes, or a cluster; resumable
  pcnn-predict --faces fer/*.png                      pictures of cut-out faces
  pcnn-predict --head mine.safetensors photo.jpg      labels of your own, from pcnn-train head
  pcnn-predict photo.jpg --movements --format json    also facial movements, head pose, mesh
  pcnn-predict film.mp4 --timeline drawn              people followed through a film
  pcnn-predict camera:0 --format jsonl                also rtsp://…, and - for a film from a pipe
  pcnn-predict --info                                 versions, device, weights, ops

exit status: 0 all predicted, 1 some pictures failed (each named on stderr), 2 nothing done.
"""

_FORMATS = ("table", "json", "jsonl", "csv", "parquet")  # all but the first name files, too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="picture, film, folder or glob pattern")
    add("--format", choices=_FORMATS, help="[by the name of --output, else table]")
    add("-o", "--output", type=Path, metavar="FILE", help="write there instead of to stdout")
    add("--all-rows", action="store_true", help="CSV: a row also for a picture without a face")
    add("--annotate", type=Path, metavar="DIR", help="save an annotated copy of each input")
    add("--explain", type=Path, metavar="DIR", help="save a picture that explains each face")
    add("--movements", action="store_true", help="also read facial movements, pose and mesh")
    add("--faces", action="store_true", help="each picture is one cut-out face")
    add("--as-they-are", action="store_true", help="never align (default: head or weights decide)")
    add("--weights", metavar="NAME|FILE", help="expression weights (default: packaged)")
    add("--head", type=Path, metavar="FILE", help="your own labels, see docs/own-labels.md")
    add("--detector", metavar="NAME|FILE", help="mobilenet, resnet50 or a checkpoint")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, … (default: auto)")
    add_engine(parser)
    add("--min-score", type=probability, metavar="P", help="least detection score, 0…1")
    add("--min-face", type=pixels, metavar="N", help="shorter side of the least face, in pixels")
    add_reading(parser)
    add("--batch-size", type=positive, metavar="N", help="pictures in one pass")
    add("--info", action="store_true", help="show versions, device, weights and ops, then exit")
    add_film_arguments(parser)
    add_cluster(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status.

    Raises InputError, WeightsError, NativeError: no file can be predicted.
    """
    if arguments.info:
        return show_info(arguments)
    return predict_on_ray(arguments) if arguments.ray else predict_files(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `pcnn-predict`; argv, exit status, SystemExit: see shared.run_command."""
    description = "Find the faces in pictures and films and read their expressions."
    return run_command(
        *("pcnn-predict", description, add_arguments, run, argv),
        epilog=_EXAMPLES,
        check=_check,
        short=True,
    )


def _check(arguments: argparse.Namespace) -> str:
    settle_address(arguments)
    if arguments.format is None:
        suffix = arguments.output.suffix.lower()[1:] if arguments.output else ""
        arguments.format = suffix if suffix in _FORMATS else "table"
    if not arguments.paths and not arguments.info:
        return "give at least one picture, folder or pattern (or --info)"
    wrong = _wrong_faces(arguments) if arguments.faces else ""
    wrong = wrong or wrong_film_arguments(arguments)
    if arguments.ray:
        return wrong or wrong_on_ray(arguments)
    return wrong or wrong_without_ray(arguments) or _wrong_format(arguments)


def _wrong_faces(arguments: argparse.Namespace) -> str:
    detects = (arguments.min_score, arguments.min_face)
    if arguments.annotate or arguments.min_quality or any(each is not None for each in detects):
        return (
            "--faces takes each picture for one face, so it excludes --annotate, --min-score, "
            "--min-face and --min-quality"
        )
    if arguments.movements:
        return "--movements needs the landmarks of faces in photographs, so it excludes --faces"
    return ""


def _wrong_format(arguments: argparse.Namespace) -> str:
    if arguments.format == "parquet" and (arguments.output is None or arguments.info):
        return "--format parquet writes faces to a file: give --output FILE, and no --info"
    if arguments.all_rows and arguments.format != "csv":
        return "--all-rows needs --format csv: the other formats have all pictures"
    return ""


def predict_files(arguments: argparse.Namespace) -> int:
    """Predict all files, report each that fails, and return the exit status.

    arguments: as `pcnn-predict` parses them. Pictures come first, then films.
    Raises InputError, WeightsError, NativeError: no file can be predicted.
    """
    pictures, films, errors = find_inputs(arguments)
    for error in errors:
        _complain(arguments, error)
    if not pictures and not films:
        return NOTHING_DONE
    from pcnn.commands.reports import Names, csv_columns

    options = RunOptions(arguments)
    if hint := options.compare():
        _complain(arguments, hint)
    recognizer = load_recognizer(arguments)
    _check_explained(arguments, recognizer)
    for folder in (arguments.annotate, arguments.explain):
        if folder is not None:
            make_folder(folder)
    _give_hints(arguments, pictures, films)
    targets = _targets(arguments, pictures)  # before some are left out: all decide their names
    resumed = None
    names = Names(tuple(recognizer.classes), tuple(recognizer.value_names), recognizer.movements)
    kinds = {"pictures": bool(pictures), "films": bool(films)}
    columns = csv_columns(names, crops=arguments.faces, **kinds)
    if arguments.resume:
        from pcnn.commands.films.resumption import resume

        resumed = resume(arguments, names, films=bool(films), ended=options.ended)
        pictures = [file for file in pictures if str(file) not in resumed.finished]
        columns = resumed.columns or columns
    begun = resumed is not None and resumed.size > 0
    files = [*pictures, *map(Path, films)]
    with report_to(arguments, files, names, columns=columns, begun=begun) as report:
        options.keep()
        failed = 0
        if pictures:
            failed = _predict_pictures(recognizer, pictures, arguments, report, targets)
        if films:
            from pcnn.commands.films.run import FilmRun

            run_of_films = FilmRun(recognizer, arguments, report, resumed, options, _complain)
            failed += run_of_films.predict(films)
    if failed and failed == len(files):
        return NOTHING_DONE
    if failed or errors:
        return SOME_FAILED
    options.complete()
    return DONE


def _check_explained(arguments: argparse.Namespace, recognizer: Recognizer) -> None:
    """Raises InputError: --explain, and the recognizer cannot explain."""
    from pcnn.weights.known import DEFAULT_WEIGHTS

    if arguments.explain and arguments.head and not recognizer.value_names:
        raise InputError("--explain explains the weights' own labels: omit --head")
    if arguments.explain and not recognizer.reader.regions:
        raise InputError(f"--explain needs weights with regions: --weights {DEFAULT_WEIGHTS}")


def _give_hints(
    arguments: argparse.Namespace, pictures: Sequence[Path], films: Sequence[str]
) -> None:
    """Say on stderr which options have no effect that can be seen."""
    unseen = arguments.format == "table" and not arguments.annotate
    if arguments.movements and unseen:
        _complain(arguments, "hint: the table has no movements: --format json or csv, --annotate")
    if arguments.faces and (hint := photograph_hint(pictures)):
        _complain(arguments, hint)
    for hint in idle_hints(arguments, films=bool(films)):
        _complain(arguments, hint)


class _Targets(NamedTuple):
    """Where drawn pictures go: file → its annotated copy, file → its explanation."""

    annotated: dict[Path, Path]
    explained: dict[Path, Path]


def _targets(arguments: argparse.Namespace, files: Sequence[Path]) -> _Targets:
    """Where in --annotate and --explain each file's drawn picture goes; none without a folder."""
    annotate, explain = arguments.annotate, arguments.explain
    return _Targets(
        annotated_names(files, annotate) if annotate else {},
        annotated_names(files, explain, word="explained", jpeg=False) if explain else {},
    )


def _predict_pictures(
    recognizer: Recognizer,
    files: Sequence[Path],
    arguments: argparse.Namespace,
    report: Report,
    targets: _Targets,
) -> int:
    """Predict all pictures, report each that fails, and return how many did."""
    from pcnn.results.values import Prediction

    failed = 0
    # The bar ends before the report closes: a table printed beside a bar is garbled.
    with progress(arguments, len(files)) as bar:
        for file, result in _results(recognizer, files, arguments):
            try:
                if isinstance(result, InputError):
                    raise result
                report.add(str(file), result)
                if isinstance(result, Prediction) and targets.annotated:
                    save_picture(_drawn(result, file, arguments), targets.annotated[file])
                if targets.explained:
                    _explain(recognizer, file, targets.explained[file], arguments)
            except InputError as error:
                failed += 1
                _complain(arguments, error, bar)
                if result is error:
                    report.fail(str(file), error)
            if bar:
                bar.advance(bar.task_ids[0])
    return failed


def show_info(arguments: argparse.Namespace) -> int:
    """Print versions, device, weights and ops.

    Raises InputError, WeightsError: an option is refused, and nothing is printed.
    Raises NativeError: the ops cannot be used. The versions are printed first.
    """
    import numpy as np
    import PIL
    import torch

    pairs = [
        ("pcnn", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", f"{torch.__version__}, {counted(torch.get_num_threads(), 'thread')}"),
        ("numpy", np.__version__),
        ("pillow", PIL.__version__),
    ]
    failure: NativeError | None = None
    try:
        pairs += load_recognizer(arguments).info()
    except NativeError as error:
        failure = error
    with opened(arguments.output, []) as stream:
        if arguments.format in ("json", "jsonl"):
            stream.write(json.dumps(dict(pairs), indent=2) + "\n")
        else:
            width = max(len(name) for name, _ in pairs)
            stream.writelines(f"{name:{width}}  {text}\n" for name, text in pairs)
    if failure is not None:
        raise failure
    return DONE


def _results(
    recognizer: Recognizer, files: Sequence[Path], arguments: argparse.Namespace
) -> Iterator[tuple[Path, Prediction | Expression | InputError]]:
    """Each file with its result, in order. Few pictures are in memory at a time."""
    results: Iterator[Prediction | Expression | InputError]
    if arguments.faces:
        results = recognizer.predict_crops(iter(files), on_error="return")
    else:
        results = recognizer.predict(iter(files), min_score=arguments.min_score, on_error="return")
    return zip(files, results, strict=True)


def _explain(
    recognizer: Recognizer, file: Path, target: Path, arguments: argparse.Namespace
) -> None:
    """Save the explanations of one picture's faces in a column; without faces save nothing.

    Raises InputError: the file can no longer be read, or the picture cannot be written.
    """
    from pcnn.results.style import stack

    found = (
        [recognizer.explain_crops(file)]
        if arguments.faces
        else recognizer.explain(file, min_score=arguments.min_score)
    )
    if found:
        numbers = range(1, len(found) + 1) if len(found) > 1 else [None]
        drawn = [each.draw(number=number) for each, number in zip(found, numbers, strict=True)]
        save_picture(stack(drawn), target)


def _drawn(result: Prediction, file: Path, arguments: argparse.Namespace) -> Image:
    return result.draw(file, mesh=arguments.movements, movements=arguments.movements)


def _complain(arguments: argparse.Namespace, what: object, bar: Progress | None = None) -> None:
    """Print an error or a hint on stderr, above the progress bar."""
    if bar is None:
        complain("pcnn-predict", what, vars(arguments))
    else:
        line = f"pcnn-predict: {with_options(str(what), vars(arguments))}"
        bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
