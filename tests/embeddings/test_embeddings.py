"""Faces as vectors: what they are, how they are kept, and the heads learnt from them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch
from cli import help_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pcnn import InputError, Recognizer, WeightsError, weights
from pcnn.commands import predict as commands
from pcnn.embeddings import files
from pcnn.embeddings.files import Embeddings, nearest
from pcnn.embeddings.heads import Head, unit_norm
from pcnn.evaluation.logits import predict_logits
from pcnn.networks.pcnn import PCNN, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.results.values import Detection

pytestmark = pytest.mark.train

TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]
SHA = "ab" * 32
SIZE = 64  # 8 · the network's width
Captured = pytest.CaptureFixture[str]
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow"
)


class Planted:
    """A detector that finds as many faces as the red of the upper left pixel says."""

    description = "planted"

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> list[tuple[Detection, ...]]:
        return [
            tuple(self._face(number) for number in range(int(image[0, 0, 0]) % 10))
            for image in images
        ]

    def _face(self, number: int) -> Detection:
        side = 20.0 + 10 * number
        points = (np.array(TEMPLATE) * side + number).astype(np.float32)
        return Detection((number, number, number + side, number + side), 0.9, points)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a narrow network of random numbers whose answers differ from face to face."""
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=32, mean=(0.5,), std=(0.25,), width=8)).train()
    for _ in range(10):  # settles the batch norms
        network(torch.randn(8, 1, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    metadata = {
        "architecture": "pcnn",
        "config": asdict(network.config),
        "template": TEMPLATE,
        "native_size": 32,
        "temperature": 0.5,
        "region_temperatures": dict.fromkeys(REGIONS, 1.5),
    }
    weights.write(path, network.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def recognizer(small: Path) -> Recognizer:
    return Recognizer(small, Planted(), "cpu", batch_size=3)


def _picture(faces: int, seed: int = 0) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(seed).integers(0, 255, (60, 67, 3), dtype=np.uint8)
    pixels[0, 0, 0] = faces
    return pixels


# --- vectors ---


def test_the_vector_is_what_the_expression_head_is_given(
    recognizer: Recognizer, small: Path
) -> None:
    """By another way: a hook on the head of the network as it is loaded."""
    network = weights.load_expression(small).network
    faces = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (4, 32, 32), np.uint8))
    given_to_head: list[torch.Tensor] = []
    network.expression_head.register_forward_hook(lambda _, x, __: given_to_head.append(x[0]))
    predict_logits(network, faces)
    expected = given_to_head[0].numpy()
    found = recognizer.embed_crops([face.numpy() for face in faces])
    assert found.shape == (4, SIZE) and found.dtype == np.float32
    assert recognizer.embedding_size == SIZE
    # Cropping and resampling round differently: float32 after some hundred additions.
    np.testing.assert_allclose(
        found, expected / np.linalg.norm(expected, axis=1)[:, None], atol=2e-5
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(found - found[0]).max(1)[1:].min() > 1e-3  # the faces are told apart
    np.testing.assert_allclose(recognizer.embed_crops(faces[2].numpy()), found[2], atol=2e-5)


def test_vectors_of_photographs(recognizer: Recognizer, tmp_path: Path) -> None:
    """A row for each face that is predicted; across batches of 3; errors in their places."""
    pictures: list[Any] = [_picture(count, count) for count in (2, 0, 3, 1)]
    found = recognizer.embed(pictures)
    assert [each.shape for each in found] == [(2, SIZE), (0, SIZE), (3, SIZE), (1, SIZE)]
    assert all(each.dtype == np.float32 for each in found)
    for picture, each in zip(pictures, found, strict=True):
        np.testing.assert_allclose(recognizer.embed(picture), each, atol=2e-5)
    vectors, boxes = recognizer.embed(pictures[0], boxes=True)
    faces = recognizer.predict(pictures[0]).faces
    np.testing.assert_array_equal(boxes, [face.box for face in faces])
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(vectors, found[0], atol=2e-5)
    assert recognizer.embed(pictures[1], boxes=True)[1].shape == (0, 4)
    pictures[1] = tmp_path / "absent.png"
    mixed = recognizer.embed(pictures, on_error="return")
    assert isinstance(mixed[1], InputError) and mixed[2].shape == (3, SIZE)
    crops = recognizer.embed_crops(pictures, on_error="return")
    assert isinstance(crops[1], InputError) and crops[0].shape == (SIZE,)
    with pytest.raises(InputError, match=r"absent\.png"):
        recognizer.embed(pictures)
    assert recognizer.embed([]) == [] and recognizer.embed_crops([]).shape == (0, SIZE)


def test_unit_norm() -> None:
    found = unit_norm(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], atol=1e-7)


# --- heads ---


def test_means_by_hand() -> None:
    """Two clusters on a line, at −3 ± 1 and 3 ± 1: the border is in the middle."""
    features = [[-4.0], [-2.0], [2.0], [4.0]]
    head = Head.fit(features, ["sad", "sad", "glad", "glad"], weights=SHA, method="means")
    assert head.labels == ("glad", "sad") and head.size == 1
    # Squared distances 16 to glad and 4 to sad, 1 within: sad by a logit of 12.
    odds = head.predict_proba([[-1.0]])[0]
    assert np.log(odds[1] / odds[0]) == pytest.approx(12, rel=1e-3)
    np.testing.assert_allclose(head.predict_proba([[0.0]]), [[0.5, 0.5]], atol=1e-5)
    assert head.predict([[-0.1], [0.1]]) == ["sad", "glad"]


@pytest.mark.parametrize("method", ["means", "logistic", "balanced"])
@pytest.mark.parametrize("count", [2, 3])
def test_what_can_be_learnt_is_learnt(method: Any, count: int) -> None:
    """Clusters apart in a plane, far from the origin and on a small scale."""
    draw = np.random.default_rng(0)
    places = np.arange(60) % count
    centres = np.array([[5.0, 0.0], [5.1, 0.0], [5.0, 0.1]])
    features = centres[places] + draw.normal(0, 0.01, (60, 2))
    labels = [("c", "a", "b")[place] for place in places]
    head = Head.fit(features, labels, weights=SHA, method=method)
    assert head.predict(features) == labels
    scores = head.predict_proba(features)
    assert scores.shape == (60, count) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert head.predict_proba(np.empty((0, 2))).shape == (0, count)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c"]])
def test_logistic_head_is_scikit_learns(labels: list[str]) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    draw = np.random.default_rng(1)
    features = draw.normal(2, 3, (40, 5))
    names = [labels[i % len(labels)] for i in range(40)]
    head = Head.fit(features, names, weights=SHA, strength=4)
    centred = features - features.mean(0)
    scaled = centred / np.sqrt((centred**2).sum(1).mean())
    model = linear.LogisticRegression(C=0.25, max_iter=1000).fit(scaled, names)
    np.testing.assert_allclose(head.predict_proba(features), model.predict_proba(scaled), atol=1e-4)


def test_a_rare_label_among_frequent_ones() -> None:
    """Overlapping clusters, one with a tenth of the examples: balanced, the border is midway."""
    draw = np.random.default_rng(2)
    features = np.concatenate((draw.normal(-1, 1, (500, 1)), draw.normal(1, 1, (50, 1))))
    labels = ["often"] * 500 + ["rare"] * 50
    border = {}
    for method in ("logistic", "balanced"):
        chosen: Any = method
        head = Head.fit(features, labels, weights=SHA, method=chosen)
        border[method] = float(np.diff(head.bias)[0] / -np.diff(head.matrix[:, 0])[0])
    assert border["balanced"] == pytest.approx(0, abs=0.25)
    # Normal clusters at ±1: the odds 1 : 10 move the border by ln(10) / 2.
    assert border["logistic"] == pytest.approx(np.log(10) / 2, abs=0.3)


def test_one_example_of_each_is_enough() -> None:
    head = Head.fit([[0.0, 1.0], [1.0, 0.0]], ["up", "right"], weights=SHA, method="means")
    assert head.predict([[0.1, 0.8], [0.8, 0.1]]) == ["up", "right"]
    same = Head.fit([[1.0], [1.0]], ["a", "b"], weights=SHA, method="means")
    np.testing.assert_allclose(same.predict_proba([[1.0]]), [[0.5, 0.5]], atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": [1.0, 2.0]}, r"features must be (N, D), got (2,)"),
        ({"features": [[np.nan], [1.0]]}, "features must be finite, got NaN or infinity"),
        ({"labels": ["a"]}, "labels must be 2, got 1"),
        ({"labels": ["a", "a"]}, "labels must be of two kinds or more, got ('a',)"),
        ({"method": "tree"}, "method must be 'logistic', 'balanced' or 'means', got 'tree'"),
        ({"strength": 0.0}, "strength must be a finite number above 0, got 0.0"),
        ({"strength": float("inf")}, "strength must be a finite number above 0, got inf"),
        ({"strength": "a"}, "strength must be a finite number above 0, got 'a'"),
        ({"strength": True}, "strength must be a finite number above 0, got True"),
        ({"features": "a"}, "features must be numbers"),
    ],
)
def test_what_no_head_can_be_fitted_on(changed: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"features": [[0.0], [1.0]], "labels": ["a", "b"], "weights": SHA}
    with pytest.raises(InputError, match=re.escape(f"Head.fit: {message}")):
        Head.fit(**{**good, **changed})


