"""RetinaFace (Deng et al., CVPR 2020): backbone, feature pyramid, context modules and heads.

Attribute names follow the published PyTorch checkpoints, so that their state dicts load
unchanged. For this reason some names do not follow this package's style.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcnn.errors import InputError, WeightsError, is_number

ARCHITECTURES = ("retinaface-mobilenet0.25", "retinaface-resnet50")
ANCHORS_PER_CELL = 2
STRIDE = 32  # the network halves its input five times

# Output channels and strides of MobileNet's depthwise-separable blocks at width 0.25 (Howard et
# al., arXiv 1704.04861, table 1), cut into the three stages that the pyramid reads.
_MOBILENET_STAGES = (
    ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)),
    ((128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)),
    ((256, 2), (256, 1)),
)
_RESNET50_BLOCKS = (3, 4, 6, 3)


class RetinaFace(nn.Module):
    """Scores, box and landmark offsets for every anchor of an image.

    architecture: one of `ARCHITECTURES`.
    leak: slope below zero of the MobileNet family's rectifiers, 0 for plain ReLU. State dicts do
        not contain it. With a slope that differs from the training, a network still finds faces
        but misplaces them. The ResNet-50 family always has plain rectifiers.
    Raises InputError: an unknown architecture, a leak outside 0…1.
    """

    def __init__(self, architecture: str, *, leak: float = 0.0) -> None:
        super().__init__()
        if not is_number(leak) or not 0 <= leak <= 1:
            raise InputError(f"RetinaFace: leak must be 0…1, got {leak!r}")
        if architecture not in ARCHITECTURES:
            raise InputError(
                f"RetinaFace: architecture must be one of {', '.join(ARCHITECTURES)}, "
                f"got {architecture!r}"
            )
        self.body: nn.Module
        if architecture == "retinaface-mobilenet0.25":
            self.body, channels, width = MobileNet(leak), (64, 128, 256), 64
        else:
            self.body, channels, width, leak = ResNet50(), (512, 1024, 2048), 256, 0.0
        self.fpn = Pyramid(channels, width, leak)
        self.ssh1, self.ssh2, self.ssh3 = (Context(width, leak) for _ in range(3))
        self.ClassHead = _heads(width, 2)
        self.BboxHead = _heads(width, 4)
        self.LandmarkHead = _heads(width, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions for every anchor.

        images: (B, 3, H, W), normalised by the mean and std of the weights' metadata; H, W
            multiples of 32.
        Returns class logits (B, N, 2), background then face; box offsets (B, N, 4); landmark
        offsets (B, N, 10). The N anchors have the order of `anchors.anchor_grid`.
        """
        fine, middle, coarse = self.fpn(*self.body(images))  # strides 8, 16, 32
        contexts = self.ssh1(fine), self.ssh2(middle), self.ssh3(coarse)
        logits, boxes, landmarks = (
            torch.cat([head(level) for head, level in zip(heads, contexts, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        )
        return logits, boxes, landmarks


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The one of `ARCHITECTURES` to which a state dict belongs, from its backbone's keys.

    Raises WeightsError: it belongs to neither; the message names the expected keys.
    """
    if "body.stage1.0.0.weight" in state:
        return "retinaface-mobilenet0.25"
    if "body.layer1.0.conv1.weight" in state:
        return "retinaface-resnet50"
    raise WeightsError(
        "not a RetinaFace state dict: it has neither 'body.stage1.0.0.weight' (MobileNet-0.25) "
        "nor 'body.layer1.0.conv1.weight' (ResNet-50); its first keys are "
        f"{sorted(state)[:3]}"
    )


def load_state(state: Mapping[str, Tensor], *, leak: float = 0.0) -> RetinaFace:
    """The network (float32, eval mode) of a state dict with published names.

    leak: as in `RetinaFace`.
    Raises WeightsError: an unknown family, missing or unknown keys, a wrong shape. The message
        names the keys.
    """
    architecture = architecture_of(state)
    network = RetinaFace(architecture, leak=leak)
    wanted = network.state_dict()
    # Checkpoints older than PyTorch 0.4.1 do not count batches. Inference needs no counts.
    missing = [key for key in wanted if key not in state and "num_batches_tracked" not in key]
    extra = [key for key in state if key not in wanted]
    other = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for problem, keys in (("misses", missing), ("has unknown", extra), ("has misshapen", other)):
        if keys:
            shown = ", ".join(sorted(keys)[:5]) + (", …" if len(keys) > 5 else "")
            raise WeightsError(f"{architecture}: the state dict {problem} {shown}")
    network.load_state_dict({**wanted, **{key: value.float() for key, value in state.items()}})
    return network.eval()


class MobileNet(nn.Module):
    def __init__(self, leak: float) -> None:
        super().__init__()
        channels = 8
        stages: list[nn.Sequential] = []
        for index, blocks in enumerate(_MOBILENET_STAGES):
            layers = [_conv(3, channels, 3, stride=2, leak=leak)] if index == 0 else []
            for width, stride in blocks:
                layers.append(_separable(channels, width, stride, leak))
                channels = width
            stages.append(nn.Sequential(*layers))
        self.stage1, self.stage2, self.stage3 = stages

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.stage1(images)  # (B, 64, H/8, W/8)
        middle = self.stage2(fine)  # (B, 128, H/16, W/16)
        return fine, middle, self.stage3(middle)  # (B, 256, H/32, W/32)


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = (64, 128, 256, 512)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _bottlenecks(64 if width == 64 else 2 * width, width, count)
            for width, count in zip(widths, _RESNET50_BLOCKS, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stem = F.relu(self.bn1(self.conv1(images)))
        stem = F.max_pool2d(stem, 3, stride=2, padding=1)  # (B, 64, H/4, W/4)
        fine = self.layer2(self.layer1(stem))  # (B, 512, H/8, W/8)
        middle = self.layer3(fine)  # (B, 1024, H/16, W/16)
        return fine, middle, self.layer4(middle)  # (B, 2048, H/32, W/32)


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions; the 3 × 3 one has the stride, as in torchvision."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, inputs: Tensor) -> Tensor:
        shortcut = inputs if self.downsample is None else self.downsample(inputs)
        hidden = F.relu(self.bn1(self.conv1(inputs)))
        hidden = F.relu(self.bn2(self.conv2(hidden)))
        return F.relu(self.bn3(self.conv3(hidden)) + shortcut)


class Pyramid(nn.Module):
    """Feature pyramid: the enlarged next coarser level is added to each level."""

    def __init__(self, channels: tuple[int, int, int], width: int, leak: float) -> None:
        super().__init__()
        self.output1 = _conv(channels[0], width, 1, leak=leak)
        self.output2 = _conv(channels[1], width, 1, leak=leak)
        self.output3 = _conv(channels[2], width, 1, leak=leak)
        self.merge1 = _conv(width, width, 3, leak=leak)
        self.merge2 = _conv(width, width, 3, leak=leak)

    def forward(
        self, fine: Tensor, middle: Tensor, coarse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        third = self.output3(coarse)
        second = self.merge2(_add_enlarged(self.output2(middle), third))
        first = self.merge1(_add_enlarged(self.output1(fine), second))
        return first, second, third


class Context(nn.Module):
    """SSH's context module (Najibi et al., ICCV 2017): parallel 3×3, 5×5 and 7×7 convolutions."""

    def __init__(self, width: int, leak: float) -> None:
        super().__init__()
        quarter = width // 4
        self.conv3X3 = _conv(width, width // 2, 3, leak=None)
        self.conv5X5_1 = _conv(width, quarter, 3, leak=leak)
        self.conv5X5_2 = _conv(quarter, quarter, 3, leak=None)
        self.conv7X7_2 = _conv(quarter, quarter, 3, leak=leak)
        self.conv7x7_3 = _conv(quarter, quarter, 3, leak=None)

    def forward(self, level: Tensor) -> Tensor:
        shared = self.conv5X5_1(level)
        views = [
            self.conv3X3(level),
            self.conv5X5_2(shared),
            self.conv7x7_3(self.conv7X7_2(shared)),
        ]
        return F.relu(torch.cat(views, dim=1))


class _Head(nn.Module):
    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(width, ANCHORS_PER_CELL * values, 1)

    def forward(self, level: Tensor) -> Tensor:
        predictions: Tensor = self.conv1x1(level).permute(0, 2, 3, 1)  # (B, h, w, 2 · values)
        return predictions.reshape(level.shape[0], -1, self.values)  # len() would make it constant


def _heads(width: int, values: int) -> nn.ModuleList:
    return nn.ModuleList([_Head(width, values) for _ in range(3)])


def _conv(
    channels: int, width: int, kernel: int, *, stride: int = 1, leak: float | None
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
    ]
    if leak is not None:
        layers.append(_rectifier(leak))
    return nn.Sequential(*layers)


def _rectifier(leak: float) -> nn.Module:
    return nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)


def rectifier_leak(rectifier: nn.Module) -> float:
    """The slope of a rectifier below zero."""
    return rectifier.negative_slope if isinstance(rectifier, nn.LeakyReLU) else 0.0


def _separable(channels: int, width: int, stride: int, leak: float) -> nn.Sequential:
    depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return nn.Sequential(
        depthwise,
        nn.BatchNorm2d(channels),
        _rectifier(leak),
        *_conv(channels, width, 1, leak=leak),
    )


def _bottlenecks(channels: int, width: int, count: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride=1 if width == 64 else 2)
    rest = [Bottleneck(4 * width, width, stride=1) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


def _add_enlarged(fine: Tensor, coarse: Tensor) -> Tensor:
    return fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
