"""Choice of engine and precision: PyTorch, plain or compiled, OpenVINO or ONNX Runtime.

Engines other than plain PyTorch run a portable network (`portable`), as ONNX or compiled. The
conversion takes a minute or more, so its file is kept in the user's cache.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pcnn.devices import instructions
from pcnn.engines.cache import cached_file, load_cached, quickest, remembered, write_onnx
from pcnn.engines.classifier import PreparedClassifier, one_for_none, prepare
from pcnn.engines.cuda_graphs import Compute, with_cuda_graphs
from pcnn.engines.detector import PreparedRetinaFace, join_levels
from pcnn.engines.folding import fold_batch_norms
from pcnn.engines.inductor import Compiled, machine, write_compiled
from pcnn.engines.portable import Graph, LevelsGraph, ViewsGraph, patterns
from pcnn.engines.sessions import PACKAGES, Session, installed, open_session, require
from pcnn.errors import InputError, WeightsError, counted
from pcnn.networks.regions import REGIONS
from pcnn.networks.retinaface import RetinaFace, load_state
from pcnn.weights.detector import DetectorSettings, read_detector
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.known import DEFAULT_DETECTOR

ENGINES = ("torch", "compile", "openvino", "onnxruntime")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
# "auto" chooses fewer bits if no calibrated probability of the samples changes by more than this.
MOST_MOVED = 0.02
# What is timed: a picture's height and width, and the faces of a batch.
_USUAL_PICTURE, _MANY_FACES = (480, 640), 16


class PreparedDetector(Protocol):
    """A detector's network ready for inference, such as PreparedRetinaFace."""

    def canvas(self, images: Sequence[Tensor], height: int, width: int) -> Tensor:
        """The network's input for images; see PreparedRetinaFace.canvas."""

    def __call__(self, canvas: Tensor, *, fine: bool = True) -> Tensor:
        """Predictions for every anchor (B, N, 15); see PreparedRetinaFace."""


def choose_engine(engine: str, device: torch.device) -> str:
    """The requested engine, one of ENGINES; "auto" means the quickest installed one.

    On a CPU the engines that are installed find faces in a picture of 640 × 480, and the quickest
    is remembered in the user's cache. Before that, the detector is converted, which takes a
    minute. On a GPU "auto" means "torch".
    Raises InputError: the engine is unknown, not installed, or cannot use the GPU. WeightsError:
    the cache cannot be written.

    >>> choose_engine("torch", torch.device("cpu"))
    'torch'
    """
    if engine == "auto":
        found = installed() if device.type == "cpu" else []
        return _quickest_engine(("torch", *found)) if found else "torch"
    if engine not in ENGINES:
        raise InputError(
            f"choose_engine: engine must be auto, {', '.join(ENGINES)}, got {engine!r}"
        )
    if engine in PACKAGES:
        extra, packages = PACKAGES[engine]
        require(f"engine={engine!r}", packages, extra)
        if device.type != "cpu":
            raise InputError(
                f"choose_engine: engine={engine!r} runs on the CPU, not on {device}: "
                "use device='cpu' or engine='torch'"
            )
    return engine


def _quickest_engine(engines: Sequence[str]) -> str:
    """The engine that passes a picture through the packaged detector in the least time."""

    def measure() -> str:
        state, settings = read_detector(DEFAULT_DETECTOR)
        network = fold_batch_norms(load_state(state, leak=settings.leak))
        height, width = _USUAL_PICTURE
        picture = (255 * patterns(1, 3, height, width)[0]).permute(1, 2, 0).contiguous()
        calls = {}
        for engine in engines:
            try:
                prepared = prepare_detector(network, settings, engine)
            except (WeightsError, ImportError) as error:
                warnings.warn(f"{engine} is left out, it cannot start: {error}", stacklevel=3)
                continue
            calls[engine] = partial(prepared, prepared.canvas([picture], height, width))
        with torch.inference_mode():
            return quickest(calls)

    where = [machine(torch.device("cpu")), *map(_version, engines)]
    return remembered("engine", engines, where, measure)


def prepare_classifier(
    loaded: ExpressionWeights, engine: str = "torch", precision: str = "float32"
) -> tuple[PreparedClassifier, str]:
    """Prepare a classifier for inference; also describes its engine and precision in words.

    loaded: its network is on the CPU or, for PyTorch, on a GPU.
    engine: one of ENGINES; "compile" compiles ahead of time with torch.compile's compiler.
    precision: see choose_precision, also for the errors.
    """
    precision = choose_precision(loaded, engine, precision)
    prepared = _prepare_classifier(loaded, engine, precision)
    return prepared, _described(engine, precision, next(loaded.network.parameters()).device)


