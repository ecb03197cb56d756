"""load_upstream against a transcription of the published definition, and against hostile files."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn import weights
from pcnn.errors import WeightsError

State = dict[str, Tensor]
CLASSES = 7
# features… ↔ resnet… ↔ head, in the order face, eyes, cheeks, mouth.
TRUNKS = [(1, "", "fc"), (2, "1", "fc2"), (3, "2", "fc3"), (4, "3", "fc4"), (6, "5", "fc6")]
TRUNKS += [(7, "6", "fc7")]
CHILD = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}


def _norm(name: str, channels: int, draw: torch.Generator) -> State:
    def rand() -> Tensor:
        return torch.rand(channels, generator=draw)

    return {
        f"{name}.weight": 0.5 + rand(),
        f"{name}.bias": rand() - 0.5,
        f"{name}.running_mean": rand() - 0.5,
        f"{name}.running_var": 0.5 + rand(),
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def _conv(name: str, shape: tuple[int, ...], draw: torch.Generator) -> State:
    fan_in = shape[1] * shape[2] * shape[3]
    return {f"{name}.weight": torch.randn(shape, generator=draw) * (2 / fan_in) ** 0.5}


def _resnet18(draw: torch.Generator) -> State:
    state = _conv("conv1", (64, 3, 7, 7), draw) | _norm("bn1", 64, draw)
    width = 64
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            at = f"layer{stage}.{block}"
            state |= _conv(f"{at}.conv1", (channels, width, 3, 3), draw)
            state |= _norm(f"{at}.bn1", channels, draw)
            state |= _conv(f"{at}.conv2", (channels, channels, 3, 3), draw)
            state |= _norm(f"{at}.bn2", channels, draw)
            if block == 0 and stage > 1:
                state |= _conv(f"{at}.downsample.0", (channels, width, 1, 1), draw)
                state |= _norm(f"{at}.downsample.1", channels, draw)
            width = channels
    return state


def _upstream_state() -> State:
    draw = torch.Generator().manual_seed(5)
    state: State = {}
    for suffix in ("", "1", "2", "3", "4", "5", "6"):
        state |= {f"resnet{suffix}.{name}": value for name, value in _resnet18(draw).items()}
    for number, suffix, head in TRUNKS:
        for name, value in list(state.items()):
            owner, _, rest = name.partition(".")
            child, _, below = rest.partition(".")
            if owner == f"resnet{suffix}" and child in CHILD:
                state[f"features{number}.{CHILD[child]}.{below}"] = value
            if owner == "resnet" and number == 1 and child == "layer4":
                state[f"features8.0.{below}"] = value
        size = 512 if head == "fc" else 256
        state[f"{head}.weight"] = torch.randn((CLASSES, size), generator=draw) / size**0.5
        state[f"{head}.bias"] = torch.randn(CLASSES, generator=draw)
    state["fc_loc.0.weight"] = torch.randn((32, 512 * 49), generator=draw) / 150
    state["fc_loc.0.bias"] = torch.randn(32, generator=draw) / 10
    state["fc_loc.2.weight"] = torch.randn((6, 32), generator=draw) / 10
    state["fc_loc.2.bias"] = torch.tensor([0.9, 0.1, 0.05, -0.1, 1.1, 0.0])
    return state


def _bn(state: State, name: str, x: Tensor) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{key}"] for key in keys))


def _stage(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    for block in (0, 1):
        at, step = f"{name}.{block}", stride if block == 0 else 1
        y = F.conv2d(x, state[f"{at}.conv1.weight"], stride=step, padding=1)
        y = F.conv2d(_bn(state, f"{at}.bn1", y).relu(), state[f"{at}.conv2.weight"], padding=1)
        y = _bn(state, f"{at}.bn2", y)
        if f"{at}.downsample.0.weight" in state:
            x = F.conv2d(x, state[f"{at}.downsample.0.weight"], stride=step)
            x = _bn(state, f"{at}.downsample.1", x)
        x = (x + y).relu()
    return x


def _trunk(state: State, name: str, x: Tensor) -> Tensor:
    x = F.conv2d(x, state[f"{name}.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(_bn(state, f"{name}.bn1", x).relu(), 3, 2, 1)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        x = _stage(state, f"{name}.layer{stage}", x, stride)
    return x


def _definition(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """DESIGN.md's "The network, as its authors' code has it", line by line, at S = 224."""
    resize = {"mode": "bilinear", "align_corners": True}
    face = _trunk(state, "resnet", x)
    left_eye = _trunk(state, "resnet1", x[:, :, :112, :112])
    right_eye = _trunk(state, "resnet2", x[:, :, :112, 112:])
    left_cheek = _trunk(state, "resnet3", x[:, :, 112:145, :112])
    right_cheek = _trunk(state, "resnet5", x[:, :, 112:145, 112:])
    mouth = _trunk(state, "resnet6", x[:, :, 145:, :])
    assert [tuple(m.shape[2:]) for m in (face, left_eye, right_cheek, mouth)] == [
        (14, 14),
        (7, 7),
        (3, 7),
        (5, 14),
    ]
    eyes = F.interpolate(torch.cat((left_eye, right_eye), 3), (7, 14), **resize)
    cheeks = F.interpolate(torch.cat((left_cheek, right_cheek), 3), (3, 14), **resize)
    stitched = F.interpolate(torch.cat((eyes, cheeks, mouth), 2), (14, 14), **resize)
    deep = _stage(state, "resnet.layer4", stitched, 2).flatten(1)
    hidden = F.linear(deep, state["fc_loc.0.weight"], state["fc_loc.0.bias"]).relu()
    theta = F.linear(hidden, state["fc_loc.2.weight"], state["fc_loc.2.bias"]).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(stitched.shape), align_corners=True)
    fused = face + F.grid_sample(stitched, grid, align_corners=True)
    pooled = _stage(state, "resnet.layer4", fused, 2).mean((2, 3))
    logits = F.linear(pooled, state["fc.weight"], state["fc.bias"])
    regions = sum(
        F.linear(maps.mean((2, 3)), state[f"{head}.weight"], state[f"{head}.bias"])
        for head, maps in zip(
            ("fc2", "fc3", "fc4", "fc6", "fc7"),
            (left_eye, right_eye, left_cheek, right_cheek, mouth),
            strict=True,
        )
    )
    return logits, regions


