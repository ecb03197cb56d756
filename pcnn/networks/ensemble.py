"""Several networks that read the same face, and whose answers are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.errors import InputError
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import VIEWS
from pcnn.ops.reference import LUMA


@dataclass(frozen=True)
class Member:
    """The share of a network in an ensemble's answer.

    share: its weight in the mean of the log-probabilities. temperature: divides its logits first.
    """

    share: float
    temperature: float


class Ensemble(nn.Module):
    """Networks that read the same face; their log-probabilities are averaged.

    The face view is that of the finest member, in colour if any member sees colours. Each member
    gets it in its own size and colours. The regions are those of the first PCNN.
    networks: two or more, with the same classes and without a saliency model. members: one for
    each network.
    Raises InputError: the networks do not fit together.
    """

    views: tuple[str, ...] = VIEWS[:1]

    def __init__(self, networks: Sequence[PCNN | FaceNet], members: Sequence[Member]) -> None:
        super().__init__()
        configs = [network.config for network in networks]
        if len(networks) < 2 or len(members) != len(networks):
            raise InputError(
                "Ensemble: needs two networks or more and a member for each, "
                f"got {len(networks)} and {len(members)}"
            )
        if len({config.classes for config in configs}) != 1:
            raise InputError("Ensemble: the networks must have the same classes")
        if any(config.saliency is not None for config in configs):
            raise InputError("Ensemble: the networks must have no saliency model")
        self.config = max(configs, key=lambda config: (config.channels, config.size))
        if len({config.layout for config in configs}) != 1:
            raise InputError("Ensemble: the networks must have the same places of regions")
        if max(config.size for config in configs) > self.config.size:
            raise InputError("Ensemble: the finest network must see colours if any network does")
        self.networks = nn.ModuleList(networks)
        self.members = tuple(members)
        self.inputs = nn.ModuleList(MemberInput(self.config, own) for own in networks)

    @property
    def embedding_size(self) -> int:
        """The number of values of a face's embedding: all members' together."""
        return sum(network.embedding_size for network in self.networks)  # type: ignore[misc]

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that have logits of their own: those of the first network with any."""
        return next((tuple(own.regions) for own in self.networks if own.regions), ())  # type: ignore[arg-type]

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, classes) of faces (B, channels, S, S), and the sum of the regions' logits."""
        logits, regions = self.forward_views([face])
        return logits, torch.stack(tuple(regions.values())).sum(0) if regions else None

    def cut(self, face: Tensor) -> list[Tensor]:
        """The only view of faces (B, channels, S, S): the face itself."""
        return [face]

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits (B, classes) of the first view, the face; and the first PCNN's region logits.

        The logits are the mean of the members' log-probabilities.
        """
        answers = [
            network.forward_views(own(views[0]))  # type: ignore[operator]
            for network, own in zip(self.networks, self.inputs, strict=True)
        ]
        shown = first_regions([own for _, own in answers])
        return mean_logits([logits for logits, _ in answers], self.members), shown


def mean_logits(logits: Sequence[Tensor], members: Sequence[Member]) -> Tensor:
    """An ensemble's logits (B, classes) from those of its networks."""
    parts = [
        member.share * (own / member.temperature).log_softmax(1)
        for member, own in zip(members, logits, strict=True)
    ]
    return torch.stack(parts).sum(0)


def first_regions(regions: Iterable[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """An ensemble's region logits: those of its first network that has any."""
    return next((own for own in regions if own), {})


def join_embeddings(parts: Sequence[Tensor]) -> Tensor:
    """An ensemble's embeddings (B, D) from those of its networks, each of unit norm."""
    return torch.cat([F.normalize(part) for part in parts], 1)


class MemberInput(nn.Module):
    """The views of one of an ensemble's networks, from the ensemble's face view.

    config: of the ensemble. Colours, size and normalisation are converted by small matrices. The
    resizing is bilinear and antialiased.
    """

    weight: Tensor
    bias: Tensor
    resizing: Tensor

    def __init__(self, config: ModelConfig, network: PCNN | FaceNet) -> None:
        super().__init__()
        own = network.config
        boxes = own.layout.boxes(own.size)
        self.boxes = [boxes[name] for name in network.views]
        self._unchanged = (config.size, config.mean, config.std) == (own.size, own.mean, own.std)
        mean, std, offset, scale = (
            torch.tensor(values, dtype=torch.float32)
            for values in (config.mean, config.std, own.mean, own.std)
        )
        grey = own.channels < config.channels
        colours = mean.new_tensor([LUMA]) if grey else torch.eye(config.channels).to(mean)
        # own = weight · view + bias, (own.channels, config.channels) and (own.channels,)
        self.register_buffer("weight", colours * std / scale[:, None])
        self.register_buffer("bias", (colours @ mean - offset) / scale)
        units = torch.eye(config.size).to(mean)[None, None]
        rows = F.interpolate(units, (own.size, config.size), mode="bilinear", antialias=True)
        self.register_buffer("resizing", rows[0, 0])  # (own.size, config.size)

    def forward(self, face: Tensor) -> list[Tensor]:
        """The network's views of faces (B, config.channels, S, S)."""
        if not self._unchanged:
            face = F.conv2d(face, self.weight[:, :, None, None], self.bias)
            face = self.resizing @ face @ self.resizing.t()
        return [
            face[:, :, box.top : box.bottom, box.left : box.right].contiguous(
                memory_format=torch.channels_last
            )
            for box in self.boxes
        ]


# The networks that predict expressions.
ExpressionNetwork: TypeAlias = PCNN | FaceNet | Ensemble
