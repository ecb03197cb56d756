"""PCNN: six trunks, the multi-domain interaction, and the heads that name the expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pcnn.errors import InputError, check_shape
from pcnn.interaction import Interaction
from pcnn.regions import REGIONS, VIEWS, RegionLayout
from pcnn.trunk import Trunk, initialise, stage

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
    """All that decides a network's shape and its input.

    classes: names in the order of the logits.
    size: the side of the square face view, in pixels.
    mean, std: of values 0…1; three for an RGB network, one for a grey one.
    layout: where the regions are cut.
    width: channels of the trunks' first stage; the authors' networks have ResNet-18's 64.
    saliency: by which model's maps faces are multiplied, see saliency.weigh; None: by none.
    """

    classes: tuple[str, ...] = FERPLUS_CLASSES
    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    layout: RegionLayout = field(default_factory=RegionLayout)
    width: int = 64
    saliency: str | None = None

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise InputError(
                "ModelConfig: mean and std must be one (grey) or three (RGB) numbers, "
                f"got {self.mean} and {self.std}"
            )
        if len(self.classes) < 2:
            raise InputError(f"ModelConfig: classes must be two or more, got {self.classes}")

    @property
    def channels(self) -> int:
        """3 for RGB input, 1 for grey."""
        return len(self.mean)


class FaceNet(nn.Module):
    """A plain ResNet-18 over the whole face: what the trunks are pretrained as.

    initialised: as for PCNN.
    """

    def __init__(self, config: ModelConfig, *, initialised: bool = True) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config.channels, config.width)
        self.layer4 = stage(4 * config.width, 8 * config.width, 2)
        self.head = nn.Linear(8 * config.width, len(config.classes))
        if initialised:
            initialise(self)

    def forward(self, face: Tensor) -> Tensor:
        """(B, channels, S, S) normalised → logits (B, classes)."""
        logits: Tensor = self.head(self.layer4(self.trunk(face)).mean((2, 3)))
        return logits

    def cut(self, face: Tensor) -> list[Tensor]:
        """Faces (B, channels, S, S) → their views: the face alone."""
        return [face]

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits (B, classes) of the first view, the face; no regions. As PCNN.forward_views."""
        return self(views[0]), {}

    def start_from(self, network: FaceNet | PCNN) -> None:
        """Copy another FaceNet's weights. Raises InputError: not its like."""
        _check_alike("FaceNet.start_from", self.config, network.config)
        if not isinstance(network, FaceNet):
            raise InputError("FaceNet.start_from: network must be a FaceNet, got a PCNN")
        self.load_state_dict(network.state_dict())


class PCNN(nn.Module):
    """The perception CNN (Tian et al., IEEE TIP 2025).

    A trunk sees the whole face and one sees each of its regions; the region maps are stitched
    into a face again, registered with the face map by a spatial transformer, and added to it.
    One stage 4 is shared by the registration and the expression head.
    initialised: False leaves the convolutions' weights undefined, for a state dict to fill.
    """

    def __init__(self, config: ModelConfig, *, initialised: bool = True) -> None:
        super().__init__()
        self.config = config
        self.trunks = nn.ModuleDict({name: Trunk(config.channels, config.width) for name in VIEWS})
        self.layer4 = stage(4 * config.width, 8 * config.width, 2)
        side = -(-config.size // 32)
        self.interaction = Interaction((side, side), 8 * config.width)
        self.expression_head = nn.Linear(8 * config.width, len(config.classes))
        self.region_heads = nn.ModuleDict(
            {name: nn.Linear(4 * config.width, len(config.classes)) for name in REGIONS}
        )
        if initialised:
            initialise(self)

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Whole faces to logits and region logits.

        face: (B, channels, S, S), normalised by the configuration's mean and std.
        Returns logits (B, classes), and the sum of the five regions' own logits (B, classes).
        Raises InputError: wrong shape.
        """
        logits, regions = self.forward_views(self.cut(face))
        return logits, torch.stack(tuple(regions.values())).sum(0)

    def cut(self, face: Tensor) -> list[Tensor]:
        """Faces (B, channels, S, S) → their six views, in the order of VIEWS.

        Raises InputError: wrong shape.
        """
        size = self.config.size
        check_shape("PCNN", "face", face, (None, self.config.channels, size, size))
        boxes = self.config.layout.boxes(size).values()
        return [face[:, :, box.top : box.bottom, box.left : box.right] for box in boxes]

    def forward_views(self, views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Six views to logits and each region's own.

        views: in the order of VIEWS, each (B, channels, height, width) of its region's size.
        Returns logits (B, classes) and region name → that region's logits (B, classes).
        """
        return self.forward_maps(
            [trunk(view) for trunk, view in zip(self.trunks.values(), views, strict=True)]
        )

    def forward_maps(self, maps: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The six trunks' maps, in the order of VIEWS, to what forward_views gives."""
        face, *regions = maps  # face: (B, 4 · width, ⌈S / 16⌉, ⌈S / 16⌉)
        fused = self.interaction(face, regions, self.layer4)
        logits = self.expression_head(self.layer4(fused).mean((2, 3)))
        own = {
            name: self.region_heads[name](region.mean((2, 3)))
            for name, region in zip(REGIONS, regions, strict=True)
        }
        return logits, own

    def start_from(self, network: FaceNet | PCNN) -> None:
        """Copy a pretrained network's weights into this one.

        A FaceNet goes into every trunk, stage 4 and the expression head. A PCNN goes into its
        like; one of another face size keeps its registration's first layer to itself.
        Raises InputError: it has other classes, another width or other input channels.
        """
        _check_alike("PCNN.start_from", self.config, network.config)
        if isinstance(network, PCNN):
            state = network.state_dict()
            ours = self.state_dict()
            fitting = {name: v for name, v in state.items() if v.shape == ours[name].shape}
            self.load_state_dict({**ours, **fitting})
            return
        for trunk in self.trunks.values():
            trunk.load_state_dict(network.trunk.state_dict())
        self.layer4.load_state_dict(network.layer4.state_dict())
        self.expression_head.load_state_dict(network.head.state_dict())


@torch.no_grad()
def pull(network: nn.Module, other: nn.Module, share: float) -> None:
    """Move a network's weights, and its norms' statistics, that share of the way to another's.

    other: of the same shape. Counts, which are whole, are taken from it.
    """
    theirs = other.state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name], share)
        else:
            value.copy_(theirs[name])


def _check_alike(function: str, ours: ModelConfig, theirs: ModelConfig) -> None:
    for name in ("classes", "width", "channels"):
        if getattr(ours, name) != getattr(theirs, name):
            raise InputError(
                f"{function}: {name} must be {getattr(ours, name)}, got {getattr(theirs, name)}"
            )
