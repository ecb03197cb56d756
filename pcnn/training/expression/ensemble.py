"""Joining of trained networks to an ensemble in one weights file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pcnn.datasets.loading import load_faces
from pcnn.devices import own_settings
from pcnn.errors import InputError, counted
from pcnn.evaluation.logits import predict_logits
from pcnn.evaluation.metrics import accuracy, fit_temperature
from pcnn.faces.alignment import suited_faces
from pcnn.networks.ensemble import Ensemble, Member
from pcnn.weights.expression import SECOND_PREFIX, ExpressionWeights, load_expression
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
    mirror: bool = False,
    valid_split: str = "valid",
) -> float:
    """Write a file with several networks, whose log-probabilities are averaged.

    weights: names or paths of two or more expression weights; see Ensemble for what must be
        alike. The file keeps their tensors as they are stored, without heads for second labels.
        The template is that of the last.
    data: a data set, see load_faces. The temperatures are fitted on its `valid_split`, and the
        score in the file is measured on it.
    shares: the weight of each network's answer; None for equal ones. They are scaled to sum to 1.
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
    given = list(shares) if shares else [1.0] * len(loaded)
    if len(given) != len(loaded) or not all(_LEAST_SHARE <= share < math.inf for share in given):
        raise InputError(f"join_networks: shares must be positive, one a network, got {given}")
    for name, words in (("native_size", "size of training faces"), ("aligned", "alignment")):
        if len({getattr(one, name) for one in loaded}) > 1:
            raise InputError(f"join_networks: the networks must have the same {words}")
    members = [
        Member(share / sum(given), one.temperature)
        for one, share in zip(loaded, given, strict=True)
    ]
    ensemble = Ensemble([one.network for one in loaded], members)  # type: ignore[misc]
    joined = replace(loaded[-1], network=ensemble.eval(), mirror=mirror)
    logits, regions, votes = _answers(joined, data, valid_split)
    score = accuracy(logits, votes)
    metadata = _describe(loaded, members) | {
        "mirror": mirror,
        "temperature": fit_temperature(logits, votes),
        "region_temperatures": {name: fit_temperature(own, votes) for name, own in regions.items()},
        "scores": {f"{Path(data).name}, {counted(len(votes), 'validation face')}": score},
    }
    tensors = {
        f"networks.{place}.{name}": tensor
        for place, one in enumerate(loaded)
        for name, tensor in WeightsFile(one.path).stored().items()
        if not name.startswith(SECOND_PREFIX)
    }
    keep_to(expression, metadata, "join_networks")
    write(output, tensors, metadata)
    return score


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
    shares = next((one.class_shares for one in loaded if one.class_shares), None)
    return metadata if shares is None else {**metadata, "class_shares": shares}


def _joined(loaded: Sequence[ExpressionWeights], name: str) -> str:
    """What the networks' files say under a name, each once."""
    return "; ".join(dict.fromkeys(one.metadata.get(name, "not recorded") for one in loaded))


def _answers(
    joined: ExpressionWeights, data: str | Path, split: str
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Logits, each region's logits, and votes for the faces of a data set's part."""
    network = joined.network
    valid = load_faces(data, split, grey=network.config.channels == 1)
    faces, native_size = suited_faces(joined, valid.faces)
    logits, regions = predict_logits(network, faces, native_size=native_size, mirror=joined.mirror)
    return logits, regions, valid.votes
