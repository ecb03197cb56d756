"""Data sets in every layout, built in small; and the counts of the real protocols."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image

from pcnn.datasets import ferplus
from pcnn.datasets import loading as datasets
from pcnn.datasets.labels import (
    AFFECTNET_CLASSES,
    FER2013_CLASSES,
    RAFDB_CLASSES,
    FacePictures,
    FaceSet,
)
from pcnn.datasets.loading import FaceOptions, load_faces, load_ferplus, open_faces
from pcnn.errors import InputError
from pcnn.networks.pcnn import FERPLUS_CLASSES

Size: TypeAlias = tuple[int, int]

DOCS = Path(__file__).parent.parent.parent / "docs" / "data.md"
HEADER = (
    "image,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
    "unknown,NF,fer2013,duplicate\n"
)
CROWD = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
)


def _write(folder: Path, lines: Sequence[str], tiles: int = 40, split: str = "train") -> None:
    """A table and one contact sheet, whose tile i is filled with the value i."""
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.csv").write_text(HEADER + "".join(line + "\n" for line in lines))
    rows = tiles // 40
    sheet = np.repeat(np.repeat(np.arange(tiles).reshape(rows, 40), 48, 0), 48, 1)
    Image.fromarray(sheet.astype(np.uint8)).save(folder / f"{split}_00.png")


def _write_fer2013(folder: Path, usages: Sequence[str], crowd: Sequence[str] = ()) -> None:
    """fer2013.csv whose face i has the pixel values i, 0, 255, 7, 7, …; label i."""
    folder.mkdir(exist_ok=True)
    pixels = " ".join(["0", "255", *["7"] * 2301])
    lines = [f"{i % 7},{i} {pixels},{usage}" for i, usage in enumerate(usages)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    if crowd:
        rows = [f"{u},{line}" for u, line in zip(usages, crowd, strict=False)]
        (folder / "fer2013new.csv").write_text(CROWD + "\n".join(rows) + "\n")


def _picture(
    file: Path, value: int | tuple[int, int, int] = 9, size: tuple[int, int] = (6, 6)
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(file)


def _rafdb(root: Path, labels: str, pictures: str) -> None:
    (root / labels).mkdir(parents=True, exist_ok=True)
    lines = ["train_00001.jpg 5", "train_00002.jpg 1", "test_0001.jpg 7"]
    (root / labels / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for number, line in enumerate(lines):
        name = line.split(".")[0]
        _picture(root / pictures / f"{name}_aligned.jpg", 10 * number, (100, 100))


# Contact sheets


def test_argmax_by_hand(tmp_path: Path) -> None:
    lines = [
        "a,4,0,0,1,3,2,0,0,0,0,angry,0",  # kept
        "b,0,9,0,0,0,0,0,0,0,0,happy,1",  # a duplicate
        "c,2,0,0,0,0,0,0,0,3,0,sad,0",  # unknown has more votes than any class
        "d,0,0,0,5,0,0,0,0,5,0,sad,0",  # a tie is no more
        "f,0,0,0,0,0,0,0,0,0,0,sad,0",  # no votes at all
        "e,1,0,0,0,0,0,0,0,0,9,sad,0",  # not a face
    ]
    _write(tmp_path, lines)
    found = load_ferplus(tmp_path, "train")
    assert found.names == ("a", "d") and len(found) == 2
    assert found.faces.shape == (2, 48, 48) and found.faces.dtype == torch.uint8
    assert found.faces[0].unique().tolist() == [0] and found.faces[1].unique().tolist() == [3]
    torch.testing.assert_close(found.votes[0], torch.tensor([4.0, 0, 0, 1, 3, 2, 0, 0]) / 10)
    torch.testing.assert_close(found.votes[1], torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 0]))
    assert load_faces(tmp_path, "train", duplicates=True).names == ("a", "b", "d")


def test_majority_by_hand(tmp_path: Path) -> None:
    lines = [
        "a,6,0,0,1,0,0,2,1,0,0,angry,0",  # 6 of 8 that count
        "b,4,0,0,4,0,0,0,0,1,1,angry,0",  # half is not more than half
        "c,5,0,0,0,0,0,0,0,4,1,angry,0",  # 5 of 9
        "d,3,0,0,0,0,0,0,0,7,0,angry,0",  # unknown wins
        "e,1,1,1,1,1,1,1,1,1,1,angry,0",  # nothing counts
        "f,4,0,0,1,1,1,1,1,4,0,angry,0",  # unknown counts, too
    ]
    _write(tmp_path, lines)
    found = load_faces(tmp_path, "train", protocol="majority")
    assert found.names == ("a", "c")
    torch.testing.assert_close(found.votes[0], torch.tensor([6.0, 0, 0, 0, 0, 0, 2, 0]) / 8)
    torch.testing.assert_close(found.votes[1], torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]))


def test_the_label_of_fer2013(tmp_path: Path) -> None:
    lines = ["a,0,0,0,0,0,0,0,0,10,0,sad,0", "b,9,0,0,0,0,0,0,0,0,0,fear,1"]
    _write(tmp_path, lines)
    found = load_faces(tmp_path, "train", labels="fer2013")
    assert found.names == ("a",) and found.classes == FER2013_CLASSES
    assert found.votes.tolist() == [[0, 0, 0, 0, 1, 0, 0]]
    _write(tmp_path, ["a,9,0,0,0,0,0,0,0,0,0,contempt,0"])
    with pytest.raises(InputError, match="fer2013 is 'contempt'"):
        load_faces(tmp_path, "train", labels="fer2013")


def test_the_counts_of_the_protocols(shared_data: Path) -> None:
    """Those of ../shared/data/README.md; with and without near-copies as docs/data.md has them."""
    page = DOCS.read_text()
    for split, expected in (("train", (28386, 25057, 28558)), ("valid", (3553, 3199, 3579))):
        rows = list(ferplus._rows(shared_data / "ferplus" / f"{split}.csv", ("image",)))
        unique = np.array([row["duplicate"] == "0" for row in rows])
        argmax, majority = (ferplus._count(rows, name)[0] for name in ("argmax", "majority"))
        seven = np.array([ferplus._one_of_seven(row) in FER2013_CLASSES for row in rows])
        assert (argmax.sum(), majority.sum(), seven.sum()) == expected
        for kept in (argmax, majority, seven):
            assert f"{(kept & unique).sum():,} ({kept.sum():,})" in page
        if split == "train":
            assert f"the {(~unique).sum()} of train that are near-copies" in page


def test_a_real_split(shared_data: Path) -> None:
    strict = load_faces(shared_data / "ferplus", "valid", protocol="majority", duplicates=True)
    assert len(strict) == 3199


def test_the_real_faces(shared_data: Path) -> None:
    valid = load_ferplus(shared_data / "ferplus", "valid")
    assert len(valid) == 3500
    assert valid.votes.sum(1).allclose(torch.ones(3500))
    assert valid.votes.argmax(1).bincount().tolist() == [1323, 891, 435, 407, 314, 34, 72, 24]
    # A face, not noise and not another's tile: its edges are as smooth as its middle.
    steps = valid.faces.float().diff(dim=2).abs().mean((0, 1))
    assert steps.max() < 2 * steps.mean()


def test_errors_of_sheets_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold train.csv and train_00.png …\nfolder/\n  tra"):
        load_ferplus(tmp_path, "train")
    _write(tmp_path, ["a,4,0,0,1,3,2,0,0,0,0,angry,0"] * 41)
    with pytest.raises(InputError, match="has 41 lines, its sheets only 40 tiles"):
        load_ferplus(tmp_path, "train")
    with pytest.raises(InputError, match=r"has splits: choose one with split=: train$"):
        load_faces(tmp_path)
    Image.new("L", (100, 48)).save(tmp_path / "train_00.png")
    with pytest.raises(InputError, match="must be 1920 pixels wide and a multiple of 48 high"):
        load_ferplus(tmp_path, "train")
    (tmp_path / "train_00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"train_00.png: the PNG data are damaged"):
        load_ferplus(tmp_path, "train")
    _write(tmp_path, ["a,4,0,0,1,3,2,,0,0,0,angry,0"])
    with pytest.raises(InputError, match=r"train.csv must have the columns image, neutral, "):
        load_ferplus(tmp_path, "train")
    (tmp_path / "train.csv").write_text("picture\na\n")
    with pytest.raises(InputError, match=r"train.csv has no column image"):
        load_ferplus(tmp_path, "train")


# FER2013's table


def test_fer2013_alone(tmp_path: Path) -> None:
    _write_fer2013(tmp_path, ["Training", "PublicTest", "PrivateTest", "Training"])
    found = load_faces(tmp_path, "train")
    assert found.names == ("row00000", "row00003") and found.classes == FER2013_CLASSES
    assert found.votes.argmax(1).tolist() == [0, 3] and found.faces.shape == (2, 48, 48)
    assert found.faces[1].flatten()[:5].tolist() == [3, 0, 255, 7, 7]
    assert found.faces[1, 47].tolist() == 48 * [7]
    assert load_faces(tmp_path / "fer2013.csv", "valid").votes.argmax(1).tolist() == [1]
    assert load_faces(tmp_path, "test", labels="fer2013").votes.argmax(1).tolist() == [2]


def test_fer2013_in_kaggles_edition(tmp_path: Path) -> None:
    pixels = " ".join(["1"] * 2304)
    text = f'emotion, Usage, pixels\n3,Training,"{pixels}"\n\n'
    (tmp_path / "icml_face_data.csv").write_text(text)
    found = load_faces(tmp_path / "icml_face_data.csv", "train")
    assert found.votes.argmax(1).tolist() == [3] and found.faces.unique().tolist() == [1]


def test_fer2013_with_the_votes_of_ferplus(tmp_path: Path) -> None:
    crowd = [
        "fer0000000.png,7,0,0,3,0,0,0,0,0,0",
        ",0,0,0,0,0,0,0,0,0,10",  # no name, no votes
        "fer0000002.png,1,1,1,1,1,0,0,0,5,0",  # nobody knows
        "fer0000003.png,5,0,0,1,1,1,1,1,0,0",
        "fer0000004.png,10,0,0,0,0,0,0,0,0,0",
    ]
    _write_fer2013(tmp_path, [*["Training"] * 4, "PublicTest"], crowd)
    found = load_faces(tmp_path, "train")
    assert found.names == ("fer0000000", "fer0000003") and found.classes == FERPLUS_CLASSES
    assert found.faces[:, 0, 0].tolist() == [0, 3]
    torch.testing.assert_close(found.votes[0], torch.tensor([7.0, 0, 0, 3, 0, 0, 0, 0]) / 10)
    strict = load_faces(tmp_path, "train", protocol="majority")
    torch.testing.assert_close(strict.votes[1], torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]))
    seven = load_faces(tmp_path, "train", labels="fer2013")
    assert seven.names == ("fer0000000", "row00001", "fer0000002", "fer0000003")
    assert seven.votes.argmax(1).tolist() == [0, 1, 2, 3]


def test_errors_of_fer2013_name_the_line(tmp_path: Path) -> None:
    table, crowd = tmp_path / "fer2013.csv", tmp_path / "fer2013new.csv"
    with pytest.raises(InputError, match=r"fer2013.csv: no such file; expected\nfolder/\n  fer2"):
        load_faces(tmp_path, "train", layout="fer2013")
    _write_fer2013(tmp_path, ["Training", "Training"])
    with pytest.raises(InputError, match="has splits: choose one with split=: train, valid, test"):
        load_faces(tmp_path)
    with pytest.raises(InputError, match=r"holds no face of PublicTest \(valid\)"):
        load_faces(tmp_path, "valid")
    with pytest.raises(InputError, match=r"votes need .*fer2013new.csv, which is missing"):
        load_faces(tmp_path, "train", labels="votes")
    with pytest.raises(InputError, match=r"votes need .*fer2013new.csv, which is missing"):
        load_faces(tmp_path, "train", protocol="majority")
    crowd.write_text(CROWD + "Training,fer0.png,7,0,0,3,0,0,0,0,0,0\n")
    with pytest.raises(InputError, match=r"line 3: fer2013new.csv has no matching line"):
        load_faces(tmp_path, "train")
    crowd.write_text(CROWD + 3 * "Training,fer0.png,7,0,0,3,0,0,0,0,0,0\n")
    with pytest.raises(InputError, match=r"fer2013new.csv has 3 lines, fer2013.csv 2"):
        load_faces(tmp_path, "train")
    crowd.write_text(CROWD + 2 * "Training,fer0.png,7,0,0,,0,0,0,0,0,0\n")
    with pytest.raises(InputError, match=r"fer2013new.csv must hold numbers of votes \(invalid"):
        load_faces(tmp_path, "train")
    crowd.write_text("Usage,neutral\n")
    with pytest.raises(InputError, match=r"fer2013new.csv has no column Image name, happiness"):
        load_faces(tmp_path, "train")
    crowd.unlink()
    good = table.read_text()
    for bad, message in (
        (good.replace("7 7,", "7,", 1), "line 2: pixels must be 2304 numbers, got 2303"),
        (good.replace("0 255", "0 256"), "line 2: could not convert string '256' to uint8"),
        (good.replace("1,1 ", "8,1 "), "line 3: emotion must be 0…6, got '8'"),
        (good[:-2000], "line 3: Usage must be one of Training, PublicTest, PrivateTest, got ''"),
        (re.sub("0,.*,", "0,,", good), "line 2: pixels must be 2304 numbers, got 0"),
    ):
        table.write_text(bad)
        with pytest.raises(InputError, match=re.escape(message)):
            load_faces(tmp_path, "train")
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read .*fer2013.csv \('utf-8' codec"):
        load_faces(tmp_path, "train")


# RAF-DB


@pytest.mark.parametrize(
    ("labels", "pictures"),
    [("", "aligned"), ("EmoLabel", "Image/aligned"), ("basic/EmoLabel", "basic/Image/aligned")],
)
def test_rafdb(labels: str, pictures: str, tmp_path: Path) -> None:
    _rafdb(tmp_path, labels, pictures)
    train, test = load_faces(tmp_path, "train"), load_faces(tmp_path, "test", grey=False)
    assert train.names == ("train_00001", "train_00002") and train.classes == RAFDB_CLASSES
    assert [RAFDB_CLASSES[i] for i in train.votes.argmax(1)] == ["sadness", "surprise"]
    assert train.faces.shape == (2, 100, 100) and train.faces[1].unique().tolist() == [10]
    assert test.names == ("test_0001",) and test.faces.shape == (1, 100, 100, 3)


def test_errors_of_rafdb(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no list_patition_label.txt; expected\nfolder/\n  list_"):
        load_faces(tmp_path, "train", layout="rafdb")
    (tmp_path / "list_patition_label.txt").write_text("train_00001.jpg 5\n")
    with pytest.raises(InputError, match="holds no folder aligned/; expected"):
        load_faces(tmp_path, "train")
    _rafdb(tmp_path, "", "aligned")
    with pytest.raises(InputError, match="has splits: choose one with split=: train, test"):
        load_faces(tmp_path, "valid")
    (tmp_path / "aligned" / "train_00001_aligned.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures of .* missing: train_00001; use missin"):
        load_faces(tmp_path, "train")
    with pytest.warns(UserWarning, match="1 of 2 pictures of .* missing: train_00001"):
        assert load_faces(tmp_path, "train", missing="skip").names == ("train_00002",)
    (tmp_path / "list_patition_label.txt").write_text("train_00001.jpg 5\ntrain_00002.jpg 9\n")
    with pytest.raises(InputError, match=r"txt, line 2: expected train_00001.jpg and a label 1…7"):
        load_faces(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "there"), [("train_00001.jpg 5\n", "only of train"), ("\n", "nor of any other")]
)
def test_a_list_of_rafdb_without_the_split(text: str, there: str, tmp_path: Path) -> None:
    _rafdb(tmp_path, "", "aligned")
    (tmp_path / "list_patition_label.txt").write_text(text)
    message = rf"list_patition_label.txt lists no picture of split 'test', {there}$"
    with pytest.raises(InputError, match=message):
        load_faces(tmp_path, "test")


# Folders


def test_folders_of_classes(tmp_path: Path) -> None:
    _picture(tmp_path / "Happy" / "b.png", 1)
    _picture(tmp_path / "Happy" / "more" / "c.jpg", 2)
    _picture(tmp_path / "0_neutral" / "a.tiff", 3)
    (tmp_path / "suprise").mkdir()  # no picture, but a class
    (tmp_path / ".cache" / "x").mkdir(parents=True)
    _picture(tmp_path / "__MACOSX" / "Happy" / "z.png")
    (tmp_path / "Happy" / "readme.txt").write_text("not a picture")
    found = load_faces(tmp_path)
    assert found.names == ("0_neutral/a.tiff", "Happy/b.png", "Happy/more/c.jpg")
    assert found.classes == ("neutral", "happiness", "surprise")
    assert found.votes.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert found.faces[:, 0, 0].tolist() == [3, 1, 2] and found.faces.shape == (3, 6, 6)


def test_folders_of_splits(tmp_path: Path) -> None:
    _picture(tmp_path / "train" / "angry" / "a.png")
    _picture(tmp_path / "train" / "fear" / "b.png")
    _picture(tmp_path / "val" / "fear" / "c.png")
    _picture(tmp_path / "occlusion" / "contempt" / "d.png")
    assert load_faces(tmp_path, "train").votes.tolist() == [[1, 0, 0], [0, 1, 0]]
    for name in ("valid", "val", "Validation"):
        found = load_faces(tmp_path, name)
        assert found.names == ("val/fear/c.png",) and found.votes.tolist() == [[0, 1, 0]]
        assert found.classes == ("anger", "fear", "contempt")  # of all splits
    assert load_faces(tmp_path, "occlusion").votes.tolist() == [[0, 0, 1]]
    with pytest.raises(InputError, match="split=: occlusion, train, valid; got None"):
        load_faces(tmp_path)
    with pytest.raises(InputError, match="split=: occlusion, train, valid; got 'test'"):
        load_faces(tmp_path, "test")


def test_a_split_has_either_form_of_its_accents(tmp_path: Path) -> None:
    whole, apart = "g\u00eane", "ge\u0302ne"
    _picture(tmp_path / apart / "fear" / "a.png")
    for split in (whole, apart):
        assert load_faces(tmp_path, split).names == (f"{apart}/fear/a.png",)


def test_folders_of_expressions_without_pictures(tmp_path: Path) -> None:
    _picture(tmp_path / "val" / "loose.png")
    (tmp_path / "val" / "fear").mkdir()
    message = "val: no picture in its folders of expressions"
    with pytest.raises(InputError, match=f"{message}$"):
        load_faces(tmp_path / "val")
    for split in ("train", "occlusion"):
        _picture(tmp_path / split / "fear" / "a.png")
    with pytest.raises(InputError, match=f"{message}; other splits: occlusion, train$"):
        load_faces(tmp_path, "valid")


def test_numbered_folders(tmp_path: Path) -> None:
    _picture(tmp_path / "train" / "2" / "a.png")
    _picture(tmp_path / "train" / "3" / "b.png")
    affectnet = load_faces(tmp_path, "train", numbering=dict(enumerate(AFFECTNET_CLASSES)))
    assert affectnet.classes == ("surprise", "sadness")
    assert affectnet.votes.tolist() == [[0, 1], [1, 0]]
    rafdb = load_faces(tmp_path, "train", numbering=dict(enumerate(RAFDB_CLASSES, 1)))
    assert rafdb.classes == ("disgust", "fear")
    with pytest.raises(InputError, match=r"folder .*/train/2: the number 2 has no name"):
        load_faces(tmp_path, "train")
    with pytest.raises(InputError, match=r"folder .*/train/3: the number 3 has no name"):
        load_faces(tmp_path, "train", numbering={2: "fear"})


def test_errors_of_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no folders of expressions; expected\nfolder/"):
        load_faces(tmp_path, layout="folders")
    (tmp_path / "happy").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}: no pictures in this folder"):
        load_faces(tmp_path)
    with pytest.raises(InputError, match="has no splits: omit split='train'"):
        load_faces(tmp_path, "train")
    _picture(tmp_path / "smirk" / "a.png")
    with pytest.raises(InputError, match=r"/smirk: 'smirk' is not a known expression; known are"):
        load_faces(tmp_path)


# Lists


def test_lists_over_a_folder(tmp_path: Path) -> None:
    for value, name in enumerate(("1/fer0000001.jpg", "fer0000002.png", "deep/er/fer0000003.png")):
        _picture(tmp_path / "pictures" / name, 10 * value)
    path = tmp_path / "list.txt"
    path.write_text("1/fer0000001.jpg\nAngry/fer0000003.jpg\n\n7_fer0000002.png 8 1\n")
    found = load_faces(path, images=tmp_path / "pictures")
    assert found.names == ("fer0000001", "fer0000003", "fer0000002")
    assert found.classes == FERPLUS_CLASSES and found.votes.argmax(1).tolist() == [1, 4, 7]
    assert found.faces[:, 2, 2].tolist() == [0, 20, 10]
    path.write_text("sad_fer0000002.png 8 1\nhappiness\\fer0000003.png\n")
    assert load_faces(path, images=tmp_path / "pictures").votes.argmax(1).tolist() == [3, 1]


def test_lists_over_faces_in_memory_and_on_sheets(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("0/fer0000007.jpg\n2_fer0000005.png 8 0\n0/fer0000007.jpg\n")
    faces = torch.tensor([5, 6, 7], dtype=torch.uint8)[:, None, None, None].expand(3, 4, 4, 3)
    names = ("fer0000005", "x/fer0000006.png", "fer0000007.png")
    found = load_faces(path, images=FaceSet(faces, torch.eye(8)[:3], names))
    assert found.faces[:, 0, 0].tolist() == [7, 5, 7] and found.faces.shape == (3, 4, 4)
    assert found.names == ("fer0000007", "fer0000005", "fer0000007")
    assert found.votes.argmax(1).tolist() == [0, 2, 0]
    # Sheets give their faces whatever their votes, of all splits.
    _write(tmp_path / "sheets", ["fer0000007,0,0,0,0,0,0,0,0,0,9,sad,1"])
    _write(tmp_path / "sheets", 3 * ["y,0,0,0,0,0,0,0,0,0,9,sad,0"] + ["fer0000005"], split="valid")
    found = load_faces(path, images=tmp_path / "sheets")
    assert found.faces[:, 0, 0].tolist() == [0, 3, 0] and found.faces.shape == (3, 48, 48)


def test_lists_that_number_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "rafdb_occlusion_list.txt"
    _picture(tmp_path / "aligned" / "test_0003_aligned.jpg")
    for line in ("test_0003_aligned 3 4", "3/test_0003_aligned.jpg"):
        path.write_text(line)
        with pytest.raises(InputError, match="txt, line 1: the number 3 has no name"):
            load_faces(path, images=tmp_path / "aligned")
        numbering = dict(enumerate(RAFDB_CLASSES))
        found = load_faces(path, images=tmp_path / "aligned", numbering=numbering)
        assert found.names == ("test_0003_aligned",)
        assert FERPLUS_CLASSES[int(found.votes.argmax())] == "happiness"


def test_missing_faces_of_a_list(tmp_path: Path) -> None:
    _picture(tmp_path / "pictures" / "fer3.png")
    path = tmp_path / "list.txt"
    path.write_text("".join(f"0/fer{number}.jpg\n" for number in range(6)))
    message = r"5 of 6 pictures of .*list.txt missing: fer0, fer1, fer2 …; use missing='skip' to"
    with pytest.raises(InputError, match=message):
        load_faces(path, images=tmp_path / "pictures")
    with pytest.warns(UserWarning, match="5 of 6 pictures") as caught:
        assert load_faces(path, images=tmp_path / "pictures", missing="skip").names == ("fer3",)
    assert caught[0].filename == __file__
    path.write_text("0/fer9.jpg")
    with (
        pytest.warns(UserWarning, match="1 of 1 picture of"),
        pytest.raises(InputError, match=r"list.txt holds no picture that can be read"),
    ):
        load_faces(path, images=tmp_path / "pictures", missing="skip")


def test_errors_of_lists(tmp_path: Path) -> None:
    path, pictures = tmp_path / "list.txt", tmp_path / "pictures"
    path.write_text("0/fer1.png\n")
    with pytest.raises(InputError, match="a list needs images=: a folder"):
        load_faces(path)
    with pytest.raises(InputError, match=r"images must be a folder, got .*pictures"):
        load_faces(path, images=pictures)
    _picture(pictures / "a" / "fer1.png")
    _picture(pictures / "b" / "fer1.png")
    with pytest.raises(InputError, match=r"fer1 is ambiguous: .*/a/fer1.png or .*/b/fer1.png"):
        load_faces(path, images=pictures)
    _picture(pictures / "0" / "fer1.png", 77)  # exactly where the list says
    assert load_faces(path, images=pictures).faces.unique().tolist() == [77]
    with pytest.raises(InputError, match="a list has no splits: omit split='test'"):
        load_faces(path, "test", images=pictures)
    for text, message in (
        ("\n", r"list.txt lists nothing; expected\nlist.txt, with lines"),
        ("fer1.png\n", r"list.txt, line 1: got 'fer1.png'; expected\nlist.txt, with lines"),
        (
            "0/fer1.png\nsmirk/fer1.png",
            "line 2: 'smirk' is not a known expression; known are",
        ),
        ("8/fer1.png", "line 1: the number 8 has no name"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_faces(path, images=pictures)
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"cannot read the list .*list.txt \('utf-8' codec"):
        load_faces(path, images=pictures)


# Pictures


def test_sizes(tmp_path: Path) -> None:
    _picture(tmp_path / "fear" / "a.png", (255, 0, 0), (20, 10))
    _picture(tmp_path / "fear" / "b.png", (0, 255, 0), (20, 10))
    assert load_faces(tmp_path).faces.shape == (2, 10, 20)  # all alike: kept
    _picture(tmp_path / "fear" / "c.png", (0, 0, 255), (64, 64))
    grey, rgb = load_faces(tmp_path), load_faces(tmp_path, grey=False)
    assert grey.faces.shape == (3, 48, 48) and rgb.faces.shape == (3, 224, 224, 3)
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert grey.faces[:, 24, 24].tolist() == [76, 150, 29]
    assert rgb.faces[:, 9, 9].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert load_faces(tmp_path, side=5).faces.shape == (3, 5, 5)


def test_open_faces_keeps_pictures_that_differ_in_size(tmp_path: Path) -> None:
    _picture(tmp_path / "fear" / "a.png", (255, 0, 0), (20, 10))
    (tmp_path / "fear" / "b.png").write_text("no picture")
    options = FaceOptions(on_error="skip")
    with pytest.warns(UserWarning, match="1 of 2 pictures .* cannot be read") as warned:
        alike = open_faces(tmp_path, options=options)
    assert warned[0].filename == __file__
    assert isinstance(alike, FaceSet) and alike.faces.tolist() == [[[76] * 20] * 10]
    _picture(tmp_path / "fear" / "c.png", (0, 255, 0), (20, 11))
    _picture(tmp_path / "sad" / "d.png", (0, 0, 255), (20, 10))
    with pytest.warns(UserWarning, match="1 of 4 pictures .* cannot be read"):
        found = open_faces(tmp_path, options=options)
    assert isinstance(found, FacePictures) and len(found) == 3
    assert found.pictures == tuple(tmp_path / name for name in found.names)
    assert found.names == ("fear/a.png", "fear/c.png", "sad/d.png")
    assert found.classes == ("sadness", "fear")
    assert found.votes.tolist() == [[0, 1], [0, 1], [1, 0]]
    chosen = found.subset([2, 0])
    assert chosen.names == ("sad/d.png", "fear/a.png")
    assert chosen.pictures == tuple(tmp_path / name for name in chosen.names)
    assert chosen.votes.tolist() == [[1, 0], [0, 1]]


def test_open_faces_refuses_what_load_faces_refuses(tmp_path: Path) -> None:
    _picture(tmp_path / "fear" / "a.png", size=(20, 10))
    _picture(tmp_path / "fear" / "b.png", size=(20, 11))
    (tmp_path / "fear" / "c.png").write_text("no picture")
    with pytest.raises(InputError, match=r"fear/c.png"):
        open_faces(tmp_path)
    with pytest.raises(InputError, match="protocol is only for sheets and fer2013, got folders"):
        open_faces(tmp_path, options=FaceOptions(protocol="majority"))
    with pytest.raises(InputError, match="open_faces: faces keep their sizes: omit side"):
        open_faces(tmp_path, options=FaceOptions(side=48))
    pictures, votes = (tmp_path / "fear" / "a.png",), torch.eye(2)[:1]
    with pytest.raises(InputError, match=r"FacePictures: pictures must be 2, .* got 1"):
        FacePictures(pictures, votes, ("a", "b"), ("x", "y"))
    with pytest.raises(InputError, match=r"FacePictures: votes must be \(1, 3\)"):
        FacePictures(pictures, votes, ("a",), ("x", "y", "z"))


def test_shrinking_averages(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    (tmp_path / "fear").mkdir()
    Image.fromarray(stripes).save(tmp_path / "fear" / "a.png")
    inside = load_faces(tmp_path, side=16).faces[0, 1:-1, 1:-1].float()
    assert (inside - 100).abs().max() <= 3


def test_sheets_in_other_sizes_and_colours(tmp_path: Path) -> None:
    _write(tmp_path, 2 * ["a,9,0,0,0,0,0,0,0,0,0,sad,0"])
    assert load_faces(tmp_path, "train", side=48).faces.shape == (2, 48, 48)
    found = load_faces(tmp_path, "train", side=20, grey=False)
    assert found.faces.shape == (2, 20, 20, 3) and found.faces[1].unique().tolist() == [1]
    assert found.names == ("a", "a")


def test_broken_pictures(tmp_path: Path) -> None:
    _picture(tmp_path / "fear" / "a.png", 1)
    (tmp_path / "fear" / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (tmp_path / "sad" / "c.png").parent.mkdir()
    (tmp_path / "sad" / "c.png").write_text("hello")
    _picture(tmp_path / "sad" / "d.png", 4)
    with pytest.raises(InputError, match=r"fear/b.jpg: the JPEG data are damaged or cut short"):
        load_faces(tmp_path)
    with pytest.warns(UserWarning, match=r"2 of 4 pictures .* cannot be read; the first: .*b.jpg"):
        found = load_faces(tmp_path, on_error="skip")
    assert found.names == ("fear/a.png", "sad/d.png") and found.faces[:, 0, 0].tolist() == [1, 4]
    assert found.classes == ("sadness", "fear") and found.votes.tolist() == [[0, 1], [1, 0]]


def test_progress_goes_to_stderr_where_somebody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _picture(tmp_path / "fear" / "a.png")
    monkeypatch.setattr(datasets, "_LONG", 1)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    load_faces(tmp_path)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    load_faces(tmp_path)
    shown = capsys.readouterr()
    assert shown.out == "" and "reading faces" in shown.err


# The entry


def test_it_tells_what_it_knows(tmp_path: Path) -> None:
    missing = "/nothing: no such file or folder; expected\n"
    with pytest.raises(InputError, match=missing + r"sheets: folder/(.|\n)*list: "):
        load_faces(tmp_path / "nothing")
    with pytest.raises(InputError, match=rf"{missing}folder/\n  list_patition"):
        load_faces(tmp_path / "nothing", layout="rafdb")
    (tmp_path / "lfw").mkdir()
    with pytest.raises(InputError, match=r"has no known layout \(it holds lfw\); expected"):
        load_faces(tmp_path)
    _picture(tmp_path / "happy" / "a.png")
    _rafdb(tmp_path, "", "aligned")
    with pytest.raises(InputError, match="layouts: choose one with layout=: rafdb, folders"):
        load_faces(tmp_path)
    assert load_faces(tmp_path, "test", layout="rafdb").names == ("test_0001",)


def test_options_that_do_nothing_are_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "happy" / "a.png")
    for option, value, layouts in (
        ("protocol", "majority", "sheets and fer2013"),
        ("labels", "fer2013", "sheets and fer2013"),
        ("duplicates", True, "sheets"),
        ("images", "pictures", "list"),
        ("missing", "skip", "rafdb and list"),
    ):
        with pytest.raises(InputError, match=f"{option} is only for {layouts}, got folders"):
            load_faces(tmp_path, **{option: value})
    for option, message in (
        ("protocol", "protocol must be one of argmax, majority, got 'x'"),
        ("labels", "labels must be one of None, votes, fer2013, got 'x'"),
        ("missing", "missing must be one of raise, skip, got 'x'"),
        ("on_error", "on_error must be one of raise, skip, got 'x'"),
        ("layout", "layout must be auto, sheets, fer2013, rafdb, folders, list, got 'x'"),
    ):
        with pytest.raises(InputError, match=message):
            load_faces(tmp_path, **{option: "x"})
    with pytest.raises(InputError, match="side must be at least 1, got 0"):
        load_faces(tmp_path, side=0)
    with pytest.raises(InputError, match="protocol needs votes, but labels='fer2013' has none"):
        load_faces(tmp_path, layout="sheets", labels="fer2013", protocol="majority")


def test_the_page_about_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/data.md: its examples run, on data sets laid out as it shows."""
    page = DOCS.read_text()
    _write(tmp_path / "ferplus", ["a,6,0,0,1,3,0,0,0,0,0,angry,0"], split="valid")
    crowd = [f"fer003222{i}.png,7,0,0,3,0,0,0,0,0,0" for i in (4, 6, 7)]
    _write_fer2013(tmp_path / "fer2013", ["Training", "PrivateTest", "PrivateTest"], crowd)
    _rafdb(tmp_path / "raf-db", "EmoLabel", "Image/aligned")
    for name in ("anger", "happy", "sadness"):
        _picture(tmp_path / "ckplus" / name / "S010_004.png")
    for name in ("train/0", "train/1", "val/0", "val/7"):
        _picture(tmp_path / "affectnet" / name / "1.jpg")
    poses, occlusions = re.findall(r"^```\n(pose_30\S+) +(\S+)$", page, re.MULTILINE)[0]
    lines = re.findall(r"^  (\S+) {3,}(\S+ 8 \d)$", page, re.MULTILINE)
    (tmp_path / poses).write_text("\n".join(line for line, _ in lines))
    (tmp_path / occlusions).write_text("\n".join(line for _, line in lines))
    _picture(tmp_path / "pictures" / "fer0034656.png")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    with pytest.warns(UserWarning, match="1 of 2 pictures of jianfei_occlusion_list.txt"):
        for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(compile(example, "data.md", "exec"), scope)
    assert all(f'`"{layout}"`' in page for layout in datasets._TREES)
