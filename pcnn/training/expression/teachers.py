"""Teachers: trained networks whose answers are mixed into the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.engines.classifier import prepare
from pcnn.errors import InputError
from pcnn.faces.views import network_views
from pcnn.networks.mirror import read_both
from pcnn.networks.pcnn import Learner
from pcnn.terminal import track
from pcnn.weights.expression import load_learners

_FACES_AT_ONCE = 128


@own_settings(gradients=True)
def load_teachers(paths: Sequence[str], classes: tuple[str, ...]) -> list[Learner]:
    """Load teachers by the names or paths of their weights; of an ensemble, all its networks.

    classes: the classes that each must have; their second labels may differ.
    Raises InputError: a teacher has other classes. Raises WeightsError: see files.read.
    """
    teachers: list[Learner] = []
    for path in paths:
        own = load_learners(path)
        known = own[0].network.config.classes
        if known != classes:
            raise InputError(
                f"ExpressionTraining: the teacher {path} must have the data's classes "
                f"{', '.join(classes)}, got {', '.join(known)}"
            )
        teachers += own
    return teachers


@own_settings()
@torch.no_grad()
def mean_answers(
    teachers: Sequence[Learner],
    faces: Tensor,
    *,
    second: bool,
    place: tuple[torch.device, torch.dtype],
    shown: bool,
) -> Tensor:
    """The teachers' mean probabilities for faces, each read with its mirror image.

    teachers: at least one. faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1.
    second: True for the second labels. place: the device and type of the arithmetic.
    shown: whether to show progress on stderr, if that is a terminal.
    Returns (N, classes) float32 on the CPU.
    """
    device, dtype = place
    chunks = faces.split(_FACES_AT_ONCE)
    answers = []
    for number, teacher in enumerate(teachers, 1):
        network = teacher.relabelled() if second else teacher.network
        network.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = prepare(network, dtype).forward_views
        title = f"teacher {number} of {len(teachers)}"
        logits = [
            read_both(forward, network_views(network, chunk.to(device), None))[0].cpu()
            for chunk in track(chunks, title, shown=shown)
        ]
        answers.append(torch.cat(logits).softmax(1))
    return torch.stack(answers).mean(0)
