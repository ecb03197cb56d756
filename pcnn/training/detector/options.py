"""What decides the outcome of a training of the detector."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pcnn.errors import InputError

STARTS = ("teacher", "scratch")


@dataclass(frozen=True)
class DetectorOptions:
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
                    f"DetectorOptions: {name} must be at least 1, got {getattr(self, name)}"
                )
        for name in ("early", "polish"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"DetectorOptions: {name} must be at least 0, got {getattr(self, name)}"
                )
        for name in ("side", "early_side"):
            if getattr(self, name) < 64 or getattr(self, name) % 32:
                raise InputError(
                    f"DetectorOptions: {name} must be a multiple of 32, at least 64, "
                    f"got {getattr(self, name)}"
                )
        if self.start not in STARTS:
            raise InputError(
                f"DetectorOptions: start must be {' or '.join(STARTS)}, got {self.start!r}"
            )
        for name in ("turned", "harsh"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"DetectorOptions: {name} must lie in 0…1, got {getattr(self, name)}"
                )
        if not 0 <= self.average < 1:
            raise InputError(
                f"DetectorOptions: average must be at least 0 and below 1, got {self.average}"
            )

    @property
    def total(self) -> int:
        """All updates."""
        return self.steps + self.polish

    @property
    def folder(self) -> Path:
        """Where checkpoint, log and the teacher's faces are kept."""
        return self.output.parent if self.work is None else self.work


def fingerprint(options: DetectorOptions) -> str:
    """The options that decide the weights, as JSON; paths do not."""
    elsewhere = ("photographs", "teacher", "output", "work", "save_every", "device", "workers")
    decisive = {key: value for key, value in asdict(options).items() if key not in elsewhere}
    return json.dumps(decisive, default=lambda path: Path(path).name)