def test_what_is_no_head_and_no_vector() -> None:
    matrix, bias = np.zeros((2, 3), np.float32), np.zeros(2, np.float32)
    with pytest.raises(InputError, match="Head: labels must be texts, got 1"):
        Head.fit([[0.0], [1.0]], [1, 2], weights=SHA, method="means")  # type: ignore[list-item]
    for labels in (5, None, "ab"):
        with pytest.raises(InputError, match="Head: labels must be a list of texts, got "):
            Head(labels, matrix, bias, SHA)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Head: bias must be of type ndarray, got list"):
        Head(("a", "b"), matrix, [0.0, 0.0], SHA)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels must be two or more, all different"):
        Head(("a", "a"), matrix, bias, SHA)
    with pytest.raises(InputError, match=r"matrix must be \(3, D\) and bias \(3,\), got \(2, 3\)"):
        Head(("a", "b", "c"), matrix, bias, SHA)
    with pytest.raises(InputError, match=r"predict_proba: features must be \(N, 3\), got \(1, 2\)"):
        Head(("a", "b"), matrix, bias, SHA).predict([[0.0, 1.0]])


def test_scikit_learn_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    Head.fit([[0.0], [1.0]], ["a", "b"], weights=SHA, method="means")
    with pytest.raises(InputError, match=r"needs scikit-learn: pip install 'pcnn\[train\]'"):
        Head.fit([[0.0], [1.0]], ["a", "b"], weights=SHA)


