"""Pictures by the million: recognizers in many processes, on Ray, Spark or plain Python.

Names are imported at their first use, so that a command's `--help` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcnn.distributed.batches import predict_batches
    from pcnn.distributed.datasets import predict_dataset

__all__ = ["predict_batches", "predict_dataset"]

_HOMES = {"predict_batches": "batches", "predict_dataset": "datasets"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pcnn.distributed' has no attribute {name!r}")
    return getattr(import_module(f"pcnn.distributed.{_HOMES[name]}"), name)
