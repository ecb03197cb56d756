"""Writes tests/golden.json, the packaged weights' answers, after they changed on purpose.

python tests/make_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pcnn import Recognizer, weights
from pcnn.faces.detector import Detector

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden.json"
WEIGHTS = ("pcnn-ferplus", "pcnn-ferplus-only", "small", "mobile")
DETECTORS = ("mobilenet",)


def face_picture() -> np.ndarray:
    """(120, 100, 3) uint8: not a face, but the same everywhere, with all colours in it."""
    y, x = np.mgrid[0:120, 0:100]
    planes = (x * 2.5, y * 2.0, 127 + 120 * np.sin(x / 7) * np.cos(y / 9))
    return np.stack(planes, 2).clip(0, 255).astype(np.uint8)


def answers() -> dict[str, Any]:
    """All golden outputs, as golden.json holds them."""
    portrait = ROOT / "docs" / "images" / "astronaut.png"
    golden: dict[str, Any] = {}
    for name in WEIGHTS:
        recognizer = Recognizer(name, device="cpu")
        face = recognizer.predict(portrait).faces[0]
        crop = recognizer.predict_crops(face_picture())
        golden[name] = {
            "sha256": weights.SPECS[name].sha256,
            "portrait": dict(face.scores),
            "picture": dict(crop.scores),
        }
        if "mouth" in face.regions:
            golden[name]["portrait mouth"] = dict(face.regions["mouth"])
    for name in DETECTORS:
        (found,) = Detector.load(name, landmarks=None).detect([_pixels(portrait)])
        golden[name] = {
            "sha256": weights.SPECS[name].sha256,
            "faces": len(found),
            "score": found[0].score,
            "box": list(found[0].box),
            "landmarks": found[0].landmarks.tolist(),
        }
    (found,) = Detector.load("mobilenet").detect([_pixels(portrait)])
    golden["landmarks"] = {
        "sha256": weights.SPECS["landmarks"].sha256,
        "landmarks": found[0].landmarks.tolist(),
    }
    face = Recognizer("small", device="cpu", movements=True).predict(portrait).faces[0]
    assert face.motion is not None
    golden["movements"] = {
        "sha256": weights.SPECS["movements"].sha256,
        "movements": dict(face.motion.movements),
        "pose": vars(face.motion.pose),
        "mesh": face.motion.mesh[:: len(face.motion.mesh) // 7].tolist(),
    }
    return golden


def _pixels(path: Path) -> np.ndarray:
    from pcnn import load_image

    return load_image(path)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(answers(), indent=1) + "\n")
    print(f"wrote {GOLDEN}")
