"""Paths from callers, names of temporary files, and lines of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pcnn
from pcnn import embeddings, weights
from pcnn.arrays import read_arrays
from pcnn.datasets import load_faces
from pcnn.datasets.pictures import read_pictures
from pcnn.disk import CsvStream, as_path, whole_file
from pcnn.errors import InputError

_HEAD = embeddings.Head(
    labels=("a", "b"),
    matrix=np.ones((2, 3), np.float32),
    bias=np.zeros(2, np.float32),
    weights_sha256="0" * 64,
)


@pytest.mark.parametrize("value", [3, None, b"faces", ["faces"]])
@pytest.mark.parametrize(
    "function",
    [
        weights.read,
        lambda path: weights.write(path, {}, {}),
        weights.sha256,
        weights.load_upstream,
        weights.load_expression,
        lambda path: load_faces(path, "train"),
        read_pictures,
        read_arrays,
        pcnn.from_pretrained,
        lambda path: pcnn.push_to_hub(path, "owner/name"),
        embeddings.Embeddings.load,
        embeddings.read_triplets,
        embeddings.Head.load,
        _HEAD.save,
    ],
)
def test_what_is_no_path_is_refused(function: Callable[[object], object], value: object) -> None:
    with pytest.raises(InputError, match=r"must be (a|a name or the) path"):
        function(value)


def test_texts_and_paths_are_taken() -> None:
    assert as_path("f: path", "faces") == as_path("f: path", Path("faces")) == Path("faces")
    with pytest.raises(InputError, match=r"^f: path must be a path, got 3$"):
        as_path("f: path", 3)


@pytest.mark.parametrize("letters", ["n" * 251, "ü" * 125, "表" * 83], ids=["1", "2", "3"])
def test_the_longest_name_can_be_written(letters: str, tmp_path: Path) -> None:
    path = tmp_path / f"{letters}.npz"  # of 253 to 255 bytes: systems allow 255
    for content in (b"first", b"second"):
        with whole_file(path) as part:
            assert part.name.startswith("part-") and part.suffix == ".npz"
            part.write_bytes(content)
    assert path.read_bytes() == b"second"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_two_long_names_at_once_have_two_temporary_files(tmp_path: Path) -> None:
    one, two = (tmp_path / f"{first}{'n' * 240}.npz" for first in "ab")
    with whole_file(one) as first, whole_file(two) as second:
        first.write_bytes(b"one")
        second.write_bytes(b"two")
    assert (one.read_bytes(), two.read_bytes()) == (b"one", b"two")


def test_csv_quotes_whatever_ends_a_line() -> None:
    cells = ["plain", "a\rb", "a\nb", "a\r\n", "\r", 'a"b', "a,b", "ü", ""]
    stream = io.StringIO(newline="")
    csv.writer(CsvStream(stream)).writerows([cells, ["x", "1"]])
    text = stream.getvalue()
    assert text.startswith('plain,"a\rb","a\nb","a\r\n","\r","a""b","a,b",ü,\n')
    assert text.endswith("\nx,1\n")
    assert list(csv.reader(io.StringIO(text, newline=""))) == [cells, ["x", "1"]]
