"""Deconvnet: a feature map's strongest response, projected back to the pixels of a face.

This is the deconvnet of Zeiler and Fergus (2014, section 2.1), adapted to residual trunks.
docs/deconvnet.md explains the choices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.devices import own_settings
from pcnn.errors import InputError, check_count, check_shape
from pcnn.faces.views import face_views
from pcnn.networks.ensemble import Ensemble, ExpressionNetwork
from pcnn.networks.trunk import BasicBlock, Trunk
from pcnn.terminal import track

# The stages of a trunk that have maps, from the pixels up.
STAGES = ("conv1", "layer1", "layer2", "layer3")
_LONG = 4  # batches from which a progress bar is shown


class FeatureMap(NamedTuple):
    """One channel of one stage of one trunk; written as mouth/layer3/17."""

    trunk: str
    stage: str
    channel: int

    def __str__(self) -> str:
        return f"{self.trunk}/{self.stage}/{self.channel}"


@dataclass(frozen=True, eq=False)
class Projection:
    """The strongest responses of maps to B views, projected to pixels.

    pixels: (B, C, h, w), of the views' size. Values are positive where brighter pixels
        strengthen the response, negative where they weaken it, 0 where they have no effect.
    strengths: (B,) the responses, ≥ 0. places: (B, 2) int64, row and column in the map.
    """

    pixels: Tensor
    strengths: Tensor
    places: Tensor


def trunks_of(network: ExpressionNetwork) -> Mapping[str, Trunk]:
    """View name → the trunk that sees this view; a FaceNet has only "face".

    Raises InputError: the network is an ensemble, or its backbone has no pooling for a deconvnet
        to invert.
    """
    if isinstance(network, Ensemble):
        raise InputError(
            "trunks_of: weights must be of one network, such as pcnn-ferplus-only, got an ensemble"
        )
    found = dict(zip(network.views, network.trunk_list, strict=True))
    trunks = {name: trunk for name, trunk in found.items() if isinstance(trunk, Trunk)}
    if len(trunks) < len(found):
        raise InputError(
            "trunks_of: weights must have resnet18 trunks (pcnn-ferplus-only), "
            f"got {network.config.backbone}"
        )
    return trunks


def feature_maps(
    network: ExpressionNetwork, trunks: Collection[str] | None = None
) -> tuple[FeatureMap, ...]:
    """All maps of a network's trunks, or of the given ones, ordered by trunk, stage and channel."""
    return tuple(
        FeatureMap(name, stage, channel)
        for name, trunk in trunks_of(network).items()
        if trunks is None or name in trunks
        for stage, count in stage_widths(trunk).items()
        for channel in range(count)
    )


def parse_map(text: str, network: ExpressionNetwork) -> FeatureMap:
    """The map of a text of the form trunk/stage/channel.

    Raises InputError: another form, or the network has no such map.
    """
    trunks, parts = trunks_of(network), text.split("/")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise InputError(f"parse_map: text must be like face/layer3/17, got {text!r}")
    name, stage, channel = parts[0], parts[1], int(parts[2])
    if name not in trunks:
        raise InputError(f"parse_map: trunk must be one of {', '.join(trunks)}, got {name!r}")
    if stage not in STAGES:
        raise InputError(f"parse_map: stage must be one of {', '.join(STAGES)}, got {stage!r}")
    count = stage_widths(trunks[name])[stage]
    if channel >= count:
        raise InputError(f"parse_map: {name}/{stage} has maps 0…{count - 1}, got {channel}")
    return FeatureMap(name, stage, channel)


