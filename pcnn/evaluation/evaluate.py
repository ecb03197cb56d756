"""`pcnn-evaluate`: an expression network scored on a data set, and the files it writes."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pcnn import __version__, weights
from pcnn.faces.alignment import suited_faces
from pcnn.evaluation.charts import draw_confusion, draw_coverage, draw_reliability
from pcnn.datasets.loading import FaceSet, load_faces
from pcnn.faces.detector import DEFAULT_DETECTOR, FaceDetector
from pcnn.devices import choose_device
from pcnn.errors import InputError, counted
from pcnn.evaluation.logits import Cost, measure_cost, predict_logits
from pcnn.datasets.labels import canonical, one_hot, relabel
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.recognition.recognizer import DEFAULT_WEIGHTS
from pcnn.evaluation.tables import class_table, coverage_table, overall_table, write_csv
from pcnn.evaluation.scores import Scores, score
from pcnn.weights.files import ExpressionWeights

_LATENCY_RUNS = 20
# What is told of the data in the report.
_DATA_OPTIONS = (
    *("split", "layout", "protocol", "labels", "duplicates", "numbering"),
    *("images", "skip_missing", "skip_damaged"),
)


@dataclass(frozen=True, eq=False)
class Common:
    """The faces of a data set whose label a network knows too.

    faces: their classes are those in common, in the network's order; votes are one-hot.
    network_only, data_only: the classes that only one of the two has.
    left_out: how many faces have a label of `data_only`.
    """

    faces: FaceSet
    network_only: tuple[str, ...]
    data_only: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    scores: of the answers as the weights ask for them: where `mirror`, with the logits of each
        face and of its mirror image averaged. other: the other way, None if not asked for.
    aligned: whether faces were aligned by their landmarks, as the weights ask.
    outside: faces whose likeliest class was one of `common.network_only`, before the
        probabilities were renormalised over the classes in common.
    """

    common: Common
    scores: Scores
    mirror: bool
    aligned: bool
    other: Scores | None
    outside: int

    def to_dict(self) -> dict[str, Any]:
        """All results, as values that `json.dumps` takes."""
        return {
            "classes": {
                "common": list(self.common.faces.classes),
                "network_only": list(self.common.network_only),
                "data_only": list(self.common.data_only),
                "faces_left_out": self.common.left_out,
                "faces_answered_outside": self.outside,
            },
            "scores": self.scores.to_dict(),
            "mirror": self.mirror,
            "aligned": self.aligned,
            "other": None if self.other is None else self.other.to_dict(),
        }


def evaluate(  # noqa: PLR0913
    loaded: ExpressionWeights,
    faces: FaceSet,
    *,
    batch: int = 64,
    flip: bool = False,
    bootstrap: int = 2000,
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
) -> Evaluation:
    """Score a network on labelled faces, on the device it is on, as `predict_crops` reads them.

    Aligned faces are rounded to whole levels on the way, which `predict_crops` does not.

    faces: its label is the class with most votes, the first of several. Where it has other
        classes than the network, only those in common count: see Common.
    flip: score without the mirror image, too, where the weights ask for it, and with it where
        they do not. bootstrap: see scores.score.
    detector: by whose landmarks faces are aligned where the weights ask for that.
    Raises InputError: fewer than two classes in common, no face with one of them.
    """
    classes = loaded.network.config.classes
    common = match_classes(faces, classes)
    pixels, native_size = suited_faces(loaded, common.faces.faces, detector)
    alone, both = _logits(loaded.network, pixels, native_size, batch, flip or loaded.mirror)
    used, other = (both, alone) if loaded.mirror else (alone, both)
    labels = common.faces.votes.argmax(1)
    columns = [classes.index(name) for name in common.faces.classes]

    def scored(answers: Tensor) -> Scores:
        # The softmax of some of the logits is that of all, renormalised.
        probabilities = (answers[:, columns].double() / loaded.temperature).softmax(1)
        return score(probabilities, labels, common.faces.classes, bootstrap=bootstrap)

    inside = torch.isin(used.argmax(1), torch.tensor(columns))
    return Evaluation(
        common=common,
        scores=scored(used),
        mirror=loaded.mirror,
        aligned=loaded.aligned,
        other=scored(other) if flip else None,
        outside=int((~inside).sum()),
    )


def match_classes(faces: FaceSet, classes: Sequence[str]) -> Common:
    """The faces with a label that is one of a network's classes, by whatever name.

    Raises InputError: fewer than two classes in common, no face with one of them.
    """
    ours = {canonical(name) or name: name for name in classes}
    theirs = {canonical(name) or name: name for name in faces.classes}
    shared = tuple(ours[meaning] for meaning in ours if meaning in theirs)
    if len(shared) < 2:
        raise InputError(
            "pcnn-evaluate: network and data must have two classes or more in common; the "
            f"network has {', '.join(classes)}, the data {', '.join(faces.classes)}"
        )
    # One label for each face: what other classes got of its votes must not make it another's.
    labels = [faces.classes[place] for place in faces.votes.argmax(1).tolist()]
    labelled = FaceSet(faces.faces, one_hot(labels, faces.classes), faces.names, faces.classes)
    known = relabel(labelled, shared)
    if len(known) == 0:
        raise InputError(f"pcnn-evaluate: no face has one of the labels {', '.join(shared)}")
    return Common(
        faces=known,
        network_only=tuple(name for name in classes if name not in shared),
        data_only=tuple(theirs[meaning] for meaning in theirs if meaning not in ours),
        left_out=len(faces) - len(known),
    )


