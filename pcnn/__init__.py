"""Facial expression recognition with a perception CNN.

Public names are imported at their first use, so `import pcnn` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pcnn.version import __version__

if TYPE_CHECKING:
    from pcnn.errors import InputError, NativeError, WeightsError
    from pcnn.images.loading import load_image
    from pcnn.recognition.pretrained import from_pretrained
    from pcnn.recognition.recognizer import Recognizer
    from pcnn.results.tables import to_arrow, to_pandas
    from pcnn.results.values import Detection, Explanation, Expression, Face, Prediction
    from pcnn.weights.hub import push_to_hub

__all__ = [
    "Detection",
    "Explanation",
    "Expression",
    "Face",
    "InputError",
    "NativeError",
    "Prediction",
    "Recognizer",
    "WeightsError",
    "__version__",
    "from_pretrained",
    "load_image",
    "push_to_hub",
    "to_arrow",
    "to_pandas",
]

_HOMES = {
    "Detection": "results.values",
    "Explanation": "results.values",
    "Expression": "results.values",
    "Face": "results.values",
    "InputError": "errors",
    "NativeError": "errors",
    "Prediction": "results.values",
    "Recognizer": "recognition.recognizer",
    "WeightsError": "errors",
    "from_pretrained": "recognition.pretrained",
    "load_image": "images.loading",
    "push_to_hub": "weights.hub",
    "to_arrow": "results.tables",
    "to_pandas": "results.tables",
}


_MODULES = {"ops": "ops", "weights": "weights", "saliency": "networks.saliency"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"pcnn.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'pcnn' has no attribute {name!r}")
    return getattr(import_module(f"pcnn.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
