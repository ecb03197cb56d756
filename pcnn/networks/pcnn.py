"""PCNN: six trunks, the multi-domain interaction, and the heads that classify the expression."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pcnn.errors import InputError, check_shape
from pcnn.networks.backbones import find_backbone
from pcnn.networks.interaction import Interaction
from pcnn.networks.regions import REGIONS, VIEWS, RegionLayout
from pcnn.networks.trunk import initialise

# FER+ order (Barsoum et al. 2016).
FERPLUS_CLASSES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelConfig:
    """The configuration of a network's shape and input.

    classes: names in the order of the logits.
    size: the side of the square face view, in pixels.
    mean, std: normalisation of values 0…1; three numbers for an RGB network, one for a grey one.
    layout: the places of the regions.
    width: channels of the trunks' first convolution. The authors' networks have ResNet-18's 64;
        MobileNet has 32.
    saliency: the model whose maps weigh the faces, see saliency.weigh; None for no model.
    backbone: the architecture of trunks and stage 4, see backbones.
    """

    classes: tuple[str, ...] = FERPLUS_CLASSES
    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    layout: RegionLayout = field(default_factory=RegionLayout)
    width: int = 64
    saliency: str | None = None
    backbone: str = "resnet18"

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise InputError(
                "ModelConfig: mean and std must be one (grey) or three (RGB) numbers, "
                f"got {self.mean} and {self.std}"
            )
        if len(self.classes) < 2:
            raise InputError(f"ModelConfig: classes must be two or more, got {self.classes}")
        find_backbone(self.backbone)

    @property
    def channels(self) -> int:
        """3 for RGB input, 1 for grey."""
        return len(self.mean)

    @property
    def features(self) -> int:
        """Channels of the stage-4 maps; their mean is the input of the expression head."""
        return find_backbone(self.backbone).features * self.width


class FaceNet(nn.Module):
    """The plain backbone over the whole face, used to pretrain the trunks.

    initialised: as for PCNN.
    """

    views: tuple[str, ...] = VIEWS[:1]
    regions: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig, *, initialised: bool = True) -> None:
        super().__init__()
        self.config = config
        backbone = find_backbone(config.backbone)
        self.trunk = backbone.trunk(config.channels, config.width)
        self.layer4 = backbone.stage4(config.width)
        self.head = nn.Linear(backbone.features * config.width, len(config.classes))
        if initialised:
            initialise(self)

    @property
    def embedding_size(self) -> int:
        """The number of values of a face's embedding."""
        return self.config.features

    def forward(self, face: Tensor) -> Tensor:
        """Logits (B, classes) of faces (B, channels, S, S), normalised."""
        logits: Tensor = self.head(self.features(face)[0])
        return logits

    def features(self, face: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The embeddings (B, C) for the head, and an empty mapping of regions."""
        return self.layer4(self.trunk(face)).mean((2, 3)), {}

    def cut(self, face: Tensor) -> list[Tensor]:
        """The only view of faces (B, channels, S, S): the face itself."""
        return [face]

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits (B, classes) of the first view, the face, and no regions; see PCNN."""
        return self(views[0]), {}

    def start_from(self, network: FaceNet | PCNN) -> None:
        """Copy another FaceNet's weights; those of the head for classes that both have.

        Raises InputError: a network of another shape.
        """
        _check_alike("FaceNet.start_from", self.config, network.config)
        if not isinstance(network, FaceNet):
            raise InputError("FaceNet.start_from: network must be a FaceNet, got a PCNN")
        self.trunk.load_state_dict(network.trunk.state_dict())
        self.layer4.load_state_dict(network.layer4.state_dict())
        _carry_over(self.head, network.head, self.config, network.config)


class PCNN(nn.Module):
    """The perception CNN (Tian et al., IEEE TIP 2025).

    One trunk sees the whole face, and five trunks see one region each. The region maps are
    stitched into a face. A spatial transformer aligns the stitched map with the face map, and
    both are added. The spatial transformer and the expression head share one stage 4.
    initialised: False leaves the convolutions' weights undefined, for a state dict to fill.
    """

    views: tuple[str, ...] = VIEWS
    regions: tuple[str, ...] = REGIONS

    def __init__(self, config: ModelConfig, *, initialised: bool = True) -> None:
        super().__init__()
        self.config = config
        backbone = find_backbone(config.backbone)
        channels, features = backbone.channels * config.width, backbone.features * config.width
        self.trunks = nn.ModuleDict(
            {name: backbone.trunk(config.channels, config.width) for name in VIEWS}
        )
        self.layer4 = backbone.stage4(config.width)
        side = -(-config.size // 32)
        self.interaction = Interaction((side, side), features)
        self.expression_head = nn.Linear(features, len(config.classes))
        self.region_heads = nn.ModuleDict(
            {name: nn.Linear(channels, len(config.classes)) for name in REGIONS}
        )
        if initialised:
            initialise(self)

    @property
    def embedding_size(self) -> int:
        """The number of values of a face's embedding."""
        return self.config.features

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and region logits of whole faces.

        face: (B, channels, S, S), normalised by the configuration's mean and std.
        Returns logits (B, classes), and the sum of the five regions' logits (B, classes).
        Raises InputError: wrong shape.
        """
        logits, regions = self.forward_views(self.cut(face))
        return logits, torch.stack(tuple(regions.values())).sum(0)

    def cut(self, face: Tensor) -> list[Tensor]:
        """The six views of faces (B, channels, S, S), in the order of VIEWS.

        Raises InputError: wrong shape.
        """
        size = self.config.size
        check_shape("PCNN", "face", face, (None, self.config.channels, size, size))
        boxes = self.config.layout.boxes(size).values()
        return [face[:, :, box.top : box.bottom, box.left : box.right] for box in boxes]

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits of the face and of each region, from six views.

        views: in the order of VIEWS, each (B, channels, height, width) of its region's size.
        Returns logits (B, classes) and region name → that region's logits (B, classes).
        """
        return self.forward_maps(
            [trunk(view) for trunk, view in zip(self.trunks.values(), views, strict=True)]
        )

    def forward_maps(self, maps: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The result of forward_views, from the six trunks' maps in the order of VIEWS."""
        pooled, regions = self.pool(maps)
        own = {name: self.region_heads[name](region) for name, region in regions.items()}
        return self.expression_head(pooled), own

    def features(self, face: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The inputs of the heads for whole faces; see `pool`."""
        views = zip(self.trunks.values(), self.cut(face), strict=True)
        return self.pool([trunk(view) for trunk, view in views])

    def pool(self, maps: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The inputs of the heads, from the six trunks' maps.

        Returns the means of stage 4's maps (B, features), and region name → the means of that
        region's maps (B, channels). For both numbers see backbones.
        """
        face, *regions = maps  # face: (B, channels, ⌈S / 16⌉, ⌈S / 16⌉)
        fused = self.interaction(face, regions, self.layer4)
        own = {name: m.mean((2, 3)) for name, m in zip(REGIONS, regions, strict=True)}
        return self.layer4(fused).mean((2, 3)), own

    def start_from(self, network: FaceNet | PCNN) -> None:
        """Copy a pretrained network's weights into this one.

        A FaceNet is copied to every trunk, stage 4 and the expression head. A PCNN is copied
        completely, except for the registration's first layer if the face sizes differ. Of the
        heads, the weights for classes that both have are copied; those for others stay new.
        Raises InputError: another width, backbone or number of input channels.
        """
        _check_alike("PCNN.start_from", self.config, network.config)
        if isinstance(network, PCNN):
            ours = self.state_dict()
            fitting = {
                name: value
                for name, value in network.state_dict().items()
                if "head" not in name.split(".")[0] and value.shape == ours[name].shape
            }
            self.load_state_dict({**ours, **fitting})
            for name, head in self.region_heads.items():
                _carry_over(head, network.region_heads[name], self.config, network.config)
            _carry_over(self.expression_head, network.expression_head, self.config, network.config)
            return
        for trunk in self.trunks.values():
            trunk.load_state_dict(network.trunk.state_dict())
        self.layer4.load_state_dict(network.layer4.state_dict())
        _carry_over(self.expression_head, network.head, self.config, network.config)


class Heads(nn.Module):
    """Additional heads for another set of classes, with the structure of a network's own heads."""

    def __init__(self, network: FaceNet | PCNN, classes: Sequence[str]) -> None:
        super().__init__()
        self.expression_head = nn.Linear(own_head(network).in_features, len(classes))
        regions = network.region_heads.items() if isinstance(network, PCNN) else ()
        self.region_heads = nn.ModuleDict(
            {name: nn.Linear(int(head.in_features), len(classes)) for name, head in regions}  # type: ignore[arg-type]
        )

    def forward(
        self, vectors: Tensor, regions: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, classes) and the sum of the regions' logits, if any; from `features`."""
        own = [head(regions[name]) for name, head in self.region_heads.items()]
        return self.expression_head(vectors), torch.stack(own).sum(0) if own else None


class Learner(nn.Module):
    """A network in training, with optional heads for a second kind of labels and for movements.

    classes: those of the second kind of labels. movements: how many are learnt; 0 for none.
    """

    def __init__(
        self, network: FaceNet | PCNN, classes: Sequence[str] | None = None, movements: int = 0
    ) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.second = None if classes is None else Heads(network, classes)
        self.movements = nn.Linear(network.embedding_size, movements) if movements else None

    def forward(self, face: Tensor) -> tuple[list[tuple[Tensor, Tensor | None]], Tensor | None]:
        """Logits and the sum of the regions' logits, for each kind of labels; and movements."""
        vectors, regions = self.network.features(face)
        answers = [answer_with_own_heads(self.network, vectors, regions)]
        if self.second is not None:
            answers.append(self.second(vectors, regions))
        return answers, None if self.movements is None else self.movements(vectors)

    def relabelled(self) -> FaceNet | PCNN:
        """A copy of the network with the second heads as its own."""
        if self.second is None or self.classes is None:
            raise InputError("Learner.relabelled: the learner has no second labels")
        return relabelled(self.network, self.second, self.classes)


def answer_with_own_heads(
    network: FaceNet | PCNN, vectors: Tensor, regions: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """The result of Heads.forward, from the network's own heads."""
    if isinstance(network, FaceNet):
        return network.head(vectors), None
    own = [network.region_heads[name](vector) for name, vector in regions.items()]
    return network.expression_head(vectors), torch.stack(own).sum(0)


def relabelled(network: FaceNet | PCNN, heads: Heads, classes: Sequence[str]) -> FaceNet | PCNN:
    """A copy of a network with other heads and classes."""
    twin = copy.deepcopy(network)
    twin.config = dataclasses.replace(network.config, classes=tuple(classes))
    heads = copy.deepcopy(heads)
    if isinstance(twin, FaceNet):
        twin.head = heads.expression_head
    else:
        twin.expression_head, twin.region_heads = heads.expression_head, heads.region_heads
    return twin


def own_head(network: FaceNet | PCNN) -> nn.Linear:
    """The head of the expression logits."""
    return network.head if isinstance(network, FaceNet) else network.expression_head


@torch.no_grad()
def pull(network: nn.Module, other: nn.Module, share: float) -> None:
    """Move a network's weights and norm statistics towards another's, by a share of the difference.

    other: a network of the same shape. Integer counts are copied from it.
    """
    ours, theirs = network.state_dict(), other.state_dict()
    floating = [name for name, value in ours.items() if value.is_floating_point()]
    torch._foreach_lerp_(
        [ours[name] for name in floating], [theirs[name] for name in floating], share
    )
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])


def _check_alike(function: str, ours: ModelConfig, theirs: ModelConfig) -> None:
    for name in ("width", "channels", "backbone"):
        if getattr(ours, name) != getattr(theirs, name):
            raise InputError(
                f"{function}: {name} must be that of the weights to start from, "
                f"{getattr(theirs, name)}, got {getattr(ours, name)}"
            )


@torch.no_grad()
def _carry_over(head: nn.Module, other: nn.Module, ours: ModelConfig, theirs: ModelConfig) -> None:
    """Copy the weights of another linear head for the classes that both have."""
    for row, name in enumerate(ours.classes):
        if name in theirs.classes:
            at = theirs.classes.index(name)
            head.weight[row] = other.weight[at]  # type: ignore[operator, index]
            head.bias[row] = other.bias[at]  # type: ignore[operator, index]


def normalise(faces: Tensor, config: ModelConfig) -> Tensor:
    """The network's input for faces (B, C, H, W) of 0…1: normalised, channels-last."""
    mean = faces.new_tensor(config.mean).view(1, -1, 1, 1)
    std = faces.new_tensor(config.std).view(1, -1, 1, 1)
    return ((faces - mean) / std).to(memory_format=torch.channels_last)
