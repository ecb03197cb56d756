"""Kills before every change of a file, and caches that two share, that are full or read-only."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import write_kind
from killed import run_killed
from PIL import Image

from pcnn.disk import whole_file
from pcnn.embeddings import Embeddings
from pcnn.engines.cache import cached_file
from pcnn.engines.export import _put_in_place
from pcnn.errors import InputError, WeightsError
from pcnn.faces import alignment
from pcnn.faces.detector import Detector
from pcnn.weights import read

TESTS = Path(__file__).parent
PIECES = 6


class Network:
    """What the cache of converted networks asks of a graph."""

    example = (torch.ones(1, 2),)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(3)}


def write_pieces(_: Any, path: Path) -> None:
    """Write a converted network bit by bit."""
    for piece in range(PIECES):
        with path.open("ab") as file:
            file.write(bytes([piece]) * 1000)


WHOLE = b"".join(bytes([piece]) * 1000 for piece in range(PIECES))


def convert(write: Any = write_pieces) -> Path:
    network: Any = Network()
    return cached_file(network, "x.onnx", write, announced="converting …")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pcnn"


def test_a_conversion_killed_before_each_of_its_changes(cache: Path) -> None:
    killed, change = 0, 0
    while True:
        change += 1
        if run_killed(convert, cache, change=change) is not None:
            break
        killed += 1
        found = [path for path in cache.rglob("x-*.onnx") if not path.name.startswith("part-")]
        assert not found or [path.read_bytes() for path in found] == [WHOLE]
        if found:  # as if this had never been
            found[0].unlink()
    assert killed > PIECES  # its folders, its pieces, and the renaming
    assert convert().read_bytes() == WHOLE


def test_two_processes_that_convert_at_the_same_time(cache: Path) -> None:
    """Each has written half of its file when the other one begins the second half."""
    context = multiprocessing.get_context("fork")
    both = context.Barrier(2)

    def write(_: Any, path: Path) -> None:
        path.write_bytes(WHOLE[:2500])
        both.wait(60)
        with path.open("ab") as file:
            file.write(WHOLE[2500:])

    def work() -> None:
        assert convert(write).read_bytes() == WHOLE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads
        children = [context.Process(target=work) for _ in range(2)]
        for child in children:
            child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert [path.read_bytes() for path in cache.rglob("*") if path.is_file()] == [WHOLE]


@pytest.fixture(params=["a file in its place", "a read-only disk"])
def closed_cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A cache that cannot be written, not even by root."""
    place = tmp_path / "closed"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    if request.param == "a file in its place":
        place.write_bytes(b"")
        yield place
        return
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(place)]
    try:
        failed = subprocess.run(mount, capture_output=True, check=False).returncode
    except FileNotFoundError:
        failed = 1
    if failed:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_cache_that_cannot_be_written(
    closed_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"cannot be written .*set \$XDG_CACHE_HOME"):
        convert()
    faces = torch.zeros(2, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr(alignment, "find_landmarks", lambda pictures, _: [None] * len(pictures))
    with pytest.warns(UserWarning, match="cannot be kept for the next time"):
        found = alignment.dataset_landmarks(faces, Detector.load("mobilenet"))
    assert found.shape == (2, 5, 2)


def test_a_cache_on_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))

    def write(_: Any, path: Path) -> None:
        path.write_bytes(bytes(3 << 20))

    with pytest.raises(WeightsError, match=r"cannot be written \(No space left"):
        convert(write)
    monkeypatch.setattr(alignment, "find_landmarks", lambda pictures, _: [None] * len(pictures))
    faces = torch.zeros(40_000, 2, 2, dtype=torch.uint8)
    with pytest.warns(UserWarning, match=r"cannot be kept for the next time"):
        found = alignment.dataset_landmarks(faces, Detector.load("mobilenet"))
    assert found.shape == (40_000, 5, 2)
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
    convert()  # what is small enough is kept


def test_embeddings_on_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "x.npz"

    def embeddings(count: int) -> Embeddings:
        features = np.ones((count, 100), np.float32)
        boxes = np.ones((count, 4), np.float32)
        return Embeddings(features, ("a",) * count, np.arange(count), boxes, "ab")

    embeddings(3).save(path)
    with pytest.raises(InputError, match="cannot be written"):
        embeddings(30_000).save(path)
    assert len(Embeddings.load(path).paths) == 3 and list(small_disk.iterdir()) == [path]


def test_an_export_of_two_files_killed_before_each_of_its_changes(tmp_path: Path) -> None:
    """A model never stands beside the numbers of another one."""
    target, new = tmp_path / "out" / "x.xml", tmp_path / "new"
    for folder in (target.parent, new):
        folder.mkdir()
    for change in range(1, 10):
        for path, content in ((target, b"old"), (new / "x.xml", b"new")):
            path.write_bytes(content)
            path.with_suffix(".bin").write_bytes(content)
        made = run_killed(lambda: _put_in_place(new / "x.xml", target), tmp_path, change=change)
        if target.exists():
            assert target.read_bytes() == target.with_suffix(".bin").read_bytes()
        if made is not None:
            break
    assert made == 3 and target.read_bytes() == b"new"


def test_a_file_written_by_pieces_killed_before_each_of_its_changes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")

    def write() -> None:
        with whole_file(path) as temporary:
            write_pieces(None, temporary)

    last = PIECES + 3  # opened, written, opened for the disk, renamed
    for change in range(1, last):
        assert run_killed(write, tmp_path, change=change) is None
        assert path.read_bytes() == b"before"
    assert run_killed(write, tmp_path, change=last) is None  # when it is renamed already
    assert path.read_bytes() == WHOLE


