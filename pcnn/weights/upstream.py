"""The authors' published PCNN checkpoints: read without running anything that is in them.

The layout (Tian et al. 2025, released code): every trunk stands in `state_dict` twice, as
`resnet…` with torchvision's names and as `features….<child index>`; `features8.0` is the face
trunk's layer4. Beside `state_dict` lies `recorder`, a pickled object of the training script.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.disk import as_path
from pcnn.errors import WeightsError, counted
from pcnn.networks.pcnn import PCNN, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.weights.checkpoints import check_tensors
from pcnn.weights.containers import CarefulUnpickler, Skipped, check_container

# View → (its features…, its resnet…, its head).
_TRUNKS = {
    "face": ("features1", "resnet", "fc"),
    "left_eye": ("features2", "resnet1", "fc2"),
    "right_eye": ("features3", "resnet2", "fc3"),
    "left_cheek": ("features4", "resnet3", "fc4"),
    "right_cheek": ("features6", "resnet5", "fc6"),
    "mouth": ("features7", "resnet6", "fc7"),
}
# Child index in features… → name of the stage; 2 and 3 are the ReLU and the pooling.
_STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3"}

# Class orders of the data sets' folders as the authors number them are not in the checkpoint.
_SIZE = 224


@own_settings(gradients=True)
def load_upstream(path: str | Path, classes: tuple[str, ...] | None = None) -> PCNN:
    """Load the network of one of the authors' checkpoints, float32, eval mode, on the CPU.

    classes: the names of its logits, in order. A checkpoint has no names; without `classes` they
        are "class 0", "class 1", ….
    `forward(x)` of the result takes (B, 3, 224, 224), RGB / 255 normalised with ImageNet's mean
    and standard deviation. It returns (logits, region logits), each (B, classes).
    The unpickler builds only tensors and plain containers. Other objects in the file, such as
    `recorder`, are skipped.
    Raises WeightsError: the file is missing or no such checkpoint, its two copies of a trunk
        differ, or the number of classes differs.

    >>> load_upstream("missing.pth")
    Traceback (most recent call last):
        ...
    pcnn.errors.WeightsError: missing.pth: no such checkpoint
    """
    state = _state_dict(as_path("load_upstream: path", path))
    try:
        tensors = _rename(state)
        count = len(tensors["expression_head.bias"])
        names = classes or tuple(f"class {number}" for number in range(count))
        if len(names) != count:
            raise WeightsError(
                f"{path}: has {counted(count, 'class')}, got {counted(len(names), 'name')}"
            )
        with torch.device("meta"):  # only shapes: memory for tensors that fit alone
            network = PCNN(ModelConfig(classes=names, size=_SIZE), initialised=False)
        wanted = network.state_dict()
        fitting = {n: t.to(wanted[n].dtype) if n in wanted else t for n, t in tensors.items()}
        network.load_state_dict(fitting, assign=True)
        _compare_copies(path, state)
    except KeyError as error:
        raise WeightsError(f"{path}: not a PCNN checkpoint, {error} is missing") from error
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: not a PCNN checkpoint ({error})") from error
    return network.eval().requires_grad_(False)


def _rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with this package's names."""
    tensors = {}
    for view, (features, _, _) in _TRUNKS.items():
        for name, tensor in _below(state, features).items():
            child, rest = name.split(".", 1)
            if child in _STAGES:
                tensors[f"trunks.{view}.{_STAGES[child]}.{rest}"] = tensor
    for name, tensor in _below(state, "features8.0").items():
        tensors[f"layer4.{name}"] = tensor
    for layer in ("0", "2"):
        for part in ("weight", "bias"):
            tensors[f"interaction.localisation.{layer}.{part}"] = state[f"fc_loc.{layer}.{part}"]
    for part in ("weight", "bias"):
        tensors[f"expression_head.{part}"] = state[f"fc.{part}"]
        for region in REGIONS:
            tensors[f"region_heads.{region}.{part}"] = state[f"{_TRUNKS[region][2]}.{part}"]
    return tensors


def _compare_copies(path: str | Path, state: dict[str, Tensor]) -> None:
    for view, (features, resnet, _) in _TRUNKS.items():
        twin = _below(state, resnet)
        for name, tensor in _below(state, features).items():
            child, rest = name.split(".", 1)
            other = twin.get(f"{_STAGES.get(child, child)}.{rest}")
            if other is None or not torch.equal(tensor, other):
                raise WeightsError(
                    f"{path}: the two copies of the {view} trunk differ at {features}.{name}"
                )
    twin = _below(state, "resnet.layer4")
    for name, tensor in _below(state, "features8.0").items():
        if name not in twin or not torch.equal(tensor, twin[name]):
            raise WeightsError(f"{path}: the two copies of stage 4 differ at features8.0.{name}")


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {name[len(start) :]: state[name] for name in state if name.startswith(start)}


def _state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint")
    check_container(path)
    restricted = types.ModuleType("restricted_pickle")
    restricted.Unpickler = _Unpickler  # type: ignore[attr-defined]
    restricted.load = lambda file, **options: _Unpickler(file, **options).load()  # type: ignore[attr-defined]
    try:
        # weights_only=True refuses the file because of its `recorder`. The unpickler used here is
        # even stricter: it builds only tensors and skips the rest.
        checkpoint = torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=restricted
        )
    except Exception as error:  # torch.load raises many kinds of errors for other files
        raise WeightsError(f"{path}: not a readable PyTorch checkpoint ({error})") from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds no state_dict")
    tensors = {
        str(name).removeprefix("module."): tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor)
    }
    check_tensors(path, tensors)
    return {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
}


class _Unpickler(CarefulUnpickler):
    """An unpickler for the classes of _ALLOWED and torch's storage types; others are Skipped."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            # Storage types of the legacy file format; torch resolves those of the zip format.
            return getattr(torch, name, Skipped)
        return _ALLOWED.get((module, name), Skipped)
