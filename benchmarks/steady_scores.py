"""What steadying scores over time does: accuracy, calibration, delay. Figures of docs/video.md.

    python benchmarks/steady_scores.py [--weights NAME] [--faces N] [--readings FILE]
                                       [--seconds S] [--json FILE] [--data FOLDER]

A film's frames of one face differ by where the detector puts its landmarks, by light and by noise.
So each face of FER+ valid (argmax-8, without duplicates) is read ten times a second for one second,
each time turned, moved, scaled, lit and made noisy anew, and its scores go through the filter.
Temperatures are fitted on one half of the faces and scored on the other, and the other way round.
Delay: after a second of one face comes one of another expression, both read the same at the end;
counted is the time until the steady label is the new one.
Readings are kept in FILE, so that filters can be compared without reading again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from pcnn import Recognizer
from pcnn.datasets.loading import load_ferplus
from pcnn.evaluation.metrics import calibration_error, fit_temperature
from pcnn.faces.geometry import transforms_of
from pcnn.recognition.batches import Picture
from pcnn.video.smoothing import SMOOTHING_S, ScoreFilter

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "ferplus"
RATE, SECONDS = 10, 1.0
BATCH = 64
# Standard deviations of what differs from frame to frame, as shares of the face's side (and of
# itself), degrees, grey levels.
MOVED, SCALED, TURNED_DEG, BRIGHTER, CONTRAST, NOISE = 0.02, 0.03, 2.0, 8.0, 0.06, 4.0
Array = NDArray[Any]


def jittered(transforms: Array, side: int, generator: np.random.Generator) -> Array:
    """(1, 6, 2, 3) maps of a face's views, moved, turned and scaled together in its picture."""
    angle = np.deg2rad(generator.normal(0, TURNED_DEG))
    scale = np.exp(generator.normal(0, SCALED))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = np.full(2, side / 2)
    move = middle - turn @ middle + generator.normal(0, MOVED * side, 2)
    changed = turn @ transforms  # (1, 6, 2, 3)
    changed[..., 2] += move
    return changed.astype(np.float32)


def relit(pixels: Array, generator: np.random.Generator) -> Array:
    """(H, W, 3) uint8, a little lighter or darker, with noise."""
    gain, offset = np.exp(generator.normal(0, CONTRAST)), generator.normal(0, BRIGHTER)
    noise = generator.normal(0, NOISE, (*pixels.shape[:2], 1))
    changed = (pixels - 128.0) * gain + 128 + offset + noise
    return changed.clip(0, 255).astype(np.uint8)


def read(recognizer: Recognizer, faces: Array, seed: int) -> Array:
    """(N, frames, classes) probabilities of faces (N, S, S) uint8 as a film would have them."""
    steps = round(RATE * SECONDS) + 1
    rows: list[Array] = []
    config = recognizer._weights.network.config
    for start in track(range(0, len(faces), BATCH), "reading"):
        own = np.repeat(faces[start : start + BATCH, :, :, None], 3, 3)
        whole = recognizer.finder.whole([Picture(face, False, "face") for face in own])
        transforms = [transforms_of(places, config.size, config.layout) for places in whole]
        times = []
        for step in range(steps):
            generators = [
                np.random.default_rng((seed, start + place, step)) for place in range(len(own))
            ]
            pictures = [
                Picture(relit(face, rng), False, "face")
                for face, rng in zip(own, generators, strict=True)
            ]
            maps = [
                jittered(each, face.shape[0], rng)
                for each, face, rng in zip(transforms, own, generators, strict=True)
            ]
            answers = recognizer.reader.expressions(pictures, maps)
            times.append([list(answer.scores.values()) for answer in answers])
        rows.append(np.array(times, np.float32).transpose(1, 0, 2))
    return np.concatenate(rows)


def steadied(readings: Array, seconds: float) -> Array:
    """(N, frames, classes) steady probabilities, of temperature 1."""
    steady = np.empty_like(readings)
    for number, sequence in enumerate(readings):
        own = ScoreFilter(seconds)
        for step, scores in enumerate(sequence):
            steady[number, step] = own.update(step / RATE, scores)
    return steady


