"""Options that determine the result of a training of the movement network."""

from __future__ import annotations

from dataclasses import dataclass

from pcnn.training.limits import check_choices, check_shares
from pcnn.training.teacher_options import TaughtOptions


@dataclass(frozen=True)
class MovementOptions(TaughtOptions):
    """Options of `train_movements`, beside those of TaughtOptions.

    init: expression weights with the backbone "mobilenet", whose trunk is the start; movement
        weights, which are trained further; "none" for random numbers.
    precision: of the trunk's arithmetic, "float32" or "bfloat16".
    symmetry: share of a batch, 0…1, whose mirror images are also seen; at most the share of
        photographs. The answers to a face and to its mirror image shall agree.
    """

    init: str = "mobile"
    steps: int = 6000
    batch: int = 48
    photographs_share: float = 0.75
    learning_rate: float = 8e-4
    precision: str = "bfloat16"
    symmetry: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "symmetry")
        check_choices(self, precision=("float32", "bfloat16"))
