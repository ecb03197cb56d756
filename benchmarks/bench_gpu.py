"""The classifier on a GPU: as its authors run it, prepared, in bfloat16, and as one CUDA graph.

    python benchmarks/bench_gpu.py [--weights NAME] [--batches 1 8 64 256] [--json FILE]

All ways of a batch take turns, round by round; medians of milliseconds, from the call to the end
of its work on the device. "Of the matrix rate" is what share of the bfloat16 operations a second
that a product of large matrices reaches on this device the network reaches in its convolutions.
With --device cpu, which is for trying this script, there is no graph: that part has not been run
yet, for want of a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shared import Stages, medians, processor
from torch import Tensor

from pcnn.evaluate import measure_cost
from pcnn.inference import prepare
from pcnn.recognizer import DEFAULT_WEIGHTS
from pcnn.weights import load_expression

_PLAIN = "eager float32"


def main() -> None:
    arguments = _parse()
    device = torch.device(arguments.device)
    network = load_expression(arguments.weights).network.to(device)
    rate = matrix_rate(device, 8192 if device.type == "cuda" else 512)
    operations = 2 * measure_cost(network, runs=0).macs
    tables: dict[str, dict[str, float]] = {}
    with torch.inference_mode():
        for batch in arguments.batches:
            config = network.config
            numbers = torch.Generator().manual_seed(batch)
            shape = (batch, config.channels, config.size, config.size)
            faces = torch.randn(shape, generator=numbers).to(device)
            stages = {name: _waited(run, device) for name, run in _ways(network, faces).items()}
            tables[str(batch)] = times = medians(stages, arguments.rounds)
            print(f"\nbatch {batch:<32}{'ms':>10}{'ratio':>8}{'of the matrix rate':>20}")
            for name, ms in times.items():
                share = batch * operations / (ms / 1000) / rate
                print(f"  {name:<36}{ms:>10.3f}{times[_PLAIN] / ms:>8.2f}{share:>20.1%}")
    record = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "torch": torch.__version__,
        "weights": arguments.weights,
        "matrix_operations_per_second": rate,
        "network_operations": operations,
        "milliseconds": tables,
    }
    print(f"\n{record['device']}, matrix rate {rate / 1e12:.1f} T/s in bfloat16")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


def _ways(network: Any, faces: Tensor) -> Stages:
    """What is timed; each cuts the faces' views and computes the logits."""
    folded, brief = prepare(network, torch.float32), prepare(network, torch.bfloat16)
    last = faces.contiguous(memory_format=torch.channels_last)

    def in_bfloat16() -> Tensor:
        return brief.forward_views(network.cut(last))[0]

    ways: Stages = {
        _PLAIN: lambda: network(faces)[0],
        "prepared, float32": lambda: folded.forward_views(network.cut(last))[0],
        "prepared, bfloat16": in_bfloat16,
    }
    if faces.is_cuda:
        ways["the same as a CUDA graph"] = captured(in_bfloat16)
    return ways


def captured(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """What replays a function's work on the GPU, whose inputs and outputs keep their places."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries settle and memory is had before it is recorded
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def _waited(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A call that lasts until its work on the device is done."""

    def run() -> None:
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def matrix_rate(device: torch.device, side: int) -> float:
    """Operations a second of a product of two large bfloat16 matrices."""
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    product = _waited(lambda: left @ left, device)
    return 2 * side**3 / (medians({"product": product}, 10)["product"] / 1000)


if __name__ == "__main__":
    main()