def calibrated(probabilities: Array, votes: torch.Tensor) -> tuple[Array, list[float]]:
    """Probabilities of each half with the temperature of the other; both temperatures."""
    logits = torch.from_numpy(np.log(probabilities.clip(1e-9)))
    halves = [np.arange(len(logits)) % 2 == half for half in (0, 1)]
    found, temperatures = torch.empty_like(logits), []
    for half in (0, 1):
        fitted = fit_temperature(logits[halves[1 - half]], votes[halves[1 - half]])
        found[halves[half]] = (logits[halves[half]] / fitted).softmax(1)
        temperatures.append(round(fitted, 3))
    return found.numpy(), temperatures


def delays(readings: Array, seconds: float, pairs: int, seed: int) -> Array:
    """(K,) seconds from a change of face to the new label, for pairs of different labels."""
    generator = np.random.default_rng(seed)
    labels = readings.argmax(2)
    agreed = np.flatnonzero((labels == labels[:, :1]).all(1))  # read alike at each time
    found = []
    while len(found) < pairs:
        one, two = generator.choice(agreed, 2)
        if labels[one, 0] == labels[two, 0]:
            continue
        own = ScoreFilter(seconds)
        both = np.concatenate((readings[one], readings[two]))
        steady = [own.update(step / RATE, scores).argmax() for step, scores in enumerate(both)]
        after = np.array(steady[len(readings[one]) :]) == labels[two, 0]
        found.append(int(after.argmax()) / RATE if after.any() else np.inf)
    return np.array(found)


def figures(readings: Array, votes: torch.Tensor, seconds: float) -> dict[str, Any]:
    """What docs/video.md says of one set of weights."""
    labels = votes.argmax(1)
    steady = steadied(readings, seconds)
    single, last = readings[:, -1], steady[:, -1]
    again, temperatures = calibrated(last, votes)
    late = delays(readings, seconds, 2000, 0)
    changes = (readings.argmax(2)[:, 1:] != readings.argmax(2)[:, :-1]).sum(1).mean()
    fewer = (steady.argmax(2)[:, 1:] != steady.argmax(2)[:, :-1]).sum(1).mean()

    def error(probabilities: Array) -> float:
        return round(calibration_error(torch.from_numpy(probabilities), labels), 4)

    return {
        "faces": len(readings),
        "seconds": seconds,
        "accuracy of one frame": round(float((single.argmax(1) == labels.numpy()).mean()), 4),
        "accuracy after a second": round(float((last.argmax(1) == labels.numpy()).mean()), 4),
        "calibration error of one frame": error(single),
        "calibration error after a second": error(last),
        "calibration error, recalibrated": error(again),
        "temperatures": temperatures,
        "changes of label a second": [round(float(changes), 3), round(float(fewer), 3)],
        "delay, median": round(float(np.median(late)), 2),
        "delay, 90 %": round(float(np.quantile(late, 0.9)), 2),
        "within 0.3 s": round(float((late <= 0.3 + 1e-9).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--weights", default="small")
    parser.add_argument("--faces", type=int, default=0, help="how many; 0: all")
    parser.add_argument("--readings", type=Path, metavar="FILE", help="kept there (.npz)")
    parser.add_argument("--seconds", type=float, default=SMOOTHING_S)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    valid = load_ferplus(arguments.data, "valid")
    order = np.random.default_rng(0).permutation(len(valid))[: arguments.faces or None]
    chosen = valid.subset(order.tolist())
    if arguments.readings and arguments.readings.exists():
        readings = np.load(arguments.readings)["readings"]
    else:
        readings = read(Recognizer(arguments.weights), np.asarray(chosen.faces), 0)
        if arguments.readings:
            np.savez_compressed(arguments.readings, readings=readings)
    found = {"weights": arguments.weights} | figures(readings, chosen.votes, arguments.seconds)
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
