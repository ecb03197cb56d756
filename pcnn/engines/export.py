"""Export of networks as files that run without pcnn: ONNX, OpenVINO, torch.export."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.engines.export_graphs import FileGraph
from pcnn.engines.portable import without_messages
from pcnn.engines.sessions import Session, open_session, require
from pcnn.errors import InputError, WeightsError
from pcnn.version import __version__
from pcnn.weights.kinds import EXPORTED
from pcnn.weights.schema import parse_metadata

# Formats and the suffixes of their files.
FORMATS: Mapping[str, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
# The largest difference between a score of a float32 file and torch's. Engines add in other orders,
# which changes a score by about 1e-6. A wrongly translated operation changes it by tenths.
MOST_DIFFERENCE = 1e-3
# The least share of an int8 file's answers that must agree with torch's.
LEAST_AGREEMENT = 0.95
# Of each three samples for int8, this many measure the value ranges. The others check the file.
_MEASURING = 2
_FEWEST, _BATCH = 30, 16
# The key of pcnn's metadata in files that have one entry for each program.
_KEY = "pcnn"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Comparison:
    """The comparison of an exported file with torch.

    samples: the number of samples. difference: the largest difference of a score, 0…1.
    agreement: the share of answers that agree, see FileGraph.agreement.
    """

    samples: int
    difference: float
    agreement: float


@own_settings()
def export(
    graph: FileGraph,
    target: str | Path,
    *,
    kind: str = "onnx",
    samples: Tensor,
    int8: bool = False,
) -> Comparison:
    """Write a graph to a file, if the file gives the same answers as torch.

    target: the file, with the suffix of FORMATS. OpenVINO puts the weights into a `.bin` beside
        it.
    kind: one of FORMATS. ONNX files run in onnxruntime and hold the graph's metadata as their
        own. Files of torch-export need only torch.
    samples: (N, …) uint8, inputs of the graph. The file is compared with torch on all of them.
    int8: convolutions in 8 bits. Two of each three samples measure the value ranges; the third
        one is compared. At least 30 samples are needed.
    Raises InputError: an unknown kind or suffix, missing packages, too few samples.
    Raises WeightsError: the file's answers differ from torch's. A score may differ by at most
        MOST_DIFFERENCE; in int8 at most one answer of 20 may differ. Nothing is written then.
    """
    target = Path(target)
    _check(target, kind, int8, len(samples))
    measuring = torch.arange(len(samples)) % 3 < _MEASURING
    checking = samples[~measuring] if int8 else samples
    metadata = {
        **graph.metadata,
        "outputs": graph.outputs,
        "precision": "int8" if int8 else "float32",
        "pcnn": __version__,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        if kind == "torch-export":
            _write_program(graph, written, metadata)
        else:
            model = Path(folder) / "model.onnx"
            model.write_bytes(graph.onnx())
            if int8:
                _quantise(model, graph, samples[measuring])
            _describe(model, metadata)
            if kind == "openvino":
                _write_openvino(model, written, metadata)
            else:
                model.replace(written)
        comparison = compare(graph, open_file(written, kind), checking)
        _judge(target, comparison, int8)
        _put_in_place(written, target)
    return comparison


def _put_in_place(written: Path, target: Path) -> None:
    """Rename a file, with the numbers beside it if it is OpenVINO's.

    Both cannot be replaced at once, and an older model would take the new numbers for its own. A
    process that is killed in between leaves no model rather than a wrong one.
    """
    numbers = written.with_suffix(".bin")
    if numbers.is_file():
        target.unlink(missing_ok=True)
        numbers.replace(target.parent / numbers.name)
    written.replace(target)


@own_settings()
def open_file(path: Path, kind: str) -> Session:
    """An exported file, ready to run. kind: one of FORMATS."""
    if kind == "torch-export":
        return _Program(path)
    return open_session(path, {"onnx": "onnxruntime"}.get(kind, kind))


@own_settings()
@torch.no_grad()
def compare(graph: FileGraph, session: Session, samples: Tensor) -> Comparison:
    """Compare the answers of a session of the graph's file with the graph's own."""
    expected, found = [], []
    for some in samples.split(_BATCH):
        expected.append(graph(some))
        answer = session({graph.inputs[0]: some.contiguous().numpy()})
        found.append([torch.from_numpy(answer[name]) for name in graph.outputs])
    ours, theirs = (
        [torch.cat(parts) for parts in zip(*own, strict=True)] for own in (expected, found)
    )
    difference = float((ours[0] - theirs[0]).abs().max())
    return Comparison(len(samples), difference, graph.agreement(ours, theirs))


def _check(target: Path, kind: str, int8: bool, samples: int) -> None:
    if kind not in FORMATS:
        raise InputError(f"export: format must be {', '.join(FORMATS)}, got {kind!r}")
    if target.suffix != FORMATS[kind]:
        raise InputError(f"{target}: a file for {kind} must end in {FORMATS[kind]}")
    if kind == "torch-export":
        if int8:
            raise InputError("export: int8 is for onnx and openvino, not for torch-export")
        return
    require(f"export to {kind}", _PACKAGES, "onnx")
    if kind == "openvino":
        require("export to openvino", ("openvino",), "openvino")
    if int8 and samples < _FEWEST:
        raise InputError(f"export: int8 needs at least {_FEWEST} samples, got {samples}")


def _judge(target: Path, comparison: Comparison, int8: bool) -> None:
    """Raise WeightsError if the answers differ too much."""
    if int8 and comparison.agreement < LEAST_AGREEMENT:
        raise WeightsError(
            f"{target}: not written: int8 agrees with torch on {100 * comparison.agreement:.1f} % "
            f"of {comparison.samples} answers, expected at least {100 * LEAST_AGREEMENT:.0f} %; "
            "calibrate on other pictures, or omit int8"
        )
    if not int8 and not comparison.difference <= MOST_DIFFERENCE:
        raise WeightsError(
            f"{target}: not written: a score differs from torch's by {comparison.difference:.2g}, "
            f"expected at most {MOST_DIFFERENCE}; try other versions of onnx and its engines"
        )


def _write_program(graph: FileGraph, path: Path, metadata: Mapping[str, Any]) -> None:
    with without_messages():
        torch.export.save(graph.program(), path, extra_files={f"{_KEY}.json": json.dumps(metadata)})


def _describe(path: Path, metadata: Mapping[str, Any]) -> None:
    """Put metadata into an ONNX file: strings unchanged, other values as JSON."""
    import onnx

    model = onnx.load(path)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata.items()
    }
    onnx.helper.set_model_props(model, texts)
    model.producer_name, model.producer_version = "pcnn", __version__
    onnx.save(model, path)


def _write_openvino(model: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    import openvino

    read = openvino.Core().read_model(model)
    read.set_rt_info(json.dumps(metadata), _KEY)
    openvino.save_model(read, path, compress_to_fp16=False)


def _quantise(path: Path, graph: FileGraph, samples: Tensor) -> None:
    """Quantise the convolutions of a graph's ONNX file, with ranges measured on samples.

    Weights use 7 of the 8 bits. Processors without VNNI add two products in 16 bits, which would
    overflow (OpenVINO's documentation, saturation issue). With 8 bits one label in eight changes.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Tensor] = iter(samples.split(_BATCH))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {graph.inputs[0]: batch.contiguous().numpy()}

    model = onnx.load(path).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.initializer}
    convolutions = [node for node in model.node if node.op_type == "Conv"]
    with without_messages():  # it recommends a step that `Graph.onnx` has already done
        quantize_static(
            path,
            path,
            Samples(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=[
                node.name for node in convolutions if graph.takes_int8(weights[node.input[1]])
            ],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )


class _Program:
    """A session of a torch.export file."""

    def __init__(self, path: Path) -> None:
        extra = {f"{_KEY}.json": ""}
        try:
            self._module = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # torch has no list of what it raises
            raise WeightsError(f"{path}: PyTorch cannot use it ({error})") from error
        described = parse_metadata(extra[f"{_KEY}.json"], str(path), EXPORTED)
        self._outputs = list(described["outputs"])
        self.threads = torch.get_num_threads()

    @own_settings()
    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        found = self._module(*(torch.from_numpy(values) for values in inputs.values()))
        return dict(zip(self._outputs, (values.numpy() for values in found), strict=True))
