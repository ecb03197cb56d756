"""What runs the networks: PyTorch, plain or compiled, OpenVINO or ONNX Runtime; which precision.

What is not plain PyTorch runs a network as a graph (`graphs`), in ONNX or compiled. Making that
takes a minute or more, so it is kept in the user's cache.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pcnn.devices import instructions
from pcnn.engines.cache import kept, write_onnx
from pcnn.engines.classifier import Prepared, prepare
from pcnn.engines.cuda_graphs import Compute, recorded
from pcnn.engines.detector import PreparedRetinaFace
from pcnn.engines.inductor import Compiled, machine, write_compiled
from pcnn.engines.portable import Graph, LevelsGraph, ViewsGraph, patterns, rows
from pcnn.engines.sessions import PACKAGES, Session, installed, open_session, require
from pcnn.errors import InputError, counted
from pcnn.networks.regions import REGIONS
from pcnn.networks.retinaface import RetinaFace
from pcnn.weights.detector import DetectorSettings
from pcnn.weights.expression import ExpressionWeights

ENGINES = ("torch", "compile", "openvino", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
# How far fewer bits may move a calibrated probability of the sample faces to be chosen by "auto".
MOST_MOVED = 0.02


class PreparedDetector(Protocol):
    """A detector's network ready for inference. See PreparedRetinaFace, which is one."""

    def canvas(self, images: Sequence[Tensor], height: int, width: int) -> Tensor:
        """What the network takes for images; see PreparedRetinaFace.canvas."""

    def __call__(self, canvas: Tensor, *, fine: bool = True) -> Tensor:
        """Predictions for every anchor (B, N, 15); see PreparedRetinaFace."""


def choose_engine(engine: str, device: torch.device) -> str:
    """The engine asked for, one of ENGINES; "auto" is the quickest that is installed.

    Raises InputError: an unknown one, one that is not installed, or one that has no way to a GPU.
    """
    if engine == "auto":
        return next(iter(installed()), "torch") if device.type == "cpu" else "torch"
    if engine not in ENGINES:
        raise InputError(f"engine must be auto, {', '.join(ENGINES)}, got {engine!r}")
    if engine in PACKAGES:
        extra, packages = PACKAGES[engine]
        require(f"engine={engine!r}", packages, extra)
        if device.type != "cpu":
            raise InputError(
                f"engine={engine!r} runs on the CPU, not on {device}: "
                "use device='cpu' or engine='torch'"
            )
    return engine


def prepare_classifier(
    loaded: ExpressionWeights, engine: str = "torch", precision: str = "float32"
) -> tuple[Prepared, str]:
    """A classifier ready for inference, and what runs it in which precision, in words.

    loaded: its network lies on the CPU or, for PyTorch, on a GPU. engine: one of ENGINES;
        "compile" is torch.compile's compiler, ahead of time.
    precision: "float32"; "bfloat16"; "float16", on a GPU; "auto" takes what `quick_precision`
        names where no probability of the sample faces moves by more than MOST_MOVED.
    Raises InputError: an unknown precision, or one that the engine has not.
    """
    device = next(loaded.network.parameters()).device
    check_precision(precision, engine, device)
    if precision == "auto":
        precision = "float32" if engine == "onnxruntime" else _chosen_precision(loaded, engine)
    prepared = _prepare_classifier(loaded, engine, precision)
    return prepared, _described(engine, precision, device)


def check_precision(precision: str, engine: str, device: torch.device) -> None:
    """Raise InputError: an unknown precision, or one that the engine has not on the device."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be {', '.join(PRECISIONS)}, got {precision!r}")
    if engine == "onnxruntime" and precision in ("bfloat16", "float16"):
        raise InputError(
            "engine='onnxruntime' supports only float32 on the CPU: "
            "use precision='float32' or another engine"
        )
    if precision == "float16" and device.type == "cpu":
        raise InputError(
            "precision='float16' needs a GPU: on a CPU use precision='bfloat16' or "
            "precision='float32'"
        )


def _chosen_precision(loaded: ExpressionWeights, engine: str) -> str:
    """The quick precision, if it moves the sample faces' answers by no more than it may."""
    quick = quick_precision(next(loaded.network.parameters()).device)
    if quick is None:
        return "float32"
    # What is compiled rounds as PyTorch does, and takes a minute more to be made.
    prepared = _prepare_classifier(loaded, "torch" if engine == "compile" else engine, quick)
    return quick if movement(loaded, prepared) <= MOST_MOVED else "float32"  # also for NaN


def prepare_detector(
    network: RetinaFace, settings: DetectorSettings, engine: str = "torch"
) -> PreparedDetector:
    """A detector's network ready for inference in float32.

    engine: one of ENGINES; of "compile" it is plain PyTorch, as photographs have too many sizes.
    """
    if engine not in PACKAGES:
        return PreparedRetinaFace(
            network, channels=settings.channels, mean=settings.mean, std=settings.std
        )
    return _Detector(LevelsGraph(network, settings), settings, engine)


