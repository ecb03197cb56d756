"""MobileNet as a backbone: its shapes, its padding, and its start from a published network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError
from pcnn.networks.backbones import BACKBONES, find_backbone
from pcnn.networks.mobilenet import MobileTrunk, mobile_stage4, pad_same, start_from_published
from pcnn.networks.pcnn import IMAGENET_MEAN, IMAGENET_STD, PCNN, FaceNet, ModelConfig
from pcnn.weights.files import is_published, read_published

MEANS = torch.tensor((103.939, 116.779, 123.68)).view(1, 3, 1, 1)  # of blue, green, red


@pytest.mark.parametrize(("height", "width"), [(96, 96), (48, 48), (15, 48), (33, 7)])
def test_shapes_are_those_of_the_stride(height: int, width: int) -> None:
    trunk, stage4 = MobileTrunk(3, 4).eval(), mobile_stage4(4).eval()
    maps = trunk(torch.rand(2, 3, height, width))
    assert maps.shape == (2, 64, -(-height // 16), -(-width // 16))
    assert stage4(maps).shape == (2, 128, -(-height // 32), -(-width // 32))


def test_padding_as_tensorflow_by_hand() -> None:
    """Of an even side nothing before and one after; of an odd one before and after."""
    even, odd = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
    assert pad_same(even, 2)[0, 0, 0].tolist() == [1, 1, 1, 1, 0]
    assert pad_same(odd, 2)[0, 0, 1].tolist() == [0, 1, 1, 1, 0]
    assert pad_same(odd, 1)[0, 0, 1].tolist() == [0, 1, 1, 1, 0]


def _published(seed: int = 0) -> dict[str, Tensor]:
    """Weights at random under the published names, of a width of 4."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    tensors = {"conv1.weight": random(4, 3, 3, 3) / 100, "conv1.bias": random(4)}
    channels = 4
    for number, units in enumerate((2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32), 1):
        tensors[f"block{number}.depthwise.weight"] = random(channels, 1, 3, 3) / 2
        tensors[f"block{number}.depthwise.bias"] = random(channels) / 4
        shape = (4 * units, channels, 1, 1)
        tensors[f"block{number}.pointwise.weight"] = random(*shape) / channels**0.5
        tensors[f"block{number}.pointwise.bias"] = random(4 * units) / 4
        channels = 4 * units
    return tensors


def _answer(tensors: dict[str, Tensor], faces: Tensor) -> Tensor:
    """What the published network computes of faces (B, 3, S, S), RGB of 0…1: transcribed."""
    maps = 255 * faces.flip(1) - MEANS
    maps = F.conv2d(pad_same(maps, 2), tensors["conv1.weight"], tensors["conv1.bias"], 2)
    maps = F.relu6(maps)
    for number in range(1, 14):
        name, stride = f"block{number}", 2 if number in (2, 4, 6, 12) else 1
        weight, bias = tensors[f"{name}.depthwise.weight"], tensors[f"{name}.depthwise.bias"]
        maps = pad_same(maps, stride)
        maps = F.relu6(F.conv2d(maps, weight, bias, stride, groups=maps.shape[1]))
        weight, bias = tensors[f"{name}.pointwise.weight"], tensors[f"{name}.pointwise.bias"]
        maps = F.relu6(F.conv2d(maps, weight, bias))
    return maps


def _normalised(faces: Tensor) -> Tensor:
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (faces - mean) / std


def _started(tensors: dict[str, Tensor], faces: Tensor) -> tuple[MobileTrunk, torch.nn.Sequential]:
    trunk, stage4 = MobileTrunk(3, 4).eval(), mobile_stage4(4).eval()
    start_from_published(
        trunk, stage4, tensors, _normalised(faces), mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    return trunk, stage4


def test_at_first_it_computes_what_the_published_network_does() -> None:
    faces = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    tensors = _published()
    trunk, stage4 = _started(tensors, faces)
    with torch.no_grad():
        found = stage4(trunk(_normalised(faces)))
        expected = _answer(tensors, faces)
    assert expected.std() > 0.2 and found.shape == (3, 128, 2, 2)
    # Zeros are padded after normalising. Zero is ImageNet's mean colour here and its own mean
    # there, which differ by half a level.
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.03)


def test_the_shared_teacher_is_what_training_starts_with(shared_data: Path) -> None:
    path = shared_data / "teacher" / "face_mobilenet_vggface2.safetensors"
    assert is_published(path)
    tensors = read_published(path)
    network = FaceNet(ModelConfig(size=96, width=32, backbone="mobilenet")).eval()
    faces = torch.rand((4, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    start_from_published(
        network.trunk,  # type: ignore[arg-type]
        network.layer4,
        tensors,
        _normalised(faces),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    with torch.no_grad():
        found = network.layer4(network.trunk(_normalised(faces))).mean((2, 3))
        expected = _answer(tensors, faces).mean((2, 3))
    assert F.cosine_similarity(found, expected).min() > 0.99


def test_tensors_that_do_not_fit_are_named() -> None:
    tensors = _published()
    del tensors["block7.pointwise.weight"]
    with pytest.raises(InputError, match=r"tensors do not fit: 'block7.pointwise.weight'"):
        _started(tensors, torch.rand(2, 3, 32, 32))
    trunk = MobileTrunk(3, 4)
    with pytest.raises(InputError, match="must be in eval mode"):
        start_from_published(
            trunk, mobile_stage4(4), _published(), torch.rand(1, 3, 32, 32), mean=(0.5,), std=(1.0,)
        )


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_keeps_what_it_says(name: str) -> None:
    backbone = find_backbone(name)
    width = 8
    trunk, stage4 = backbone.trunk(3, width).eval(), backbone.stage4(width).eval()
    maps = trunk(torch.rand(1, 3, 48, 48))
    assert maps.shape == (1, backbone.channels * width, 3, 3)
    assert stage4(maps).shape == (1, backbone.features * width, 2, 2)
    for part in backbone.parts:
        trunk.get_submodule(part)
    trunk.get_submodule("bn1")
    assert ModelConfig(size=48, width=width, backbone=name).features == backbone.features * width


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(InputError, match="backbone must be one of resnet18, mobilenet, got 'vit'"):
        ModelConfig(backbone="vit")


def test_pcnn_is_the_same_idea_over_it() -> None:
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=64, width=4, backbone="mobilenet"))
    logits, regions = network(torch.rand(3, 3, 64, 64))
    assert logits.shape == regions.shape == (3, 8)
    (logits.square().sum() + regions.square().sum()).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None]
    assert still == []
