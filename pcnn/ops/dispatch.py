"""Whether calls of ops may skip PyTorch's dispatcher."""

from __future__ import annotations

import torch

try:
    from torch.utils._python_dispatch import is_in_torch_dispatch_mode
except ImportError:  # it is private; without it, calls always use the dispatcher

    def is_in_torch_dispatch_mode(include_infra_modes: bool = True) -> bool:
        return True


def can_skip_dispatcher() -> bool:
    """True without gradients, compiler, export, trace and dispatch mode.

    Then the dispatcher would call the same functions. It takes about a seventh of the time of
    stitch_regions and warp_add for one face (benchmarks/bench_ops.py).
    """
    return (
        not torch.compiler.is_compiling()
        and torch.is_inference_mode_enabled()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not is_in_torch_dispatch_mode()
    )
