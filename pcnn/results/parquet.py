"""Results as one Parquet file, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pcnn.disk import whole_file
from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.results.frames import Frame
from pcnn.results.tables import Result, face_schema, needed, to_arrow

_PICTURES_AT_ONCE = 4096  # in memory, and in a row group


@contextlib.contextmanager
def parquet_report(
    path: Path,
    classes: Sequence[str],
    values: Sequence[str] = (),
    movements: Sequence[str] = (),
) -> Iterator[ParquetReport]:
    """A report that becomes the file `path` when the block ends well.

    Raises InputError: pyarrow is not installed, or the file cannot be written.
    """
    parquet = needed("pyarrow.parquet", "--format parquet")
    with contextlib.ExitStack() as stack:
        try:
            temporary = stack.enter_context(whole_file(path))
            schema = face_schema(classes, values, movements)
            writer = parquet.ParquetWriter(temporary, schema, compression="zstd")
        except OSError as error:
            raise InputError(f"{shown(path)}: cannot be written ({error})") from error
        stack.enter_context(writer)
        names = {"classes": classes, "values": values, "movements": movements}
        report = ParquetReport(writer, names)
        yield report
        report.close()


class ParquetReport:
    """A row for each face, as in docs/tables.md; also for what failed, or has no face."""

    def __init__(self, writer: Any, names: dict[str, Sequence[str]]) -> None:
        self._writer = writer
        self._names: dict[str, Any] = names
        self._sources: list[str | None] = []
        self._results: list[Result] = []

    def add(self, source: str | None, result: Result) -> None:
        """The result of one picture, or the error in its place; source: its name."""
        self._sources.append(source)
        self._results.append(result)
        if len(self._results) >= _PICTURES_AT_ONCE:
            self.close()

    def fail(self, source: str, error: InputError) -> None:
        """One picture, or a film, that could not be read (to its end)."""
        self.add(source, error)

    def add_frame(self, frame: Frame) -> None:
        """One frame of a film."""
        self.add(frame.source, replace(frame, pixels=None))

    def add_tracks(self, source: str, tracks: object) -> None:
        """Nothing: rows say all."""

    def close(self) -> None:
        """Write what has been held back."""
        if self._results:
            self._writer.write_table(to_arrow(self._results, sources=self._sources, **self._names))
            self._sources, self._results = [], []
