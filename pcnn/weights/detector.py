"""Weights files of detectors: pcnn's own, and the published RetinaFace checkpoints."""

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
from pcnn.weights.containers import check_container
from pcnn.weights.files import WeightsFile, locate, sha256
from pcnn.weights.kinds import DETECTOR
from pcnn.weights.schema import keep_to, shown


@dataclass(frozen=True)
class DetectorSettings:
    """Settings of a RetinaFace, stored in the metadata of its weights.

    min_sizes, steps, variances: as in `anchors`; pixels.
    channels: "rgb" or "bgr", the channel order of the training.
    mean, std: in that order, for values of 0…255.
    confidence: least score of a face, 0…1. nms_iou: overlap above which the weaker box is removed.
    max_side: longer images are reduced to this side for the network, in pixels.
    least_side: images whose longer side is less are enlarged to it, at most fourfold, in pixels;
        0 for no enlargement.
    leak: as in `retinaface.RetinaFace`.
    trusted_side: larger faces (shorter side, in pixels of the network's input) are searched in
        halved images; None searches all sizes in a single image.
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
    # The largest side without a halved image, for a trusted side of 128 (detector._ENOUGH).
    least_side: int = 160
    leak: float = 0.0
    # Measured on photographs enlarged step by step: at 128 pixels the landmarks' error is 9 % of
    # the eye distance. At 160 pixels it is 18 %, and one face is reported as two.
    trusted_side: float | None = 128.0

    def to_metadata(self) -> dict[str, Any]:
        """The fields as values for JSON; the inverse of `from_metadata`."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> DetectorSettings:
        """Settings from a weights file's metadata; other entries are ignored.

        `trusted_side` and `least_side` may be missing, as in the first files.
        Raises WeightsError: an entry is missing, of the wrong type or out of range; the message
            names it.
        """
        keep_to(DETECTOR, metadata, "detector weights")
        stored = {"trusted_side": cls.trusted_side, "least_side": cls.least_side} | dict(metadata)
        return cls(**{field.name: _as_tuple(stored[field.name]) for field in fields(cls)})


# Settings of the published checkpoints, from their own code. biubug6's Pytorch_Retinaface:
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
# Start of the SHA-256 → settings, for files whose keys suggest wrong settings.
_KNOWN_FILES = {
    # A MobileNet-0.25 trained with plain ReLU on smaller anchors. With a leak of 0.1 the landmarks
    # of different anchors differ by half a face; without a leak they agree to 1 pixel.
    "ed6fa7d45a5179f03cb5ce82c73b0c67": replace(
        _BIUBUG6, min_sizes=DetectorSettings.min_sizes, leak=0.0
    ),
    "f168fae3c": _TERNAUS,
}
# The variance of the first batch norm divided by its filters' energy. Above this value the network
# was trained on 0…255: normalised input gives about 1, raw input some thousands.
_RAW_INPUT_RATIO = 50.0
_HEADS = {"class": "ClassHead", "bbox": "BboxHead", "landmark": "LandmarkHead"}
# Names of heads in other ports of the network: class_head.class_head.0.weight
_OTHER_HEADS = re.compile(
    r"^(class|bbox|landmark)_head(?:\.\1_head)?\.(\d)\.(?:conv1x1\.)?(weight|bias)$"
)


@own_settings(gradients=True)
def read_detector(path: str | Path) -> tuple[dict[str, Tensor], DetectorSettings]:
    """State dict, with the names of `retinaface.RetinaFace`, and settings of a detector's file.

    path: a name or file for `files.locate`: a .safetensors file of `train_detector`, or a torch
        checkpoint (.pth, .zip) of biubug6's Pytorch_Retinaface (MobileNet-0.25, ResNet-50) or of
        retinaface-pytorch (`retinaface_resnet50_2020-07-20`). Reading a checkpoint runs no code.
    Raises WeightsError: the file is missing, damaged, or no RetinaFace.
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
    except (WeightsError, RuntimeError, IndexError) as error:  # also of tensors that do not fit
        raise WeightsError(f"{path}: {error}") from error


def _settings_of(state: Mapping[str, Tensor]) -> DetectorSettings:
    """Settings of the published family of a state dict."""
    if architecture_of(state) == "retinaface-mobilenet0.25":
        return _BIUBUG6
    filters, variance = state.get("body.conv1.weight"), state.get("body.bn1.running_var")
    if filters is None or variance is None:
        return _TERNAUS  # load_state reports the missing keys
    ratio = (
        variance.float() / filters.float().square().sum(dim=(1, 2, 3)).clamp(min=1e-6)
    ).median()
    return _BIUBUG6 if ratio > _RAW_INPUT_RATIO else _TERNAUS


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """State dict of a torch checkpoint, with biubug6's names.

    Raises WeightsError: the file is missing, unreadable, or no dictionary of tensors.
    """
    try:
        check_container(path)
        loaded = torch.load(_unwrapped(path), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch.load does not document its errors
        raise WeightsError(f"{path}: not a readable PyTorch checkpoint ({error})") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{path}: holds no state dict, but {type(loaded).__name__}")
    check_tensors(path, state)
    return {_published_name(name): value for name, value in state.items()}


def _unwrapped(path: Path) -> Path | io.BytesIO:
    """The checkpoint in a zip archive with a single file; for other files `path` itself."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) == 1:
                return io.BytesIO(archive.read(members[0]))
    return path


def _published_name(name: str) -> str:
    """A key without its training wrapper's prefix, with Pytorch_Retinaface's names of heads."""
    name = re.sub(r"^(module\.|model\.)+", "", name)
    match = _OTHER_HEADS.match(name)
    return f"{_HEADS[match[1]]}.{match[2]}.conv1x1.{match[3]}" if match else name


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(entry) for entry in value) if isinstance(value, list | tuple) else value


def normalise_images(images: Tensor, settings: DetectorSettings) -> Tensor:
    """The network's input for RGB images.

    images: (B, 3, H, W) float32, RGB, 0…255.
    Returns the same shape, with channels in the settings' order, normalised by mean and std.
    """
    if settings.channels == "bgr":
        images = images.flip(1)
    mean, std = images.new_tensor(settings.mean), images.new_tensor(settings.std)
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
