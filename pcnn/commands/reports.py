"""The output formats of `pcnn-predict`: table, JSON list, JSON lines and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcnn.disk import CsvStream
from pcnn.errors import InputError
from pcnn.images.files import shown
from pcnn.results.frames import FILM_COLUMNS, LANDMARK_COLUMNS, RAW, Frame, landmark_cells
from pcnn.results.movements import movement_columns
from pcnn.results.values import FACE_COLUMNS, Expression, Face, Prediction
from pcnn.video.curves import clock, told_shares
from pcnn.video.summaries import TrackSummary

FORMATS = ("table", "json", "jsonl", "csv")  # of text; Parquet has a module of its own

_RUNNERS_UP = 2
_CROP_COLUMNS = ("source", "label", "confidence")
# Those of FILM_COLUMNS and FACE_COLUMNS, in the order of both.
_MIXED_COLUMNS = (
    *("source", "time", "frame", "track", "face", "label", "confidence"),
    *("x1", "y1", "x2", "y2", "detection_score", "angle", "quality", *LANDMARK_COLUMNS),
)


class Names(NamedTuple):
    """Names of the expressions, a ValueHead's numbers and the movements, each in their order."""

    classes: tuple[str, ...]
    values: tuple[str, ...] = ()
    movements: tuple[str, ...] = ()


class Report(Protocol):
    """A writer of results in one format."""

    def add(self, source: str, result: Prediction | Expression) -> None:
        """Add one picture's result: an Expression if the picture is a cut-out face."""

    def fail(self, source: str, error: InputError) -> None:
        """One picture or film that could not be read; formats of text leave it out."""

    def add_frame(self, frame: Frame) -> None:
        """One frame of a film."""

    def add_tracks(self, source: str, tracks: Sequence[TrackSummary]) -> None:
        """The people of a film, after its last frame."""

    def close(self) -> None:
        """Write the remaining output. The stream stays open."""


def open_report(  # noqa: PLR0913
    kind: str,
    stream: TextIO,
    *,
    names: Names,
    columns: Sequence[str],
    crops: bool,
    begun: bool = False,
    all_rows: bool = False,
) -> Report:
    """A report that writes to a text stream.

    kind: one of FORMATS.
    names: of the classes, values and movements. columns: of CSV, see csv_columns.
    crops: the results are Expressions, not Predictions.
    begun: the stream has the beginning of a report already.
    all_rows: CSV has a row, empty but for the source, for a picture without a face.
    """
    if kind == "table":
        return _TableReport(stream, crops, bool(names.values))
    if kind == "csv":
        return _CsvReport(stream, columns, begun=begun, all_rows=all_rows)
    return _JsonReport(stream) if kind == "json" else _JsonLinesReport(stream)


def csv_columns(names: Names, *, crops: bool, pictures: bool, films: bool) -> tuple[str, ...]:
    """The columns of a CSV report.

    pictures, films: whether there are such inputs. With both, the columns are those of both, and
        pictures leave empty what only films have.
    """
    classes, values, movements = names
    own = (*values, *movement_columns(movements))
    if films:
        first = _MIXED_COLUMNS if pictures else FILM_COLUMNS
        return (*first, *classes, *(f"{RAW}{name}" for name in classes), *own)
    return (*(_CROP_COLUMNS if crops else FACE_COLUMNS), *classes, *own)


class _TextReport:
    """What the text formats share."""

    def fail(self, source: str, error: InputError) -> None:
        """Write nothing: stderr has it."""


class _JsonLinesReport(_TextReport):
    """One JSON object on a line for each picture, and for each face of a film's frame."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, source: str, result: Prediction | Expression) -> None:
        self._stream.write(json.dumps(_as_dict(source, result)) + "\n")
        self._stream.flush()

    def add_frame(self, frame: Frame) -> None:
        self._stream.writelines(json.dumps(row) + "\n" for row in frame.rows())
        self._stream.flush()

    def add_tracks(self, source: str, tracks: Sequence[TrackSummary]) -> None:
        """Nothing: rows say all."""

    def close(self) -> None:
        self._stream.flush()


class _JsonReport(_TextReport):
    """A JSON list with one object for each picture or face of a film's frame, one by one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before = "["

    def add(self, source: str, result: Prediction | Expression) -> None:
        self._write(_as_dict(source, result))

    def add_frame(self, frame: Frame) -> None:
        for row in frame.rows():
            self._write(row)

    def add_tracks(self, source: str, tracks: Sequence[TrackSummary]) -> None:
        """Nothing: rows say all."""

    def _write(self, value: Mapping[str, Any]) -> None:
        self._stream.write(self._before + "\n" + json.dumps(value, indent=2))
        self._before = ","

    def close(self) -> None:
        self._stream.write("[]\n" if self._before == "[" else "\n]\n")
        self._stream.flush()


