"""Small weights files of every kind, and values to put in the place of what they say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from pcnn import weights
from pcnn.embeddings.heads import Head
from pcnn.networks.pcnn import PCNN, FaceNet, Learner, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.networks.retinaface import RetinaFace
from pcnn.weights.detector import DetectorSettings

TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
KINDS = ("pcnn", "trunk", "mobile", "ensemble", "head", "detector")

# What stands for anything: other types, ends of ranges, and beyond them.
VALUES: tuple[Any, ...] = (
    *(None, True, False, "x", "", "null", "\ud800", "a\nb", [], [1], {}, {"a": 1}),
    *(0, -1, 1, 2, 0.5, 10**9, 10**30, 10**400, -(10**9), 1e308, -1e308, 1e-308),
    *(float("nan"), float("inf"), [[[]]], [None] * 3, [1e308], ["a", "a"], "1", "0.5"),
)


def write_kind(
    kind: str, path: Path, width: int = 4, *, second: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Write a small sound file of one of KINDS; returns its tensors and metadata.

    width: of expression networks. second: True gives a network second labels; mobile has them.
    """
    torch.manual_seed(0)
    if kind == "head":
        head = Head(("a", "b"), np.eye(2, 8, dtype=np.float32), np.zeros(2, np.float32), "ab" * 32)
        head.save(path)
        return weights.read(path)
    if kind == "detector":
        metadata = {"kind": "detector", **DetectorSettings().to_metadata(), "licence": "none"}
        weights.write(path, RetinaFace("retinaface-mobilenet0.25").state_dict(), metadata)
        return weights.read(path)
    if kind == "ensemble":
        return _write_ensemble(path)
    backbone = "mobilenet" if kind == "mobile" else "resnet18"
    config = ModelConfig(
        classes=("a", "b", "c"), size=32, mean=(0.5,), std=(0.25,), width=width, backbone=backbone
    )
    learner = Learner(
        PCNN(config) if kind == "pcnn" else FaceNet(config),
        ("d", "e") if second or kind == "mobile" else None,
    )
    state = learner.network.state_dict()
    metadata = {
        "kind": "expression",
        "architecture": "pcnn" if kind == "pcnn" else "trunk",
        "config": asdict(config),
        "mirror": False,
        "aligned": True,
        "native_size": 32,
        "training": {"epochs": 2.0, "augmentation": {"scale": 0.1}},
        "trained_on": "patterns",
        "licence": "none",
        "scores": {"patterns": 0.5},
        "template": TEMPLATE,
        "temperature": 0.7,
        "region_temperatures": dict.fromkeys(REGIONS if kind == "pcnn" else (), 0.5),
    }
    if learner.second is not None:
        state |= {f"labels.fer2013.{n}": t for n, t in learner.second.state_dict().items()}
        own = {"classes": ["d", "e"], "temperature": 1.0}
        own["region_temperatures"] = metadata["region_temperatures"]
        metadata["labels"] = {"fer2013": own}
    weights.write(path, state, metadata)
    return weights.read(path)


def _write_ensemble(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A small PCNN and a small trunk in one file, with second labels."""
    state: dict[str, torch.Tensor] = {}
    members = []
    metadata: dict[str, Any] = {}
    for place, kind in enumerate(("trunk", "pcnn")):
        tensors, metadata = write_kind(kind, path, second=True)
        state |= {f"networks.{place}.{name}": tensor for name, tensor in tensors.items()}
        own = {name: metadata.pop(name) for name in ("architecture", "config")}
        members.append({**own, "share": 0.5, "temperature": 0.8})
    metadata["labels"]["fer2013"]["members"] = 2 * [{"share": 0.5, "temperature": 0.9}]
    weights.write(path, state, {**metadata, "architecture": "ensemble", "members": members})
    return weights.read(path)


def write_text(path: Path, tensors: dict[str, torch.Tensor], text: str) -> None:
    """Write tensors with any text where the metadata stand."""
    path.write_bytes(save(tensors, metadata={"pcnn": text}))


def dump(metadata: object) -> str:
    """JSON as Python writes it, numbers that JSON has none for included."""
    return json.dumps(metadata)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every field within some metadata, but for what `training` holds."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield (*path, key)
        if key != "training":
            yield from places(one, (*path, key))


def replaced(metadata: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at a place."""
    changed: Any = copy.deepcopy(metadata)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def removed(metadata: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """A copy without what stands at a place."""
    changed: Any = copy.deepcopy(metadata)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed
