"""The network: both published layouts, what it returns, what its loader refuses."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pcnn.engines.folding import fold_batch_norms
from pcnn.errors import InputError, WeightsError
from pcnn.networks.anchors import anchor_grid
from pcnn.networks.retinaface import ARCHITECTURES, RetinaFace, architecture_of, load_state

MOBILENET, RESNET = ARCHITECTURES
# Folding multiplies each kernel once more before the sums: float32 rounding over some forty
# layers, on outputs of order 1.
FOLDED = {"rtol": 1e-3, "atol": 1e-4}


def _batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    entries = ("weight", "bias", "running_mean", "running_var")
    shapes: dict[str, tuple[int, ...]] = {f"{name}.{entry}": (width,) for entry in entries}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def _pair(name: str, kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """A convolution at place 0 of a Sequential, its batch norm at place 1."""
    return {f"{name}.0.weight": kernel, **_batch_norm(f"{name}.1", kernel[0])}


def _neck_and_heads(inputs: tuple[int, int, int], width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    half, quarter = width // 2, width // 4
    for level, channels in enumerate(inputs, start=1):
        shapes |= _pair(f"fpn.output{level}", (width, channels, 1, 1))
        shapes |= _pair(f"ssh{level}.conv3X3", (half, width, 3, 3))
        shapes |= _pair(f"ssh{level}.conv5X5_1", (quarter, width, 3, 3))
        for name in ("conv5X5_2", "conv7X7_2", "conv7x7_3"):
            shapes |= _pair(f"ssh{level}.{name}", (quarter, quarter, 3, 3))
        for head, values in (("ClassHead", 4), ("BboxHead", 8), ("LandmarkHead", 20)):
            shapes[f"{head}.{level - 1}.conv1x1.weight"] = (values, width, 1, 1)
            shapes[f"{head}.{level - 1}.conv1x1.bias"] = (values,)
    for merge in (1, 2):
        shapes |= _pair(f"fpn.merge{merge}", (width, width, 3, 3))
    return shapes


def mobilenet_layout() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of Pytorch_Retinaface's mobilenet0.25 checkpoints, as its code has them."""
    shapes = _pair("body.stage1.0", (8, 3, 3, 3))
    widths = {1: (8, 16, 32, 32, 64, 64), 2: (64, *[128] * 6), 3: (128, 256, 256)}
    for stage, sequence in widths.items():
        for index, (channels, width) in enumerate(pairwise(sequence)):
            name = f"body.stage{stage}.{index + (stage == 1)}"
            shapes |= _pair(name, (channels, 1, 3, 3))
            shapes[f"{name}.3.weight"] = (width, channels, 1, 1)
            shapes |= _batch_norm(f"{name}.4", width)
    return shapes | _neck_and_heads((64, 128, 256), 64)


def resnet_layout() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the ResNet-50 checkpoints of both publishers: torchvision's body."""
    shapes: dict[str, tuple[int, ...]] = {"body.conv1.weight": (64, 3, 7, 7)}
    shapes |= _batch_norm("body.bn1", 64)
    channels = 64
    for layer, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"body.layer{layer}.{block}"
            kernels = ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for index, kernel in enumerate(kernels, start=1):
                shapes[f"{name}.conv{index}.weight"] = kernel
                shapes |= _batch_norm(f"{name}.bn{index}", kernel[0])
            if block == 0:
                shapes |= _pair(f"{name}.downsample", (4 * width, channels, 1, 1))
            channels = 4 * width
    return shapes | _neck_and_heads((512, 1024, 2048), 256)


LAYOUTS = {MOBILENET: mobilenet_layout, RESNET: resnet_layout}


