"""Targets of a training: labels, and the answers of teachers, which are trained networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.datasets.labels import FaceSet
from pcnn.devices import own_settings
from pcnn.engines.classifier import prepare
from pcnn.errors import InputError
from pcnn.faces.resampling import to_planes
from pcnn.faces.views import network_views
from pcnn.networks.mirror import read_both
from pcnn.networks.pcnn import Learner
from pcnn.terminal import track
from pcnn.training.expression.options import ExpressionOptions
from pcnn.weights.expression import load_learners

_FACES_AT_ONCE = 128
_SIDE = 48  # of the teachers' training faces; they see photographs at the same resolution


@own_settings(gradients=True)
def taught_targets(
    options: ExpressionOptions,
    kinds: Sequence[FaceSet],
    photographs: Tensor | None = None,
    *,
    device: torch.device,
    shown: bool = False,
) -> list[Tensor]:
    """The targets of a training: labels, mixed with the teachers' answers.

    kinds: the N faces with their labels; with second labels, these faces with them, too.
    photographs: (M, S, S) or (M, S, S, 3) uint8 faces without labels, or None.
    shown: whether to show progress on stderr, if that is a terminal.
    Returns (N + M, classes) for each kind of labels, on the device; photographs come last.
    Raises InputError: a teacher has other classes, or photographs are not known to any.
    """
    teachers = load_teachers(options.teachers, kinds[0].classes)
    dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32

    def answers(faces: Tensor) -> list[Tensor | None]:
        classes = [kind.classes for kind in kinds]
        return mean_answers(teachers, faces, classes, place=(device, dtype), shown=shown)

    taught = answers(kinds[0].faces)
    targets = []
    for kind, answer in zip(kinds, taught, strict=True):
        own = _label_targets(kind.votes, options.labels)
        targets.append(own if answer is None else torch.lerp(own, answer, options.teaching))
        if answer is None and photographs is not None:
            raise InputError(
                "ExpressionTraining: photographs have no labels; no teacher knows "
                f"{', '.join(kind.classes)}"
            )
    if photographs is not None:
        read = answers(_shrink(photographs, _SIDE))
        pairs = zip(targets, read, strict=True)
        targets = [torch.cat((own, new)) for own, new in pairs if new is not None]
    return [own.to(device) for own in targets]


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
    kinds: Sequence[Sequence[str]],
    *,
    place: tuple[torch.device, torch.dtype],
    shown: bool,
) -> list[Tensor | None]:
    """The teachers' mean probabilities for faces, each read with its mirror image.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8, N ≥ 1.
    kinds: the classes of each kind of labels, the teachers' own first. Only teachers with the same
        second labels answer for the second kind.
    place: the device and type of the arithmetic.
    shown: whether to show progress on stderr, if that is a terminal.
    Returns (N, classes) float32 on the CPU for each kind, or None if no teacher knows it.
    """
    answers: list[list[Tensor]] = [[] for _ in kinds]
    for number, teacher in enumerate(teachers, 1):
        heads = [teacher.network.own_head]
        if teacher.second is not None and teacher.classes in kinds[1:]:
            heads.append(teacher.second.expression_head)
        chunks = track(
            faces.split(_FACES_AT_ONCE), f"teacher {number} of {len(teachers)}", shown=shown
        )
        logits = _logits(teacher, heads, chunks, place)
        for own, one in zip(answers, logits, strict=False):
            own.append(one.softmax(1))
    return [torch.stack(own).mean(0) if own else None for own in answers]


def _logits(
    teacher: Learner,
    heads: Sequence[nn.Linear],
    chunks: Iterable[Tensor],
    place: tuple[torch.device, torch.dtype],
) -> tuple[Tensor, ...]:
    """The mean logits (N, classes) of faces and their mirror images, by each of a teacher's heads.

    chunks: the faces in several parts. place: see mean_answers.
    """
    device, dtype = place
    teacher.eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = teacher.network
    embed = prepare(network, dtype).embed_views

    def forward(views: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        vectors = embed(views)
        return torch.cat([head(vectors) for head in heads], 1), {}

    read = [read_both(forward, network_views(network, each.to(device), None))[0] for each in chunks]
    counts = [head.out_features for head in heads]
    logits: tuple[Tensor, ...] = torch.cat(read).cpu().split(counts, 1)
    return logits


def _label_targets(votes: Tensor, labels: str) -> Tensor:
    """Probabilities (N, classes): the votes, or 1 for the class with most votes."""
    if labels == "votes":
        return votes
    return F.one_hot(votes.argmax(1), votes.shape[1]).to(votes.dtype)


def _shrink(faces: Tensor, side: int) -> Tensor:
    """Reduce faces (M, S, S) or (M, S, S, 3) uint8 to a side of `side` pixels, antialiased."""
    shrunk = [
        F.interpolate(to_planes(chunk), size=(side, side), mode="bilinear", antialias=True)
        for chunk in faces.split(256)
    ]
    levels = (255 * torch.cat(shrunk)).round().clamp(0, 255).to(torch.uint8)
    return levels[:, 0] if faces.dim() == 3 else levels.permute(0, 2, 3, 1).contiguous()
