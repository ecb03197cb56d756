"""Loading of expression networks from their files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError, WeightsError
from pcnn.networks.ensemble import Ensemble, ExpressionNetwork, Member
from pcnn.networks.mirror import Forward, read_both
from pcnn.networks.pcnn import PCNN, FaceNet, Learner, ModelConfig
from pcnn.networks.regions import RegionLayout
from pcnn.networks.saliency import find_model
from pcnn.representation import Brief
from pcnn.weights.files import WeightsFile, locate, sha256
from pcnn.weights.kinds import ENSEMBLE, NETWORK, expression
from pcnn.weights.known import SPECS
from pcnn.weights.schema import Rule, shown

# How frequent classes are taken to be, see ExpressionWeights.uniform.
PRIORS = ("data", "uniform")


@dataclass(frozen=True, repr=False)
class ExpressionWeights(Brief):
    """An expression network with the settings of its file.

    network: in float32 and eval mode, on the CPU.
    template: the five landmarks' mean places in the face square, (x, y) fractions of its side.
    native_size: the side in pixels of its training faces, before any enlargement.
    temperature: divides the logits to give calibrated probabilities.
    region_temperatures: the same for each region's own logits.
    mirror: True averages each face's logits with those of its mirror image (mirror.read_both).
        Temperatures and scores are those of this mean.
    aligned: True if the training faces were aligned by their landmarks. Then cut-out faces are
        aligned, too, see alignment.
    class_shares: the share of each class among the training faces; None if not recorded.
    uniform: True gives probabilities for equally frequent classes.

    >>> small = load_expression("small")
    >>> small.native_size, small.aligned, small.mirror
    (48, True, False)
    """

    network: ExpressionNetwork
    template: tuple[tuple[float, float], ...]
    native_size: int
    temperature: float
    region_temperatures: Mapping[str, float]
    mirror: bool
    aligned: bool
    path: Path
    metadata: Mapping[str, Any]
    class_shares: tuple[float, ...] | None = None
    uniform: bool = False

    @property
    def saliency(self) -> str | None:
        """The saliency model whose maps weigh the views, see saliency.weigh; None without one."""
        return self.network.config.saliency

    def answer(
        self, forward: Forward, views: Sequence[Tensor], images: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits of views, with mirror images if the file requires them.

        forward: forward_views of the network or of its prepared form.
        views: see PCNN.forward_views; already weighed, if `saliency` names a model.
        images: their mirror images, if they are at hand.
        Returns logits (B, classes), and region name → that region's logits.
        """
        return read_both(forward, views, images) if self.mirror else forward(views)

    def probabilities(self, logits: Tensor, region: str | None = None) -> Tensor:
        """Calibrated probabilities (…, classes) of logits.

        region: the region of the logits; None for the network's own.
        With `uniform`, each class's probability is divided by its share of the training faces
        (Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021).
        """
        temperature = self.temperature if region is None else self.region_temperatures[region]
        scaled = logits / temperature
        if self.uniform and self.class_shares is not None:
            scaled = scaled - _log_shares(self.class_shares, scaled.device, scaled.dtype)
        return scaled.softmax(-1)

    def facts(self) -> list[tuple[str, str]]:
        """A description of the file, as (name, text) pairs.

        The accuracy is that at the end of training, before later detectors and landmarks.
        """
        scores, size = self.metadata.get("scores", {}), self.network.config.size
        accuracy = "; ".join(
            f"{100 * value:.2f} % on {name}, when trained" for name, value in scores.items()
        )
        return [
            ("weights", str(self.path)),
            ("weights sha256", sha256(self.path)),
            ("weights accuracy", accuracy or "not recorded"),
            ("input", f"{size} × {size} pixels"),
        ]

    def for_equal_classes(self) -> ExpressionWeights:
        """A copy with `uniform` set. Raises InputError: the file records no class shares."""
        if self.class_shares is None:
            raise InputError(f"prior 'uniform': {self.path} does not record its class shares")
        return replace(self, uniform=True)