@cache
def _random_state(architecture: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in LAYOUTS[architecture]().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith(("running_var", ".weight")) and len(shape) == 1:
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan_in = max(1, torch.Size(shape[1:]).numel())
            state[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
            if len(shape) == 1:
                state[name] *= 0.1
    return state


def random_state(architecture: str) -> dict[str, Tensor]:
    """Weights at random in a published layout, scaled so that activations stay near 1."""
    return dict(_random_state(architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_published_layouts_load_key_for_key(architecture: str) -> None:
    state = random_state(architecture)
    network = load_state(state)
    assert not network.training
    own = network.state_dict()
    assert {name: tuple(value.shape) for name, value in own.items()} == LAYOUTS[architecture]()
    assert all(torch.equal(own[name], value) for name, value in state.items())


def test_the_teacher_has_the_published_layout(shared_data) -> None:  # type: ignore[no-untyped-def]
    path = shared_data / "teacher" / "retinaface_mobilenet0.25.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items()} == mobilenet_layout()


def test_resnet50_has_the_parameters_of_its_parts() -> None:
    count = sum(value.numel() for value in RetinaFace(RESNET).body.parameters())
    # torchvision's ResNet-50 has 25,557,032, of which the classifier takes 2048 · 1000 + 1000.
    assert count == 25_557_032 - 2_049_000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_go_with_the_anchors(architecture: str) -> None:
    network = load_state(random_state(architecture))
    with torch.inference_mode():
        logits, boxes, landmarks = network(torch.randn(2, 3, 32, 64))
    count = len(anchor_grid(32, 64, min_sizes=[[10, 20], [32, 64], [128, 256]], steps=[8, 16, 32]))
    assert logits.shape == (2, count, 2)
    assert boxes.shape == (2, count, 4)
    assert landmarks.shape == (2, count, 10)
    assert torch.isfinite(logits).all() and logits.std() > 1e-3


def test_a_head_reads_cells_in_the_anchors_order() -> None:
    network = load_state(random_state(MOBILENET))
    # A head that copies feature 0 for the second anchor's face: its output shows where it stems.
    with torch.no_grad():
        for head in network.ClassHead:
            head.conv1x1.weight.zero_()
            head.conv1x1.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    logits = network(torch.randn(1, 3, 32, 32))[0]
    assert logits[0, :4].tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("architecture", "leak"), [(MOBILENET, 0.0), (MOBILENET, 0.1), (RESNET, 0.0)]
)
def test_folding_changes_only_the_rounding(architecture: str, leak: float) -> None:
    images = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        plain = load_state(random_state(architecture), leak=leak)(images)
        folded = fold_batch_norms(load_state(random_state(architecture), leak=leak))(images)
    for one, other in zip(plain, folded, strict=True):
        scale = one.abs().max()
        torch.testing.assert_close(other / scale, one / scale, **FOLDED)


def test_the_leak_matters_to_mobilenet_and_not_to_resnet() -> None:
    images = torch.randn(1, 3, 32, 32)
    for architecture, differs in ((MOBILENET, True), (RESNET, False)):
        state = random_state(architecture)
        with torch.inference_mode():
            one, other = load_state(state)(images)[0], load_state(state, leak=0.1)(images)[0]
        assert torch.equal(one, other) is not differs


def test_half_precision_and_uncounted_batches_load() -> None:
    state = {
        name: value.half()
        for name, value in random_state(MOBILENET).items()
        if not name.endswith("num_batches_tracked")
    }
    network = load_state(state)
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_the_network_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match=r"must be one of .*, got 'retinaface-vgg'"):
        RetinaFace("retinaface-vgg")
    with pytest.raises(InputError, match=r"RetinaFace: leak must be 0…1, got 2.0"):
        RetinaFace(MOBILENET, leak=2.0)


def test_a_foreign_state_dict_is_named() -> None:
    with pytest.raises(WeightsError, match=r"neither 'body.stage1.0.0.weight' .*'conv.weight'"):
        architecture_of({"conv.weight": torch.ones(1)})


def test_a_damaged_state_dict_is_explained() -> None:
    state = random_state(MOBILENET)
    kernel = state.pop("fpn.merge1.0.weight")
    with pytest.raises(WeightsError, match=r"mobilenet0.25: .* misses fpn.merge1.0.weight"):
        load_state(state)
    state["fpn.merge1.0.weight"] = kernel
    state["fpn.merge9.0.weight"] = kernel
    with pytest.raises(WeightsError, match=r"has unknown fpn.merge9.0.weight"):
        load_state(state)
    del state["fpn.merge9.0.weight"]
    state["fpn.merge1.0.weight"] = kernel[:3]
    with pytest.raises(WeightsError, match=r"has misshapen fpn.merge1.0.weight"):
        load_state(state)
    with pytest.raises(WeightsError, match=r"misses .*, …$"):
        load_state({"body.stage1.0.0.weight": kernel})
