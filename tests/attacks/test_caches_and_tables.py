"""Caches, tables, lists and outputs to resume that are damaged, foreign, or made to do harm."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import seeds
from PIL import Image

from pcnn.arrays import read_arrays
from pcnn.commands.films.resumption import resume
from pcnn.commands.reports import Names
from pcnn.datasets.labels import FERPLUS_CLASSES, FaceSet
from pcnn.datasets.loading import load_faces
from pcnn.distributed import jobs
from pcnn.embeddings import Embeddings, read_triplets
from pcnn.engines.cache import load_cached
from pcnn.engines.sessions import open_session
from pcnn.errors import InputError, WeightsError
from pcnn.faces import alignment
from pcnn.faces.detector import Detector
from pcnn.training.photographs import _fingerprint, read_photographs
from pcnn.weights.hub import fetch

SOUND = seeds.embeddings()[0]
_METHOD = SOUND.index(b"PK\x01\x02") + 10


def packed(**members: bytes) -> bytes:
    """An archive of members, compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def header(shape: str, dtype: str = "<f4") -> bytes:
    """An .npy file of a header alone."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


# Bytes that are no arrays, each for another reason.
NO_ARRAYS = {
    "nothing": b"",
    "text": b"no archive",
    "a pickle": b"\x80\x04N.",
    "an object that runs a command": seeds.embeddings()[4],
    "terabytes": header("(1000000, 1000000)"),
    "terabytes in an archive": packed(features=header("(1000000, 1000000)")),
    "a shape below zero": header("(-1, -5)"),
    "a header that does not end": header("((((((((")[:60],
    "tokens that do not end": header("'''"),
    "objects": header("(1,)", "|O"),
    "texts without size": header("(1000000000000,)", "<U0"),
    "a bomb": packed(features=bytes(1 << 28)),
    "another method of compression": SOUND[:_METHOD] + b"\x63\x00" + SOUND[_METHOD + 2 :],
    "an archive cut in half": SOUND[: len(SOUND) // 2],
    "a member that is damaged": SOUND[:200] + b"\xa5" * 8 + SOUND[208:],
}


@pytest.mark.parametrize("content", NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_files_that_are_no_arrays(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: not a readable file of arrays"):
        read_arrays(path)
    with pytest.raises(InputError, match=r"x\.npz: cannot be read as embeddings"):
        Embeddings.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", np.array([["a"], ["b"]])),
        ("features", np.full((2, 4), np.nan, np.float32)),
        ("features", np.ones((2, 4), complex)),
        ("features", np.full((2, 4), 1e300)),
        ("paths", np.array([[1.5, 2.5]])),
        ("paths", np.array([["a", "b"], ["c", "d"]])),
        ("face_index", np.array([0.5, 1.5])),
        ("boxes", np.array([["a"] * 4] * 2)),
        ("weights_sha256", np.array(["ab", "cd"])),
    ],
    ids=range(9),
)
def test_embeddings_that_are_none(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = dict(np.load(io.BytesIO(SOUND)))
    path.write_bytes(seeds.npz(**arrays))
    assert Embeddings.load(path).paths == ("a.jpg", "b.jpg")
    path.write_bytes(seeds.npz(**arrays | {name: value}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers too large for single precision
        with pytest.raises(InputError, match=r"x\.npz: cannot be read as embeddings"):
            Embeddings.load(path)


@pytest.mark.tables
def test_embeddings_in_columns_that_do_not_fit(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    path.write_bytes(seeds.embeddings_parquet()[0])
    assert Embeddings.load(path).paths == ("a.jpg", "b.jpg")
    sound = parquet.read_table(path)
    for name, values in (
        ("features", [[1.0], [1.0, 2.0]]),
        ("features", [None, [1.0]]),
        ("path", ["a", None]),
        ("path", [1, 2]),
        ("face_index", [0, None]),
        ("x1", ["a", "b"]),
    ):
        place = sound.column_names.index(name)
        parquet.write_table(sound.set_column(place, name, arrow.array(values)), path)
        with pytest.raises(InputError, match=r"x\.parquet: cannot be read as embeddings"):
            Embeddings.load(path)
    parquet.write_table(sound.replace_schema_metadata(None), path)
    with pytest.raises(InputError, match=r"x\.parquet: cannot be read as embeddings"):
        Embeddings.load(path)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Detector:
    """A detector that finds nothing in pictures of faces."""
    found = alignment.find_landmarks
    assert callable(found)
    monkeypatch.setattr(alignment, "find_landmarks", lambda pictures, _: [None] * len(pictures))
    return Detector.load("mobilenet")


def test_cached_landmarks_that_are_damaged_are_made_anew(
    blind: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    faces = torch.zeros(2, 8, 8, dtype=torch.uint8)
    path = alignment.landmarks_file(faces, blind)
    assert path is not None
    others = seeds.landmarks()[1:]
    for content in (*NO_ARRAYS.values(), *others, seeds.npy(np.ones((3, 5, 2), np.float32))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        found = alignment.dataset_landmarks(faces, blind)
        assert found.shape == (2, 5, 2) and np.isnan(found).all()
        np.testing.assert_array_equal(np.load(path), found)
    path.write_bytes(seeds.landmarks()[0])  # a sound one is believed
    assert alignment.dataset_landmarks(faces, blind)[1, 4, 1] == 19


@pytest.mark.engines
@pytest.mark.parametrize("content", [b"", b"no model", seeds.pictures()[0]], ids=range(3))
def test_a_converted_network_that_is_damaged_is_converted_anew(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)

    def file(made: bytes) -> Path:
        if not path.is_file():
            path.write_bytes(made)
        return path

    def load(path: Path) -> Any:
        return open_session(path, "onnxruntime")

    (model,) = seeds.onnx_models()
    session = load_cached(lambda: file(model), load)
    assert session({"x": np.float32([2])})["y"].tolist() == [4]
    assert path.read_bytes() == model
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.onnx: onnxruntime cannot load it"):
        load_cached(lambda: file(content), load)


class Blind:
    """A teacher that finds nothing."""

    def detect_upright(self, images: Any, min_score: float) -> Any:
        return [()] * len(images)


def test_cached_faces_that_are_damaged_are_found_anew(tmp_path: Path) -> None:
    archive, cache = tmp_path / "x.tar", tmp_path / "x.npz"
    archive.write_bytes(seeds.photograph_archive())
    teacher: Any = Blind()
    files = [("a.jpg", seeds.pictures()[0]), ("b.png", seeds.pictures()[5])]
    sound, *odd = seeds.teacher_caches(_fingerprint(files, teacher))
    arrays = dict(np.load(io.BytesIO(sound)))
    for changed in (
        {"counts": np.float32([3, -1])},
        {"counts": np.float32([1, 2])},
        {"counts": np.ones(2)},
        {"scores": np.float32([np.nan, 1])},
        {"boxes": np.ones((2, 5), np.float32)},
        {"fingerprint": np.array(["ab"])},
    ):
        odd.append(seeds.npz(**arrays | changed))
    for content in (*NO_ARRAYS.values(), *odd):
        cache.write_bytes(content)
        found = read_photographs(archive, teacher, cache=cache)
        assert [len(each.faces.scores) for each in found] == [0, 0]
        assert np.load(cache)["counts"].tolist() == [0, 0]
    cache.write_bytes(sound)  # a sound one is believed
    assert [len(e.faces.scores) for e in read_photographs(archive, teacher, cache=cache)] == [1, 1]


def test_photographs_that_are_no_photographs(tmp_path: Path) -> None:
    """Pillow would pass PostScript to another program, whatever the name of the file."""
    path = tmp_path / "x.tar"
    broken = seeds.pictures()[0][:80] + bytes(200)
    gif = io.BytesIO()
    Image.new("L", (2, 2)).save(gif, "GIF")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    for content in (broken, gif.getvalue(), postscript, b"", seeds.pictures()[4][:60]):
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("a.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        with pytest.raises(InputError, match=r"read_photographs: cannot decode a\.jpg"):
            read_photographs(path, Blind())  # type: ignore[arg-type]
    path.write_bytes(b"\x1f\x8b\x08" + bytes(40))
    with pytest.raises(InputError, match=r"read_photographs: cannot read archive"):
        read_photographs(path, Blind())  # type: ignore[arg-type]


FRAME = json.loads(seeds.resumed_lines()[0].splitlines()[2])


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "3", "null", "[" * 100_000, '{"source": [1]}', '{"source": 3}', "{}", "x"),
        *('{"source": "a", "frame": [1]}', '{"source": "a", "frame": 1e999}'),
        *('{"source": "a", "frame": {}}', '{"source": "a", "frame": "x"}'),
        *(json.dumps(FRAME | {name: None}) for name in ("raw_a", "x1", "detection_score")),
        *(json.dumps(FRAME | {"raw_b": value}) for value in (1e999, "nan", [1], 1e300)),
    ],
    ids=range(19),
)
def test_an_output_that_cannot_be_resumed(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    whole = "".join(json.dumps(FRAME | {"frame": index}) + "\n" for index in (3, 5))
    path.write_text(line + "\n" + whole)
    before = path.read_bytes()
    arguments = argparse.Namespace(output=path, format="jsonl", faces=False)
    with pytest.raises(InputError, match=r"x\.jsonl: --resume cannot continue this file"):
        found = resume(arguments, Names(("a", "b")), films=True, ended={})
        for film in found.films:
            list(found.known(film))
    assert before.startswith(path.read_bytes())  # what it may have cut is the last frame


def test_votes_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "train_00.png").write_bytes(seeds.sheet())
    sound = seeds.sheet_tables()[0].decode()
    for votes in ("9" * 400, "-3", "1.5", "nan", "1001", "1e5", "\uff11" * 20):
        (tmp_path / "train.csv").write_text(sound.replace("a.png,4", f"a.png,{votes}"))
        with pytest.raises(InputError, match=r"must have the columns .* numbers of votes"):
            load_faces(tmp_path, "train", layout="sheets")


def test_numbers_without_end_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("9" * 5000 + "/a.jpg\n")
    faces = FaceSet(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.eye(8)[:1], ("a",))
    assert faces.classes == FERPLUS_CLASSES
    with pytest.raises(InputError, match="has no name; give numbering="):
        load_faces(path, layout="list", images=faces, numbering={1: "sad"})


@pytest.mark.parametrize("edges", ["-inf, 0.4", "0.1, inf", "nan, nan", "0.4, 0.1"])
def test_triplets_without_a_face(edges: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(seeds.triplet_tables()[0])
    assert len(read_triplets(path)) == 2
    path.write_text(path.read_text().replace("0.1, 0.4", edges, 1))
    with pytest.raises(InputError, match=r"x\.csv, line 1: a face must lie left < right"):
        read_triplets(path)


def test_triplets_far_beyond_their_pictures_or_of_no_address(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    sound = seeds.triplet_tables()[0].decode()
    path.write_text(sound.replace("0.1, 0.4", "-1e308, 1e308"))
    assert all(c.cut(np.zeros((4, 5, 3), np.uint8)).size for c in read_triplets(path).crops)
    path.write_text(sound.replace("http://x/", "http://[x/"))
    with pytest.raises(InputError, match=r"x\.csv, line 1: "):
        read_triplets(path)


@pytest.mark.parametrize(
    "told",
    [
        *("[" * 100_000, "null", "[]", '{"pcnn": []}', '{"pcnn": {"file": 3, "sha256": "a"}}'),
        *('{"pcnn": {"file": "x", "sha256": {}}}', '{"pcnn": {"file": "a\\u0000", "sha256": "a"}}'),
        '{"pcnn": {"file": "x.safetensors"}, "pcnn": {}}',
    ],
    ids=range(8),
)
def test_what_a_repository_says_of_itself(told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(told)
    with pytest.raises(WeightsError, match=r"its config\.json is none of pcnn's"):
        fetch(tmp_path)


@pytest.mark.parametrize("plan", ["", "[" * 100_000, "null", "[]", "\udcff", '{"schema": 1}'])
def test_a_jobs_plan_that_is_another(plan: str, tmp_path: Path) -> None:
    (tmp_path / "_job").mkdir()
    (tmp_path / "_job" / "plan.json").write_text(plan, errors="surrogateescape")
    with pytest.raises(InputError, match="has results of another job"):
        jobs.prepare(tmp_path, [], jobs.JobOptions())


@pytest.mark.tables
def test_a_jobs_file_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "faces-00000000.parquet"
    for content in (b"", b"PAR1" * 8, seeds.embeddings_parquet()[0]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged, or no file of this command"):
            jobs.outcome(path, 0)


def test_an_archive_whose_part_is_larger_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones(3))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 20  # the stored size in the list of contents
    content[place : place + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="a part of it is larger than the file"):
        read_arrays(path)


def test_a_repository_whose_file_has_a_name_that_is_too_long(tmp_path: Path) -> None:
    told = {"file": "x" * 5000 + ".safetensors", "sha256": "ab" * 32}
    told |= {"architecture": "trunk", "classes": ["a", "b"], "size": 32}
    (tmp_path / "config.json").write_text(json.dumps({"pcnn": told}))
    with pytest.raises(WeightsError, match=r"its config.json is none of pcnn's .*too long"):
        fetch(tmp_path)
