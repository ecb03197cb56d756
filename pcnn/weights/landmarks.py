"""Loading and writing of landmark networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pcnn.devices import own_settings
from pcnn.errors import WeightsError
from pcnn.networks.landmarks import LandmarkConfig, LandmarkNet
from pcnn.representation import Brief
from pcnn.weights.files import WeightsFile, locate, write
from pcnn.weights.kinds import LANDMARKS
from pcnn.weights.schema import shown
from pcnn.weights.states import fill_lasting, half_state, lasting_state


@dataclass(frozen=True, repr=False)
class LandmarkWeights(Brief):
    """A landmark network with the settings of its file.

    network: in float32 and eval mode, on the CPU.
    template: the rough landmarks' places in the face view, (x, y) fractions of its side.
    """

    network: LandmarkNet
    template: tuple[tuple[float, float], ...]
    path: Path
    metadata: Mapping[str, Any]


@own_settings(gradients=True)
def load_landmarks(weights: str | Path) -> LandmarkWeights:
    """Load a landmark network by name or path.

    Raises WeightsError: see files.locate and WeightsFile; also for a file of another kind or with
        invalid metadata, whose field the message names.
    """
    path = locate(weights, kind="landmarks")
    file = WeightsFile(path)
    metadata = file.metadata
    kind = metadata.get("kind")
    if kind != "landmarks":
        raise WeightsError(f"{path}: holds no landmark network but {shown(kind)}")
    file.check(LANDMARKS)
    stored = metadata["config"]
    config = LandmarkConfig(stored["size"], tuple(stored["mean"]), tuple(stored["std"]))
    with torch.device("meta"):  # only shapes, without memory
        network = LandmarkNet(config)
    file.check_shapes(lasting_state(network))
    return LandmarkWeights(
        network=fill_lasting(network, file.tensors()),
        template=tuple((float(x), float(y)) for x, y in metadata["template"]),
        path=path,
        metadata=metadata,
    )


def write_landmarks(
    path: str | Path,
    network: LandmarkNet,
    template: tuple[tuple[float, float], ...],
    metadata: Mapping[str, Any],
) -> None:
    """Write a landmark network, kernels and matrices in half precision.

    metadata: entries besides `kind`, `config` and `template`, values for JSON.
    """
    state = half_state(network)
    own = asdict(network.config)
    write(path, state, {"kind": "landmarks", "config": own, "template": template, **metadata})
