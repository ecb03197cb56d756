"""Saliency maps, and the product of face and map wherever a network is given faces."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from pcnn import InputError, Recognizer, WeightsError, saliency, weights
from pcnn.commands import train_expression as expression_command
from pcnn.commands.saliency import draw_row
from pcnn.datasets.labels import FaceSet
from pcnn.embeddings.heads import unit_norm
from pcnn.engines.folding import split_head
from pcnn.evaluation.logits import predict_logits
from pcnn.faces.resampling import resample, to_planes
from pcnn.images.loading import load_image
from pcnn.networks.pcnn import PCNN, ModelConfig
from pcnn.networks.regions import REGIONS, VIEWS, normalise
from pcnn.networks.saliency import blur, centre, saliency_maps, weigh
from pcnn.training.expression import run as train_expression
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions

ROOT = Path(__file__).parent.parent.parent
TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
CONFIG = ModelConfig(size=32, mean=(0.5,), std=(0.25,), width=8)
Captured = pytest.CaptureFixture[str]


class Blind:
    """A detector for those who have faces already."""

    def detect(self, images: Sequence[Any], *, min_score: float | None = None) -> list[Any]:
        return [() for _ in images]


def _faces(count: int, channels: int = 1, size: int = 32, seed: int = 0) -> Tensor:
    """(count, channels, size, size) of 0…1, smooth, each another."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, 8, 8), generator=draw)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


@functools.cache
def _numbers() -> dict[str, Tensor]:
    """Of a narrow random network whose answers differ from face to face."""
    torch.manual_seed(0)
    network = PCNN(CONFIG).train()
    for _ in range(4):  # settles the batch norms
        network(torch.randn(8, 1, 32, 32))
    return network.state_dict()


