"""PCNN: six trunks, the multi-domain interaction, and the heads that classify the expression."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcnn.errors import InputError, check_shape
from pcnn.networks.backbones import find_backbone
from pcnn.networks.interaction import Interaction
from pcnn.networks.regions import REGIONS, VIEWS, ViewFormat
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
class ModelConfig(ViewFormat):
    """The configuration of a network's input, see ViewFormat, and of its shape.

    classes: names in the order of the logits.
    width: channels of the trunks' first convolution. The authors' networks have ResNet-18's 64;
        MobileNet has 32.
    backbone: the architecture of trunks and stage 4, see backbones.
    """

    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classes: tuple[str, ...] = FERPLUS_CLASSES
    width: int = 64
    backbone: str = "resnet18"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.classes) < 2:
            raise InputError(f"ModelConfig: classes must be two or more, got {self.classes}")
        find_backbone(self.backbone)

    @property
    def features(self) -> int:
        """Channels of the stage-4 maps; their mean is the input of the expression head."""
        return find_backbone(self.backbone).features * self.width


class _Network(nn.Module):
    """What FaceNet and PCNN have in common: a trunk for each view, stage 4, and heads.

    views, regions: the names of the views, and of those with a head of their own.
    TRUNKS, HEAD: the names of the trunks and of the expression head among the weights.
    """

    TRUNKS: str
    HEAD: str
    views: tuple[str, ...]
    regions: tuple[str, ...]
    config: ModelConfig
    layer4: nn.Sequential
    region_heads: nn.ModuleDict

    @property
    def embedding_size(self) -> int:
        """The number of values of a face's embedding."""
        return self.config.features

    @property
    def trunk_list(self) -> list[nn.Module]:
        """The trunks in the order of `views`."""
        own = getattr(self, self.TRUNKS)
        return list(own.values()) if isinstance(own, nn.ModuleDict) else [own]

    def take_trunks(self) -> list[nn.Module]:
        """Remove the trunks; returns them in the order of `views`."""
        found = self.trunk_list
        delattr(self, self.TRUNKS)
        return found

    @property
    def own_head(self) -> nn.Linear:
        """The head of the expression logits."""
        return getattr(self, self.HEAD)  # type: ignore[no-any-return]

    def cut(self, face: Tensor) -> list[Tensor]:
        """The views of faces (B, channels, S, S), in the order of `views`."""
        return [face]

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits of the face and of each region.

        views: in the order of VIEWS, each (B, channels, height, width) of its region's size. Those
            without a trunk are ignored.
        Returns logits (B, classes) and region name → that region's logits (B, classes).
        """
        return self.forward_maps(self._maps(views))

    def forward_maps(self, maps: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The result of forward_views, from the trunks' maps in the order of `views`."""
        pooled, regions = self.pool(maps)
        own = {name: self.region_heads[name](region) for name, region in regions.items()}
        return self.own_head(pooled), own

    def features(self, face: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The inputs of the heads for whole faces; see `pool`."""
        return self.pool(self._maps(self.cut(face)))

    def pool(self, maps: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The inputs of the heads, from the trunks' maps in the order of `views`.

        Returns the means of stage 4's maps (B, features), and region name → the means of that
        region's maps (B, channels). For both numbers see backbones.
        """
        face, *regions = maps  # face: (B, channels, ⌈S / 16⌉, ⌈S / 16⌉)
        own = {name: m.mean((2, 3)) for name, m in zip(self.regions, regions, strict=True)}
        return self.layer4(self._fused(face, regions)).mean((2, 3)), own

    def _fused(self, face: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """The face's map with what the regions' maps add to it."""
        return face

    def _maps(self, views: Sequence[Tensor]) -> list[Tensor]:
        return [trunk(view) for trunk, view in zip(self.trunk_list, views, strict=False)]


class FaceNet(_Network):
    """The plain backbone over the whole face, used to pretrain the trunks.

    initialised: as for PCNN.
    """

    TRUNKS, HEAD = "trunk", "head"
    views = VIEWS[:1]
    regions = ()

    def __init__(self, config: ModelConfig, *, initialised: bool = True) -> None:
        super().__init__()
        self.config = config
        backbone = find_backbone(config.backbone)
        self.trunk = backbone.trunk(config.channels, config.width)
        self.layer4 = backbone.stage4(config.width)
        self.head = nn.Linear(backbone.features * config.width, len(config.classes))
        self.region_heads = nn.ModuleDict()
        if initialised:
            initialise(self)

    def forward(self, face: Tensor) -> Tensor:
        """Logits (B, classes) of faces (B, channels, S, S), normalised."""
        return self.forward_views([face])[0]

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


class PCNN(_Network):
    """The perception CNN (Tian et al., IEEE TIP 2025).

    One trunk sees the whole face, and five trunks see one region each. The region maps are
    stitched into a face. A spatial transformer aligns the stitched map with the face map, and
    both are added. The spatial transformer and the expression head share one stage 4.
    initialised: False leaves the convolutions' weights undefined, for a state dict to fill.
    """

    TRUNKS, HEAD = "trunks", "expression_head"
    views = VIEWS
    regions = REGIONS

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

    def _fused(self, face: Tensor, regions: Sequence[Tensor]) -> Tensor:
        return self.interaction(face, regions, self.layer4)  # type: ignore[no-any-return]

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
        else:
            for trunk in self.trunks.values():
                trunk.load_state_dict(network.trunk.state_dict())
            self.layer4.load_state_dict(network.layer4.state_dict())
        _carry_over(self.own_head, network.own_head, self.config, network.config)


class Heads(nn.Module):
    """Additional heads for another set of classes, with the structure of a network's own heads."""

    def __init__(self, network: FaceNet | PCNN, classes: Sequence[str]) -> None:
        super().__init__()
        self.expression_head = nn.Linear(network.own_head.in_features, len(classes))
        self.region_heads = nn.ModuleDict(
            {
                name: nn.Linear(int(head.in_features), len(classes))  # type: ignore[arg-type]
                for name, head in network.region_heads.items()
            }
        )

    def forward(
        self, vectors: Tensor, regions: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, classes) and the sum of the regions' logits, if any; from `features`."""
        return _answers(self.expression_head, self.region_heads, vectors, regions)


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
        network = self.network
        vectors, regions = network.features(face)
        answers = [_answers(network.own_head, network.region_heads, vectors, regions)]
        if self.second is not None:
            answers.append(self.second(vectors, regions))
        return answers, None if self.movements is None else self.movements(vectors)

    def relabelled(self) -> FaceNet | PCNN:
        """A copy of the network with the second heads as its own."""
        if self.second is None or self.classes is None:
            raise InputError("Learner.relabelled: the learner has no second labels")
        return relabelled(self.network, self.second, self.classes)


def _answers(
    head: nn.Linear, region_heads: nn.ModuleDict, vectors: Tensor, regions: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """The result of Heads.forward, from any heads."""
    own = [region_heads[name](vector) for name, vector in regions.items()]
    return head(vectors), torch.stack(own).sum(0) if own else None


def relabelled(network: FaceNet | PCNN, heads: Heads, classes: Sequence[str]) -> FaceNet | PCNN:
    """A copy of a network with other heads and classes."""
    twin = copy.deepcopy(network)
    twin.config = dataclasses.replace(network.config, classes=tuple(classes))
    heads = copy.deepcopy(heads)
    setattr(twin, twin.HEAD, heads.expression_head)
    twin.region_heads = heads.region_heads
    return twin


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
