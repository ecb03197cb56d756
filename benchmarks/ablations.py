"""What each option of a training is worth: one is changed at a time, over several seeds.

    python benchmarks/ablations.py [--seeds 3] [--epochs 2.5] [--every 3] [--data FOLDER]
        [--cache FOLDER] [--json FILE] [--page FILE]

Small plain networks (`pcnn-train trunk`, width 16, 48 pixels) are trained on a part of FER+ train
and tested on valid without duplicates. Each differs from a base, which has the defaults of
ExpressionOptions, in one option. Every arm has the same seeds as the base, and gains are compared
face by face. The answers of each training are kept in the cache, so that a run that was stopped
goes on. Writes the figures as JSON and their table into the page. Needs pcnn[train].
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from rich.progress import Progress, track
from shared import Array, draws, finish, gain_text, interval, keep, training_parser
from torch import Tensor

from pcnn.datasets.labels import FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.alignment import align_faces
from pcnn.faces.detector import Detector
from pcnn.training.expression.augmentation import Augmentation
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions
from pcnn.weights.expression import load_expression, load_network
from pcnn.weights.known import DEFAULT_DETECTOR, SPECS

BASE, TAUGHT, MIXED = "base", "teachers `pcnn-ferplus-only`, teaching 0.5", "mixup"
ALIGNED = "aligned"
TEACHER = "pcnn-ferplus-only"
# Rate and memory as short trainings want them; all else as ExpressionOptions has it.
COMMON: dict[str, Any] = {
    "network": "trunk",
    "data": "ferplus",
    "output": "",
    "size": 48,
    "width": 16,
    "learning_rate": 3e-3,
    "average": 0.99,
}


def varied(share: float) -> Augmentation:
    """This share of the default variation; mirror images stay, which no option turns off."""
    defaults = dataclasses.asdict(Augmentation())
    return Augmentation(**{name: share * value for name, value in defaults.items()})


# Arms that are trained: what each changes. SGD needs another rate and decay than AdamW.
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    "labels majority": {"labels": "majority"},
    "balance 0.5": {"balance": 0.5},
    "balance 1": {"balance": 1.0},
    "augmentation 0": {"augmentation": varied(0)},
    "augmentation × 2/3": {"augmentation": varied(2 / 3)},
    "calm 0.4": {"calm": 0.4},
    "weight_decay 0": {"weight_decay": 0.0},
    TAUGHT: {},  # in its faces' votes, see _taught
    MIXED: {},  # see MixedTraining
    ALIGNED: {"aligned": True},  # in its faces, of training and test, see _aligned
    "epochs × 2": {},  # see _options
    "size 64": {"size": 64},
    "width 32": {"width": 32},
    "sgd, learning_rate 0.01, weight_decay 1e-4": {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 1e-4,
    },
}
# Arms that are other readings of the base's training: whether of its average, whether with mirror
# images. Averaging takes no part in the steps, so without it the weights are the last ones.
READINGS = {BASE: (True, False), "average 0": (False, False), "mirror images at test": (True, True)}
ROUNDS = 2000  # of the bootstrap
SCORES = ("accuracy", "mean_recall")


class MixedTraining(ExpressionTraining):
    """A training on faces mixed in pairs, and on their targets mixed alike.

    mixup (Zhang et al., ICLR 2018) as kornia has it: shares uniform in 0…1.
    """

    def batch(self) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """That of the step, mixed."""
        faces, (targets,), movements = super().batch()
        with torch.random.fork_rng([]):
            torch.manual_seed(self.options.seed * 1_000_003 + self.step)
            mix = K.RandomMixUpV2(data_keys=["input", "class"])
            mixed, pairs = mix(faces, torch.arange(len(faces)))  # pairs: own place, other, share
        targets = torch.lerp(targets, targets[pairs[:, 1].long()], pairs[:, 2:])
        return mixed, [targets], movements


def main() -> int:
    """Train what the cache lacks, measure, print, write; returns the exit status."""
    arguments = _arguments()
    train, valid = (load_faces(arguments.data, split) for split in ("train", "valid"))
    train = train.subset(range(0, len(train), arguments.every))
    answers = _answers(train, valid, arguments)
    record = {
        "options": {name: getattr(arguments, name) for name in ("seeds", "epochs", "every")},
        "teacher": SPECS[TEACHER].sha256,
        "train_faces": len(train),
        "valid_faces": len(valid),
        "arms": _worth(answers, valid.votes.argmax(1).numpy(), valid.classes),
    }
    text = _table(record)
    print(text)
    keep(record, text, "ablations", json_to=arguments.json, page=arguments.page)
    return 0


def _arguments() -> argparse.Namespace:
    parser = training_parser(__doc__, "ablations", seeds=3, epochs=2.5, page="results.md")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


# --- networks ---


def _answers(train: FaceSet, valid: FaceSet, arguments: argparse.Namespace) -> dict[str, Array]:
    """Arm → which class each seed's network names, (seeds, N) int."""
    found: dict[str, list[Array]] = {}
    sets = {TAUGHT: (_taught(train, arguments), valid)}
    with Progress() as progress:
        whole = progress.add_task("networks", total=len(ARMS) * arguments.seeds)
        for seed in range(arguments.seeds):
            for arm in ARMS:
                files = {
                    name: arguments.cache / _stem(name, seed, arguments)
                    for name in (READINGS if arm == BASE else (arm,))
                }
                if not all(file.is_file() for file in files.values()):
                    kind = MixedTraining if arm == MIXED else ExpressionTraining
                    if arm == ALIGNED and arm not in sets:
                        sets[arm] = _aligned(train), _aligned(valid)
                    faces, tested = sets.get(arm, (train, valid))
                    training = kind(_options(arm, seed, arguments.epochs), faces)
                    finish(training, progress, f"{arm}, seed {seed}")
                    for name, file in files.items():
                        np.save(file, _read(training, tested, name))
                for name, file in files.items():
                    found.setdefault(name, []).append(np.load(file))
                progress.advance(whole)
    return {name: np.stack(rows) for name, rows in found.items()}


