"""Classifiers prepared for inference: the same answers in less time.

For one face the networks run a hundred small convolutions. On a CPU most of their time is the
overhead of calls. So the trunks become lists of calls on fixed buffers (`trunks`), made once for
each number of faces. Stitching and pooling of region maps are linear, so they are one small matrix.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from pcnn.engines.convolutions import rows_of
from pcnn.engines.cuda_graphs import parallel_branches, with_cuda_graphs
from pcnn.engines.folding import fuse_residuals, split_head
from pcnn.engines.separable import fuse_blocks
from pcnn.engines.trunks import Linear, Scratch, Size, Stage, Step, Trunks, empty_rows
from pcnn.errors import InputError
from pcnn.networks.ensemble import (
    Ensemble,
    ExpressionNetwork,
    first_regions,
    join_embeddings,
    mean_logits,
)
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.regions import REGIONS, VIEWS
from pcnn.networks.trunk import Trunk
from pcnn.ops import stitch_regions, warp_add

# Bounds the memory of a pass. The weights are read once for all faces of a pass.
_FACES_AT_ONCE = 64
# Each thread keeps its buffers for passes of at most this many faces.
_FACES_KEPT = 4
# Types of the arithmetic for which a CPU has products and convolutions with packed weights.
_QUICK_TYPES = (torch.float32, torch.bfloat16)
_Views: TypeAlias = Sequence[Tensor]  # each (B, C, height, width)
_local = threading.local()


class PreparedClassifier(Protocol):
    """A classifier ready for inference. Threads may share it."""

    def forward_views(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits and each region's logits, as from `PCNN.forward_views`.

        views: in the order of VIEWS, each (B, C, height, width). A FaceNet uses only the first
            view. It has no regions, so it returns no region logits.
        """

    def embed_views(self, views: _Views) -> Tensor:
        """The embeddings (B, D), from which the logits are computed: pooled stage-4 maps.

        For an ensemble those of its networks side by side, each of unit norm.
        """


def prepare(network: ExpressionNetwork, dtype: torch.dtype | None = None) -> PreparedClassifier:
    """Prepare a network for inference on its device. The weights are copied.

    dtype: the type of the arithmetic; None means the type of the weights. Views and answers keep
        their own type. Answers differ only by rounding.
    Raises InputError: the network is in training mode, where batch norms are not constant.
    """
    if network.training:
        raise InputError("prepare: network must be in eval mode; call its eval()")
    if isinstance(network, Ensemble):
        return _PreparedEnsemble(network, dtype)
    with torch.no_grad():
        weight = next(network.parameters())
        dtype = dtype or weight.dtype
        quick = weight.device.type == "cpu" and dtype in _QUICK_TYPES
        if not quick or network.config.backbone != "resnet18":
            return _Folded(network, dtype, fused=quick)
        if isinstance(network, PCNN):
            return _PreparedPCNN(network, dtype)
        return _PreparedFaceNet(network, dtype)


