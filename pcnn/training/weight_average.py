"""A resumable training of one network, with a running average of its weights."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pcnn.devices import own_settings
from pcnn.errors import WeightsError
from pcnn.terminal import training_progress
from pcnn.training.logs import trim_log
from pcnn.training.optimiser import average_decay, one_cycle, parameter_groups, pull
from pcnn.training.seeds import step_generator
from pcnn.training.teacher_options import TaughtOptions
from pcnn.weights.checkpoints import (
    check_options,
    fill,
    fill_optimizer,
    read_training,
    write_training,
)
from pcnn.weights.schema import text

LOG_EVERY = 50  # steps
_WARM_UP = 0.05  # share of the steps in which the learning rate rises


class UpdateOptions(Protocol):
    """The options that every such training has; see teacher_options."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def average(self) -> float: ...
    @property
    def seed(self) -> int: ...


Network = TypeVar("Network", bound=nn.Module)
Options = TypeVar("Options", bound=UpdateOptions)


class AveragedTraining(Generic[Network, Options]):
    """The network, its average, the optimiser and the number of steps done.

    path: of the checkpoint. fingerprint: the options that affect the weights, as text; a
    checkpoint with another one is refused. command: named in that message.
    """

    gradient_norm = 5.0  # gradients are shortened to it

    def __init__(
        self, network: Network, options: Options, path: Path, fingerprint: str, command: str
    ) -> None:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.path, self.step = network, path, 0
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(network, options.weight_decay), lr=options.learning_rate
        )
        self.options, self._fingerprint, self._command = options, fingerprint, command
        self._sums: dict[str, float] = {}  # of losses since the last line of the log

    def generator(self, purpose: int) -> torch.Generator:
        """The random numbers of this step. purpose: 0…3; each has its own."""
        return step_generator(self.options.seed, purpose, self.step)

    def learning_rate(self) -> float:
        """That of this step."""
        done = max(self.step / self.options.steps, 1e-3)  # the first step moves, too
        return self.options.learning_rate * one_cycle(done, _WARM_UP)

    def update(self, loss: Tensor) -> None:
        """Finish a step: change the network, then draw its average after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_norm)
        self.optimizer.step()
        self.step += 1
        pull(self.average, self.network, 1 - average_decay(self.step, self.options.average))

    def mean_losses(self, losses: Mapping[str, float]) -> dict[str, float] | None:
        """Add the losses of a step; after every LOG_EVERY steps return their means.

        Checkpoints hold the sums, so that a resumed training writes the log of an unbroken one.
        """
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss
        if self.step % LOG_EVERY:
            return None
        means = {name: round(total / LOG_EVERY, 4) for name, total in self._sums.items()}
        self._sums = {}
        return means

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "options": self._fingerprint,
            "step": self.step,
            "sums": dict(self._sums),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_training(self.path, state)

    @own_settings(gradients=True)
    def resume(self) -> None:
        """Continue from the checkpoint, if it exists.

        Raises InputError: it was made with other options. WeightsError: it is damaged.
        """
        if not self.path.exists():
            return
        stored = read_training(self.path, "cpu", text)
        check_options(self.path, stored["options"], self._fingerprint, self._command)
        fill(self.path, "network", self.network, stored.get("network"))
        fill(self.path, "average", self.average, stored.get("average"))
        fill_optimizer(self.path, self.optimizer, stored.get("optimizer"))
        # Checkpoints of older detector trainings have no sums.
        self.step, self._sums = stored["step"], _sums(self.path, stored.get("sums", {}))


def _sums(path: Path, found: object) -> dict[str, float]:
    """The sums of losses in a checkpoint. Raises WeightsError: they are none."""
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, float) for name, value in found.items()
    ):
        raise WeightsError(f"{path}: sums must be numbers by name")
    return found


def finish(
    training: AveragedTraining[Any, Any],
    losses: Iterable[Mapping[str, float]],
    options: TaughtOptions,
    kind: str,
) -> None:
    """Run the remaining steps of a training, with progress, log and checkpoints.

    losses: those of each step, which is done when they are asked for. kind: of the training, for
        progress and the name of the log.
    """
    path = options.folder / f"{kind}.log.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    trim_log(path, training.step)
    begun = time.time()
    with training_progress(kind, total=options.steps, done=training.step) as progress:
        (task,) = progress.task_ids
        for own in losses:
            means = training.mean_losses(own)
            if means is not None:
                note = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
                progress.update(task, completed=training.step, note=note)
                entry = {"step": training.step, **means, "seconds": time.time() - begun}
                with path.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(entry) + "\n")
            if training.step % options.save_every == 0 or training.step == options.steps:
                training.save()
