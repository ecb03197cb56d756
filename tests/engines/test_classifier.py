"""The prepared classifiers give the answers of the plain ones, whatever the size and number."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pcnn import Recognizer, weights
from pcnn.engines import classifier as inference
from pcnn.engines.classifier import prepare
from pcnn.engines.layers import can_run
from pcnn.errors import InputError
from pcnn.networks.backbones import BACKBONES, Backbone
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.networks.trunk import Trunk, resnet_stage4

# Folding scales each kernel before the sums instead of after them, and the layers add in another
# order: some 2⁻²⁴ of the sums' terms for each of about twenty layers, on logits of order 1.
SAME = {"rtol": 1e-4, "atol": 2e-5}


def _config(
    size: int, width: int = 8, channels: int = 1, backbone: str = "resnet18"
) -> ModelConfig:
    grey = (0.5,) * channels
    return ModelConfig(size=size, mean=grey, std=(0.25,) * channels, width=width, backbone=backbone)


def _settled(network: PCNN | FaceNet) -> PCNN | FaceNet:
    """Weights at random in eval mode, with norms that do something and a θ that is no identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight.data, 0.7, 1.3),
                (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                values.uniform_(low, high, generator=generator)  # type: ignore[union-attr]
    if isinstance(network, PCNN):
        nn.init.normal_(network.interaction.localisation[2].weight, std=0.02, generator=generator)
    return network.eval().requires_grad_(False)


def _pcnn(size: int = 64, width: int = 8, channels: int = 1) -> PCNN:
    torch.manual_seed(0)
    network = _settled(PCNN(_config(size, width, channels)))
    assert isinstance(network, PCNN)
    return network


def _views(network: PCNN | FaceNet, faces: int) -> list[Tensor]:
    """The views of faces at random, as crop_regions lays them out: channels-last."""
    side, channels = network.config.size, network.config.channels
    face = torch.randn(faces, channels, side, side, generator=torch.Generator().manual_seed(2))
    return [
        view.contiguous(memory_format=torch.channels_last)
        for view in network.cut(face.clamp(-2, 2))
    ]


def _assert_same(network: PCNN | FaceNet, views: Sequence[Tensor]) -> None:
    with torch.inference_mode():
        logits, regions = prepare(network).forward_views(views)
        expected, own = network.forward_views(views)
    torch.testing.assert_close(logits, expected, **SAME)
    assert list(regions) == list(own)
    for name in own:
        torch.testing.assert_close(regions[name], own[name], **SAME)


@pytest.mark.parametrize(
    ("size", "width", "channels"), [(64, 8, 1), (96, 16, 1), (75, 8, 3), (33, 8, 1)]
)
def test_the_answers_are_the_plain_network_s(size: int, width: int, channels: int) -> None:
    """Sizes whose regions' maps are one to six pixels high, with members of pairs that differ."""
    network = _pcnn(size, width, channels)
    for faces in (1, 5):
        _assert_same(network, _views(network, faces))


@pytest.mark.parametrize("kind", [PCNN, FaceNet])
@pytest.mark.parametrize(("size", "width", "channels"), [(64, 4, 3), (75, 8, 1), (96, 32, 3)])
def test_mobilenet_has_the_same_answers(
    kind: type[PCNN | FaceNet], size: int, width: int, channels: int
) -> None:
    torch.manual_seed(0)
    network = _settled(kind(_config(size, width, channels, "mobilenet")))
    for faces in (1, 3):
        views = _views(network, faces)
        _assert_same(network, views)
    with torch.inference_mode():
        vectors = prepare(network).embed_views(views)
        logits = prepare(network).forward_views(views)[0]
        torch.testing.assert_close(network.own_head(vectors), logits, **SAME)
        assert vectors.shape == (3, network.config.features)


@pytest.mark.parametrize("size", [64, 71])
def test_a_face_net_has_the_same_answers_and_no_regions(size: int) -> None:
    torch.manual_seed(0)
    network = _settled(FaceNet(_config(size)))
    for faces in (1, 5):
        _assert_same(network, _views(network, faces))


class _Strange(nn.Module):
    """A trunk that has no layers of compiled code."""

    NORMS = (("conv1", "bn1"),)

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 4 * width, 16, 16, bias=False)
        self.bn1 = nn.BatchNorm2d(4 * width)

    def forward(self, view: Tensor) -> Tensor:
        # Views of regions are not all multiples of the stride.
        view = nn.functional.pad(view, (0, -view.shape[3] % 16, 0, -view.shape[2] % 16))
        return self.bn1(self.conv1(view)).tanh()  # type: ignore[no-any-return]


