"""The memory that a long film takes, against a short one. Figures of docs/video.md.

    python benchmarks/film_memory.py [--seconds S ...] [--rate N] [--photographs FILE] [--json FILE]

Two people of LFW move through small frames (256 × 144), so that ten minutes do not take long.
Memory is the largest resident set of a process of its own for each film: `predict_video`, read to
its end, and `pcnn-predict` with all that it makes of a film.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

PHOTOGRAPHS = Path(__file__).parent.parent.parent / "shared" / "data" / "lfw" / "lfw_faces.tar"
SIZE = (256, 144)
READ = """
import sys
from pcnn import Recognizer
print(sum(len(frame.faces) for frame in Recognizer("small").predict_video(sys.argv[1])))
"""
COMMAND = "import sys; from pcnn.commands.predict import main; sys.exit(main())"
MADE = ["--weights", "small", "--format", "csv", "--output", "film.csv"]
MADE += [word for kind in ("annotate", "timeline", "subtitles") for word in (f"--{kind}", kind)]


def write_film(path: Path, photographs: Path, seconds: float, rate: int) -> None:
    people = []
    with tarfile.open(photographs) as archive:
        for name in ("Aaron_Eckhart_0001.jpg", "AJ_Cook_0001.jpg"):
            content = archive.extractfile(name)
            assert content is not None
            people.append(Image.open(io.BytesIO(content.read())).resize((110, 110)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(round(seconds * rate)):
            canvas = Image.new("RGB", SIZE, (96, 104, 112))
            sway = round(8 * np.sin(number / 10))
            canvas.paste(people[0], (10 + sway, 16))
            canvas.paste(people[1], (136 - sway, 20))
            container.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        container.mux(stream.encode(None))


def largest_mb(code: str, words: list[str], folder: Path) -> tuple[float, float]:
    """The largest resident set of a Python program, and its processor time in seconds (Unix)."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the program ended with {process.returncode}")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 600])
    parser.add_argument("--rate", type=int, default=10)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    found = []
    for seconds in arguments.seconds:
        with tempfile.TemporaryDirectory() as name:
            film = Path(name) / "film.mp4"
            began = time.monotonic()
            write_film(film, arguments.photographs, seconds, arguments.rate)
            read, busy = largest_mb(READ, [str(film)], Path(name))
            made, longer = largest_mb(COMMAND, [str(film), *MADE], Path(name))
            found.append({
                "seconds": seconds, "frames": round(seconds * arguments.rate),
                "predict_video, MB": round(read), "pcnn-predict, MB": round(made),
                "processor time, s": round(busy + longer, 1),
                "by the clock, s": round(time.monotonic() - began, 1),
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