@own_settings()
@torch.no_grad()
def maximal_responses(
    network: ExpressionNetwork,
    faces: Tensor,
    *,
    native_size: int,
    trunks: Collection[str] | None = None,
    batch: int = 64,
) -> Tensor:
    """The strongest response of every map to every face, over all positions.

    network: it is set to eval mode. faces, native_size: see views.face_views.
    trunks: names of the trunks; None means all. batch: faces in one forward pass.
    Shows its progress on stderr, if that is a terminal.
    Returns (N, maps) float32 on the CPU, ≥ 0, columns in the order of feature_maps.
    """
    network.eval()
    chunks = faces.split(batch)
    rows = []
    for chunk in track(chunks, "responses", shown=len(chunks) >= _LONG):
        views = face_views(network, chunk, native_size)
        found = [
            maps.amax((2, 3))
            for (name, trunk), view in zip(trunks_of(network).items(), views, strict=True)
            if trunks is None or name in trunks
            for maps in _forward(trunk, view)[0].values()
        ]
        rows.append(torch.cat(found, 1).cpu())
    return torch.cat(rows)


@own_settings()
@torch.no_grad()
def project(
    trunk: Trunk, views: Tensor, stage: str, channels: Sequence[int] | Tensor
) -> Projection:
    """Project the strongest response of one map to each view back to the view's pixels.

    views: (B, C, h, w), normalised. stage: one of STAGES. channels: B indices, a map for each
        view.
    The trunk is set to eval mode. In the stage, only the map's strongest position (the first of
    equals) keeps its value. On the way down, pooling is inverted: values return to the places of
    its maxima, and values for the same place are added. Each convolution is replaced by its
    transpose, with the scale of its batch norm. Each rectifier rectifies the downward signal.
    Raises InputError: wrong shape, an unknown stage, channels outside the stage.
    Source: Zeiler and Fergus 2014, section 2.1; residual blocks: see docs/deconvnet.md.
    """
    check_shape("project", "views", views, (None, trunk.conv1.in_channels, None, None))
    if stage not in STAGES:
        raise InputError(f"project: stage must be one of {', '.join(STAGES)}, got {stage!r}")
    chosen = torch.as_tensor(channels, dtype=torch.long, device=views.device)
    check_shape("project", "channels", chosen, (len(views),))
    count = stage_widths(trunk)[stage]
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < count:
        raise InputError(f"project: channels must lie in 0…{count - 1}, got {chosen.tolist()}")
    maps, switches = _forward(trunk.eval(), views)
    signal, strengths, places = _strongest(maps[stage], chosen)
    below = {"layer3": maps["layer2"], "layer2": maps["layer1"], "layer1": switches}
    for name in STAGES[STAGES.index(stage) : 0 : -1]:
        signal = _down_stage(trunk.get_submodule(name), signal, below[name].shape[2:])  # type: ignore[arg-type]
    if stage != "conv1":
        signal = F.relu(unpool(signal, switches, maps["conv1"].shape[2:]))
    pixels = _down_convolution(trunk.conv1, trunk.bn1, signal, views.shape[2:])
    return Projection(pixels, strengths, places)


@own_settings()
def project_top(
    network: ExpressionNetwork,
    faces: Tensor,
    chosen: FeatureMap,
    *,
    native_size: int,
    count: int = 9,
) -> tuple[list[int], Projection]:
    """Project a map's strongest responses in a set of faces back to pixels.

    faces, native_size: see views.face_views. count: the largest number of faces.
    Returns their indices, the strongest response first, and the projections in this order.
    Raises InputError: the network has no such map, or count is below 1.
    """
    chosen = parse_map(str(chosen), network)
    check_count("project_top", "count", count)
    own = (chosen.trunk,)
    responses = maximal_responses(network, faces, native_size=native_size, trunks=own)
    column = responses[:, feature_maps(network, own).index(chosen)]
    top = column.sort(descending=True, stable=True).indices[:count]
    trunks = trunks_of(network)
    views = face_views(network, faces[top], native_size)[list(trunks).index(chosen.trunk)]
    channels = [chosen.channel] * len(top)
    return top.tolist(), project(trunks[chosen.trunk], views, chosen.stage, channels)


