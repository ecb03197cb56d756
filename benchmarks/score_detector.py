"""Score a detector on held-out photographs, and time it against its teacher.

    python benchmarks/score_detector.py --photographs lfw_faces.tar --teacher retinaface.pth

The photographs are those that training keeps out (one in ten, by the hash of their names). The
teacher's confident faces are what is looked for; it is scored against itself for comparison,
which shows how many small faces it loses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import require_native

from pcnn.faces.detector import Detector
from pcnn.training.detector.scores import score_photographs, score_small_faces
from pcnn.training.photographs import is_held_out, read_photographs

DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights" / "detector-mobilenet.safetensors"
# The criteria: name → (what it is, bound, whether the figure must not lie below it).
CRITERIA = {
    "recall": ("recall at IoU 0.5, faces of 16 pixels and more", 0.98, True),
    "landmark_error": ("mean landmark error, in eye distances", 0.04, False),
    "false_faces": ("false faces a photograph", 0.02, False),
    "small_recall": ("recall on mosaics, faces of 12 to 60 pixels", 0.90, True),
}
_ROUNDS, _FRAMES_PER_ROUND = 7, 5


def main() -> int:
    """Print the figures; exit status 1 where a criterion is missed."""
    arguments = _parse()
    require_native()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    teacher = Detector.load(arguments.teacher)
    detector = Detector.load(arguments.weights, precision=arguments.precision)
    photographs = read_photographs(arguments.photographs, teacher, cache=arguments.cache)
    held_out = [photo for photo in photographs if is_held_out(photo.name)]
    report: dict[str, Any] = {
        "weights": str(arguments.weights),
        "threads": torch.get_num_threads(),
        "detector": _scores(detector, held_out),
        "teacher": _scores(teacher, held_out),
        "milliseconds": _times(detector, teacher),
    }
    print(json.dumps(report, indent=2) if arguments.json else _as_text(report))
    return 0 if all(_met(name, report["detector"][name]) for name in CRITERIA) else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--cache", type=Path, help=".npz that keeps the teacher's faces")
    parser.add_argument("--threads", type=int, help="of the CPU (PyTorch's choice)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def _scores(detector: Detector, held_out: list[Any]) -> dict[str, float]:
    whole, small = score_photographs(detector, held_out), score_small_faces(detector, held_out)
    return {
        **asdict(whole),
        "small_faces": small.faces,
        "small_recall": small.recall,
        "small_false_faces": small.false_faces,
    }


def _times(detector: Detector, teacher: Detector) -> dict[str, dict[str, float]]:
    """Median milliseconds an image, both detectors in turn, so that both meet the same load."""
    random = np.random.default_rng(0)
    table: dict[str, dict[str, float]] = {}
    for height, width in ((250, 250), (480, 640)):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        seconds: dict[str, list[float]] = {"detector": [], "teacher": []}
        for round_number in range(_ROUNDS + 1):
            for name, candidate in (("detector", detector), ("teacher", teacher)):
                start = time.perf_counter()
                for _ in range(_FRAMES_PER_ROUND):
                    candidate.detect([image])
                if round_number:  # the first warms up
                    seconds[name].append((time.perf_counter() - start) / _FRAMES_PER_ROUND)
        table[f"{width}x{height}"] = {
            name: 1000 * statistics.median(values) for name, values in seconds.items()
        }
    return table


def _met(name: str, value: float) -> bool:
    _, bound, at_least = CRITERIA[name]
    return value >= bound if at_least else value <= bound


def _as_text(report: dict[str, Any]) -> str:
    ours, teacher = report["detector"], report["teacher"]
    lines = [
        f"{report['weights']}: {ours['photographs']} held-out photographs, {ours['faces']} faces, "
        f"{ours['small_faces']} in mosaics; {report['threads']} threads",
        f"{'':48}{'detector':>10}{'teacher':>10}   wanted",
    ]
    for name, (text, bound, at_least) in CRITERIA.items():
        verdict = (
            f"{'≥' if at_least else '≤'} {bound}  {'met' if _met(name, ours[name]) else 'MISSED'}"
        )
        lines.append(f"{text:48}{ours[name]:10.4f}{teacher[name]:10.4f}   {verdict}")
    lines.append(
        f"{'faces the teacher is unsure of, a photograph':48}"
        f"{ours['unconfirmed_faces']:10.4f}{teacher['unconfirmed_faces']:10.4f}"
    )
    for size, times in report["milliseconds"].items():
        text = f"milliseconds an image of {size}"
        lines.append(f"{text:48}{times['detector']:10.1f}{times['teacher']:10.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
