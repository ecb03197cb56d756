"""What decides the outcome of a training of an expression network."""

from __future__ import annotations

from dataclasses import dataclass, field

from pcnn.errors import InputError
from pcnn.networks.backbones import find_backbone
from pcnn.networks.saliency import find_model
from pcnn.training.expression.augmentation import Augmentation
from pcnn.weights.compression import STORAGES

_CHOICES = {
    "network": ("trunk", "pcnn"),
    "optimizer": ("adamw", "sgd"),
    "labels": ("votes", "majority"),
    "precision": ("float32", "bfloat16"),
    "storage": STORAGES,
}


@dataclass(frozen=True)
class ExpressionOptions:
    """What decides the outcome of a training, beside the data: a recipe.

    network: "trunk" (FaceNet) or "pcnn". init: weights to start from: of a trunk, which goes into
    all six of a pcnn, or of the same network.
    size: side of the face view, in pixels. width: see ModelConfig.
    colour: whether the network sees RGB, normalised as ImageNet, instead of grey.
    optimizer: "adamw" with one cycle of the rate (a rise over the share `warm_up` of the steps,
    then half a cosine), or "sgd" as in the paper (momentum 0.9, halved every 15 epochs).
    lr: the peak rate. clip: the largest norm of the gradient.
    labels: "votes" (soft) or "majority" (the class with most votes).
    balance: 0 draws every face once an epoch; 1 draws every class as often as any other, with
    repetition; between, classes by (number of faces) ** (1 − balance).
    alpha, beta: weights of the two-phase loss, as in the paper; only their ratio matters to AdamW.
    calm: in this share of the steps, the last, faces vary half as far (Augmentation.calmer).
    teachers: weights files whose mean probabilities are mixed into the labels by `teaching`, 0…1:
        those of each face, aligned or not as here, with its mirror image, before it is varied.
    ema: decay of the averaged weights, which are the ones that are kept.
    init_share: of `init`, a network of the same kind, in what is kept: 0…1, the mean of both
        weights (Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022).
    seed: of everything random. precision: of the arithmetic, "bfloat16" by autocast.
    detector: whose landmarks faces are aligned by, and the template is measured by.
    aligned: whether faces are aligned, see alignment; so will pictures be that are given as faces.
    mirror: whether the weights are to be used with mirror images, see mirror.read_both.
    backbone: see ModelConfig. `init` may also be the published face weights of a backbone, see
        mobilenet.start_from_published.
    second: the weight in the loss of FER2013's own seven labels, which heads of their own learn;
        0: none do.
    photographs: an archive of photographs whose faces are learnt, too: the labels are what the
        teachers answer to them at the size of the training faces. None: no others are learnt.
    photographs_share: how many of them there are in a batch, as a share of `batch`.
    photographs_confidence: faces for which the teachers' likeliest class has less are left out.
    saliency: the model by whose maps faces are multiplied after their variation, see
        saliency.weigh; None: by none.
    storage: how the weights are written, see storage.narrow.
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
    lr: float = 1e-3
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
    ema: float = 0.995
    init_share: float = 0.0
    seed: int = 0
    precision: str = "float32"
    detector: str = "mobilenet"
    aligned: bool = False
    mirror: bool = False
    saliency: str | None = None
    backbone: str = "resnet18"
    second: float = 0.0
    photographs: str | None = None
    photographs_share: float = 0.25
    photographs_confidence: float = 0.0
    storage: str = "half"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"ExpressionOptions: {name} must be {' or '.join(choices)}, "
                    f"got {getattr(self, name)!r}"
                )
        for name, least in (("size", 8), ("width", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"ExpressionOptions: {name} must be at least {least}, got {getattr(self, name)}"
                )
        if not (self.epochs > 0 and self.lr > 0 and self.clip > 0):
            raise InputError(
                "ExpressionOptions: epochs, lr and clip must be above 0, "
                f"got {self.epochs}, {self.lr} and {self.clip}"
            )
        if not (0 <= self.warm_up < 1 and 0 <= self.ema < 1):
            raise InputError(
                "ExpressionOptions: warm_up and ema must be at least 0 and below 1, "
                f"got {self.warm_up} and {self.ema}"
            )
        for name in ("balance", "calm", "teaching", "init_share", "photographs_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"ExpressionOptions: {name} must lie in 0…1, got {getattr(self, name)}"
                )
        if self.photographs and not self.teachers:
            raise InputError("ExpressionOptions: photographs= needs teachers= to label them")
        find_backbone(self.backbone)
        if self.saliency is not None:
            find_model(self.saliency)
