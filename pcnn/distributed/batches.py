"""Recognition of Arrow batches of pictures, for all kinds of clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import torch

from pcnn.distributed.deaths import Watch, guarded
from pcnn.distributed.sources import NamedPicture, open_picture
from pcnn.errors import InputError
from pcnn.recognition.recognizer import Recognizer
from pcnn.results.tables import to_arrow

COLUMNS = ("bytes", "path")


class BatchRecognizer:
    """A recognizer for Arrow tables of pictures, in its own process.

    column: "bytes", the contents of picture files, or "path", their paths or URIs.
    source: an optional column with the names of pictures; with "path" the path is the name.
    options: arguments of `Recognizer` by name.
    threads: torch's number of threads in this process; None does not change it.
    watch: leaves pictures out that kill this process again and again; None does not.
    Raises InputError: another column; also as `Recognizer`.
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        column: str = "bytes",
        source: str = "path",
        options: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        threads: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        check_column(column, "BatchRecognizer")
        if threads is not None:
            torch.set_num_threads(threads)
        self._column, self._source, self._min_score = column, source, min_score
        self._watch = watch
        if watch is not None:
            watch.start()
        self.recognizer = Recognizer(**(options or {}))

    def __call__(self, table: Any) -> Any:
        """The faces of a pyarrow.Table or RecordBatch of pictures, as a pyarrow.Table.

        Rows are in the order of the pictures, see docs/tables.md. An unreadable picture has a row
        with its error.
        Raises InputError: the table lacks the column.
        """
        names = table.schema.names
        if self._column not in names:
            raise InputError(
                f"predict_dataset: column {self._column!r} must be in the data, got "
                f"{', '.join(names)}: rename yours"
            )
        contents = table.column(self._column).to_pylist()
        if self._column == "path":
            sources = contents
            pictures = [open_picture(path) for path in contents]
        else:
            here = self._source in names
            sources = table.column(self._source).to_pylist() if here else [None] * len(contents)
            pictures = [
                NamedPicture(name or "picture", content)
                for name, content in zip(sources, contents, strict=True)
            ]
        own = self.recognizer
        results = guarded(
            *(self._watch, _digest(contents) if self._watch else ""),
            zip(sources, pictures, strict=True),
            lambda some: own.predict(list(some), min_score=self._min_score, on_error="return"),
        )
        return to_arrow(
            [result for _, result in results],
            sources=sources,
            classes=own.classes,
            values=own.value_names,
            movements=own.movements,
        )


def predict_batches(
    batches: Iterator[Any],
    *,
    column: str = "bytes",
    source: str = "path",
    recognizer_options: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """The faces of an iterator of pyarrow.RecordBatches of pictures, as RecordBatches.

    A function for Spark's `mapInArrow`, see docs/scale.md. One batch is in memory at a time. Each
    process keeps its last recognizer.
    column, source, recognizer_options: as for `predict_dataset`.
    Raises InputError: another column, or data without it; also as `Recognizer`.

    >>> import pyarrow
    >>> from pcnn.distributed import predict_batches
    >>> batch = pyarrow.record_batch({"path": ["docs/images/astronaut.png"]})
    >>> [faces] = predict_batches(iter([batch]), column="path")
    >>> faces.column("label").to_pylist()
    ['happiness']
    """
    options = tuple(sorted((recognizer_options or {}).items()))
    recognize = _recognizer(column, source, options)
    for batch in batches:
        yield from recognize(batch).combine_chunks().to_batches()


def check_column(column: str, function: str) -> None:
    """Raise InputError unless the column is one of COLUMNS."""
    if column not in COLUMNS:
        raise InputError(f"{function}: column must be 'bytes' or 'path', got {column!r}")


def _digest(contents: list[bytes | str | None]) -> str:
    """A name for these pictures, the same when a batch is read again."""
    whole = sha256()
    for each in contents:
        raw = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each or b""
        whole.update(sha256(raw).digest())
    return whole.hexdigest()


@lru_cache(maxsize=1)
def _recognizer(column: str, source: str, options: tuple[tuple[str, Any], ...]) -> BatchRecognizer:
    """This process's recognizer, because Spark calls again for each partition."""
    return BatchRecognizer(column=column, source=source, options=dict(options))
