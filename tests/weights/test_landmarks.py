"""Weights files of landmark networks: written, read, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from motion import landmark_file, landmark_net

from pcnn import weights
from pcnn.errors import WeightsError
from pcnn.weights.landmarks import load_landmarks


def test_a_file_gives_the_same_network(tmp_path: Path) -> None:
    loaded = load_landmarks(landmark_file(tmp_path / "l.safetensors"))
    network = landmark_net()
    assert loaded.network.config == network.config
    faces = torch.randn(4, 1, 32, 32)
    with torch.no_grad():  # half precision
        torch.testing.assert_close(loaded.network(faces), network(faces), atol=0.01, rtol=0.01)


def _changed(path: Path, **values: Any) -> Path:
    tensors, metadata = weights.read(landmark_file(path))
    tensors.update({k: v for k, v in values.items() if isinstance(v, torch.Tensor)})
    metadata.update({k: v for k, v in values.items() if not isinstance(v, torch.Tensor)})
    weights.write(path, tensors, metadata)
    return path


CONFIG = {"size": 32, "mean": [0.5], "std": [0.25]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "movements"}, "holds no landmark network but 'movements'"),
        ({"template": [[0, 0]] * 4}, "template must be a list of 5"),
        ({"config": CONFIG | {"std": [0]}}, r"std\[0\] must be a number"),
        ({"config": CONFIG | {"mean": [0.5] * 3}}, "mean must be a list of 1"),
        ({"config": CONFIG | {"size": 64}}, "must be"),
        ({"config": CONFIG | {"width": 2}}, "width"),
        ({"points.bias": torch.full((10,), torch.nan)}, r"points\.bias"),
    ],
)
def test_files_that_lie_are_refused(tmp_path: Path, values: Any, message: str) -> None:
    path = _changed(tmp_path / "l.safetensors", **values)
    with pytest.raises(WeightsError, match=message) as caught:
        load_landmarks(path)
    assert str(caught.value).startswith(str(path))


def test_other_kinds_of_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match="mobile: holds weights of kind expression"):
        load_landmarks("mobile")
