"""Networks joined in one file answer together, calibrated on validation faces."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from hostile import TEMPLATE
from PIL import Image

from pcnn import weights
from pcnn.errors import InputError, WeightsError
from pcnn.networks.ensemble import Ensemble
from pcnn.networks.pcnn import FERPLUS_CLASSES, PCNN, FaceNet, Learner, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.training.expression.ensemble import join_networks
from pcnn.training.expression.start import initial, options_of
from pcnn.weights.expression import load_learners
from pcnn.weights.files import WeightsFile

pytestmark = pytest.mark.train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 validation faces as FER+ contact sheets, of two classes."""
    tiles = np.random.default_rng(0).integers(0, 255, (40, 48, 48), dtype=np.uint8)
    Image.fromarray(np.concatenate(list(tiles), 1)).save(tmp_path / "valid_00.png")
    with (tmp_path / "valid.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *FERPLUS_CLASSES, "unknown", "NF", "fer2013", "duplicate"])
        for number in range(40):
            votes = [10 * (number % 2 == place) for place in range(8)]
            rows.writerow([f"fer{number:07}", *votes, 0, 0, "", 0])
    return tmp_path


def write(path: Path, network: PCNN | FaceNet, **changes: object) -> Path:
    metadata = {
        "kind": "expression",
        "architecture": "pcnn" if isinstance(network, PCNN) else "trunk",
        "config": asdict(network.config),
        "native_size": 48,
        "template": TEMPLATE,
        "temperature": 0.8,
        "region_temperatures": dict.fromkeys(network.regions, 0.5),
        "class_shares": [0.125] * 8,
    }
    weights.write(path, network.state_dict(), metadata | changes)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    grey = ModelConfig(size=32, mean=(0.5,), std=(0.25,), width=4)
    colour = ModelConfig(size=48, width=4, backbone="mobilenet")
    return [
        write(tmp_path / "regions.safetensors", PCNN(grey)),
        write(tmp_path / "plain.safetensors", FaceNet(colour)),
    ]


def test_joined_networks_answer_together(data: Path, files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "both.safetensors"
    words = ["ensemble", *map(str, files), "--data", str(data), "--output", str(output)]
    assert cli.train([*words, "--shares", "3", "1", "--threads", "1"]) == 0
    loaded = weights.load_expression(output)
    assert isinstance(loaded.network, Ensemble)
    assert [one.share for one in loaded.network.members] == [0.75, 0.25]
    assert set(loaded.region_temperatures) == set(REGIONS)
    assert loaded.temperature != 1 and loaded.class_shares == (0.125,) * 8
    assert list(loaded.metadata["scores"]) == [f"{data.name}, 40 validation faces"]
    for path, network in zip(files, loaded.network.networks, strict=True):
        alone = weights.load_expression(path).network.state_dict()
        assert all(torch.equal(alone[name], own) for name, own in network.state_dict().items())
        kind = "pcnn" if isinstance(network, PCNN) else "trunk"
        start = initial(str(output), kind).network  # for another training
        assert type(start) is type(network) and start.training
        assert all(torch.equal(alone[name], own) for name, own in start.state_dict().items())
        assert options_of(str(output), kind)["size"] == network.config.size


def test_networks_that_cannot_be_joined(data: Path, files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "both.safetensors"
    with pytest.raises(InputError, match="shares must be positive, one a network, got"):
        join_networks(files, data, output, shares=[1.0])
    with pytest.raises(InputError, match="shares must be positive"):
        join_networks(files, data, output, shares=[1.0, -1.0])
    other = write(tmp_path / "other.safetensors", FaceNet(ModelConfig(size=48)), native_size=32)
    with pytest.raises(InputError, match="the same size of training faces"):
        join_networks([files[0], other], data, output)
    with pytest.raises(InputError, match="two networks or more"):
        join_networks(files[:1], data, output)
    with pytest.raises(InputError, match="shares must be positive"):
        join_networks(files, data, output, shares=[1.0, float("nan")])
    assert not output.exists()
    join_networks(files, data, output)
    with pytest.raises(InputError, match=r"both.safetensors is an ensemble; name its networks'"):
        join_networks([output, files[0]], data, tmp_path / "again.safetensors")


def test_an_ensemble_is_no_start_for_training(
    data: Path, files: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "both.safetensors"
    join_networks(files, data, output)
    with pytest.raises(WeightsError, match="is an ensemble; name the file of one network"):
        weights.load_learner(output)


SEVEN = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def write_with_second(path: Path, network: PCNN | FaceNet) -> Path:
    """As write, with heads for FER2013's labels."""
    learner = Learner(network, SEVEN)
    own = {"classes": SEVEN, "temperature": 0.9, "class_shares": [1 / 7] * 7}
    labels = {"fer2013": own | {"region_temperatures": dict.fromkeys(network.regions, 0.5)}}
    write(path, network, labels=labels)
    file = WeightsFile(path)
    heads = {f"labels.fer2013.{name}": t for name, t in learner.second.state_dict().items()}
    weights.write(path, file.stored() | heads, file.metadata)
    return path


def test_second_labels_are_joined_and_need_data_that_have_them(
    data: Path, files: list[Path], tmp_path: Path
) -> None:
    for path in files:
        write_with_second(path, weights.load_network(path))
    output = tmp_path / "both.safetensors"
    with pytest.raises(InputError):  # none of these faces has such a label
        join_networks(files, data, output, shares=[3, 1])
    assert not output.exists()

    table = data / "valid.csv"
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    for number, row in enumerate(rows[1:]):
        row[-2] = ("happiness", "fear")[number % 2]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    join_networks(files, data, output, shares=[3, 1], second_shares=[1, 1])
    loaded = weights.load_expression(output, "fer2013")
    described = loaded.metadata["labels"]["fer2013"]
    assert list(described["scores"]) == ["40 validation faces"]
    assert loaded.network.config.classes == SEVEN and loaded.class_shares == (1 / 7,) * 7
    assert loaded.temperature == described["temperature"] != 0.9

    faces = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    both, own = loaded.network, [weights.load_expression(path, "fer2013") for path in files]
    each = [
        one.network.forward_views(show(faces))[0]
        for one, show in zip(own, both.inputs, strict=True)
    ]
    expected = sum(
        share * (logits / 0.9).log_softmax(1)
        for share, logits in zip((0.5, 0.5), each, strict=True)
    )
    torch.testing.assert_close(both.forward_views([faces])[0], expected)
    eight = weights.load_expression(output).network
    assert eight.config.classes == FERPLUS_CLASSES
    assert [member.share for member in eight.members] == [0.75, 0.25]
    join_networks(files, data, output, shares=[0.01, 100])  # allowed, whatever they are scaled to
    with pytest.raises(InputError, match="second_shares must be positive, one a network, got"):
        join_networks(files, data, output, second_shares=[1.0])
    learners = load_learners(output)  # as teachers of both kinds of labels
    assert [learner.classes for learner in learners] == [SEVEN, SEVEN]


def test_heads_of_one_network_are_left_out(data: Path, files: list[Path], tmp_path: Path) -> None:
    write_with_second(files[0], weights.load_network(files[0]))
    output = tmp_path / "both.safetensors"
    join_networks(files, data, output)
    assert "labels" not in weights.load_expression(output).metadata
    with pytest.raises(InputError, match=r"has second labels: none; the packaged weights with"):
        weights.load_expression(output, "fer2013")
