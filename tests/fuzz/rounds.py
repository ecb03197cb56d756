"""Rounds of executions in child processes, which may die without harm to the rest."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pcnn
from fuzz.limits import DOCUMENTED, FaultError, attempt, limit_process
from fuzz.lines import Line, Lines
from fuzz.mutation import mutate
from fuzz.targets import Target

_PACKAGE = str(Path(pcnn.__file__).parent) + os.sep
# Seconds by the clock without a word from a child; it may wait for something for ever.
_SILENCE, _TELL = 300, 20
# Every so many executions the lines are watched, which costs time.
_WATCHED = 3
_CORPUS = Path(__file__).parent / "corpus"


@dataclass
class State:
    """What is known of a target.

    inputs: those that reached new lines or outcomes. reached: lines of the package. outcomes: how
    often each came. faults: signature → the smallest input, what happened, and how often.
    """

    target: Target
    inputs: list[bytes] = field(default_factory=list)
    reached: set[Line] = field(default_factory=set)
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: dict[str, tuple[bytes, str, int]] = field(default_factory=dict)
    executions: int = 0
    rounds: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, target: Target) -> State:
        """A target's seeds and its inputs in the corpus.

        The first seed is read here, so that children find imported what reading needs.
        """
        seeds = list(target.seeds())
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(*DOCUMENTED):
            target.read(seeds[0], Path(folder))
        kept = sorted((_CORPUS / target.name).glob("*"))
        return cls(target, [*seeds, *(path.read_bytes() for path in kept)])

    def add_fault(self, signature: str, content: bytes, details: str) -> None:
        """Keep the smallest input of a fault."""
        before = self.faults.get(signature)
        if before is not None:
            known, told, count = before
            smaller = (content, details) if len(content) < len(known) else (known, told)
            self.faults[signature] = (*smaller, count + 1)
        else:
            self.faults[signature] = (content, details, 1)


def play(state: State, count: int, seed: int) -> None:
    """One round of `count` executions of a target, in a child process."""
    done, context = 0, multiprocessing.get_context("fork")
    while done < count:
        ours, theirs = context.Pipe()
        with tempfile.TemporaryDirectory(dir=_memory_disk()) as folder:
            at = context.RawValue("q", done)
            arguments = (theirs, ours, state, (done, count), seed, Path(folder), at)
            child = context.Process(target=_child, args=arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about threads
                child.start()
            theirs.close()
            done = _listen(ours, state, done)
            _end(child)
            ours.close()
            if done < count:  # it died: of this input
                with contextlib.suppress(FileNotFoundError):
                    content = (Path(folder) / "input").read_bytes()
                    name = _death(child.exitcode)
                    state.add_fault(name, content, name)
                # What it did since its last word is lost, but was done.
                state.outcomes["died"] += 1
                state.executions += at.value + 1 - done
                done = at.value + 1
    state.rounds += 1


def _memory_disk() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _death(code: int | None) -> str:
    if code == -signal.SIGPROF:
        return "a hang"
    return f"a death by {signal.Signals(-code).name if code and code < 0 else code}"


def _end(child: Any) -> None:
    child.join(5)
    if child.is_alive():
        child.kill()
        child.join()


def _listen(ours: Connection, state: State, done: int) -> int:
    """Take what a child says until it is done or dead; returns how many executions it did."""
    while ours.poll(_SILENCE):
        try:
            kind, *message = ours.recv()
        except EOFError:
            return done
        if kind == "input":
            state.inputs.append(message[0])
        elif kind == "fault":
            state.add_fault(*message)
        else:  # what was done since the last time
            outcomes, lines, seconds = message
            state.outcomes.update(outcomes)
            state.reached.update(lines)
            state.executions += sum(outcomes.values())
            state.seconds += seconds
            done += sum(outcomes.values())
    return done


def _child(  # noqa: PLR0913, PLR0917 - what a process gets
    theirs: Connection,
    ours: Connection,
    state: State,
    part: tuple[int, int],
    seed: int,
    folder: Path,
    at: Any,
) -> None:
    ours.close()
    # Decoders in C complain there of what is damaged; Python's own complaints stay.
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    scratch = folder / "scratch"
    scratch.mkdir()
    os.chdir(scratch)
    limit_process(folder)
    worker = _Worker(theirs, state, seed, folder)
    for number in range(*part):
        at.value = number
        worker.execute(number)
    worker.report()
    theirs.close()


class _Worker:
    """What a child does."""

    def __init__(self, pipe: Connection, state: State, seed: int, folder: Path) -> None:
        self._pipe, self._state, self._seed, self._folder = pipe, state, seed, folder
        self._lines = Lines(_PACKAGE, set(state.reached))
        self._known = set(state.outcomes)
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._inputs = list(state.inputs)
        self._began, self._told = os.times(), time.monotonic()

    def execute(self, number: int) -> None:
        """Make an input, which its number and the seed decide, and read it."""
        state = self._state
        key = f"{self._seed} {state.target.name} {state.rounds} {number}"
        chance = Random(key)
        if state.rounds == 0 and number < len(state.inputs):
            content = state.inputs[number]
        else:
            newest = chance.randrange(2) and len(self._inputs) > 8
            content = chance.choice(self._inputs[-8:] if newest else self._inputs)
            content = mutate(chance, content, self._inputs)
        # Whoever dies of it leaves it there.
        (self._folder / "input").write_bytes(content)
        watched = state.rounds == 0 or number % _WATCHED == 0
        try:
            outcome, grew = self._attempt(content, watched)
        except FaultError as fault:
            outcome, grew = "fault", False
            self._pipe.send(("fault", fault.signature, content, fault.details))
        self._outcomes[outcome] += 1
        if grew or (outcome not in self._known and outcome != "fault"):
            self._known.add(outcome)
            if content not in self._inputs:
                self._inputs.append(content)
                self._pipe.send(("input", content))
        for left in (self._folder / "scratch").iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if number % 200 == 199 or outcome == "fault" or time.monotonic() - self._told > _TELL:
            self.report()

    def _attempt(self, content: bytes, watched: bool) -> tuple[str, bool]:
        scratch = self._folder / "scratch"
        if not watched:
            return attempt(self._state.target.read, content, scratch), False
        found: list[str] = []
        grew = self._lines.trace(
            lambda: found.append(attempt(self._state.target.read, content, scratch))
        )
        return found[0], grew

    def report(self) -> None:
        """Tell what was done since the last time."""
        now = os.times()
        seconds = now.user + now.system - self._began.user - self._began.system
        self._pipe.send(("done", self._outcomes, self._lines.new, seconds))
        self._outcomes, self._lines.new, self._began = collections.Counter(), [], now
        self._told = time.monotonic()


def share_out(targets: Sequence[Target], count: int) -> Iterator[tuple[Target, int]]:
    """How many of `count` executions each target gets."""
    whole = sum(target.share for target in targets)
    for target in targets:
        yield target, max(1, count * target.share // whole)


def name_of(content: bytes) -> str:
    """A file's name for an input."""
    return hashlib.sha256(content).hexdigest()[:12]
