"""The files that are made of a film: annotated copy, timeline, subtitles."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcnn.commands.outputs import not_written
from pcnn.disk import whole_file
from pcnn.images.files import shown
from pcnn.results.frames import Frame
from pcnn.video.annotation import Annotator
from pcnn.video.encoding import FilmWriter
from pcnn.video.page import timeline_page
from pcnn.video.subtitles import SUBTITLE_KINDS, Subtitles
from pcnn.video.summaries import Summary
from pcnn.video.timeline import draw_timeline


class FilmOutputs:
    """Takes a film's frames and writes what is asked for; whole files, when it is closed.

    Without a frame nothing is written, so that files of an earlier run stay as they are.
    film: path or address. targets: files by suffix: .mp4, .png, .html, .srt, .vtt.
    start: seconds, where the annotated copy begins. rate: frames a second, see FilmWriter.
    Raises InputError: a folder cannot be made; later, a file cannot be written.
    """

    def __init__(
        self,
        film: str,
        targets: Mapping[str, Path],
        classes: Sequence[str],
        *,
        start: float,
        rate: float | None,
    ) -> None:
        self._film, self._targets = film, targets
        self._start, self._rate = start, rate
        self._begun = False
        self.summary = Summary(classes)
        self._subtitles = Subtitles()
        self._annotator = Annotator(classes)
        self._stack = contextlib.ExitStack()
        self._writer: FilmWriter | None = None
        for target in targets.values():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise not_written(target.parent, error) from error

    def add(self, frame: Frame) -> None:
        """Take the next frame, with its pixels where there is something to draw."""
        if not self._begun and ".mp4" in self._targets:
            with contextlib.ExitStack() as stack:  # without a writer the part is removed
                part = stack.enter_context(whole_file(self._targets[".mp4"]))
                start, rate = self._start, self._rate
                self._writer = FilmWriter(part, sound=self._film, start=start, rate=rate)
                self._stack = stack.pop_all()
        self._begun = True
        self.summary.add(frame)
        self._subtitles.add(frame)
        if self._writer is not None and frame.pixels is not None:
            self._writer.add(frame.time, self._annotator.draw(frame, frame.pixels))

    def close(self) -> None:
        """Write all files, of the frames so far; none without a frame."""
        if not self._begun:
            return
        try:
            with self._stack:
                if self._writer is not None:
                    self._writer.close()
        except OSError as error:
            raise not_written(self._targets[".mp4"], error) from error
        title = shown(Path(self._film).name)  # a name that is no text cannot be written
        for suffix, target in self._targets.items():
            try:
                if suffix == ".png":
                    draw_timeline(self.summary, title).save(target)
                elif suffix == ".html":
                    target.write_text(timeline_page(self.summary, title), encoding="utf-8")
                elif suffix in SUBTITLE_KINDS:
                    target.write_text(SUBTITLE_KINDS[suffix](self._subtitles), encoding="utf-8")
            except OSError as error:
                raise not_written(target, error) from error
