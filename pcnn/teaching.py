"""What trained networks answer to faces, mixed into the labels that another is to learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pcnn import weights
from pcnn.errors import InputError
from pcnn.evaluate import predict_logits
from pcnn.model import PCNN, FaceNet

_FACES_AT_ONCE = 1024  # between two steps of the progress bar


def load_teachers(paths: Sequence[str], classes: tuple[str, ...]) -> list[PCNN | FaceNet]:
    """Networks by weights' names or paths.

    Raises InputError: one that knows other classes than these. WeightsError: see weights.read.
    """
    teachers = []
    for path in paths:
        teacher = weights.load_network(path)
        if teacher.config.classes != classes:
            raise InputError(
                f"Training: the teacher {path} has the classes "
                f"{', '.join(teacher.config.classes)}, the data {', '.join(classes)}"
            )
        teachers.append(teacher)
    return teachers


def mix_answers(  # noqa: PLR0913
    labels: Tensor,
    teachers: Sequence[PCNN | FaceNet],
    faces: Tensor,
    *,
    share: float,
    device: torch.device,
    shown: bool,
) -> Tensor:
    """Labels with the mean answer of teachers in them.

    labels: (N, classes) probabilities. faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8.
    teachers: at least one; each answers to the faces as they are, with their mirror images.
    share: of the answers, 0…1. device: where they are computed.
    shown: whether progress is shown on a terminal's stderr. Returns (N, classes) on the CPU.
    """
    console = Console(stderr=True)
    hidden = not (shown and console.is_terminal)
    chunks = faces.split(_FACES_AT_ONCE)
    answers = []
    for place, teacher in enumerate(teachers, 1):
        teacher.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        watched = track(
            chunks,
            f"teacher {place} of {len(teachers)}",
            console=console,
            transient=True,
            disable=hidden,
        )
        logits = [predict_logits(teacher, chunk, mirror=True)[0] for chunk in watched]
        answers.append(torch.cat(logits).softmax(1))
    return torch.lerp(labels, torch.stack(answers).mean(0), share)