def _options(arm: str, seed: int, epochs: float) -> ExpressionOptions:
    epochs *= 2 if arm == "epochs × 2" else 1
    return ExpressionOptions(**{**COMMON, **ARMS[arm], "seed": seed, "epochs": epochs})


def _stem(name: str, seed: int, arguments: argparse.Namespace) -> str:
    """The cache's name for a network's answers."""
    words = re.sub(r"[^\w.]+", "-", name)
    parts = [words, f"{arguments.epochs:g}-{arguments.every}"]
    if name == TAUGHT:
        parts.append(SPECS[TEACHER].sha256[:8])
    return "-".join([*parts, f"seed-{seed}.npy"])


def _read(training: ExpressionTraining, valid: FaceSet, name: str) -> Array:
    """The answers (N,) of a trained network, in the reading of that name."""
    averaged, mirror = READINGS.get(name, READINGS[BASE])
    network = (training.average if averaged else training.learner).network
    logits, _ = predict_logits(network, valid.faces, mirror=mirror)
    return logits.argmax(1).numpy()


def _taught(train: FaceSet, arguments: argparse.Namespace) -> FaceSet:
    """The faces with votes that are half the teacher's, as ExpressionTraining mixes them."""
    file = arguments.cache / f"teacher-{arguments.every}-{SPECS[TEACHER].sha256[:8]}.npy"
    if not file.is_file():
        teacher = load_network(TEACHER)
        chunks = track(train.faces.split(512), "teacher")
        logits = [predict_logits(teacher, chunk, mirror=True)[0] for chunk in chunks]
        np.save(file, torch.cat(logits).softmax(1).numpy())
    share = ExpressionOptions(**COMMON).teaching
    votes = torch.lerp(train.votes, torch.from_numpy(np.load(file)), share)
    return dataclasses.replace(train, votes=votes)


def _aligned(faces: FaceSet) -> FaceSet:
    """The faces as a training with `aligned` sees them, with the packaged weights' template."""
    size, native_size = COMMON["size"], faces.faces.shape[2]
    template = load_expression(TEACHER).template
    pixels = align_faces(faces.faces, template, size, native_size, Detector.load(DEFAULT_DETECTOR))
    return dataclasses.replace(faces, faces=pixels)


# --- what they are worth ---


def _worth(
    answers: dict[str, Array], truth: Array, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """A record for each arm, in percent; its gains are over the base."""
    names = list(answers)
    base = names.index(BASE)
    right = np.stack(list(answers.values())) == truth  # (arms, seeds, N)
    labels = np.eye(len(classes))[truth]  # (N, classes)
    scores = _scores(right, labels)
    rounds = [
        _scores(right[:, seeds, faces], labels[faces])
        for seeds, faces in draws(len(truth), right.shape[1], ROUNDS)
    ]
    gains = np.stack([each - each[base] for each in rounds])  # (rounds, arms, scores)
    records = []
    for row, name in enumerate(names):
        record: dict[str, Any] = {"arm": name}
        record["each_seed"] = (100 * right[row].mean(1)).tolist()
        recalls = 100 * (right[row].mean(0) @ labels) / labels.sum(0)
        record["recalls"] = dict(zip(classes, recalls.tolist(), strict=True))
        for column, score in enumerate(SCORES):
            record[score] = float(scores[row, column])
            if row != base:
                record[f"{score}_gain"] = float(scores[row, column] - scores[base, column])
                record[f"{score}_gain_interval"] = interval(gains[:, row, column])
        records.append(record)
    return records


def _scores(right: Array, labels: Array) -> Array:
    """Accuracy and mean recall of the classes, percent, (arms, 2).

    right: (arms, seeds, N) whether an answer is. labels: (N, classes) one-hot.
    """
    hits = right.mean(1)  # (arms, N)
    counts = labels.sum(0)
    there = counts > 0  # a draw may lack a rare class
    recalls = (hits @ labels)[:, there] / counts[there]
    return 100 * np.stack([hits.mean(1), recalls.mean(1)], axis=1)


# --- what is written ---


def _table(record: dict[str, Any]) -> str:
    options = record["options"]
    lines = [
        f"{record['train_faces']} training faces, {record['valid_faces']} test faces, "
        f"{options['epochs']:g} epochs, {options['seeds']} seeds; percent.",
        "",
        "| changed | accuracy | gain in accuracy | gain of each seed | mean recall "
        "| gain in mean recall |",
        "|---|---|---|---|---|---|",
    ]
    base = next(each for each in record["arms"] if each["arm"] == BASE)
    for each in record["arms"]:
        gains, seeds = ["", ""], ""
        if each is not base:
            gains = [
                gain_text(each[f"{score}_gain"], each[f"{score}_gain_interval"], 1)
                for score in SCORES
            ]
            pairs = zip(each["each_seed"], base["each_seed"], strict=True)
            seeds = ", ".join(f"{ours - theirs:+.1f}" for ours, theirs in pairs)
        lines.append(
            f"| {each['arm']} | {each['accuracy']:.1f} | {gains[0]} | {seeds} "
            f"| {each['mean_recall']:.1f} | {gains[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
