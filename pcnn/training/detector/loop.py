"""Training loop of the detector: steps and checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pcnn.devices import own_settings
from pcnn.faces.detector import Detector
from pcnn.networks.anchors import anchor_grid
from pcnn.networks.retinaface import RetinaFace, load_state
from pcnn.training.detector.mosaics import Mosaic, degrade, mosaic
from pcnn.training.detector.options import DetectorOptions, fingerprint
from pcnn.training.detector.targets import Targets, distillation_loss, targets_of
from pcnn.training.optimiser import pull
from pcnn.training.photographs import Photograph
from pcnn.training.weight_average import AveragedTraining
from pcnn.weights.detector import DetectorSettings, normalise_images, read_detector

ARCHITECTURE = "retinaface-mobilenet0.25"
# The learning rate rises during this share of the steps. Then it falls along a cosine and reaches
# this share of the cosine before polishing.
_WARM_UP, _FALL = 1 / 15, 14 / 19
# The initial score. It is low, so that thousands of empty anchors do not dominate the first steps.
_PRIOR = 0.01
# Pictures of this many times the side, for large faces, in one of four steps.
_LARGE, _LARGE_CHANCE = 1.75, 0.25
# Shares of large cells with an unchanged photograph, and of degraded pictures.
_LEARN, _POLISH = (0.35, 0.6), (0.75, 0.25)

_Step: TypeAlias = tuple[list[Mosaic], list[np.ndarray], int]


class DetectorTraining(AveragedTraining[RetinaFace, DetectorOptions]):
    """A resumable training: the networks, the optimiser and the number of steps done.

    device: the device to compute on. workers: processes that prepare mosaics; 0 for none. Both do
    not change the result.
    """

    gradient_norm = 10.0

    @own_settings(gradients=True)
    def __init__(
        self,
        options: DetectorOptions,
        teacher: Detector,
        device: str | torch.device = "cpu",
        *,
        workers: int = 0,
    ) -> None:
        self.teacher, self.device = teacher, torch.device(device)
        self._workers = workers
        torch.manual_seed(options.seed)
        if options.init is not None or options.start == "teacher":
            state, settings = read_detector(options.init or options.teacher)
            self.settings = replace(
                settings,
                trusted_side=DetectorSettings.trusted_side,
                least_side=DetectorSettings.least_side,
            )
            network = load_state(state, leak=settings.leak)
        else:
            self.settings = replace(
                DetectorSettings(),
                min_sizes=teacher.settings.min_sizes,
                steps=teacher.settings.steps,
                variances=teacher.settings.variances,
            )
            network = _new_network()
        self._start = copy.deepcopy(network)
        network.train().requires_grad_(True).to(self.device)
        path = options.folder / "detector.checkpoint.pt"
        super().__init__(network, options, path, fingerprint(options), "train_detector")

    def run(self, photographs: list[Photograph]) -> Iterator[float]:
        """Run the remaining steps and yield the loss of each."""
        self.network.train()
        steps = DataLoader(
            _Steps(self.options, photographs, self.step),
            batch_size=None,
            num_workers=self._workers,
            collate_fn=_as_it_is,
        )
        for pictures, seen, side in steps:
            yield self._update(pictures, seen, side)

    @own_settings(gradients=True)
    def _update(self, pictures: list[Mosaic], seen: list[np.ndarray], side: int) -> float:
        """Run one step of the optimiser. The student sees only the degraded pictures."""
        kind = self.teacher.settings
        anchors = anchor_grid(side, side, min_sizes=kind.min_sizes, steps=kind.steps)
        with torch.no_grad():
            device = self.device
            clean = _batch([picture.pixels for picture in pictures]).to(device)
            outputs = self.teacher.network.to(device)(normalise_images(clean, kind))
            logits, boxes, landmarks = (part.float().cpu() for part in outputs)
            found = targets_of((logits, boxes, landmarks), pictures, anchors, kind)
            parts = (found.faces, found.boxes, found.landmarks)
            targets = Targets(*(part.to(device) for part in parts))
        answers = self.network(normalise_images(_batch(seen).to(device), self.settings))
        loss = distillation_loss(answers, targets)
        self.update(loss)
        return loss.item()

    def learning_rate(self) -> float:
        """That of this step."""
        return _learning_rate(self.options, self.step)

    @own_settings(gradients=True)
    def detector(self) -> Detector:
        """A detector with the averaged weights, mixed with a share `init_share` of the start."""
        state = {name: value.cpu() for name, value in self.average.state_dict().items()}
        network = load_state(state, leak=self.settings.leak)
        pull(network, self._start, self.options.init_share)
        return Detector(network, self.settings)


class _Steps(Dataset[_Step]):
    """The data of each remaining step: mosaics, their degraded pixels for the student, the side."""

    def __init__(self, options: DetectorOptions, photographs: list[Photograph], done: int) -> None:
        self._options, self._photographs, self._done = options, photographs, done

    def __len__(self) -> int:
        return self._options.total - self._done

    def __getitem__(self, index: int) -> _Step:
        options, step = self._options, self._done + index
        # The seed depends only on the step, so that a resumed run sees the same pictures.
        random = np.random.default_rng((options.seed, step))
        polishing = step >= options.steps
        side, count = options.side, options.batch
        if polishing or step < options.early:
            side = options.early_side
        if random.random() < _LARGE_CHANCE:
            side, count = int(side * _LARGE) // 32 * 32, max(2, round(count / _LARGE**2))
        untouched, chance = _POLISH if polishing else _LEARN
        pictures = [
            mosaic(self._photographs, side, random, untouched=untouched, turned=options.turned)
            for _ in range(count)
        ]
        seen = [
            degrade(picture.pixels, random, chance=chance, harsh=options.harsh)
            for picture in pictures
        ]
        return pictures, seen, side


def _as_it_is(step: Any) -> Any:
    return step


def _new_network() -> RetinaFace:
    network = RetinaFace(ARCHITECTURE)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:  # only the heads
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
            if name.startswith("ClassHead"):  # background, face, background, face
                module.bias.data[1::2] = math.log(_PRIOR / (1 - _PRIOR))
    return network


def _learning_rate(options: DetectorOptions, step: int) -> float:
    """A linear rise, then a cosine fall; for polishing, a second fall from a third of the peak."""
    if step >= options.steps:
        return options.learning_rate / 3 * _fall((step - options.steps) / options.polish)
    done = step / options.steps
    if done < _WARM_UP:
        return options.learning_rate * done / _WARM_UP
    return options.learning_rate * _fall(_FALL * (done - _WARM_UP) / (1 - _WARM_UP))


def _fall(done: float) -> float:
    """A cosine fall from 1 to 0, for `done` from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _batch(pictures: list[np.ndarray]) -> Tensor:
    """(S, S, 3) uint8 each → (B, 3, S, S) float32, 0…255, channels-last."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
