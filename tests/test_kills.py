"""Processes that are killed, two that write one file, a disk that is full: what was whole stays."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pcnn import weights
from pcnn.disk import whole_file

SETTINGS = {**os.environ, "OMP_NUM_THREADS": "1"}
PREDICT = "import sys; from pcnn.commands.predict import main; sys.exit(main())"
WRITE = """
import sys, torch
from pcnn import weights
number = 0
print("begun", flush=True)
while True:
    number += 1
    weights.write(sys.argv[1], {"x": torch.full((300_000,), float(number))}, {"number": number})
"""


def start(code: str, *words: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *words]
    output = subprocess.PIPE if code == WRITE else subprocess.DEVNULL
    return subprocess.Popen(command, cwd=cwd, env=SETTINGS, stdout=output)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def assert_whole(path: Path) -> int:
    """The number that a file of WRITE's was written with, in all of its values."""
    tensors, metadata = weights.read(path)
    assert tensors["x"].shape == (300_000,) and bool((tensors["x"] == metadata["number"]).all())
    return int(metadata["number"])


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path, chance = tmp_path / "x.safetensors", random.Random(0)
    for _ in range(4):
        process = start(WRITE, str(path))
        assert process.stdout and process.stdout.readline() == b"begun\n"
        time.sleep(chance.uniform(0.05, 0.4))
        kill(process)
        if path.exists():
            assert_whole(path)
    assert path.exists()


def test_two_writers_and_a_reader_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    writers = [start(WRITE, str(path)) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout and writer.stdout.readline() == b"begun\n"
        until, seen = time.monotonic() + 60, set()
        while len(seen) < 20 and time.monotonic() < until:
            if path.exists():
                seen.add(assert_whole(path))
    finally:
        for writer in writers:
            kill(writer)
    assert len(seen) == 20


def test_a_killed_prediction_is_finished(astronaut: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(30):
        shutil.copy(astronaut, photos / f"{number:02}.png")
    words = ["photos", "--weights", "small", "--device", "cpu", "--format", "jsonl", "--output"]
    whole = start(PREDICT, *words, "whole.jsonl", cwd=tmp_path)
    assert whole.wait(timeout=300) == 0
    torn, chance, kills = tmp_path / "torn.jsonl", random.Random(1), 0
    for _ in range(3):
        process = start(PREDICT, *words, torn.name, "--resume", cwd=tmp_path)
        before = torn.stat().st_size if torn.exists() else 0
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if torn.exists() and torn.stat().st_size > before:
                time.sleep(chance.uniform(0, 0.1))
                break
            time.sleep(0.005)
        kills += process.poll() is None
        kill(process)
    assert kills, "it was never killed in the middle"
    assert start(PREDICT, *words, torn.name, "--resume", cwd=tmp_path).wait(timeout=300) == 0
    assert torn.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len([json.loads(line) for line in torn.read_text().splitlines()]) == 30


def test_a_full_disk_leaves_the_file_before(small_disk: Path) -> None:
    path = small_disk / "x.safetensors"
    weights.write(path, {"x": torch.ones(10)}, {"number": 1})
    with pytest.raises(OSError, match="No space left"):
        weights.write(path, {"x": torch.ones(10**6)}, {"number": 2})
    assert weights.read(path)[1] == {"number": 1}
    assert [found.name for found in small_disk.iterdir()] == [path.name]


def test_a_block_that_fails_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of power after the rename could leave an empty file in place of the old one."""
    path, flushed = tmp_path / "x", []
    path.write_bytes(b"before")

    def flush(descriptor: int) -> None:
        assert path.read_bytes() == b"before"
        os.lseek(descriptor, 0, os.SEEK_SET)
        flushed.append(os.read(descriptor, 10))

    monkeypatch.setattr(os, "fsync", flush)
    with whole_file(path) as temporary:
        temporary.write_bytes(b"after")
    assert flushed == [b"after"] and path.read_bytes() == b"after"
