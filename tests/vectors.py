"""The page's JavaScript, asked by tests that compare it with Python."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from served import PAGE

NODE = shutil.which("node")
_SCRIPT = Path(__file__).parent / "serving" / "check_vectors.mjs"


def answers(**vectors: dict[str, Any]) -> dict[str, Any]:
    """What the page's code says to vectors by name."""
    done = subprocess.run(
        [str(NODE), str(_SCRIPT), str(PAGE)],
        input=json.dumps(vectors),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def image_of(pixels: NDArray[np.uint8]) -> dict[str, Any]:
    """An image (H, W, 3) as the page's code takes it, within JSON."""
    height, width = pixels.shape[:2]
    opaque = np.full((height, width, 1), 255, np.uint8)
    full = np.ascontiguousarray(np.concatenate([pixels, opaque], 2))
    return {"data": base64.b64encode(full).decode(), "width": width, "height": height}
