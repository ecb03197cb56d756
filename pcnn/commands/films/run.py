"""Films predicted one after another, and all that is made of each."""

from __future__ import annotations

import argparse
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcnn.commands.films.interruption import Interruption
from pcnn.commands.films.outputs import FilmOutputs
from pcnn.commands.outputs import has_room
from pcnn.errors import InputError, counted
from pcnn.images.files import annotated_names, shown
from pcnn.terminal import stderr_console

if TYPE_CHECKING:
    from rich.progress import Progress

    from pcnn.commands.films.resumption import Resumption
    from pcnn.commands.reports import Report
    from pcnn.commands.run_options import RunOptions
    from pcnn.recognition.films import Film
    from pcnn.recognition.recognizer import Recognizer
    from pcnn.results.frames import Frame

_KINDS = {
    "annotate": ("annotated", (".mp4",)),
    "timeline": ("timeline", (".png", ".html")),
    "subtitles": ("expressions", (".srt", ".vtt")),
}


@dataclass(frozen=True)
class FilmRun:
    """What `pcnn-predict` does with films: each to the report, and to the files asked for.

    resumed: what the output has already. options: are told which films ended.
    tell: says a line on stderr, past a bar.
    """

    recognizer: Recognizer
    arguments: argparse.Namespace
    report: Report
    resumed: Resumption | None
    options: RunOptions
    tell: Callable[[argparse.Namespace, object, Progress | None], None]

    def predict(self, films: Sequence[str]) -> int:
        """Predict films, paths and addresses, and complain of each that fails: so many did."""
        failed = 0
        targets = _targets(films, self.arguments)
        for film in films:
            if self.resumed is not None and film in self.resumed.finished:
                continue
            with _progress(self.arguments) as bar:
                try:
                    self._predict(film, targets[film], bar)
                except InputError as error:
                    failed += 1
                    self.tell(self.arguments, error, bar)
                    self.report.fail(film, error)
        return failed

    def _predict(self, film: str, targets: dict[str, Path], bar: Progress | None) -> None:
        arguments, resumed = self.arguments, self.resumed
        begun = resumed.films.get(film) if resumed is not None else None
        done, rows = (begun.frame, begun.rows) if begun is not None else (-1, 0)
        # Rows have no mesh to draw: then all frames are read anew.
        anew = arguments.movements and ".mp4" in targets
        frames = self.recognizer.predict_video(
            film,
            every=arguments.every,
            start=arguments.start,
            end=arguments.end,
            smoothing=arguments.smoothing,
            min_score=arguments.min_score,
            search_every=arguments.search_every,
            keep_pixels=bool(targets),
            known=() if resumed is None or begun is None or anew else resumed.known(film),
        )
        begin, rate = arguments.start or 0.0, frames.info.rate
        with Interruption() as interruption, frames:
            outputs = FilmOutputs(film, targets, self.recognizer.classes, start=begin, rate=rate)
            watched = _watched(frames, shown(film), arguments, bar)
            with contextlib.closing(outputs):
                for frame in interruption.until_asked(watched):
                    outputs.add(frame)
                    if frame.index > done:
                        self.report.add_frame(frame)
                        rows += len(frame.faces)
            self.report.add_tracks(film, outputs.summary.tracks())
            interruption.raise_if_asked()
        if frames.broken:
            packets = counted(frames.broken, "broken packet")
            self.tell(arguments, f"{shown(film)}: {packets} left out", bar)
        self.options.end_film(film, rows)


def _watched(
    frames: Film, name: str, arguments: argparse.Namespace, bar: Progress | None
) -> Iterator[Frame]:
    """The frames of a film, counted on the bar."""
    if bar is None:
        yield from frames
        return
    begin, whole = arguments.start or 0.0, arguments.end or frames.info.duration
    task = bar.add_task(name, total=whole and whole - begin, rate="")
    began = time.monotonic()
    for count, frame in enumerate(frames, 1):
        rate = count / max(1e-3, time.monotonic() - began)
        bar.update(task, completed=frame.time - begin, rate=f"{rate:.1f} frames/s")
        yield frame


def _targets(films: Sequence[str], arguments: argparse.Namespace) -> dict[str, dict[str, Path]]:
    """For each film the files to be made of it, by suffix."""
    targets: dict[str, dict[str, Path]] = {film: {} for film in films}
    files = {film: Path(_file_name(film)) for film in films}
    for option, (word, suffixes) in _KINDS.items():
        folder = getattr(arguments, option)
        if folder is None:
            continue
        for suffix in suffixes:
            names = annotated_names(list(files.values()), folder, word=word, suffix=suffix)
            for film, file in files.items():
                targets[film][suffix] = names[file]
    return targets


def _file_name(film: str) -> str:
    """A path as it is; for an address a name that a file can have."""
    if film == "-":
        return "standard-input"
    return film if Path(film).exists() or ":" not in film else re.sub(r"[^\w.]+", "-", film)


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Any]:
    """A bar on stderr; None where stderr is no terminal, or lines of data appear there."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not has_room(arguments):
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        yield bar
