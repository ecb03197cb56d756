"""The classifier on a GPU: as its authors run it, prepared, in bfloat16, and by CUDA graphs.

    python benchmarks/bench_gpu.py [--weights NAME] [--batches 1 8 64 256] [--compile] [--json FILE]

All ways of a batch take turns, round by round; medians of milliseconds, from the call to the end
of its work on the device. "Of the matrix rate" is what share of the bfloat16 operations a second
that a product of large matrices reaches on this device the network reaches in its convolutions.
More than 128 faces are several graphs' passes, but one call by call. --compile adds what PyTorch's
compiler makes of it, which takes minutes. Last come a photograph's faces and all of a
photograph. With --device cpu, which is for trying this script, there are no graphs: that part
has not been run yet, for want of a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from shared import Stages, medians, processor, require_native
from torch import Tensor

from pcnn import Recognizer
from pcnn.engines import classifier as inference
from pcnn.engines.classifier import PreparedClassifier, prepare
from pcnn.engines.select import prepare_classifier
from pcnn.errors import InputError
from pcnn.evaluation.cost import measure_cost
from pcnn.faces.detector import Detector
from pcnn.images.loading import load_image
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.weights.expression import ExpressionWeights, load_expression
from pcnn.weights.known import DEFAULT_WEIGHTS

_PLAIN = "eager float32"
_AUTHORS = "authors"  # of their size and width, untrained
_UNBRANCHED = " without branches"
_PHOTOGRAPH = Path(__file__).parent.parent / "docs" / "images" / "astronaut.png"


def main() -> None:
    arguments = _parse()
    device = torch.device(arguments.device)
    require_native(device)
    loaded = None if arguments.weights == _AUTHORS else load_expression(arguments.weights)
    network = (loaded.network if loaded else PCNN(ModelConfig()).eval()).to(device)
    rate = matrix_rate(device, 8192 if device.type == "cuda" else 512)
    operations = 2 * measure_cost(network, runs=0).macs
    tables: dict[str, dict[str, float]] = {}
    record = {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "torch": torch.__version__,
        "weights": arguments.weights,
        "matrix_operations_per_second": rate,
        "network_operations": operations,
        "milliseconds": tables,
    }
    print(f"{record['device']}, matrix rate {rate / 1e12:.1f} T/s in bfloat16")
    ways = _ways(network, loaded if arguments.compile else None)
    with torch.inference_mode():
        for batch in arguments.batches:
            config = network.config
            numbers = torch.Generator().manual_seed(batch)
            shape = (batch, config.channels, config.size, config.size)
            faces = torch.randn(shape, generator=numbers).to(device)
            stages = _stages(network, ways, faces)
            stages = {name: _waited(run, device) for name, run in stages.items()}
            tables[str(batch)] = times = medians(stages, arguments.rounds)
            print(f"\nbatch {batch:<32}{'ms':>10}{'ratio':>8}{'of the matrix rate':>20}")
            for name, ms in times.items():
                share = batch * operations / (ms / 1000) / rate
                print(f"  {name:<36}{ms:>10.3f}{times[_PLAIN] / ms:>8.2f}{share:>20.1%}")
            _keep(record, arguments.json)
    if loaded:
        whole = photograph(device, arguments.rounds)
        print()
        for name, ms in whole.items():
            print(f"  {name:<36}{ms:>10.3f}")
        _keep({**record, "photograph_milliseconds": whole}, arguments.json)


def _keep(record: dict[str, Any], path: Path | None) -> None:
    """Write what was measured so far: a later part may fail, or its time run out."""
    if path:
        path.write_text(json.dumps(record, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--weights", default=DEFAULT_WEIGHTS, help=f"or {_AUTHORS}: of their size, untrained"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--compile", action="store_true", help="time what is compiled as well")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


def _ways(
    network: PCNN | FaceNet, loaded: ExpressionWeights | None
) -> dict[str, PreparedClassifier]:
    """The network made ready in several ways, by name. loaded: compile it, too."""
    found: dict[str, PreparedClassifier] = {}
    device = next(network.parameters()).device
    for name in ("float32", "bfloat16", "float16")[: 2 if device.type == "cpu" else 3]:
        dtype: torch.dtype = getattr(torch, name)
        if device.type == "cpu":
            found[f"prepared, {name}"] = prepare(network, dtype)
        else:
            with patch.dict(os.environ, PCNN_GRAPHS="0"):
                found[f"prepared, {name}, call by call"] = prepare(network, dtype)
            found[f"prepared, {name}, CUDA graphs"] = prepare(network, dtype)
            found[f"prepared, {name}, graphs{_UNBRANCHED}"] = prepare(network, dtype)
            with patch.object(inference, "fuse_residuals", lambda body: body):
                found[f"prepared, {name}, graphs, plain blocks"] = prepare(network, dtype)
        if loaded:
            try:
                found[f"compiled, {name}"] = prepare_classifier(loaded, "compile", name)[0]
            except InputError as error:  # the others are timed all the same
                print(error)
    return found


def _stages(network: Any, ways: dict[str, PreparedClassifier], faces: Tensor) -> Stages:
    """What is timed; each cuts the faces' views and computes the logits."""
    last = faces.contiguous(memory_format=torch.channels_last)
    stages: Stages = {_PLAIN: lambda: network(faces)[0]}
    for name, own in ways.items():

        def run(own: PreparedClassifier = own) -> Tensor:
            return own.forward_views(network.cut(last))[0]

        branches = _one_by_one if name.endswith(_UNBRANCHED) else inference.parallel_branches
        try:
            with patch.object(inference, "parallel_branches", branches):
                for _ in range(2):  # what comes again is recorded
                    run()
        except Exception as error:  # one way that fails; the others are timed
            print(f"{name}: left out ({error})")
            continue
        parts = getattr(own, "_networks", [own])  # an ensemble's members record on their own
        if not all(getattr(getattr(part, "_answer", None), "_recordable", True) for part in parts):
            print(f"{name}: left out (its passes were not recorded: see the warning)")
            continue
        stages[name] = run
    return stages


def _one_by_one(calls: Sequence[Callable[[], Tensor]], _: torch.device) -> list[Tensor]:
    return [call() for call in calls]


def photograph(device: torch.device, rounds: int) -> dict[str, float]:
    """Median milliseconds from a photograph's pixels to its faces and result, by what computes."""
    pixels = load_image(_PHOTOGRAPH)
    stages: Stages = {}
    for place in dict.fromkeys(("cpu", str(device))):
        recognizer, detector = Recognizer(device=place), Detector.load("mobilenet", device=place)
        stages[f"its faces, {place}"] = lambda detector=detector: detector.detect([pixels])
        stages[f"a photograph, {place}"] = lambda recognizer=recognizer: recognizer.predict(pixels)
    return medians(stages, rounds)


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
