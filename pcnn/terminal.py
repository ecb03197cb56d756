"""Progress bars on stderr, if it is a terminal.

rich is imported at the first use: commands show their help without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")


def stderr_console() -> Console:
    """rich's console on the current stderr."""
    from rich.console import Console

    return Console(stderr=True)


def track(
    items: Iterable[T], title: str, *, total: int | None = None, shown: bool = True
) -> Iterable[T]:
    """The items, with a progress bar that disappears at the end.

    total: the number of items, if they have no length.
    shown: False hides the bar, for short work.
    """
    from rich.progress import track as tracked

    console = stderr_console()
    hidden = not (shown and console.is_terminal)
    return tracked(items, title, total=total, console=console, transient=True, disable=hidden)


def training_progress(title: str, *, total: int, done: int, shown: bool = True) -> Progress:
    """The progress bar of a training, a context manager.

    It has one task, whose field `note` is shown at the end of the line.
    total, done: steps. shown: False hides the bar.
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
