"""Weights files of movement networks: written, read, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from motion import NAMES, movement_file, movement_net

from pcnn import weights
from pcnn.errors import WeightsError
from pcnn.weights.movements import load_movements


def test_a_file_gives_the_same_network(tmp_path: Path) -> None:
    path = movement_file(tmp_path / "m.safetensors", mirror=True)
    loaded = load_movements(path)
    assert loaded.network.config == movement_net().config and loaded.mirror
    faces = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        pairs = zip(loaded.network(faces), movement_net()(faces), strict=True)
    for found, expected in pairs:  # half precision
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.01)
    assert loaded.network.twins.dtype == torch.int64


def _changed(path: Path, **values: Any) -> Path:
    tensors, metadata = weights.read(movement_file(path))
    tensors.update({k: v for k, v in values.items() if isinstance(v, torch.Tensor)})
    metadata.update({k: v for k, v in values.items() if not isinstance(v, torch.Tensor)})
    weights.write(path, tensors, metadata)
    return path


CONFIG = {
    "movements": list(NAMES),
    "points": 8,
    "size": 32,
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "width": 2,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "detector"}, "holds no movement network but 'detector'"),
        ({"template": [[0, 0]] * 4}, "template must be a list of 5"),
        ({"config": CONFIG | {"movements": ["jawOpen"] * 3}}, "movements must be a list of diff"),
        ({"config": CONFIG | {"std": [0, 1, 1]}}, r"std\[0\] must be a number"),
        ({"config": CONFIG | {"points": 9}}, "must be"),
        ({"config": CONFIG | {"colour": 1}}, "colour"),
        ({"mirror": "yes"}, "mirror must be true or false"),
        ({"twins": torch.zeros(8, dtype=torch.int32)}, "twins must be an order of the points"),
        ({"pose.bias": torch.full((3,), torch.nan)}, "pose.bias"),
    ],
)
def test_files_that_lie_are_refused(tmp_path: Path, values: Any, message: str) -> None:
    path = _changed(tmp_path / "m.safetensors", **values)
    with pytest.raises(WeightsError, match=message) as caught:
        load_movements(path)
    assert str(caught.value).startswith(str(path))


def test_other_kinds_of_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match="mobile: holds weights of kind expression"):
        load_movements("mobile")