class _CsvReport(_TextReport):
    """A header, then one line for each face, as in Prediction.rows or Frame.rows."""

    def __init__(
        self, stream: TextIO, columns: Sequence[str], *, begun: bool, all_rows: bool
    ) -> None:
        self._stream, self._all_rows = stream, all_rows
        self._mixed = set(_MIXED_COLUMNS) <= set(columns)
        self._writer = csv.DictWriter(CsvStream(stream), columns, extrasaction="ignore")
        if not begun:
            self._writer.writeheader()

    def add(self, source: str, result: Prediction | Expression) -> None:
        if isinstance(result, Prediction):
            rows = [{**row, "source": source} for row in self._rows(result)]
            if self._all_rows and not rows:
                rows = [{"source": source}]
            self._writer.writerows(rows)
        else:
            values = result.to_dict()
            first = (source, values["label"], values["confidence"])
            own = {**values["scores"], **values.get("values", {})}
            self._writer.writerow({**dict(zip(_CROP_COLUMNS, first, strict=True)), **own})
        self._stream.flush()

    def add_frame(self, frame: Frame) -> None:
        self._writer.writerows(self._rows(frame))
        self._stream.flush()

    def _rows(self, result: Prediction | Frame) -> list[dict[str, Any]]:
        """The result's rows, with what the other kind has, too, if there are both."""
        rows = result.rows()
        if not self._mixed:
            return rows
        return [
            {**row, **_shared_cells(number, face)}
            for number, (row, face) in enumerate(zip(rows, result.faces, strict=True), 1)
        ]

    def add_tracks(self, source: str, tracks: Sequence[TrackSummary]) -> None:
        """Nothing: rows say all."""

    def close(self) -> None:
        self._stream.flush()


class _TableReport(_TextReport):
    """One row for each face, and for each person of a film, printed when all are known.

    The table has its full width.
    """

    def __init__(self, stream: TextIO, crops: bool, values: bool) -> None:
        self._stream = stream
        self._crops, self._values = crops, values
        self._table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        self._table.add_column("file", overflow="fold")
        if not crops:
            self._table.add_column("face", justify="right")
        self._table.add_column("expression", no_wrap=True)
        self._table.add_column("confidence", justify="right")
        self._table.add_column("then")
        if values:
            self._table.add_column("values", no_wrap=True)
        if not crops:
            self._table.add_column("box x1 y1 x2 y2", no_wrap=True)
        self._people = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        self._people.add_column("film", overflow="fold")
        for name in ("person", "first", "last", "seen"):
            self._people.add_column(name, justify="right")
        self._people.add_column("share of time")

    def add(self, source: str, result: Prediction | Expression) -> None:
        file = Text(shown(source))
        if not isinstance(result, Prediction):
            self._table.add_row(file, *self._cells(result))
        elif not result.faces:
            self._table.add_row(file, Text("–"), Text("no face found", style="dim"))
        else:
            for number, face in enumerate(result.faces, 1):
                self._table.add_row(file, Text(str(number)), *self._cells(face), _box_text(face))

    def _cells(self, expression: Expression) -> tuple[Text, ...]:
        numbers = ", ".join(f"{name} {value:.3g}" for name, value in expression.values.items())
        return (*_cells(expression), *((Text(numbers),) if self._values else ()))

    def add_frame(self, frame: Frame) -> None:
        """Nothing: a film's frames are too many to read."""

    def add_tracks(self, source: str, tracks: Sequence[TrackSummary]) -> None:
        film = Text(shown(source))
        for person in tracks:
            times = (clock(person.first, 0.1), clock(person.last, 0.1), f"{person.seconds:.1f} s")
            seen = (Text(str(person.track)), *map(Text, times))
            self._people.add_row(film, *seen, Text(told_shares(person), style="bold"))
        if not tracks:
            nothing = [Text("–")] * 4
            self._people.add_row(film, *nothing, Text("no face found", style="dim"))

    def close(self) -> None:
        for table in (self._table, self._people):
            if table.row_count:
                self._print(table)

    def _print(self, table: Table) -> None:
        console = Console(file=self._stream, markup=False, emoji=False, highlight=False)
        if not console.is_terminal:
            wide = console.options.update(width=10_000)
            console.width = console.measure(table, options=wide).maximum
        with console.capture() as captured:  # rich itself would exit on a closed pipe
            console.print(table)
        self._stream.write(captured.get())
        self._stream.flush()


def _shared_cells(number: int, face: Face) -> dict[str, Any]:
    """What pictures' rows have of a face and films' have not, and the other way round."""
    plain = face.to_dict()
    points = dict(zip(LANDMARK_COLUMNS, landmark_cells(plain), strict=True))
    return {"face": number, "angle": plain["angle"], **points}


def _cells(expression: Expression) -> tuple[Text, Text, Text]:
    """Label, confidence and the next likely classes, as cells of the table."""
    others = sorted(
        ((score, name) for name, score in expression.scores.items() if name != expression.label),
        key=lambda other: -other[0],
    )
    then = ", ".join(f"{name} {score:.0%}" for score, name in others[:_RUNNERS_UP])
    label = Text(expression.label, style="bold")
    return label, Text(f"{expression.confidence:.1%}"), Text(then, style="dim")


def _box_text(face: Face) -> Text:
    """The box in whole pixels."""
    return Text(" ".join(f"{edge:.0f}" for edge in face.box))


def _as_dict(source: str, result: Prediction | Expression) -> dict[str, Any]:
    """One picture's result for JSON, `source` first."""
    return {"source": source} | {**result.to_dict(), "source": source}
