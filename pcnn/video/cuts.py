"""Where a film cuts to another scene: nobody of the one before may be taken for somebody in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CELLS = 24  # to a side, each the mean of a few pixels
_SAMPLES = 4  # pixels of a cell, in each direction
_CHANGED = 30.0  # levels of 255 by which cells differ on average, light apart


class CutFinder:
    """Tells from frame to frame whether the whole picture has changed at once.

    Cells of both are compared after their means are taken off, so that a flash is no cut.
    """

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None

    def update(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether this frame, (H, W, 3) uint8 RGB, begins another scene than the one before."""
        side = _CELLS * _SAMPLES
        rows = np.linspace(0, pixels.shape[0] - 1, side).round().astype(int)
        columns = np.linspace(0, pixels.shape[1] - 1, side).round().astype(int)
        sampled = pixels[rows[:, None], columns[None]].mean(2, dtype=np.float32)
        cells = sampled.reshape(_CELLS, _SAMPLES, _CELLS, _SAMPLES).mean((1, 3))
        cells -= cells.mean()
        before, self._before = self._before, cells
        return before is not None and float(np.abs(cells - before).mean()) > _CHANGED
