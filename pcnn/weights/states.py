"""The tensors of a network as files hold them, and a network filled with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

_COUNTS = "num_batches_tracked"  # of batch norms, which only a training needs
_Network = TypeVar("_Network", bound=nn.Module)


def lasting_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network without the counts of its batch norms."""
    return {name: value for name, value in network.state_dict().items() if _COUNTS not in name}


def half_state(network: nn.Module) -> dict[str, Tensor]:
    """The lasting state, kernels and matrices in half precision."""
    state = lasting_state(network)
    return {name: value.half() if value.dim() > 1 else value for name, value in state.items()}


def fill_lasting(network: _Network, state: Mapping[str, Tensor]) -> _Network:
    """Give a network its lasting state, and set it to eval mode, without gradients."""
    network.load_state_dict(dict(state), assign=True, strict=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None
    return network.eval().requires_grad_(False)
