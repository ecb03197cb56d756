"""Resumable training loop of an expression network."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pcnn.datasets.labels import FaceSet
from pcnn.devices import own_settings
from pcnn.errors import InputError, counted
from pcnn.faces.resampling import resample, to_planes
from pcnn.networks.pcnn import Learner
from pcnn.networks.regions import normalise
from pcnn.networks.saliency import weigh
from pcnn.training.expression.augmentation import Augmentation, Augmenter
from pcnn.training.expression.losses import movement_loss, two_phase_loss
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.start import new_learner
from pcnn.training.expression.teachers import load_teachers, mean_answers
from pcnn.training.optimiser import average_decay, one_cycle, parameter_groups, pull
from pcnn.weights.checkpoints import (
    check_targets,
    fill,
    fill_optimizer,
    read_training,
    write_training,
)
from pcnn.weights.schema import anything, mapping

# Options that may change when a training is resumed.
_NO_PART_IN_STEPS = ("data", "output", "detector", "mirror", "storage", "init_share")


class ExpressionTraining:
    """A training that can be stopped at any step and resumed, with the same result.

    Each random choice is a function of the seed and the step. So the state consists of the step
    number, the network, its average, the optimiser and the teachers' answers. If
    torch.distributed is initialised, each process computes its share of every batch.
    train: the faces with labels. second: the same faces with labels of the second kind, if
        options.second is above 0.
    photographs: (M, S, S) or (M, S, S, 3) uint8 faces without labels, at their original
        sharpness, if options.photographs is given.
    movements: (N, K) of the faces of train, see landmarker.movement_targets, if
        options.movements is given.
    Raises InputError: options and data that do not fit together.
    """

    @own_settings(gradients=True)
    def __init__(  # noqa: PLR0913
        self,
        options: ExpressionOptions,
        train: FaceSet,
        device: str | torch.device = "cpu",
        *,
        second: FaceSet | None = None,
        photographs: Tensor | None = None,
        movements: Tensor | None = None,
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
                f"ExpressionTraining: batch must be a multiple of the {world} processes, "
                f"got {options.batch}"
            )
        self.share = options.batch // world
        torch.manual_seed(options.seed)
        if second is not None and second.names != train.names:
            raise InputError(
                "ExpressionTraining: second must hold the faces of train, in their order"
            )
        self._second, self._photographs = second, photographs
        if (movements is None) != (options.movements is None) or (
            movements is not None and len(movements) != len(train)
        ):
            raise InputError(
                "ExpressionTraining: movements must have a row for each face of train if "
                "options.movements is given, else be None"
            )
        self._movements = None if movements is None else movements.to(self.device)
        self.learner = self._begun()
        self.learner.network.requires_grad_(not options.frozen)
        self._model = DistributedDataParallel(self.learner) if spread else self.learner
        self.average = copy.deepcopy(self.learner).requires_grad_(False)
        self.optimizer = _optimizer(self.learner, options)
        self._augmenters = Augmenter(options.augmentation), Augmenter(options.augmentation.calmer())
        self._faces = train.faces.to(self.device)
        self._sharp = None if photographs is None else photographs.to(self.device)
        self._drawn_by = _drawn_by(train.votes, options.balance)
        self._teachers = load_teachers(options.teachers, train.classes)
        # For each kind of labels (N + M, classes), photographs last; computed for the first batch.
        self._targets: list[Tensor] | None = None
        self.step = 0
        self.epoch_steps = len(train) // options.batch
        if self.epoch_steps < 1:
            raise InputError(
                f"ExpressionTraining: batch {options.batch} is larger than the "
                f"{counted(len(train), 'training face')}"
            )
        self.steps = max(1, round(self.epoch_steps * options.epochs))

    def _begun(self) -> Learner:
        """The network before the first step."""
        count = 0 if self._movements is None else self._movements.shape[1]
        return new_learner(self.options, self.train, self._second, self.device, movements=count)

    @property
    def second_shares(self) -> list[float]:
        """How often each of the second labels is among the faces."""
        return [] if self._second is None else class_shares(self._second.votes)

    @own_settings(gradients=True)
    def teach(self) -> list[Tensor]:
        """Compute the targets of all faces, with the teachers' answers.

        The first step calls this if it was not called before. Shows its progress on stderr, if
        that is a terminal. Returns the targets (N + M, classes) for each kind of labels.
        """
        options, kinds = self.options, [self.train]
        if self._second is not None:
            kinds.append(self._second)
        votes = [_targets(kind.votes, options.labels) for kind in kinds]
        every = self._answers(self.train.faces, kinds)
        targets = [
            own if answers is None else torch.lerp(own, answers, options.teaching)
            for own, answers in zip(votes, every, strict=True)
        ]
        if self._photographs is not None:
            for kind, answers in zip(kinds, every, strict=True):
                if answers is None:
                    raise InputError(
                        "ExpressionTraining: photographs have no labels; no teacher knows "
                        f"{', '.join(kind.classes)}"
                    )
            read = self._answers(_shrink(self._photographs, _TEACHERS_SIDE), kinds)
            pairs = zip(targets, read, strict=True)
            targets = [torch.cat((own, new)) for own, new in pairs if new is not None]
        self._targets = [own.to(self.device) for own in targets]
        self._teachers = []
        return self._targets

    def _answers(self, faces: Tensor, kinds: Sequence[FaceSet]) -> list[Tensor | None]:
        """The teachers' mean answers for each kind of labels, see mean_answers."""
        dtype = torch.bfloat16 if self.options.precision == "bfloat16" else torch.float32
        classes, place = [kind.classes for kind in kinds], (self.device, dtype)
        return mean_answers(self._teachers, faces, classes, place=place, shown=self.rank == 0)

    @own_settings(gradients=True)
    def advance(self) -> float:
        """Run one step of the optimiser and return its loss."""
        self.learner.train()
        self.learner.network.train(not self.options.frozen)  # norms keep their statistics
        faces, targets, movements = self._batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * self._schedule()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"
        ):
            loss = self._loss(faces, targets, movements)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.options.clip)
        self.optimizer.step()
        self.step += 1
        decay = average_decay(self.step, self.options.ema)
        pull(self.average, self.learner, 1 - decay)
        return float(loss.detach())

    @own_settings(gradients=True)
    def result(self) -> Learner:
        """The trained weights: the average, mixed with a share `init_share` of the start."""
        learner = copy.deepcopy(self.average)
        if self.options.init_share:
            # `init` may have no heads for second labels: those of the training stay.
            pull(learner.network, self._begun().network, self.options.init_share)
        return learner.cpu()

    @own_settings(gradients=True)
    def save(self, path: Path) -> None:
        """Write the whole state atomically."""
        state = {
            "options": dataclasses.asdict(self.options),
            "step": self.step,
            "learner": self.learner.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "targets": self._targets if self.options.teachers else None,
        }
        write_training(path, state)

    @own_settings(gradients=True)
    def resume(self, path: Path) -> None:
        """Continue from a saved state.

        Raises InputError: it was made with other options. WeightsError: it is damaged.
        """
        state = read_training(path, self.device, mapping(anything))
        ours = dataclasses.asdict(self.options)
        defaults = {option.name: option.default for option in dataclasses.fields(self.options)}
        begun = {**defaults, **state["options"]}  # an older version may have fewer options
        if isinstance(begun["augmentation"], dict):
            begun["augmentation"] = {
                **dataclasses.asdict(Augmentation()),
                **begun["augmentation"],
            }
        free = set(_NO_PART_IN_STEPS) - ({"detector"} if self.options.aligned else set())
        changed = [name for name in ours if name not in free and ours[name] != begun[name]]
        if changed:
            raise InputError(
                f"ExpressionTraining: {path} was started with another {', '.join(changed)}; "
                "repeat the options, or remove the file to start again"
            )
        if "learner" not in state:
            raise InputError(
                f"ExpressionTraining: {path} was started by an older pcnn; remove it to start again"
            )
        count = len(self.train) + (0 if self._photographs is None else len(self._photographs))
        targets = state.get("targets")
        if targets is not None:
            kinds = 1 if self._second is None else 2
            check_targets(path, targets, kinds, len(self.train.classes))
        if targets is not None and len(targets[0]) != count:
            raise InputError(
                f"ExpressionTraining: {path} was started with {len(targets[0])} faces, "
                f"the data have {count}"
            )
        fill(path, "learner", self.learner, state["learner"])
        fill(path, "average", self.average, state.get("average"))
        fill_optimizer(path, self.optimizer, state.get("optimizer"))
        self._targets, self.step = targets, state["step"]

    def _batch(self) -> tuple[Tensor, list[Tensor], Tensor | None]:
        options = self.options
        targets = self.teach() if self._targets is None else self._targets
        epoch, position = divmod(self.step, self.epoch_steps)
        order = self._order(_generator(options.seed, 1, epoch))
        first = position * options.batch + self.rank * self.share
        chosen = order[first : first + self.share].to(self.device)
        faces = to_planes(self._faces[chosen])
        movements = None if self._movements is None else self._movements[chosen]
        if self._sharp is not None:
            among = self._draw_photographs(targets[0])
            chosen = torch.cat((chosen, len(self.train) + among))
            faces = torch.cat((resample(faces, options.size), to_planes(self._sharp[among])))
        seed = _seed(options.seed, 2 + 2 * self.rank, self.step)
        augment = self._augmenters[self.step >= (1 - options.calm) * self.steps]
        config = self.learner.network.config
        faces = normalise(augment(faces, options.size, seed), config)
        return weigh([faces], config)[0], [kind[chosen] for kind in targets], movements

    def _draw_photographs(self, targets: Tensor) -> Tensor:
        """Indices of photographs for this step's batch, drawn from the confident ones."""
        options = self.options
        sure = targets[len(self.train) :].amax(1) >= options.photographs_confidence
        numbers = sure.nonzero()[:, 0]
        generator = _generator(options.seed, 3 + 2 * self.rank, self.step)
        count = round(self.share * options.photographs_share)
        drawn = torch.randint(len(numbers), (count,), generator=generator)
        return numbers[drawn.to(self.device)]

    def _order(self, generator: torch.Generator) -> Tensor:
        """Indices of the faces of an epoch, in order."""
        if self._drawn_by is None:
            return torch.randperm(len(self.train), generator=generator)
        return torch.multinomial(self._drawn_by, len(self.train), True, generator=generator)

    def _loss(self, faces: Tensor, targets: list[Tensor], movements: Tensor | None) -> Tensor:
        options = self.options
        parts = []
        answers, moved = self._model(faces)
        for (logits, regions), kind in zip(answers, targets, strict=True):
            if regions is None:
                parts.append(F.cross_entropy(logits, kind))
            else:
                parts.append(
                    two_phase_loss(logits, regions, kind, alpha=options.alpha, beta=options.beta)
                )
        loss = parts[0] if len(parts) == 1 else parts[0] + options.second * parts[1]
        if movements is not None:  # of photographs, the last of a batch, none are known
            loss = loss + options.moving * movement_loss(moved[: len(movements)], movements)
        return loss

    def _schedule(self) -> float:
        """The learning rate of this step, as a share of its peak."""
        if self.options.optimizer == "sgd":
            return float(0.5 ** (self.step // (15 * self.epoch_steps)))
        at = (self.step + 1) / self.steps
        return one_cycle(at, self.options.warm_up)


# The side of the teachers' training faces. They see photographs at the same resolution.
_TEACHERS_SIDE = 48
_LEAST_SHARE = 1e-5  # of a class, so that it can be divided by


def _shrink(faces: Tensor, side: int) -> Tensor:
    """Reduce faces (M, S, S) or (M, S, S, 3) uint8 to a side of `side` pixels, antialiased."""
    shrunk = [
        F.interpolate(to_planes(chunk), size=(side, side), mode="bilinear", antialias=True)
        for chunk in faces.split(256)
    ]
    levels = (255 * torch.cat(shrunk)).round().clamp(0, 255).to(torch.uint8)
    return levels[:, 0] if faces.dim() == 3 else levels.permute(0, 2, 3, 1).contiguous()


def _optimizer(network: nn.Module, options: ExpressionOptions) -> torch.optim.Optimizer:
    groups = parameter_groups(network, options.weight_decay)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.lr)


def class_shares(votes: Tensor) -> list[float]:
    """The share of each class in the votes (N, classes); a class without any has nearly none."""
    shares: list[float] = votes.mean(0).clamp(min=_LEAST_SHARE).tolist()
    return shares


def _targets(votes: Tensor, labels: str) -> Tensor:
    """Probabilities (N, classes): the votes, or 1 for the class with most votes."""
    if labels == "votes":
        return votes
    return F.one_hot(votes.argmax(1), votes.shape[1]).to(votes.dtype)


def _drawn_by(votes: Tensor, balance: float) -> Tensor | None:
    """Relative frequencies (N,) of the faces in an epoch; None draws each face once."""
    if balance == 0:
        return None
    labels = votes.argmax(1)
    counts = labels.bincount(minlength=votes.shape[1]).double()
    return counts[labels] ** -balance


def _seed(seed: int, purpose: int, index: int) -> int:
    return (seed * 4 + purpose) * 1_000_003 + index


def _generator(seed: int, purpose: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(seed, purpose, index))
