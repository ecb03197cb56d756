"""Sessions of ONNX Runtime and OpenVINO, with a common interface."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn.devices import check_process
from pcnn.errors import InputError, WeightsError

# Engine → the extra that installs it, and its packages.
PACKAGES = {
    "onnxruntime": ("onnx", ("onnxruntime", "onnx", "onnxscript")),
    "openvino": ("openvino", ("openvino", "onnx", "onnxscript")),
}


_Arrays: TypeAlias = Mapping[str, NDArray[np.float32]]


class Session(Protocol):
    """A model file in an engine. Several threads may call it.

    threads: how many the engine computes with.
    """

    threads: int

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> _Arrays:
        """The named outputs for named inputs."""


def require(what: str, packages: Sequence[str], extra: str) -> None:
    """Raise InputError if packages that `what` needs are missing. The error names the extra."""
    lacking = missing(packages)
    if lacking:
        raise InputError(f"{what} needs {', '.join(lacking)}: pip install 'pcnn[{extra}]'")


def installed() -> list[str]:
    """The engines of PACKAGES that are installed."""
    return [engine for engine, (_, packages) in PACKAGES.items() if not missing(packages)]


def missing(packages: Sequence[str]) -> list[str]:
    """The packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def open_session(path: Path, engine: str, precision: str = "float32") -> Session:
    """Open a model file in an engine, with torch's present number of threads.

    path: an ONNX file; for openvino also an .xml file of its own format.
    Raises WeightsError: the engine cannot read it.
    """
    try:
        session = _SESSIONS[engine](path, precision)
    except Exception as error:  # each engine has its own exceptions
        raise WeightsError(f"{path}: {engine} cannot load it ({error})") from error
    return _InItsProcess(session, engine)


class _InItsProcess:
    """A session that refuses to run in a forked child, which does not have its threads."""

    def __init__(self, session: Session, engine: str) -> None:
        self._session, self._engine, self._process = session, engine, os.getpid()
        self.threads = session.threads

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> _Arrays:
        check_process(self._process, f"engine {self._engine!r}: the network")
        return self._session(inputs)


class _OpenVino:
    def __init__(self, path: Path, precision: str) -> None:
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        }
        self._compiled = openvino.Core().compile_model(path, "CPU", options)
        self.threads = self._compiled.get_property("INFERENCE_NUM_THREADS")
        self._own = threading.local()  # a request serves one call at a time

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> _Arrays:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer(dict(inputs), share_inputs=True)
        return {output.get_any_name(): values for output, values in found.items()}


class _OnnxRuntime:
    def __init__(self, path: Path, precision: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Spinning threads would take cores from torch's work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.threads = self._session.get_session_options().intra_op_num_threads
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> _Arrays:
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


_SESSIONS: Mapping[str, Callable[[Path, str], Session]] = {
    "openvino": _OpenVino,
    "onnxruntime": _OnnxRuntime,
}