class _WithTanh(Trunk):
    """A trunk with the layers of another one, which it uses otherwise."""

    def forward(self, view: Tensor) -> Tensor:
        return super().forward(view).tanh()


@pytest.mark.parametrize("trunk", [_Strange, _WithTanh])
@pytest.mark.parametrize("kind", [PCNN, FaceNet])
def test_a_backbone_without_layers_keeps_its_modules(
    kind: type[PCNN | FaceNet], trunk: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = Backbone(trunk, resnet_stage4, channels=4, features=8, parts=("conv1",))
    monkeypatch.setitem(BACKBONES, "strange", strange)
    torch.manual_seed(0)
    network = _settled(kind(_config(64, backbone="strange")))
    for faces in (1, 3):
        _assert_same(network, _views(network, faces))


# Rounding to eight bits over the layers of a trunk, relative to the largest answer.
ROUNDED = 0.06


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [(PCNN, "resnet18"), (FaceNet, "resnet18"), (FaceNet, "mobilenet")],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_bfloat16_has_nearly_the_same_answers(
    kind: type[PCNN | FaceNet], backbone: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without compiled code, or where the processor lacks the instructions."""
    if not compiled:
        monkeypatch.setattr(inference, "can_run", lambda *_: False)
    torch.manual_seed(0)
    network = _settled(kind(_config(64, 8, 3, backbone)))
    prepared = prepare(network, torch.bfloat16)
    for faces in (1, 5, 0):
        views = _views(network, faces)
        expected, own = network.forward_views(views)
        logits, regions = prepared.forward_views(views)
        found = [logits, *(regions[name] for name in own)]
        for answer, plain in zip(found, [expected, *own.values()], strict=True):
            assert answer.dtype == torch.float32 and answer.shape == plain.shape
            if faces:
                assert 0 < (answer - plain).abs().max() < ROUNDED * plain.abs().max()


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet"])
def test_without_compiled_code_the_answers_are_the_same(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "can_run", lambda *_: False)
    torch.manual_seed(0)
    for kind in (PCNN, FaceNet):
        network = _settled(kind(_config(64, 8, 3, backbone)))
        for faces in (1, 3):
            _assert_same(network, _views(network, faces))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet"])
@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_one_type_compute_in_another(backbone: str, given: torch.dtype) -> None:
    torch.manual_seed(0)
    for kind in (PCNN, FaceNet):
        network = _settled(kind(_config(64, 8, 3, backbone)))
        views = _views(network, 2)
        expected = prepare(network).forward_views(views)[0]
        found = prepare(copy.deepcopy(network).to(given), torch.float32).forward_views(views)[0]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0.1 * float(expected.abs().max()))


@pytest.mark.skipif(not can_run(torch.zeros(1)), reason="needs compiled layers")
def test_views_that_do_not_fit_are_refused() -> None:
    network = _pcnn(48)
    views = _views(network, 2)
    for own in ([views[0].expand(-1, 3, -1, -1), *views[1:]], [*views[:5], views[5][:1]]):
        with pytest.raises(InputError, match="an input must be"):
            prepare(network).forward_views(own)


@pytest.mark.parametrize("compiled", [True, False])
def test_no_faces(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(inference, "can_run", lambda *_: False)
    network = _pcnn(48)
    prepared = prepare(network)
    logits, regions = prepared.forward_views(_views(network, 0))
    assert logits.shape == (0, 8) and list(regions) == list(REGIONS)
    assert all(own.shape == (0, 8) for own in regions.values())
    assert prepared.embed_views(_views(network, 0)).shape == (0, 64)


def test_vectors_are_what_the_head_is_given() -> None:
    network = _pcnn(48)
    views = _views(network, 3)
    given: list[Tensor] = []
    head = network.expression_head
    head.register_forward_pre_hook(lambda _, maps: given.append(maps[0]))
    network.forward_views(views)
    torch.testing.assert_close(prepare(network).embed_views(views), given[0], **SAME)
    face_net = FaceNet(_config(48))
    _settled(face_net)
    bare = copy.deepcopy(face_net)
    bare.head = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(prepare(face_net).embed_views(views[:1]), bare(views[0]), **SAME)


def test_earlier_answers_stay_and_later_changes_do_not_matter() -> None:
    """Buffers are used again, but no answer lies in one; the network's weights were copied."""
    network = _pcnn(48)
    prepared, views = prepare(network), _views(network, 2)
    first = prepared.forward_views([view[:1] for view in views])
    kept = first[0].clone(), first[1]["mouth"].clone()
    for values in (*network.parameters(), *network.buffers()):
        values.zero_()
    prepared.forward_views([view[1:] for view in views])
    again = prepared.forward_views([view[:1] for view in views])
    for found in (first, again):
        assert torch.equal(found[0], kept[0]) and torch.equal(found[1]["mouth"], kept[1])


def test_threads_share_a_prepared_network() -> None:
    network = _pcnn(48)
    prepared = prepare(network)
    faces = [[view[i : i + 1] for view in _views(network, 4)] for i in range(4)]
    expected = [prepared.forward_views(views)[0] for views in faces]
    found: list[list[Tensor]] = [[] for _ in faces]

    def work(slot: int) -> None:
        found[slot] = [prepared.forward_views(faces[slot])[0] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, wanted in zip(found, expected, strict=True):
        assert len(own) == 20 and all(torch.equal(one, wanted) for one in own)


def test_a_prepared_network_can_be_sent_to_another_process() -> None:
    network = _pcnn(48)
    prepared, views = prepare(network), _views(network, 1)
    expected = prepared.forward_views(views)[0]
    assert torch.equal(pickle.loads(pickle.dumps(prepared)).forward_views(views)[0], expected)


@pytest.mark.parametrize("kind", [PCNN, FaceNet])
def test_other_types_run_through_the_network_s_own_modules(kind: type[PCNN | FaceNet]) -> None:
    """What runs on a GPU, here in float64, where folding is as good as exact."""
    torch.manual_seed(0)
    network = _settled(kind(_config(48))).double()
    views = [view.double() for view in _views(network, 2)]
    logits, regions = prepare(network).forward_views(views)
    expected, own = network.forward_views(views)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    assert list(regions) == list(own)
    for name in own:
        torch.testing.assert_close(regions[name], own[name], rtol=1e-10, atol=1e-10)
    assert prepare(network).embed_views(views).shape == (2, 64)


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(InputError, match=r"prepare: network must be in eval mode; call its eval"):
        prepare(PCNN(_config(48)))


def test_a_face_net_s_file_makes_a_recognizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _settled(FaceNet(_config(64)))
    metadata = {
        "architecture": "trunk",
        "config": asdict(network.config),
        "template": [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]],
        "native_size": 48,
        "temperature": 0.5,
    }
    path = tmp_path / "small.safetensors"
    weights.write(path, network.state_dict(), metadata)
    picture = np.random.default_rng(0).integers(0, 256, (70, 60, 3), np.uint8)
    found = Recognizer(path, device="cpu").predict_crops(picture)
    assert found.regions == {}
    assert sum(found.scores.values()) == pytest.approx(1, abs=1e-5)
    assert found.confidence == max(found.scores.values()) > 0.13