def _file(folder: Path, model: object = None) -> Path:
    """Weights of one and the same network, to be given the products that `model` makes."""
    config = dataclasses.asdict(CONFIG)
    del config["saliency"]  # as files were written before there was any
    metadata = {
        "architecture": "pcnn",
        "config": config if model is None else {**config, "saliency": model},
        "template": TEMPLATE,
        "native_size": 32,
        "temperature": 0.5,
        "region_temperatures": dict.fromkeys(REGIONS, 1.5),
    }
    path = folder / f"{model}.safetensors"
    weights.write(path, _numbers(), metadata)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _file(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, to be given products."""
    return _file(tmp_path_factory.mktemp("weighed"), "spectral_residual")


# --- maps ---


@pytest.mark.parametrize("dot", [0.9, 0.41, 0.1])
def test_a_lone_dot_is_the_most_salient_place(dot: float) -> None:
    face = torch.full((1, 1, 64, 64), 0.4)
    face[0, 0, 20, 41] = dot
    (found,) = saliency_maps(face)[0]
    assert divmod(int(found.argmax()), 64) == (20, 41)
    assert found[20, 41] == 1
    far = (torch.arange(64)[:, None] - 20) ** 2 + (torch.arange(64) - 41) ** 2 > 12**2
    assert found[far].max() < 0.01


def test_features_are_salient_and_shading_is_not() -> None:
    """Three dark dots, as eyes and a mouth, on a ground that is lit from one side."""
    face = torch.linspace(0.4, 0.9, 64).repeat(64, 1)
    dots = torch.zeros(64, 64, dtype=torch.bool)
    for row, column in ((20, 20), (20, 44), (46, 32)):
        dots[row - 1 : row + 2, column - 2 : column + 3] = True
    face[dots] -= 0.3
    (found,) = saliency_maps(face[None, None])[0]
    near = blur(dots[None].float(), 4.0)[0] > 0.001
    assert found[dots].min() > 0.3
    assert found[~near].mean() < 0.05


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_on_a_flat_picture_all_places_are_alike(value: float) -> None:
    face = torch.full((2, 1, 40, 30), value)
    face[1] = (face[1] + 0.001 * torch.rand(40, 30)).clamp(max=1)  # less than half a grey level
    torch.testing.assert_close(saliency_maps(face), torch.ones(2, 1, 40, 30), atol=1e-6, rtol=0)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 4), st.sampled_from((1, 3)), *[st.integers(2, 80)] * 2),
    model=st.sampled_from(tuple(saliency._MODELS)),
)
def test_maps_of_any_pictures(seed: int, shape: tuple[int, ...], model: str) -> None:
    """In 0…1 and the same one by one as in a batch, which stays as it is."""
    faces = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    kept = faces.clone()
    maps = saliency_maps(faces, model)
    assert maps.shape == (shape[0], 1, *shape[2:])
    assert maps.min() >= 0 and maps.max() <= 1  # neither holds for NaN
    assert torch.equal(faces, kept)
    alone = torch.cat([saliency_maps(face[None], model) for face in faces])
    # Sums are in another order in a batch, and residuals divide by small amplitudes.
    torch.testing.assert_close(alone, maps, atol=1e-4, rtol=0)


def test_the_spectral_residual_is_that_of_the_fourier_transform() -> None:
    """Hou and Zhang's five lines on the picture and its mirror images, with NumPy."""
    face = _faces(1, size=64)
    whole = face[0, 0].double().numpy()
    whole = np.concatenate((whole, whole[:, ::-1]), 1)
    spectrum = np.fft.fft2(np.concatenate((whole, whole[::-1])), norm="forward")
    logs = np.log(np.abs(spectrum) + 1e-5)
    # By its symmetry the middle of the spectrum is 0, which is no neighbour to go by.
    logs[64], logs[:, 64] = logs[62], logs[:, 62]
    usual = sum(np.roll(logs, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1))
    residual = np.exp(logs - usual / 9 + 1j * np.angle(spectrum))
    residual *= np.abs(spectrum) / (np.abs(spectrum) + 1e-5)
    residual[0, 0] = 0
    energy = np.abs(np.fft.ifft2(residual)[:64, :64]) ** 2
    expected = blur(torch.from_numpy(energy)[None], 2.5)
    torch.testing.assert_close(
        saliency_maps(face)[0].double(), expected / expected.max(), atol=1e-3, rtol=0
    )


def test_colour_is_seen_as_luma() -> None:
    colour = _faces(2, channels=3)
    luma = (colour * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(saliency_maps(colour), saliency_maps(luma), atol=1e-3, rtol=0)


def test_the_centre_is_the_same_for_every_face() -> None:
    maps = centre(_faces(2, size=4))
    corner = np.exp(-(0.375**2 + 0.375**2) / (2 * 0.25**2))
    inner = np.exp(-(0.125**2 + 0.125**2) / (2 * 0.25**2))
    assert maps[0, 0, 0, 0] == pytest.approx(corner) and maps[1, 0, 1, 2] == pytest.approx(inner)
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps, maps.flip(2, 3))


def test_what_a_model_of_ones_own_may_return() -> None:
    faces = _faces(3)
    assert torch.equal(saliency_maps(faces, lambda given: given[:, :1]), faces)
    assert saliency_maps(faces[:0]).shape == (0, 1, 32, 32)
    with pytest.raises(InputError, match=r"maps must be \(3, 1, 32, 32\), got \(3, 32, 32\)"):
        saliency_maps(faces, lambda given: given[:, 0])
    with pytest.raises(InputError, match=r"maps must lie in 0…1, got 2…2"):
        saliency_maps(faces, lambda given: torch.full_like(given, 2))
    with pytest.raises(InputError, match=r"maps must lie in 0…1, got nan…nan"):
        saliency_maps(faces, lambda given: given * torch.nan)
    with pytest.raises(InputError, match=r"faces must be \(B, 1 or 3, H, W\), got \(3, 2, 8, 8\)"):
        saliency_maps(torch.zeros(3, 2, 8, 8))
    with pytest.raises(InputError, match=r"is called 'Itti'; known are spectral_residual, centre"):
        saliency_maps(faces, "Itti")
    with pytest.raises(InputError, match="register: 'centre' is already the name"):
        saliency.register("centre", centre)


def test_the_pages_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "_MODELS", dict(saliency._MODELS))
    page = (ROOT / "docs" / "saliency.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(example, "saliency.md", "exec"), scope)
    again = saliency_maps(scope["faces"], "contrast")
    assert torch.equal(scope["maps"], again)


# --- products ---


def test_faces_and_regions_are_multiplied_by_hand() -> None:
    """A face of 0.5 under a map that falls from 1 to 0 along its rows."""

    def falling(faces: Tensor) -> Tensor:
        assert torch.allclose(faces, torch.tensor(0.5))  # not normalised any more
        return torch.linspace(1, 0, 32).view(1, 1, 32, 1).expand(len(faces), 1, 32, 32)

    views = PCNN(CONFIG).cut(torch.zeros(2, 1, 32, 32))  # 0.5, normalised
    products = weigh(views, CONFIG, falling)
    assert [each.shape for each in products] == [each.shape for each in views]
    rows = products[0][1, 0, :, 7]
    # 0.5 · map, less the mean 0.5, over the deviation 0.25
    assert rows[0] == 0 and rows[31] == -2
    torch.testing.assert_close(rows[1], torch.tensor((0.5 * 30 / 31 - 0.5) / 0.25))
    mouth = products[VIEWS.index("mouth")]
    assert torch.equal(mouth[0, 0, :, 0], rows[int(32 * 0.65) :])


@pytest.mark.parametrize("model", tuple(saliency._MODELS))
def test_a_regions_product_is_a_part_of_the_faces(model: str) -> None:
    network = PCNN(ModelConfig(size=48, width=8, saliency=model))
    face = torch.randn(2, 3, 48, 48)
    together = weigh(network.cut(face), network.config)
    alone = weigh([face], network.config)
    assert len(alone) == 1 and not torch.equal(alone[0], face)
    for one, other in zip(together, network.cut(alone[0]), strict=True):
        assert torch.equal(one, other)


def test_without_a_model_views_are_passed_on() -> None:
    views = PCNN(CONFIG).cut(torch.randn(2, 1, 32, 32))
    assert all(one is other for one, other in zip(weigh(views, CONFIG), views, strict=True))


# --- weights ---


def test_weights_name_the_model(plain: Path, weighed: Path, tmp_path: Path) -> None:
    assert weights.load_expression(plain).saliency is None
    assert weights.load_expression(weighed).saliency == "spectral_residual"
    assert weights.load_network(weighed).config.saliency == "spectral_residual"
    again = tmp_path / "again.safetensors"
    network = weights.load_network(weighed)
    metadata = {**weights.read(weighed)[1], "config": dataclasses.asdict(network.config)}
    weights.write(again, network.state_dict(), metadata)
    assert weights.load_expression(again).saliency == "spectral_residual"


@pytest.mark.parametrize("name", ["DeepGaze", "", ["centre"], {"a": 1}])
def test_weights_of_an_unknown_model(name: object, tmp_path: Path) -> None:
    path = _file(tmp_path, name).rename(tmp_path / "unknown.safetensors")
    for load in (weights.load_expression, weights.load_network):
        with pytest.raises(WeightsError) as raised:
            load(path)
        if isinstance(name, str):
            known = ", ".join(tuple(saliency._MODELS))
            assert f"no saliency model is called {name!r}; known are {known}" in str(raised.value)


def test_a_model_of_ones_own_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "_MODELS", dict(saliency._MODELS))
    path = _file(tmp_path, "mine")
    with pytest.raises(WeightsError, match="'mine'"):
        weights.load_expression(path)
    saliency.register("mine", lambda faces: torch.full_like(faces[:, :1], 0.5))
    loaded = weights.load_expression(path)
    faces = (255 * _faces(2)[:, 0]).byte()
    logits, _ = predict_logits(loaded.network, faces)
    bare = dataclasses.replace(CONFIG, mean=(1.0,), std=(0.5,))  # (v / 2 − 0.5) / 0.25
    loaded.network.config = bare
    torch.testing.assert_close(predict_logits(loaded.network, faces)[0], logits)


