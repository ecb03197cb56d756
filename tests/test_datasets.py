from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcnn.datasets import load_ferplus
from pcnn.errors import InputError

HEADER = (
    "image,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
    "unknown,NF,fer2013,duplicate\n"
)


def _write(folder: Path, lines: list[str], tiles: int = 40) -> None:
    (folder / "train.csv").write_text(HEADER + "".join(line + "\n" for line in lines))
    rows = tiles // 40
    sheet = np.repeat(np.repeat(np.arange(tiles).reshape(rows, 40), 48, 0), 48, 1)
    Image.fromarray(sheet.astype(np.uint8)).save(folder / "train_00.png")


def test_protocol_by_hand(tmp_path: Path) -> None:
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


def test_the_real_splits(shared_data: Path) -> None:
    """3,553 faces of valid follow argmax-8 (../shared/data/README.md); 53 of them are copies."""
    valid = load_ferplus(shared_data / "ferplus", "valid")
    assert len(valid) == 3500
    assert valid.votes.sum(1).allclose(torch.ones(3500))
    assert valid.votes.argmax(1).bincount().tolist() == [1323, 891, 435, 407, 314, 34, 72, 24]


def test_a_csv_of_another_kind_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, ["a,4,0,0,1,3,2,,0,0,0,angry,0"])
    with pytest.raises(InputError, match=r"train.csv must have the columns image, neutral, "):
        load_ferplus(tmp_path, "train")


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold train.csv and train_00.png"):
        load_ferplus(tmp_path, "train")
    _write(tmp_path, ["a,4,0,0,1,3,2,0,0,0,0,angry,0"] * 41)
    with pytest.raises(InputError, match="has 41 lines, its sheets only 40 tiles"):
        load_ferplus(tmp_path, "train")
    Image.new("L", (100, 48)).save(tmp_path / "train_00.png")
    with pytest.raises(InputError, match="must be 1920 pixels wide and a multiple of 48 high"):
        load_ferplus(tmp_path, "train")
