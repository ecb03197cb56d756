"""Networks as graphs of PyTorch's own operations, for other engines and exported files.

Norms are folded into the convolutions. The project's own operators are replaced by their plain
PyTorch definitions (`ops.reference`). So a graph runs without pcnn.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pcnn.devices import own_settings
from pcnn.engines.detector import merge_heads
from pcnn.engines.folding import split_head
from pcnn.networks.ensemble import (
    Ensemble,
    ExpressionNetwork,
    first_regions,
    join_embeddings,
    mean_logits,
)
from pcnn.networks.interaction import Interaction
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.retinaface import STRIDE, RetinaFace
from pcnn.ops import reference
from pcnn.weights.detector import DetectorSettings

# From opset 20 on GridSample's modes have other names, unknown to OpenVINO 2025.2
# (openvinotoolkit/openvino, issue 33531).
OPSET = 18


class Graph(nn.Module):
    """A network with named inputs and outputs. The first dimension of each is the batch.

    example: valid inputs. sizes: for each input the dimensions that vary besides the batch, in
    the form that torch.export expects.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    sizes: tuple[Mapping[int, Any], ...] = ()

    def program(self) -> ExportedProgram:
        """The graph as a program of torch.export."""
        batch = Dim("batch")
        sizes = self.sizes or ({},) * len(self.inputs)
        shapes = tuple({0: batch, **own} for own in sizes)
        with without_messages(), torch.no_grad():
            return torch.export.export(
                self.eval(), self.example, dynamic_shapes={"inputs": shapes}, strict=False
            )

    def onnx(self) -> bytes:
        """The bytes of the graph's ONNX file. Needs onnx and onnxscript."""
        program = self.program()
        with without_messages():
            converted = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(self.inputs),
                output_names=list(self.outputs),
                verbose=False,
            )
        model = converted.model_proto  # type: ignore[union-attr]
        for node in model.graph.node:  # the metadata contains paths of this machine
            del node.metadata_props[:]
        return bytes(model.SerializeToString())


class ViewsGraph(Graph):
    """A classifier that starts from views, as `Recognizer` uses it.

    Inputs: the network's views, each (B, C, height, width), normalised.
    Outputs: logits (B, classes); embedding (B, D), see PreparedClassifier.embed_views; if the
    network has regions, also region_logits (B, 5, classes).
    dtype: the type of the arithmetic; inputs and outputs are float32.
    """

    @own_settings()
    def __init__(self, network: ExpressionNetwork, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network: nn.Module = (
            _PlainEnsemble(network, dtype)
            if isinstance(network, Ensemble)
            else _Plain(network, dtype)
        )
        self.inputs, self.outputs = network.views, ("logits", "embedding")
        if network.regions:
            self.outputs = "logits", "embedding", "region_logits"
        config, device = network.config, next(network.parameters()).device
        face = torch.zeros(2, config.channels, config.size, config.size, device=device)
        self.example = tuple(view.contiguous() for view in network.cut(face))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        logits, pooled, regions = self.network(inputs)
        own = [torch.stack(tuple(regions.values()), 1)] if regions else []
        return (logits, pooled, *own)


class _Plain(nn.Module):
    """A network of PyTorch's own operations, with folded norms."""

    def __init__(self, network: PCNN | FaceNet, dtype: torch.dtype) -> None:
        super().__init__()
        body, head = split_head(network)
        self._body, self._head, self._dtype = body.to(dtype), head.to(dtype), dtype
        for name, part in body.named_children():
            if isinstance(part, Interaction):
                setattr(body, name, _PlainInteraction(part))

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """Logits, embeddings and each region's logits of views, in float32."""
        pooled, regions = self._body.forward_views([view.to(self._dtype) for view in views])
        own = {name: found.float() for name, found in regions.items()}
        return self._head(pooled).float(), pooled.float(), own


class _PlainEnsemble(nn.Module):
    """As _Plain, for an ensemble."""

    def __init__(self, ensemble: Ensemble, dtype: torch.dtype) -> None:
        super().__init__()
        self._inputs, self._members = copy.deepcopy(ensemble.inputs), ensemble.members
        self._networks = nn.ModuleList(_Plain(own, dtype) for own in ensemble.networks)  # type: ignore[arg-type]
        # A file that is kept for the graph depends on every value of its state.
        settings = torch.tensor([[one.share, one.temperature] for one in ensemble.members])
        self.register_buffer("settings", settings)
        boxes = [box for own in ensemble.inputs for box in own.boxes]  # type: ignore[union-attr]
        self.register_buffer("boxes", torch.tensor(boxes, dtype=torch.float32))

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """As _Plain.forward."""
        pairs = zip(self._networks, self._inputs, strict=True)
        logits, pooled, regions = zip(*(own(cut(views[0])) for own, cut in pairs), strict=True)
        return mean_logits(logits, self._members), join_embeddings(pooled), first_regions(regions)


class LevelsGraph(Graph):
    """A RetinaFace that starts from images, as `Detector` uses it.

    Input: images (B, H, W, 3) float32, RGB, 0…255; H, W multiples of 32.
    Outputs: (B, h, w, 30) for each level, the finest first. Both anchors of a cell have 15
    values: the logit of a face, box offsets, landmark offsets.
    """

    @own_settings()
    def __init__(self, network: RetinaFace, settings: DetectorSettings) -> None:
        super().__init__()
        self._network, self._settings = network, settings
        heads = zip(network.ClassHead, network.BboxHead, network.LandmarkHead, strict=True)
        self._heads = [merge_heads([head.conv1x1 for head in level]) for level in heads]  # type: ignore[misc]
        self.inputs, self.outputs = ("images",), ("fine", "middle", "coarse")
        self.example = (torch.zeros(2, 4 * STRIDE, 6 * STRIDE, 3),)
        # At most 8192 pixels; at least two cells of the coarsest level.
        height, width = Dim("height", min=2, max=256), Dim("width", min=2, max=256)
        self.sizes = ({1: STRIDE * height, 2: STRIDE * width},)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        network, settings = self._network, self._settings
        images = inputs[0].permute(0, 3, 1, 2)
        if settings.channels == "bgr":
            images = images.flip(1)
        mean, std = images.new_tensor(settings.mean), images.new_tensor(settings.std)
        levels = network.fpn(*network.body((images - mean.view(3, 1, 1)) / std.view(3, 1, 1)))
        contexts = network.ssh1, network.ssh2, network.ssh3
        return tuple(
            F.conv2d(context(level), matrix.t()[:, :, None, None], bias).permute(0, 2, 3, 1)
            for context, level, (bias, matrix) in zip(contexts, levels, self._heads, strict=True)
        )


class _PlainInteraction(nn.Module):
    """An Interaction of PyTorch's own operations."""

    def __init__(self, interaction: Interaction) -> None:
        super().__init__()
        self.localisation = interaction.localisation

    def forward(self, face: Tensor, regions: Sequence[Tensor], stage4: nn.Module) -> Tensor:
        """The fused map, as from Interaction.forward."""
        stitched = reference.stitch_regions(regions, (face.shape[2], face.shape[3]))
        theta = self.localisation(stage4(stitched).flatten(1)).view(-1, 2, 3)
        return reference.warp_add(stitched, theta, face)


def patterns(count: int, channels: int, height: int, width: int) -> Tensor:
    """Fixed smooth patterns (count, channels, height, width), mean 0, deviation ½."""
    coarse = torch.randn(count, channels, 6, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (height, width), mode="bicubic")


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Suppress the log messages and warnings of exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
