"""Options that determine the result of a training of the landmark network."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pcnn.training.limits import check_at_least, check_decays, check_shares


@dataclass(frozen=True)
class LandmarkOptions:
    """Options of `train_landmarks`.

    data, labels, photographs, output, work: as for training.movements.options.
    detector: a name or path. The network learns where this detector would put a landmark if it
        made no errors: the teacher's landmarks, moved by the mean difference of both.
    steps, batch: number of updates, and faces in each. photographs_share: of a batch, 0…1; the
        rest are faces of the sheets.
    learning_rate: its peak; weight_decay: of AdamW. average: decay of the running average.
    save_every: steps between checkpoints. seed: of all random choices.
    """

    data: Path
    labels: Path
    photographs: Path
    output: Path
    work: Path | None = None
    detector: str = "mobilenet"
    steps: int = 8000
    batch: int = 128
    photographs_share: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    average: float = 0.998
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps", "batch", "save_every")
        check_shares(self, "photographs_share")
        check_decays(self, "average")

    @property
    def folder(self) -> Path:
        """The folder of checkpoint and log."""
        return self.output.parent if self.work is None else self.work


def fingerprint(options: LandmarkOptions) -> str:
    """The options that affect the weights, as JSON. Of paths at most the name is there."""
    elsewhere = ("data", "labels", "photographs", "output", "work", "save_every")
    decisive = {key: value for key, value in asdict(options).items() if key not in elsewhere}
    decisive["detector"] = Path(options.detector).name
    return json.dumps(decisive)
