"""The compiled ops as PyTorch operators: schemas, implementations, output shapes, gradients.

`pcnn::crop_regions`, `pcnn::stitch_regions` and `pcnn::warp_add` are registered with
torch.library, so torch.compile, torch.export and CUDA graphs see ordinary operators. Without
compiled code an operator uses pcnn.ops.reference. So an exported program also runs on a machine
without the compiled code.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pcnn.errors import InputError, NativeError
from pcnn.ops import modules, reference
from pcnn.ops.dispatch import can_skip_dispatcher
from pcnn.ops.modules import DTYPES, call, numbers

CHOICES = ("auto", "native", "reference")

_SCHEMAS = (
    "crop_regions(Tensor image, Tensor transforms, SymInt[] heights, SymInt[] widths, "
    "float[] mean, float[] std, float footprint, ScalarType dtype) -> Tensor[]",
    "stitch_regions(Tensor left_eye, Tensor right_eye, Tensor left_cheek, Tensor right_cheek, "
    "Tensor mouth, SymInt height, SymInt width) -> Tensor",
    "warp_add(Tensor stitched, Tensor theta, Tensor face) -> Tensor",
)


def _chosen() -> str:
    choice = os.environ.get("PCNN_OPS", "auto")
    if choice not in CHOICES:
        raise InputError(f"PCNN_OPS must be one of {', '.join(CHOICES)}, got {choice!r}")
    return choice


# The value of PCNN_OPS when pcnn was imported.
choice = _chosen()
_C, _C_missing = modules.packaged("_C")
_warned: set[str] = set()


def crop_regions(  # noqa: PLR0913
    image: Tensor,
    transforms: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    """See pcnn.ops.crop_regions."""
    heights, widths = [size[0] for size in sizes], [size[1] for size in sizes]
    views: list[Tensor] = torch.ops.pcnn.crop_regions.default(
        image, transforms, heights, widths, list(mean), list(std), footprint, dtype
    )
    return views


def stitch_regions(regions: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """See pcnn.ops.stitch_regions."""
    if can_skip_dispatcher():
        left_eye, right_eye, left_cheek, right_cheek, mouth = regions
        return _stitch_regions(left_eye, right_eye, left_cheek, right_cheek, mouth, *size)
    return torch.ops.pcnn.stitch_regions.default(*regions, *size)  # type: ignore[no-any-return]


def warp_add(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    """See pcnn.ops.warp_add."""
    if can_skip_dispatcher():
        return _warp_add(stitched, theta, face)
    return torch.ops.pcnn.warp_add.default(stitched, theta, face)  # type: ignore[no-any-return]


def describe() -> str:
    """The implementations for the CPU and the GPU, in one line; compiles nothing."""
    if choice == "reference":
        return "reference (plain PyTorch), chosen by PCNN_OPS"
    cpu = f"native ({_C.BUILD})" if _C else f"reference (not built: {_C_missing})"
    return f"CPU {cpu}; CUDA {_describe_cuda()}"


def _describe_cuda() -> str:
    if not torch.cuda.is_available():
        return "not available"
    known = modules.known_cuda_module(torch.cuda.current_device())
    if isinstance(known, str):
        return f"reference ({known})"
    packaged, _ = modules.packaged("_cuda")
    module = known or packaged
    return f"native ({module.BUILD})" if module else "native, compiled at the first use"


# The choice of the implementation for a call.


def compiled(device: torch.device) -> ModuleType | str:
    """The compiled ops for a device, compiled and tested if necessary; or the reason for none."""
    if device.type == "cuda":
        return modules.cuda_module(device)
    if device.type == "cpu":
        return _C or _C_missing
    return f"there are no compiled ops for {device.type}"


def _serving(function: str, tensor: Tensor, dtype: torch.dtype) -> ModuleType | None:
    """The compiled module for tensors like this one; None means the reference.

    Raises NativeError: there is none, but PCNN_OPS=native.
    """
    if tensor.is_cpu and _C is not None and dtype in DTYPES:
        return _C
    # A correct installation gives no warning.
    if not (tensor.is_cpu or tensor.is_cuda):
        reason = f"there are no compiled ops for {tensor.device.type}"
    elif dtype not in DTYPES:
        reason = f"{dtype} has no compiled version, only {', '.join(map(str, DTYPES))}"
    else:
        module = _C_missing if tensor.is_cpu else modules.cuda_module(tensor.device)
        if not isinstance(module, str):
            return module
        reason = f"the compiled ops for {tensor.device.type} are not available: {module}"
        if choice == "auto":
            _warn(
                f"pcnn: {reason}; using plain PyTorch, which is slower "
                "(PCNN_OPS=reference silences this)"
            )
    if choice == "native":
        raise NativeError(f"{function}: PCNN_OPS=native, but {reason}")
    return None


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=5)


# crop_regions. It has no gradient, because an image's pixels are integers.


def _empty_views(  # noqa: PLR0913, PLR0917
    image: Tensor,
    transforms: Tensor,
    heights: Sequence[int],
    widths: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    faces, channels = transforms.shape[0], len(mean)
    return [
        image.new_empty((faces, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)
        for height, width in zip(heights, widths, strict=True)
    ]


def _crop_regions(  # noqa: PLR0913, PLR0917
    image: Tensor,
    transforms: Tensor,
    heights: Sequence[int],
    widths: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    dtype: torch.dtype,
) -> list[Tensor]:
    module = _serving("crop_regions", image, dtype)
    if module is None:
        sizes = list(zip(heights, widths, strict=True))
        return reference.crop_regions(
            image, transforms, sizes, mean=mean, std=std, footprint=footprint, dtype=dtype
        )
    views = _empty_views(image, transforms, heights, widths, mean, std, footprint, dtype)
    transforms = transforms.contiguous()
    outs = tuple(
        (view.data_ptr(), height, width)
        for view, height, width in zip(views, heights, widths, strict=True)
    )
    call(
        module.crop_regions,
        image,
        numbers(image),
        *(transforms.data_ptr(), transforms.shape[0], outs),
        *(tuple(mean), tuple(std), footprint, DTYPES[dtype]),
    )
    return views


# stitch_regions


def _empty_stitched(  # noqa: PLR0913, PLR0917
    left_eye: Tensor,
    right_eye: Tensor,
    left_cheek: Tensor,
    right_cheek: Tensor,
    mouth: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """Memory for the stitched map, in the memory layout of the mouth's map."""
    batch, channels, _, _ = mouth.shape
    if mouth.is_contiguous() or not mouth.is_contiguous(memory_format=torch.channels_last):
        strides = (channels * height * width, height * width, width, 1)
    else:
        strides = (height * width * channels, 1, width * channels, channels)
    # torch's quickest allocation, which matters for a single face.
    return mouth.new_empty_strided((batch, channels, height, width), strides)


