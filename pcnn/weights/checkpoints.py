"""PyTorch's own files, read as what they may be: somebody else's, cut short, or hostile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcnn.errors import WeightsError
from pcnn.weights.files import check_finite
from pcnn.weights.schema import Rule, keep_to, record, whole


def check_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError, naming file and tensor, unless all are plain, finite and really there.

    A pickle may describe a tensor of any size over a storage of one number.
    """
    for name, tensor in tensors.items():
        if (
            tensor.layout != torch.strided
            or tensor.device.type == "meta"
            or tensor.is_quantized
            or tensor.is_complex()
        ):
            raise WeightsError(f"{path}: the tensor {name} is of a kind that no network has")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: the tensor {name} is {tuple(tensor.shape)}, of which the file holds "
                f"{tensor.untyped_storage().nbytes():,} bytes"
            )
    check_finite(path, tensors)


def read_training(path: str | Path, device: torch.device | str, options: Rule) -> dict[str, Any]:
    """The state of a training as its `save` wrote it, without running anything that is in it.

    options: the rule for its entry of that name. Returns at least "options" and "step"; nothing
    is yet known of its tensors. Raises WeightsError: unreadable, or something else.
    """
    try:
        state = torch.load(path, weights_only=True, map_location=device)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch.load has no list of what it raises
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: not a readable checkpoint of a training ({reason}); remove it to start afresh"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: no checkpoint of a training, but {type(state).__name__}")
    described = {name: state[name] for name in ("options", "step") if name in state}
    keep_to(record({"options": options, "step": whole(0, 10**9)}), described, str(path))
    return state


def check_targets(path: str | Path, targets: object, kinds: int, classes: int) -> None:
    """Raise WeightsError unless a checkpoint's targets are tables for so many kinds of labels.

    classes: of the first kind. Each table is (N, classes), N the same for all.
    """
    tables = list(targets) if isinstance(targets, list) else []
    if (
        len(tables) != kinds
        or not all(isinstance(one, Tensor) and one.dim() == 2 for one in tables)
        or len({len(one) for one in tables}) != 1
        or tables[0].shape[1] != classes
    ):
        raise WeightsError(f"{path}: targets must be {kinds} tables of {classes} classes")
    check_tensors(path, {f"targets[{place}]": one for place, one in enumerate(tables)})


def fill(path: str | Path, name: str, module: nn.Module, state: object) -> None:
    """Give a module the tensors of a checkpoint.

    name: of the module in the checkpoint. Raises WeightsError: they do not fit; names one.
    """
    module.load_state_dict(check_state(path, name, module.state_dict(), state))


def check_state(
    path: str | Path, name: str, wanted: Mapping[str, Tensor], state: object
) -> dict[str, Tensor]:
    """A checkpoint's entry, which holds tensors of these names and shapes.

    Raises WeightsError: it does not; names one.
    """
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path}: {name} must hold tensors; remove it to start afresh")
    odd = sorted(map(str, wanted.keys() ^ state.keys()))
    odd += [each for each in wanted if each in state and state[each].shape != wanted[each].shape]
    if odd:
        raise WeightsError(f"{path}: {name} is of another network, see {odd[0]}")
    check_tensors(path, {f"{name}.{each}": tensor for each, tensor in state.items()})
    return dict(state)


def fill_optimizer(path: str | Path, optimizer: torch.optim.Optimizer, state: object) -> None:
    """Give an optimiser the state of a checkpoint, which PyTorch itself only counts.

    Raises WeightsError: it is of other parameters; names the first that differs.
    """
    try:
        optimizer.load_state_dict(state)  # type: ignore[arg-type]
    except Exception as error:  # whatever a state that is none makes of it
        raise WeightsError(f"{path}: optimizer is of another training ({error!r})") from error
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            for name, value in optimizer.state[parameter].items():
                if not isinstance(value, Tensor) or value.shape not in ((), parameter.shape):
                    raise WeightsError(f"{path}: optimizer does not fit at {name} of {place}")
                check_tensors(path, {f"optimizer.{name}": value})