class RecorderMeter:
    """Stands for the training script's object; pickled as if it were __main__'s."""

    def __init__(self) -> None:
        self.epoch_losses = np.arange(6, dtype=np.float32).reshape(3, 2)
        self.current_epoch = 3


class Evil:
    """Runs a command when an ordinary unpickler meets it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def state() -> State:
    return _upstream_state()


@pytest.fixture
def save(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(changed: State | None = None, extra: object = None, **options: bool) -> Path:
        main = sys.modules["__main__"]
        monkeypatch.setattr(main, "RecorderMeter", RecorderMeter, raising=False)
        monkeypatch.setattr(RecorderMeter, "__module__", "__main__")
        path = tmp_path / "model_best.pth"
        checkpoint = {
            "epoch": 42,
            "state_dict": state if changed is None else changed,
            "best_acc": torch.tensor(85.59),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "recorder": RecorderMeter() if extra is None else extra,
        }
        torch.save(checkpoint, path, **options)
        return path

    return write


@pytest.mark.parametrize("zipped", [True, False])
def test_logits_are_those_of_the_definition(state: State, save, zipped: bool) -> None:
    network = weights.load_upstream(save(_use_new_zipfile_serialization=zipped))
    faces = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, regions = network(faces)
        expected_logits, expected_regions = _definition(state, faces)
    assert network.config.classes[0] == "class 0" and logits.shape == (2, CLASSES)
    assert expected_logits.std() > 0.1
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(regions, expected_regions, rtol=1e-4, atol=1e-4)


def test_nothing_foreign_is_built(save, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    network = weights.load_upstream(save(extra=Evil(flag)))
    assert len(network.config.classes) == CLASSES and not flag.exists()


def test_parallel_training_s_prefix_and_names(state: State, save) -> None:
    names = ("a", "b", "c", "d", "e", "f", "g")
    wrapped = {f"module.{name}": value for name, value in state.items()}
    assert weights.load_upstream(save(wrapped), classes=names).config.classes == names
    with pytest.raises(WeightsError, match="has 7 classes, got 2 names"):
        weights.load_upstream(save(wrapped), classes=("a", "b"))


def test_copies_that_differ_are_refused(state: State, save) -> None:
    changed = dict(state)
    changed["features6.4.0.conv1.weight"] = changed["features6.4.0.conv1.weight"] + 1
    with pytest.raises(WeightsError, match="two copies of the right_cheek trunk differ"):
        weights.load_upstream(save(changed))
    changed = dict(state)
    changed["features8.0.0.bn1.bias"] = changed["features8.0.0.bn1.bias"] + 1
    with pytest.raises(WeightsError, match="two copies of stage 4 differ"):
        weights.load_upstream(save(changed))


def test_files_that_are_no_such_checkpoint(state: State, save, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint"):
        weights.load_upstream(tmp_path / "absent.pth")
    text = tmp_path / "text.pth"
    text.write_text("not a checkpoint")
    with pytest.raises(WeightsError, match="not a readable PyTorch checkpoint"):
        weights.load_upstream(text)
    without = {name: value for name, value in state.items() if not name.startswith("fc_loc")}
    with pytest.raises(WeightsError, match=r"not a PCNN checkpoint, 'fc_loc.0.weight' is missing"):
        weights.load_upstream(save(without))
    short = dict(state)
    short["fc_loc.0.weight"] = short["fc_loc.0.weight"][:, :100]
    with pytest.raises(WeightsError, match="not a PCNN checkpoint"):
        weights.load_upstream(save(short))
    scripted = tmp_path / "scripted.pth"
    with zipfile.ZipFile(scripted, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
    with pytest.raises(WeightsError, match="is a TorchScript archive, expected a checkpoint"):
        weights.load_upstream(scripted)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="holds no state_dict"):
        weights.load_upstream(tmp_path / "list.pth")
