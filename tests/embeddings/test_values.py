"""Heads that give numbers: what they learn, and their files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcnn.embeddings.heads import Head
from pcnn.embeddings.values import ValueHead, load_head
from pcnn.errors import InputError, WeightsError

SHA = "ab" * 32
# Of the inverse of a matrix of 5 × 5 in double precision, stored in single precision.
TOLERANCE = 1e-4


def _examples(count: int = 60, noise: float = 0.0) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    features = draw.normal(3, 0.1, (count, 5))
    slopes = np.array([[1.0, -2.0, 0.0, 0.5, 4.0], [0.0, 0.0, 7.0, 0.0, 0.0]])
    values = features @ slopes.T + [10.0, -30.0] + draw.normal(0, 1, (count, 2)) * noise
    return features, values


def test_a_linear_rule_is_found() -> None:
    """Also far from the origin, where a penalty on the offset would show."""
    features, values = _examples()
    head = ValueHead.fit(features, values, ("valence", "arousal"), weights=SHA)
    np.testing.assert_allclose(head.predict(features), values, atol=0.01)
    assert head.names == ("valence", "arousal") and head.size == 5
    assert head.predict(np.empty((0, 5))).shape == (0, 2)


def test_a_given_strength_is_ridge_regression() -> None:
    features, values = _examples(noise=0.5)
    head = ValueHead.fit(features, values, ("a", "b"), weights=SHA, strength=0.1)
    centred, wanted = features - features.mean(0), values - values.mean(0)
    scaled = centred / np.sqrt((centred**2).sum(1).mean())
    expected = np.linalg.solve(scaled.T @ scaled + 0.1 * 60 * np.eye(5), scaled.T @ wanted)
    np.testing.assert_allclose(
        head.predict(features) - values.mean(0), scaled @ expected, atol=TOLERANCE
    )


def test_the_strength_is_chosen_for_each_number() -> None:
    """Pure noise is shrunk to the mean, while a rule beside it is kept."""
    features, values = _examples()
    values[:, 1] = np.random.default_rng(3).normal(0, 1, 60)
    head = ValueHead.fit(features, values, ("rule", "noise"), weights=SHA)
    spread = head.predict(features).std(0) / values.std(0)
    assert spread[0] > 0.95 and spread[1] < 0.3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": [[1.0]] * 3}, "values must be (N, 1) with a row for each of N ≥ 3 features"),
        ({"values": [[np.nan]] * 4}, "values must be finite"),
        ({"values": [[1e39], [1], [2], [3]]}, "values are too large for float32"),
        ({"features": [[np.inf]] * 4}, "features must be finite"),
        ({"strength": 0.0}, "strength must be a finite number above 0, got 0.0"),
        ({"strength": float("inf")}, "strength must be a finite number above 0, got inf"),
        ({"strength": "a"}, "strength must be a finite number above 0, got 'a'"),
        ({"strength": True}, "strength must be a finite number above 0, got True"),
        ({"features": "a"}, "features must be numbers"),
        ({"values": "a"}, "values must be numbers"),
    ],
)
def test_what_no_head_can_be_fitted_on(changed: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"features": np.eye(4)[:, :1], "values": [[0.0], [1], [2], [3]]}
    with pytest.raises(InputError, match=re.escape(f"ValueHead.fit: {message}")):
        ValueHead.fit(**{**good, "names": ("a",), "weights": SHA, **changed})


def test_what_is_no_head() -> None:
    with pytest.raises(InputError, match="ValueHead: names must be a list of texts, got 'ab'"):
        ValueHead("ab", np.zeros((2, 3), np.float32), np.zeros(2, np.float32), SHA)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ValueHead: matrix must be of type ndarray, got list"):
        ValueHead(("a",), [[1.0]], np.zeros(1, np.float32), SHA)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="names must be one or more, all different"):
        ValueHead(("a", "a"), np.zeros((2, 3), np.float32), np.zeros(2, np.float32), SHA)
    with pytest.raises(InputError, match=r"matrix must be \(1, D\) and bias \(1,\)"):
        ValueHead(("a",), np.zeros((2, 3), np.float32), np.zeros(1, np.float32), SHA)


def test_files(tmp_path: Path) -> None:
    features, values = _examples()
    head = ValueHead.fit(features, values, ("valence", "größe"), weights=SHA)
    path = tmp_path / "numbers.safetensors"
    head.save(path)
    again = load_head(path)
    assert isinstance(again, ValueHead) and again.names == head.names
    assert again.align_crops is None
    np.testing.assert_array_equal(again.predict(features), head.predict(features))
    again.check_weights(SHA, "numbers")
    with pytest.raises(WeightsError, match="numbers: fitted on embeddings of weights abababab"):
        again.check_weights("cd" * 32, "numbers")
    with pytest.raises(WeightsError, match="holds 'values', expected 'head'"):
        Head.load(path)
    labels = Head(("a", "b"), np.eye(2, dtype=np.float32), np.zeros(2, np.float32), SHA)
    labels.save(tmp_path / "labels.safetensors")
    assert isinstance(load_head(tmp_path / "labels.safetensors"), Head)
    with pytest.raises(WeightsError, match="holds 'head', expected 'values'"):
        ValueHead.load(tmp_path / "labels.safetensors")
    with pytest.raises(WeightsError):
        load_head(tmp_path / "absent.safetensors")


def test_how_faces_were_read_is_kept(tmp_path: Path) -> None:
    features, values = _examples()
    plain = ValueHead.fit(features, values, ("valence", "arousal"), weights=SHA)
    for aligned in (False, True):
        replace(plain, align_crops=aligned).save(tmp_path / "numbers.safetensors")
        assert load_head(tmp_path / "numbers.safetensors").align_crops is aligned
    wrong: Any = 0
    with pytest.raises(InputError, match="ValueHead: align_crops must be True, False or None"):
        replace(plain, align_crops=wrong)


def test_a_sharper_head_keeps_its_answers() -> None:
    head = Head(("a", "b"), np.eye(2, dtype=np.float32), np.zeros(2, np.float32), SHA)
    mild, sharp = (each.predict_proba([[1.0, 0.0]])[0] for each in (head, head.sharpened(0.5)))
    assert np.log(mild[0] / mild[1]) == pytest.approx(1, rel=1e-5)
    assert np.log(sharp[0] / sharp[1]) == pytest.approx(2, rel=1e-5)
