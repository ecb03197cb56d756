"""The fuzzer itself: it finds what it is made for, and does the same again."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import rounds
from fuzz.mutation import mutate
from fuzz.rounds import State, play
from fuzz.targets import TARGETS, Target

from pcnn.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, for its limits")

SOUND = b"sound"


# A sound file of these has megabytes, which are too many to change thousands of times.
NONE_SOUND = {"detector", "detector-checkpoint", "upstream"}


def faults(read: Callable[[bytes, Path], object], count: int = 60) -> State:
    """What it finds where only the first seed, `sound`, may be read."""

    def only_others(content: bytes, folder: Path) -> None:
        if content == SOUND:
            return
        read(content, folder)

    state = State.start(Target("tried", only_others, lambda: [SOUND]))
    play(state, count, seed=1)
    assert state.executions == count
    return state


def refuse(content: bytes, folder: Path) -> None:
    raise InputError("as documented")


def test_documented_errors_are_no_faults() -> None:
    state = faults(refuse)
    assert not state.faults and len(state.outcomes) == 2


def _raise(content: bytes, folder: Path) -> None:
    raise KeyError(content)


def _write(content: bytes, folder: Path) -> None:
    (folder.parent.parent / "elsewhere").write_bytes(content)


def _run(content: bytes, folder: Path) -> None:
    try:
        os.system("true")
    except Exception:
        refuse(content, folder)


def _evaluate(content: bytes, folder: Path) -> None:
    exec("x = 1")


def _take(content: bytes, folder: Path) -> None:
    try:
        bytearray(1 << 33)
    except MemoryError as error:
        raise InputError("too large") from error


def _die(content: bytes, folder: Path) -> None:
    signal.raise_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("read", "signature"),
    [
        (_raise, "KeyError at "),
        (_write, "ForbiddenError at "),
        (_run, "ForbiddenError at "),
        (_evaluate, "ForbiddenError at "),
        (_take, "memory at "),
    ],
    ids=["another error", "a file", "a program", "code", "memory"],
)
def test_faults_that_it_finds(read: Callable[[bytes, Path], object], signature: str) -> None:
    state = faults(read)
    (found,) = state.faults
    assert found.startswith(signature) and state.faults[found][0] != SOUND


def test_inputs_of_which_the_process_dies() -> None:
    state = faults(_die, 6)
    content, _, count = state.faults["a death by SIGKILL"]
    assert content != SOUND and count >= 3 and state.outcomes["died"] == count


def test_inputs_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.limits.SECONDS", 0.3)

    def hang(content: bytes, folder: Path) -> None:
        while True:
            pass

    assert "a hang" in faults(hang, 2).faults


def test_inputs_that_reach_new_lines_are_kept() -> None:
    target = next(each for each in TARGETS if each.name == "recipes")
    state = State.start(target)
    del state.inputs[1:]
    play(state, 150, seed=1)
    assert len(state.inputs) > 1 and len(state.outcomes) > 3
    assert any(path.endswith("recipes.py") for path, _ in state.reached)


def test_the_same_seed_gives_the_same_executions() -> None:
    target = next(each for each in TARGETS if each.name == "units")
    states = [State.start(target) for _ in range(2)]
    for state in states:
        play(state, 120, seed=3)
    assert states[0].inputs == states[1].inputs and states[0].outcomes == states[1].outcomes


@pytest.mark.filterwarnings("ignore")  # of pictures that are left out
@pytest.mark.parametrize("name", [each.name for each in TARGETS])
def test_the_corpus_holds_no_fault(name: str) -> None:
    """Every seed of a target, and what was kept of it, is read or refused."""
    target = next(each for each in TARGETS if each.name == name)
    if not target.usable:
        pytest.skip(f"needs {', '.join(target.needs)}")
    state = State.start(target)
    play(state, len(state.inputs), seed=0)
    assert not state.faults and state.executions == len(state.inputs)
    assert state.outcomes["read"] > 0 or name in NONE_SOUND


def test_what_is_kept_is_small() -> None:
    sizes = [path.stat().st_size for path in rounds._CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < 400_000 and all(size <= 10_000 for size in sizes)


def test_changes_depend_on_their_generator_alone() -> None:
    from random import Random

    for target in TARGETS:
        if target.name in ("images", "head", "embeddings", "upstream", "resumption"):
            inputs = list(target.seeds())
            once, again = (
                [
                    mutate(Random(number), inputs[number % len(inputs)], inputs)
                    for number in range(40)
                ]
                for _ in range(2)
            )
            assert once == again