def quick_precision(device: torch.device) -> str | None:
    """What a device computes in with half of float32's bits, by instructions of its own.

    Of a GPU (compute capability 7.0 on) float16, which is as quick as bfloat16 and rounds to an
    eighth of its steps; of a CPU bfloat16, or nothing.
    """
    if device.type == "cuda":
        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else None
    return "bfloat16" if instructions() & {"avx512_bf16", "amx_bf16", "bf16"} else None


@torch.inference_mode()
def movement(loaded: ExpressionWeights, prepared: Prepared) -> float:
    """The most by which a calibrated probability of sample faces differs from the network's own.

    The samples are 32 smooth patterns, which need no file; of 400 faces the most moved one moves
    by half as much again (benchmarks/bench_engines.py, accuracy).
    """
    config = loaded.network.config
    device = next(loaded.network.parameters()).device
    views = loaded.network.cut(patterns(32, config.channels, config.size, config.size).to(device))
    found, expected = (
        (loaded.answer(forward, views)[0] / loaded.temperature).softmax(1)
        for forward in (prepared.forward_views, loaded.network.forward_views)
    )
    return float((found - expected).abs().max())


def _described(engine: str, precision: str, device: torch.device) -> str:
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    package = engine if engine in PACKAGES else "torch"
    name = "compiled by torch" if engine == "compile" else engine
    return f"{name} {importlib.metadata.version(package)}, {precision}{threads}"


def _prepare_classifier(loaded: ExpressionWeights, engine: str, precision: str) -> Prepared:
    dtype: torch.dtype = getattr(torch, precision)
    if engine == "torch":
        return prepare(loaded.network, dtype)
    if engine == "compile":
        graph = ViewsGraph(loaded.network, dtype)
        device = graph.example[0].device
        path = kept(
            graph,
            "classifier.pt2",
            write_compiled,
            announced="compiling the classifier, once: one to three minutes …",
            options=(precision, machine(device)),
        )
        return _Classifier(graph, recorded(Compiled(path, device), device))
    graph = ViewsGraph(loaded.network)
    session = open_session(_converted(graph, "classifier"), engine, precision)
    return _Classifier(graph, partial(_by_session, session, graph))


def _converted(graph: Graph, kind: str, *options: str) -> Path:
    return kept(
        graph,
        f"{kind}.onnx",
        write_onnx,
        announced=f"converting the {kind} for other engines, once: a minute or two …",
        options=(*options, *map(importlib.metadata.version, ("onnx", "onnxscript"))),
    )


class _Classifier:
    """A classifier by its graph in another engine: see inference.Prepared.

    answer: the graph's inputs (B, …), laid out in any way, to its outputs; B is at least 1.
    """

    def __init__(self, graph: ViewsGraph, answer: Compute) -> None:
        self._inputs, self._outputs, self._answer = graph.inputs, graph.outputs, answer

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        found = self._run(views)
        own = found["region_logits"].unbind(1) if "region_logits" in found else ()
        return found["logits"], dict(zip(REGIONS, own, strict=False))

    def embed_views(self, views: Sequence[Tensor]) -> Tensor:
        return self._run(views)["embedding"]

    def _run(self, views: Sequence[Tensor]) -> Mapping[str, Tensor]:
        count = len(views[0])
        if not count:  # which OpenVINO takes for 1
            views = [view.new_zeros(1, *view.shape[1:]) for view in views]
        found = self._answer(views[: len(self._inputs)])
        return {name: own[:count] for name, own in zip(self._outputs, found, strict=True)}


def _by_session(session: Session, graph: ViewsGraph, views: Sequence[Tensor]) -> list[Tensor]:
    named = zip(graph.inputs, views, strict=True)
    found = session({name: view.contiguous().numpy() for name, view in named})
    return [torch.from_numpy(found[name]) for name in graph.outputs]


class _Detector:
    """A RetinaFace in another engine: see PreparedDetector."""

    def __init__(self, graph: LevelsGraph, settings: DetectorSettings, engine: str) -> None:
        colour = settings.mean if settings.channels == "rgb" else settings.mean[::-1]
        self._colour, self._levels = torch.tensor(colour), graph.outputs
        told = repr((settings.channels, settings.mean, settings.std))
        self._session = open_session(_converted(graph, "detector", told), engine)

    def canvas(self, images: Sequence[Tensor], height: int, width: int) -> Tensor:
        """(B, height, width, 3) float32: each image in the upper left, mean colour around it."""
        canvas = self._colour.expand(len(images), height, width, 3).contiguous()
        for own, image in zip(canvas, images, strict=True):
            own[: image.shape[0], : image.shape[1]] = image
        return canvas

    def __call__(self, canvas: Tensor, *, fine: bool = True) -> Tensor:
        found = self._session({"images": canvas.numpy()})
        levels = self._levels if fine else self._levels[1:]
        return torch.cat([rows(torch.from_numpy(found[level])) for level in levels], 1)
