"""A resumable training of an expression network."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn import weights
from pcnn.augment import Augmentation, augment
from pcnn.datasets import FaceSet
from pcnn.errors import InputError
from pcnn.evaluate import normalise
from pcnn.losses import two_phase_loss
from pcnn.model import PCNN, FaceNet, ModelConfig


@dataclass(frozen=True)
class TrainOptions:
    """What decides the outcome of a training, beside the data.

    network: "trunk" (FaceNet) or "pcnn". init: for "pcnn", a trunk's weights to start from.
    size: side of the face view, in pixels. width: see ModelConfig.
    lr: peak of the one-cycle schedule; warm_up: the share of it that rises.
    ema: decay of the averaged weights, which are the ones that are kept.
    seed: of everything random.
    detector: by whose landmarks the template is measured, see detector.Detector.load.
    """

    network: str
    data: str
    output: str
    init: str | None = None
    size: int = 96
    width: int = 64
    epochs: float = 12
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.15
    ema: float = 0.995
    seed: int = 0
    detector: str = "mobilenet"

    def __post_init__(self) -> None:
        for name, least in (("size", 8), ("width", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"TrainOptions: {name} must be at least {least}, got {getattr(self, name)}"
                )
        if not (self.epochs > 0 and self.lr > 0):
            raise InputError(
                f"TrainOptions: epochs and lr must be above 0, got {self.epochs} and {self.lr}"
            )
        if not (0 <= self.warm_up < 1 and 0 <= self.ema < 1):
            raise InputError(
                "TrainOptions: warm_up and ema must be at least 0 and below 1, "
                f"got {self.warm_up} and {self.ema}"
            )


# Options that a training may be gone on with after they changed.
_NO_PART_IN_STEPS = ("data", "output", "detector")

# Mean and standard deviation of the FER+ training faces, computed from the sheets.
FERPLUS_MEAN = (0.507,)
FERPLUS_STD = (0.254,)


class Training:
    """A training that can be stopped at any step and gone on with, to the same result.

    Every random choice is a function of the seed and the step, so the state is the step
    number, the network, its average, and the optimiser.
    """

    def __init__(self, options: TrainOptions, train: FaceSet) -> None:
        self.options = options
        self.train = train
        torch.manual_seed(options.seed)
        self.network = _build(options)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(_groups(self.network, options), lr=options.lr)
        self.step = 0
        self.epoch_steps = len(train) // options.batch
        if self.epoch_steps < 1:
            raise InputError(
                f"Training: batch {options.batch} is larger than the {len(train)} training faces"
            )
        self.steps = max(1, round(self.epoch_steps * options.epochs))

    def advance(self) -> float:
        """One step of optimisation; returns its loss."""
        self.network.train()
        faces, votes = self._batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * self._schedule()
        loss = self._loss(faces, votes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 50.0)
        self.optimizer.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write the whole state in one atomic step."""
        temporary = path.with_name(path.name + ".part")
        state = {
            "options": dataclasses.asdict(self.options),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a saved state. Raises InputError: it was made with other options."""
        state = torch.load(path, weights_only=True)
        ours = dataclasses.asdict(self.options)
        changed = [
            name
            for name in ours
            if name not in _NO_PART_IN_STEPS and ours[name] != state["options"].get(name)
        ]
        if changed:
            raise InputError(
                f"Training: {path} was begun with another {', '.join(changed)}; "
                "remove it to start afresh, or repeat the options"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _batch(self) -> tuple[Tensor, Tensor]:
        options = self.options
        epoch, position = divmod(self.step, self.epoch_steps)
        order = torch.randperm(len(self.train), generator=_generator(options.seed, 1, epoch))
        chosen = order[position * options.batch : (position + 1) * options.batch]
        faces = self.train.faces[chosen][:, None].float() / 255
        generator = _generator(options.seed, 2, self.step)
        faces = augment(faces, options.size, Augmentation(), generator)
        return normalise(faces, self.network.config), self.train.votes[chosen]

    def _loss(self, faces: Tensor, votes: Tensor) -> Tensor:
        if isinstance(self.network, PCNN):
            logits, region_logits = self.network(faces)
            return two_phase_loss(logits, region_logits, votes)
        return F.cross_entropy(self.network(faces), votes)

    def _schedule(self) -> float:
        """One cycle: a linear rise to 1, then half a cosine down to 0."""
        at = (self.step + 1) / self.steps
        if at < self.options.warm_up:
            return at / self.options.warm_up
        return 0.5 + 0.5 * math.cos(
            math.pi * (at - self.options.warm_up) / (1 - self.options.warm_up)
        )

    @torch.no_grad()
    def _average(self) -> None:
        # A short memory at first, else the average would long remember the random start.
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name], 1 - decay)
            else:
                value.copy_(theirs[name])


def _build(options: TrainOptions) -> PCNN | FaceNet:
    config = ModelConfig(size=options.size, mean=FERPLUS_MEAN, std=FERPLUS_STD, width=options.width)
    network: PCNN | FaceNet
    if options.network == "trunk":
        network = FaceNet(config)
    elif options.network == "pcnn":
        network = PCNN(config)
        if options.init:
            network.start_from(weights.load_facenet(options.init))
    else:
        raise InputError(f"TrainOptions: network must be trunk or pcnn, got {options.network!r}")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _groups(network: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only: it would merely shrink norms and biases."""
    parameters = list(network.parameters())
    return [
        {
            "params": [p for p in parameters if p.dim() > 1],
            "weight_decay": options.weight_decay,
        },
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _generator(seed: int, purpose: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 4 + purpose) * 1_000_003 + index)
