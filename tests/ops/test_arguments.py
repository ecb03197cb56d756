"""What the ops refuse, and in which words: in Python first, and again in the compiled code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pcnn import ops
from pcnn.errors import InputError
from pcnn.ops import native

IMAGE = torch.ones(4, 5, 3, dtype=torch.uint8)
TRANSFORMS = torch.ones(2, 1, 2, 3)
LANDMARKS = torch.ones(2, 5, 2)
TEMPLATE = [(1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (3.0, 3.0)]


def crop(**changes: Any) -> object:
    arguments: dict[str, Any] = {
        "image": IMAGE,
        "transforms": TRANSFORMS,
        "sizes": [(2, 3)],
        "mean": (0.5,),
        "std": (0.2,),
    }
    arguments |= changes
    image, transforms, sizes = (arguments.pop(name) for name in ("image", "transforms", "sizes"))
    return ops.crop_regions(image, transforms, sizes, **arguments)


def landmark_crop(**changes: Any) -> object:
    arguments: dict[str, Any] = {
        "image": IMAGE,
        "landmarks": LANDMARKS,
        "template": TEMPLATE,
        "boxes": [(0, 0, 2, 3)],
        "mean": (0.5,),
        "std": (0.2,),
    }
    return ops.landmark_crop(**(arguments | changes))


def decode(**changes: Any) -> object:
    arguments: dict[str, Any] = {
        "predictions": torch.ones(2, 3, 15),
        "anchors": torch.ones(3, 4),
        "variances": (0.1, 0.2),
        "min_score": 0.5,
        "iou": 0.4,
        "most": 5,
    }
    return ops.decode_faces(**(arguments | changes))


def stitch(index: int = 0, size: tuple[int, int] = (6, 6), **changes: Any) -> object:
    """Five right maps, of which the one at `index` is another."""
    shapes = [(2, 4, 3, 3), (2, 4, 3, 3), (2, 4, 1, 3), (2, 4, 1, 3), (2, 4, 3, 6)]
    regions = [torch.ones(shape) for shape in shapes]
    if "region" in changes:
        regions[index] = changes["region"]
    return ops.stitch_regions(regions[: changes.get("count", 5)], size)


def warp(**changes: Any) -> object:
    arguments = {
        "stitched": torch.ones(2, 4, 3, 3),
        "theta": torch.ones(2, 2, 3),
        "face": torch.ones(2, 4, 3, 3),
    } | changes
    return ops.warp_add(**arguments)


CASES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: decode(predictions=torch.ones(2, 3, 14)),
        "decode_faces: predictions must be (any, any, 15), got (2, 3, 14)",
    ),
    (lambda: decode(anchors=torch.ones(2, 4)), "decode_faces: anchors must be (3, 4), got (2, 4)"),
    (
        lambda: decode(predictions=torch.ones(2, 3, 15).half()),
        "decode_faces: predictions must be torch.float32, got torch.float16",
    ),
    (
        lambda: decode(anchors=torch.ones(3, 4).double()),
        "decode_faces: anchors must be torch.float32, got torch.float64",
    ),
    (
        lambda: decode(anchors=torch.ones(3, 4, device="meta")),
        "decode_faces: anchors must be on cpu, got meta",
    ),
    *(
        (
            lambda variances=variances: decode(variances=variances),
            f"decode_faces: variances must be two positive finite numbers, got {variances}",
        )
        for variances in ((0.1, 0.0), (0.1,), (math.nan, 0.2), (0.1, math.inf))
    ),
    (lambda: decode(min_score=1.1), "decode_faces: min_score must be 0…1, got 1.1"),
    (lambda: decode(iou=-0.1), "decode_faces: iou must be 0…1, got -0.1"),
    (lambda: decode(hint_score=math.nan), "decode_faces: hint_score must be 0…1, got nan"),
    (lambda: decode(hint_side=-1.0), "decode_faces: hint_side must be at least 0, got -1.0"),
    (lambda: decode(most=0), "decode_faces: most must be 1…2048, got 0"),
    (lambda: decode(most=2049), "decode_faces: most must be 1…2048, got 2049"),
    (lambda: crop(image=IMAGE[0]), "crop_regions: image must be (any, any, 3), got (5, 3)"),
    (
        lambda: crop(image=IMAGE.float()),
        "crop_regions: image must be torch.uint8, got torch.float32",
    ),
    (lambda: crop(image=IMAGE[:0]), "crop_regions: image must have pixels, got (0, 5, 3)"),
    (
        lambda: crop(transforms=TRANSFORMS[0]),
        "crop_regions: transforms must be (any, 1, 2, 3), got (1, 2, 3)",
    ),
    (
        lambda: crop(transforms=TRANSFORMS.double()),
        "crop_regions: transforms must be torch.float32, got torch.float64",
    ),
    (
        lambda: crop(transforms=TRANSFORMS.to("meta")),
        "crop_regions: transforms must be on cpu, got meta",
    ),
    (
        lambda: crop(sizes=[(2, 3), (1, 1)]),
        "crop_regions: transforms must be (any, 2, 2, 3), got (2, 1, 2, 3)",
    ),
    (
        lambda: crop(sizes=[(0, 3)]),
        "crop_regions: sizes must be (height, width) of at least 1 × 1, got [(0, 3)]",
    ),
    (
        lambda: crop(sizes=[(2, -3)]),
        "crop_regions: sizes must be (height, width) of at least 1 × 1, got [(2, -3)]",
    ),
    (
        lambda: crop(mean=(0.5, 0.5)),
        "crop_regions: mean and std must be one (grey) or three (RGB) numbers, std above 0, "
        "got (0.5, 0.5) and (0.2,)",
    ),
    (
        lambda: crop(std=(0.0,)),
        "crop_regions: mean and std must be one (grey) or three (RGB) numbers, std above 0, "
        "got (0.5,) and (0.0,)",
    ),
    (
        lambda: crop(mean=(math.nan,)),
        "crop_regions: mean and std must be finite, got (nan,) and (0.2,)",
    ),
    (lambda: crop(footprint=0.0), "crop_regions: footprint must be finite and above 0, got 0.0"),
    (
        lambda: crop(footprint=math.inf),
        "crop_regions: footprint must be finite and above 0, got inf",
    ),
    (
        lambda: crop(dtype=torch.int32),
        "crop_regions: dtype must be floating, got torch.int32",
    ),
    (
        lambda: landmark_crop(image=IMAGE[..., :2]),
        "landmark_crop: image must be (any, any, 3), got (4, 5, 2)",
    ),
    (
        lambda: landmark_crop(image=IMAGE.float()),
        "landmark_crop: image must be torch.uint8, got torch.float32",
    ),
    (
        lambda: landmark_crop(image=IMAGE[:, :0]),
        "landmark_crop: image must have pixels, got (4, 0, 3)",
    ),
    (
        lambda: landmark_crop(landmarks=LANDMARKS[:, :4]),
        "landmark_crop: landmarks must be (any, 5, 2), got (2, 4, 2)",
    ),
    (
        lambda: landmark_crop(landmarks=LANDMARKS.double()),
        "landmark_crop: landmarks must be torch.float32, got torch.float64",
    ),
    (
        lambda: landmark_crop(landmarks=LANDMARKS.to("meta")),
        "landmark_crop: landmarks must be on cpu, got meta",
    ),
    (
        lambda: landmark_crop(template=TEMPLATE[:4]),
        "landmark_crop: template must be five pairs of finite numbers, "
        "got [(1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0)]",
    ),
    (
        lambda: landmark_crop(template=[*TEMPLATE[:4], (3.0, math.inf)]),
        "landmark_crop: template must be five pairs of finite numbers, "
        "got [(1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (3.0, inf)]",
    ),
    (
        lambda: landmark_crop(template=[*TEMPLATE[:4], (3.0,)]),
        "landmark_crop: template must be five pairs of finite numbers, "
        "got [(1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (3.0,)]",
    ),
    (
        lambda: landmark_crop(boxes=[(0, 0, 2, 3), (2, 0, 2, 3)]),
        "landmark_crop: boxes must be (top, left, bottom, right) of at least 1 × 1 pixel, "
        "got [(0, 0, 2, 3), (2, 0, 2, 3)]",
    ),
    (
        lambda: landmark_crop(boxes=[(0, 4, 2, 3)]),
        "landmark_crop: boxes must be (top, left, bottom, right) of at least 1 × 1 pixel, "
        "got [(0, 4, 2, 3)]",
    ),
    (
        lambda: landmark_crop(boxes=[(0, 4, 2)]),
        "landmark_crop: boxes must be (top, left, bottom, right) of at least 1 × 1 pixel, "
        "got [(0, 4, 2)]",
    ),
    (
        lambda: landmark_crop(std=(0.2, 0.2, 0.2)),
        "landmark_crop: mean and std must be one (grey) or three (RGB) numbers, std above 0, "
        "got (0.5,) and (0.2, 0.2, 0.2)",
    ),
    (
        lambda: landmark_crop(std=(math.inf,)),
        "landmark_crop: mean and std must be finite, got (0.5,) and (inf,)",
    ),
    (
        lambda: landmark_crop(footprint=-1.0),
        "landmark_crop: footprint must be finite and above 0, got -1.0",
    ),
    (
        lambda: landmark_crop(dtype=torch.uint8),
        "landmark_crop: dtype must be floating, got torch.uint8",
    ),
    (lambda: stitch(count=4), "stitch_regions: regions must be 5 maps, got 4"),
    (
        lambda: stitch(0, region=torch.ones(4, 3, 3)),
        "stitch_regions: left eye must be (any, any, any, any), got (4, 3, 3)",
    ),
    (
        lambda: stitch(1, region=torch.ones(2, 4, 2, 3)),
        "stitch_regions: right eye must be (2, 4, 3, any), got (2, 4, 2, 3)",
    ),
    (
        lambda: stitch(2, region=torch.ones(3, 4, 1, 3)),
        "stitch_regions: left cheek must be (2, 4, any, any), got (3, 4, 1, 3)",
    ),
    (
        lambda: stitch(0, region=torch.ones(2, 4, 3, 0)),
        "stitch_regions: left eye must have channels and pixels, got (2, 4, 3, 0)",
    ),
    (
        lambda: stitch(2, region=torch.ones(2, 4, 1, 0)),
        "stitch_regions: left cheek must have channels and pixels, got (2, 4, 1, 0)",
    ),
    (
        lambda: stitch(3, region=torch.ones(2, 4, 1, 0)),
        "stitch_regions: right cheek must have channels and pixels, got (2, 4, 1, 0)",
    ),
    (
        lambda: stitch(3, region=torch.ones(2, 4, 2, 3)),
        "stitch_regions: right cheek must be (2, 4, 1, any), got (2, 4, 2, 3)",
    ),
    (
        lambda: stitch(1, region=torch.ones(2, 5, 3, 3)),
        "stitch_regions: right eye must be (2, 4, any, any), got (2, 5, 3, 3)",
    ),
    (
        lambda: ops.stitch_regions([torch.ones(2, 0, 3, 3)] * 5, (6, 3)),
        "stitch_regions: left eye must have channels and pixels, got (2, 0, 3, 3)",
    ),
    (
        lambda: stitch(3, region=torch.ones(2, 4, 1, 3).double()),
        "stitch_regions: right cheek must be torch.float32, got torch.float64",
    ),
    (
        lambda: stitch(4, region=torch.ones(2, 4, 3, 5)),
        "stitch_regions: mouth must be (2, 4, any, 6), got (2, 4, 3, 5)",
    ),
    (
        lambda: stitch(4, region=torch.ones(2, 4, 0, 6)),
        "stitch_regions: mouth must have channels and pixels, got (2, 4, 0, 6)",
    ),
    (
        lambda: stitch(4, region=torch.ones(2, 4, 3, 6, device="meta")),
        "stitch_regions: mouth must be on cpu, got meta",
    ),
    (
        lambda: stitch(0, region=torch.ones(2, 4, 3, 3, dtype=torch.int64)),
        "stitch_regions: left eye must be of a floating dtype, got torch.int64",
    ),
    (lambda: stitch(size=(-1, 6)), "stitch_regions: size must be at least 1 × 1, got (-1, 6)"),
    (
        lambda: warp(stitched=torch.ones(4, 3, 3)),
        "warp_add: stitched must be (any, any, any, any), got (4, 3, 3)",
    ),
    (
        lambda: warp(face=torch.ones(2, 4, 3, 2)),
        "warp_add: face must be (2, 4, 3, 3), got (2, 4, 3, 2)",
    ),
    (
        lambda: warp(theta=torch.ones(1, 2, 3)),
        "warp_add: theta must be (2, 2, 3), got (1, 2, 3)",
    ),
    (
        lambda: warp(theta=torch.ones(2, 2, 3, dtype=torch.int32)),
        "warp_add: theta must be of a floating dtype, got torch.int32",
    ),
    (
        lambda: warp(face=torch.ones(2, 4, 3, 3).half()),
        "warp_add: face must be torch.float32, got torch.float16",
    ),
    (
        lambda: warp(theta=torch.ones(2, 2, 3, device="meta")),
        "warp_add: theta must be on cpu, got meta",
    ),
    (
        lambda: warp(stitched=torch.ones(2, 4, 0, 3), face=torch.ones(2, 4, 0, 3)),
        "warp_add: stitched must have channels and pixels, got (2, 4, 0, 3)",
    ),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=[message for _, message in CASES])
def test_refused_with_the_arguments_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call()


# The compiled code, called past all that.

MAP = (4096, 1, 1, 2, 2, 4, 4, 2, 1)  # address, sizes, strides: refused before it is read
OUT = (4096, 2, 3)
PHOTOGRAPH = (8, 4, 5, 3, 15, 3, 1)
PLACES = (1.0, 1.0, 3.0, 1.0, 2.0, 2.0, 1.0, 3.0, 3.0, 3.0)
CROP = (4096, 0, 2, 3, 0, 0)  # address, mirror image, height, width, top, left
PREDICTIONS = (8, 1, 3, 15, 45, 15, 1)
LIMITS = (0.0, 0.5, 0.4, 90.0)  # least logit, least score, overlap, large side
WORK = (8, 8, 8, 8)
NATIVE_CASES: list[tuple[str, tuple[Any, ...], str]] = [
    (
        "decode_faces",
        ((8, 1, 3, 14, 42, 14, 1), 8, (0.1, 0.2), LIMITS, 5, 8, WORK, 1, 0),
        "decode_faces: predictions must be (batch, anchors, 15)",
    ),
    (
        "decode_faces",
        ((8, 1, 2**31, 15, 45, 15, 1), 8, (0.1, 0.2), LIMITS, 5, 8, WORK, 1, 0),
        "decode_faces: predictions must be (batch, anchors, 15)",
    ),
    (
        "decode_faces",
        ((0, *PREDICTIONS[1:]), 8, (0.1, 0.2), LIMITS, 5, 8, WORK, 1, 0),
        "decode_faces: predictions has no memory",
    ),
    (
        "decode_faces",
        (PREDICTIONS, 0, (0.1, 0.2), LIMITS, 5, 8, WORK, 1, 0),
        "decode_faces: anchors has no memory",
    ),
    (
        "decode_faces",
        (PREDICTIONS, 8, (0.1,), LIMITS, 5, 8, WORK, 1, 0),
        "decode_faces: variances must be 2 numbers, and limits 4",
    ),
    (
        "decode_faces",
        (PREDICTIONS, 8, (0.1, 0.2), LIMITS, 2049, 8, WORK, 1, 0),
        "decode_faces: most must be 1 to 2048",
    ),
    (
        "decode_faces",
        (PREDICTIONS, 8, (0.1, 0.2), LIMITS, 5, 0, WORK, 1, 0),
        "decode_faces: out has no memory",
    ),
    (
        "decode_faces",
        (PREDICTIONS, 8, (0.1, 0.2), LIMITS, 5, 8, WORK[:3], 1, 0),
        "expected a tuple of 4 integers",
    ),
    ("warp_add", ((0, *MAP[1:]), 8, MAP, MAP, 0, 1, 0), "warp_add: stitched has no memory"),
    ("warp_add", (MAP, 0, MAP, MAP, 0, 1, 0), "warp_add: theta has no memory"),
    ("warp_add", (MAP, 8, MAP, MAP, 3, 1, 0), "warp_add: dtype must be 0 (float32), 1"),
    ("warp_add", (MAP[:5], 8, MAP, MAP, 0, 1, 0), "expected a tuple of 9 integers"),
    ("warp_add", (MAP, 8, MAP, (8, -1, *MAP[2:]), 0, 1, 0), "must have channels and pixels"),
    (
        "warp_add",
        (MAP, 8, (8, 2, *MAP[2:]), MAP, 0, 1, 0),
        "warp_add: face has another batch or channel count",
    ),
    (
        "warp_add",
        (MAP, 8, (8, 1, 1, 2, 3, *MAP[5:]), MAP, 0, 1, 0),
        "warp_add: stitched, face and out must have one shape",
    ),
    (
        "warp_add",
        (MAP, 8, MAP, (8, 1, 2**20, 2**20, 2**20, *MAP[5:]), 0, 1, 0),
        "warp_add: out is too large",
    ),
    ("stitch_regions", ((MAP,) * 4, MAP, 0, 1, 0), "stitch_regions: regions must be 5 maps"),
    (
        "stitch_regions",
        ((MAP, (8, 1, 1, 1, 2, *MAP[5:]), MAP, MAP, MAP), MAP, 0, 1, 0),
        "stitch_regions: right eye must be as high as left eye",
    ),
    (
        "stitch_regions",
        ((MAP,) * 5, (8, 1, 1, 2, 5, *MAP[5:]), 0, 1, 0),
        "stitch_regions: mouth must have the width of out",
    ),
    (
        "crop_regions",
        ((8, 0, 5, 3, 15, 3, 1), 8, 1, (OUT,), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "crop_regions: image must be (height, width, 3)",
    ),
    (
        "crop_regions",
        ((0, 4, 5, 3, 15, 3, 1), 8, 1, (OUT,), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "crop_regions: image has no memory",
    ),
    (
        "crop_regions",
        ((8, 4, 5, 3, 15, 3, 1), 8, -1, (OUT,), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "crop_regions: faces must not be negative",
    ),
    (
        "crop_regions",
        ((8, 4, 5, 3, 15, 3, 1), 8, 1, (OUT,), (0.5, 0.5), (0.2,), 1.0, 0, 1, 0),
        "crop_regions: mean and std must be one or three numbers",
    ),
    (
        "crop_regions",
        ((8, 4, 5, 3, 15, 3, 1), 8, 1, (OUT,), (0.5,), (0.2,), -1.0, 0, 1, 0),
        "crop_regions: footprint must be above 0",
    ),
    (
        "crop_regions",
        ((8, 4, 5, 3, 15, 3, 1), 8, 1, ((8, 0, 3),), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "crop_regions: sizes must be at least 1 × 1",
    ),
    (
        "landmark_crop",
        ((8, 4, 5, 4, 15, 3, 1), 8, 1, PLACES, (CROP,), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "landmark_crop: image must be (height, width, 3)",
    ),
    (
        "landmark_crop",
        (PHOTOGRAPH, 0, 1, PLACES, (CROP,), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "landmark_crop: landmarks has no memory",
    ),
    (
        "landmark_crop",
        (PHOTOGRAPH, 8, 1, PLACES[:9], (CROP,), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "landmark_crop: template must be 5 pairs of numbers",
    ),
    (
        "landmark_crop",
        (PHOTOGRAPH, 8, 1, PLACES, ((0, *CROP[1:]),), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "landmark_crop: out has no memory",
    ),
    (
        "landmark_crop",
        (PHOTOGRAPH, 8, 1, PLACES, (CROP[:4],), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "expected a tuple of 6 integers",
    ),
    (
        "landmark_crop",
        (PHOTOGRAPH, 8, 1, PLACES, (CROP, (8, 8, *CROP[2:])), (0.5,), (0.2,), 1.0, 0, 1, 0),
        "landmark_crop: all views must have a mirror image, or none",
    ),
]


@pytest.mark.skipif(native._C is None, reason="the CPU ops are not built")
@pytest.mark.parametrize(
    ("function", "arguments", "message"), NATIVE_CASES, ids=[case[2] for case in NATIVE_CASES]
)
def test_the_compiled_code_checks_again(
    function: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(native._C, function)(*arguments)
