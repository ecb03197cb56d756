"""The deconvnet: its parts by hand, the whole against autograd, planted and random maps."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import pcnn.networks.trunk
from pcnn import weights
from pcnn.analysis.deconvnet import (
    STAGES,
    FeatureMap,
    Projection,
    feature_maps,
    maximal_responses,
    parse_map,
    project,
    project_top,
    strongest_maps,
    trunks_of,
    unpool,
)
from pcnn.analysis.deconvnet_pictures import crop_view, draw_face, draw_mosaic, toned
from pcnn.commands import deconvnet as deconvnet_command
from pcnn.errors import InputError
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.views import face_views
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS, RegionLayout
from pcnn.networks.trunk import Trunk, initialise

GREY = ModelConfig(size=32, mean=(0.5,), std=(0.25,), width=4)


def random_trunk(seed: int = 0, channels: int = 1) -> Trunk:
    """Random weights and norms, some of the norms' scales negative, as training makes them."""
    torch.manual_seed(seed)
    trunk = Trunk(channels, 4)
    initialise(trunk)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.7, 0.6)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.get_buffer("running_mean"), 0, 0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return trunk.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> PCNN:
    torch.manual_seed(0)
    fresh = PCNN(GREY).train()
    for _ in range(3):
        fresh(torch.randn(4, 1, 32, 32))
    return fresh.eval()


@pytest.fixture(scope="module")
def faces() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (12, 16, 16), dtype=torch.uint8, generator=draw)


# --- the parts ---


def test_unpooling_puts_values_where_they_came_from() -> None:
    maps = torch.tensor([[[[1.0, 5, 2, 0], [0, 3, 0, 4], [7, 0, 0, 0], [0, 0, 6, 0]]]])
    pooled, switches = F.max_pool2d(maps, 2, return_indices=True)
    assert pooled.tolist() == [[[[5, 4], [7, 6]]]]
    back = unpool(torch.tensor([[[[10.0, 20], [30, 40]]]]), switches, (4, 4))
    assert back[0, 0].tolist() == [[0, 10, 0, 0], [0, 0, 0, 20], [30, 0, 0, 0], [0, 0, 40, 0]]


def test_unpooling_adds_what_overlapping_windows_say_of_one_place() -> None:
    """Pooling as the trunks do: all four windows of 3 × 3 have their maximum at row 1, column 1."""
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 1] = 9
    _, switches = F.max_pool2d(maps, 3, 2, 1, return_indices=True)
    back = unpool(torch.tensor([[[[1.0, 2], [4, 8]]]]), switches, (4, 4))
    assert back[0, 0, 1, 1] == 15
    assert back.count_nonzero() == 1


def test_one_convolution_by_hand() -> None:
    """The first stage comes back as its filter, scaled by norm and response, where it looked."""
    trunk = random_trunk()
    views = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    found = project(trunk, views, "conv1", [3])
    row, column = found.places[0].tolist()
    maps = F.relu(trunk.bn1(trunk.conv1(views)))[0, 3]
    assert maps[row, column] == maps.max() == found.strengths[0] > 0
    signal = torch.zeros(1, 4, 16, 16)
    variance = trunk.bn1.get_buffer("running_var")[3]
    signal[0, 3, row, column] = (
        found.strengths[0] * trunk.bn1.weight[3] / (variance + trunk.bn1.eps) ** 0.5
    )
    expected = F.conv_transpose2d(signal, trunk.conv1.weight, stride=2, padding=3, output_padding=1)
    torch.testing.assert_close(found.pixels, expected)
    top, left = 2 * row - 3, 2 * column - 3  # of the filter's 7 × 7 pixels
    outside = found.pixels.clone()
    outside[..., max(top, 0) : top + 7, max(left, 0) : left + 7] = 0
    assert found.pixels.any() and not outside.any()


# --- the whole ---


class _RectifiedBack(torch.autograd.Function):
    """A rectifier whose gradient is rectified instead of masked: what makes a deconvnet."""

    @staticmethod
    def forward(context: Any, maps: Tensor) -> Tensor:
        return maps.clamp(min=0)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


