"""What a detector's weights file holds: ours, and the published RetinaFace checkpoints."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import WeightsError
from pcnn.networks.retinaface import architecture_of
from pcnn.weights.checkpoints import check_tensors
from pcnn.weights.files import WeightsFile, locate, sha256
from pcnn.weights.kinds import DETECTOR
from pcnn.weights.schema import keep_to, shown


@dataclass(frozen=True)
class DetectorSettings:
    """All a RetinaFace's weights need to be used; travels in the file's metadata.

    min_sizes, steps, variances: as in `anchors`; pixels.
    channels: "rgb" or "bgr", the order the network was trained on.
    mean, std: in that order, for values of 0…255.
    confidence: least score reported, 0…1; nms_iou: overlap above which the weaker box goes.
    max_side: longer images are scaled down to this before the network sees them, in pixels.
    least_side: images whose longer side is less are enlarged to it, at most fourfold, in pixels;
        0: never.
    leak: as in `retinaface.RetinaFace`.
    trusted_side: faces larger than about this (shorter side, in pixels as the network sees them)
        are looked for in halved images instead; None: at any size in the one image.
    """

    min_sizes: tuple[tuple[float, ...], ...] = ((10, 20), (32, 64), (128, 256))
    steps: tuple[int, ...] = (8, 16, 32)
    variances: tuple[float, float] = (0.1, 0.2)
    channels: str = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    confidence: float = 0.7
    nms_iou: float = 0.4
    max_side: int = 640
    # The most at which a trusted side of 128 asks for no halved image (detector._ENOUGH).
    least_side: int = 160
    leak: float = 0.0
    # Measured on photographs enlarged step by step: at 128 pixels landmarks still lie within 9 %
    # of the eye distance; at 160 it is 18 %, and one face is reported as two.
    trusted_side: float | None = 128.0

    def to_metadata(self) -> dict[str, Any]:
        """JSON-able; the inverse of `from_metadata`."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> DetectorSettings:
        """Settings from a weights file's metadata, whose other entries are left alone.

        `trusted_side` and `least_side` may be missing: the first files were written without.
        Raises WeightsError: an entry is missing, of the wrong kind or out of range; names it.
        """
        keep_to(DETECTOR, metadata, "detector weights")
        stored = {"trusted_side": cls.trusted_side, "least_side": cls.least_side} | dict(metadata)
        return cls(**{field.name: _as_tuple(stored[field.name]) for field in fields(cls)})


# How the published checkpoints are used by their own code. biubug6's Pytorch_Retinaface:
_BIUBUG6 = DetectorSettings(
    min_sizes=((16, 32), (64, 128), (256, 512)),
    channels="bgr",
    mean=(104.0, 117.0, 123.0),
    std=(1.0, 1.0, 1.0),
    max_side=960,
    least_side=0,
    leak=0.1,
    trusted_side=None,
)
# ternaus's retinaface-pytorch: the same anchors, ImageNet's mean and deviation.
_TERNAUS = replace(
    _BIUBUG6,
    channels="rgb",
    mean=DetectorSettings.mean,
    std=DetectorSettings.std,
    leak=0.0,
)
# Files that differ from what their keys suggest, by the beginning of their SHA-256.
_KNOWN_FILES = {
    # A MobileNet-0.25 trained with plain ReLU on smaller anchors: with a leak of 0.1 its
    # landmarks lie half a face apart from anchor to anchor, without one they agree to 1 pixel.
    "ed6fa7d45a5179f03cb5ce82c73b0c67": replace(
        _BIUBUG6, min_sizes=DetectorSettings.min_sizes, leak=0.0
    ),
    "f168fae3c": _TERNAUS,
}
# First batch norm's variance over its filters' energy, above which the network was fed 0…255
# values: ImageNet-normalised input gives about 1, raw input some thousands.
_RAW_INPUT_RATIO = 50.0
_HEADS = {"class": "ClassHead", "bbox": "BboxHead", "landmark": "LandmarkHead"}
# Heads as other ports of the same network name them: class_head.class_head.0.weight
_OTHER_HEADS = re.compile(
    r"^(class|bbox|landmark)_head(?:\.\1_head)?\.(\d)\.(?:conv1x1\.)?(weight|bias)$"
)


@own_settings(gradients=True)
def read_detector(path: str | Path) -> tuple[dict[str, Tensor], DetectorSettings]:
    """State dict, in the names of `retinaface.RetinaFace`, and settings of a detector's file.

    path: a name or file that `weights.locate` knows: .safetensors as `train_detector` writes it,
        or a torch checkpoint (.pth, .zip) of
        biubug6's Pytorch_Retinaface (MobileNet-0.25, ResNet-50) or of retinaface-pytorch
        (`retinaface_resnet50_2020-07-20`). Checkpoints are read without running code.
    Raises WeightsError: missing, damaged, or not a RetinaFace; says what is wrong.
    """
    path = locate(path, kind="detector")
    if path.suffix == ".safetensors":
        file = WeightsFile(path)
        kind = file.metadata.get("kind")
        if kind != "detector":
            raise WeightsError(f"{path}: holds no detector but {shown(kind)}")
        file.check(DETECTOR)
        return file.tensors(), DetectorSettings.from_metadata(file.metadata)
    state = _read_checkpoint(path)
    digest = sha256(path)
    for beginning, settings in _KNOWN_FILES.items():
        if digest.startswith(beginning):
            return state, settings
    try:
        return state, _settings_of(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _settings_of(state: Mapping[str, Tensor]) -> DetectorSettings:
    """Settings of the published family that a state dict belongs to."""
    if architecture_of(state) == "retinaface-mobilenet0.25":
        return _BIUBUG6
    filters, variance = state.get("body.conv1.weight"), state.get("body.bn1.running_var")
    if filters is None or variance is None:
        return _TERNAUS  # load_state will say what is missing
    ratio = (
        variance.float() / filters.float().square().sum(dim=(1, 2, 3)).clamp(min=1e-6)
    ).median()
    return _BIUBUG6 if ratio > _RAW_INPUT_RATIO else _TERNAUS


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """State dict of a torch checkpoint, in biubug6's names.

    Raises WeightsError: missing, unreadable, or not a dictionary of tensors.
    """
    try:
        loaded = torch.load(_unwrapped(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no list of what it raises
        raise WeightsError(f"{path}: not a readable PyTorch checkpoint ({error})") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{path}: holds no state dict, but {type(loaded).__name__}")
    check_tensors(path, state)
    return {_published_name(name): value for name, value in state.items()}


def _unwrapped(path: Path) -> Path | io.BytesIO:
    """The checkpoint itself, where `path` is a zip archive around a single file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) == 1:
                return io.BytesIO(archive.read(members[0]))
    return path


def _published_name(name: str) -> str:
    """A key without its training wrapper's prefix, heads as Pytorch_Retinaface calls them."""
    name = re.sub(r"^(module\.|model\.)+", "", name)
    match = _OTHER_HEADS.match(name)
    return f"{_HEADS[match[1]]}.{match[2]}.conv1x1.{match[3]}" if match else name


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(entry) for entry in value) if isinstance(value, list | tuple) else value


def normalise_images(images: Tensor, settings: DetectorSettings) -> Tensor:
    """What the network takes for RGB images.

    images: (B, 3, H, W) float32, RGB, 0…255.
    Returns the same shape, channels in the settings' order, mean and deviation taken out.
    """
    if settings.channels == "bgr":
        images = images.flip(1)
    mean, std = images.new_tensor(settings.mean), images.new_tensor(settings.std)
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
