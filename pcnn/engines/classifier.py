"""Classifiers prepared for inference: the same answers in less time.

For one face the networks run a hundred small convolutions. On a CPU most of their time would be the
overhead of calls. So trunks and stage 4 become layers of compiled code (`layers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from pcnn.engines.cuda_graphs import parallel_branches, with_cuda_graphs
from pcnn.engines.folding import fuse_residuals, split_head
from pcnn.engines.layered_networks import CompiledStage, CompiledTrunks, has_layers
from pcnn.engines.layers import can_run
from pcnn.errors import InputError
from pcnn.networks.ensemble import (
    Ensemble,
    ExpressionNetwork,
    first_regions,
    join_embeddings,
    mean_logits,
)
from pcnn.networks.pcnn import PCNN, FaceNet

_Views: TypeAlias = Sequence[Tensor]  # each (B, C, height, width)


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
        if can_run(weight, dtype) and has_layers(network):
            return _Compiled(network, dtype)
        return _Folded(network, dtype)


class _Folded:
    """A network's own modules with folded norms, where its layers are not compiled code."""

    def __init__(self, network: PCNN | FaceNet, dtype: torch.dtype) -> None:
        body, head = split_head(network)
        body.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._names = body.regions
        compute = _FoldedPass(fuse_residuals(body), head.to(dtype), dtype)
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


class _Compiled:
    """A network whose trunks and stage 4 are layers of compiled code."""

    def __init__(self, network: PCNN | FaceNet, dtype: torch.dtype) -> None:
        body, head = split_head(network)
        body, self._head = body.float(), head.float()  # as the maps are
        # What is compiled needs no modules.
        self._trunks = CompiledTrunks(body.take_trunks(), dtype)
        body.layer4 = CompiledStage(body.layer4, dtype)  # type: ignore[assignment]
        self._body = body

    @torch.no_grad()
    def forward_views(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        pooled, regions = self._read(views)
        logits, given = self._head(pooled), views[0].dtype
        return logits.to(given), {name: own.to(given) for name, own in regions.items()}

    @torch.no_grad()
    def embed_views(self, views: _Views) -> Tensor:
        return self._read(views)[0].to(views[0].dtype)

    def _read(self, views: _Views) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self._body.forward_maps(self._trunks(views[: len(self._body.views)]))


def one_for_none(views: _Views) -> list[Tensor]:
    """Views of one black face instead of none: not all convolutions take an empty batch."""
    return [view.new_zeros(1, *view.shape[1:]) for view in views]


class _FoldedPass:
    """The embeddings, the logits, each region's logits. body, head: in `dtype`, of `split_head`."""

    def __init__(self, body: PCNN | FaceNet, head: nn.Module, dtype: torch.dtype) -> None:
        self._body, self._head, self._dtype = body, head, dtype

    def __call__(self, views: _Views) -> list[Tensor]:
        given, device = views[0].dtype, views[0].device
        trunks = self._body.trunk_list
        used = [view.to(self._dtype) for view in views[: len(trunks)]]
        calls = [partial(trunk, view) for trunk, view in zip(trunks, used, strict=True)]
        pooled, regions = self._body.forward_maps(parallel_branches(calls, device))
        return [found.to(given) for found in (pooled, self._head(pooled), *regions.values())]


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
