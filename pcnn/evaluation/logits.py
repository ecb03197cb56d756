"""Running a network over faces that are already cut out: its answers, and what they cost."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pcnn.training.expression.augmentation import resample
from pcnn.faces.geometry import picture_transforms
from pcnn.networks.mirror import read_both
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.ops.reference import LUMA
from pcnn.recognition.batches import cut_views
from pcnn.networks.regions import VIEWS
from pcnn.networks.saliency import weigh


def normalise(faces: Tensor, config: ModelConfig) -> Tensor:
    """(B, C, H, W) of 0…1 → the network's input of the same shape, channels-last."""
    mean = faces.new_tensor(config.mean).view(1, -1, 1, 1)
    std = faces.new_tensor(config.std).view(1, -1, 1, 1)
    return ((faces - mean) / std).to(memory_format=torch.channels_last)


@torch.no_grad()
def predict_logits(
    network: PCNN | FaceNet,
    faces: Tensor,
    *,
    batch: int = 128,
    native_size: int | None = None,
    mirror: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of faces, by the network in eval mode, on the device it is on.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1; stretched to the network's face view
        and turned into its kind, grey or RGB.
    batch: faces in one forward pass.
    native_size: the side of the faces that the network was trained on: larger ones are blurred
        to as much detail, as `Recognizer.predict_crops` does. None reads them as training does.
    mirror: mean logits of each face and its mirror image, see mirror.read_both.
    Returns, on the CPU, logits (N, classes) and region name → that region's own logits
    (N, classes); a FaceNet has no regions.
    """
    network.eval()
    device = next(network.parameters()).device
    logits, regions = [], []
    for chunk in faces.split(batch):
        views = _views(network, chunk.to(device), native_size)
        forward = network.forward_views
        answer, own = read_both(forward, views) if mirror else forward(views)
        logits.append(answer)
        regions.append(own)
    return torch.cat(logits).cpu(), {
        name: torch.cat([own[name] for own in regions]).cpu() for name in regions[0]
    }


def pictures(faces: Tensor, channels: int | None = None) -> Tensor:
    """A FaceSet's faces, (B, H, W) or (B, H, W, 3) uint8, as (B, C, H, W) float of 0…1.

    channels: 1 for grey (Rec. 601 luma of RGB), 3 for RGB, None for what they are.
    """
    planes = (faces[:, None] if faces.dim() == 3 else faces.permute(0, 3, 1, 2)).float() / 255
    if channels == 1 and planes.shape[1] == 3:
        return (planes * planes.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return planes if channels is None else planes.expand(-1, channels, -1, -1)


def _views(network: PCNN | FaceNet, faces: Tensor, native_size: int | None) -> list[Tensor]:
    """Faces as a FaceSet has them → what the network sees of them, each (B, C, h, w) normalised.

    Six views in the order of VIEWS; the whole face alone for a FaceNet.
    """
    config = network.config
    if native_size is None:
        whole = normalise(resample(pictures(faces, config.channels), config.size), config)
        return weigh(network.cut(whole), config)
    return face_views(network, faces, native_size)


def face_views(network: PCNN | FaceNet, faces: Tensor, native_size: int) -> list[Tensor]:
    """Faces that are already cut out, as `Recognizer.predict_crops` shows them to a network.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1.
    native_size: see ExpressionWeights. Returns the views in the order of VIEWS, each
    (N, C, h, w), normalised, on the network's device; for a FaceNet the face alone.
    """
    config = network.config
    height, width = faces.shape[1:3]
    transforms = picture_transforms(width, height, config.size, config.layout)
    planes = faces if faces.dim() == 4 else faces[..., None].expand(-1, -1, -1, 3)
    return cut_views(
        list(planes.cpu().numpy()),
        [transforms] * len(faces),
        config,
        native_size=native_size,
        device=next(network.parameters()).device,
        names=VIEWS if isinstance(network, PCNN) else VIEWS[:1],
    )


@dataclass(frozen=True)
class Cost:
    """What one face costs a network.

    parameters: learnt numbers. macs: multiplications with addition of one forward pass, in
    convolutions and linear layers. latency_ms: the median time of one pass with a single face,
    None where it was not measured. device: where; threads: how many of the CPU's were used.
    """

    parameters: int
    macs: int
    latency_ms: float | None
    device: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values that `json.dumps` takes."""
        return dataclasses.asdict(self)


@torch.no_grad()
def measure_cost(network: PCNN | FaceNet, *, runs: int = 20) -> Cost:
    """What a face costs on the device that the network is on, cropping not counted.

    runs: passes that are timed, after three that are not; 0 leaves latency out.
    """
    config = network.eval().config
    parameter = next(network.parameters())
    face = torch.zeros(1, config.channels, config.size, config.size, device=parameter.device)
    face = face.to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        network(face)
    seconds = [_timed(network, face) for _ in range(3 + runs)][3:] if runs else []
    return Cost(
        parameters=sum(each.numel() for each in network.parameters()),
        macs=counter.get_total_flops() // 2,  # it counts multiplications and additions apart
        latency_ms=1000 * statistics.median(seconds) if seconds else None,
        device=_device_name(parameter.device),
        threads=torch.get_num_threads(),
    )


def _timed(network: PCNN | FaceNet, face: Tensor) -> float:
    """Seconds of one forward pass."""
    began = time.perf_counter()
    network(face)
    if face.is_cuda:
        torch.cuda.synchronize(face.device)
    return time.perf_counter() - began


def _device_name(device: torch.device) -> str:
    """cpu, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
