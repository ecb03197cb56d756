"""A network's pass compiled by torch.compile: an option, whose wait is at load and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pcnn.captured import Compute
from pcnn.errors import InputError


class Compiled:
    """Computes by compiled code wherever that fits, else call by call: it compiles at load alone.

    Code is made for one face and for any other number of them, with as many threads as torch has
    then. A thread that has another share of them, as those have that read many pictures on a CPU,
    runs call by call.
    compute: what is compiled. views: makes views as they will come, of that many faces.
    backend: torch.compile's.
    Safe to use from several threads, which take turns.
    Raises InputError: it cannot be compiled here, as without a C++ compiler.
    """

    def __init__(
        self,
        compute: Compute,
        views: Callable[[int], Sequence[Tensor]],
        *,
        backend: str | Callable[..., Callable[..., object]] = "inductor",
    ) -> None:
        self._compute, self._threads = compute, torch.get_num_threads()
        self._turn = threading.Lock()
        on_cpu = views(1)[0].device.type == "cpu"
        # Weights become constants there, in the order that oneDNN likes best.
        options: dict[str, Any] | None = (
            {"freezing": True} if backend == "inductor" and on_cpu else None
        )
        self._code = torch.compile(compute, fullgraph=True, backend=backend, options=options)
        try:
            for faces in (1, 2):  # the second time the number of faces is left open
                self._run(views(faces))
        except Exception as error:  # compilers and backends have exceptions of their own
            raise InputError(
                f"engine 'compile': torch.compile fails here ({_told(error)}): say engine='torch'"
            ) from error

    def __call__(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        """The answers to views (B, …), of any B."""
        if torch.get_num_threads() != self._threads:
            return self._compute(views)
        # Whatever else the code does not fit is computed call by call, too.
        with self._turn, torch.compiler.set_stance("eager_on_recompile"):
            return self._run(views)

    def _run(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        """By compiled code, which asks for tensors of one kind, and one way to lay them out."""
        device = views[0].device.type
        with torch.inference_mode(), torch.autocast(device, enabled=False):
            alike = [
                torch.empty(view.shape, dtype=view.dtype, device=view.device) for view in views
            ]
            for own, view in zip(alike, views, strict=True):
                own.copy_(view)
            return self._code(alike)


def _told(error: Exception) -> str:
    """The first two lines, as the first one may only say where something was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
