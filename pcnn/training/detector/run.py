"""Training of a RetinaFace by distillation, from photographs to a weights file."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.terminal import training_progress
from pcnn.training.detector.loop import ARCHITECTURE, DetectorTraining
from pcnn.training.detector.options import DetectorOptions, fingerprint
from pcnn.training.detector.scores import (
    DetectorScores,
    score_photographs,
    score_small_faces,
    score_turned,
)
from pcnn.training.logs import trim_log
from pcnn.training.photographs import Photograph, is_held_out, read_photographs
from pcnn.weights.files import locate, sha256, write

_LOG = "detector.log.jsonl"
# Photographs scored at each checkpoint. The final scores use all held-out photographs.
_CHECKED = 100


@own_settings(gradients=True)
def train_detector(options: DetectorOptions, *, device: str = "cpu", workers: int = 0) -> Path:
    """Train a detector, or continue from a checkpoint with the same options.

    device, workers: see DetectorTraining.
    One in ten photographs (`is_held_out`) is used only for the scores in the file's metadata.
    An interrupted and resumed run gives the same weights as an uninterrupted one, on the same
    machine and number of threads.
    Returns the path of the weights file.
    Raises InputError: unusable photographs, or a checkpoint of other options.
    Raises WeightsError: the teacher cannot be loaded.
    """
    teacher = Detector.load(options.teacher, landmarks=None)
    options.folder.mkdir(parents=True, exist_ok=True)
    photographs = read_photographs(
        options.photographs, teacher, cache=options.folder / "teacher-faces.npz"
    )
    learning = [photo for photo in photographs if not is_held_out(photo.name)]
    held_out = [photo for photo in photographs if is_held_out(photo.name)]
    if not learning:
        raise InputError(f"train_detector: every photograph of {options.photographs} is held out")
    training = DetectorTraining(options, teacher, device, workers=workers)
    training.resume()
    trim_log(options.folder / _LOG, training.step)
    with training_progress("detector", total=options.total, done=training.step) as progress:
        (task,) = progress.task_ids
        for loss in training.run(learning):
            progress.update(task, completed=training.step, note=f"loss {loss:.3f}")
            if training.step % options.save_every == 0 or training.step == options.total:
                checked = score_photographs(training.detector(), held_out[:_CHECKED])
                entry = {"step": training.step, "loss": loss, **asdict(checked)}
                if options.turned:
                    turned = score_turned(training.detector(), held_out[:_CHECKED])
                    entry["turned_recall"] = turned.recall
                    entry["turned_landmark_error"] = turned.landmark_error
                # Before the checkpoint: a run that is killed between them repeats the line.
                _log(options, entry)
                training.save()
    _write_output(options, training, held_out)
    training.path.unlink(missing_ok=True)
    return options.output


def _log(options: DetectorOptions, entry: dict[str, Any]) -> None:
    """Append one line of JSON to the log."""
    with (options.folder / _LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**entry, "time": round(time.time())}) + "\n")


def _write_output(
    options: DetectorOptions, training: DetectorTraining, held_out: list[Photograph]
) -> None:
    """Write the averaged weights in half precision, then add the scores of this file."""
    state = {
        name: value.half() if value.dim() > 1 else value
        for name, value in training.detector().network.state_dict().items()
        if "num_batches_tracked" not in name
    }
    teacher = locate(options.teacher)
    metadata = {
        "kind": "detector",
        "architecture": ARCHITECTURE,
        **training.settings.to_metadata(),
        "licence": "Apache-2.0" if options.start == "scratch" else f"that of {teacher.name}",
        "provenance": (
            f"Started from {options.start} and trained by pcnn-train detector on "
            f"{options.photographs.name}, one photograph in ten held out, with {teacher.name} "
            f"(sha256 {sha256(teacher)}) as teacher; {fingerprint(options)}"
        ),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write(options.output, state, metadata)
    detector = Detector.load(options.output, landmarks=None)
    scores: dict[str, DetectorScores] = {
        "held_out": score_photographs(detector, held_out),
        "held_out_small_faces": score_small_faces(detector, held_out),
        "held_out_turned": score_turned(detector, held_out),
    }
    metadata["scores"] = {name: asdict(value) for name, value in scores.items()}
    write(options.output, state, metadata)
