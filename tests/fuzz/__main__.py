"""`python -m fuzz`, in the folder of the tests: how often, how quick, and what came of it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from fuzz.rounds import State, name_of, play, share_out
from fuzz.targets import TARGETS, quiet

# Executions of all targets together in one round; the first rounds are shorter.
_ROUND = 5_000


def main() -> int:
    """Run the command; returns 1 if there were faults."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    add = parser.add_argument
    add("--executions", type=int, help="of all targets together [20000, without --seconds]")
    add("--seconds", type=float, help="stop after the round in which they are over")
    add("--seed", type=int, default=0, help="of all random choices [0]")
    add("--only", nargs="+", choices=[each.name for each in TARGETS], help="these targets alone")
    add("--faults", type=Path, default=Path("../build/faults"), help="folder for their inputs")
    add("--keep", type=Path, help="folder for the inputs that reach most")
    add("--replay", type=Path, nargs="+", help="read these files alone, by the targets of --only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    chosen = [t for t in TARGETS if not arguments.only or t.name in arguments.only]
    for left_out in [each for each in chosen if not each.usable]:
        print(f"{left_out.name}: left out, needs {', '.join(left_out.needs)}")
    states = {each.name: State.start(each) for each in chosen if each.usable}
    if arguments.replay:
        for state in states.values():
            state.inputs = [path.read_bytes() for path in arguments.replay]
            play(state, len(state.inputs), arguments.seed)
    else:
        _run(list(states.values()), arguments)
    _report(list(states.values()), arguments.faults)
    if arguments.keep:
        _keep(list(states.values()), arguments.keep)
    return int(any(state.faults for state in states.values()))


def _run(states: list[State], arguments: argparse.Namespace) -> None:
    """Rounds over all targets until there are enough executions, or the time is over."""
    whole = arguments.executions or (0 if arguments.seconds else 20_000)
    began, done = time.monotonic(), 0
    while (not whole or done < whole) and (
        not arguments.seconds or time.monotonic() - began < arguments.seconds
    ):
        count = min(_ROUND, whole - done) if whole else _ROUND
        shares = dict(share_out([state.target for state in states], count))
        for state in states:
            play(state, shares[state.target], arguments.seed)
        done = sum(state.executions for state in states)
        spent = time.monotonic() - began
        faults = sum(len(state.faults) for state in states)
        print(f"{done} executions, {done / spent:.0f}/s, {faults} faults", flush=True)


def _report(states: list[State], folder: Path) -> None:
    print(f"{'target':20}{'executions':>11}{'read':>9}{'/s CPU':>8}{'outcomes':>9}{'inputs':>7}")
    for state in states:
        rate = state.executions / max(state.seconds, 1e-9)
        numbers = f"{state.executions:>11}{state.outcomes['read']:>9}{rate:>8.0f}"
        print(f"{state.target.name:20}{numbers}{len(state.outcomes):>9}{len(state.inputs):>7}")
    for state in states:
        for signature, (content, details, count) in sorted(state.faults.items()):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{state.target.name}-{name_of(content)}"
            path.write_bytes(content)
            path.with_suffix(".txt").write_text(f"{signature}\n{details}\n", errors="replace")
            print(f"FAULT {state.target.name}: {signature}, {count} times; {path}")


def _keep(states: list[State], folder: Path) -> None:
    """Write the inputs that were kept beside the seeds."""
    for state in states:
        own = folder / state.target.name
        own.mkdir(parents=True, exist_ok=True)
        for content in state.inputs[len(state.target.seeds()) :]:
            (own / name_of(content)).write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
