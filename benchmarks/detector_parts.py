"""Where a pass of the prepared detector's network spends its time, and the floor of each part.

Used by bench_scaling.py. A part's floor is the larger one of what its arithmetic takes at the rate
of a large matrix product and what its maps take, read and written once, at that of a plain copy.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import torch
from shared import medians
from torch import Tensor

from pcnn.engines.convolutions import Convolution, DirectConvolution
from pcnn.faces.detector import Detector

SIZE = 480, 640
PARTS = ("3 × 3 convolutions", "depthwise convolutions", "1 × 1 convolutions")
REST = "the picture as floats, heads, joins"


def measure_parts(rates: Mapping[str, float], rounds: int) -> dict[str, dict[str, float]]:
    """Of each part of a pass: its calls, median milliseconds and floor; of all of it milliseconds.

    rates: "macs" and "bytes" a second.
    """
    prepared: Any = Detector.load("mobilenet")._prepared
    numbers = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (*SIZE, 3), generator=numbers, dtype=torch.uint8)
    watch = _Watch(rates)
    passes: list[dict[str, dict[str, float]]] = []
    with (
        torch.inference_mode(),
        mock.patch.object(DirectConvolution, "__call__", watch.over(DirectConvolution.__call__)),
        mock.patch.object(Convolution, "__call__", watch.over(Convolution.__call__)),
    ):
        for number in range(rounds + 2):
            watch.parts.clear()
            began = time.perf_counter()
            prepared(prepared.canvas([pixels], *SIZE))
            total = 1000 * (time.perf_counter() - began)
            parts = {name: dict(watch.parts[name]) for name in PARTS}
            seen = sum(part["ms"] for part in parts.values())
            parts[REST] = {"ms": total - seen}
            parts["all of it"] = {"ms": total}
            if number >= 2:
                passes.append(parts)
    found = passes[-1]  # calls and floors are those of every pass
    for name, part in found.items():
        part["ms"] = statistics.median(one[name]["ms"] for one in passes)
    return found


class _Watch:
    """Notes by kind what the convolutions of a pass took."""

    def __init__(self, rates: Mapping[str, float]) -> None:
        self.parts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._rates, self._inside = rates, False

    def over(self, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(own: Any, maps: Tensor) -> Tensor:
            if self._inside:  # one kind may call another
                return call(own, maps)
            self._inside = True
            began = time.perf_counter()
            found = call(own, maps)
            took = 1000 * (time.perf_counter() - began)
            self._inside = False
            self._note(own, maps, found, took)
            return found

        return watched

    def _note(self, own: Any, maps: Tensor, found: Tensor, took: float) -> None:
        kind = 1 if own._groups > 1 else 2 if own._kernel == 1 else 0
        part = self.parts[PARTS[kind]]
        macs = found.numel() * maps.shape[1] // own._groups * own._kernel**2
        moved = 4 * (maps.numel() + found.numel())
        part["calls"] += 1
        part["ms"] += took
        part["floor"] += 1000 * max(macs / self._rates["macs"], moved / self._rates["bytes"])


def measure_call(rounds: int) -> float:
    """Median milliseconds of a depthwise convolution of a single pixel: what a call alone costs."""
    maps = torch.ones(1, 16, 1, 1).contiguous(memory_format=torch.channels_last)
    call = DirectConvolution(torch.ones(16, 1, 3, 3), torch.ones(16), groups=16)
    with torch.inference_mode():
        return medians({"call": lambda: call(maps)}, 10 * rounds)["call"]


def parts_table(parts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The same as the lines of a table in Markdown."""
    lines = ["| part of a pass | calls | ms | floor, ms |", "|---|---|---|---|"]
    for name, part in parts.items():
        calls = f"{part['calls']:.0f}" if "calls" in part else ""
        floor = f"{part['floor']:.1f}" if "floor" in part else ""
        lines.append(f"| {name} | {calls} | {part['ms']:.1f} | {floor} |")
    return lines
