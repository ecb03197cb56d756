"""The compiled ops as PyTorch operators: schemas and implementations.

The ops are registered with torch.library as `pcnn::crop_regions` and so on, so torch.compile,
torch.export and CUDA graphs see ordinary operators. Without compiled code an operator uses
pcnn.ops.reference. So an exported program also runs on a machine without the compiled code.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pcnn.errors import InputError, NativeError
from pcnn.ops import gradients, modules, outputs, reference
from pcnn.ops.dispatch import can_skip_dispatcher
from pcnn.ops.modules import DTYPES, call, numbers

CHOICES = ("auto", "native", "reference")

_SCHEMAS = (
    "crop_regions(Tensor image, Tensor transforms, SymInt[] heights, SymInt[] widths, "
    "float[] mean, float[] std, float footprint, ScalarType dtype) -> Tensor[]",
    "landmark_crop(Tensor image, Tensor landmarks, float[] template, SymInt[] boxes, "
    "float[] mean, float[] std, float footprint, bool mirror, ScalarType dtype) -> Tensor[]",
    "decode_faces(Tensor predictions, Tensor anchors, float[] variances, float[] limits, "
    "SymInt most) -> Tensor",
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


def landmark_crop(  # noqa: PLR0913
    image: Tensor,
    landmarks: Tensor,
    template: Sequence[Sequence[float]],
    boxes: Sequence[tuple[int, int, int, int]],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    mirror: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    """See pcnn.ops.landmark_crop."""
    places, edges = list(map(float, chain(*template))), list(chain(*boxes))
    views: list[Tensor] = torch.ops.pcnn.landmark_crop.default(
        image, landmarks, places, edges, list(mean), list(std), footprint, mirror, dtype
    )
    return views


def decode_faces(
    predictions: Tensor,
    anchors: Tensor,
    variances: Sequence[float],
    limits: Sequence[float],
    most: int,
) -> Tensor:
    """See pcnn.ops.decode_faces and reference.decode_faces."""
    found: Tensor = torch.ops.pcnn.decode_faces.default(
        predictions, anchors, list(variances), list(limits), most
    )
    return found


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


@cache
def layers_class(instructions: str) -> Any:
    """The compiled class of layers (csrc/layers.h); None without it or without the instructions."""
    if choice == "reference" or _C is None:
        return None
    try:
        _C.Layers(instructions)
    except RuntimeError:
        return None
    return _C.Layers


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


# The crops. They have no gradient, because an image's pixels are integers.


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
    views = outputs.empty_views(image, transforms, heights, widths, mean, std, footprint, dtype)
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


def _landmark_crop(  # noqa: PLR0913, PLR0917
    image: Tensor,
    landmarks: Tensor,
    template: Sequence[float],
    boxes: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    footprint: float,
    mirror: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    module = _serving("landmark_crop", image, dtype)
    options: dict[str, Any] = {"mean": mean, "std": std, "footprint": footprint, "dtype": dtype}
    if module is None:
        places = list(zip(template[::2], template[1::2], strict=True))
        edges = list(zip(*(boxes[at::4] for at in range(4)), strict=True))
        return reference.landmark_crop(image, landmarks, places, edges, mirror=mirror, **options)
    views = outputs.empty_crops(image, landmarks, template, boxes, mirror=mirror, **options)
    landmarks = landmarks.contiguous()
    opposites = [view.data_ptr() for view in views[len(boxes) // 4 :]] or [0] * len(views)
    outs = tuple(
        (view.data_ptr(), opposite, *view.shape[2:], top, left)
        for view, opposite, top, left in zip(
            views, opposites, boxes[::4], boxes[1::4], strict=False
        )
    )
    call(
        module.landmark_crop,
        image,
        numbers(image),
        *(landmarks.data_ptr(), landmarks.shape[0], tuple(template), outs),
        *(tuple(mean), tuple(std), footprint, DTYPES[dtype]),
    )
    return views


# decode_faces. It has no gradient, because a choice has none.

_NO_WORKSPACE = (0, 0, 0, 0)


def _decode_faces(
    predictions: Tensor,
    anchors: Tensor,
    variances: Sequence[float],
    limits: Sequence[float],
    most: int,
) -> Tensor:
    module = _serving("decode_faces", predictions, predictions.dtype)
    if module is None:
        return reference.decode_faces(predictions, anchors, variances, limits, most)
    found = outputs.empty_faces(predictions, anchors, variances, limits, most).zero_()
    anchors = anchors.contiguous()
    # The tensors must outlive the call.
    work = outputs.faces_work(predictions, most) if module.NEEDS_WORKSPACE else ()
    call(
        module.decode_faces,
        predictions,
        numbers(predictions),
        *(anchors.data_ptr(), tuple(variances), tuple(limits), most, found.data_ptr()),
        tuple(part.data_ptr() for part in work) or _NO_WORKSPACE,
    )
    return found


# stitch_regions


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
    out = outputs.empty_stitched(*regions, height, width)
    if module is None:
        return out.copy_(reference.stitch_regions(regions, (height, width)))
    maps = tuple(map(numbers, regions))
    call(module.stitch_regions, mouth, maps, numbers(out), DTYPES[mouth.dtype])
    return out


# warp_add


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


def _register() -> torch.library.Library:
    library = torch.library.Library("pcnn", "FRAGMENT")
    implementations: dict[Callable[..., Any], Callable[..., Any]] = {
        _crop_regions: outputs.empty_views,
        _landmark_crop: outputs.empty_crops,
        _decode_faces: outputs.empty_faces,
        _stitch_regions: outputs.empty_stitched,
        _warp_add: outputs.empty_fused,
    }
    for schema, (implementation, fake) in zip(_SCHEMAS, implementations.items(), strict=True):
        name = schema.partition("(")[0]
        library.define(schema, tags=torch.Tag.pt2_compliant_tag)
        for device in ("CPU", "CUDA", "MPS", "XPU"):
            library.impl(name, implementation, device)
        torch.library.register_fake(f"pcnn::{name}", fake, lib=library)
    torch.library.register_autograd(
        "pcnn::stitch_regions",
        gradients.stitch_regions_backward,
        setup_context=gradients.save_regions,
        lib=library,
    )
    torch.library.register_autograd(
        "pcnn::warp_add", gradients.warp_add_backward, setup_context=gradients.save_all, lib=library
    )
    return library


# Registrations last as long as this object.
_library = _register()