def test_a_head_is_kept(tmp_path: Path) -> None:
    head = Head.fit([[0.0, 1.0], [1.0, 0.0]], ["größer", "b"], weights=SHA, method="means")
    head.save(tmp_path / "mine.safetensors")
    found = Head.load(tmp_path / "mine.safetensors")
    assert (found.labels, found.weights_sha256) == (head.labels, SHA)
    np.testing.assert_array_equal(found.matrix, head.matrix)
    np.testing.assert_array_equal(found.bias, head.bias)
    assert found.align_crops is None


def test_a_head_knows_how_its_faces_were_read(tmp_path: Path) -> None:
    plain = Head.fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"], weights=SHA, method="means")
    path = tmp_path / "mine.safetensors"
    for aligned in (False, True):
        replace(plain, align_crops=aligned).sharpened(2).save(path)
        assert Head.load(path).align_crops is aligned
    wrong: Any = "no"
    with pytest.raises(InputError, match="Head: align_crops must be True, False or None, got 'no'"):
        replace(plain, align_crops=wrong)
    described = {"architecture": "head", "labels": ["a", "b"], "weights_sha256": SHA}
    tensors = {"matrix": torch.zeros(2, 3), "bias": torch.zeros(2)}
    weights.write(path, tensors, {**described, "align_crops": "no"})
    with pytest.raises(WeightsError, match="align_crops must be true or false, got 'no'"):
        Head.load(path)


