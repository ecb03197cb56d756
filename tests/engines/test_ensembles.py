"""Ensembles are prepared, converted and exported like single networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import tolerances
import torch
from hostile import write_kind
from torch import Tensor

from pcnn.engines.classifier import prepare
from pcnn.engines.portable import ViewsGraph, patterns
from pcnn.engines.select import movement, prepare_classifier
from pcnn.networks.regions import REGIONS
from pcnn.weights.expression import ExpressionWeights, load_expression


@pytest.fixture
def loaded(tmp_path: Path) -> ExpressionWeights:
    path = tmp_path / "both.safetensors"
    write_kind("ensemble", path)
    return load_expression(path)


def faces(loaded: ExpressionWeights, count: int) -> Tensor:
    config = loaded.network.config
    return patterns(count, config.channels, config.size, config.size)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_prepared_answers_are_the_plain_ones(loaded: ExpressionWeights, count: int) -> None:
    views = loaded.network.cut(faces(loaded, count))
    prepared = prepare(loaded.network)
    logits, regions = prepared.forward_views(views)
    if count:  # ATen's plain convolutions refuse empty batches
        expected, own = loaded.network.forward_views(views)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-5)
        for name in REGIONS:
            torch.testing.assert_close(regions[name], own[name], rtol=1e-4, atol=2e-5)
    vectors = prepared.embed_views(views)
    assert vectors.shape == (count, loaded.network.embedding_size)
    assert logits.shape == (count, 3) and tuple(regions) == REGIONS


def test_a_graph_depends_on_shares_and_temperatures(loaded: ExpressionWeights) -> None:
    state = ViewsGraph(loaded.network).state_dict()
    assert state["network.settings"].tolist() == [[0.5, pytest.approx(0.8)]] * 2


def test_half_precision_moves_little(loaded: ExpressionWeights) -> None:
    prepared = prepare(loaded.network, torch.bfloat16)
    assert 0 < movement(loaded, prepared) < 0.05


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_other_engines_answer_the_same(
    loaded: ExpressionWeights, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    views = loaded.network.cut(faces(loaded, 3))
    prepared, _ = prepare_classifier(loaded, engine)
    logits, regions = prepared.forward_views(views)
    expected, own = loaded.network.forward_views(views)
    torch.testing.assert_close(logits, expected, **tolerances.ENGINE)
    for name in REGIONS:
        torch.testing.assert_close(regions[name], own[name], **tolerances.ENGINE)
    vectors = prepare(loaded.network).embed_views(views)
    torch.testing.assert_close(prepared.embed_views(views), vectors, **tolerances.ENGINE)
