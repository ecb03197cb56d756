"""Networks as graphs of PyTorch's own operations, for other engines and exported files.

Norms are folded into the convolutions. The project's own operators are replaced by their plain
PyTorch definitions (`ops.reference`). So a graph runs without pcnn.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pcnn.devices import own_settings
from pcnn.engines.detector import merge_heads
from pcnn.engines.folding import split_head
from pcnn.errors import InputError
from pcnn.networks.anchors import anchor_grid, decode_boxes, decode_landmarks
from pcnn.networks.interaction import Interaction
from pcnn.networks.pcnn import PCNN, FaceNet, normalise
from pcnn.networks.regions import REGIONS, VIEWS
from pcnn.networks.retinaface import ANCHORS_PER_CELL, RetinaFace
from pcnn.ops import reference
from pcnn.weights.detector import DetectorSettings
from pcnn.weights.expression import ExpressionWeights

# From opset 20 on GridSample's modes have other names, unknown to OpenVINO 2025.2
# (openvinotoolkit/openvino, issue 33531).
OPSET = 18
# The network halves its input five times.
STRIDE = 32


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
    Outputs: logits (B, classes); embedding (B, 8 · width), not normalised, from which the logits
    are computed; for a PCNN also region_logits (B, 5, classes).
    dtype: the type of the arithmetic; inputs and outputs are float32.
    """

    @own_settings()
    def __init__(self, network: PCNN | FaceNet, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        config, self._dtype = network.config, dtype
        body, head = split_head(network)
        self.network, self.head = body.to(dtype), head.to(dtype)
        self.inputs, self.outputs = VIEWS[:1], ("logits", "embedding")
        if isinstance(self.network, PCNN):
            self.inputs, self.outputs = VIEWS, ("logits", "embedding", "region_logits")
            self.network.interaction = _PlainInteraction(self.network.interaction)  # type: ignore[assignment]
        device = next(network.parameters()).device
        face = torch.zeros(2, config.channels, config.size, config.size, device=device)
        self.example = tuple(view.contiguous() for view in network.cut(face)[: len(self.inputs)])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        pooled, regions = self.network.forward_views([view.to(self._dtype) for view in inputs])
        own = [torch.stack(tuple(regions.values()), 1)] if regions else []
        return tuple(found.float() for found in (self.head(pooled), pooled, *own))


class FileGraph(Graph):
    """A graph for an exported file. It has one uint8 input; its first output is `scores`, 0…1."""

    metadata: Mapping[str, Any]

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """Whether a convolution may use 8 bits. weight: (out, in / groups, height, width)."""
        raise NotImplementedError

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of answers, 0…1, that agree in both outputs; 1 without answers."""
        raise NotImplementedError


class FaceGraph(FileGraph):
    """A complete classifier that starts from the pixels of cut-out faces.

    Input: face (B, C, side, side) uint8, grey or RGB.
    Outputs: scores (B, classes), calibrated, 0…1; embedding (B, D) of unit norm; for a PCNN also
    region_scores (B, 5, classes), in the order of REGIONS.
    side: None takes that of the training faces. The network's own side, with faces cut out so that
        each pixel averages `footprint` pixels (metadata), gives what `Recognizer` answers.
    Raises InputError: a side below 1; the weights use a saliency model, which cannot be exported.
    """

    @own_settings()
    def __init__(self, loaded: ExpressionWeights, side: int | None = None) -> None:
        super().__init__()
        config = loaded.network.config
        if config.saliency is not None:
            raise InputError(
                f"{loaded.path}: uses the saliency model {config.saliency}, which cannot be "
                "exported: export weights without a saliency model"
            )
        self.weights, self._views = loaded, ViewsGraph(loaded.network)
        self.side = min(loaded.native_size, config.size) if side is None else side
        if self.side < 1:
            raise InputError(f"export: a face's side must be at least 1, got {side}")
        self.inputs, self.outputs = ("face",), ("scores", "embedding")
        if loaded.region_temperatures:
            self.outputs = "scores", "embedding", "region_scores"
        self.example = (torch.zeros(2, config.channels, self.side, self.side, dtype=torch.uint8),)
        self.metadata = {
            "classes": config.classes,
            "regions": tuple(loaded.region_temperatures),
            "aligned": loaded.aligned,
            "side": self.side,
            "footprint": self.side / loaded.native_size,
            "mean": config.mean,
            "layout": asdict(config.layout),
            "template": loaded.template,
            **{name: loaded.metadata.get(name) for name in ("trained_on", "licence", "scores")},
        }

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """True for every convolution; see FileGraph."""
        return True

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of faces with the same label."""
        same = expected[0].argmax(1) == found[0].argmax(1)
        return float(same.float().mean())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        loaded, config, (face,) = self.weights, self.weights.network.config, inputs
        face = face.float() / 255
        if self.side != config.size:  # resampling.resample, by an operation of all engines
            size = config.size, config.size
            face = F.interpolate(face, size, mode="bilinear", align_corners=False)
        vectors: list[Tensor] = []

        def forward(views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
            logits, pooled, *own = self._views(*views)
            vectors.append(pooled[: face.shape[0]])  # without the mirror images
            return logits, dict(zip(REGIONS, own[0].unbind(1), strict=True)) if own else {}

        logits, regions = loaded.answer(forward, loaded.network.cut(normalise(face, config)))
        own = [
            (logits / loaded.region_temperatures[name]).softmax(1)
            for name, logits in regions.items()
        ]
        return (
            (logits / loaded.temperature).softmax(1),
            F.normalize(vectors[0], dim=1),
            *([torch.stack(own, 1)] if own else []),
        )


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


class ImageGraph(FileGraph):
    """A RetinaFace with decoded boxes and landmarks, for images of one size.

    Input: image (B, 3, height, width) uint8 RGB. height, width: multiples of 32.
    Outputs, for every anchor: scores (B, N) of 0…1; boxes (B, N, 4), x1 y1 x2 y2, and landmarks
    (B, N, 5, 2), x y, in pixels. Overlapping boxes are not suppressed.
    Raises InputError: height or width is no multiple of 32.
    """

    @own_settings()
    def __init__(
        self, network: RetinaFace, settings: DetectorSettings, height: int, width: int
    ) -> None:
        super().__init__()
        if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
            raise InputError(
                f"export: a detector's size must be multiples of {STRIDE}, got {width} × {height}"
            )
        self._levels, self._settings = LevelsGraph(network, settings), settings
        anchors = anchor_grid(height, width, min_sizes=settings.min_sizes, steps=settings.steps)
        self._anchors = anchors.clone()  # calls share the grid itself
        self.inputs, self.outputs = ("image",), ("scores", "boxes", "landmarks")
        self.example = (torch.zeros(2, 3, height, width, dtype=torch.uint8),)
        self.metadata = {"confidence": settings.confidence, "nms_iou": settings.nms_iou}

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """True for the pyramid and the contexts, which do most of the work; see FileGraph.

        The backbone's convolutions are depthwise or 1 × 1. In 8 bits they lose one face in 20,
        and they are no faster where memory limits them.
        """
        return weight[1] > 3 and weight[2] > 1

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of boxes that both outputs find at the same place.

        Counted are boxes with a score of at least ½ in either output. Both must have that score,
        and the boxes must overlap by at least 0.8 of their union.
        """
        either = (expected[0] >= 0.5) | (found[0] >= 0.5)
        both = ((expected[0] >= 0.5) & (found[0] >= 0.5))[either]
        one, other = expected[1][either], found[1][either]
        sides = torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])
        shared = sides.clamp(min=0).prod(1)
        areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
        same = both & (shared >= 0.8 * (areas[0] + areas[1] - shared))
        return float(same.float().mean()) if len(same) else 1.0

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        levels = self._levels(inputs[0].permute(0, 2, 3, 1).float())
        found = torch.cat([rows(level) for level in levels], 1)  # (B, N, 15)
        variances = self._settings.variances
        boxes = decode_boxes(found[..., 1:5], self._anchors, variances)
        landmarks = decode_landmarks(found[..., 5:], self._anchors, variances)
        return found[..., 0].sigmoid(), boxes, landmarks.unflatten(2, (5, 2))


class AnchorsGraph(FileGraph):
    """A RetinaFace from images of any size, for those who can place anchors themselves.

    Input: image (B, height, width, 3) uint8 RGB; height, width: multiples of 32.
    Outputs, for every anchor in the order of `anchors.anchor_grid`: scores (B, N) of 0…1, and
    offsets (B, N, 14), as `anchors.decode_boxes` (4) and `decode_landmarks` (10) take them. The
    metadata have all of DetectorSettings.
    """

    def __init__(self, network: RetinaFace, settings: DetectorSettings) -> None:
        super().__init__()
        self._levels = LevelsGraph(network, settings)
        self.inputs, self.outputs = ("image",), ("scores", "offsets")
        self.example = (torch.zeros(2, 4 * STRIDE, 6 * STRIDE, 3, dtype=torch.uint8),)
        self.sizes = self._levels.sizes
        self.metadata = settings.to_metadata()

    takes_int8 = staticmethod(ImageGraph.takes_int8)

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of anchors with a score of ½ in one that have it in both."""
        one, other = expected[0] >= 0.5, found[0] >= 0.5
        return float((one & other).sum() / (one | other).sum().clamp(min=1)) if one.any() else 1.0

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        found = torch.cat([rows(level) for level in self._levels(inputs[0].float())], 1)
        return found[..., 0].sigmoid(), found[..., 1:]


def rows(level: Tensor) -> Tensor:
    """A level's predictions (B, h, w, 30) → one row for each anchor, (B, h · w · 2, 15)."""
    batch, height, width, values = level.shape
    return level.reshape(batch, height * width * ANCHORS_PER_CELL, values // ANCHORS_PER_CELL)


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
