"""A resumable training of an expression network."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pcnn.datasets.labels import FaceSet
from pcnn.devices import own_settings
from pcnn.errors import InputError, counted
from pcnn.faces.resampling import pictures, resample
from pcnn.networks.mobilenet import start_from_published
from pcnn.networks.pcnn import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PCNN,
    FaceNet,
    Learner,
    ModelConfig,
    normalise,
    pull,
)
from pcnn.networks.saliency import weigh
from pcnn.training.expression.augmentation import Augmenter
from pcnn.training.expression.losses import two_phase_loss
from pcnn.training.expression.options import TrainOptions
from pcnn.training.expression.teachers import load_teachers, mean_answers
from pcnn.weights.checkpoints import check_targets, fill, fill_optimizer, read_training
from pcnn.weights.expression import load_learner
from pcnn.weights.files import is_published, read_published
from pcnn.weights.schema import anything, mapping

# Options that a training may be gone on with after they changed.
_NO_PART_IN_STEPS = ("data", "output", "detector", "mirror", "storage", "init_share")

# Mean and standard deviation of the FER+ training faces, computed from the sheets.
FERPLUS_MEAN = (0.507,)
FERPLUS_STD = (0.254,)


class Training:
    """A training that can be stopped at any step and gone on with, to the same result.

    Every random choice is a function of the seed and the step, so the state is the step
    number, the network, its average, the optimiser, and what teachers answered. Where
    torch.distributed is initialised, each process computes its share of every batch.
    train: the faces, and second: the same with labels of the second kind, if options.second.
    photographs: (M, S, S) faces without labels, uint8, if options.photographs; as sharp as they
        are, see options.
    Raises InputError: options and data that do not fit together.
    """

    @own_settings(gradients=True)
    def __init__(
        self,
        options: TrainOptions,
        train: FaceSet,
        device: str | torch.device = "cpu",
        *,
        second: FaceSet | None = None,
        photographs: Tensor | None = None,
    ) -> None:
        self.options = options
        self.train = train
        self.device = torch.device(device)
        spread = distributed.is_available() and distributed.is_initialized()
        self.rank, world = (
            (distributed.get_rank(), distributed.get_world_size()) if spread else (0, 1)
        )
        if options.batch % world:
            raise InputError(
                f"Training: batch {options.batch} cannot be shared by {world} processes"
            )
        self.share = options.batch // world
        torch.manual_seed(options.seed)
        if second is not None and second.names != train.names:
            raise InputError("Training: second must hold the faces of train, in their order")
        self.learner = _build(options, train, second, self.device)
        self._model = DistributedDataParallel(self.learner) if spread else self.learner
        self.average = copy.deepcopy(self.learner).requires_grad_(False)
        self.optimizer = _optimizer(self.learner, options)
        self._augmenters = Augmenter(options.augmentation), Augmenter(options.augmentation.calmer())
        self._faces = train.faces.to(self.device)
        self._second, self._photographs = second, photographs
        self._sharp = None if photographs is None else photographs.to(self.device)
        self._drawn_by = _drawn_by(train.votes, options.balance)
        self._teachers = load_teachers(
            options.teachers, train.classes, None if second is None else second.classes
        )
        # For each kind of labels (N + M, classes), photographs last; made with the first batch.
        self._targets: list[Tensor] | None = None
        self.step = 0
        self.epoch_steps = len(train) // options.batch
        if self.epoch_steps < 1:
            raise InputError(
                f"Training: batch {options.batch} is larger than the "
                f"{counted(len(train), 'training face')}"
            )
        self.steps = max(1, round(self.epoch_steps * options.epochs))

    @own_settings(gradients=True)
    def teach(self) -> list[Tensor]:
        """Have the teachers answer to all faces, as the first step does where nobody did before.

        Shows its progress on a terminal's stderr.
        Returns for each kind of labels what is to be learnt, (N + M, classes).
        """
        options, kinds = self.options, [self.train]
        if self._second is not None:
            kinds.append(self._second)
        self._targets = []
        for place, kind in enumerate(kinds):
            labels = _targets(kind.votes, options.labels)
            if self._teachers:
                labels = torch.lerp(
                    labels, self._answers(self.train.faces, place), options.teaching
                )
            if self._photographs is not None:
                coarse = _shrink(self._photographs, _TEACHERS_SIDE)
                labels = torch.cat((labels, self._answers(coarse, place)))
            self._targets.append(labels.to(self.device))
        self._teachers = []
        return self._targets

    def _answers(self, faces: Tensor, kind: int) -> Tensor:
        return mean_answers(
            self._teachers, faces, second=kind == 1, device=self.device, shown=self.rank == 0
        )

    @own_settings(gradients=True)
    def advance(self) -> float:
        """One step of optimisation; returns its loss."""
        self.learner.train()
        faces, targets = self._batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * self._schedule()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"
        ):
            loss = self._loss(faces, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.options.clip)
        self.optimizer.step()
        self.step += 1
        # A short memory at first, else the average would long remember the random start.
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))
        pull(self.average, self.learner, 1 - decay)
        return float(loss.detach())

    @own_settings(gradients=True)
    def result(self) -> Learner:
        """What the training has come to: the average, with `init_share` of what it began with."""
        learner = copy.deepcopy(self.average)
        if self.options.init_share:
            begun = _build(self.options, self.train, self._second, self.device)
            pull(learner, begun, self.options.init_share)
        return learner.cpu()

    @own_settings(gradients=True)
    def save(self, path: Path) -> None:
        """Write the whole state in one atomic step."""
        temporary = path.with_name(path.name + ".part")
        state = {
            "options": dataclasses.asdict(self.options),
            "step": self.step,
            "learner": self.learner.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "targets": self._targets if self.options.teachers else None,
        }
        torch.save(state, temporary)
        temporary.replace(path)

    @own_settings(gradients=True)
    def resume(self, path: Path) -> None:
        """Go on from a saved state.

        Raises InputError: it was made with other options. WeightsError: it is damaged.
        """
        state = read_training(path, self.device, mapping(anything))
        ours = dataclasses.asdict(self.options)
        defaults = {option.name: option.default for option in dataclasses.fields(self.options)}
        begun = {**defaults, **state["options"]}  # by a version that had fewer, perhaps
        free = set(_NO_PART_IN_STEPS) - ({"detector"} if self.options.aligned else set())
        changed = [name for name in ours if name not in free and ours[name] != begun[name]]
        if changed:
            raise InputError(
                f"Training: {path} was begun with another {', '.join(changed)}; "
                "remove it to start afresh, or repeat the options"
            )
        if "learner" not in state:
            raise InputError(
                f"Training: {path} was begun by an older pcnn; remove it to start afresh"
            )
        count = len(self.train) + (0 if self._photographs is None else len(self._photographs))
        targets = state.get("targets")
        if targets is not None:
            kinds = 1 if self._second is None else 2
            check_targets(path, targets, kinds, len(self.train.classes))
        if targets is not None and len(targets[0]) != count:
            raise InputError(
                f"Training: {path} was begun with {len(targets[0])} faces, the data have {count}"
            )
        fill(path, "learner", self.learner, state["learner"])
        fill(path, "average", self.average, state.get("average"))
        fill_optimizer(path, self.optimizer, state.get("optimizer"))
        self._targets, self.step = targets, state["step"]

    def _batch(self) -> tuple[Tensor, list[Tensor]]:
        options = self.options
        targets = self.teach() if self._targets is None else self._targets
        epoch, position = divmod(self.step, self.epoch_steps)
        order = self._order(_generator(options.seed, 1, epoch))
        first = position * options.batch + self.rank * self.share
        chosen = order[first : first + self.share].to(self.device)
        faces = pictures(self._faces[chosen])
        if self._sharp is not None:
            among = self._draw_photographs(targets[0])
            chosen = torch.cat((chosen, len(self.train) + among))
            faces = torch.cat((resample(faces, options.size), pictures(self._sharp[among])))
        seed = _seed(options.seed, 2 + 2 * self.rank, self.step)
        augment = self._augmenters[self.step >= (1 - options.calm) * self.steps]
        config = self.learner.network.config
        faces = normalise(augment(faces, options.size, seed), config)
        return weigh([faces], config)[0], [kind[chosen] for kind in targets]

    def _draw_photographs(self, targets: Tensor) -> Tensor:
        """The photographs of this step's batch, by their numbers; those that are sure enough."""
        options = self.options
        sure = targets[len(self.train) :].amax(1) >= options.photographs_confidence
        numbers = sure.nonzero()[:, 0]
        generator = _generator(options.seed, 3 + 2 * self.rank, self.step)
        count = round(self.share * options.photographs_share)
        drawn = torch.randint(len(numbers), (count,), generator=generator)
        return numbers[drawn.to(self.device)]

    def _order(self, generator: torch.Generator) -> Tensor:
        """The faces of an epoch, in their order."""
        if self._drawn_by is None:
            return torch.randperm(len(self.train), generator=generator)
        return torch.multinomial(self._drawn_by, len(self.train), True, generator=generator)

    def _loss(self, faces: Tensor, targets: list[Tensor]) -> Tensor:
        options = self.options
        parts = []
        for (logits, regions), kind in zip(self._model(faces), targets, strict=True):
            if regions is None:
                parts.append(F.cross_entropy(logits, kind))
            else:
                parts.append(
                    two_phase_loss(logits, regions, kind, alpha=options.alpha, beta=options.beta)
                )
        return parts[0] if len(parts) == 1 else parts[0] + options.second * parts[1]

    def _schedule(self) -> float:
        """The share of the peak rate that this step gets."""
        if self.options.optimizer == "sgd":
            return float(0.5 ** (self.step // (15 * self.epoch_steps)))
        at = (self.step + 1) / self.steps
        if at < self.options.warm_up:
            return at / self.options.warm_up
        return 0.5 + 0.5 * math.cos(
            math.pi * (at - self.options.warm_up) / (1 - self.options.warm_up)
        )


def _build(
    options: TrainOptions, train: FaceSet, second: FaceSet | None, device: torch.device
) -> Learner:
    grey = train.faces.dim() == 3
    config = ModelConfig(
        classes=train.classes,
        size=options.size,
        mean=FERPLUS_MEAN if grey else IMAGENET_MEAN,
        std=FERPLUS_STD if grey else IMAGENET_STD,
        width=options.width,
        saliency=options.saliency,
        backbone=options.backbone,
    )
    network = FaceNet(config) if options.network == "trunk" else PCNN(config)
    learner = Learner(network, None if second is None else second.classes)
    if options.init and is_published(options.init):
        plain = network if isinstance(network, FaceNet) else FaceNet(config)
        _start_from_published(plain, options.init, train.faces)
        if network is not plain:
            network.start_from(plain)
    elif options.init:
        start = load_learner(options.init)
        given = type(start.network), start.network.config.size
        if options.init_share and given != (type(network), config.size):
            kind = f"{options.network} of size {config.size}"
            raise InputError(f"Training: init_share needs an init that is a {kind}")
        network.start_from(start.network)
        if learner.second and start.second and start.classes == learner.classes:
            learner.second.load_state_dict(start.second.state_dict(), strict=False)
    elif options.init_share:
        raise InputError("Training: init_share needs an init")
    learner.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return learner


def _start_from_published(network: FaceNet, init: str, faces: Tensor) -> None:
    """Fill the network's trunk and stage 4; norms are measured on some of the training faces."""
    config = network.config
    if config.backbone != "mobilenet":
        raise InputError(
            f"Training: {init} holds a MobileNet's weights; set backbone to 'mobilenet'"
        )
    chosen = faces[:: max(1, len(faces) // _CALIBRATION_FACES)][:_CALIBRATION_FACES]
    views = normalise(resample(pictures(chosen), config.size), config)
    network.eval()
    start_from_published(
        network.trunk,  # type: ignore[arg-type]
        network.layer4,
        read_published(init),
        views,
        mean=config.mean,
        std=config.std,
    )


_CALIBRATION_FACES = 256
# Teachers learnt from faces of this side, and are shown photographs' faces no finer.
_TEACHERS_SIDE = 48


def _shrink(faces: Tensor, side: int) -> Tensor:
    """(M, S, S) uint8 → (M, side, side) uint8, each pixel the mean of what it covers."""
    shrunk = [
        F.interpolate(chunk[:, None].float(), size=(side, side), mode="bilinear", antialias=True)
        for chunk in faces.split(256)
    ]
    return torch.cat(shrunk)[:, 0].round().clamp(0, 255).to(torch.uint8)


def _optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    # Weight decay for matrices and kernels only: it would merely shrink norms and biases.
    matrices = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.lr)


def _targets(votes: Tensor, labels: str) -> Tensor:
    """(N, classes) probabilities: the votes, or all for the class that has most."""
    if labels == "votes":
        return votes
    return F.one_hot(votes.argmax(1), votes.shape[1]).to(votes.dtype)


def _drawn_by(votes: Tensor, balance: float) -> Tensor | None:
    """(N,) how often each face is drawn, relative to others; None: each once."""
    if balance == 0:
        return None
    labels = votes.argmax(1)
    counts = labels.bincount(minlength=votes.shape[1]).double()
    return counts[labels] ** -balance


def _seed(seed: int, purpose: int, index: int) -> int:
    return (seed * 4 + purpose) * 1_000_003 + index


def _generator(seed: int, purpose: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(seed, purpose, index))