# --- evaluation and prediction ---


@pytest.mark.parametrize("native_size", [None, 32])
def test_evaluation_obeys(plain: Path, weighed: Path, native_size: int | None) -> None:
    faces = (255 * _faces(3)[:, 0]).byte()
    network = weights.load_expression(plain).network
    before, _ = predict_logits(network, faces, native_size=native_size)
    after, regions = predict_logits(
        weights.load_expression(weighed).network, faces, native_size=native_size
    )
    assert (after - before).abs().max() > 0.01
    pixels = faces[:, None].float() / 255
    product = (pixels * saliency_maps(pixels) - 0.5) / 0.25
    logits, own = network.forward_views(network.cut(product))
    torch.testing.assert_close(after, logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(regions["mouth"], own["mouth"], atol=1e-3, rtol=1e-3)


def test_the_recognizer_obeys(plain: Path, weighed: Path) -> None:
    """Answers, vectors and explanations are of the product."""
    picture = (255 * _faces(1)[0, 0]).byte()
    pixels = picture[None, None].float() / 255
    product = (pixels * saliency_maps(pixels) - 0.5) / 0.25
    network = weights.load_expression(plain).network
    assert isinstance(network, PCNN)
    logits, _ = network.forward_views(network.cut(product))
    other = Recognizer(plain, Blind(), "cpu").predict_crops(picture.numpy())
    recognizer = Recognizer(weighed, Blind(), "cpu")
    found = recognizer.predict_crops(picture.numpy())
    scores = list(found.scores.values())
    assert scores == pytest.approx((logits[0] / 0.5).softmax(0).tolist(), abs=1e-3)
    assert np.abs(np.subtract(scores, list(other.scores.values()))).max() > 0.01
    bare, _ = split_head(network)
    vector, _ = bare.forward_views(network.cut(product))
    expected = unit_norm(vector.numpy())[0]
    np.testing.assert_allclose(recognizer.embed_crops(picture.numpy()), expected, atol=1e-3)
    explained = recognizer.explain_crops(picture.numpy())
    assert list(explained.expression.scores.values()) == pytest.approx(scores, abs=1e-3)


# --- training ---


def _set(count: int = 16) -> FaceSet:
    votes = torch.eye(8)[torch.arange(count) % 2]
    names = tuple(str(i) for i in range(count))
    return FaceSet((255 * _faces(count, size=48)[:, 0]).byte(), votes, names)


OPTIONS = ExpressionOptions(
    network="trunk", data="", output="", size=32, width=8, epochs=1, batch=8
)


@pytest.mark.train
def test_training_gives_the_network_products(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, saliency="spectral_residual")
    training, without = ExpressionTraining(options, _set()), ExpressionTraining(OPTIONS, _set())
    products, (targets,), _ = training.batch()
    faces, (same,), _ = without.batch()
    assert torch.equal(targets, same)
    pixels = (faces * 0.254 + 0.507).clamp(0, 1)  # normalised as FER+ is
    expected = (pixels * saliency_maps(pixels) - 0.507) / 0.254
    torch.testing.assert_close(products, expected, atol=1e-3, rtol=1e-3)
    assert dataclasses.asdict(training.average.network.config)["saliency"] == "spectral_residual"
    training.save(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="started with another saliency"):
        ExpressionTraining(OPTIONS, _set(), checkpoint=tmp_path / "checkpoint")
    with pytest.raises(InputError, match="no saliency model is called 'Itti'"):
        dataclasses.replace(OPTIONS, saliency="Itti")


@pytest.mark.train
def test_teachers_are_given_what_they_learnt_from(tmp_path: Path) -> None:
    teacher = ExpressionTraining(dataclasses.replace(OPTIONS, saliency="centre"), _set())
    path = tmp_path / "teacher.safetensors"
    config = teacher.learner.network.config
    metadata = {"architecture": "trunk", "config": dataclasses.asdict(config)}
    weights.write(path, teacher.learner.network.state_dict(), metadata)
    options = dataclasses.replace(OPTIONS, teachers=(str(path),), teaching=1.0)
    pupil = ExpressionTraining(options, _set())
    faces = normalise(resample(to_planes(_set().faces), config.size), config)
    products = [weigh([view], config, "centre")[0] for view in (faces, faces.flip(3))]
    network = weights.load_network(path).eval()
    with torch.no_grad():
        expected = ((network(products[0]) + network(products[1])) / 2).softmax(1)  # type: ignore[operator]
    torch.testing.assert_close(pupil.targets, [expected])


@pytest.mark.train
def test_the_commands_option(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    chosen: list[ExpressionOptions] = []

    def pretend(options: ExpressionOptions, **_: Any) -> Path:
        chosen.append(options)
        return Path("x")

    monkeypatch.setattr(train_expression, "train_expression", pretend)
    parser = argparse.ArgumentParser()
    expression_command.add_arguments(parser)
    for extra in ([], ["--saliency", "centre"]):
        given = ["--data", "d", "--output", "o", "--device", "cpu", *extra]
        assert expression_command.run(parser.parse_args(given)) == 0
    assert [options.saliency for options in chosen] == [None, "centre"]


# --- pcnn-saliency ---


def test_a_row_shows_face_map_and_product() -> None:
    face, own = torch.full((1, 32, 32), 0.8), torch.full((1, 32, 32), 0.5)
    row = np.asarray(draw_row(face, own, "centre"))
    assert row.shape == (294, 784, 3)
    assert [row[100, left + 100].tolist() for left in (0, 264, 528)] == [
        [204] * 3,
        [128] * 3,
        [102] * 3,
    ]


def test_the_command_draws_each_face(
    plain: Path, tmp_path: Path, astronaut: Path, capsys: Captured
) -> None:
    crop = tmp_path / "crop.png"
    Image.fromarray((255 * _faces(1)[0, 0]).byte().numpy()).save(crop)
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    common = ["--weights", str(plain), "--output", str(tmp_path / "drawn")]
    assert cli.saliency([str(crop), str(bad), "--faces", *common]) == 1
    assert "bad.png" in capsys.readouterr().err
    drawn = load_image(tmp_path / "drawn" / "crop.saliency.png")
    expected = draw_row(*_row_of(crop), "spectral_residual")
    assert np.abs(drawn.astype(int) - np.asarray(expected, int)).max() <= 2
    assert cli.saliency([str(astronaut), "--model", "centre", *common]) == 0
    assert "1 face of 1 picture\n" in capsys.readouterr().err
    assert load_image(tmp_path / "drawn" / "astronaut.saliency.png").shape == (294, 784, 3)
    assert cli.saliency([str(bad), "--faces", *common]) == 2
    assert cli.saliency([str(tmp_path / "absent.png"), *common]) == 2
    capsys.readouterr()
    assert cli.saliency([str(crop), "--model", "Itti", *common]) == 2
    assert "no saliency model is called 'Itti'" in capsys.readouterr().err


def test_a_drawing_that_cannot_be_written_is_one_failed_picture(
    plain: Path, tmp_path: Path, capsys: Captured
) -> None:
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for file in files:
        Image.new("L", (32, 32), 90).save(file)
    output = tmp_path / "drawn"
    (output / "b.saliency.png").mkdir(parents=True)
    words = ["--faces", "--weights", str(plain), "--output", str(output)]
    assert cli.saliency([*map(str, files), *words]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"pcnn-saliency: {output / 'b.saliency.png'}: cannot be written (")
    assert told[1:] == [f"{output}: 2 faces of 2 pictures"]
    assert all((output / f"{name}.saliency.png").is_file() for name in "ac")


def test_a_photograph_taken_for_a_face_gets_a_hint(
    plain: Path, tmp_path: Path, capsys: Captured
) -> None:
    wide, other = tmp_path / "wide.png", tmp_path / "other.png"
    for file in (wide, other):
        Image.new("L", (64, 32), 90).save(file)
    words = ["--faces", "--weights", str(plain), "--output", str(tmp_path / "drawn")]
    assert cli.saliency([str(wide), str(other), *words]) == 0
    told = capsys.readouterr().err
    assert told.count("pcnn-saliency: hint: ") == 1
    assert "64 × 32 pixels" in told


def _row_of(file: Path) -> tuple[Tensor, Tensor]:
    """A face of 32 × 32 pixels and its map, each (1, 32, 32)."""
    face = torch.from_numpy(load_image(file)[:, :, 0].astype(np.float32) / 255)[None]
    return face, saliency_maps(face[None])[0]
