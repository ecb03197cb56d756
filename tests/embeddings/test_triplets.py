"""Expression-comparison triplets: Google's layout, and the accuracy on them."""

from __future__ import annotations

import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pcnn import InputError
from pcnn.embeddings.triplets import Crop, embed_triplets, interval, read_triplets, triplet_accuracy

ONE = "http://x.org/1/a.jpg, 0.25, 0.75, 0.0, 0.5"
TWO = "http://x.org/1/b%20b.jpg?s=1, 0, 1, 0, 1"
THREE = '"http://x.org/2/c.jpg", 0.1, 0.2, 0.3, 0.4'
KIND = "TWO_CLASS_TRIPLET"


def _file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "triplets.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _line(*answers: int, kind: str = KIND, faces: tuple[str, ...] = (ONE, TWO, THREE)) -> str:
    pairs = [f"rater{i}, {answer}" for i, answer in enumerate(answers)]
    return ", ".join((*faces, kind, *pairs))


def test_reading(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        _line(3, 3, 3, 1, 3, 2),
        "",
        _line(1, 2, 3, 1, 2),  # two of five
        _line(1, 1, 2, kind="ONE_CLASS_TRIPLET", faces=(TWO, ONE, ONE)) + ", , ",
    )
    found = read_triplets(path)
    assert len(found) == 2 and len(found.crops) == 3
    assert found.crops[0] == Crop("http://x.org/1/a.jpg", 0.25, 0.75, 0.0, 0.5)
    assert [crop.file_name for crop in found.crops] == ["a.jpg", "b b.jpg", "c.jpg"]
    assert found.members.tolist() == [[0, 1, 2], [1, 0, 0]]
    assert found.odd.tolist() == [2, 0]
    assert found.agreement.tolist() == pytest.approx([4 / 6, 2 / 3])
    assert found.kinds == (KIND, "ONE_CLASS_TRIPLET")
    assert len(read_triplets(path, min_agreement=0)) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a, b", "line 2: expected 15 columns of three faces"),
        (_line(1) + ", rater", "line 2: expected 15 columns of three faces"),
        (_line(4), "line 2: answers must be 1, 2 or 3, got 4"),
        (_line(1, kind="FOUR"), "line 2: the kind must be one of ONE_CLASS_TRIPLET, "),
        (_line(1, faces=(ONE, TWO, "u, 1, 0, 0, 1")), "line 2: a face must lie left < right"),
        (_line(1, faces=(ONE, TWO, "u, x, 0, 0, 1")), "line 2: could not convert string"),
    ],
)
def test_lines_of_another_layout(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_triplets(_file(tmp_path, _line(1), line))


def test_files_without_triplets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*absent\.csv"):
        read_triplets(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="holds no triplet on which 60% agree"):
        read_triplets(_file(tmp_path, _line(1, 2, 3)))


def test_faces_are_cut_out() -> None:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    face = Crop("u", 0.25, 0.75, 0.0, 0.5).cut(pixels)
    np.testing.assert_array_equal(face, pixels[0:4, 2:6])
    assert Crop("u", -0.5, 1.5, 0.9, 0.91).cut(pixels).shape == (1, 8, 3)
    assert Crop("u", 1.2, 1.5, 0.0, 1.0).cut(pixels).shape == (8, 1, 3)


def test_faces_of_a_folder(tmp_path: Path) -> None:
    """One picture is there, one is broken, one is missing: NaN for these, and passed over."""
    triplets = read_triplets(_file(tmp_path, _line(3), _line(1, faces=(ONE, ONE, ONE))))
    folder = tmp_path / "pictures" / "1"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), (10, 20, 30)).save(folder / "a.jpg", quality=100)
    (folder / "b b.jpg").write_bytes(b"broken")

    def means(faces: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        assert [face.shape for face in faces] == [(4, 4, 3)]
        return np.array([face.mean((0, 1)) for face in faces], np.float32)

    features = embed_triplets(triplets, tmp_path / "pictures", means)
    assert features.shape == (3, 3) and features[0] == pytest.approx([10, 20, 30], abs=2)
    assert np.isnan(features[1:]).all()
    score = triplet_accuracy(features, triplets.members, triplets.odd, bootstrap=0)
    assert score.triplets == 1 and score.accuracy == 0  # three times one face: a tie
    with pytest.raises(InputError, match="holds no picture of these triplets"):
        embed_triplets(triplets, tmp_path / "absent", means)


def test_accuracy_by_hand() -> None:
    """On a line at 0, 1, 3: 0 and 1 are the pair. 0, 2, 4: no pair is nearer than all others."""
    features = [[0.0], [1.0], [3.0], [2.0], [4.0], [np.nan]]
    near = [[0, 1, 2], [0, 2, 1], [2, 1, 0]]
    assert triplet_accuracy(features, near, [2, 1, 0], bootstrap=0)[:2] == (3, 1.0)
    assert triplet_accuracy(features, near, [0, 0, 1], bootstrap=0).accuracy == 0
    assert triplet_accuracy(features, [[0, 3, 4]], [2], bootstrap=0).accuracy == 0
    score = triplet_accuracy(features, [[0, 1, 2], [0, 1, 5]], [2, 2], bootstrap=0)
    assert score.triplets == 1 and math.isnan(score.low) and math.isnan(score.high)
    half = triplet_accuracy(features, near[:1] * 100, [2, 0] * 50)
    assert half.accuracy == 0.5
    # Of 100 tosses the share of heads has the standard deviation 0.05.
    assert half.low == pytest.approx(0.4, abs=0.03) and half.high == pytest.approx(0.6, abs=0.03)


def test_many_triplets_need_little_memory() -> None:
    draw = np.random.default_rng(0)
    features, members = draw.normal(size=(200, 64)), draw.integers(0, 200, (20_000, 3))
    tracemalloc.start()
    try:
        triplet_accuracy(features, members, np.zeros(20_000, np.int64), bootstrap=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000 * 3 * 64 * 8  # the bytes of all vectors of all triplets


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"\(N, D\), \(T, 3\) and \(T,\), got \(1, 1\), \(1, 2\)"):
        triplet_accuracy([[0.0]], [[0, 0]], [0])
    with pytest.raises(InputError, match="members must lie in 0…0"):
        triplet_accuracy([[0.0]], [[0, 0, 1]], [0])
    with pytest.raises(InputError, match="odd must be 0, 1 or 2"):
        triplet_accuracy([[0.0]], [[0, 0, 0]], [3])
    with pytest.raises(InputError, match="there must be a triplet with all three vectors"):
        triplet_accuracy([[np.nan]], [[0, 0, 0]], [0])


def test_interval() -> None:
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    low, high = interval([0.0, 1.0] * 50)
    assert low == pytest.approx(0.4, abs=0.03) and high == pytest.approx(0.6, abs=0.03)
