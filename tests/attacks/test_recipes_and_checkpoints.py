"""Recipes and checkpoints of trainings that are damaged, foreign, or made to do harm."""

from __future__ import annotations

import copy
import io
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError, WeightsError
from pcnn.training.expression.loop import ExpressionTraining
from pcnn.training.expression.options import ExpressionOptions
from pcnn.training.expression.recipes import read_recipe
from pcnn.training.logs import trim_log
from pcnn.weights.containers import check_container
from pcnn.weights.detector import read_detector
from pcnn.weights.upstream import load_upstream

pytestmark = pytest.mark.train


def _training(checkpoint: Path | None = None) -> ExpressionTraining:
    faces = torch.arange(8 * 16 * 16).remainder(251).view(8, 16, 16).to(torch.uint8)
    votes = torch.eye(2).repeat(4, 1)
    faces_set = FaceSet(faces, votes, tuple(map(str, range(8))), ("a", "b"))
    options = ExpressionOptions("trunk", "x", "x", size=16, width=2, batch=4)
    return ExpressionTraining(options, faces_set, checkpoint=checkpoint)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "size = 1e400",
            "learning_rate = nan",
            "learning_rate = inf",
            "size = true",
            "weight_decay = nan",
        ),
        *("width = 1000000000", "a = " + "[" * 50_000, "size = ", "[augmentation]\nscale = nan"),
        *(
            "augmentation = 3",
            "learning_rate = " + "9" * 400,
            "teachers = 3",
            "\0",
            "width = -1",
            "x = 1",
        ),
    ],
    ids=range(15),
)
def test_recipes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError):
        ExpressionOptions(data="x", output="x", **{"network": "trunk", **read_recipe(path)})


@pytest.mark.parametrize("field", ["options", "step", "learner", "average", "optimizer", "targets"])
@pytest.mark.parametrize(
    "value",
    [None, 3, "x", [], {}, {"a": 1}, -1, 1e30, [[1.0]], torch.ones(2), [torch.ones(3)]],
    ids=repr,
)
def test_fields_of_a_checkpoint(field: str, value: Any, tmp_path: Path) -> None:
    training, path = _training(), tmp_path / "x.checkpoint.pt"
    training.advance()
    training.save(path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, field: value}, path)
    harmless = (field == "step" and repr(value) == "3") or (field == "targets" and value is None)
    if harmless:
        _training(path).advance()
        return
    with pytest.raises((WeightsError, InputError), match=r"checkpoint\.pt"):
        _training(path)


def test_tensors_of_a_checkpoint(tmp_path: Path) -> None:
    training, path = _training(), tmp_path / "x.checkpoint.pt"
    training.advance()
    training.save(path)
    sound = torch.load(path, weights_only=True)
    moments = sound["optimizer"]["state"]
    for name in ("learner", "average"):
        state = copy.deepcopy(sound)
        state[name]["network.head.bias"][0] = torch.nan
        torch.save(state, path)
        with pytest.raises(WeightsError, match=rf"{name}\.network\.head\.bias holds NaN"):
            _training(path)
        state[name]["network.head.bias"] = torch.zeros(3)
        torch.save(state, path)
        other = r"belongs to another network, see network\.head\.bias"
        with pytest.raises(WeightsError, match=other):
            _training(path)
    for other in (torch.ones(1, 1, 1, 1, 1), torch.full_like(moments[0]["exp_avg"], torch.inf)):
        state = copy.deepcopy(sound)
        state["optimizer"]["state"][0]["exp_avg"] = other
        torch.save(state, path)
        with pytest.raises(WeightsError, match="optimizer"):
            _training(path)


def test_every_cut_of_a_checkpoint(tmp_path: Path) -> None:
    training, path = _training(), tmp_path / "x.checkpoint.pt"
    training.save(path)
    content = path.read_bytes()
    for cut in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:cut])
        with pytest.raises(WeightsError, match=r"not a readable checkpoint"):
            _training(path)


def test_a_tensor_larger_than_its_file(tmp_path: Path) -> None:
    """A pickle of a hundred bytes may describe a tensor of four terabytes."""
    path = tmp_path / "vast.pth"
    vast = torch.ones(1).expand(10**6, 10**6)
    torch.save({"state_dict": {"fc.weight": vast, "body.stage1.0.0.weight": vast}}, path)
    for load in (load_upstream, read_detector):
        with pytest.raises(WeightsError, match=r"but the file holds 4 bytes"):
            load(path)


