"""The weights files known by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightSpec:
    """A weights file known by name.

    kind: "expression", "detector", "landmarks" or "movements". sha256: hexadecimal, of the file; it
    may be shortened, as by the file's publisher. url: for the download; None for a packaged file.
    class_shares: the share of each class of the training faces, for files that do not record it.
    labels: the names of the file's second labels.

    >>> SPECS["small"].kind, SPECS["small"].url
    ('expression', None)
    """

    kind: str
    file: str
    sha256: str
    url: str | None = None
    class_shares: tuple[float, ...] | None = None
    labels: tuple[str, ...] = ()


# Of the eight classes, in their order, in the votes for FER+ train without duplicates.
_FERPLUS_SHARES = (0.323454, 0.267204, 0.114646, 0.144373, 0.082656, 0.01534, 0.034139, 0.018187)

DEFAULT_WEIGHTS = "pcnn-ferplus"
# For commands that look into a network: the default is an ensemble.
SINGLE_WEIGHTS = "pcnn-ferplus-only"
DEFAULT_DETECTOR = "mobilenet"
DEFAULT_MOVEMENTS = "movements"
DEFAULT_LANDMARKS = "landmarks"

SPECS: Mapping[str, WeightSpec] = {
    # A PCNN that mobile taught, and mobile, in one file; their answers are averaged.
    "pcnn-ferplus": WeightSpec(
        "expression",
        "pcnn-ferplus.safetensors",
        "175c531946f2fee8195b430e3b992deab289fe44e5d22fc99dc4db35daa3d807",
        labels=("fer2013",),
    ),
    # The PCNN alone, trained on nothing but FER+.
    "pcnn-ferplus-only": WeightSpec(
        "expression",
        "pcnn-ferplus-only.safetensors",
        "27e70bb4315df2162c905d2c41cbc52517a9be8f4e6f0360f9d7fde30cab28fb",
        class_shares=_FERPLUS_SHARES,
    ),
    # MobileNet without regions, of 112 pixels: a fifth of the size, for speed.
    "small": WeightSpec(
        "expression",
        "pcnn-small.safetensors",
        "9d98e998c8b4518089920f1f63a72de687ec13bafa0a39577c1004c3291fed43",
        labels=("fer2013",),
    ),
    # MobileNet without regions, from a network that knew faces; also answers in FER2013's labels.
    "mobile": WeightSpec(
        "expression",
        "pcnn-mobile.safetensors",
        "181325cdf00cdd2bde65b14910a44f5232164b7a89198423104a965be2e5290d",
        labels=("fer2013",),
    ),
    "mobilenet": WeightSpec(
        "detector",
        "detector-mobilenet.safetensors",
        "e3390b43364d05d3f1b75d0a4a098002172e0b27f27c008b9e42e3c38d0c9828",
    ),
    # Refines the detector's landmarks; learnt from MediaPipe's Face Landmarker.
    "landmarks": WeightSpec(
        "landmarks",
        "landmarks.safetensors",
        "1e82b54e6ee1ec46e9933b49f6346b60d3f2088cab0e32d5d76d646eff5665cb",
    ),
    # Mesh, movements and head pose, learnt from MediaPipe's Face Landmarker.
    "movements": WeightSpec(
        "movements",
        "movements.safetensors",
        "b412aee6d60c777731f0641be0b65d92108655a644253c38800d22dcf01cb2dc",
    ),
    # Published by retinaface-pytorch (Iglovikov, MIT licence); its name contains the checksum.
    "resnet50": WeightSpec(
        "detector",
        "retinaface_resnet50_2020-07-20-f168fae3c.zip",
        "f168fae3c",
        "https://github.com/ternaus/retinaface/releases/download/0.01/"
        "retinaface_resnet50_2020-07-20-f168fae3c.zip",
    ),
}
