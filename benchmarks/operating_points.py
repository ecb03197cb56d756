"""What a threshold and a prior are worth on FER+ valid.

    python benchmarks/operating_points.py [--weights NAME …] [--json FILE] [--page FILE]

Two tables: for each threshold of `min_confidence` how many faces keep their label, and how many of
these are right; for each prior accuracy, mean recall and each class's recall. The ECE is of a
temperature that is fitted on every second face and measured on the others, in both directions.
"By chance" is what it would be if the probabilities were exact: labels are drawn from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from shared import DATA, ROOT, keep
from torch import Tensor

from pcnn.datasets import load_faces
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import calibration_error, fit_temperature
from pcnn.faces.alignment import suited_faces
from pcnn.terminal import track
from pcnn.weights.expression import ExpressionWeights, load_expression

_DRAWS = 1000  # of all labels
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    """Compute, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", nargs="+", default=["pcnn-ferplus", "small", "mobile"])
    add("--data", type=Path, default=DATA)
    add("--json", type=Path, default=ROOT / "benchmarks" / "operating_points.json")
    add("--page", type=Path, default=ROOT / "docs" / "evaluation.md")
    arguments = parser.parse_args()
    record: dict[str, Any] = {}
    tables = []
    for name in arguments.weights:
        loaded = load_expression(name)
        record[name] = measure(loaded, arguments.data)
        tables.append(
            f"`{name}`:\n\n{threshold_table(record[name])}\n\n{prior_table(record[name])}"
        )
    text = "\n\n".join(tables)
    print(text)
    keep(record, text, "operating_points", json_to=arguments.json, page=arguments.page)


def measure(loaded: ExpressionWeights, data: Path) -> dict[str, Any]:
    """All figures of one network."""
    valid = load_faces(data, "valid", grey=loaded.network.config.channels == 1)
    faces, native_size = suited_faces(loaded, valid.faces)
    chunks = [
        predict_logits(loaded.network, chunk, native_size=native_size, mirror=loaded.mirror)[0]
        for chunk in track(faces.split(128), "reading")
    ]
    logits, votes = torch.cat(chunks), valid.votes
    labels = votes.argmax(1)
    probabilities = loaded.probabilities(logits)
    ece, by_chance = ece_of_halves(logits, votes)
    found: dict[str, Any] = {
        "faces": len(labels),
        "classes": list(loaded.network.config.classes),
        "ece_of_halves": ece,
        "ece_by_chance": by_chance,
        "thresholds": [at_threshold(probabilities, labels, least) for least in THRESHOLDS],
        "priors": {"data": recalls(probabilities, labels)},
    }
    if loaded.class_shares is not None:
        uniform = loaded.for_equal_classes().probabilities(logits)
        found["priors"]["uniform"] = recalls(uniform, labels)
    return found


def ece_of_halves(logits: Tensor, votes: Tensor) -> tuple[float, list[float]]:
    """The mean calibration error of each half of the faces with the other half's temperature.

    Also the 5th, 50th and 95th percentile of the same for labels drawn from the probabilities.
    """
    errors = []
    chance = torch.zeros(_DRAWS, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - (half.start or 0), None, 2)
        temperature = fit_temperature(logits[other], votes[other])
        probabilities = (logits[half] / temperature).softmax(1)
        errors.append(calibration_error(probabilities, votes[half].argmax(1)))
        drawn = torch.multinomial(probabilities, _DRAWS, replacement=True, generator=generator)
        chance += torch.tensor([calibration_error(probabilities, own) / 2 for own in drawn.t()])
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    return sum(errors) / 2, chance.quantile(levels).tolist()


def at_threshold(probabilities: Tensor, labels: Tensor, least: float) -> dict[str, float]:
    """How many faces have a label, as a share of all, and how many of these labels are right."""
    confidence, found = probabilities.max(1)
    kept = confidence >= least
    right = (found[kept] == labels[kept]).float().mean()
    return {"threshold": least, "coverage": float(kept.float().mean()), "accuracy": float(right)}


def recalls(probabilities: Tensor, labels: Tensor) -> dict[str, Any]:
    """The accuracy, the recall of each class that occurs, and their mean."""
    found = probabilities.argmax(1)
    own = {
        place: float((found[labels == place] == place).float().mean())
        for place in range(probabilities.shape[1])
        if (labels == place).any()
    }
    return {
        "accuracy": float((found == labels).float().mean()),
        "mean_recall": sum(own.values()) / len(own),
        "recalls": own,
    }


def threshold_table(found: dict[str, Any]) -> str:
    """Markdown: thresholds, coverage, accuracy."""
    lines = ["| min_confidence | labelled | of these right |", "|---|---|---|"]
    lines += [
        f"| {one['threshold']:.1f} | {one['coverage']:.1%} | {one['accuracy']:.1%} |"
        for one in found["thresholds"]
    ]
    return "\n".join(lines)


def prior_table(found: dict[str, Any]) -> str:
    """Markdown: priors, accuracy, mean recall, each class."""
    classes = found["classes"]
    lines = [
        f"| prior | accuracy | mean recall | {' | '.join(classes)} |",
        f"|---|---|---|{'---|' * len(classes)}",
    ]
    for name, own in found["priors"].items():
        row = " | ".join(f"{own['recalls'].get(i, float('nan')):.0%}" for i in range(len(classes)))
        lines.append(f"| {name} | {own['accuracy']:.1%} | {own['mean_recall']:.1%} | {row} |")
    low, median, high = found["ece_by_chance"]
    lines.append("")
    lines.append(
        f"{found['faces']:,} faces; ECE {found['ece_of_halves']:.3f} (temperature fitted on one "
        f"half, measured on the other).\nBy chance {median:.3f} ({low:.3f} … {high:.3f})."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