def _stitch_regions(  # noqa: PLR0913, PLR0917
    left_eye: Tensor,
    right_eye: Tensor,
    left_cheek: Tensor,
    right_cheek: Tensor,
    mouth: Tensor,
    height: int,
    width: int,
) -> Tensor:
    regions = (left_eye, right_eye, left_cheek, right_cheek, mouth)
    module = _serving("stitch_regions", mouth, mouth.dtype)
    out = _empty_stitched(*regions, height, width)
    if module is None:
        return out.copy_(reference.stitch_regions(regions, (height, width)))
    maps = tuple(map(numbers, regions))
    call(module.stitch_regions, mouth, maps, numbers(out), DTYPES[mouth.dtype])
    return out


def _save_regions(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *regions, height, width = inputs
    ctx.size = (height, width)
    ctx.save_for_backward(*regions)


def _stitch_regions_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    def stitch(*regions: Tensor) -> Tensor:
        return reference.stitch_regions(regions, ctx.size)

    return *_gradients(stitch, ctx, grad), None, None


# warp_add


def _empty_fused(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    return torch.empty_like(face)


def _warp_add(stitched: Tensor, theta: Tensor, face: Tensor) -> Tensor:
    module = _serving("warp_add", face, face.dtype)
    out = torch.empty_like(face)
    if module is None:
        return out.copy_(reference.warp_add(stitched, theta, face))
    if theta.dtype != torch.float32 or not theta.is_contiguous():
        theta = theta.to(torch.float32).contiguous()
    maps = (numbers(stitched), theta.data_ptr(), numbers(face), numbers(out))
    call(module.warp_add, face, *maps, DTYPES[face.dtype])
    return out


def _save_all(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _warp_add_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _gradients(reference.warp_add, ctx, grad)


def _gradients(function: Callable[..., Tensor], ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    """The reference's gradients at the saved inputs, after a new forward pass."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        output = function(*inputs)
    return torch.autograd.grad(output, inputs, grad)


def _register() -> torch.library.Library:
    library = torch.library.Library("pcnn", "FRAGMENT")
    implementations: tuple[Callable[..., Any], ...] = (_crop_regions, _stitch_regions, _warp_add)
    fakes: tuple[Callable[..., Any], ...] = (_empty_views, _empty_stitched, _empty_fused)
    for schema, implementation, fake in zip(_SCHEMAS, implementations, fakes, strict=True):
        name = schema.partition("(")[0]
        library.define(schema, tags=torch.Tag.pt2_compliant_tag)
        for device in ("CPU", "CUDA", "MPS", "XPU"):
            library.impl(name, implementation, device)
        torch.library.register_fake(f"pcnn::{name}", fake, lib=library)
    torch.library.register_autograd(
        "pcnn::stitch_regions", _stitch_regions_backward, setup_context=_save_regions, lib=library
    )
    torch.library.register_autograd(
        "pcnn::warp_add", _warp_add_backward, setup_context=_save_all, lib=library
    )
    return library


# Registrations last as long as this object.
_library = _register()
