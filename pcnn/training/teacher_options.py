"""Options of trainings on a teacher's answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pcnn.training.limits import check_at_least, check_decays, check_positive, check_shares


@dataclass(frozen=True)
class TaughtOptions:
    """Options of a training on a teacher's answers for faces of FER+ and of photographs.

    data: folder of contact sheets, see datasets.ferplus. teacher_labels: folder of the teacher's
        answers, see teacher_answers.read_groups. photographs: tar of the photographs that they
        belong to.
    output: the safetensors file to write. work: folder of checkpoint and log; None for that of
        `output`.
    steps, batch: number of updates, and faces in each. photographs_share: of a batch, 0…1; the
        rest are faces of the sheets.
    learning_rate: its peak; weight_decay: of AdamW. average: decay of the running average.
    save_every: steps between checkpoints. seed: of all random choices.
    """

    data: Path
    teacher_labels: Path
    photographs: Path
    output: Path
    work: Path | None = None
    steps: int = field(kw_only=True)
    batch: int = field(kw_only=True)
    photographs_share: float = field(kw_only=True)
    learning_rate: float = field(kw_only=True)
    weight_decay: float = 0.02
    average: float = 0.998
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps", "batch", "save_every")
        check_positive(self, "learning_rate")
        check_at_least(self, 0, "weight_decay")
        check_shares(self, "photographs_share")
        check_decays(self, "average")

    @property
    def folder(self) -> Path:
        """The folder of checkpoint and log."""
        return self.output.parent if self.work is None else self.work


def fingerprint(options: TaughtOptions) -> str:
    """The options that affect the weights, as JSON. Paths of data and outputs are left out."""
    elsewhere = ("data", "teacher_labels", "photographs", "output", "work", "save_every")
    decisive = {key: value for key, value in asdict(options).items() if key not in elsewhere}
    return json.dumps(decisive, default=str)
