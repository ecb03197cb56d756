"""Recipes and checkpoints of trainings that are damaged, foreign, or made to do harm."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError, WeightsError
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.recipes import read_recipe
from pcnn.weights.detector import read_detector
from pcnn.weights.upstream import load_upstream

pytestmark = pytest.mark.train


def _training() -> ExpressionTraining:
    faces = torch.arange(8 * 16 * 16).remainder(251).view(8, 16, 16).to(torch.uint8)
    votes = torch.eye(2).repeat(4, 1)
    faces_set = FaceSet(faces, votes, tuple(map(str, range(8))), ("a", "b"))
    return ExpressionTraining(
        ExpressionOptions("trunk", "x", "x", size=16, width=2, batch=4), faces_set
    )


@pytest.mark.parametrize(
    "text",
    [
        *("size = 1e400", "lr = nan", "lr = inf", "size = true", "weight_decay = nan"),
        *("width = 1000000000", "a = " + "[" * 50_000, "size = ", "[augmentation]\nscale = nan"),
        *("augmentation = 3", "lr = " + "9" * 400, "teachers = 3", "\0", "width = -1", "x = 1"),
    ],
    ids=range(15),
)
def test_recipes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError):
        ExpressionOptions(data="x", output="x", **{"network": "trunk", **read_recipe(path)})


@pytest.mark.parametrize("field", ["options", "step", "learner", "average", "optimizer", "targets"])
@pytest.mark.parametrize(
    "value",
    [None, 3, "x", [], {}, {"a": 1}, -1, 1e30, [[1.0]], torch.ones(2), [torch.ones(3)]],
    ids=repr,
)
def test_fields_of_a_checkpoint(field: str, value: Any, tmp_path: Path) -> None:
    training, path = _training(), tmp_path / "x.checkpoint.pt"
    training.advance()
    training.save(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, field: value}, path)
    again = _training()
    harmless = (field == "step" and repr(value) == "3") or (field == "targets" and value is None)
    if harmless:
        again.resume(path)
        again.advance()
        return
    with pytest.raises((WeightsError, InputError), match=r"checkpoint\.pt"):
        again.resume(path)


def test_tensors_of_a_checkpoint(tmp_path: Path) -> None:
    training, path = _training(), tmp_path / "x.checkpoint.pt"
    training.advance()
    training.save(path)
    sound = torch.load(path, weights_only=True)
    moments = sound["optimizer"]["state"]
    for name in ("learner", "average"):
        state = copy.deepcopy(sound)
        state[name]["network.head.bias"][0] = torch.nan
        torch.save(state, path)
        with pytest.raises(WeightsError, match=rf"{name}\.network\.head\.bias holds NaN"):
            _training().resume(path)
        state[name]["network.head.bias"] = torch.zeros(3)
        torch.save(state, path)
        other = r"belongs to another network, see network\.head\.bias"
        with pytest.raises(WeightsError, match=other):
            _training().resume(path)
    for other in (torch.ones(1, 1, 1, 1, 1), torch.full_like(moments[0]["exp_avg"], torch.inf)):
        state = copy.deepcopy(sound)
        state["optimizer"]["state"][0]["exp_avg"] = other
        torch.save(state, path)
        with pytest.raises(WeightsError, match="optimizer"):
            _training().resume(path)


def test_every_cut_of_a_checkpoint(tmp_path: Path) -> None:
    training, path = _training(), tmp_path / "x.checkpoint.pt"
    training.save(path)
    content = path.read_bytes()
    for cut in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:cut])
        with pytest.raises(WeightsError, match=r"not a readable checkpoint"):
            _training().resume(path)


def test_a_tensor_larger_than_its_file(tmp_path: Path) -> None:
    """A pickle of a hundred bytes may describe a tensor of four terabytes."""
    path = tmp_path / "vast.pth"
    vast = torch.ones(1).expand(10**6, 10**6)
    torch.save({"state_dict": {"fc.weight": vast, "body.stage1.0.0.weight": vast}}, path)
    for load in (load_upstream, read_detector):
        with pytest.raises(WeightsError, match=r"but the file holds 4 bytes"):
            load(path)


def test_tensors_of_odd_kinds(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    for odd in (torch.ones(2, device="meta"), torch.ones(2).to_sparse(), torch.ones(2) * 1j):
        torch.save({"body.stage1.0.0.weight": odd}, path)
        with pytest.raises(WeightsError, match=r"odd\.pth"):
            read_detector(path)
        with pytest.raises(WeightsError, match=r"odd\.pth"):
            load_upstream(path)
