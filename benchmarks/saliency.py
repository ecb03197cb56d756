"""Whether faces multiplied by their saliency maps are read better, and more as people read them.

    python benchmarks/saliency.py [--seeds 2] [--epochs 3] [--every 3] [--data FOLDER]
        [--cache FOLDER] [--json FILE] [--page FILE] [--picture FILE]

Small plain networks (`pcnn-train trunk`, width 16, 48 pixels) are trained on the same faces with
the labels of FER+ or of FER2013, on plain faces, on faces × spectral residual and on faces × a
fixed Gaussian, and each is tested on both kinds of labels of the same faces of valid, those
marked as duplicates left out. The answers of each training are kept in the cache, so that a run
that was stopped goes on. Writes the figures as JSON, their tables into the page, the confusions
as a picture. Needs pcnn[train].
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import Progress
from shared import (
    ROOT,
    Array,
    draws,
    finish,
    gain_text,
    interval,
    keep,
    training_parser,
)

from pcnn.analysis.sanity_checks import rank_correlation
from pcnn.datasets.labels import FaceSet, relabel
from pcnn.datasets.loading import load_faces
from pcnn.evaluation.logits import predict_logits
from pcnn.networks.pcnn import FERPLUS_CLASSES
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions

CLASSES = FERPLUS_CLASSES[:7]  # those that both kinds of labels have
LABELS = {"ferplus": "FER+", "fer2013": "FER2013"}
ARMS: dict[str, str | None] = {
    "plain": None,
    "spectral residual": "spectral_residual",
    "centre": "centre",
}
ROUNDS = 2000  # of the bootstrap
RANK_ROUNDS = 500  # where a round takes longer
MARK = 5  # percent: confusions from here on are set in bold
Sets = dict[str, FaceSet]

# Muros et al. 2021, Facial Affect Recognition by Patients with Schizophrenia Using Human Avatars,
# J. Clin. Med. 10(9) 1904, table 5: 56 healthy people, frontal views; percent, rows shown,
# columns recognised, both in the order of CLASSES.
PEOPLE = np.array(
    [
        [98.2, 0.0, 0.0, 1.8, 0.0, 0.0, 0.0],
        [1.8, 97.2, 0.9, 0.0, 0.0, 0.0, 0.0],
        [0.4, 0.0, 91.0, 0.0, 0.0, 0.0, 8.5],
        [2.2, 0.9, 1.8, 87.6, 0.9, 3.6, 3.1],
        [0.4, 0.0, 0.9, 1.3, 93.8, 2.2, 1.3],
        [0.4, 0.0, 0.4, 0.0, 8.5, 88.8, 1.8],
        [0.9, 0.0, 13.7, 8.4, 0.4, 0.9, 75.7],
    ]
)


def main() -> int:
    """Train what the cache lacks, measure, print, write; returns the exit status."""
    arguments = _arguments()
    train, valid = (_sets(arguments.data, split) for split in ("train", "valid"))
    chosen = range(0, len(train["ferplus"]), arguments.every)
    train = {kind: faces.subset(chosen) for kind, faces in train.items()}
    answers = _answers(train, valid["ferplus"], arguments)
    labels = {kind: faces.votes.argmax(1).numpy() for kind, faces in valid.items()}
    votes = valid["ferplus"].votes.double().numpy()
    record = {
        "options": {name: getattr(arguments, name) for name in ("seeds", "epochs", "every")},
        "train_faces": len(chosen),
        "valid_faces": len(valid["ferplus"]),
        "labels_agree": float((labels["ferplus"] == labels["fer2013"]).mean()),
        "accuracy": _accuracies(answers, labels),
        "confusion": {
            f"{arm}, trained on {LABELS[kind]}": _percent(
                np.mean([_confusion(labels["ferplus"], each) for each in answers[arm, kind]], 0)
            ).tolist()
            for arm, kind in answers
        },
        "crowd": _percent(_crowd(votes)).tolist(),
        "likeness": _likeness(answers, labels["ferplus"], votes),
    }
    _draw(record, arguments.picture)
    text = _tables(record)
    print(text)
    keep(record, text, "saliency", json_to=arguments.json, page=arguments.page)
    return 0


def _arguments() -> argparse.Namespace:
    parser = training_parser(__doc__, "saliency", seeds=2, epochs=3, page="saliency.md")
    picture = ROOT / "docs" / "images" / "saliency-confusion.png"
    parser.add_argument("--picture", type=Path, default=picture)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


# --- faces and networks ---


def _sets(folder: Path, split: str) -> Sets:
    """The faces that have labels of both kinds, in one order, with each kind's labels."""
    voted = load_faces(folder, split)
    named = (voted.votes.argmax(1) < len(CLASSES)).nonzero()[:, 0].tolist()  # not contempt
    kinds = {
        "ferplus": relabel(voted.subset(named), CLASSES),
        "fer2013": relabel(load_faces(folder, split, labels="fer2013"), CLASSES),
    }
    common = set(kinds["ferplus"].names) & set(kinds["fer2013"].names)
    return {
        kind: faces.subset([i for i, name in enumerate(faces.names) if name in common])
        for kind, faces in kinds.items()
    }


