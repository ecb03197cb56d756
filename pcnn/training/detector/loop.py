"""One run of the detector's training: its options, its steps, its checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pcnn.networks.anchors import anchor_grid
from pcnn.weights.detector import DetectorSettings, read_detector
from pcnn.faces.detector import Detector, normalise
from pcnn.training.detector.targets import Targets, distillation_loss, targets_of
from pcnn.errors import InputError
from pcnn.training.detector.mosaics import Mosaic, degrade, mosaic
from pcnn.training.detector.photographs import Photograph
from pcnn.networks.retinaface import RetinaFace, load_state

ARCHITECTURE = "retinaface-mobilenet0.25"
STARTS = ("teacher", "scratch")
# Share of the steps over which the learning rate rises; it falls along a cosine afterwards, of
# which it goes this share before polishing begins.
_WARM_UP, _FALL = 1 / 15, 14 / 19
# Scores start out this low, so that the thousands of empty anchors do not swamp the first steps.
_PRIOR = 0.01
# Pictures of this many times the side, for large faces, in one of four steps.
_LARGE, _LARGE_CHANCE = 1.75, 0.25
_GRADIENT_NORM = 10.0
# How many large cells show a photograph untouched, and how many pictures are degraded.
_LEARN, _POLISH = (0.35, 0.6), (0.75, 0.25)

_Step: TypeAlias = tuple[list[Mosaic], list[np.ndarray], int]


@dataclass(frozen=True)
class DetectorTraining:
    """Options of `train_detector`.

    photographs: tar archive of JPEG or PNG files. teacher: weights that `Detector.load` reads.
    output: the safetensors file to write; checkpoint, log and the teacher's faces lie beside it
        unless `work` names another folder.
    steps, batch, side: how many updates, of how many mosaics, of how many pixels a side.
    early, early_side: so many of these steps, the first, are on smaller mosaics, which cost a
        third.
    polish: updates after these, on small mosaics again, at a third of the learning rate, mostly
        of photographs as they are, which is what detection is asked for.
    learning_rate: its peak; weight_decay: as AdamW has it.
    average: decay of the running average of the weights, which is what is written.
    save_every: steps between checkpoints. seed: of all that is random.
    start: "teacher" begins with the teacher's own weights, "scratch" with random ones, which need
        many times the steps and a learning rate of 3e-3.
    init: weights to begin with instead, of the same network.
    turned: the share of photographs that lie at any angle.
    harsh: the share of pictures that are far too dark, too light, flat or tinted.
    device: where to compute. workers: processes that make mosaics ahead; 0: none. They change
        nothing in what is learnt.
    """

    photographs: Path
    teacher: Path
    output: Path
    work: Path | None = None
    steps: int = 500
    batch: int = 8
    side: int = 256
    early: int = 500
    early_side: int = 160
    polish: int = 700
    learning_rate: float = 6e-4
    weight_decay: float = 0.02
    average: float = 0.998
    save_every: int = 250
    seed: int = 0
    start: str = "teacher"
    init: Path | None = None
    turned: float = 0.0
    harsh: float = 0.0
    device: str = "cpu"
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"DetectorTraining: {name} must be at least 1, got {getattr(self, name)}"
                )
        for name in ("early", "polish"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"DetectorTraining: {name} must be at least 0, got {getattr(self, name)}"
                )
        for name in ("side", "early_side"):
            if getattr(self, name) < 64 or getattr(self, name) % 32:
                raise InputError(
                    f"DetectorTraining: {name} must be a multiple of 32, at least 64, "
                    f"got {getattr(self, name)}"
                )
        if self.start not in STARTS:
            raise InputError(
                f"DetectorTraining: start must be {' or '.join(STARTS)}, got {self.start!r}"
            )
        for name in ("turned", "harsh"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"DetectorTraining: {name} must lie in 0…1, got {getattr(self, name)}"
                )
        if not 0 <= self.average < 1:
            raise InputError(
                f"DetectorTraining: average must be at least 0 and below 1, got {self.average}"
            )

    @property
    def total(self) -> int:
        """All updates."""
        return self.steps + self.polish

    @property
    def folder(self) -> Path:
        """Where checkpoint, log and the teacher's faces are kept."""
        return self.output.parent if self.work is None else self.work


