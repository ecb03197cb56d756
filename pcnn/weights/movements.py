"""Loading and writing of movement networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pcnn.devices import own_settings
from pcnn.errors import WeightsError
from pcnn.networks.movements import MovementConfig, MovementNet
from pcnn.representation import Brief
from pcnn.weights.files import WeightsFile, locate, write
from pcnn.weights.kinds import MOVEMENTS
from pcnn.weights.schema import shown
from pcnn.weights.states import fill_lasting, half_state, lasting_state


@dataclass(frozen=True, repr=False)
class MovementWeights(Brief):
    """A movement network with the settings of its file.

    network: in float32 and eval mode, on the CPU.
    template: the five landmarks' places in the face view, (x, y) fractions of its side.
    mirror: True averages each face's answer with that to its mirror image.
    """

    network: MovementNet
    template: tuple[tuple[float, float], ...]
    mirror: bool
    path: Path
    metadata: Mapping[str, Any]


def is_movements(weights: str | Path) -> bool:
    """Whether a name or path has weights of a movement network; "none" has no weights."""
    return weights != "none" and WeightsFile(locate(weights)).metadata.get("kind") == "movements"


@own_settings(gradients=True)
def load_movements(weights: str | Path) -> MovementWeights:
    """Load a movement network by name or path.

    Raises WeightsError: see files.locate and WeightsFile; also for a file of another kind or with
        invalid metadata, whose field the message names.
    """
    path = locate(weights, kind="movements")
    file = WeightsFile(path)
    metadata = file.metadata
    kind = metadata.get("kind")
    if kind != "movements":
        raise WeightsError(f"{path}: holds no movement network but {shown(kind)}")
    file.check(MOVEMENTS)
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in metadata["config"].items()
    }
    with torch.device("meta"):  # only shapes, without memory
        network = MovementNet(MovementConfig(**config))
    file.check_shapes(lasting_state(network))
    found = file.tensors()
    twins = found["twins"]
    if not torch.equal(twins.sort().values, torch.arange(len(twins)).to(twins)):
        raise WeightsError(f"{path}: the tensor twins must be an order of the points")
    found["twins"] = twins.long()
    return MovementWeights(
        network=fill_lasting(network, found),
        template=tuple((float(x), float(y)) for x, y in metadata["template"]),
        mirror=metadata.get("mirror", False),
        path=path,
        metadata=metadata,
    )


def write_movements(
    path: str | Path,
    network: MovementNet,
    template: tuple[tuple[float, float], ...],
    metadata: Mapping[str, Any],
) -> None:
    """Write a movement network, kernels and matrices in half precision.

    metadata: entries besides `kind`, `config` and `template`, values for JSON.
    """
    state = half_state(network)
    state["twins"] = state["twins"].to(torch.int32)
    config = asdict(network.config)
    own = {field.name: config[field.name] for field in fields(MovementConfig)}
    write(path, state, {"kind": "movements", "config": own, "template": template, **metadata})