def _answers(
    train: Sets, valid: FaceSet, arguments: argparse.Namespace
) -> dict[tuple[str, str], Array]:
    """(arm, kind of labels) → which class each seed's network names, (seeds, N) int."""
    found: dict[tuple[str, str], list[Array]] = {(a, k): [] for a in ARMS for k in LABELS}
    with Progress() as progress:
        whole = progress.add_task("networks", total=len(found) * arguments.seeds)
        for seed in range(arguments.seeds):
            for (arm, kind), rows in found.items():
                options = ExpressionOptions(
                    network="trunk",
                    data=kind,
                    output="",
                    size=48,
                    width=16,
                    epochs=arguments.epochs,
                    learning_rate=3e-3,
                    average=0.99,
                    seed=seed,
                    saliency=ARMS[arm],
                )
                name = f"{arm}, {kind}, seed {seed}"
                stem = f"{name}-{arguments.epochs:g}-{arguments.every}.npy".replace(", ", "-")
                file = arguments.cache / stem.replace(" ", "-")
                if not file.is_file():
                    np.save(file, _train(options, train[kind], valid, progress, name))
                rows.append(np.load(file))
                progress.advance(whole)
    return {key: np.stack(rows) for key, rows in found.items()}


def _train(
    options: ExpressionOptions, faces: FaceSet, valid: FaceSet, progress: Progress, name: str
) -> Array:
    """The answers (N,) of a network trained as the options say."""
    training = ExpressionTraining(options, faces)
    finish(training, progress, name)
    logits, _ = predict_logits(training.average.network, valid.faces)
    return logits.argmax(1).numpy()


# --- what they are worth ---


def _accuracies(answers: dict[tuple[str, str], Array], labels: dict[str, Array]) -> list[Any]:
    """A record for each arm, kind of training labels and kind of test labels, in percent."""
    records = []
    for trained in LABELS:
        for tested, truth in labels.items():
            right = {arm: answers[arm, trained] == truth for arm in ARMS}  # (seeds, N) each
            for arm in ARMS:
                scores = 100 * right[arm].mean(1)
                recalls = [
                    np.diag(_percent(_confusion(truth, each))).mean()
                    for each in answers[arm, trained]
                ]
                record = {"arm": arm, "trained": trained, "tested": tested}
                record["accuracy"] = float(scores.mean())
                record["lowest"], record["highest"] = float(scores.min()), float(scores.max())
                record["mean_recall"] = float(np.mean(recalls))
                if arm != "plain":
                    record["gain"] = float(100 * (right[arm].mean() - right["plain"].mean()))
                    gains = [
                        100 * (right[arm][at].mean() - right["plain"][at].mean())
                        for at in draws(len(truth), len(scores), ROUNDS)
                    ]
                    record["gain_interval"] = interval(gains)
                records.append(record)
    return records


def _likeness(
    answers: dict[tuple[str, str], Array], truth: Array, votes: Array
) -> list[dict[str, Any]]:
    """How each arm's confusions of FER+ labels rank, against people's: Spearman's correlation.

    Of the 42 shares of wrong answers, with the crowd's votes on the same faces, and with PEOPLE.
    """
    records = []
    for trained in LABELS:
        for arm in ARMS:
            record: dict[str, Any] = {"arm": arm, "trained": trained}
            for name in ("crowd", "people"):
                record[name] = _alike(answers[arm, trained], truth, votes, name)
                if arm == "plain":
                    continue
                gains = []
                for seeds, faces in draws(len(truth), len(answers[arm, trained]), RANK_ROUNDS):
                    both = [
                        _alike(
                            answers[each, trained][seeds, faces], truth[faces], votes[faces], name
                        )
                        for each in (arm, "plain")
                    ]
                    gains.append(both[0] - both[1])
                record[f"{name}_gain"] = record[name] - _alike(
                    answers["plain", trained], truth, votes, name
                )
                record[f"{name}_gain_interval"] = interval(gains)
            records.append(record)
    return records