class _Functional:
    """torch.nn.functional with that rectifier."""

    max_pool2d = staticmethod(F.max_pool2d)

    @staticmethod
    def relu(maps: Tensor, inplace: bool = False) -> Tensor:
        return _RectifiedBack.apply(maps)  # type: ignore[no-any-return,no-untyped-call]


@pytest.mark.parametrize("size", [(32, 32), (33, 21), (11, 32)])
@pytest.mark.parametrize("stage", STAGES)
def test_it_is_autograd_with_rectified_gradients(
    stage: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second reckoning of everything, by PyTorch's own gradients of its own layers."""
    trunk = random_trunk(channels=3)
    views = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(3))
    channels = torch.tensor([0, 1, 3, 2, 1])
    found = project(trunk, views, stage, channels)
    monkeypatch.setattr(pcnn.networks.trunk, "F", _Functional)
    kept: list[Tensor] = []
    if stage != "conv1":
        trunk.get_submodule(stage).register_forward_hook(lambda *given: kept.append(given[2]))
    leaf = views.clone().requires_grad_()
    trunk(leaf)
    maps = kept[0] if kept else _Functional.relu(trunk.bn1(trunk.conv1(leaf)))
    own = maps[torch.arange(5), channels].flatten(1)
    strengths, flat = own.max(1)
    width = maps.shape[3]
    torch.testing.assert_close(found.strengths, strengths)
    assert found.places.tolist() == [[int(i) // width, int(i) % width] for i in flat]
    (gradient,) = torch.autograd.grad((strengths**2 / 2).sum(), leaf)  # each times its response
    torch.testing.assert_close(found.pixels, gradient, atol=1e-4, rtol=1e-4)
    assert found.pixels.flatten(1).any(1).sum() >= 4  # hardly any is dead


def test_without_any_effect_of_rectifiers_it_is_the_gradient() -> None:
    """All weights and pixels above 0: a linear network, but for the pooling."""
    trunk = random_trunk()
    for parameter in trunk.parameters():
        parameter.abs_().add_(0.01)
    for name, buffer in trunk.named_buffers():
        if name.endswith("running_mean"):
            buffer.zero_()
    views = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(4)) + 0.1
    found = project(trunk, views, "layer3", [5, 2])
    leaf = views.clone().requires_grad_()
    peaks = trunk(leaf)[torch.arange(2), torch.tensor([5, 2])].amax((1, 2))
    (gradient,) = torch.autograd.grad(peaks.sum(), leaf)
    assert gradient.min() >= 0 and gradient.any()
    torch.testing.assert_close(
        found.pixels / found.strengths.view(2, 1, 1, 1), gradient, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("stage", ["conv1", "layer1"])
def test_a_map_that_detects_a_patch_projects_onto_it(stage: str) -> None:
    """The patch lies elsewhere in each of four faces of noise; the projection follows it.

    The blocks of layer1 hand on what they get, so that its map is the pooled one of conv1.
    """
    draw = torch.Generator().manual_seed(5)
    pattern = torch.randn(7, 7, generator=draw).sign()
    trunk = random_trunk()
    trunk.conv1.weight[2] = pattern / 7
    views = 0.3 * torch.randn(4, 1, 64, 64, generator=draw)
    corners = [(5, 9), (5, 41), (39, 11), (41, 43)]
    for view, (top, left) in zip(views, corners, strict=True):
        view[0, top : top + 7, left : left + 7] = pattern
    trunk.bn1.weight[2], trunk.bn1.bias[2] = 1.0, 0.0
    for block in trunk.layer1:
        block.bn2.weight.zero_()  # type: ignore[operator,union-attr]
        block.bn2.bias.zero_()  # type: ignore[operator,union-attr]
    found = project(trunk, views, stage, [2] * 4)
    for view, (top, left) in zip(found.pixels[:, 0], corners, strict=True):
        assert (view[top : top + 7, left : left + 7].sign() == pattern).all()
        view[top : top + 7, left : left + 7] = 0
        assert not view.any()


def test_other_weights_give_another_projection() -> None:
    """Adebayo et al. 2018: what did not change would show the face, not the network."""
    views = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(6))
    first = project(random_trunk(0), views, "layer2", [1]).pixels.flatten()
    other = random_trunk(0)
    other.layer2.load_state_dict(random_trunk(1).layer2.state_dict())
    second = project(other, views, "layer2", [1]).pixels.flatten()
    assert first.any() and second.any()
    assert abs(float(F.cosine_similarity(first, second, dim=0))) < 0.5


def test_a_dead_map_gives_nothing_back() -> None:
    trunk = random_trunk()
    trunk.bn1.weight[1], trunk.bn1.bias[1] = 0.0, -1.0
    found = project(trunk, torch.randn(1, 1, 16, 16), "conv1", [1])
    assert found.strengths.tolist() == [0] and not found.pixels.any()
    assert np.asarray(toned(found.pixels[0].numpy())).std() == 0


# --- maps, faces, mosaics ---


def test_names_of_maps(network: PCNN) -> None:
    maps = feature_maps(network)
    assert len(maps) == len(set(maps)) == 6 * (4 + 4 + 8 + 16)
    assert str(maps[0]) == "face/conv1/0" and str(maps[-1]) == "mouth/layer3/15"
    assert all(parse_map(str(each), network) == each for each in maps)
    assert set(trunks_of(FaceNet(GREY))) == {"face"}
    assert len(feature_maps(network, ("mouth",))) == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mouth/17", "text must be like face/layer3/17, got 'mouth/17'"),
        ("mouth/layer3/-1", "text must be like"),
        ("nose/layer3/1", "trunk must be one of face, left_eye, .*, got 'nose'"),
        ("mouth/layer4/1", "stage must be one of conv1, layer1, layer2, layer3, got 'layer4'"),
        ("mouth/layer3/16", r"mouth/layer3 has maps 0…15, got 16"),
    ],
)
def test_maps_that_are_not_there(network: PCNN, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_map(text, network)


def test_what_cannot_be_projected(network: PCNN, faces: Tensor) -> None:
    trunk, views = network.trunks["face"], torch.zeros(2, 1, 32, 32)
    with pytest.raises(InputError, match=r"views must be \(any, 1, any, any\), got \(2, 3, 8, 8\)"):
        project(trunk, torch.zeros(2, 3, 8, 8), "conv1", [0, 0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"stage must be one of .*, got 'layer4'"):
        project(trunk, views, "layer4", [0, 0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"channels must be \(2\), got \(1,\)"):
        project(trunk, views, "conv1", [0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"channels must lie in 0…3, got \[0, 4\]"):
        project(trunk, views, "conv1", [0, 4])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="count must be at least 1, got 0"):
        project_top(network, faces, FeatureMap("face", "conv1", 0), native_size=16, count=0)
    with pytest.raises(InputError, match="views of face must be"):
        strongest_maps(network, face_views(network, faces, 16))


def test_faces_are_read_as_they_are_scored(network: PCNN, faces: Tensor) -> None:
    colours = faces[..., None].expand(-1, -1, -1, 3).contiguous()
    colours[..., 2] //= 2
    for some, native in ((faces, 16), (colours, 16), (faces, 8)):
        with torch.no_grad():
            found, _ = network.forward_views(face_views(network, some, native))
        expected, _ = predict_logits(network, some, native_size=native)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(face_views(FaceNet(GREY), faces, 16)) == 1


def test_faces_are_weighed_by_saliency_once(faces: Tensor) -> None:
    network = PCNN(replace(GREY, saliency="centre")).eval()
    with torch.no_grad():
        found, _ = network.forward_views(face_views(network, faces, 16))
    expected, _ = predict_logits(network, faces, native_size=16)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_maximal_responses(network: PCNN, faces: Tensor) -> None:
    found = maximal_responses(network, faces, native_size=16, batch=5)
    maps = feature_maps(network)
    assert found.shape == (12, len(maps))
    views = face_views(network, faces, 16)
    mouth = network.trunks["mouth"](views[-1]).detach().amax((2, 3))
    torch.testing.assert_close(found[:, -16:], mouth, atol=1e-4, rtol=1e-4)
    back = project(network.trunks["mouth"], views[-1], "layer2", [2] * 12)  # type: ignore[arg-type]
    column = maps.index(FeatureMap("mouth", "layer2", 2))
    torch.testing.assert_close(found[:, column], back.strengths, atol=1e-4, rtol=1e-4)
    own = maximal_responses(network, faces, native_size=16, trunks=("mouth",))
    torch.testing.assert_close(own, found[:, -32:], atol=1e-4, rtol=1e-4)


def test_the_strongest_faces_of_a_map(network: PCNN, faces: Tensor) -> None:
    chosen = FeatureMap("left_eye", "layer1", 1)
    responses = maximal_responses(network, faces, native_size=16)
    column = responses[:, feature_maps(network).index(chosen)]
    top, found = project_top(network, faces, chosen, native_size=16)
    assert top == column.argsort(descending=True)[:9].tolist()
    torch.testing.assert_close(found.strengths, column[top], atol=1e-4, rtol=1e-4)
    assert found.pixels.shape == (9, 1, 16, 16)
    assert len(project_top(network, faces[:2], chosen, native_size=16)[0]) == 2


def test_the_strongest_maps_of_a_face(network: PCNN, faces: Tensor) -> None:
    found = strongest_maps(network, face_views(network, faces[:1], 16))
    responses = maximal_responses(network, faces[:1], native_size=16)[0]
    maps = feature_maps(network)
    assert len(found) == 24
    for chosen, back in found.items():
        rivals = [i for i, each in enumerate(maps) if each[:2] == chosen[:2]]
        assert float(back.strengths) == pytest.approx(float(responses[rivals].max()), abs=1e-4)


# --- pictures ---


def test_tones() -> None:
    pixels = np.array([[[0, 1, -2, 2]]], np.float32)
    tones = np.asarray(toned(pixels))
    assert tones.shape == (1, 4, 3)
    assert tones[0, :, 0].tolist() == [128, 191, 0, 255]


def test_a_trunk_sees_its_part_of_the_picture() -> None:
    square = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert np.asarray(crop_view(square, "mouth", RegionLayout()))[..., 0].tolist() == (
        square[6:].tolist()
    )
    assert np.asarray(crop_view(square, "right_eye", RegionLayout())).shape == (5, 5, 3)


def projection_of(count: int) -> Projection:
    """Of the mouth: a bright spot in the middle."""
    pixels = torch.zeros(count, 1, 11, 32)
    pixels[:, :, 4:7, 14:18] = 1
    return Projection(pixels, torch.arange(count, 0, -1.0), torch.zeros(count, 2, dtype=torch.long))


def test_mosaic(faces: Tensor) -> None:
    """Left what was seen or its mean, right what comes back, in rows of three."""
    chosen, squares = FeatureMap("mouth", "layer3", 1), [face.numpy() for face in faces[:9]]
    options = {"faces": 12}
    whole = np.asarray(draw_mosaic(chosen, squares, projection_of(9), RegionLayout(), **options))
    mean = np.asarray(
        draw_mosaic(chosen, squares, projection_of(9), RegionLayout(), **options, show_faces=False)
    )
    half = whole.shape[1] // 2
    assert whole.shape == mean.shape
    assert (whole[110:, half:] == mean[110:, half:]).all()
    assert whole[110:, :half].std() > 1.3 * mean[110:, :half].std()  # a mean has less contrast
    spots = (whole[110:, half:] > 250).all(2)
    assert 3 * 150 < spots.sum() < 9 * 15 * 30  # nine spots
    one = draw_mosaic(chosen, squares[:1], projection_of(1), RegionLayout(), faces=1)
    assert one.height < whole.shape[0]


def test_what_cannot_be_drawn(faces: Tensor) -> None:
    chosen = FeatureMap("mouth", "layer3", 1)
    with pytest.raises(InputError, match="as many as projections, 9, and at least 1, got 2"):
        draw_mosaic(chosen, [faces[0].numpy()] * 2, projection_of(9), RegionLayout(), faces=12)
    with pytest.raises(InputError, match="projections must be at least 1, got 0"):
        draw_face(faces[0].numpy(), {}, RegionLayout())


# --- the command ---


@pytest.fixture(scope="module")
def file(network: PCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "grey.safetensors"
    metadata = {
        "architecture": "pcnn",
        "config": asdict(network.config),
        "template": [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]],
        "native_size": 16,
        "temperature": 1.0,
        "region_temperatures": dict.fromkeys(REGIONS, 1.0),
    }
    weights.write(path, network.state_dict(), metadata)
    return path


@pytest.fixture
def folders(faces: Tensor, tmp_path: Path) -> Path:
    """The faces as pictures in folders named after classes."""
    for place, face in enumerate(faces):
        folder = tmp_path / "data" / ("happiness", "sadness")[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face.numpy()).save(folder / f"{place}.png")
    return tmp_path / "data"


def run(file: Path, *words: object) -> int:
    return cli.deconvnet([*map(str, words), "--weights", str(file), "--device", "cpu"])


def test_a_data_set_and_its_pictures_give_the_same_mosaic(
    file: Path, folders: Path, tmp_path: Path
) -> None:
    options = ("--map", "mouth/layer3/1", "--map", "face/layer1/2")
    assert run(file, "--data", folders, *options, "-o", tmp_path / "new" / "data.png") == 0
    assert run(file, folders, "--faces", *options, "-o", tmp_path / "pictures.png") == 0
    with Image.open(tmp_path / "new" / "data.png") as drawn:
        first = np.asarray(drawn).astype(int)
    with Image.open(tmp_path / "pictures.png") as drawn:
        second = np.asarray(drawn).astype(int)
    assert first.shape == second.shape
    right = first.shape[1] // 2
    assert abs(first[:, right:] - second[:, right:]).mean() < 2


def test_one_face_gives_a_line_for_each_trunk(file: Path, folders: Path, tmp_path: Path) -> None:
    face = folders / "happiness" / "0.png"
    assert run(file, face, "--faces", "-o", tmp_path / "face.png") == 0
    with Image.open(tmp_path / "face.png") as drawn:
        assert drawn.width == 966 and 500 < drawn.height < 1000
        assert np.asarray(drawn)[100:, 300:].std() > 20


def test_faces_are_looked_for_in_photographs(file: Path, astronaut: Path, tmp_path: Path) -> None:
    options = ("--map", "face/conv1/0", "-o", tmp_path / "found.png")
    assert run(file, astronaut, *options) == 0
    with Image.open(tmp_path / "found.png") as drawn:
        seen = np.asarray(drawn)[110:260, 24:174].astype(int)
    assert (seen[..., 0] - seen[..., 2]).mean() > 20  # her face, not the dark suit


def test_few_faces_are_not_hidden_in_their_mean(
    file: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--faces", "--map", "face/conv1/0", "--hide-faces", "-o", tmp_path / "a.png")
    assert run(file, folders / "happiness" / "0.png", *options) == 2
    assert "hidden faces must be at least 5" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_a_bad_picture_does_not_end_the_run(
    file: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    given = (bad, "none*.png", folders / "happiness" / "0.png")
    assert run(file, *given, "--faces", "-o", tmp_path / "a.png") == 1
    assert capsys.readouterr().err.splitlines() == [
        "pcnn-deconvnet: none*.png: no pictures match this pattern",
        f"pcnn-deconvnet: {bad}: the file is empty (0 bytes)",
    ]
    assert (tmp_path / "a.png").exists()


def test_pictures_without_faces(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deconvnet_command, "_read", lambda *_: iter(()))
    assert run(file, "empty.png", "-o", "none.png") == 2
    told = capsys.readouterr().err
    assert (
        told
        == "pcnn-deconvnet: no face found in the pictures: add --faces if each is a cut-out face\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either pictures or --data"),
        (("x.png", "--data", "y"), "give either pictures or --data"),
        (("--data", "y"), "--data and --hide-faces need --map"),
        (("x.png", "--hide-faces"), "--data and --hide-faces need --map"),
        (("x.png", "-o", "x.jpg"), "--output must be a .png, got x.jpg"),
        (("x.png", "--map", "chin/conv1/0"), "trunk must be one of face, left_eye"),
    ],
)
def test_errors_are_one_line(
    file: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, "-o", "x.png", *words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"pcnn-deconvnet: {message}") and told.count("\n") == 1


def test_not_too_many_faces_below_each_other(
    file: Path,
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(deconvnet_command, "_MOST", 0)
    assert run(file, folders, "--faces", "-o", tmp_path / "x.png") == 2
    assert "more than 0 faces: choose feature maps with --map" in capsys.readouterr().err
