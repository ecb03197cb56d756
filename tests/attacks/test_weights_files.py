"""Weights files that lie about themselves: each is refused by name, or is really usable."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import KINDS, VALUES, dump, places, removed, replaced, write_kind, write_text
from safetensors.torch import save

from pcnn import weights
from pcnn.embeddings.heads import Head
from pcnn.errors import WeightsError
from pcnn.faces.detector import Detector


def use(kind: str, path: Path) -> None:
    """Load a file and ask it; what it answers must be finite."""
    if kind == "head":
        assert np.isfinite(Head.load(path).predict_proba(np.ones((1, 8)))).all()
    elif kind == "detector":
        Detector.load(path).detect([np.full((64, 64, 3), 90, np.uint8)])
    else:
        loaded = weights.load_expression(path)
        if kind != "ensemble":
            weights.load_learner(path)
        config = loaded.network.config
        faces = torch.linspace(-1, 1, config.size**2).repeat(config.channels, 1)
        views = loaded.network.cut(faces.view(1, config.channels, config.size, config.size))
        with torch.no_grad():
            logits, regions = loaded.answer(loaded.network.forward_views, views)
        assert torch.isfinite(logits / loaded.temperature).all()
        for name, own in regions.items():
            assert torch.isfinite(own / loaded.region_temperatures[name]).all()


def try_it(kind: str, path: Path) -> str:
    """ "" if the file can be used, else what the WeightsError says; anything else is a fault."""
    try:
        use(kind, path)
    except WeightsError as error:
        assert str(error).startswith(str(path)), error
        assert len(str(error)) < 1500
        str(error).encode()
        return str(error)
    return ""


@pytest.fixture(params=KINDS)
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Any, Any]:
    path = tmp_path / "tried.safetensors"
    tensors, metadata = write_kind(request.param, path)
    assert not try_it(request.param, path)
    return request.param, path, tensors, metadata


def test_every_field_with_every_value(sound: tuple[str, Path, Any, Any]) -> None:
    kind, path, tensors, metadata = sound
    refused = tried = 0
    step = 1 if kind in ("trunk", "head") else 4  # what is accepted costs these most
    for number, place in enumerate(places(metadata)):
        for value in VALUES[number % step :: step]:
            changed = replaced(metadata, place, value)
            write_text(path, tensors, dump(changed))
            message = try_it(kind, path)
            tried, refused = tried + 1, refused + bool(message)
            if message and place[0] not in ("architecture", "kind"):
                named = (str(place[0]), "the metadata must be", "by its metadata the tensor")
                assert any(word in message for word in named), (place, value, message)
    assert tried > 100 and refused > tried / 2


def test_every_field_left_out(sound: tuple[str, Path, Any, Any]) -> None:
    kind, path, tensors, metadata = sound
    for place in places(metadata):
        write_text(path, tensors, dump(removed(metadata, place)))
        try_it(kind, path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "null", "1", '"', "{", "{}", '{"a": 1, "a": 2}', "{\ud83d}"),
        *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 3000, '{"training": 1e999}'),
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "' + "x" * 2_000_000 + '"}',
    ],
    ids=range(16),
)
def test_metadata_that_are_no_metadata(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tried.safetensors"
    for kind in KINDS:
        tensors, _ = write_kind(kind, path)
        path.write_bytes(save(tensors, metadata={"pcnn": text.encode("utf-8", "replace").decode()}))
        assert try_it(kind, path)


def test_tensors_that_are_no_numbers(sound: tuple[str, Path, Any, Any]) -> None:
    kind, path, tensors, metadata = sound
    for name, tensor in list(tensors.items())[:: max(1, len(tensors) // 8)]:
        if not tensor.is_floating_point():
            continue
        for bad in (torch.nan, torch.inf, -torch.inf):
            spoilt = tensor.clone()
            spoilt.view(-1)[-1] = bad
            weights.write(path, {**tensors, name: spoilt}, metadata)
            assert f"the tensor {name} holds NaN or infinity" in try_it(kind, path)


def test_tensors_of_another_shape_or_kind(sound: tuple[str, Path, Any, Any]) -> None:
    kind, path, tensors, metadata = sound
    for name, tensor in list(tensors.items())[:: max(1, len(tensors) // 8)]:
        others = {
            "missing": None,
            "longer": torch.ones(7, *tensor.shape),
            "empty": torch.ones(0),
            "truth": torch.ones(tensor.shape, dtype=torch.bool),
            "eight": torch.ones(tensor.shape, dtype=torch.int8),
        }
        for word, other in others.items():
            changed = {n: t for n, t in tensors.items() if n != name}
            if other is not None:
                changed[name] = other
            weights.write(path, changed, metadata)
            message = try_it(kind, path)
            if word not in ("truth", "eight") or (kind != "detector" and tensor.dim() > 0):
                uncounted = kind == "detector" and word == "missing" and "tracked" in name
                assert name in message or uncounted, (name, word, message)
    weights.write(path, {**tensors, "another": torch.ones(1)}, metadata)
    assert "another" in try_it(kind, path)


def test_a_negative_variance(tmp_path: Path) -> None:
    path = tmp_path / "tried.safetensors"
    tensors, metadata = write_kind("trunk", path)
    tensors["trunk.bn1.running_var"][2] = -1
    weights.write(path, tensors, metadata)
    assert "running_var holds variances below 0" in try_it("trunk", path)


def test_factors_that_make_8_bit_weights_infinite(tmp_path: Path) -> None:
    path = tmp_path / "tried.safetensors"
    tensors, metadata = write_kind("trunk", path)
    name = "head.weight"
    tensors[name] = torch.full(tensors[name].shape, 127, dtype=torch.int8)
    tensors[f"{name}.scale"] = torch.full((3,), 3e38)
    weights.write(path, tensors, metadata)
    assert "head.weight holds NaN or infinity" in try_it("trunk", path)
    tensors[f"{name}.scale"] = torch.full((2,), 1.0)
    weights.write(path, tensors, metadata)
    assert "head.weight.scale must be (3,)" in try_it("trunk", path)


def test_sizes_that_nothing_bears_out_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "tried.safetensors"
    for kind in ("pcnn", "trunk", "mobile"):
        tensors, metadata = write_kind(kind, path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for field, most in (("width", 1024), ("size", 1024)):
            write_text(path, tensors, dump(replaced(metadata, ("config", field), most)))
            message = try_it(kind, path)
            assert field == "size" or "must be" in message
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 300_000, kind  # KiB; a pcnn of this width has six gigabytes


def test_a_headers_length_that_lies(tmp_path: Path) -> None:
    path = tmp_path / "tried.safetensors"
    write_kind("head", path)
    content = path.read_bytes()
    for length in (0, 1, 2**16, 2**31, 2**62, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + content[8:])
        assert "not a readable safetensors file" in try_it("head", path)
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        assert try_it("head", path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_overwritten_after_it_was_loaded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tried.safetensors"
    write_kind(kind, path)
    if kind == "head":
        state = {"matrix": torch.from_numpy(Head.load(path).matrix)}
    elif kind == "detector":
        state = Detector.load(path).network.state_dict()
    else:
        state = weights.load_expression(path).network.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())
