"""Joining of trained networks to an ensemble in one weights file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pcnn.datasets.labels import FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.devices import own_settings
from pcnn.errors import InputError, counted
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy
from pcnn.faces.alignment import suited_faces
from pcnn.networks.ensemble import Ensemble, Member
from pcnn.training.expression.second_labels import (
    SECOND,
    describe_second,
    fitted_temperatures,
    second_labels,
)
from pcnn.weights.expression import (
    MEMBERS_PREFIX,
    SECOND_PREFIX,
    ExpressionWeights,
    load_expression,
)
from pcnn.weights.files import WeightsFile, write
from pcnn.weights.kinds import ENSEMBLE, expression
from pcnn.weights.known import SINGLE_WEIGHTS
from pcnn.weights.schema import keep_to

_LEAST_SHARE = 1e-3


@own_settings()
def join_networks(  # noqa: PLR0913 - each is a choice of the user's
    weights: Sequence[str | Path],
    data: str | Path,
    output: str | Path,
    *,
    shares: Sequence[float] | None = None,
    second_shares: Sequence[float] | None = None,
    mirror: bool = False,
    valid_split: str = "valid",
) -> float:
    """Write a file with several networks, whose log-probabilities are averaged.

    weights: names or paths of two or more expression weights; see Ensemble for what must be
        alike. The file keeps their tensors as they are stored; heads for second labels only if
        each network has them. Then the data set must have such labels. The template is that of
        the last.
    data: a data set, see load_faces. The temperatures are fitted on its `valid_split`, and the
        score in the file is measured on it.
    shares: the weight of each network's answer; None for equal ones. They are scaled to sum to 1.
    second_shares: the same for second labels; None for `shares`.
    mirror: True if the file asks for each face to be read with its mirror image.
    Returns the accuracy on `valid_split`.
    Raises InputError: networks that do not fit together, or shares that are not positive.
    Raises WeightsError: see load_expression.
    """
    loaded = [load_expression(name) for name in weights]
    for one in loaded:
        if isinstance(one.network, Ensemble):
            raise InputError(
                f"join_networks: {one.path} is an ensemble; name its networks' files instead, "
                f"such as {SINGLE_WEIGHTS}"
            )
    given, count = shares or [1.0] * len(loaded), len(loaded)
    scaled = _scaled("shares", given, count)
    second_scaled = _scaled("second_shares", second_shares or given, count)
    for name, words in (("native_size", "size of training faces"), ("aligned", "alignment")):
        if len({getattr(one, name) for one in loaded}) > 1:
            raise InputError(f"join_networks: the networks must have the same {words}")
    ensemble = _ensemble(loaded, scaled)
    joined = replace(loaded[-1], network=ensemble, mirror=mirror)
    valid = load_faces(data, valid_split, grey=ensemble.config.channels == 1)
    pixels, native_size = suited_faces(joined, valid.faces)
    valid = replace(valid, faces=pixels)
    logits, regions = predict_logits(ensemble, pixels, native_size=native_size, mirror=mirror)
    score = accuracy(logits, valid.votes)
    metadata = _describe(loaded, ensemble.members) | {
        "mirror": mirror,
        **fitted_temperatures(logits, regions, valid.votes),
        "scores": {f"{Path(data).name}, {counted(len(valid), 'validation face')}": score},
    }
    others = _second_labels(loaded, data, valid_split, valid)
    if others is not None:
        second = [load_expression(one.path, SECOND) for one in loaded]
        network = _ensemble(second, second_scaled)
        described = describe_second(network, others, native_size=native_size, mirror=mirror)
        described["members"] = [asdict(member) for member in network.members]
        metadata["labels"] = {SECOND: described | _class_shares(second)}
    tensors = {
        f"{MEMBERS_PREFIX}{place}.{name}": tensor
        for place, one in enumerate(loaded)
        for name, tensor in WeightsFile(one.path).stored().items()
        if others is not None or not name.startswith(SECOND_PREFIX)
    }
    keep_to(expression, metadata, "join_networks")
    write(output, tensors, metadata)
    return score


def _scaled(name: str, shares: Sequence[float], count: int) -> list[float]:
    """Shares that sum to 1. Raises InputError: one is not positive, or not one a network."""
    if len(shares) != count or not all(_LEAST_SHARE <= share < math.inf for share in shares):
        raise InputError(
            f"join_networks: {name} must be positive, one a network, got {list(shares)}"
        )
    return [share / sum(shares) for share in shares]


def _ensemble(loaded: Sequence[ExpressionWeights], shares: Sequence[float]) -> Ensemble:
    networks = [one.network for one in loaded]
    members = [Member(share, one.temperature) for one, share in zip(loaded, shares, strict=True)]
    return Ensemble(networks, members).eval()  # type: ignore[arg-type]


def _second_labels(
    loaded: Sequence[ExpressionWeights], data: str | Path, split: str, valid: FaceSet
) -> FaceSet | None:
    """The faces with second labels; None if a network has no heads for them."""
    if any(SECOND not in (one.metadata.get("labels") or {}) for one in loaded):
        return None
    return second_labels(data, split, valid)


def _describe(loaded: Sequence[ExpressionWeights], members: Sequence[Member]) -> dict[str, Any]:
    """The metadata of a joined file that come from its networks' files."""
    last = loaded[-1]
    metadata: dict[str, Any] = {
        "kind": "expression",
        "architecture": ENSEMBLE,
        "members": [
            {name: one.metadata[name] for name in ("architecture", "config")} | asdict(member)
            for one, member in zip(loaded, members, strict=True)
        ],
        "aligned": last.aligned,
        "native_size": last.native_size,
        "template": last.template,
        **{name: _joined(loaded, name) for name in ("trained_on", "licence")},
        "training": {one.path.name: one.metadata.get("training", {}) for one in loaded},
    }
    return metadata | _class_shares(loaded)


def _class_shares(loaded: Sequence[ExpressionWeights]) -> dict[str, Any]:
    """The class shares of the first file that records them, as metadata."""
    shares = next((one.class_shares for one in loaded if one.class_shares), None)
    return {} if shares is None else {"class_shares": shares}


def _joined(loaded: Sequence[ExpressionWeights], name: str) -> str:
    """What the networks' files say under a name, each once."""
    return "; ".join(dict.fromkeys(one.metadata.get(name, "not recorded") for one in loaded))
