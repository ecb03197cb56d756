"""What a feature map answers to in a face: its strongest response, projected back to the pixels.

The deconvnet of Zeiler and Fergus (2014, section 2.1), for the residual trunks of this network:
docs/deconvnet.md says what that leaves to choose.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.devices import own_settings
from pcnn.errors import InputError, check_shape
from pcnn.faces.views import face_views
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.regions import VIEWS
from pcnn.networks.trunk import BasicBlock, Trunk
from pcnn.terminal import track

# The stages of a trunk whose maps can be asked for, from the pixels up.
STAGES = ("conv1", "layer1", "layer2", "layer3")
_LONG = 4  # so many batches are worth a progress bar


class FeatureMap(NamedTuple):
    """One channel of one stage of one trunk; written as mouth/layer3/17."""

    trunk: str
    stage: str
    channel: int

    def __str__(self) -> str:
        return f"{self.trunk}/{self.stage}/{self.channel}"


@dataclass(frozen=True, eq=False)
class Projection:
    """The strongest responses of maps to B views, as pixels.

    pixels: (B, C, h, w), of the size of the views: 0 where nothing comes from, bright where
        brighter pixels would strengthen the response, dark where they would weaken it.
    strengths: (B,) the responses, ≥ 0. places: (B, 2) int64, row and column in the map.
    """

    pixels: Tensor
    strengths: Tensor
    places: Tensor


def trunks_of(network: PCNN | FaceNet) -> Mapping[str, Trunk]:
    """The trunks by the view that each sees; a FaceNet has "face" alone.

    Raises InputError: they are of a backbone without the pooling that a deconvnet undoes.
    """
    if isinstance(network, FaceNet):
        found = {"face": network.trunk}
    else:
        found = {name: network.trunks[name] for name in VIEWS}
    trunks = {name: trunk for name, trunk in found.items() if isinstance(trunk, Trunk)}
    if len(trunks) < len(found):
        raise InputError(
            "deconvnet: the weights must have resnet18 trunks (pcnn-ferplus-only), "
            f"got {network.config.backbone}"
        )
    return trunks


def feature_maps(
    network: PCNN | FaceNet, trunks: Collection[str] | None = None
) -> tuple[FeatureMap, ...]:
    """All maps of a network's trunks, or of some of them: by trunk, stage and channel."""
    return tuple(
        FeatureMap(name, stage, channel)
        for name, trunk in trunks_of(network).items()
        if trunks is None or name in trunks
        for stage, count in stage_widths(trunk).items()
        for channel in range(count)
    )


def parse_map(text: str, network: PCNN | FaceNet) -> FeatureMap:
    """The map that is written as trunk/stage/channel.

    Raises InputError: written otherwise, or the network has no such map.
    """
    trunks, parts = trunks_of(network), text.split("/")
    if len(parts) != 3 or not parts[2].isdecimal():
        raise InputError(f"parse_map: a map is written as face/layer3/17, got {text!r}")
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
    network: PCNN | FaceNet,
    faces: Tensor,
    *,
    native_size: int,
    trunks: Collection[str] | None = None,
    batch: int = 64,
) -> Tensor:
    """The strongest response of every map to every face: its maximum over all positions.

    network: is put into eval mode. faces, native_size: see evaluate.face_views.
    trunks: those wanted, None for all. batch: faces in one forward pass.
    Shows its progress on a terminal's stderr.
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
    """The strongest response of one map to each view, back in the view's pixels.

    views: (B, C, h, w), normalised. stage: of STAGES. channels: B indices, the map of each view.
    The trunk is put into eval mode. All of the stage but the map's strongest position (the
    first of equals) is set to zero. On the way down, pooling is undone by putting values back
    where its maxima came from (those that meet are added), every convolution by its transpose,
    with the scale of its batch norm, and every rectifier rectifies what comes down.
    Raises InputError: wrong shape, an unknown stage, channels that the stage has not.
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
    network: PCNN | FaceNet,
    faces: Tensor,
    chosen: FeatureMap,
    *,
    native_size: int,
    count: int = 9,
) -> tuple[list[int], Projection]:
    """A map's strongest responses in a set of faces, projected back.

    faces, native_size: see evaluate.face_views. count: so many faces, or all if there are fewer.
    Returns their indices, the strongest response first, and the projections in this order.
    Raises InputError: the network has no such map, no face asked for.
    """
    chosen = parse_map(str(chosen), network)
    if count < 1:
        raise InputError(f"project_top: count must be at least 1, got {count}")
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
    network: PCNN | FaceNet, views: Sequence[Tensor]
) -> dict[FeatureMap, Projection]:
    """Of each stage of each trunk the map that responds most strongly to one face.

    views: evaluate.face_views of one face. Returns these maps, by trunk and stage, and what comes
    back of each. Raises InputError: views of another number of faces.
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
    """Pooled values back where they came from, the rest 0.

    pooled, switches: (B, C, h, w), the latter as max_pool2d returns its indices.
    size: height and width of the result, (B, C, *size). Where windows overlap and share their
    maximum, what they say of it is added; max_unpool2d would keep any one of them.
    """
    flat = pooled.new_zeros(*pooled.shape[:2], size[0] * size[1])
    flat.scatter_add_(2, switches.flatten(2), pooled.flatten(2))
    return flat.view(*pooled.shape[:2], *size)


def stage_widths(trunk: Trunk) -> dict[str, int]:
    """Stage → how many maps it has."""
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
    """Maps (B, C, h, w) with all set to 0 but the strongest position of one map each; its value
    (B,) and place (B, 2)."""
    own = maps[torch.arange(len(maps)), channels].flatten(1)  # (B, h · w)
    strengths, flat = own.max(1)
    signal = torch.zeros_like(maps)
    rows, columns = flat // maps.shape[3], flat % maps.shape[3]
    signal[torch.arange(len(maps)), channels, rows, columns] = strengths
    return signal, strengths, torch.stack((rows, columns), 1)


def _down_stage(blocks: nn.Sequential, signal: Tensor, size: Sequence[int]) -> Tensor:
    """From a stage's maps to those it is made of, of `size`."""
    first, *others = blocks
    for block in reversed(others):
        signal = _down_block(block, signal, signal.shape[2:])  # type: ignore[arg-type]
    return _down_block(first, signal, size)  # type: ignore[arg-type]


def _down_block(block: BasicBlock, signal: Tensor, size: Sequence[int]) -> Tensor:
    """Through both branches of a block, whose parts are added as its gradient would be."""
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
    """The transpose of a convolution and its norm in eval mode, without what they only add."""
    variance = norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    stride, padding = convolution.stride[0], int(convolution.padding[0])
    kernel = convolution.kernel_size[0]
    # A stride leaves open how large the input was: `size` says it.
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