def test_tensors_of_odd_kinds(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    for odd in (torch.ones(2, device="meta"), torch.ones(2).to_sparse(), torch.ones(2) * 1j):
        torch.save({"body.stage1.0.0.weight": odd}, path)
        with pytest.raises(WeightsError, match=r"odd\.pth"):
            read_detector(path)
        with pytest.raises(WeightsError, match=r"odd\.pth"):
            load_upstream(path)


@pytest.mark.parametrize(
    "text",
    [
        *("size = 0x" + "f" * 5000, "seed = 0o" + "7" * 6000, "batch = 99999999999999999999"),
        *("teachers = [1]", "teachers = [0x" + "f" * 5000 + "]"),
    ],
    ids=range(5),
)
def test_numbers_without_end_in_a_recipe(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"recipe\.toml: "):
        read_recipe(path)


def legacy(state: object) -> bytes:
    """A checkpoint in the format before PyTorch 1.6."""
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def _hostile_checkpoints() -> dict[str, bytes]:
    """Files that torch.load would unpack, run, or take memory for."""
    state, archive = {"x": torch.ones(3)}, io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("storages", "tensors", "pickle"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    bomb, script, whole = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.pth", bytes(1 << 28))
    torch.save(state, script)
    torch.save(state, whole)
    with zipfile.ZipFile(script, "a") as packed:
        packed.writestr("archive/constants.pkl", b"")
    numbers = legacy(state)
    # The number of values of the storage, which a pickle has as K and one byte.
    place = numbers.index(b"K\x03N")
    return {
        "a tar archive": archive.getvalue(),
        "an archive of zeros": bomb.getvalue(),
        "a program": script.getvalue(),
        "more numbers than bytes": numbers[:place]
        + b"\x8a\x06"
        + b"\xff" * 5
        + b"\x7fN"
        + numbers[place + 3 :],
        "numbers below zero": numbers[:place] + b"J\xff\xff\xff\xffN" + numbers[place + 3 :],
        "a memory of billions": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "a text of gigabytes": b"\x80\x02T\xff\xff\xff\x7fx.",
        "an archive's start alone": whole.getvalue()[:40],
        "another pickle": pickle.dumps({"x": 1}),
    }


@pytest.mark.parametrize("attempt", _hostile_checkpoints())
def test_checkpoints_that_attempt(attempt: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(_hostile_checkpoints()[attempt])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_upstream, read_detector, _training):
        with pytest.raises(WeightsError, match=r"x\.pth: (not a readable|is a TorchScript)"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


# Runs in a process of its own, which is held to its limits for ever.
_LIMITED = """
import sys, tempfile
from pathlib import Path
import torch
from fuzz.limits import attempt, limit_process
from pcnn.weights.detector import read_detector
from pcnn.weights.upstream import load_upstream

folder = Path(sys.argv[1])
torch.set_num_threads(1)
limit_process(folder)
for path in sorted(folder.glob("*.pth")):
    for read in (load_upstream, read_detector):
        outcome = attempt(lambda content, scratch: read(path), b"", folder)
        assert outcome.startswith("WeightsError"), (path, outcome)
print("all refused")
"""


def _lengths() -> dict[str, bytes]:
    """A piece of a pickle for each opcode that names a length, which lies: above a gigabyte."""
    kinds = {
        pickletools.TAKEN_FROM_ARGUMENT4: ("<i", 2**31 - 1),
        pickletools.TAKEN_FROM_ARGUMENT4U: ("<I", 2**32 - 1),
        pickletools.TAKEN_FROM_ARGUMENT8U: ("<Q", 2**32),
    }
    named = {op.name: op for op in pickletools.opcodes if op.arg and op.arg.n in kinds}
    found = {
        name: op.code.encode("latin-1") + struct.pack(*kinds[op.arg.n]) + b"x"
        for name, op in named.items()
        if op.arg is not None
    }
    # The opcodes for a frame and for a place in the memory have plain numbers as arguments.
    frame, place = pickle.FRAME + struct.pack("<Q", 2**32), b"N" + pickle.LONG_BINPUT
    return {**found, "FRAME": frame, "LONG_BINPUT": place + struct.pack("<I", 2**32 - 1)}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, for its limits")
def test_every_length_that_a_pickle_names_under_a_limit_of_memory(tmp_path: Path) -> None:
    """Lengths of four gigabytes in files of a few bytes, where a gigabyte is left."""
    lengths = _lengths()
    assert {"BYTEARRAY8", "BINBYTES8", "BINUNICODE8", "BINSTRING", "LONG4"} <= set(lengths)
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)
    for name, piece in lengths.items():
        whole = b"\x80\x05" + piece + b"."
        framed = pickle.PROTO + b"\x05" + pickle.FRAME + struct.pack("<Q", len(piece)) + piece
        (tmp_path / f"{name}-first.pth").write_bytes(whole)
        (tmp_path / f"{name}-later.pth").write_bytes(magic + pickle.dumps(1001, 2) + whole)
        (tmp_path / f"{name}-framed.pth").write_bytes(magic + framed + b".")
        archive = io.BytesIO()
        torch.save({"x": torch.ones(3)}, archive)
        with (
            zipfile.ZipFile(archive) as sound,
            zipfile.ZipFile(tmp_path / f"{name}-archive.pth", "w") as changed,
        ):
            for member in sound.namelist():
                content = whole if member.endswith("data.pkl") else sound.read(member)
                changed.writestr(member, content)
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(filter(None, (str(tests), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and done.stdout == "all refused\n", done.stderr


def test_a_byte_array_that_is_there(tmp_path: Path) -> None:
    """Another object beside the weights, which is read past."""
    path = tmp_path / "x.pth"
    stream = io.BytesIO()
    for part in (torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}):
        pickle.dump(part, stream, protocol=2)
    pickle.dump({"state_dict": {}, "recorder": bytearray(b"abc")}, stream, protocol=5)
    pickle.dump([], stream, protocol=2)
    path.write_bytes(stream.getvalue())
    check_container(path)
    with pytest.raises(WeightsError, match="fc"):
        load_upstream(path)


def test_a_program_that_two_readers_of_archives_see_differently(tmp_path: Path) -> None:
    """Python's reader finds the last directory of an archive; the file begins with another."""
    script, plain = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps({}))
    for first, second in ((script, plain), (plain, script)):
        path = tmp_path / "x.pth"
        path.write_bytes(first.getvalue() + second.getvalue())
        for read in (load_upstream, read_detector):
            with pytest.raises(WeightsError, match=r"x\.pth: "):
                read(path)


@pytest.mark.parametrize(
    "state",
    [
        {"fc.bias": torch.tensor(1.0), "features1.conv1": torch.ones(1)},
        {"features1.0": torch.ones(1)},
        {"features1": torch.ones(1), "features1.x": torch.ones(1)},
        {"features1.0.weight": torch.ones(1), "resnet.conv1.weight": torch.ones(1).int()},
    ],
    ids=range(4),
)
def test_names_that_fit_half(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"x\.pth: not a PCNN checkpoint"):
        load_upstream(path)


def test_a_detectors_filters_that_do_not_fit(tmp_path: Path) -> None:
    path, one = tmp_path / "x.pth", torch.ones(1)
    for filters, variance in ((one, one), (torch.ones(2, 3, 2, 2), torch.ones(3)), (one[0], one)):
        sound = {"body.layer1.0.conv1.weight": one}
        torch.save(sound | {"body.conv1.weight": filters, "body.bn1.running_var": variance}, path)
        with pytest.raises(WeightsError, match=r"x\.pth: "):
            read_detector(path)


def test_a_log_that_was_torn(tmp_path: Path) -> None:
    """A training that was killed leaves half a line, and lines after its last checkpoint."""
    log = tmp_path / "x.log.jsonl"
    lines = [f'{{"step": {step}, "epoch": {step}, "loss": 1}}\n' for step in (1, 2, 3)]
    for torn in ('{"step": 4, "ep', "[]\n", "null\n", "\udcff\n", '{"step": "x"}\n', lines[2][:-1]):
        log.write_text("".join(lines[:2]) + lines[2] + torn, errors="surrogateescape")
        trim_log(log, 2)
        assert log.read_text() == "".join(lines[:2])
    trim_log(tmp_path / "absent.jsonl", 2)