def _alike(answers: Array, truth: Array, votes: Array, name: str) -> float:
    """Spearman's correlation of the wrong answers (seeds, N) with people's."""
    ours = np.mean([_confusion(truth, each) for each in answers], 0)
    theirs = _crowd(votes) if name == "crowd" else PEOPLE
    wrong = ~np.eye(len(CLASSES), dtype=bool)
    rows = [torch.from_numpy(_percent(each)[wrong])[None, None] for each in (ours, theirs)]
    return float(rank_correlation(*rows))


def _confusion(truth: Array, answers: Array) -> Array:
    """Faces of each label (row) by answer (column)."""
    count = len(CLASSES)
    return np.bincount(truth.ravel() * count + answers.ravel(), minlength=count**2).reshape(
        count, count
    )


def _crowd(votes: Array) -> Array:
    """The votes (N, classes) for faces of each label (row), summed."""
    rows = np.eye(len(CLASSES))[votes.argmax(1)]
    return rows.T @ votes


def _percent(counts: Array) -> Array:
    """Rows of shares, in percent."""
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1e-9)


# --- what is written ---


def _draw(record: dict[str, Any], picture: Path) -> None:
    """Four confusion matrices: two networks across label sets, the crowd, people."""
    panels = {
        "network, plain faces": record["confusion"]["plain, trained on FER2013"],
        "network, faces × spectral residual": record["confusion"][
            "spectral residual, trained on FER2013"
        ],
        "FER+ crowd, the same faces": record["crowd"],
        "people, avatars (Muros et al. 2021)": PEOPLE,
    }
    figure = Figure(figsize=(10.4, 9.6), dpi=110, layout="constrained")
    for number, (axes, (title, rows)) in enumerate(
        zip(figure.subplots(2, 2).flat, panels.items(), strict=True)
    ):
        shares = np.array(rows)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            wrong = row != column and share >= MARK
            axes.text(
                column,
                row,
                f"{share:.0f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if share > 55 else "black" if share >= 1 else "#b0b0b0",
                weight="bold" if wrong else "normal",
            )
        axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=40, ha="right")
        axes.set_yticks(range(len(CLASSES)), CLASSES)
        axes.set_title(title)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("answer" if number >= 2 else "")
        axes.set_ylabel("label" if number % 2 == 0 else "")
    figure.savefig(picture)


def _tables(record: dict[str, Any]) -> str:
    options = record["options"]
    lines = [
        f"{record['train_faces']} training faces, {record['valid_faces']} test faces, "
        f"{options['epochs']:g} epochs, {options['seeds']} seeds. The two kinds of labels agree on "
        f"{100 * record['labels_agree']:.1f} % of the test faces.",
        "",
        "| trained on | tested on | input | accuracy | lowest … highest seed | mean recall "
        "| gain over plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in record["accuracy"]:
        lines.append(
            f"| {LABELS[each['trained']]} | {LABELS[each['tested']]} | {each['arm']} "
            f"| {each['accuracy']:.1f} | {each['lowest']:.1f} … {each['highest']:.1f} "
            f"| {each['mean_recall']:.1f} | {_gain(each, '', 1)} |"
        )
    lines += [
        "",
        "Rank correlation of the networks' confusions of FER+ labels with people's:",
        "",
        "| trained on | input | with the FER+ crowd | gain over plain | with published | gain |",
        "|---|---|---|---|---|---|",
    ]
    for each in record["likeness"]:
        lines.append(
            f"| {LABELS[each['trained']]} | {each['arm']} "
            f"| {each['crowd']:.2f} | {_gain(each, 'crowd_', 2)} "
            f"| {each['people']:.2f} | {_gain(each, 'people_', 2)} |"
        )
    return "\n".join(lines)


def _gain(record: dict[str, Any], prefix: str, digits: int) -> str:
    if f"{prefix}gain" not in record:
        return ""
    return gain_text(record[f"{prefix}gain"], record[f"{prefix}gain_interval"], digits)


if __name__ == "__main__":
    raise SystemExit(main())
