"""Teachers: trained networks whose answers are mixed into the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.errors import InputError
from pcnn.evaluation.logits import predict_logits
from pcnn.networks.pcnn import Learner
from pcnn.terminal import track
from pcnn.weights.expression import load_learner

_FACES_AT_ONCE = 1024  # between two steps of the progress bar


@own_settings(gradients=True)
def load_teachers(paths: Sequence[str], classes: tuple[str, ...]) -> list[Learner]:
    """Load teachers by the names or paths of their weights.

    classes: the classes that each must have; their second labels may differ.
    Raises InputError: a teacher has other classes. Raises WeightsError: see files.read.
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


@own_settings()
def mean_answers(
    teachers: Sequence[Learner],
    faces: Tensor,
    *,
    second: bool,
    device: torch.device,
    shown: bool,
) -> Tensor:
    """The teachers' mean probabilities for faces, each read with its mirror image.

    teachers: at least one. faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1.
    second: True for the second labels. device: the device to compute on.
    shown: whether to show progress on stderr, if that is a terminal.
    Returns (N, classes) on the CPU.
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
