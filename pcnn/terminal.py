"""Progress on a terminal: bars and lines on stderr, nothing where stderr is no terminal.

rich is imported at the first use, since commands show their help without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")


def stderr_console() -> Console:
    """rich's console on stderr as it is now."""
    from rich.console import Console

    return Console(stderr=True)


def track(
    items: Iterable[T], title: str, *, total: int | None = None, shown: bool = True
) -> Iterable[T]:
    """The items, with a bar that vanishes at the end.

    total: how many there are, for items without a length.
    shown: False shows no bar, for what is done at once.
    """
    from rich.progress import track as tracked

    console = stderr_console()
    hidden = not (shown and console.is_terminal)
    return tracked(items, title, total=total, console=console, transient=True, disable=hidden)


def training_progress(title: str, *, total: int, done: int, shown: bool = True) -> Progress:
    """The bar of a training, with one task whose field `note` stands at the end of the line.

    total, done: steps. shown: False shows no bar. It is a context manager.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=stderr_console(),
        disable=not shown,
    )
    progress.add_task(title, total=total, completed=done, note="")
    return progress