@own_settings()
def strongest_maps(
    network: ExpressionNetwork, views: Sequence[Tensor]
) -> dict[FeatureMap, Projection]:
    """For each stage of each trunk, the map with the strongest response to one face.

    views: views.face_views of one face. Returns these maps, ordered by trunk and stage, with
    their projections. Raises InputError: views of another number of faces.
    """
    found = {}
    for (name, trunk), view in zip(trunks_of(network).items(), views, strict=True):
        check_shape("strongest_maps", f"views of {name}", view, (1, None, None, None))
        with torch.no_grad():
            maps, _ = _forward(trunk.eval(), view)
        for stage, each in maps.items():
            channel = int(each.amax((2, 3)).argmax())
            found[FeatureMap(name, stage, channel)] = project(trunk, view, stage, [channel])
    return found


def unpool(pooled: Tensor, switches: Tensor, size: Sequence[int]) -> Tensor:
    """Put pooled values back to the places of the maxima; other places are 0.

    pooled, switches: (B, C, h, w); switches are the indices that max_pool2d returns.
    size: height and width of the result, (B, C, *size). If overlapping windows share a maximum,
    their values are added; max_unpool2d would keep only one of them.
    """
    flat = pooled.new_zeros(*pooled.shape[:2], size[0] * size[1])
    flat.scatter_add_(2, switches.flatten(2), pooled.flatten(2))
    return flat.view(*pooled.shape[:2], *size)


def stage_widths(trunk: Trunk) -> dict[str, int]:
    """Stage → its number of maps."""
    width = trunk.conv1.out_channels
    return {"conv1": width, "layer1": width, "layer2": 2 * width, "layer3": 4 * width}


def _forward(trunk: Trunk, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The maps of every stage after its rectifier, (B, maps, h, w); and the pooling's switches."""
    maps = {"conv1": F.relu(trunk.bn1(trunk.conv1(views)))}
    pooled, switches = F.max_pool2d(maps["conv1"], 3, 2, 1, return_indices=True)
    maps["layer1"] = trunk.layer1(pooled)
    maps["layer2"] = trunk.layer2(maps["layer1"])
    maps["layer3"] = trunk.layer3(maps["layer2"])
    return maps, switches


def _strongest(maps: Tensor, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep only the strongest position of one map each; other values become 0.

    Returns the maps (B, C, h, w), the kept values (B,) and their places (B, 2).
    """
    own = maps[torch.arange(len(maps)), channels].flatten(1)  # (B, h · w)
    strengths, flat = own.max(1)
    signal = torch.zeros_like(maps)
    rows, columns = flat // maps.shape[3], flat % maps.shape[3]
    signal[torch.arange(len(maps)), channels, rows, columns] = strengths
    return signal, strengths, torch.stack((rows, columns), 1)


def _down_stage(blocks: nn.Sequential, signal: Tensor, size: Sequence[int]) -> Tensor:
    """Project a stage's maps down to the maps below it, of `size`."""
    first, *others = blocks
    for block in reversed(others):
        signal = _down_block(block, signal, signal.shape[2:])  # type: ignore[arg-type]
    return _down_block(first, signal, size)  # type: ignore[arg-type]


def _down_block(block: BasicBlock, signal: Tensor, size: Sequence[int]) -> Tensor:
    """Project down through both branches of a block and add the results, as its gradient does."""
    signal = F.relu(signal)
    inner = F.relu(_down_convolution(block.conv2, block.bn2, signal, signal.shape[2:]))
    branch = _down_convolution(block.conv1, block.bn1, inner, size)
    if block.downsample is None:
        return branch + signal
    convolution, norm = block.downsample
    return branch + _down_convolution(convolution, norm, signal, size)  # type: ignore[arg-type]


def _down_convolution(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, signal: Tensor, size: Sequence[int]
) -> Tensor:
    """The transpose of a convolution and its norm in eval mode, without bias and shift."""
    variance = norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    stride, padding = convolution.stride[0], int(convolution.padding[0])
    kernel = convolution.kernel_size[0]
    # With a stride the size of the input is ambiguous; `size` gives it.
    missing = [
        whole - ((part - 1) * stride - 2 * padding + kernel)
        for whole, part in zip(size, signal.shape[2:], strict=True)
    ]
    return F.conv_transpose2d(
        signal * scale.view(1, -1, 1, 1),
        convolution.weight,
        stride=stride,
        padding=padding,
        output_padding=missing,
    )
