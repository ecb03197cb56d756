"""Safe reading of PyTorch's own files, which may be foreign, incomplete or hostile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pcnn.disk import whole_file
from pcnn.errors import InputError, WeightsError, in_words
from pcnn.weights.containers import check_container
from pcnn.weights.files import check_finite
from pcnn.weights.schema import Rule, keep_to, record, whole


def check_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError, naming file and tensor, unless all are plain, finite and complete.

    A pickle may describe a tensor of any size with a storage of a single number.
    """
    for name, tensor in tensors.items():
        if (
            tensor.layout != torch.strided
            or tensor.device.type == "meta"
            or tensor.is_quantized
            or tensor.is_complex()
        ):
            raise WeightsError(f"{path}: the tensor {name} must be a plain dense tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: the tensor {name} is {tuple(tensor.shape)}, but the file holds "
                f"{tensor.untyped_storage().nbytes():,} bytes"
            )
    check_finite(path, tensors)


def read_training(path: str | Path, device: torch.device | str, options: Rule) -> dict[str, Any]:
    """Read the state that a training's `save` wrote, without running code from the file.

    options: the rule for its entry "options". The result has at least "options" and "step". Its
    tensors are not checked yet. Raises WeightsError: the file is unreadable or another one.
    """
    try:
        check_container(Path(path))
        state = torch.load(path, weights_only=True, map_location=device)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch.load has no list of what it raises
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: not a readable checkpoint of a training ({reason}); remove it to start again"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: must hold a training's state, got {type(state).__name__}")
    described = {name: state[name] for name in ("options", "step") if name in state}
    keep_to(record({"options": options, "step": whole(0, 10**9)}), described, str(path))
    return state


def write_training(path: Path, state: Mapping[str, Any]) -> None:
    """Write what `read_training` reads, atomically."""
    with whole_file(path) as temporary:
        torch.save(dict(state), temporary)


def check_options(path: Path, stored: str, ours: str, function: str) -> None:
    """Raise InputError if a checkpoint was made with other options.

    stored, ours: JSON objects, whose order does not matter. function: for the message.
    """
    if stored != ours and _object(stored) != _object(ours):
        raise InputError(
            f"{function}: {path} was made with other options "
            f"({stored}); use those options, or remove the file to start again"
        )


def _object(text: str) -> dict[str, Any] | str:
    """The object of a JSON text; the text itself if it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return text


def check_targets(path: str | Path, targets: object, kinds: int, classes: int) -> None:
    """Raise WeightsError unless a checkpoint's targets are `kinds` tables (N, classes).

    kinds: number of kinds of labels. classes: number of classes of the first kind. N must be the
        same for all tables.
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
    """Load the tensors of a checkpoint into a module.

    name: the module's name in the checkpoint. Raises WeightsError: a tensor does not fit; the
    message names it.
    """
    module.load_state_dict(check_state(path, name, module.state_dict(), state))


def check_state(
    path: str | Path, name: str, wanted: Mapping[str, Tensor], state: object
) -> dict[str, Tensor]:
    """A checkpoint's entry, after a check of its tensors' names and shapes.

    Raises WeightsError: a tensor does not fit; the message names it.
    """
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path}: {name} must hold tensors; remove it to start again")
    odd = sorted(map(str, wanted.keys() ^ state.keys()))
    odd += [each for each in wanted if each in state and state[each].shape != wanted[each].shape]
    if odd:
        raise WeightsError(f"{path}: {name} belongs to another network, see {odd[0]}")
    check_tensors(path, {f"{name}.{each}": tensor for each, tensor in state.items()})
    return dict(state)


def fill_optimizer(path: str | Path, optimizer: torch.optim.Optimizer, state: object) -> None:
    """Load the state of a checkpoint into an optimiser; PyTorch itself checks only the numbers.

    Raises WeightsError: it belongs to other parameters; the message names the first difference.
    """
    try:
        optimizer.load_state_dict(state)  # type: ignore[arg-type]
    except Exception as error:  # an invalid state raises many kinds of errors
        raise WeightsError(
            f"{path}: optimizer belongs to another training ({in_words(error)})"
        ) from error
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            for name, value in optimizer.state[parameter].items():
                if not isinstance(value, Tensor) or value.shape not in ((), parameter.shape):
                    raise WeightsError(f"{path}: optimizer does not fit at {name} of {place}")
                check_tensors(path, {f"optimizer.{name}": value})
