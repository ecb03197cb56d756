"""What several benchmarks need: times, the machine's name, tables in a page, small trainings."""

from __future__ import annotations

import json
import platform
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pcnn.ops import build, native

if TYPE_CHECKING:
    from rich.progress import Progress

    from pcnn.training.expression.loop import ExpressionTraining

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data" / "ferplus"
Array = NDArray[Any]
Stages: TypeAlias = dict[str, Callable[[], object]]  # by name, what is timed


def medians(
    stages: Stages, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Milliseconds of each stage, the median of interleaved rounds after two to warm up."""
    times: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(rounds + 2):
        for name, stage in stages.items():
            began = clock()
            stage()
            if number >= 2:
                times[name].append(1000 * (clock() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def require_native(device: torch.device | str = "cpu") -> None:
    """Refuse to measure ops that are not compiled, or compiled from other sources than these.

    PCNN_OPS=reference measures plain PyTorch all the same. Raises SystemExit: refused, and why.
    """
    if native.choice == "reference":
        return
    module = native.compiled(torch.device(device))
    if isinstance(module, str):
        reason = module
    elif getattr(module, "SOURCES", "") != build.sources_hash():
        reason = f"{module.__file__} was compiled from other sources than those here"
    else:
        return
    raise SystemExit(
        f"this benchmark measures compiled ops, and those for {device} are not: {reason}\n"
        "`python setup.py build_ext --inplace` builds them; PCNN_OPS=reference measures without"
    )


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def put_into_page(page: Path, text: str, begin: str, end: str) -> None:
    """Put tables between the two marks of a page. Raises ValueError: the page has them not."""
    before, rest = page.read_text().split(begin)
    _, after = rest.split(end, 1)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def put_where_marked(page: Path, text: str, name: str) -> None:
    """Put a script's tables into a page that has its marks; leave any other page as it is."""
    begin = f"<!-- benchmarks/{name}.py -->"
    if page.is_file() and begin in page.read_text():
        put_into_page(page, text, begin, "<!-- end -->")


def keep(record: object, text: str, name: str, *, json_to: Path | None, page: Path | None) -> None:
    """Write a script's figures as JSON and its tables into a page, each where it is asked for."""
    if json_to:
        json_to.write_text(json.dumps(record, indent=1) + "\n")
    if page:
        put_where_marked(page, text, name)


def training_parser(doc: str, name: str, *, seeds: int, epochs: float, page: str) -> ArgumentParser:
    """The options of a script that trains small networks: these are its defaults.

    doc: its docstring. name: of the script. page: file in docs/ that its tables go to.
    """
    parser = ArgumentParser(description=doc.splitlines()[0])
    add = parser.add_argument
    add("--seeds", type=int, default=seeds, help="trainings of each kind")
    add("--epochs", type=float, default=epochs)
    add("--every", type=int, default=3, help="train on every such face")
    add("--data", type=Path, default=DATA)
    add("--cache", type=Path, default=Path(f"/tmp/pcnn-{name}"))
    add("--json", type=Path, default=ROOT / "benchmarks" / f"{name}.json")
    add("--page", type=Path, default=ROOT / "docs" / page)
    return parser


def finish(training: ExpressionTraining, progress: Progress, name: str) -> None:
    """Take a training to its last step, with a bar of that name while it lasts."""
    task = progress.add_task(name, total=training.steps)
    while training.step < training.steps:
        training.advance()
        progress.update(task, completed=training.step)
    progress.remove_task(task)


def draws(faces: int, seeds: int, rounds: int) -> Iterator[tuple[Array, Array]]:
    """Indices of a bootstrap over both seeds (seeds, 1) and faces (faces,), `rounds` times.

    The same at every call, so that what is compared is compared on the same draws.
    """
    draw = np.random.default_rng(0)
    for _ in range(rounds):
        yield draw.integers(seeds, size=(seeds, 1)), draw.integers(faces, size=faces)


def interval(values: ArrayLike) -> list[float]:
    """Where the middle 95 % of the values lie: lowest and highest."""
    low, high = np.percentile(values, (2.5, 97.5))
    return [float(low), float(high)]


def gain_text(gain: float, limits: list[float], digits: int) -> str:
    """A gain and its interval, as tables show them."""
    low, high = limits
    return f"{gain:+.{digits}f} ({low:+.{digits}f} … {high:+.{digits}f})"
