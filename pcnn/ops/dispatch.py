"""Whether somebody follows what PyTorch computes, and so has to see operators."""

from __future__ import annotations

import torch

try:
    from torch.utils._python_dispatch import is_in_torch_dispatch_mode
except ImportError:  # it is not public: where it went, calls take the dispatcher's way

    def is_in_torch_dispatch_mode(include_infra_modes: bool = True) -> bool:
        return True


def unwatched() -> bool:
    """Whether nobody follows what is computed: no gradient, no compiler, export, trace or mode.

    The way through the dispatcher then leads to the same functions, and is about a seventh of the
    time that stitch_regions and warp_add take for one face (benchmarks/bench_ops.py).
    """
    return (
        not torch.compiler.is_compiling()
        and torch.is_inference_mode_enabled()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not is_in_torch_dispatch_mode()
    )
