"""Resumable training loop of an expression network."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from functools import cached_property
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
from pcnn.training.expression.teachers import taught_targets
from pcnn.training.optimiser import average_decay, one_cycle, parameter_groups, pull
from pcnn.training.seeds import step_generator, step_seed
from pcnn.weights.checkpoints import (
    check_targets,
    fill,
    fill_optimizer,
    read_training,
    write_training,
)
from pcnn.weights.schema import anything, mapping

_LEAST_SHARE = 1e-5  # of a class, so that it can be divided by
# Purposes of random numbers, see seeds.step_seed.
_ORDER, _AUGMENTATION, _PHOTOGRAPHS = 1, 2, 3
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
    checkpoint: a file that `save` wrote in a training with the same options and data, which is
        continued; None begins. Teachers that have answered are not asked again.
    targets: for each kind of labels (N + M, classes), photographs last, see taught_targets.
    Raises InputError: options, data and checkpoint that do not fit together. WeightsError: a
    damaged checkpoint.
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
        checkpoint: Path | None = None,
    ) -> None:
        self.options = options
        self.train = train
        self.device = torch.device(device)
        self.rank, world = process_rank()
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
        self._model = DistributedDataParallel(self.learner) if _is_spread() else self.learner
        self.average = copy.deepcopy(self.learner).requires_grad_(False)
        self.optimizer = _optimizer(self.learner, options)
        self._augmenters = Augmenter(options.augmentation), Augmenter(options.augmentation.calmer())
        self._faces = train.faces.to(self.device)
        self._sharp = None if photographs is None else photographs.to(self.device)
        self.step = 0
        self.epoch_steps = len(train) // options.batch
        if self.epoch_steps < 1:
            raise InputError(
                f"ExpressionTraining: batch {options.batch} is larger than the "
                f"{counted(len(train), 'training face')}"
            )
        self.steps = max(1, round(self.epoch_steps * options.epochs))
        stored = None if checkpoint is None else self._resume(checkpoint)
        kinds = [train] if second is None else [train, second]
        self.targets = (
            taught_targets(options, kinds, photographs, device=self.device, shown=self.rank == 0)
            if stored is None
            else stored
        )

    def _begun(self) -> Learner:
        """The network before the first step."""
        count = 0 if self._movements is None else self._movements.shape[1]
        return new_learner(self.options, self.train, self._second, self.device, movements=count)

    @property
    def second_shares(self) -> list[float]:
        """How often each of the second labels is among the faces."""
        return [] if self._second is None else class_shares(self._second.votes)

    @own_settings(gradients=True)
    def advance(self) -> float:
        """Run one step of the optimiser and return its loss."""
        self.learner.train()
        self.learner.network.train(not self.options.frozen)  # norms keep their statistics
        faces, targets, movements = self.batch()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self._schedule()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"
        ):
            loss = self._loss(faces, targets, movements)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.options.clip)
        self.optimizer.step()
        self.step += 1
        decay = average_decay(self.step, self.options.average)
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
            "targets": self.targets if self.options.teachers else None,
            "data": self._data_digest,
        }
        write_training(path, state)

    @cached_property
    def _data_digest(self) -> str:
        """SHA-256 of the faces, their labels, photographs and movements, hexadecimal."""
        digest = hashlib.sha256()
        kinds = [self.train] if self._second is None else [self.train, self._second]
        digest.update(repr([tuple(kind.classes) for kind in kinds]).encode())
        tables = [kind.votes for kind in kinds]
        for values in (self.train.faces, *tables, self._photographs, self._movements):
            if values is None:
                continue
            digest.update(repr((values.dtype, *values.shape)).encode())
            digest.update(values.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _resume(self, path: Path) -> list[Tensor] | None:
        """Continue from a saved state. Returns its targets; None if it has no teachers' answers.

        Raises InputError: it was made with other options or data. WeightsError: it is damaged.
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
        targets: list[Tensor] | None = state.get("targets")
        if targets is not None:
            kinds = 1 if self._second is None else 2
            check_targets(path, targets, kinds, len(self.train.classes))
        if targets is not None and len(targets[0]) != count:
            raise InputError(
                f"ExpressionTraining: {path} was started with {len(targets[0])} faces, "
                f"the data have {count}"
            )
        if state.get("data", self._data_digest) != self._data_digest:
            raise InputError(
                f"ExpressionTraining: {path} was started with other faces or labels; remove it to "
                "start again"
            )
        fill(path, "learner", self.learner, state["learner"])
        fill(path, "average", self.average, state.get("average"))
        fill_optimizer(path, self.optimizer, state.get("optimizer"))
        self.step = state["step"]
        return targets

    def batch(self) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """The faces of this step and of this process, their targets and their movements.

        Returns (B, C, S, S), augmented and normalised, photographs last; (B, classes) for each
        kind of labels; and (B, K) of those faces that are no photographs, or None.
        """
        options, targets = self.options, self.targets
        drawn = draw_faces(options, self.train.votes, self.step)
        chosen = drawn[self.rank * self.share :][: self.share].to(self.device)
        faces = to_planes(self._faces[chosen])
        movements = None if self._movements is None else self._movements[chosen]
        if self._sharp is not None:
            among = self._draw_photographs(targets[0])
            chosen = torch.cat((chosen, len(self.train) + among))
            faces = torch.cat((resample(faces, options.size), to_planes(self._sharp[among])))
        seed = step_seed(options.seed, _AUGMENTATION, self.step, rank=self.rank)
        augment = self._augmenters[self.step >= (1 - options.calm) * self.steps]
        config = self.learner.network.config
        faces = normalise(augment(faces, options.size, seed), config)
        return weigh([faces], config)[0], [kind[chosen] for kind in targets], movements

    def _draw_photographs(self, targets: Tensor) -> Tensor:
        """Indices of photographs for this step's batch, drawn from the confident ones."""
        options = self.options
        sure = targets[len(self.train) :].amax(1) >= options.photographs_confidence
        numbers = sure.nonzero()[:, 0]
        generator = step_generator(options.seed, _PHOTOGRAPHS, self.step, rank=self.rank)
        count = round(self.share * options.photographs_share)
        drawn = torch.randint(len(numbers), (count,), generator=generator)
        return numbers[drawn.to(self.device)]

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


def process_rank() -> tuple[int, int]:
    """The number of this process, from 0, and how many share the training."""
    return (distributed.get_rank(), distributed.get_world_size()) if _is_spread() else (0, 1)


def _is_spread() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())


def _optimizer(network: nn.Module, options: ExpressionOptions) -> torch.optim.Optimizer:
    groups = parameter_groups(network, options.weight_decay)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=options.learning_rate)


def class_shares(votes: Tensor) -> list[float]:
    """The share of each class in the votes (N, classes); a class without any has nearly none."""
    shares: list[float] = votes.mean(0).clamp(min=_LEAST_SHARE).tolist()
    return shares


def draw_faces(options: ExpressionOptions, votes: Tensor, step: int) -> Tensor:
    """Indices (batch,) of the faces of a step, in order, see ExpressionOptions.balance.

    votes: (N, classes) of all faces. step: from 0; N // batch steps are an epoch.
    """
    epoch, position = divmod(step, len(votes) // options.batch)
    generator = step_generator(options.seed, _ORDER, epoch)
    if options.balance == 0:
        order = torch.randperm(len(votes), generator=generator)
    else:
        labels = votes.argmax(1)
        counts = labels.bincount(minlength=votes.shape[1]).double()
        frequencies = counts[labels] ** -options.balance
        order = torch.multinomial(frequencies, len(votes), True, generator=generator)
    return order[position * options.batch :][: options.batch]
