"""Convolutional layers that compiled code runs on a CPU, a whole network in one call.

PyTorch and oneDNN take about 0.1 ms for each call of a convolution before they compute, which for
one face is more than the computation. `Layers` lists a network's layers once. A run is then one
call. Its maps are channels-last, in float32.

The answer for an image is the same in every batch and with any number of threads, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcnn.devices import instructions as known_instructions
from pcnn.engines.convolutions import keep_freed_memory
from pcnn.errors import InputError, NativeError
from pcnn.ops.native import layers_class

_CONVOLUTION, _DEPTHWISE, _MAX_POOL, _ADD_ENLARGED = range(4)  # LayerKind in csrc/layers.h


_NAMES = {torch.float32: "", torch.bfloat16: "AVX-512 BF16"}


def can_run(weight: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether layers can compute with weights like this one in a type, by default their own.

    With AMX, oneDNN computes in bfloat16 with instructions that are not used here.
    """
    dtype = dtype or weight.dtype
    if weight.device.type != "cpu" or dtype not in _NAMES:
        return False
    if dtype == torch.bfloat16 and "amx_bf16" in known_instructions():
        return False
    return layers_class(_NAMES[dtype]) is not None


class Maps(NamedTuple):
    """Maps of a network, or some of their channels. number: counted by Layers."""

    number: int
    first: int
    channels: int

    def part(self, first: int, channels: int) -> Maps:
        """Some of the channels."""
        return Maps(self.number, self.first + first, channels)


class Layers:
    """A network's layers on a CPU. Threads may share it.

    dtype: of the products; sums and maps are float32. only: the instructions "AVX-512", "AVX2" or
    "NEON"; None for the best of the processor.
    Methods add layers, which can be run from then on.
    Raises NativeError: no compiled code, or not for this processor.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, only: str | None = None) -> None:
        self._channels: list[int] = []  # of all maps
        self._added: list[tuple[Any, ...]] = []  # the arguments of each layer, without weights
        self._start(_NAMES[dtype] if only is None else only)

    def _start(self, instructions: str) -> None:
        keep_freed_memory()
        found = layers_class(instructions)
        if found is None:
            raise NativeError(f"Layers: no compiled code for this processor ({instructions})")
        self._instructions, self._compiled = instructions, found(instructions)

    def __getstate__(self) -> dict[str, Any]:
        weights = [self._compiled.weights(number) for number in range(len(self._added))]
        state = {name: value for name, value in vars(self).items() if name != "_compiled"}
        return {**state, "_weights": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed = state.pop("_weights")
        vars(self).update(state)
        self._start(self._instructions)
        for channels in self._channels:
            self._compiled.add_maps(channels)
        for arguments, numbers in zip(self._added, packed, strict=True):
            values = torch.frombuffer(bytearray(numbers or bytes(4)), dtype=torch.float32)
            channels = arguments[2][2]
            self._compiled.add(*arguments, values.data_ptr(), values[-channels:].data_ptr())

    def maps(self, channels: int) -> Maps:
        """New maps: an input, or the place for several layers' results."""
        self._channels.append(channels)
        return Maps(self._compiled.add_maps(channels), 0, channels)

    def convolution(  # noqa: PLR0913
        self,
        source: Maps,
        folded: tuple[Tensor, Tensor],
        *,
        stride: int = 1,
        padding: int | None = None,
        leak: float | None = 0.0,
        most: float = math.inf,
        onto: Maps | None = None,
        out: Maps | None = None,
        exact: bool = False,
    ) -> Maps:
        """A convolution with its rectifier; returns its maps.

        folded: weight (N, C, k, k) and bias (N,), see `fold_norm`; C = 1 of more input channels
            means a depthwise convolution.
        padding: pixels before and after the maps; None for TensorFlow's.
        leak, most: see `convolutions.FusedConvolution`. onto: maps to add before the rectifier.
        out: where to write the maps; None for new ones. exact: multiply in float32 in any case.
        """
        weight, bias = (own.detach().float() for own in folded)
        count, channels, kernel = weight.shape[:3]
        if out is None:
            out = self.maps(count)
        if out.channels != count or channels not in (1, source.channels):
            raise InputError(
                f"Layers: weights for {count} of {channels} channels, "
                f"maps of {source.channels} and {out.channels}"
            )
        ordered = weight.permute(0, 2, 3, 1).contiguous()  # (N, k, k, C)
        self._add(
            _DEPTHWISE if channels < source.channels else _CONVOLUTION,
            *(source, out, (kernel, stride, -1 if padding is None else padding)),
            onto=-1 if onto is None else onto.number,
            leak=1.0 if leak is None else leak,
            most=most,
            exact=exact,
            weights=(ordered, bias.contiguous()),
        )
        return out

    def max_pool(self, source: Maps) -> Maps:
        """The greatest of 3 × 3 pixels, with stride 2 and one pixel of padding."""
        out = self.maps(source.channels)
        self._add(_MAX_POOL, source, out, (3, 2, 1))
        return out

    def add_enlarged(self, source: Maps, out: Maps) -> None:
        """Add to each pixel of `out` the nearest one of smaller maps."""
        self._add(_ADD_ENLARGED, source, out, (1, 1, 0))

    def _add(  # noqa: PLR0913 - what describes a layer
        self,
        kind: int,
        source: Maps,
        out: Maps,
        shape: tuple[int, int, int],
        *,
        onto: int = -1,
        leak: float = 1.0,
        most: float = math.inf,
        exact: bool = True,
        weights: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        arguments = (kind, tuple(source), tuple(out), shape, onto, leak, most, exact)
        self._compiled.add(*arguments, *(own.data_ptr() for own in weights or ()))
        self._added.append(arguments)

    def run(self, inputs: Sequence[tuple[Maps, Tensor]], outputs: Sequence[Maps]) -> list[Tensor]:
        """Maps (B, C, h, w) float32, channels-last, for inputs (B, C, H, W)."""
        numbers = [maps.number for maps, _ in inputs]
        given = [_rows(own) for _, own in inputs]
        batch, shapes = len(given[0]), [own.shape[1:3] for own in given]
        sizes = self._compiled.sizes(
            tuple((number, *shape) for number, shape in zip(numbers, shapes, strict=True))
        )
        found = [given[0].new_empty(batch, *sizes[maps.number], maps.channels) for maps in outputs]
        if batch:
            sources = tuple(
                (number, own.data_ptr(), *shape)
                for number, own, shape in zip(numbers, given, shapes, strict=True)
            )
            places = tuple(
                (maps.number, own.data_ptr()) for maps, own in zip(outputs, found, strict=True)
            )
            self._compiled.run(sources, places, batch, torch.get_num_threads())
        return [own.permute(0, 3, 1, 2) for own in found]


def _rows(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H, W, C) float32, without gaps; no copy if it is so in memory."""
    return maps.permute(0, 2, 3, 1).to(torch.float32).contiguous()
