"""What trained networks answer to faces, mixed into the labels that another is to learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcnn.errors import InputError
from pcnn.evaluation.logits import predict_logits
from pcnn.networks.pcnn import Learner
from pcnn.terminal import track
from pcnn.weights.expression import load_learner

_FACES_AT_ONCE = 1024  # between two steps of the progress bar


def load_teachers(paths: Sequence[str], classes: tuple[str, ...]) -> list[Learner]:
    """Networks by weights' names or paths.

    classes: of the labels that they are to know; their second labels may differ.
    Raises InputError: one that knows other classes than these. WeightsError: see read.
    """
    teachers = []
    for path in paths:
        teacher = load_learner(path)
        known = teacher.network.config.classes
        if known != classes:
            raise InputError(
                f"ExpressionTraining: the teacher {path} must have the data's classes "
                f"{', '.join(classes)}, got {', '.join(known)}"
            )
        teachers.append(teacher)
    return teachers


def mean_answers(
    teachers: Sequence[Learner],
    faces: Tensor,
    *,
    second: bool,
    device: torch.device,
    shown: bool,
) -> Tensor:
    """The mean probabilities that teachers answer to faces, each with its mirror image.

    teachers: at least one. faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1.
    second: the answers in their second labels. device: where they are computed.
    shown: whether progress is shown on a terminal's stderr. Returns (N, classes) on the CPU.
    """
    chunks = faces.split(_FACES_AT_ONCE)
    answers = []
    for place, teacher in enumerate(teachers, 1):
        network = teacher.relabelled() if second else teacher.network
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        title = f"teacher {place} of {len(teachers)}"
        logits = [
            predict_logits(network, chunk, mirror=True)[0]
            for chunk in track(chunks, title, shown=shown)
        ]
        answers.append(torch.cat(logits).softmax(1))
    return torch.stack(answers).mean(0)
