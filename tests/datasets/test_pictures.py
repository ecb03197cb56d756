"""Your own pictures: folders of labels, and CSVs of labels or numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pcnn.datasets.pictures import read_pictures
from pcnn.errors import InputError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _csv(root: Path, text: str) -> Path:
    path = root / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_folders_are_labels(tmp_path: Path) -> None:
    names = ("very bored/2.jpg", "very bored/deep/1.PNG", "größer/a.jpg", ".git/x.png", "loose.jpg")
    found = read_pictures(_touch(tmp_path, *names, "empty/notes.txt"))
    assert list(zip(found.labels, found.files, strict=True)) == [
        ("größer", tmp_path / "größer/a.jpg"),
        ("very bored", tmp_path / "very bored/2.jpg"),
        ("very bored", tmp_path / "very bored/deep/1.PNG"),
    ]
    assert found.names == () and found.groups == ()
    assert found.problems == ()
    assert found.notes == (
        f"{tmp_path}/empty: no pictures in this folder",
        f"{tmp_path}: files outside of the labels' folders: 1",
    )


def test_a_csv_of_labels_and_groups(tmp_path: Path) -> None:
    path = _csv(
        tmp_path,
        "\ufeffpicture;label;group;note\n a/1.jpg ;bored;Ann;x\n\n/b.jpg;amused;Bo;\n"
        "c.jpg;;Bo;\nd.jpg;bored\n",
    )
    found = read_pictures(path)
    assert found.files == (tmp_path / "a/1.jpg", Path("/b.jpg"))
    assert found.labels == ("bored", "amused") and found.groups == ("Ann", "Bo")
    assert found.problems == (
        f"{path}, line 5: nothing in column label",
        f"{path}, line 6: nothing in column group",
    )


def test_names_that_look_alike_are_one(tmp_path: Path) -> None:
    """Unicode has "é" as one character, and as a letter and its accent: macOS writes the latter."""
    whole, apart = "g\u00ean\u00e9", "ge\u0302ne\u0301"
    names = (f"{whole}/a.jpg", f"{apart}/b.jpg", "calm/c.jpg")
    found = read_pictures(_touch(tmp_path / "album", *names))
    assert sorted(found.labels) == ["calm", whole, whole]
    assert all(file.is_file() for file in found.files)  # files keep the names that they have
    text = f"picture,label,group\n{apart}.jpg,{whole},{apart}\nb.jpg,{apart},{whole}\n"
    found = read_pictures(_csv(tmp_path, text))
    assert found.labels == found.groups == (whole, whole)
    assert found.files[0] == tmp_path / f"{apart}.jpg"
    numbers = _csv(tmp_path, f"picture,{apart}\na.jpg,1\n")
    for columns in ([], [whole], [apart]):
        assert read_pictures(numbers, columns).names == (whole,)


def test_a_csv_of_numbers(tmp_path: Path) -> None:
    path = _csv(tmp_path, "picture,valence,arousal\na.jpg,0.5,-1\nb.jpg,high,0\nc.jpg,1e-1,inf\n")
    found = read_pictures(path)
    assert found.names == ("valence", "arousal") and found.labels == ()
    np.testing.assert_array_equal(found.values, [[0.5, -1]])
    assert found.problems == (
        f"{path}, line 3: no number in column valence",
        f"{path}, line 4: no number in column arousal",
    )
    np.testing.assert_array_equal(read_pictures(path, ["arousal"]).values, [[-1], [0]])


def test_a_column_without_a_name_is_none_of_numbers(tmp_path: Path) -> None:
    """pandas writes the numbers of rows in such a column."""
    found = read_pictures(_csv(tmp_path, ",picture,v,\n0,a.jpg,0.5,\n1,b.jpg,1,\n"))
    assert found.names == ("v",) and found.values.tolist() == [[0.5], [1]]
    with pytest.raises(InputError, match=r"column 'v\\x07' is not printable"):
        read_pictures(_csv(tmp_path, "picture,v\x07\na.jpg,1\n"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("picture,valence\na.jpg,0,5\nb.jpg,0.25\n", "b.jpg"),
        ('picture,label\nalbum, old/1.jpg,bored\n"album, new/1.jpg",bored\n', "album, new/1.jpg"),
    ],
)
def test_a_comma_too_many_is_no_other_number_or_label(tmp_path: Path, text: str, kept: str) -> None:
    path = _csv(tmp_path, text)
    found = read_pictures(path)
    assert found.files == (tmp_path / kept,)
    assert found.problems == (
        f"{path}, line 2: more fields than columns, 3 instead of 2: put quotes around its text",
    )
    assert read_pictures(_csv(tmp_path, "picture,label\na.jpg,bored,,\n")).problems == ()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(tmp_path: Path, separator: str) -> None:
    lines = (
        "picture;v;w",
        "a.jpg;0,5;-1",
        "b.jpg;-1,25;0.5",
        "c.jpg;1,000,000;1",
        "d.jpg;1.000,5;1",
    )
    found = read_pictures(_csv(tmp_path, "\n".join(lines).replace(";", separator)))
    assert found.values.tolist() == [[0.5, -1], [-1.25, 0.5]] and len(found.problems) == 2


def test_columns_choose_numbers_beside_labels(tmp_path: Path) -> None:
    path = _csv(tmp_path, "picture,label,age\na.jpg,bored,3\n")
    assert read_pictures(path).labels == ("bored",)
    assert read_pictures(path, ["age"]).names == ("age",)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", [], "it is empty"),
        ("file,label\na,b\n", [], "the first line must name the columns, picture among them"),
        ("picture,a,a\n", [], "the first line must name the columns"),
        ("picture\na.jpg\n", [], "neither a label nor numbers"),
        ("picture,label\n", [], "no row can be used; the first reason: "),
        ("picture,mood\na.jpg,fine\n", [], "column 'mood' has no number in any row"),
        ("picture,mood\na.jpg,1\n", ["joy"], "no column 'joy'; its columns are picture, mood"),
    ],
)
def test_csvs_that_cannot_be_used(
    tmp_path: Path, text: str, columns: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_pictures(_csv(tmp_path, text), columns)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder or CSV; expected"):
        read_pictures(tmp_path / "absent")
    with pytest.raises(InputError, match="no folders of labels in it"):
        read_pictures(_touch(tmp_path / "a", "x.jpg"))
    with pytest.raises(InputError, match="no pictures in its folders"):
        read_pictures(_touch(tmp_path / "b", "bored/x.txt"))
    with pytest.raises(InputError, match=r"parts of a data set \(test, train\), not labels"):
        read_pictures(_touch(tmp_path / "c", "train/bored/x.jpg", "test/bored/y.jpg"))
    with pytest.raises(InputError, match="a folder has labels"):
        read_pictures(tmp_path / "a", ["valence"])
    (tmp_path / "latin.csv").write_bytes("picture,label\n\xe4.jpg,x\n".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as a CSV of UTF-8"):
        read_pictures(tmp_path / "latin.csv")
