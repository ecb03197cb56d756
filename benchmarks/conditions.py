"""How accuracy depends on pose, size and blur: FER+ valid without duplicates.

    python benchmarks/conditions.py --labels DIR [--weights NAME …] [--page FILE]

DIR holds a teacher's answers, `fer_valid.npz` (docs/training.md says how they are made); its head
poses put the faces into groups. Sizes are those to which faces are shrunk before they are
enlarged again to 48 pixels; blur is Gaussian, its deviation in pixels of 48.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from shared import DATA, ROOT, keep, require_native
from torch import Tensor

from pcnn.datasets import FaceSet, load_faces
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.alignment import suited_faces
from pcnn.training.teacher_answers import read_table
from pcnn.weights.expression import ExpressionWeights, load_expression

YAWS = (0, 10, 20, 30, 45, 90)  # degrees, the bounds of the groups
SIDES = (48, 32, 24, 16, 12)
BLURS = (0.0, 1.0, 1.5, 2.0, 3.0)


def main() -> None:
    """Compute, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--labels", type=Path, required=True, help="a teacher's answers")
    add("--weights", nargs="+", default=["pcnn-ferplus", "small"])
    add("--data", type=Path, default=DATA)
    add("--every", type=int, default=3, help="use every n-th face for sizes and blur [3]")
    add("--json", type=Path, default=ROOT / "benchmarks" / "conditions.json")
    add("--page", type=Path, default=ROOT / "docs" / "limits.md")
    arguments = parser.parse_args()
    require_native()
    record = {
        name: measure(load_expression(name), arguments.data, arguments.labels, arguments.every)
        for name in arguments.weights
    }
    text = table(record)
    print(text)
    keep(record, text, "conditions", json_to=arguments.json, page=arguments.page)


def measure(loaded: ExpressionWeights, data: Path, labels: Path, every: int) -> dict[str, Any]:
    """The accuracy in each group, with its number of faces."""
    valid = load_faces(data, "valid", grey=True)
    answers = read_table(labels / "fer_valid.npz")
    yaw = dict(zip(answers["image"].tolist(), np.abs(answers["pose"][:, 0]), strict=True))
    right = _right(loaded, valid.faces, valid.votes)
    yaws = np.array([yaw.get(name, np.nan) for name in valid.names])
    found: dict[str, Any] = {}
    for low, high in pairwise(YAWS):
        found[f"turned by {low} … {high}°"] = _share(right[(yaws >= low) & (yaws < high)])
    found["pose unknown to the teacher"] = _share(right[np.isnan(yaws)])
    some = _every(valid, every)
    for side in SIDES:
        coarse = _resized(_resized(some.faces, side), 48)
        found[f"{side} pixels"] = _share(_right(loaded, coarse, some.votes))
    for blur in BLURS[1:]:
        found[f"blurred by {blur:g}"] = _share(
            _right(loaded, _blurred(some.faces, blur), some.votes)
        )
    return found


def _every(faces: FaceSet, every: int) -> FaceSet:
    return faces.subset(list(range(0, len(faces), every)))


def _right(loaded: ExpressionWeights, faces: Tensor, votes: Tensor) -> np.ndarray:
    """(N,) whether each face's likeliest class is the crowd's."""
    seen, native_size = suited_faces(loaded, faces)
    logits = torch.cat(
        [
            predict_logits(loaded.network, chunk, native_size=native_size, mirror=loaded.mirror)[0]
            for chunk in seen.split(128)
        ]
    )
    found: np.ndarray = (logits.argmax(1) == votes.argmax(1)).numpy()
    return found


def _share(right: np.ndarray) -> dict[str, float]:
    share = float(right.mean()) if len(right) else float("nan")
    error = 1.96 * (share * (1 - share) / max(1, len(right))) ** 0.5
    return {"faces": len(right), "accuracy": round(share, 4), "error": round(error, 4)}


def _resized(faces: Tensor, side: int) -> Tensor:
    """(N, H, W) uint8 → (N, side, side) uint8, bilinear and antialiased."""
    if faces.shape[1] == side:
        return faces
    levels = faces[:, None].float()
    found = F.interpolate(levels, (side, side), mode="bilinear", antialias=True)
    return found[:, 0].round().clamp(0, 255).to(torch.uint8)


def _blurred(faces: Tensor, deviation: float) -> Tensor:
    reach = round(4 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    weights = weights / weights.sum()
    levels = F.pad(faces[:, None].float(), [reach] * 4, mode="replicate")
    levels = F.conv2d(levels, weights.view(1, 1, 1, -1))
    levels = F.conv2d(levels, weights.view(1, 1, -1, 1))
    return levels[:, 0].round().clamp(0, 255).to(torch.uint8)


def table(record: dict[str, dict[str, Any]]) -> str:
    """The Markdown table of all networks."""
    lines = [
        "| faces | number | " + " | ".join(f"`{name}`, %" for name in record) + " |",
        "|---|---|" + "---|" * len(record),
    ]
    first = next(iter(record.values()))
    for group, own in first.items():
        cells = [
            f"{100 * r[group]['accuracy']:.1f} ± {100 * r[group]['error']:.1f}"
            for r in record.values()
        ]
        lines.append(f"| {group} | {own['faces']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
