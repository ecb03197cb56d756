"""Expression networks out of their files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pcnn.errors import WeightsError
from pcnn.networks.mirror import Forward, read_both
from pcnn.networks.pcnn import PCNN, FaceNet, Learner, ModelConfig
from pcnn.networks.regions import REGIONS, RegionLayout
from pcnn.networks.saliency import find_model
from pcnn.weights.compression import widen
from pcnn.weights.files import locate, read

# What files call the networks.
_NETWORKS: Mapping[object, type[PCNN | FaceNet]] = {"pcnn": PCNN, "trunk": FaceNet}


@dataclass(frozen=True)
class ExpressionWeights:
    """An expression network and what its file says about using it.

    network: in float32 and eval mode, on the CPU; a FaceNet has no regions.
    template: the five landmarks' mean places in the face square, (x, y) fractions of its side.
    native_size: the side in pixels of the faces it was trained on, before any enlargement.
    temperature: divides the logits to make calibrated probabilities.
    region_temperatures: the same for each region's own logits.
    mirror: each face is to be read together with its mirror image (mirror.read_both): the
        temperatures and scores are those of the mean.
    aligned: the training faces were aligned by their landmarks, and pictures that already are
        faces are to be aligned, too, see alignment.
    """

    network: PCNN | FaceNet
    template: tuple[tuple[float, float], ...]
    native_size: int
    temperature: float
    region_temperatures: Mapping[str, float]
    mirror: bool
    aligned: bool
    path: Path
    metadata: Mapping[str, Any]

    @property
    def saliency(self) -> str | None:
        """The model by whose maps the views are multiplied, see saliency.weigh; None: by none."""
        return self.network.config.saliency

    def answer(
        self, forward: Forward, views: Sequence[Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What `forward`, the network or its prepared form, makes of views, as the file asks.

        views: see PCNN.forward_views; already weighed, if `saliency` names a model.
        Returns logits (B, classes) and region name → its own.
        """
        return read_both(forward, views) if self.mirror else forward(views)


def load_expression(weights: str | Path) -> ExpressionWeights:
    """An expression network by name or path, ready to use.

    Raises WeightsError: see locate and read; a file of another kind, or one that does not fit.
    """
    path = locate(weights, kind="expression")
    tensors, metadata = read(path)
    network_type = _NETWORKS.get(metadata.get("architecture"))
    if network_type is None:
        raise WeightsError(f"{path}: holds {metadata.get('architecture')!r}, no expression network")
    with _fitting(path):
        network = network_type(_config(metadata), initialised=False)
        network.load_state_dict(_own(widen(tensors)))
        template = tuple((float(x), float(y)) for x, y in metadata["template"])
        regions = REGIONS if network_type is PCNN else ()
        own = {name: float(metadata["region_temperatures"][name]) for name in regions}
        loaded = ExpressionWeights(
            network=network.eval().requires_grad_(False),
            template=template,
            native_size=int(metadata["native_size"]),
            temperature=float(metadata["temperature"]),
            region_temperatures=own,
            mirror=bool(metadata.get("mirror", False)),
            aligned=bool(metadata.get("aligned", False)),
            path=path,
            metadata=metadata,
        )
        if len(template) != 5:
            raise ValueError(f"template must be 5 points, got {len(template)}")
        positive = (loaded.native_size, loaded.temperature, *own.values())
        if not all(math.isfinite(value) and value > 0 for value in positive):
            raise ValueError(f"sizes and temperatures must be above 0, got {positive}")
    return loaded


def load_network(weights: str | Path) -> PCNN | FaceNet:
    """The bare network of an expression or trunk file, in float32 and training mode.

    Raises WeightsError: no such file or name, or a file of another kind.
    """
    path = locate(weights)
    tensors, metadata = read(path)
    network_type = _NETWORKS.get(metadata.get("architecture"))
    if network_type is None:
        raise WeightsError(f"{path}: holds {metadata.get('architecture')!r}, no expression network")
    with _fitting(path):
        network = network_type(_config(metadata))
        network.load_state_dict(_own(widen(tensors)))
    return network


# Before the names of the tensors of heads for second labels.
SECOND_PREFIX = "labels."


def load_learner(weights: str | Path) -> Learner:
    """The bare network of a file with its heads for second labels, where it has such.

    Raises WeightsError: as load_network.
    """
    network = load_network(weights)
    path = locate(weights)
    tensors, metadata = read(path)
    labels = metadata.get("labels")
    if not labels:
        return Learner(network)
    with _fitting(path):
        ((name, about),) = labels.items()
        learner = Learner(network, tuple(about["classes"]))
        prefix = f"{SECOND_PREFIX}{name}."
        found = {
            key.removeprefix(prefix): tensor
            for key, tensor in widen(tensors).items()
            if key.startswith(prefix)
        }
        if learner.second is not None:
            learner.second.load_state_dict(found)
    return learner


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network itself, without those of heads for second labels."""
    return {name: t for name, t in tensors.items() if not name.startswith(SECOND_PREFIX)}


@contextlib.contextmanager
def _fitting(path: str | Path) -> Iterator[None]:
    """Turn what building a network out of a file's contents raises into WeightsError."""
    try:
        yield
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its contents do not fit together ({error})") from error


def _config(metadata: Mapping[str, Any]) -> ModelConfig:
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in metadata["config"].items()
    }
    loaded = ModelConfig(**{**config, "layout": RegionLayout(**config["layout"])})
    if loaded.saliency is not None:
        find_model(loaded.saliency)
    return loaded
