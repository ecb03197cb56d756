"""Convolutional layers that compiled code runs on a CPU, a whole network in one call.

PyTorch and oneDNN take as long to begin a convolution of one face as to compute it. `Layers` lists
a network's layers once. A run is then one call. Its maps are channels-last, in float32.

The answer for an image is the same in every batch and with any number of threads, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcnn.engines.convolutions import keep_freed_memory
from pcnn.errors import InputError, NativeError
from pcnn.ops import native

_CONVOLUTION, _DEPTHWISE, _MAX_POOL, _ADD_ENLARGED = range(4)  # LayerKind in csrc/layers.h
_INSTRUCTIONS = {torch.float32: "", torch.bfloat16: "AVX-512 BF16"}


def can_run(weight: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether layers can compute with weights like this one in a type, by default their own."""
    dtype = dtype or weight.dtype
    if weight.device.type != "cpu" or dtype not in _INSTRUCTIONS:
        return False
    return _compiled_class(_INSTRUCTIONS[dtype]) is not None


@cache
def _compiled_class(instructions: str) -> Any:
    """The compiled class (csrc/layers.h), or None without it or without the instructions."""
    module = native.compiled(torch.device("cpu"))
    if native.choice == "reference" or isinstance(module, str):
        return None
    try:
        module.Layers(instructions)
    except RuntimeError:
        return None
    return module.Layers


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

    dtype: of the products; sums and maps are float32. instructions: "AVX-512", "AVX2" or "NEON";
    None for the best of the processor.
    Methods add layers, which can be run from then on. Copies of bfloat16 need a processor
    with these instructions, too.
    Raises NativeError: no compiled code, or not for this processor.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, instructions: str | None = None) -> None:
        self.dtype = dtype
        self._channels: list[int] = []  # of all maps
        self._added: list[tuple[Any, ...]] = []  # the arguments of each layer, without weights
        self._start(_INSTRUCTIONS[dtype] if instructions is None else instructions)

    def _start(self, instructions: str) -> None:
        keep_freed_memory()
        found = _compiled_class(instructions)
        if found is None:
            wanted = instructions or "AVX2 or a 64-bit ARM"
            raise NativeError(f"Layers: no compiled code, or the processor lacks {wanted}")
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
        winograd: bool = False,
    ) -> Maps:
        """A convolution with its rectifier; returns its maps.

        folded: weight (N, C, k, k) and bias (N,), see `fold_norm`; C = 1 of more input channels
            means a depthwise convolution.
        padding: pixels before and after the maps; None for TensorFlow's.
        leak: see `convolutions.FusedConvolution`. most: the upper bound of the results.
        onto: maps to add before the rectifier.
        out: where to write the maps; None for new ones. exact: multiply in float32 in any case.
        winograd: compute tiles of large maps by Winograd's transformation (Lavin and Gray 2016),
            in float32: a quarter of the products, but five times the memory for weights.
            For 3 × 3 kernels with stride 1 and padding 1.
        """
        weight, bias = (own.detach().float() for own in folded)
        count, channels, kernel = weight.shape[:3]
        if out is None:
            out = self.maps(count)
        fits = out.channels == count == len(bias) and channels in (1, source.channels)
        if not fits or weight.shape[3] != kernel:
            raise InputError(
                f"Layers: weights {tuple(weight.shape)} and {len(bias)} biases "
                f"for maps of {source.channels} and {out.channels} channels"
            )
        ordered = weight.permute(0, 2, 3, 1).contiguous()  # (N, k, k, C)
        self._add(
            _DEPTHWISE if channels < source.channels else _CONVOLUTION,
            *(source, out, (kernel, stride, -1 if padding is None else padding)),
            onto=-1 if onto is None else onto.number,
            leak=1.0 if leak is None else leak,
            most=most,
            exact=exact,
            winograd=winograd,
            weights=(ordered, bias.contiguous()),
        )
        return out

    def max_pool(self, source: Maps) -> Maps:
        """The greatest of 3 × 3 pixels, with stride 2 and one pixel of padding."""
        out = self.maps(source.channels)
        self._add(_MAX_POOL, source, out, (3, 2, 1))
        return out

    def add_enlarged(self, source: Maps, out: Maps) -> None:
        """Add to each pixel of `out` the nearest one of smaller maps: at (x · w) // W of its row.

        F.interpolate differs for a few sizes that are no multiples, because it rounds their ratio.
        """
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
        winograd: bool = False,
        weights: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        arguments = (kind, tuple(source), tuple(out), shape, onto, leak, most, exact, winograd)
        self._compiled.add(*arguments, *(own.data_ptr() for own in weights or ()))
        self._added.append(arguments)

    def run(self, inputs: Sequence[tuple[Maps, Tensor]], outputs: Sequence[Maps]) -> list[Tensor]:
        """Maps (B, C, h, w) float32, channels-last, for inputs (B, C, H, W) on the CPU.

        Raises InputError: an input of other channels, or of another batch than the first one.
        """
        for maps, own in inputs:
            shape = (len(inputs[0][1]), self._channels[maps.number], *own.shape[2:])
            if own.shape != shape or own.dim() != 4 or own.device.type != "cpu":
                raise InputError(
                    f"Layers: an input must be {shape[:2]} and two sides, got {tuple(own.shape)}"
                )
        if any(maps.channels != self._channels[maps.number] for maps in outputs):
            raise InputError("Layers: an output must be whole maps")
        numbers = [maps.number for maps, _ in inputs]
        given = [_channels_last(own) for _, own in inputs]
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


def _channels_last(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H, W, C) float32, without gaps; no copy if it is so in memory."""
    return maps.permute(0, 2, 3, 1).to(torch.float32).contiguous()
