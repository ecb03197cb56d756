"""Training loop of the movement network: steps and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.networks.movements import Motion, MovementConfig, MovementNet, mirrored
from pcnn.networks.pcnn import FaceNet
from pcnn.networks.trunk import initialise
from pcnn.training.movements.options import MovementOptions
from pcnn.training.seeds import step_generator
from pcnn.training.teacher_answers import TEMPLATE, TaughtFaces, shares_of_batch, twins_of
from pcnn.training.teacher_options import fingerprint
from pcnn.training.view_augmentation import random_views
from pcnn.training.weight_average import AveragedTraining
from pcnn.weights.expression import load_expression
from pcnn.weights.movements import is_movements, load_movements
from pcnn.weights.states import lasting_state

# Distances between points are measured in distances between the eyes of the template.
_EYES = TEMPLATE[1][0] - TEMPLATE[0][0]
# Errors below these are squared: of points (eye distances), movements (deviations), degrees.
_POINT, _MOVEMENT, _DEGREES = 0.02, 0.5, 5.0
# The least deviation by which a movement's error is divided.
_LEAST_DEVIATION = 0.04
# Weights of the three losses, so that they are about equal once learnt.
_POINTS, _MOVEMENTS, _POSE = 16.0, 4.0, 1.0
_START_FACES = 4000  # whose meshes give the first shapes


class MovementTraining(AveragedTraining[MovementNet, MovementOptions]):
    """A resumable training: the network, its average, the optimiser and the steps done.

    groups: faces of sheets and of photographs; either may be empty.
    Raises InputError: no faces, answers with different movements or points, or the start has
    another backbone or shape.
    """

    @own_settings(gradients=True)
    def __init__(self, options: MovementOptions, groups: Sequence[TaughtFaces]) -> None:
        self._groups = shares_of_batch(options, groups)
        self._images = min(round(options.symmetry * options.batch), self._groups[-1][1])
        sheets, photographs = groups
        if len({(group.names, group.points.shape[1]) for group, _ in self._groups}) > 1:
            raise InputError(
                "MovementTraining: the teacher's answers for sheets and for photographs must have "
                f"the same movements and points, got {len(sheets.names)} and "
                f"{len(photographs.names)} movements, {sheets.points.shape[1]} and "
                f"{photographs.points.shape[1]} points"
            )
        torch.manual_seed(options.seed)
        every = torch.cat([group.movements for group, _ in self._groups])
        self._deviation = every.std(0).clamp(min=_LEAST_DEVIATION)
        config = MovementConfig(sheets.names, points=sheets.points.shape[1])
        network = MovementNet(config)
        initialise(network)
        largest = max((group for group, _ in self._groups), key=len)
        network.twins.copy_(twins_of(largest))
        if is_movements(options.init):
            _continue(network, options.init)
        else:
            if options.init != "none":
                _start_trunk(network, options.init)
            some = largest[torch.arange(min(len(largest), _START_FACES))]
            views = random_views(some, config, network.twins, step_generator(options.seed, 2, 0))
            network.start_mesh(views[1].points)
        path = options.folder / "movements.checkpoint.pt"
        super().__init__(network, options, path, fingerprint(options), "train_movements")

    def run(self) -> Iterator[tuple[float, float, float]]:
        """Run the remaining steps; yield the losses of points, movements and pose of each."""
        while self.step < self.options.steps:
            yield self._update()

    @own_settings(gradients=True)
    def _update(self) -> tuple[float, float, float]:
        self.network.train()
        views, seen = self._batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            found = self.network(views)
        losses = self._losses(found, seen)
        loss = _weighted(losses)
        if self._images:
            images = Motion(*(own[-self._images :] for own in found))
            faces = Motion(*(own[-2 * self._images : -self._images] for own in found))
            loss = loss + _weighted(self._losses(self._mirrored(images), faces))
        self.update(loss)
        points, movements, pose = (float(own.detach()) for own in losses)
        return points, movements, pose

    def _batch(self) -> tuple[Tensor, Motion]:
        """The views of this step and what is to be seen in them: faces, then mirror images.

        Returns (batch + images, 3, S, S), normalised, and the Motion of each view.
        """
        generator, config = self.generator(0), self.network.config
        parts = []
        for group, count in self._groups:
            chosen = torch.randint(len(group), (count,), generator=generator)
            parts.append(random_views(group[chosen], config, self.network.twins, generator))
        if self._images:  # those of the batch's last faces, photographs if it has any
            views, seen = parts[-1]
            last = Motion(*(own[-self._images :] for own in seen))
            parts.append((views[-self._images :].flip(3), self._mirrored(last)))
        views = torch.cat([view for view, _ in parts])
        mean, std = (views.new_tensor(v).view(1, -1, 1, 1) for v in (config.mean, config.std))
        views = ((views - mean) / std).contiguous(memory_format=torch.channels_last)
        return views, Motion(*(torch.cat(own) for own in zip(*(m for _, m in parts), strict=True)))

    def _mirrored(self, motion: Motion) -> Motion:
        return mirrored(motion, self.network.config, self.network.twins)

    def _losses(self, found: Motion, seen: Motion) -> tuple[Tensor, Tensor, Tensor]:
        apart = (found.points - seen.points).norm(dim=2) / _EYES
        movements = (found.movements - seen.movements) / self._deviation
        return (
            _smooth(apart, _POINT),
            _smooth(movements, _MOVEMENT),
            _smooth((found.pose - seen.pose) / 10, _DEGREES / 10),
        )


def _start_trunk(network: MovementNet, name: str) -> None:
    """Copy the trunk of an expression network. Raises InputError: it has another shape."""
    start = load_expression(name).network
    config = start.config
    if not isinstance(start, FaceNet) or config.backbone != "mobilenet":
        raise InputError(f"MovementOptions: init must be a MobileNet without regions, got {name!r}")
    if config.width != network.config.width or config.mean != network.config.mean:
        raise InputError(f"MovementOptions: init must have the width and colours of {name!r}")
    network.trunk.load_state_dict(start.trunk.state_dict())


def _continue(network: MovementNet, name: str) -> None:
    """Copy a whole movement network. Raises InputError: it has another shape or movements."""
    start = load_movements(name).network
    if start.config != network.config or not torch.equal(start.twins, network.twins):
        raise InputError(
            f"MovementOptions: init must have the movements, points and size of this training, "
            f"{name!r} has others"
        )
    network.load_state_dict({**network.state_dict(), **lasting_state(start)})


def _weighted(losses: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The sum of the losses of points, movements and pose, weighted."""
    return _POINTS * losses[0] + _MOVEMENTS * losses[1] + _POSE * losses[2]


def _smooth(errors: Tensor, square_below: float) -> Tensor:
    """The mean error, squared below a bound."""
    return F.smooth_l1_loss(errors, torch.zeros_like(errors), beta=square_below)
