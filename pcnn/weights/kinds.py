"""Rules for the metadata of each kind of weights file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pcnn.errors import InputError
from pcnn.networks.backbones import BACKBONES
from pcnn.networks.regions import REGIONS, RegionLayout
from pcnn.networks.retinaface import ANCHORS_PER_CELL, ARCHITECTURES
from pcnn.weights.schema import (
    anything,
    broken,
    label,
    mapping,
    null_or,
    number,
    one_of,
    record,
    row,
    text,
    truth,
    whole,
)

# Sides of faces in pixels, and the widths of networks; the authors' have 224 and 64.
_LEAST_SIDE, MOST = 8, 1024
# The largest ratio of a view's side to that of the training faces.
_MOST_FINER = 32
# The least extent of the template's landmarks, as a share of the face's side.
_LEAST_SPAN = 0.05
_STRIDES = (8, 16, 32)  # of a RetinaFace's levels
_MOST_PHOTOGRAPH = 8192  # longer side in pixels
_MOST_MEMBERS = 8  # of an ensemble

_COORDINATE = number(-1, 2)
_TEMPERATURE = number(0.01, 100)  # metrics.fit_temperature searches 0.05…20
_CLASSES = row(label, 2, 1000, different=True)
_SHARE = number(0, 1)

_LAYOUT = record(
    dict.fromkeys(("middle", "eyes_end", "cheeks_end"), number(0.01, 0.99)), closed=True
)
_CONFIG_FIELDS = record(
    {
        "classes": _CLASSES,
        "size": whole(_LEAST_SIDE, MOST),
        "mean": row(number(-100, 100), 1, 3),
        "std": row(number(1e-4, 100), 1, 3),
        "layout": _LAYOUT,
    },
    {
        "width": whole(1, MOST),
        "saliency": null_or(text),
        "backbone": one_of(*BACKBONES),
    },
    closed=True,
)


def _config(value: Any, name: str) -> None:
    """A networks.pcnn.ModelConfig."""
    _CONFIG_FIELDS(value, name)
    if len(value["mean"]) not in (1, 3) or len(value["std"]) != len(value["mean"]):
        raise broken(f"{name}.mean", "one number or three, as std", value["mean"])
    try:
        RegionLayout(**value["layout"]).boxes(value["size"])
    except InputError as error:
        raise broken(f"{name}.layout", "regions with pixels in them", value["layout"]) from error


_TEMPERATURES = record({}, dict.fromkeys(REGIONS, _TEMPERATURE), closed=True)
_SCORES = mapping(_SHARE)
_CLASS_SHARES = row(number(1e-6, 1), 2, 1000)
_SECOND_FIELDS = {"classes": _CLASSES}
_SECOND_SETTINGS = {
    "temperature": _TEMPERATURE,
    "region_temperatures": _TEMPERATURES,
    "scores": _SCORES,
    "class_shares": _CLASS_SHARES,
}
_SECOND = record(_SECOND_FIELDS, _SECOND_SETTINGS)

_ARCHITECTURE = one_of("pcnn", "trunk")
ENSEMBLE = "ensemble"  # the architecture of a file with several networks
_COMMON = {
    "kind": one_of("expression"),
    "mirror": truth,
    "aligned": truth,
    "native_size": whole(1, MOST),
    "template": row(row(_COORDINATE, 2), 5),
    "temperature": _TEMPERATURE,
    "region_temperatures": _TEMPERATURES,
    "scores": _SCORES,
    "class_shares": _CLASS_SHARES,
    "training": mapping(anything),
    "trained_on": text,
    "licence": text,
}
# An expression network for further training.
NETWORK = record(
    {"architecture": _ARCHITECTURE, "config": _config},
    {**_COMMON, "labels": null_or(mapping(_SECOND, most=1))},
)
_MEMBER_FIELDS = {"share": number(1e-6, 1), "temperature": _TEMPERATURE}
_MEMBER = record(
    {"architecture": _ARCHITECTURE, "config": _config} | _MEMBER_FIELDS,
    closed=True,
)
_SECOND_MEMBERS = row(record(_MEMBER_FIELDS, closed=True), 2, _MOST_MEMBERS)
_SECOND_OF_SEVERAL = record(_SECOND_FIELDS | {"members": _SECOND_MEMBERS}, _SECOND_SETTINGS)
_SEVERAL = record(
    {"architecture": one_of(ENSEMBLE), "members": row(_MEMBER, 2, _MOST_MEMBERS)},
    {**_COMMON, "labels": null_or(mapping(_SECOND_OF_SEVERAL, most=1))},
)
_NEEDED = record(dict.fromkeys(("template", "native_size", "temperature"), anything))
_ALL_TEMPERATURES = record({"region_temperatures": record(dict.fromkeys(REGIONS, _TEMPERATURE))})

# A file of pcnn-export for PyTorch.
EXPORTED = record({"outputs": row(label, 1, 16, different=True)})

HEAD = record(
    {"architecture": one_of("head"), "labels": row(label, 2, 10_000, different=True)}
    | {"weights_sha256": text},
    {"align_crops": truth},
)
VALUE_HEAD = record(
    {"architecture": one_of("values"), "names": row(label, 1, 1000, different=True)}
    | {"weights_sha256": text},
    {"align_crops": truth},
)


def _steps(value: Any, name: str) -> None:
    if not (isinstance(value, list | tuple) and tuple(value) == _STRIDES):
        raise broken(name, str(list(_STRIDES)), value)


# The fields of weights.detector.DetectorSettings.
DETECTOR = record(
    {
        "min_sizes": row(row(number(1, _MOST_PHOTOGRAPH), ANCHORS_PER_CELL), len(_STRIDES)),
        "steps": _steps,
        "variances": row(number(1e-4, 100), 2),
        "channels": one_of("rgb", "bgr"),
        "mean": row(number(-1000, 1000), 3),
        "std": row(number(1e-3, 1000), 3),
        "confidence": _SHARE,
        "nms_iou": _SHARE,
        "max_side": whole(32, _MOST_PHOTOGRAPH),
        "leak": _SHARE,
    },
    {
        "least_side": whole(0, _MOST_PHOTOGRAPH),
        "trusted_side": null_or(number(8, _MOST_PHOTOGRAPH)),
        "kind": one_of("detector"),
        "architecture": one_of(*ARCHITECTURES),
        "licence": text,
        "provenance": text,
        "scores": mapping(mapping(null_or(number()))),  # none where no face was there
    },
)

# The fields of weights.movements; config is a networks.movements.MovementConfig.
MOVEMENTS = record(
    {
        "kind": one_of("movements"),
        "template": row(row(_COORDINATE, 2), 5),
        "config": record(
            {
                "movements": row(label, 1, 1000, different=True),
                "points": whole(1, 10_000),
                "size": whole(_LEAST_SIDE, MOST),
                "mean": row(number(-100, 100), 3),
                "std": row(number(1e-4, 100), 3),
                "width": whole(1, MOST),
            },
            closed=True,
        ),
    },
    {"mirror": truth, "licence": text, "provenance": text, "scores": mapping(anything)},
)

# The fields of weights.landmarks; config is a networks.landmarks.LandmarkConfig.
LANDMARKS = record(
    {
        "kind": one_of("landmarks"),
        "template": row(row(_COORDINATE, 2), 5),
        "config": record(
            {
                "size": whole(_LEAST_SIDE, MOST),
                "mean": row(number(-100, 100), 1),
                "std": row(number(1e-4, 100), 1),
            },
            closed=True,
        ),
    },
    {"licence": text, "provenance": text, "scores": mapping(anything)},
)


def expression(value: Any, name: str) -> None:
    """The rule for an expression network that can predict."""
    several = isinstance(value, Mapping) and value.get("architecture") == ENSEMBLE
    (_SEVERAL if several else NETWORK)(value, name)
    _NEEDED(value, name)
    networks = value["members"] if several else [value]
    if any(own["architecture"] == "pcnn" for own in networks):
        _ALL_TEMPERATURES(value, name)
        for labels, second in (value.get("labels") or {}).items():
            _ALL_TEMPERATURES(second, f"labels.{labels}")
    size = max(own["config"]["size"] for own in networks)
    native_size, points = value["native_size"], value["template"]
    if size > _MOST_FINER * native_size:
        raise broken(
            "native_size",
            f"at least {size / _MOST_FINER:g}, 1/{_MOST_FINER} of the size",
            native_size,
        )
    span = max(max(axis) - min(axis) for axis in zip(*points, strict=True))
    if span < _LEAST_SPAN:
        raise broken("template", f"points that span {_LEAST_SPAN} of the side or more", points)
