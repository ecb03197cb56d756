"""Options that determine the result of a detector training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pcnn.errors import InputError
from pcnn.training.limits import (
    check_at_least,
    check_choices,
    check_decays,
    check_positive,
    check_shares,
)

STARTS = ("teacher", "scratch")


@dataclass(frozen=True)
class DetectorOptions:
    """Options of `train_detector`.

    photographs: tar archive of JPEG or PNG files. teacher: weights that `Detector.load` reads.
    output: the safetensors file to write.
    work: folder for checkpoint, log and the teacher's faces; by default that of `output`.
    steps, batch, side: number of updates, mosaics in each, and side of a mosaic in pixels.
    early, early_side: the first `early` steps use mosaics of this smaller side, which cost a
        third.
    polish: further updates on small mosaics, with a third of the learning rate. Most of them show
        unchanged photographs, like those for detection.
    learning_rate: its peak; weight_decay: of AdamW.
    average: decay of the running average of the weights. The average is written.
    save_every: steps between checkpoints. seed: of all random choices.
    start: "teacher" starts from the teacher's own weights, "scratch" from random ones. Random
        weights need many times the steps and a learning rate of 3e-3.
    init: weights of the same network to start from instead.
    init_share: the share, 0…1, of what the training started from in the weights that are written.
    turned: the share of photographs with any angle.
    harsh: the share of pictures made much too dark, too light, flat or tinted.
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
    init_share: float = 0.0
    turned: float = 0.0
    harsh: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps", "batch", "save_every")
        check_at_least(self, 0, "early", "polish", "weight_decay")
        check_positive(self, "learning_rate")
        for name in ("side", "early_side"):
            if getattr(self, name) < 64 or getattr(self, name) % 32:
                raise InputError(
                    f"DetectorOptions: {name} must be a multiple of 32, at least 64, "
                    f"got {getattr(self, name)}"
                )
        check_choices(self, start=STARTS)
        check_shares(self, "init_share", "turned", "harsh")
        check_decays(self, "average")

    @property
    def total(self) -> int:
        """The number of all updates."""
        return self.steps + self.polish

    @property
    def folder(self) -> Path:
        """The folder of checkpoint, log and the teacher's faces."""
        return self.output.parent if self.work is None else self.work


def fingerprint(options: DetectorOptions) -> str:
    """The options that affect the weights, as JSON. Paths are left out."""
    elsewhere = ("photographs", "teacher", "output", "work", "save_every")
    decisive = {key: value for key, value in asdict(options).items() if key not in elsewhere}
    return json.dumps(decisive, default=lambda path: Path(path).name)