class Course:
    """A training run at some step: the networks, the optimiser, and how to go on."""

    def __init__(self, options: DetectorTraining, teacher: Detector) -> None:
        self.options, self.teacher, self.step = options, teacher, 0
        torch.manual_seed(options.seed)
        if options.init is not None or options.start == "teacher":
            state, settings = read_detector(options.init or options.teacher)
            self.settings = replace(
                settings,
                trusted_side=DetectorSettings.trusted_side,
                least_side=DetectorSettings.least_side,
            )
            self.network = _trainable(load_state(state, leak=settings.leak))
        else:
            self.settings = replace(
                DetectorSettings(),
                min_sizes=teacher.settings.min_sizes,
                steps=teacher.settings.steps,
                variances=teacher.settings.variances,
            )
            self.network = _trainable(_new_network())
        self.network.to(options.device)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.network, options.weight_decay),
            lr=options.learning_rate,
            fused=True,
        )

    @property
    def path(self) -> Path:
        return self.options.folder / "detector.checkpoint.pt"

    def run(self, photographs: list[Photograph]) -> Iterator[float]:
        """Take the remaining steps; yields each one's loss."""
        self.network.train()
        steps = DataLoader(
            _Steps(self.options, photographs, self.step),
            batch_size=None,
            num_workers=self.options.workers,
            collate_fn=_as_it_is,
        )
        for pictures, seen, side in steps:
            loss = self._update(pictures, seen, side)
            self.step += 1
            yield loss

    def _update(self, pictures: list[Mosaic], seen: list[np.ndarray], side: int) -> float:
        """One step of the optimiser; the student sees the degraded pictures only."""
        kind = self.teacher.settings
        anchors = anchor_grid(side, side, min_sizes=kind.min_sizes, steps=kind.steps)
        with torch.no_grad():
            device = self.options.device
            clean = _batch([picture.pixels for picture in pictures]).to(device)
            outputs = self.teacher.network.to(device)(normalise(clean, kind))
            logits, boxes, landmarks = (part.float().cpu() for part in outputs)
            found = targets_of((logits, boxes, landmarks), pictures, anchors, kind)
            parts = (found.faces, found.boxes, found.landmarks)
            targets = Targets(*(part.to(device) for part in parts))
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(self.options, self.step)
        answers = self.network(normalise(_batch(seen).to(device), self.settings))
        loss = distillation_loss(answers, targets)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT_NORM)
        self.optimizer.step()
        # Early weights should not linger: the average's memory grows with the steps.
        decay = min(self.options.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
        return loss.item()

    def detector(self) -> Detector:
        """The averaged weights, ready for use."""
        state = {name: value.cpu() for name, value in self.average.items()}
        return Detector(load_state(state, leak=self.settings.leak), self.settings)

    def save(self) -> None:
        """Write the checkpoint in one atomic step."""
        temporary = self.path.with_name(self.path.name + ".part")
        torch.save(
            {
                "options": fingerprint(self.options),
                "step": self.step,
                "network": self.network.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            },
            temporary,
        )
        temporary.replace(self.path)

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one.

        Raises InputError: it was made with other options.
        """
        if not self.path.exists():
            return
        stored = torch.load(self.path, map_location=self.options.device, weights_only=True)
        if stored["options"] != fingerprint(self.options):
            raise InputError(
                f"train_detector: {self.path} was made with other options "
                f"({stored['options']}); use those, or remove it to start anew"
            )
        self.step = stored["step"]
        self.network.load_state_dict(stored["network"])
        self.average = stored["average"]
        self.optimizer.load_state_dict(stored["optimizer"])


class _Steps(Dataset[_Step]):
    """The pictures of each step that is left: mosaics, what the student sees of them, the side."""

    def __init__(self, options: DetectorTraining, photographs: list[Photograph], done: int) -> None:
        self._options, self._photographs, self._done = options, photographs, done

    def __len__(self) -> int:
        return self._options.total - self._done

    def __getitem__(self, index: int) -> _Step:
        options, step = self._options, self._done + index
        # Seeded by the step alone, so that a resumed run sees the same pictures.
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
        if isinstance(module, nn.Conv2d) and module.bias is not None:  # the heads alone
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
            if name.startswith("ClassHead"):  # background, face, background, face
                module.bias.data[1::2] = math.log(_PRIOR / (1 - _PRIOR))
    return network


def _trainable(network: RetinaFace) -> RetinaFace:
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.train().requires_grad_(True)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices and kernels; none for biases and batch norms."""
    heavy = [value for value in network.parameters() if value.dim() > 1]
    light = [value for value in network.parameters() if value.dim() <= 1]
    return [
        {"params": heavy, "weight_decay": weight_decay},
        {"params": light, "weight_decay": 0.0},
    ]


def _learning_rate(options: DetectorTraining, step: int) -> float:
    """Up in a line, down along a cosine; then down once more from a third, to polish."""
    if step >= options.steps:
        return options.learning_rate / 3 * _fall((step - options.steps) / options.polish)
    done = step / options.steps
    if done < _WARM_UP:
        return options.learning_rate * done / _WARM_UP
    return options.learning_rate * _fall(_FALL * (done - _WARM_UP) / (1 - _WARM_UP))


def _fall(done: float) -> float:
    """From 1 to 0 along a cosine, as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _batch(pictures: list[np.ndarray]) -> Tensor:
    """(S, S, 3) uint8 each → (B, 3, S, S) float32, 0…255, channels-last."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def fingerprint(options: DetectorTraining) -> str:
    """The options that decide the weights, as JSON; paths do not."""
    elsewhere = ("photographs", "teacher", "output", "work", "save_every", "device", "workers")
    decisive = {key: value for key, value in asdict(options).items() if key not in elsewhere}
    return json.dumps(decisive, default=lambda path: Path(path).name)
