"""Options that determine the result of a training of the landmark network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pcnn.training import teacher_options
from pcnn.training.limits import check_at_least


@dataclass(frozen=True)
class LandmarkOptions(teacher_options.TaughtOptions):
    """Options of `train_landmarks`, beside those of TaughtOptions.

    detector: a name or path. The network learns where this detector would put a landmark if it
        made no errors: the teacher's landmarks, moved by the mean difference of both.
    init: landmark weights to start from, or "none" for random numbers.
    exposure: the largest factor of over-exposed faces, see over_expose. 1 for none.
    """

    detector: str = "mobilenet"
    init: str = "none"
    exposure: float = 1.0
    steps: int = 8000
    batch: int = 128
    photographs_share: float = 0.3
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "exposure")


def fingerprint(options: LandmarkOptions) -> str:
    """The options that affect the weights, as JSON. Of paths at most the name is there."""
    detector, init = Path(options.detector).name, Path(options.init).name
    return teacher_options.fingerprint(replace(options, detector=detector, init=init))
