"""Sanity checks of heat maps: where they are hot, and what is left of them in a random network.

Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.networks.backbones import find_backbone
from pcnn.networks.pcnn import PCNN
from pcnn.networks.regions import REGIONS, RegionLayout
from pcnn.networks.trunk import initialise


def heat_shares(heat: Tensor, layout: RegionLayout) -> Tensor:
    """The share of each map's heat in each region.

    heat: (B, S, S), ≥ 0. Returns (B, 5) in the order of REGIONS; rows sum to 1, or to 0 for a
    map without heat.
    """
    boxes = layout.boxes(heat.shape[-1])
    sums = [
        heat[:, box.top : box.bottom, box.left : box.right].sum((1, 2))
        for box in (boxes[name] for name in REGIONS)
    ]
    shares = torch.stack(sums, 1)
    return shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation of each map with the other at the same index.

    maps, others: (B, H, W). Returns (B,) of -1…1; 0 for a constant map.
    Raises InputError: different shapes.
    """
    if maps.shape != others.shape:
        raise InputError(
            f"rank_correlation: others must be {tuple(maps.shape)}, got {tuple(others.shape)}"
        )
    return F.cosine_similarity(_ranks(maps), _ranks(others))


def cascade(network: PCNN) -> tuple[str, ...]:
    """The parts of a network that can be randomised, from the head down to the first layer."""
    trunk = find_backbone(network.config.backbone).parts
    return ("expression_head", "layer4", "interaction", *trunk)


@own_settings(gradients=True)
def randomised(network: PCNN, parts: Iterable[str], seed: int) -> PCNN:
    """A copy of a network with some parts initialised at random.

    parts: of `cascade(network)`. A stage of the trunks is randomised in all six.
    A map that does not change with the network shows the face's edges, not the network's reasons.
    Raises InputError: an unknown part.
    """
    parts, known = set(parts), cascade(network)
    if not parts <= set(known):
        unknown = ", ".join(sorted(parts - set(known)))
        raise InputError(f"randomised: parts must be of {', '.join(known)}, got {unknown}")
    fresh = copy.deepcopy(network)
    devices = [parameter.device for parameter in network.parameters() if parameter.is_cuda][:1]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for name in known:
            if name in parts:
                for module in _modules(fresh, name):
                    _start_again(module)
    return fresh


def _ranks(maps: Tensor) -> Tensor:
    """Centred ranks (B, H · W) of maps (B, H, W); equal values share their mean rank."""
    rows = []
    for row in maps.flatten(1):
        _, places, counts = row.unique(return_inverse=True, return_counts=True)
        ends = counts.cumsum(0).to(torch.float64)
        rows.append((ends - (counts - 1) / 2)[places])
    ranks = torch.stack(rows)
    return ranks - ranks.mean(1, keepdim=True)


def _modules(network: PCNN, part: str) -> list[nn.Module]:
    """The modules of a name of `cascade`; conv1 of a trunk includes its norm."""
    if part not in find_backbone(network.config.backbone).parts:
        return [network.get_submodule(part)]
    found = [trunk.get_submodule(part) for trunk in network.trunks.values()]
    if part == "conv1":
        found += [trunk.get_submodule("bn1") for trunk in network.trunks.values()]
    return found


def _start_again(module: nn.Module) -> None:
    """Draw new initial weights; unlike in training, the registration is random, too."""
    for each in module.modules():
        if isinstance(each, (nn.BatchNorm2d, nn.Linear)):
            each.reset_parameters()
    initialise(module)