def test_what_is_no_file_of_a_head(small: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        Head.load(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match="holds 'pcnn', expected 'head'"):
        Head.load(small)
    described = {"architecture": "head", "labels": ["a", "b", "c"], "weights_sha256": SHA}
    tensors = {"matrix": torch.zeros(2, 3), "bias": torch.zeros(2)}
    weights.write(tmp_path / "odd.safetensors", tensors, described)
    with pytest.raises(WeightsError, match=r"odd\.safetensors: .*matrix must be \(3, 3\)"):
        Head.load(tmp_path / "odd.safetensors")
    weights.write(tmp_path / "odd.safetensors", {"bias": torch.zeros(2)}, described)
    with pytest.raises(WeightsError, match="the tensor matrix is missing"):
        Head.load(tmp_path / "odd.safetensors")


def test_a_recognizer_with_a_head(recognizer: Recognizer, small: Path, tmp_path: Path) -> None:
    """The three lines of the documentation, and what comes of them."""
    pictures = [_picture(1, seed) for seed in range(6)]
    features = recognizer.embed_crops(pictures)
    head = Head.fit(features, ["dull", "bright"] * 3, weights=recognizer.weights_sha256)
    head.save(tmp_path / "mine.safetensors")

    mine = Recognizer(small, Planted(), "cpu", head=str(tmp_path / "mine.safetensors"))
    assert mine.classes == ("bright", "dull")
    found = mine.predict_crops(pictures)
    scores = head.predict_proba(features)
    for each, row in zip(found, scores, strict=True):
        assert tuple(each.scores) == mine.classes and each.regions == {}
        assert list(each.scores.values()) == pytest.approx(row.tolist(), abs=1e-4)
        assert each.confidence == max(each.scores.values()) == each.scores[each.label]
    face = mine.predict(_picture(2)).faces[1]
    expected = head.predict_proba(recognizer.embed(_picture(2)))[1]
    assert list(face.scores.values()) == pytest.approx(expected.tolist(), abs=1e-4)
    assert face.to_dict()["regions"] == {}
    assert Recognizer(small, Planted(), "cpu", head=head).classes == mine.classes
    np.testing.assert_allclose(mine.embed_crops(pictures), features, atol=1e-6)


def test_a_head_of_other_weights_is_refused(small: Path, tmp_path: Path) -> None:
    other = Head.fit(np.eye(2, SIZE), ["a", "b"], weights=SHA, method="means")
    found = weights.sha256(small)[:8]
    with pytest.raises(WeightsError, match=f"head: fitted .* abababab, got weights {found}"):
        Recognizer(small, Planted(), "cpu", head=other)
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors: fitted on embeddings of"):
        Recognizer(small, Planted(), "cpu", head=tmp_path / "other.safetensors")


# --- nearest ---


def test_nearest_by_hand() -> None:
    """Directions count, not lengths; ties in their order; the most unlike last."""
    features = [[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 5.0], [-1.0, 0.0]]
    places, similar = nearest(features, [[0.0, 0.1], [7.0, 0.0]], k=9)
    assert places.tolist() == [[1, 3, 2, 0, 4], [0, 2, 1, 3, 4]]
    half = np.sqrt(0.5)
    np.testing.assert_allclose(similar, [[1, 1, half, 0, 0], [1, half, 0, 0, -1]], atol=1e-6)
    for scale in (1e-30, 1e30):
        scaled, _ = nearest(scale * np.array(features), [[0.0, 0.1 * scale], [7 * scale, 0.0]], k=9)
        assert scaled.tolist() == places.tolist()
    assert nearest(features, np.empty((0, 2)))[0].shape == (0, 5)
    assert nearest(np.empty((0, 2)), features)[0].shape == (5, 0)


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**16))
def test_nearest_is_the_plain_search(count: int, k: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    features, queries = draw.normal(size=(count, 4)), draw.normal(size=(3, 4))
    places, similar = nearest(features, queries, k)
    for query, found, values in zip(queries, places, similar, strict=True):
        cosines = features @ query / np.linalg.norm(features, axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(values, np.sort(cosines)[::-1][:k], atol=1e-5)
        np.testing.assert_allclose(cosines[found], values, atol=1e-5)


def test_a_search_of_many_is_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    features, queries = draw.normal(size=(40, 4)), draw.normal(size=(9, 4))
    whole = nearest(features, queries, 3)
    monkeypatch.setattr(files, "_SIMILARITIES_AT_ONCE", 100)
    with monkeypatch.context() as patch:
        seen, sort = [], np.argsort
        patch.setattr(np, "argsort", lambda a, **rest: seen.append(a.size) or sort(a, **rest))
        places, similar = nearest(features, queries, 3)
    assert max(seen) <= 100
    np.testing.assert_array_equal(places, whole[0])
    np.testing.assert_allclose(similar, whole[1], atol=1e-6)
    monkeypatch.setattr(files, "_SIMILARITIES_AT_ONCE", 1)
    np.testing.assert_array_equal(nearest(features, queries, 3)[0], whole[0])


def test_what_cannot_be_searched() -> None:
    with pytest.raises(InputError, match=r"\(N, D\) and \(Q, D\), got \(1, 2\) and \(1, 3\)"):
        nearest([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        nearest([[1.0]], [[1.0]], 0)
    for wrong in ("a", None, True, 2.5):
        with pytest.raises(InputError, match=f"k must be a whole number, got {wrong!r}"):
            nearest([[1.0]], [[1.0]], wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be finite"):
        nearest([[np.inf]], [[1.0]])
    with pytest.raises(InputError, match="nearest: queries must be numbers"):
        nearest([[1.0]], "a")


# --- files ---


def _embeddings(paths: tuple[str, ...] = ("a/ü.jpg", "a/ü.jpg", "b.png")) -> Embeddings:
    count = len(paths)
    draw = np.random.default_rng(3)
    boxes = draw.normal(size=(count, 4)).astype(np.float32)
    boxes[-1:] = np.nan
    features = unit_norm(draw.normal(size=(count, 5)).astype(np.float32))
    return Embeddings(features, paths, np.arange(count), boxes, SHA)


@pytest.mark.parametrize("suffix", [".npz", pytest.param(".parquet", marks=needs_pyarrow)])
@pytest.mark.parametrize("paths", [("a/ü.jpg", "a/ü.jpg", "b.png"), ()])
def test_embeddings_are_kept(tmp_path: Path, suffix: str, paths: tuple[str, ...]) -> None:
    kept = _embeddings(paths)
    kept.save(tmp_path / f"features{suffix}")
    found = Embeddings.load(tmp_path / f"features{suffix}")
    assert (found.paths, found.weights_sha256) == (kept.paths, SHA)
    for name in ("features", "face_index", "boxes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name))
        assert getattr(found, name).dtype == getattr(kept, name).dtype
    assert list(tmp_path.iterdir()) == [tmp_path / f"features{suffix}"]


def test_the_arrays_of_an_npz(tmp_path: Path) -> None:
    _embeddings().save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as arrays:
        assert set(arrays) == {"features", "paths", "face_index", "boxes", "weights_sha256"}
        assert arrays["paths"].tolist() == ["a/ü.jpg", "a/ü.jpg", "b.png"]


@needs_pyarrow
def test_the_columns_of_a_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    odd = "\udcff.png", "\udcfe.png"  # bytes that are no UTF-8, as Python hands them on
    _embeddings(odd).save(tmp_path / "features.parquet")
    table = pandas.read_parquet(tmp_path / "features.parquet")
    assert list(table) == ["path", "face_index", "x1", "y1", "x2", "y2", "features"]
    assert table.path.tolist() == ["\\udcff.png", "\\udcfe.png"] and len(table.features[0]) == 5


def test_files_that_hold_no_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"save: the file's name must end in .npz or .parquet"):
        _embeddings().save(tmp_path / "features.csv")
    with pytest.raises(InputError, match=r"load: the file's name must end .*'features'"):
        Embeddings.load(tmp_path / "features")
    with pytest.raises(InputError, match=r"features\.npz: cannot be written"):
        _embeddings().save(tmp_path / "absent" / "features.npz")
    with pytest.raises(InputError, match=r"absent\.npz: cannot be read as embeddings"):
        Embeddings.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", features=np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"other\.npz: cannot be read as embeddings .*paths"):
        Embeddings.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.npz: cannot be read as embeddings"):
        Embeddings.load(tmp_path / "text.npz")
    with pytest.raises(InputError, match=r"must be \(1, D\), \(1,\) and \(1, 4\), got \(2, 3\)"):
        Embeddings(np.zeros((2, 3), np.float32), ("a",), np.zeros(1, int), np.zeros((1, 4)), SHA)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install pyarrow, or choose \.npz"):
        _embeddings().save(tmp_path / "features.parquet")


@needs_pyarrow
def test_parquet_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"text\.parquet: cannot be read as embeddings"):
        Embeddings.load(tmp_path / "text.parquet")


# --- pcnn-embed ---


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recognizer: Recognizer) -> Path:
    """A working folder: photos/ with one face, none and three, and a bad file beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, faces in (("a.png", 1), ("b.png", 0), ("c.png", 3)):
        Image.fromarray(_picture(faces, faces)).save(tmp_path / "photos" / name)
    (tmp_path / "bad.jpg").write_bytes(b"")
    monkeypatch.setattr("pcnn.commands.embed.load_recognizer", lambda _: recognizer)
    return tmp_path


def test_embedding_files(photos: Path, recognizer: Recognizer, capsys: Captured) -> None:
    assert cli.embed(["photos", "-o", "features.npz"]) == commands.DONE
    assert capsys.readouterr().err == "features.npz: 4 faces of 3 pictures, 64 values each\n"
    found = Embeddings.load("features.npz")
    assert found.paths == ("photos/a.png", "photos/c.png", "photos/c.png", "photos/c.png")
    assert found.face_index.tolist() == [0, 0, 1, 2]
    assert found.boxes[2].tolist() == [1, 1, 31, 31]
    assert found.weights_sha256 == recognizer.weights_sha256
    np.testing.assert_allclose(found.features[1:], recognizer.embed("photos/c.png"), atol=2e-5)


def test_embedding_files_of_faces(photos: Path, recognizer: Recognizer, capsys: Captured) -> None:
    for name in ("photos/d.png", "photos/e.png"):
        Image.fromarray(_picture(0)[:40]).save(name)
    assert cli.embed(["bad.jpg", "photos", "--faces", "-o", "f.npz"]) == commands.SOME_FAILED
    hint, bad, _ = capsys.readouterr().err.splitlines()
    assert bad.startswith("pcnn-embed: bad.jpg: ")
    assert hint == (
        "pcnn-embed: hint: photos/d.png has 67 × 40 pixels, but --faces expects one cut-out face "
        "in each picture: omit --faces to detect the faces"
    )
    found = Embeddings.load("f.npz")
    assert found.paths == tuple(f"photos/{letter}.png" for letter in "abcde")
    assert np.isnan(found.boxes).all() and found.face_index.tolist() == [0] * 5
    np.testing.assert_allclose(found.features[0], recognizer.embed_crops("photos/a.png"), atol=2e-5)


def test_what_cannot_be_embedded(photos: Path, capsys: Captured) -> None:
    for words, message in (
        (["photos", "-o", "f.csv"], "pcnn-embed: --output: the file's name must end in"),
        (["bad.jpg", "-o", "f.npz"], "pcnn-embed: bad.jpg: "),
        (["none*.png", "-o", "f.npz"], "none*.png"),
        (["f.npz", "-o", "f.npz"], "f.npz: --output is one of the pictures: choose another name"),
        (["photos", "-o", "absent/f.npz"], "absent/f.npz: cannot be written"),
    ):
        assert cli.embed(words) == commands.NOTHING_DONE
        assert message in capsys.readouterr().err
        assert not Path("f.npz").exists()
    with pytest.raises(SystemExit, match="2"):
        cli.embed(["photos", "--faces", "--min-score", "0.5", "-o", "f.npz"])
    assert "it excludes --min-score" in capsys.readouterr().err


PAGE = Path(__file__).parent.parent.parent / "docs" / "embeddings.md"


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recognizer: Recognizer, small: Path
) -> None:
    """With the small network, on faces and photographs of noise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album").mkdir()
    for seed in range(12):
        Image.fromarray(_picture(1, seed)).save(tmp_path / "album" / f"{seed}.png")
    Image.fromarray(_picture(2, 99)).save(tmp_path / "photo.jpg")
    Image.fromarray(_picture(1, 99)).save(tmp_path / "a.jpg")
    pairs = "".join(f", rater{i}, 3" for i in range(6))
    url = "http://x.org/a.jpg, 0, 1, 0, 1"
    (tmp_path / "fec.csv").write_text(f"{url}, {url}, {url}, ONE_CLASS_TRIPLET{pairs}\n")
    monkeypatch.setattr("pcnn.commands.embed.load_recognizer", lambda _: recognizer)
    assert cli.embed(["album", "-o", "features.npz"]) == commands.DONE
    real = Recognizer.__init__

    def start(self: Recognizer, *given: Any, **named: Any) -> None:
        real(self, small, Planted(), "cpu", **named)

    monkeypatch.setattr(Recognizer, "__init__", start)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) >= 4
    scope: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "embeddings.md", "exec"), scope)


def test_every_option_of_the_page_exists() -> None:
    shown = re.findall(r"^pcnn-embed.*", PAGE.read_text(), re.MULTILINE)
    assert shown
    known = help_of(cli.embed)
    assert all(option in known for line in shown for option in re.findall(r"--[a-z-]+", line))
