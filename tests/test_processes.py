"""A Recognizer and other processes: forked, spawned, a loader's workers. Each within a time.

Every situation is a program of its own, which is killed if it takes too long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hostile import write_kind

ROOT = Path(__file__).parent.parent
_SECONDS = 240  # a busy machine needs a minute for some

_START = """
import os, sys, pickle, multiprocessing
import numpy as np, torch
from torch.utils.data import DataLoader, Dataset

# The networks compute in two threads, so that there is somebody to wait for.
torch.set_num_threads(2)
from pcnn import InputError, Recognizer

PICTURE = "docs/images/astronaut.png"

class Faces(Dataset):
    def __init__(self, recognizer): self.recognizer = recognizer
    def __len__(self): return 4
    def __getitem__(self, index): return self.recognizer.predict(PICTURE).faces[0].label

def label(_):
    return RECOGNIZER.predict(PICTURE).faces[0].label

def start(*arguments):
    global RECOGNIZER
    RECOGNIZER = Recognizer(*arguments, device="cpu")

def own(recognizer):
    return recognizer.predict(PICTURE).faces[0].label

def many(recognizer):
    return [found.faces[0].label for found in recognizer.predict([PICTURE] * 9)]

def as_list(batch): return batch

def used():
    recognizer = Recognizer("small", device="cpu")
    assert own(recognizer) == "happiness" and many(recognizer) == ["happiness"] * 9
    return recognizer
"""


def run(program: str, folder: Path | None = None) -> str:
    """What a program prints. folder: its file lies there, for children that import it."""
    body = textwrap.indent(textwrap.dedent(program), "    ")
    text = f"{_START}\nif __name__ == '__main__':\n{body}"
    source = ["-c", text]
    if folder is not None:
        (folder / "program.py").write_text(text)
        source = [str(folder / "program.py")]
    started = subprocess.Popen(
        [sys.executable, *source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "PYTHONWARNINGS": "ignore",
            "OMP_WAIT_POLICY": "passive",  # threads that spin would starve each other here
        },
        start_new_session=True,
    )
    try:
        printed, complaints = started.communicate(timeout=_SECONDS)
    finally:
        # Its children, too: one that hangs would hold the pipes open for ever.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 0, complaints
    return printed


def test_a_forked_child_answers() -> None:
    """gunicorn's preload: made and used in the parent, then forked, twice over."""
    printed = run(
        """
        recognizer = used()
        for _ in range(2):
            child = os.fork()
            if not child:
                print(own(recognizer), *many(recognizer), torch.get_num_threads(), flush=True)
                grandchild = os.fork()
                if not grandchild:
                    print(own(recognizer), flush=True)
                    os._exit(0)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(own(recognizer), torch.get_num_threads())
        """
    )
    child = " ".join(["happiness"] * 10 + ["1\nhappiness\n"])
    assert printed == 2 * child + "happiness 2\n"


def test_a_forked_child_makes_its_own() -> None:
    printed = run(
        """
        used()
        child = os.fork()
        if not child:
            print(own(used()), flush=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )
    assert printed == "happiness\n"


def test_a_forked_child_of_a_parent_that_explained(tmp_path: Path) -> None:
    write_kind("pcnn", tmp_path / "tiny.safetensors")
    printed = run(
        f"""
        recognizer = Recognizer({str(tmp_path / "tiny.safetensors")!r}, device="cpu")
        recognizer.explain(PICTURE)
        child = os.fork()
        if not child:
            print(len(recognizer.explain(PICTURE)), flush=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    )
    assert printed == "1\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool(method: str, tmp_path: Path) -> None:
    """Celery and the like: workers that make their own, and one that is sent a Recognizer."""
    printed = run(
        f"""
        start("small")
        assert label(0) == "happiness"
        context = multiprocessing.get_context("{method}")
        with context.Pool(2, *(() if "{method}" == "fork" else (start, ("small",)))) as pool:
            print(*pool.map(label, range(4)))
        with context.Pool(1) as pool:
            print(*pool.map(own, [RECOGNIZER] * 2))
        """,
        tmp_path,
    )
    assert printed == "happiness happiness happiness happiness\nhappiness happiness\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loaders_workers(method: str, tmp_path: Path) -> None:
    printed = run(
        f"""
        options = dict(num_workers=2, collate_fn=as_list, multiprocessing_context="{method}")
        loader = DataLoader(Faces(used()), 2, **options)
        print(*loader)
        """,
        tmp_path,
    )
    assert printed == "['happiness', 'happiness'] ['happiness', 'happiness']\n"


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_engines_say_at_once_that_they_cannot(engine: str) -> None:
    printed = run(
        f"""
        recognizer = Recognizer("small", device="cpu", engine="{engine}")
        assert own(recognizer) == "happiness"
        child = os.fork()
        if not child:
            try:
                own(recognizer)
            except InputError as error:
                print(error, flush=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(own(recognizer))
        """
    )
    assert printed == (
        f"engine {engine!r}: the network was made before this process was forked, but its "
        "threads or its GPU do not survive a fork: make it in the child, or start children by "
        "'spawn' or 'forkserver'\nhappiness\n"
    )


def test_it_can_be_pickled() -> None:
    printed = run(
        """
        made = Recognizer("small", "mobilenet", "cpu", batch_size=3)
        recognizer = pickle.loads(pickle.dumps(made))
        print(own(recognizer), recognizer.batch_size)
        """
    )
    assert printed == "happiness 3\n"