def choose_precision(loaded: ExpressionWeights, engine: str, precision: str) -> str:
    """The requested precision of the arithmetic, or for "auto" the better one.

    loaded, engine: see prepare_classifier. precision: "float32"; "bfloat16"; "float16", only on a
        GPU; or "auto". "auto" means `quick_precision` if no probability of the samples changes by
        more than MOST_MOVED and, on a CPU, it is measured to be quicker. That measurement is
        remembered in the user's cache.
    Raises InputError: the precision is unknown, or the engine does not support it.
    """
    check_precision(precision, engine, next(loaded.network.parameters()).device)
    if precision != "auto":
        return precision
    return "float32" if engine == "onnxruntime" else _chosen_precision(loaded, engine)


def check_precision(precision: str, engine: str, device: torch.device) -> None:
    """Raise InputError if a precision is unknown, or unsupported by the engine or device."""
    if precision not in PRECISIONS:
        raise InputError(
            f"choose_precision: precision must be {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if engine == "onnxruntime" and precision in ("bfloat16", "float16"):
        raise InputError(
            "choose_precision: engine='onnxruntime' supports only float32 on the CPU: "
            "use precision='float32' or another engine"
        )
    if precision == "float16" and device.type == "cpu":
        raise InputError(
            "choose_precision: precision='float16' needs a GPU: on a CPU use "
            "precision='bfloat16' or precision='float32'"
        )


def _chosen_precision(loaded: ExpressionWeights, engine: str) -> str:
    """The quick precision if it is quicker here and changes the samples' answers little enough."""
    device = next(loaded.network.parameters()).device
    quick = quick_precision(device)
    if quick is None:
        return "float32"
    # Compiled code rounds like plain PyTorch, which saves a minute of compilation here.
    engine = "torch" if engine == "compile" else engine
    if device.type == "cpu" and _quicker_precision(loaded, engine, quick) != quick:
        return "float32"
    prepared = _prepare_classifier(loaded, engine, quick)
    return quick if movement(loaded, prepared) <= MOST_MOVED else "float32"  # also for NaN


def _quicker_precision(loaded: ExpressionWeights, engine: str, quick: str) -> str:
    """float32 or the quick precision, by what one face alone and one of many cost together."""

    def measure() -> str:
        both = {name: _prepare_classifier(loaded, engine, name) for name in ("float32", quick)}
        config = loaded.network.config
        few, many = (
            loaded.network.cut(patterns(count, config.channels, config.size, config.size))
            for count in (1, _MANY_FACES)
        )

        def read(classifier: PreparedClassifier) -> None:
            for _ in range(_MANY_FACES):
                classifier.forward_views(few)
            classifier.forward_views(many)

        with torch.inference_mode():
            return quickest({name: partial(read, each) for name, each in both.items()})

    members = getattr(loaded.network, "networks", [loaded.network])
    shapes = [f"{type(own).__name__} {own.config}" for own in members]
    where = [machine(torch.device("cpu")), engine, _version(engine)]
    return remembered("precision", ("float32", quick), [*shapes, *where], measure)


def prepare_detector(
    network: RetinaFace,
    settings: DetectorSettings,
    engine: str = "torch",
    precision: str = "float32",
) -> PreparedDetector:
    """Prepare a detector's network for inference.

    engine: one of ENGINES. "compile" uses plain PyTorch, because photographs have many sizes.
    precision: one of PRECISIONS. The detector uses float32 except with "bfloat16" in PyTorch on a
        CPU.
    """
    if engine not in PACKAGES:
        narrow = precision == "bfloat16" and next(network.parameters()).device.type == "cpu"
        return PreparedRetinaFace(
            network,
            channels=settings.channels,
            mean=settings.mean,
            std=settings.std,
            dtype=torch.bfloat16 if narrow else torch.float32,
        )
    return _Detector(LevelsGraph(network, settings), settings, engine)


def quick_precision(device: torch.device) -> str | None:
    """The 16-bit type for which a device has instructions; None without one.

    A GPU of compute capability 7.0 or more uses float16. It is as quick as bfloat16, and its
    rounding steps are eight times smaller. A CPU may have bfloat16.
    """
    if device.type == "cuda":
        return "float16" if torch.cuda.get_device_capability(device) >= (7, 0) else None
    return "bfloat16" if instructions() & {"avx512_bf16", "amx_bf16", "bf16"} else None


@torch.inference_mode()
def movement(loaded: ExpressionWeights, prepared: PreparedClassifier) -> float:
    """The largest change of a calibrated probability, compared with the plain network.

    The samples are 32 smooth patterns, which need no file. On 400 faces the largest change is
    half as much again (benchmarks/bench_engines.py, accuracy).
    """
    config = loaded.network.config
    device = next(loaded.network.parameters()).device
    views = loaded.network.cut(patterns(32, config.channels, config.size, config.size).to(device))
    found, expected = (
        (loaded.answer(forward, views)[0] / loaded.temperature).softmax(1)
        for forward in (prepared.forward_views, loaded.network.forward_views)
    )
    return float((found - expected).abs().max())


def _version(engine: str) -> str:
    """The version of an engine's package, "" if nobody knows it."""
    try:
        return importlib.metadata.version(engine if engine in PACKAGES else "torch")
    except importlib.metadata.PackageNotFoundError:  # another package may have its module
        return ""


def _described(engine: str, precision: str, device: torch.device) -> str:
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    name = "compiled by torch" if engine == "compile" else engine
    return f"{name} {_version(engine)}, {precision}{threads}"


def _prepare_classifier(
    loaded: ExpressionWeights, engine: str, precision: str
) -> PreparedClassifier:
    dtype: torch.dtype = getattr(torch, precision)
    if engine == "torch":
        return prepare(loaded.network, dtype)
    if engine == "compile":
        graph = ViewsGraph(loaded.network, dtype)
        device = graph.example[0].device
        compiled = load_cached(
            lambda: cached_file(
                graph,
                "classifier.pt2",
                write_compiled,
                announced="compiling the classifier, once; this takes one to three minutes …",
                options=(precision, machine(device)),
            ),
            lambda path: Compiled(path, device),
        )
        return _Classifier(graph, with_cuda_graphs(compiled, device))
    graph = ViewsGraph(loaded.network)
    session = load_cached(
        lambda: _converted(graph, "classifier"),
        lambda path: open_session(path, engine, precision),
    )
    return _Classifier(graph, _SessionPass(session, graph))


def _converted(graph: Graph, kind: str, *options: str) -> Path:
    return cached_file(
        graph,
        f"{kind}.onnx",
        write_onnx,
        announced=f"converting the {kind} for other engines, once; this takes a minute or two …",
        options=(*options, *map(importlib.metadata.version, ("onnx", "onnxscript"))),
    )


class _Classifier:
    """A classifier whose graph runs in another engine; see classifier.PreparedClassifier.

    answer: function from the graph's inputs (B, …), of any memory layout, to its outputs; B ≥ 1.
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
        if not count:  # OpenVINO treats a batch of 0 as 1
            views = one_for_none(views)
        found = self._answer(views[: len(self._inputs)])
        return {name: own[:count] for name, own in zip(self._outputs, found, strict=True)}


class _SessionPass:
    """A graph's outputs for its inputs (B, …), by a session of its file."""

    def __init__(self, session: Session, graph: ViewsGraph) -> None:
        self._session, self._inputs, self._outputs = session, graph.inputs, graph.outputs

    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        named = zip(self._inputs, views, strict=True)
        found = self._session({name: view.contiguous().numpy() for name, view in named})
        return [torch.from_numpy(found[name]) for name in self._outputs]


class _Detector:
    """A RetinaFace in another engine; see PreparedDetector."""

    def __init__(self, graph: LevelsGraph, settings: DetectorSettings, engine: str) -> None:
        colour = settings.mean if settings.channels == "rgb" else settings.mean[::-1]
        self._colour, self._levels = torch.tensor(colour), graph.outputs
        normalisation = repr((settings.channels, settings.mean, settings.std))
        self._session = load_cached(
            lambda: _converted(graph, "detector", normalisation),
            lambda path: open_session(path, engine),
        )

    def canvas(self, images: Sequence[Tensor], height: int, width: int) -> Tensor:
        """(B, height, width, 3) float32: each image in the upper left, mean colour around it."""
        canvas = self._colour.expand(len(images), height, width, 3).contiguous()
        for own, image in zip(canvas, images, strict=True):
            own[: image.shape[0], : image.shape[1]] = image
        return canvas

    def __call__(self, canvas: Tensor, *, fine: bool = True) -> Tensor:
        found = self._session({"images": canvas.numpy()})
        levels = self._levels if fine else self._levels[1:]
        return join_levels([torch.from_numpy(found[level]) for level in levels])