def _logits(
    network: PCNN | FaceNet, faces: Tensor, native_size: int, batch: int, mirror: bool
) -> tuple[Tensor, Tensor]:
    """(N, classes) of the faces, and the mean with their mirror images (if not `mirror`: again)."""
    parts: list[list[Tensor]] = []
    chunks = track(
        faces.split(batch),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    for chunk in chunks:
        seen = (chunk, chunk.flip(2)) if mirror else (chunk,)
        parts.append([predict_logits(network, each, native_size=native_size)[0] for each in seen])
    logits = [torch.cat(each) for each in zip(*parts, strict=True)]
    return logits[0], torch.stack(logits).mean(0)


def run(arguments: argparse.Namespace) -> int:
    """Do what `pcnn-evaluate`'s parsed arguments ask; returns the exit status.

    Raises InputError, WeightsError, OSError: nothing could be scored or written.
    """
    _prepare(arguments.output)
    name = arguments.weights or DEFAULT_WEIGHTS
    loaded = weights.load_expression(name)
    loaded.network.to(choose_device(arguments.device, "--device"))
    if arguments.as_they_are:
        loaded = dataclasses.replace(loaded, aligned=False)
    faces = load_faces(
        arguments.data,
        arguments.split,
        layout=arguments.layout,
        grey=loaded.network.config.channels == 1,
        protocol=arguments.protocol,
        labels=arguments.labels,
        duplicates=arguments.duplicates,
        numbering=dict(enumerate(arguments.numbering)) if arguments.numbering else None,
        images=arguments.images,
        missing="skip" if arguments.skip_missing else "raise",
        on_error="skip" if arguments.skip_damaged else "raise",
    )
    evaluation = evaluate(
        loaded,
        faces,
        batch=arguments.batch_size,
        flip=arguments.flip,
        bootstrap=arguments.bootstrap,
    )
    cost = measure_cost(loaded.network, runs=0 if arguments.no_latency else _LATENCY_RUNS)
    report = {
        "pcnn": __version__,
        "weights": {"name": str(name), "sha256": weights.sha256(loaded.path)},
        "data": {
            "path": str(arguments.data),
            **{key: getattr(arguments, key) for key in _DATA_OPTIONS},
        },
        "bootstrap": arguments.bootstrap,
        **evaluation.to_dict(),
        "cost": cost.to_dict(),
    }
    if arguments.output:
        _write_files(evaluation.scores, report, arguments.output)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        split = f", {arguments.split}" if arguments.split else ""
        kind = "labels of FER2013" if arguments.labels == "fer2013" else arguments.protocol
        _show(evaluation, cost, f"{name} on {Path(arguments.data).name}{split} ({kind})")
    return 0


def _prepare(output: Path | None) -> None:
    """Tell what is missing at once, not after minutes; make the folder to write to."""
    for library, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(library) is None and (output or library == "sklearn"):
            raise InputError(f"{package} must be installed: pip install 'pcnn[train]'")
    if output:
        output.mkdir(parents=True, exist_ok=True)


def _write_files(scores: Scores, report: dict[str, Any], folder: Path) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_csv(scores, classes=folder / "per_class.csv", confusion=folder / "confusion.csv")
    draw_confusion(scores, folder / "confusion.png")
    draw_reliability(scores, folder / "reliability.png")
    draw_coverage(scores, folder / "coverage.png")


def _show(evaluation: Evaluation, cost: Cost, title: str) -> None:
    """Print the results for reading."""
    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:  # printed by rich, a closed pipe would end the process
        for line in _lines(evaluation, title):
            console.print(line, soft_wrap=True)
        if not console.is_terminal:
            console.width = 200  # more than any of them needs
        scores = evaluation.scores
        tables = (
            overall_table(scores, evaluation.other, mirror=evaluation.mirror),
            class_table(scores),
        )
        for table in (*tables, coverage_table(scores)):
            console.print("", table, sep="\n")
        console.print("", _told_cost(cost), sep="\n", soft_wrap=True)
    sys.stdout.write(captured.get())
    sys.stdout.flush()


def _lines(evaluation: Evaluation, title: str) -> Iterator[str]:
    """What was scored, and what was left out of it."""
    common = evaluation.common
    yield f"{title}: {counted(len(common.faces), 'face')}"
    if evaluation.aligned:
        yield "aligned by their landmarks, where these are found"
    if common.data_only:
        names = ", ".join(common.data_only)
        left_out = counted(common.left_out, "face")
        yield f"left out: {left_out} of classes the network has not ({names})"
    if common.network_only:
        names = ", ".join(common.network_only)
        yield (
            f"probabilities renormalised without classes the data has not ({names}), "
            f"the likeliest for {counted(evaluation.outside, 'face')}"
        )


def _told_cost(cost: Cost) -> str:
    text = f"{cost.parameters / 1e6:.1f} M parameters, {cost.macs / 1e9:.2f} GMACs a face"
    if cost.latency_ms is None:
        return text
    threads = f", threads: {cost.threads}" if cost.device == "cpu" else ""
    return f"{text}, {cost.latency_ms:.1f} ms for one alone ({cost.device}{threads})"