@cache
def _log_shares(shares: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The logarithms of shares, (classes,); uploaded once, since a CUDA graph uploads nothing.

    They are kept as long as the process lasts, because graphs know only their address.
    """
    # Later calls use this tensor too, so it must not be an inference tensor. The host computes the
    # logarithms and waits for their upload: another thread's stream may use them at once.
    with torch.inference_mode(False):
        return torch.tensor(shares, dtype=torch.float64).log().to(device, dtype)


@own_settings(gradients=True)
def load_expression(weights: str | Path, labels: str | None = None) -> ExpressionWeights:
    """Load an expression network by name or path.

    labels: the name of the file's second labels, such as "fer2013", to use them; None uses the
        first labels.
    Raises WeightsError: see locate and read; also for a file of another kind or with invalid
        metadata, whose field the message names. Raises InputError: the file has no such labels.

    >>> load_expression("mobile", labels="fer2013").network.config.classes[:2]
    ('anger', 'disgust')
    """
    path = locate(weights, kind="expression")
    file = _open(path, expression)
    metadata = answers = file.metadata
    others = metadata.get("labels") or {}
    if labels is not None:
        if labels not in list(others):  # a list, so that labels of any type can be compared
            raise InputError(_unknown_labels(labels, path, others))
        answers = {"temperature": 1.0, **others[labels]}
    learners = _load_learners(file)
    networks = [learner.network if labels is None else learner.relabelled() for learner in learners]
    network: ExpressionNetwork = networks[0]
    if metadata["architecture"] == ENSEMBLE:
        network = _joined(path, networks, answers["members"])
    return _described(path, network, metadata, answers, weights)


def _unknown_labels(labels: str, path: Path, known: Iterable[str]) -> str:
    """The message of an InputError for second labels that a file lacks."""
    own = ", ".join(map(repr, known)) or "none"
    packaged = ", ".join(name for name, spec in SPECS.items() if labels in spec.labels)
    remedy = f"; the packaged weights with them: {packaged}" if packaged else ""
    return f"labels {labels!r}: {path} has second labels: {own}{remedy}"


def _described(
    path: Path,
    network: ExpressionNetwork,
    metadata: Mapping[str, Any],
    answers: Mapping[str, Any],
    weights: str | Path,
) -> ExpressionWeights:
    """A network with its file's settings. answers: the settings of the chosen labels."""
    own = answers.get("region_temperatures", {})
    spec = SPECS.get(str(weights))
    packaged = spec.class_shares if spec is not None and answers is metadata else None
    shares = answers.get("class_shares", packaged)
    return ExpressionWeights(
        network=network.eval().requires_grad_(False),
        template=tuple((float(x), float(y)) for x, y in metadata["template"]),
        native_size=metadata["native_size"],
        temperature=float(answers["temperature"]),
        region_temperatures={name: float(own[name]) for name in network.regions},
        mirror=metadata.get("mirror", False),
        aligned=metadata.get("aligned", False),
        path=path,
        metadata=metadata,
        class_shares=None if shares is None else tuple(map(float, shares)),
    )


def load_network(weights: str | Path) -> PCNN | FaceNet:
    """Load only the network of an expression or trunk file, in float32 and training mode.

    Raises WeightsError: no such file or name, or a file of another kind, such as an ensemble.

    >>> load_network("small").config.size
    112
    """
    return load_learner(weights).network


# The prefixes of tensor names: of an ensemble's networks, then of heads for second labels.
MEMBERS_PREFIX, SECOND_PREFIX = "networks.", "labels."


@own_settings(gradients=True)
def load_learner(weights: str | Path) -> Learner:
    """Load the network of a file with its heads for second labels, if it has them.

    Raises WeightsError: as load_network.

    >>> len(load_learner("mobile").classes)  # those of its second labels
    7
    """
    path = locate(weights)
    if WeightsFile(path).metadata.get("architecture") == ENSEMBLE:
        raise WeightsError(
            f"{path}: is an ensemble; name the file of one network instead, "
            "such as pcnn-ferplus-only"
        )
    return _load_learners(_open(path, NETWORK))[0]


@own_settings(gradients=True)
def load_learners(weights: str | Path) -> list[Learner]:
    """As load_learner; of an ensemble the learners of all its networks."""
    path = locate(weights)
    ensemble = WeightsFile(path).metadata.get("architecture") == ENSEMBLE
    return _load_learners(_open(path, expression if ensemble else NETWORK))


def _open(path: Path, rule: Rule) -> WeightsFile:
    """A file whose metadata keep to the rule; no tensor is read yet."""
    file = WeightsFile(path)
    architecture = file.metadata.get("architecture")
    if architecture not in ("pcnn", "trunk", ENSEMBLE):
        raise WeightsError(f"{path}: holds {shown(architecture)}, no expression network")
    file.check(rule)
    return file


def _joined(
    path: Path, networks: Sequence[PCNN | FaceNet], described: Sequence[Mapping[str, Any]]
) -> Ensemble:
    """An ensemble of a file's networks. described: the metadata of its members."""
    members = [Member(float(own["share"]), float(own["temperature"])) for own in described]
    try:
        return Ensemble(networks, members)
    except InputError as error:
        raise WeightsError(f"{path}: members do not fit together ({error})") from error


def _empty_network(described: Mapping[str, Any], name: str = "config") -> PCNN | FaceNet:
    """A network without weights. described: its metadata; name: of the field with its shape."""
    network_type = PCNN if described["architecture"] == "pcnn" else FaceNet
    return network_type(_config(described["config"], name), initialised=False)


def _load_learners(file: WeightsFile) -> list[Learner]:
    """The networks of a file with their heads for second labels, in training mode."""
    metadata = file.metadata
    several = metadata["architecture"] == ENSEMBLE
    described = metadata["members"] if several else [metadata]
    second = next(iter((metadata.get("labels") or {}).items()), None)
    classes = None if second is None else tuple(second[1]["classes"])
    heads = "" if second is None else f"{SECOND_PREFIX}{second[0]}."
    learners, names = [], []
    with _fitting(file.path), torch.device("meta"):  # only shapes, without memory
        for place, own in enumerate(described):
            field = f"members[{place}].config" if several else "config"
            learners.append(Learner(_empty_network(own, field), classes))
            prefix = f"{MEMBERS_PREFIX}{place}." if several else ""
            names.append(
                {name: prefix + _file_name(name, heads) for name in learners[-1].state_dict()}
            )
    file.check_shapes(
        {
            names_in_file[name]: tensor
            for learner, names_in_file in zip(learners, names, strict=True)
            for name, tensor in learner.state_dict().items()
        }
    )
    found = file.tensors()
    for learner, names_in_file in zip(learners, names, strict=True):
        state = {name: found[stored] for name, stored in names_in_file.items()}
        learner.load_state_dict(state, assign=True)
    return learners


def _file_name(own: str, prefix: str) -> str:
    """The name of a learner's tensor in a file. prefix: of the heads for second labels."""
    if own.startswith("network."):
        return own.removeprefix("network.")
    return prefix + own.removeprefix("second.")


@contextlib.contextmanager
def _fitting(path: str | Path) -> Iterator[None]:
    """Convert errors in building a network from a file to WeightsError."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its contents do not fit together ({error})") from error


def _config(described: Mapping[str, Any], name: str) -> ModelConfig:
    config: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
    }
    loaded = ModelConfig(**{**config, "layout": RegionLayout(**config["layout"])})
    if loaded.saliency is not None:
        try:
            find_model(loaded.saliency)
        except InputError as error:
            raise InputError(f"{name}.saliency: {error}") from error
    return loaded
