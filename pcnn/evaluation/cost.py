"""Cost of a network per face: parameters, operations, time."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pcnn.devices import own_settings
from pcnn.networks.ensemble import ExpressionNetwork


@dataclass(frozen=True)
class Cost:
    """The cost of one face.

    parameters: number of learnt values. macs: multiply-add operations of one forward pass, in
    convolutions and linear layers. latency_ms: the median time of a pass with a single face; None
    if not measured. device: its name; threads: the number of CPU threads.
    """

    parameters: int
    macs: int
    latency_ms: float | None
    device: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values for `json.dumps`."""
        return dataclasses.asdict(self)


@own_settings()
@torch.no_grad()
def measure_cost(network: ExpressionNetwork, *, runs: int = 20) -> Cost:
    """Measure the cost of a face on the network's device, without cropping.

    runs: timed passes, after three untimed ones; 0 leaves out the latency.
    """
    config = network.eval().config
    parameter = next(network.parameters())
    face = torch.zeros(1, config.channels, config.size, config.size, device=parameter.device)
    face = face.to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        network(face)
    seconds = [_timed(network, face) for _ in range(3 + runs)][3:] if runs else []
    return Cost(
        parameters=sum(each.numel() for each in network.parameters()),
        macs=counter.get_total_flops() // 2,  # it counts multiplications and additions separately
        latency_ms=1000 * statistics.median(seconds) if seconds else None,
        device=_device_name(parameter.device),
        threads=torch.get_num_threads(),
    )


def _timed(network: ExpressionNetwork, face: Tensor) -> float:
    """Seconds of one forward pass."""
    began = time.perf_counter()
    network(face)
    if face.is_cuda:
        torch.cuda.synchronize(face.device)
    return time.perf_counter() - began


def _device_name(device: torch.device) -> str:
    """cpu, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
