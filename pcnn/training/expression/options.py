"""Options that determine the result of an expression training."""

from __future__ import annotations

from dataclasses import dataclass, field

from pcnn.errors import InputError
from pcnn.networks.backbones import find_backbone
from pcnn.networks.saliency import find_model
from pcnn.training.expression.augmentation import Augmentation
from pcnn.training.limits import (
    check_at_least,
    check_choices,
    check_decays,
    check_positive,
    check_shares,
)
from pcnn.weights.compression import STORAGES
from pcnn.weights.kinds import MOST

_CHOICES = {
    "network": ("trunk", "pcnn"),
    "optimizer": ("adamw", "sgd"),
    "labels": ("votes", "majority"),
    "precision": ("float32", "bfloat16"),
    "storage": STORAGES,
}


@dataclass(frozen=True)
class ExpressionOptions:
    """Options of an expression training. A recipe has all of them except data and output.

    network: "trunk" (FaceNet) or "pcnn".
    data, output: the data set, see docs/data.md, and the weights file to write.
    init: weights to start from: those of a trunk, used for all six trunks of a pcnn; those of the
        same network; or published face weights of a backbone, see
        mobilenet.start_from_published.
    size: side of the face view, in pixels. width, backbone: see ModelConfig.
    colour: True for RGB input, normalised as for ImageNet, instead of grey.
    epochs: passes over the faces. batch: faces in each step.
    optimizer: "adamw" with a one-cycle schedule: the rate rises during the share `warm_up` of the
        steps, then falls along half a cosine. "sgd" is the paper's: momentum 0.9, rate halved
        every 15 epochs.
    learning_rate: its peak. weight_decay: of the optimiser. clip: the largest norm of the gradient.
    labels: "votes" (soft) or "majority" (the class with most votes).
    balance: 0 draws every face once an epoch. 1 draws all classes equally often, with repetition.
        In between, a class is drawn in proportion to (number of faces) ** (1 − balance).
    alpha, beta: weights of the two-phase loss, as in the paper. With AdamW only their ratio
        matters.
    calm: the share of the steps, at the end, with reduced augmentation (Augmentation.calmer).
    teachers: weights files; of an ensemble, each network counts as a teacher. Their mean
        probabilities, without temperatures and with equal weights, are mixed into the labels by
        `teaching`, 0…1. Teachers see each face, aligned as here, and its mirror image, without
        augmentation.
    average: decay of the running average of the weights. The average is written.
    init_share: share of `init`, a network of the same kind, in the written weights but for heads
        of second labels: 0…1. Both weights are averaged (Wortsman et al., Robust Fine-Tuning of
        Zero-Shot Models, CVPR 2022).
    seed: of all random choices. precision: of the arithmetic; "bfloat16" uses autocast.
    detector: its landmarks align the faces and give the template.
    landmarks: a teacher's answers for the training faces, see landmarker.mixed_landmarks. They
        align half of the faces. None for the detector's alone.
    movements: a teacher's answers for the training faces, see landmarker.movement_targets. The
        network learns the movements beside the expressions, by a head that is not written. None
        for no movements. moving: their weight in the loss.
    aligned: True aligns faces, see alignment. Predictions for cut-out faces then align, too.
    mirror: True if predictions shall use mirror images, see mirror.read_both.
    second: weight of FER2013's own seven labels in the loss. They have their own heads. 0 for
        none.
    frozen: True learns the heads of the second labels alone; the network stays that of `init`.
    photographs: an archive of photographs. Their faces are also learnt, with the teachers'
        answers at the size of the training faces as labels. None for no photographs.
    photographs_share: number of photographs in a batch, as a share of `batch`.
    photographs_confidence: the least probability of the teachers' likeliest class; photographs
        below it are left out.
    saliency: the model whose maps weigh the faces after augmentation, see saliency.weigh; None
        for no model.
    storage: the format of the written weights, see compression.narrow.
    augmentation: ranges of the random changes.
    Raises InputError: values out of range, or options that contradict each other.
    """

    network: str
    data: str
    output: str
    init: str | None = None
    size: int = 96
    width: int = 64
    colour: bool = False
    epochs: float = 12
    batch: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.15
    clip: float = 50.0
    labels: str = "votes"
    balance: float = 0.0
    alpha: float = 12.0
    beta: float = 8.0
    calm: float = 0.0
    teachers: tuple[str, ...] = ()
    teaching: float = 0.5
    average: float = 0.995
    init_share: float = 0.0
    seed: int = 0
    precision: str = "float32"
    detector: str = "mobilenet"
    landmarks: str | None = None
    movements: str | None = None
    moving: float = 1.0
    aligned: bool = False
    mirror: bool = False
    saliency: str | None = None
    backbone: str = "resnet18"
    second: float = 0.0
    frozen: bool = False
    photographs: str | None = None
    photographs_share: float = 0.25
    photographs_confidence: float = 0.0
    storage: str = "half"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_choices(self, **_CHOICES)
        check_at_least(self, 8, "size")
        check_at_least(self, 1, "width", "batch")
        if max(self.size, self.width) > MOST:  # else nobody could load what was trained
            raise InputError(
                f"ExpressionOptions: size and width must be at most {MOST}, "
                f"got {self.size} and {self.width}"
            )
        check_positive(self, "epochs", "learning_rate", "clip")
        check_at_least(self, 0, "weight_decay", "alpha", "beta", "moving", "second")
        check_decays(self, "warm_up", "average")
        check_shares(self, "balance", "calm", "teaching", "init_share", "photographs_share")
        for name, needed in (("landmarks", "aligned"), ("photographs", "teachers")):
            if getattr(self, name) and not getattr(self, needed):
                raise InputError(f"ExpressionOptions: {name}= needs {needed}=")
        if self.frozen and (not self.second or self.movements):
            raise InputError("ExpressionOptions: frozen= needs second= and no movements=")
        find_backbone(self.backbone)
        if self.saliency is not None:
            find_model(self.saliency)