class _Folded:
    """A network's own modules with folded norms; for all but ResNets in a quick type on a CPU."""

    def __init__(self, network: PCNN | FaceNet, dtype: torch.dtype, *, fused: bool) -> None:
        body, head = split_head(network)
        if fused:
            fuse_blocks(body, dtype)
        body.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._names = REGIONS if isinstance(network, PCNN) else ()
        compute = partial(_folded_pass, fuse_residuals(body), head.to(dtype), dtype)
        self._answer = with_cuda_graphs(compute, next(head.parameters()).device)

    def forward_views(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        _, logits, *regions = self._read(views)
        return logits, dict(zip(self._names, regions, strict=True))

    def embed_views(self, views: _Views) -> Tensor:
        return self._read(views)[0]

    def _read(self, views: _Views) -> Sequence[Tensor]:
        if len(views[0]):
            return self._answer(views)
        return [own[:0] for own in self._answer(one_for_none(views))]


def one_for_none(views: _Views) -> list[Tensor]:
    """Views of one black face instead of none: not all convolutions take an empty batch."""
    return [view.new_zeros(1, *view.shape[1:]) for view in views]


def _folded_pass(
    body: PCNN | FaceNet, head: nn.Module, dtype: torch.dtype, views: _Views
) -> list[Tensor]:
    """The embeddings, the logits, each region's logits. body, head: in `dtype`, of `split_head`."""
    views, given = [view.to(dtype) for view in views], views[0].dtype
    if isinstance(body, PCNN):
        trunks = zip(body.trunks.values(), views, strict=True)
        maps = parallel_branches([partial(trunk, view) for trunk, view in trunks], views[0].device)
        pooled, regions = body.forward_maps(maps)
    else:
        pooled, regions = body.forward_views(views)
    return [found.to(given) for found in (pooled, head(pooled), *regions.values())]


class _PreparedEnsemble:
    """Each network prepared on its own."""

    def __init__(self, ensemble: Ensemble, dtype: torch.dtype | None) -> None:
        self._networks = [prepare(own, dtype) for own in ensemble.networks]  # type: ignore[arg-type]
        self._inputs, self._members = ensemble.inputs, ensemble.members

    def forward_views(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        answers = [network.forward_views(own) for network, own in self._each(views[0])]
        shown = first_regions([own for _, own in answers])
        return mean_logits([logits for logits, _ in answers], self._members), shown

    def embed_views(self, views: _Views) -> Tensor:
        return join_embeddings([network.embed_views(own) for network, own in self._each(views[0])])

    def _each(self, face: Tensor) -> list[tuple[PreparedClassifier, list[Tensor]]]:
        """Each network with its own views."""
        with torch.no_grad():
            views = [own(face) for own in self._inputs]
        return list(zip(self._networks, views, strict=True))


class _Program:
    """The steps of one pass over a number of faces, on their own buffers of one type.

    views: a buffer for the views of each group of trunks. results: buffers of the results, with
    one row for each face.
    """

    def __init__(self, groups: Sequence[Trunks], faces: int, dtype: torch.dtype) -> None:
        self._scratch, self._faces = Scratch(dtype), faces
        self._steps: list[Step] = []
        self.views: list[Tensor] = []
        self.maps: list[Tensor] = []  # rows, for each group
        self.results: tuple[Tensor, ...] = ()
        for group in groups:
            views, rows, steps = group.steps(faces, self._scratch)
            self.views.append(views)
            self.maps.append(rows)
            self._steps += steps

    def add(self, *steps: Step) -> None:
        self._steps += steps

    def add_stage(self, stage: Stage, rows: Tensor) -> Tensor:
        """Add the steps of a stage of one trunk; returns the rows of its maps."""
        found, steps = stage.steps(rows, self._faces, self._scratch)
        self._steps += steps
        return found

    def run(self, groups: Sequence[_Views]) -> tuple[Tensor, ...]:
        """Copies of the results for the views of each group."""
        for place, views in zip(self.views, groups, strict=True):
            for own, view in zip(place.chunk(len(views)), views, strict=True):
                own.copy_(rows_of(view))
        for step in self._steps:
            step()
        given = groups[0][0].dtype
        return tuple(result.to(given, copy=True) for result in self.results)


class _Runner:
    """Runs programs. Each thread has its own program for each number of faces.

    build: makes the program for a number of faces. groups: indices of each group's views.
    """

    def __init__(self, build: Callable[[int], _Program], groups: Sequence[Sequence[int]]) -> None:
        self._build, self._groups = build, groups

    @torch.no_grad()
    def __call__(self, views: _Views) -> tuple[Tensor, ...]:
        """The program's results for all faces, (B, …) each."""
        count = len(views[0])
        if not count:
            views = one_for_none(views)
        found: list[tuple[Tensor, ...]] = []
        for some in zip(*(view.split(_FACES_AT_ONCE) for view in views), strict=True):
            groups = [[some[place] for place in places] for places in self._groups]
            found.append(self._program(len(some[0])).run(groups))
        return tuple(torch.cat(parts)[:count] for parts in zip(*found, strict=True))

    def _program(self, faces: int) -> _Program:
        if not hasattr(_local, "programs"):
            _local.programs = weakref.WeakKeyDictionary()
        programs: dict[int, _Program] = _local.programs.setdefault(self, {})
        if faces in programs:
            return programs[faces]
        # Later calls write to the buffers again, so they must not be inference tensors.
        with torch.inference_mode(False):
            program = self._build(faces)
        if faces <= _FACES_KEPT:
            programs[faces] = program
        return program


class _PreparedFaceNet:
    def __init__(self, network: FaceNet, dtype: torch.dtype) -> None:
        size = network.config.size
        trunks = Trunks([cast("Trunk", network.trunk)], (size, size), dtype)
        stage4 = Stage([network.layer4], trunks.out, dtype)
        self._run = _Runner(partial(_face_program, trunks, stage4, dtype), [[0]])
        self._head = Linear(network.head)

    def forward_views(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self._head(self.embed_views(views)), {}

    def embed_views(self, views: _Views) -> Tensor:
        return self._run(views[:1])[0]


def _face_program(trunks: Trunks, stage4: Stage, dtype: torch.dtype, faces: int) -> _Program:
    program = _Program([trunks], faces, dtype)
    program.results = (_pooled(program, program.add_stage(stage4, program.maps[0]), faces),)
    return program


class _PreparedPCNN:
    def __init__(self, network: PCNN, dtype: torch.dtype) -> None:
        parts = _Parts(network, dtype)
        self._run = _Runner(partial(_program, parts), parts.groups)
        self._head = Linear(network.expression_head)
        heads = [Linear(network.region_heads[name]) for name in REGIONS]
        self._weight = torch.stack([head.weight for head in heads])
        self._bias = torch.stack([head.bias[None] for head in heads])

    def forward_views(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        pooled, regions = self._run(views)
        logits = torch.baddbmm(self._bias, regions.transpose(0, 1), self._weight)
        return self._head(pooled), dict(zip(REGIONS, logits, strict=True))

    def embed_views(self, views: _Views) -> Tensor:
        return self._run(views)[0]


class _Parts:
    """The parts of a PCNN's program.

    dtype: of the arithmetic.
    groups: indices in VIEWS of the views that share a size: the face, eyes, cheeks, mouth.
    mixing: see `_mixing`. face: the size of the face map.
    """

    def __init__(self, network: PCNN, dtype: torch.dtype) -> None:
        self.dtype = dtype
        boxes = network.config.layout.boxes(network.config.size)
        sizes = [boxes[name].size for name in VIEWS]
        trunks = [network.trunks[name] for name in VIEWS]
        self.groups = [
            [i for i, own in enumerate(sizes) if own == size] for size in dict.fromkeys(sizes)
        ]
        self.trunks = [
            Trunks([trunks[i] for i in places], sizes[places[0]], dtype)  # type: ignore[misc]
            for places in self.groups
        ]
        out = {
            i: one.out for places, one in zip(self.groups, self.trunks, strict=True) for i in places
        }
        self.face: Size = out[0]
        self.mixing = _mixing([out[i] for i in range(len(VIEWS))]).to(dtype)
        self.stage4 = Stage([network.layer4], self.face, dtype)
        first, _, second = network.interaction.localisation
        pixels = self.stage4.out[0] * self.stage4.out[1]
        # The layer expects its input channel by channel; here the input is pixel by pixel.
        order = torch.arange(pixels * self.stage4.width).view(-1, pixels).t().flatten()
        self.localisation = Linear(first, order, dtype), Linear(second, dtype=dtype)


def _program(parts: _Parts, faces: int) -> _Program:
    program, dtype = _Program(parts.trunks, faces, parts.dtype), parts.dtype
    maps: dict[int, Tensor] = {}  # index in VIEWS → (faces, pixels, C)
    for places, rows in zip(parts.groups, program.maps, strict=True):
        maps |= zip(places, rows[1:].view(len(places), faces, -1, rows.shape[1]), strict=True)
    face, *others = (maps[i] for i in range(len(VIEWS)))
    pixels, channels = face.shape[1:]
    regions = torch.empty(faces, parts.mixing.shape[1], channels, dtype=dtype)
    mixed = torch.empty(faces, len(parts.mixing), channels, dtype=dtype)
    stitched, pooled_regions = mixed.split((pixels, len(REGIONS)), 1)
    rows = empty_rows(faces * pixels, channels, dtype)
    program.add(
        partial(torch.cat, others, 1, out=regions),
        partial(torch.matmul, parts.mixing, regions, out=mixed),
        partial(rows[1:].view(stitched.shape).copy_, stitched),
    )
    deep = program.add_stage(parts.stage4, rows)
    first, second = parts.localisation
    hidden, theta = deep.new_empty(faces, len(first.bias)), deep.new_empty(faces, 6)
    program.add(
        first.step(deep[1:].view(faces, -1), hidden),
        hidden.relu_,
        second.step(hidden, theta),
        partial(_fuse, rows, theta.view(faces, 2, 3), face.view(faces, *parts.face, channels)),
    )
    deep = program.add_stage(parts.stage4, rows)
    program.results = _pooled(program, deep, faces), pooled_regions
    return program


def _fuse(rows: Tensor, theta: Tensor, face: Tensor) -> None:
    """Replace the stitched maps by the fused maps. face: (B, H, W, C); rows: the stitched maps."""
    stitched = rows[1:].view(face.shape).permute(0, 3, 1, 2)
    rows[1:] = rows_of(warp_add(stitched, theta, face.permute(0, 3, 1, 2)))


def _pooled(program: _Program, rows: Tensor, faces: int) -> Tensor:
    """The buffer (faces, C) for the mean of each face's map; adds the step that fills it."""
    pooled = rows.new_empty(faces, rows.shape[1])
    program.add(partial(torch.mean, rows[1:].view(faces, -1, rows.shape[1]), 1, out=pooled))
    return pooled


def _mixing(sizes: Sequence[Size]) -> Tensor:
    """The matrix that stitches and pools the region maps; both operations are linear.

    sizes: the map sizes of all VIEWS. Returns (face pixels + 5, region pixels). Multiplied by the
    rows of all region maps in order, it gives the rows of the stitched map, then each region's
    mean.
    """
    face, *regions = sizes
    counts = [height * width for height, width in regions]
    units = torch.eye(sum(counts))
    maps = [
        unit.reshape(1, len(units), *size)
        for unit, size in zip(units.split(counts, 1), regions, strict=True)
    ]
    stitching = stitch_regions(maps, face)[0].flatten(1).t()
    pooling = torch.block_diag(*(torch.full((1, count), 1 / count) for count in counts))
    return torch.cat((stitching, pooling))
