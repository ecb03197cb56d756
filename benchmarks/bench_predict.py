"""What one photograph costs: warm in the library, cold on the command line, in memory.

    python benchmarks/bench_predict.py [--json FILE]

The photograph is docs/images/astronaut.png cut to 640 × 480 pixels, one face. Stages are timed
in turn, round by round, so that a busy machine slows all of them alike; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from shared import Stages, medians, processor, require_native

import pcnn
from pcnn import Recognizer, load_image
from pcnn.engines.select import quick_precision
from pcnn.faces.detector import Detector

ROOT = Path(__file__).parent.parent
ROUNDS = 30


def photograph(folder: Path) -> Path:
    """The portrait, its upper part cut and enlarged to 640 × 480."""
    path = folder / "photograph.jpg"
    with Image.open(ROOT / "docs" / "images" / "astronaut.png") as picture:
        picture.convert("RGB").crop((0, 0, 512, 384)).resize((640, 480)).save(path, quality=90)
    return path


def started(code: str, *words: Path) -> float:
    """Seconds that a Python program takes, its start included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def command(path: Path) -> tuple[float, float]:
    """Seconds from start to result, and peak memory in MB, of `pcnn-predict PATH`."""
    seconds = started("from pcnn.commands.predict import main; raise SystemExit(main())", path)
    # The largest child so far, in KiB on Linux; only this command is started here.
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def searching(path: Path) -> float:
    """Seconds of the same where Python looks for garbage as it is used to."""
    return started("import sys; from pcnn.commands.predict import main; main(sys.argv[1:])", path)


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    require_native()
    with tempfile.TemporaryDirectory() as folder:
        path = photograph(Path(folder))
        starts = [command(path) for _ in range(5)]
        searched = [searching(path) for _ in range(5)]
        imports = [started("import torch") for _ in range(5)]
        recognizer, detector = Recognizer(device="cpu"), Detector.load("mobilenet")
        image = load_image(path)
        found = recognizer.predict(image)
        stages: Stages = {
            "read the file (ms)": lambda: load_image(path),
            "detect (ms)": lambda: detector.detect([image]),
            "predict an array, all of it (ms)": lambda: recognizer.predict(image),
            "predict a file, all of it (ms)": lambda: recognizer.predict(path),
            "16 files in one list, each (ms)": lambda: recognizer.predict([path] * 16),
        }
        if quick_precision(torch.device("cpu")):
            quick = Recognizer(device="cpu", precision="bfloat16")
            stages["predict an array, in bfloat16 (ms)"] = lambda: quick.predict(image)
        figures = medians(stages, ROUNDS)
    figures["16 files in one list, each (ms)"] /= 16
    figures["command, start to result (s)"] = statistics.median(s for s, _ in starts)
    figures["the same, garbage looked for as usual (s)"] = statistics.median(searched)
    figures["a start that only imports torch (s)"] = statistics.median(imports)
    figures["command, peak memory (MB)"] = max(memory for _, memory in starts)
    record = {
        "photograph": "640 × 480, JPEG, one face",
        "faces": len(found.faces),
        "pcnn": pcnn.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "figures": figures,
    }
    print(f"{record['processor']}, {record['threads']} threads, torch {record['torch']}")
    for name, value in figures.items():
        print(f"{name:<46}{value:>10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