# Runs in a process of its own, since a fork of one that has learnt something cannot learn.
# Before it stands what makes `train(name)`, the work whose files lie in the folder `name`;
# `outputs`, the names of its weights and of its checkpoint; `options_rule`, for the options in the
# checkpoint; and `moments`, the least and the most seconds after which it is killed.
_KILLS = """
import json, random
from killed import run_killed
from pcnn.weights import read
from pcnn.weights.checkpoints import read_training

changes = run_killed(train("whole"), folder / "whole")
chance, killed = random.Random(5), 0
for trial in range(6):
    # The first three never reach the end, however quick the machine is.
    change = chance.randint(1, changes // 4) if trial < 3 else 0
    seconds = 0 if change else chance.uniform(*moments)
    made = run_killed(train("torn"), folder / "torn", change=change, seconds=seconds)
    killed += made is None
    weights, checkpoint = (folder / "torn" / name for name in outputs)
    if weights.exists():
        read(weights)
    if checkpoint.exists():
        read_training(checkpoint, "cpu", options_rule)
    if made is not None:
        break
if made is None:
    run_killed(train("torn"), folder / "torn")
print(json.dumps([changes, killed]))
"""

_TRUNK = """
import sys
from pathlib import Path
from unittest import mock
import matplotlib.figure, torch
from pcnn.training.expression import run
from pcnn.training.expression.options import ExpressionOptions
from pcnn.weights.schema import anything, mapping

folder = Path(sys.argv[1])
options_rule = mapping(anything)
outputs, moments = ("x.safetensors", "x.safetensors.checkpoint"), (0.05, 0.6)
torch.set_num_threads(1)
run._CHECKPOINT_SECONDS = -1  # a checkpoint after each step
run.Detector = mock.MagicMock()
run.measure_template = lambda *_: [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.7], [0.65, 0.7]]

def train(name):
    options = ExpressionOptions(
        "trunk", str(folder / "data"), str(folder / name / "x.safetensors"), size=16, width=1,
        batch=4, epochs=2, backbone="mobilenet",
    )
    return lambda: run.train_expression(options)
"""

_DETECTOR = """
import sys
from pathlib import Path
import torch
from pcnn.training.detector.options import DetectorOptions
from pcnn.training.detector.run import train_detector
from pcnn.weights.schema import text

folder = Path(sys.argv[1])
options_rule = text
outputs, moments = ("x.safetensors", "detector.checkpoint.pt"), (0.2, 3.0)
torch.set_num_threads(1)

def train(name):
    options = DetectorOptions(
        folder / "photographs.tar", folder / "teacher.safetensors", folder / name / outputs[0],
        steps=3, polish=1, batch=2, side=64, early=0, early_side=64, save_every=1, start="scratch",
    )
    return lambda: train_detector(options)
"""


def _run_kills(training: str, folder: Path) -> None:
    """Kill a training again and again, and hold what it made against that of an unbroken one."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", training + _KILLS, str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    changes, killed = json.loads(done.stdout.splitlines()[-1])
    assert changes > 16 and killed >= 3
    expected, found = (read(folder / name / "x.safetensors") for name in ("whole", "torn"))
    assert found[1] == expected[1]
    assert all(torch.equal(found[0][name], own) for name, own in expected[0].items())


def _log(path: Path) -> list[dict[str, object]]:
    """A log's lines without what depends on the clock."""
    lines = map(json.loads, path.read_text().splitlines())
    return [{n: v for n, v in line.items() if n not in ("time", "seconds")} for line in lines]


@pytest.mark.train
def test_a_training_killed_at_random_moments(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("valid", 2)):
        for label in ("happiness", "sadness"):
            place = tmp_path / "data" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 255, (16, 16), np.uint8)
                Image.fromarray(pixels).save(place / f"{label}{number}.png")
    _run_kills(_TRUNK, tmp_path)
    whole, torn = (tmp_path / name / "x.safetensors" for name in ("whole", "torn"))
    steps, resumed = (
        [line["step"] for line in _log(path.with_name("x.safetensors.log.jsonl"))]
        for path in (whole, torn)
    )
    assert steps == resumed == [4, 8]
    assert not torn.with_name("x.safetensors.checkpoint").exists()


@pytest.mark.train
def test_a_detectors_training_killed_at_random_moments(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    with tarfile.open(tmp_path / "photographs.tar", "w") as archive:
        for number in range(14, 24):  # number 23 is held out, by its name
            stream = io.BytesIO()
            pixels = draw.integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(pixels).resize((96, 80)).save(stream, "PNG")
            member = tarfile.TarInfo(f"photograph{number}.png")
            member.size = stream.tell()
            archive.addfile(member, io.BytesIO(stream.getvalue()))
    write_kind("detector", tmp_path / "teacher.safetensors")
    _run_kills(_DETECTOR, tmp_path)
    whole, torn = (tmp_path / name for name in ("whole", "torn"))
    expected = _log(whole / "detector.log.jsonl")
    assert [(line["step"], line["photographs"]) for line in expected] == [
        *((step, 1) for step in (1, 2, 3, 4))
    ]
    assert _log(torn / "detector.log.jsonl") == expected
    faces = [(folder / "teacher-faces.npz").read_bytes() for folder in (whole, torn)]
    assert faces[0] == faces[1]
