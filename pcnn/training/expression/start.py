"""Initial networks of a training: random, from weights, or from a published network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError
from pcnn.faces.resampling import resample, to_planes
from pcnn.networks.mobilenet import start_from_published
from pcnn.networks.pcnn import IMAGENET_MEAN, IMAGENET_STD, PCNN, FaceNet, Learner, ModelConfig
from pcnn.networks.regions import normalise
from pcnn.training.expression.options import ExpressionOptions
from pcnn.weights.expression import load_learners
from pcnn.weights.files import is_published, read_published

# Mean and standard deviation of the FER+ training faces, computed from the sheets.
FERPLUS_MEAN = (0.507,)
FERPLUS_STD = (0.254,)

_CALIBRATION_FACES = 256
_KINDS: Mapping[str, type[PCNN | FaceNet]] = {"pcnn": PCNN, "trunk": FaceNet}


def new_learner(
    options: ExpressionOptions,
    train: FaceSet,
    second: FaceSet | None,
    device: torch.device,
    *,
    movements: int = 0,
) -> Learner:
    """The initial network of a training: random, or from `options.init`.

    train: gives the classes and the number of channels. The norms for published weights are
        measured on its faces.
    second: gives the classes of the second heads; None for no second heads.
    movements: see Learner.
    Raises InputError: `init` does not fit the options. Raises WeightsError: see files.read.
    """
    grey = train.faces.dim() == 3
    published = bool(options.init) and is_published(options.init or "")
    start = initial(options.init, options.network) if options.init and not published else None
    norms: tuple[tuple[float, ...], tuple[float, ...]]
    norms = (FERPLUS_MEAN, FERPLUS_STD) if grey else (IMAGENET_MEAN, IMAGENET_STD)
    if start is not None and start.network.config.channels == len(norms[0]):
        norms = start.network.config.mean, start.network.config.std
    config = ModelConfig(
        classes=train.classes,
        size=options.size,
        mean=norms[0],
        std=norms[1],
        width=options.width,
        saliency=options.saliency,
        backbone=options.backbone,
    )
    network = FaceNet(config) if options.network == "trunk" else PCNN(config)
    learner = Learner(network, None if second is None else second.classes, movements)
    # What keeps numbers of `init` needs all of them.
    keeping = next((name for name in ("init_share", "frozen") if getattr(options, name)), None)
    if options.init and published:
        if keeping == "frozen":
            raise InputError(
                f"ExpressionTraining: frozen= cannot keep a head that {options.init} lacks"
            )
        plain = network if isinstance(network, FaceNet) else FaceNet(config)
        _start_from_published(plain, options.init, train.faces)
        if network is not plain:
            network.start_from(plain)
    elif start is not None:
        given = type(start.network), start.network.config.size
        if keeping and given != (type(network), config.size):
            kind = f"{options.network} of size {config.size}"
            raise InputError(f"ExpressionTraining: {keeping}= needs init= of a {kind}")
        if keeping and start.network.config.classes != config.classes:
            raise InputError(f"ExpressionTraining: {keeping}= needs init= of the same classes")
        network.start_from(start.network)
        if learner.second and start.second and start.classes == learner.classes:
            learner.second.load_state_dict(start.second.state_dict(), strict=False)
    elif keeping:
        raise InputError(f"ExpressionTraining: {keeping}= needs init=")
    learner.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return learner


def options_of(init: str, network: str) -> dict[str, Any]:
    """The options of a training that its initial weights decide, by name.

    init: as in ExpressionOptions. network: "trunk" or "pcnn". The side of the face view is that
    of `init` for the same network.
    Returns nothing for published weights. Raises WeightsError: see files.read.
    """
    if is_published(init):
        return {}
    start = initial(init, network).network
    config = start.config
    options: dict[str, Any] = {"colour": config.channels == 3, "width": config.width}
    options |= {"backbone": config.backbone, "saliency": config.saliency}
    if isinstance(start, _KINDS[network]):
        options["size"] = config.size
    return options


def initial(init: str, network: str) -> Learner:
    """The network to start from; of an ensemble, its first one of the kind to be trained.

    Raises InputError: an ensemble without such a network. Raises WeightsError: see load_learners.
    """
    learners = load_learners(init)
    for own in learners:
        if len(learners) == 1 or isinstance(own.network, _KINDS[network]):
            return own
    raise InputError(f"ExpressionTraining: {init} is an ensemble without a {network}")


def _start_from_published(network: FaceNet, init: str, faces: Tensor) -> None:
    """Fill the network's trunk and stage 4. Norms are measured on some training faces."""
    config = network.config
    if config.backbone != "mobilenet":
        raise InputError(
            f"ExpressionTraining: {init} holds a MobileNet's weights; use backbone='mobilenet'"
        )
    chosen = faces[:: max(1, len(faces) // _CALIBRATION_FACES)][:_CALIBRATION_FACES]
    views = normalise(resample(to_planes(chosen), config.size), config)
    network.eval()
    start_from_published(
        network.trunk,  # type: ignore[arg-type]
        network.layer4,
        read_published(init),
        views,
        mean=config.mean,
        std=config.std,
    )
