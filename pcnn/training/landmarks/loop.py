"""Training loop of the landmark network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.networks.landmarks import LandmarkConfig, LandmarkNet
from pcnn.networks.movements import MovementConfig
from pcnn.networks.trunk import initialise
from pcnn.ops.reference import LUMA
from pcnn.training.expression.augmentation import over_expose
from pcnn.training.landmarks.options import LandmarkOptions, fingerprint
from pcnn.training.teacher_answers import TEMPLATE, TaughtFaces, shares_of_batch
from pcnn.training.view_augmentation import Placing, random_views
from pcnn.training.weight_average import AveragedTraining
from pcnn.weights.landmarks import load_landmarks
from pcnn.weights.states import lasting_state

# The detector's landmarks are wrong by 6 to 11 % of the eye distance, and a tilted face by 45°.
_PLACING = Placing(noise=0.06, turn=45.0, scale=0.14, shift=0.05)
_TWINS = (1, 0, 2, 4, 3)  # of each landmark the one of a mirrored face
_EYES = TEMPLATE[1][0] - TEMPLATE[0][0]  # distances are measured in it
_SQUARE_BELOW = 0.03  # of distances
# The chance that a part of the view is covered, and the sides of that part, as shares.
_COVERED, _COVER = 0.3, (0.1, 0.6)


class LandmarkTraining(AveragedTraining[LandmarkNet, LandmarkOptions]):
    """A resumable training: the network, its average, the optimiser and the steps done.

    groups: faces of sheets and of photographs, whose `points` are the five landmarks to learn.
    Raises InputError: no faces, or a start of another size.
    """

    @own_settings(gradients=True)
    def __init__(self, options: LandmarkOptions, groups: Sequence[TaughtFaces]) -> None:
        self._groups = shares_of_batch(options, groups)
        torch.manual_seed(options.seed)
        network = _start(options.init)
        path = options.folder / "landmarks.checkpoint.pt"
        super().__init__(network, options, path, fingerprint(options), "train_landmarks")

    def run(self) -> Iterator[float]:
        """Run the remaining steps; yield each mean distance, in distances between the eyes."""
        while self.step < self.options.steps:
            yield self._step()

    @own_settings(gradients=True)
    def _step(self) -> float:
        self.network.train()
        views, points = self._batch()
        apart = (self.network(views) - points).norm(dim=2) / _EYES  # (B, 5)
        self.update(F.smooth_l1_loss(apart, torch.zeros_like(apart), beta=_SQUARE_BELOW))
        return float(apart.detach().mean())

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The views (B, 1, S, S), normalised, of this step, and their landmarks (B, 5, 2)."""
        generator, config = self.generator(0), self.network.config
        placed = MovementConfig((), points=5, size=config.size)
        twins = torch.tensor(_TWINS)
        parts = []
        for group, count in self._groups:
            chosen = torch.randint(len(group), (count,), generator=generator)
            views, seen = random_views(group[chosen], placed, twins, generator, _PLACING)
            views = _covered(views, generator)
            if self.options.exposure > 1:
                views = over_expose(views, self.options.exposure, generator)
            parts.append((views, seen.points))
        views, points = (torch.cat(own) for own in zip(*parts, strict=True))
        grey = (views * views.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        return (grey - config.mean[0]) / config.std[0], points


def _start(init: str) -> LandmarkNet:
    """The network before the first step, see LandmarkOptions.init."""
    network = LandmarkNet(LandmarkConfig())
    if init == "none":
        initialise(network)
        network.start(torch.tensor(TEMPLATE))
        return network
    start = load_landmarks(init).network
    if start.config != network.config:
        raise InputError(
            f"LandmarkOptions: init must have views of {network.config.size} pixels with the same "
            f"normalisation, {init!r} has {start.config}"
        )
    network.load_state_dict({**network.state_dict(), **lasting_state(start)})
    return network


def _covered(views: Tensor, generator: torch.Generator) -> Tensor:
    """Views (B, 3, S, S), some of them with a rectangle in one colour, as a hand or an edge."""
    count, side = len(views), views.shape[3]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    low, high = _COVER
    sides, middles = low + (high - low) * uniform(2), uniform(2)  # (B, 2): x, y
    places = (torch.arange(side) + 0.5) / side
    inside = (places - middles[..., None]).abs() < sides[..., None] / 2  # (B, 2, S)
    hidden = inside[:, 1, :, None] & inside[:, 0, None, :]
    hidden &= uniform(1, 1) < _COVERED
    return torch.where(hidden[:, None], uniform(3, 1, 1), views)
