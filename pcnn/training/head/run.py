"""Training of a head, from your own pictures to its file, table and chart."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn.datasets.pictures import LabelledPictures, read_pictures
from pcnn.embeddings.heads import Head, Vectors
from pcnn.embeddings.values import ValueHead
from pcnn.errors import InputError, counted
from pcnn.evaluation.scores import score
from pcnn.evaluation.values import score_values
from pcnn.images.files import shown
from pcnn.recognition.choices import TABLE_COLUMNS
from pcnn.recognition.recognizer import Recognizer
from pcnn.results.frames import RAW
from pcnn.results.movements import movement_columns
from pcnn.results.values import UNCERTAIN
from pcnn.training.folds import FOLDS, assign_folds, check_labels, left_out, united_groups
from pcnn.training.head.features import Examples, examples_of
from pcnn.training.head.reports import LabelReport, Validated, ValueReport
from pcnn.training.head.validation import calibrated_temperature, logits_for, out_of_fold, share_of
from pcnn.weights.files import WeightsFile, locate
from pcnn.weights.known import DEFAULT_MOVEMENTS

LEAST_NUMBERS = 10  # the least pictures of a set of numbers
ROUNDS = 1000  # resamplings for intervals
_RESERVED = {UNCERTAIN, *TABLE_COLUMNS}


@dataclass(frozen=True)
class HeadOptions:
    """Options of a head's training.

    data: a folder with a folder for each label, or a CSV, see datasets.pictures.
    output: the file to write. Beside it are written `<output>.png` (a chart), `<output>.csv` (all
        pictures) and `<output>.features.npz` (embeddings for the next run).
    faces: True if each picture is one cut-out face. values: columns of numbers to learn.
    balanced: True gives all labels the same weight, see Head.fit. seed: of folds and intervals.
    """

    data: Path
    output: Path
    faces: bool = False
    values: tuple[str, ...] = ()
    balanced: bool = False
    seed: int = 0


def train_head(options: HeadOptions, recognizer: Recognizer) -> LabelReport | ValueReport:
    """Fit a head to your own pictures, validate it, and write it.

    recognizer: finds the faces and computes their embeddings. The head's file notes whether it
        aligned pictures of faces.
    Pictures that cannot be read or have no face are left out and listed. The same pictures,
    options and machine give the same file, byte for byte.
    Raises InputError: another form of data, too few pictures of a label, a name that other columns
    have, a missing package, or an output that cannot be written.
    """
    check_head_options(options)
    output = options.output
    pictures = read_pictures(options.data, options.values)
    names = sorted(set(pictures.labels)) or list(pictures.names)
    reserved = _RESERVED.union(() if pictures.labels else recognizer.classes, _movement_columns())
    taken = [name for name in names if name in reserved or name.startswith(RAW)]
    if taken:
        raise InputError(
            f"train_head: {taken[0]!r} is the name of another column of results: rename it"
        )
    cache = output.with_name(output.name + ".features.npz")
    examples = examples_of(recognizer, pictures.files, cache, faces=options.faces)
    report: LabelReport | ValueReport
    head: Head | ValueHead
    if pictures.labels:
        head, report = _labels(pictures, examples, options, recognizer.weights_sha256)
    else:
        head, report = _values(pictures, examples, options, recognizer.weights_sha256)
    # Only pictures of faces are read in either way.
    aligned = recognizer.finder.align_crops if options.faces else None
    replace(head, align_crops=aligned).save(output)
    report.write_table(output.with_name(output.name + ".csv"))
    report.draw(output.with_name(output.name + ".png"))
    return report


def check_head_options(options: HeadOptions) -> None:
    """Check for missing packages and wrong options, before the work starts.

    Raises InputError: scikit-learn or matplotlib is missing, the output cannot be written or would
    overwrite the data, a negative seed, or a column twice.
    """
    for library, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(library) is None:
            raise InputError(f"train_head: {package} must be installed: pip install 'pcnn[train]'")
    output = options.output
    if output.suffix.lower() != ".safetensors":
        raise InputError(
            f"train_head: output must be a file named ….safetensors, got {shown(output)}"
        )
    if options.seed < 0:
        raise InputError(f"train_head: seed must be 0 or more, got {options.seed}")
    if len(set(options.values)) < len(options.values):
        raise InputError(f"train_head: values must differ, got {', '.join(options.values)}")
    table = output.with_name(output.name + ".csv")
    if output.is_dir() or table.is_dir():
        raise InputError(f"{shown(output if output.is_dir() else table)}: is a folder, not a file")
    if table.exists() and options.data.exists() and table.samefile(options.data):
        raise InputError(
            f"train_head: output would overwrite {shown(options.data)} with its table: "
            "choose another name"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{shown(output)}: cannot be written ({error.strerror})") from error


def _movement_columns() -> tuple[str, ...]:
    """Columns that tables have where movements are read."""
    return movement_columns(WeightsFile(locate(DEFAULT_MOVEMENTS)).metadata["config"]["movements"])


def _labels(
    pictures: LabelledPictures, examples: Examples, options: HeadOptions, weights: str
) -> tuple[Head, LabelReport]:
    """A calibrated head for labels, and its report."""
    labels = [pictures.labels[at] for at in examples.places]
    groups = _groups(pictures, examples)
    classes = tuple(sorted(set(pictures.labels)))
    problems = pictures.problems + examples.problems
    count = check_labels(
        *(labels, groups, classes),
        subject=shown(options.data),
        problems=problems,
        notes=pictures.notes,
        faces=options.faces,
    )
    kinds = np.array([classes.index(label) for label in labels])
    folds = assign_folds(kinds, groups, count, options.seed, classes=classes)

    def fitted(rows: NDArray[np.int64]) -> Head:
        return Head.fit(
            examples.features[rows],
            [labels[row] for row in rows],
            weights=weights,
            method="balanced" if options.balanced else "logistic",
        )

    def answer(known: NDArray[np.int64], asked: NDArray[np.int64]) -> Vectors:
        head = fitted(known)
        return logits_for(classes, head.labels, head.predict_proba(examples.features[asked]))

    logits = out_of_fold(folds, answer)
    temperature = calibrated_temperature(logits, kinds)
    probabilities = (torch.from_numpy(logits).double() / temperature).softmax(1)
    report = LabelReport(
        pictures=_validated(pictures, examples, options, folds),
        accuracy=share_of(logits.argmax(1) == kinds, groups),
        scores=score(
            *(probabilities, torch.from_numpy(kinds), classes),
            bootstrap=ROUNDS,
            groups=groups,
            seed=options.seed,
        ),
        labels=tuple(labels),
        probabilities=probabilities.numpy(),
        temperature=temperature,
    )
    return fitted(np.arange(len(labels))).sharpened(temperature), report


def _values(
    pictures: LabelledPictures, examples: Examples, options: HeadOptions, weights: str
) -> tuple[ValueHead, ValueReport]:
    """A head for numbers, and its report."""
    groups = _groups(pictures, examples)
    wanted = pictures.values[examples.places]
    problems = pictures.problems + examples.problems
    if len(groups) < LEAST_NUMBERS or len(set(groups)) < 2:
        raise InputError(
            f"{shown(options.data)}: numbers need {LEAST_NUMBERS} pictures with a face, of two "
            f"groups or more; got {counted(len(groups), 'picture')} of "
            f"{counted(len(set(groups)), 'group')}"
            f"{left_out(problems, pictures.notes, faces=options.faces)}"
        )
    for name, column in zip(pictures.names, wanted.T, strict=True):
        if np.ptp(column) == 0:
            raise InputError(
                f"{shown(options.data)}: column {name!r} has {column[0]:g} in every row: "
                "nothing can be learnt from it"
            )
    folds = assign_folds(
        np.zeros(len(groups), np.int64), groups, min(FOLDS, len(set(groups))), options.seed
    )

    def fitted(rows: NDArray[np.int64]) -> ValueHead:
        return ValueHead.fit(examples.features[rows], wanted[rows], pictures.names, weights=weights)

    answers = out_of_fold(
        folds, lambda known, asked: fitted(known).predict(examples.features[asked])
    ).astype(np.float64)
    report = ValueReport(
        pictures=_validated(pictures, examples, options, folds),
        scores=score_values(
            *(answers, wanted, pictures.names),
            bootstrap=ROUNDS,
            groups=groups,
            seed=options.seed,
        ),
        labels=wanted,
        answers=answers,
    )
    return fitted(np.arange(len(groups))), report


def _groups(pictures: LabelledPictures, examples: Examples) -> list[str]:
    """The group of each example."""
    given = [pictures.groups[at] for at in examples.places] if pictures.groups else []
    return united_groups(given, examples.digests)


def _validated(
    pictures: LabelledPictures,
    examples: Examples,
    options: HeadOptions,
    folds: NDArray[np.int64],
) -> Validated:
    base = options.data if options.data.is_dir() else options.data.parent
    files = [pictures.files[at] for at in examples.places]
    return Validated(
        names=tuple(
            str(file.relative_to(base) if file.is_relative_to(base) else file) for file in files
        ),
        folds=folds,
        several=examples.several,
        problems=pictures.problems + examples.problems,
        notes=pictures.notes,
        groups=bool(pictures.groups),
    )
