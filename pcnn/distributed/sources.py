"""Where pictures come from: local files, URIs that pyarrow reads, Parquet; cut into partitions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pcnn.errors import InputError
from pcnn.images.files import FILM_SUFFIXES, SUFFIXES, find_images, shown
from pcnn.results.tables import needed

_ROWS_AT_ONCE = 32  # pictures of a Parquet file in memory
# Columns of a Parquet file that may name its pictures, the first that is there.
_NAMES = ("path", "source")
# Characters of a file's name that stay as they are in a URI (RFC 3986: pchar, and the slash).
_PLAIN = "/!$&'()*+,;=:@~"


@dataclass(frozen=True)
class Partition:
    """The pictures, or the film, whose faces go into one file of the output.

    pictures: their full paths or URIs; or none, and row groups of the Parquet file `parquet`; or
        neither, and the path or URI of a `film`.
    """

    number: int
    pictures: tuple[str, ...] = ()
    parquet: str = ""
    row_groups: tuple[int, ...] = ()
    film: str = ""


class NamedPicture:
    """A picture's bytes with a name for messages, as a file that is read when it is needed.

    content: the bytes, or None for a picture that is missing; a URI is read in their place.
    """

    def __init__(self, name: str, content: bytes | None, *, uri: str = "") -> None:
        self.name = name
        self._content = content
        self._uri = uri

    def seekable(self) -> bool:
        return False

    def read(self) -> bytes:
        """All of it. Raises OSError: the URI cannot be read; ValueError: there is nothing."""
        if self._uri:
            filesystem, path = _located(self._uri)
            with filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())
        if self._content is None:
            raise ValueError("it is null")
        return self._content


def open_picture(path: str | None) -> str | NamedPicture:
    """A picture as `Recognizer.predict` takes it: a local path as it is, a URI as a file."""
    if path is None:
        return NamedPicture("picture", None)
    return NamedPicture(path, None, uri=path) if _is_uri(path) else path


def open_film(film: str) -> Any:
    """A film as `Recognizer.predict_video` takes it: a local path as it is, a URI as a file.

    Raises InputError: a URI that cannot be read.
    """
    if not _is_uri(film):
        return film
    filesystem, path = _located(film)
    try:
        return filesystem.open_input_file(path)
    except OSError as error:
        raise InputError(f"{shown(film)}: cannot be read ({error})") from error


def partitions(
    sources: Sequence[str], size: int, *, films: bool = True
) -> tuple[list[Partition], list[InputError]]:
    """What each file of the output holds.

    sources: files, folders and patterns as for `find_images`; `.parquet` files, or folders
        of them named so, with the column "bytes"; URIs of any of these, in which names are
        percent-encoded, also with a query (`s3://bucket/photos?region=eu-west-1`).
    size: pictures for a partition; a row group of Parquet is never cut, and a film has one alone.
    films: False does not look for films.
    Returns partitions in the order of the sources, Parquet first, then pictures, then films, and
    an error for each source that stands for nothing or cannot be read.
    """
    suffixes = tuple(SUFFIXES | FILM_SUFFIXES) if films else tuple(SUFFIXES)
    pictures: list[str] = []
    errors: list[InputError] = []
    cut: list[dict[str, Any]] = []
    for source in sources:
        try:
            if _place(source).rstrip("/").endswith(".parquet"):
                for table in _listed(source, (".parquet",), "Parquet files"):
                    cut += [{"parquet": table, "row_groups": lot} for lot in _lots(table, size)]
            elif _is_uri(source):
                pictures += _listed(source, suffixes, "pictures")
            else:
                files, failed = find_images([source], films=films)
                pictures += map(os.path.abspath, files)
                errors += failed
        except InputError as error:
            errors.append(error)
    found = list(dict.fromkeys(pictures))
    pictures = [each for each in found if not (films and is_film(each))]
    cut += [
        {"pictures": tuple(pictures[start : start + size])}
        for start in range(0, len(pictures), size)
    ]
    cut += [{"film": each} for each in found if films and is_film(each)]
    return [Partition(number, **parts) for number, parts in enumerate(cut)], errors


def read_partition(partition: Partition) -> Iterator[tuple[str | None, Any]]:
    """Each picture's name, and what `Recognizer.predict` takes for it, a few in memory at a time.

    Raises InputError: a Parquet file without the column "bytes"; OSError: one that cannot be
    read any more.
    """
    for path in partition.pictures:
        yield path, open_picture(path)
    if partition.parquet:
        with _opened_parquet(partition.parquet) as file:
            columns = file.schema_arrow.names
            if "bytes" not in columns:
                raise InputError(
                    f"{shown(partition.parquet)}: must have the column 'bytes', the contents of "
                    f"picture files, got {', '.join(columns)}"
                )
            names = [name for name in _NAMES if name in columns][:1]
            batches = file.iter_batches(
                _ROWS_AT_ONCE, row_groups=list(partition.row_groups), columns=["bytes", *names]
            )
            for batch in batches:
                for row in batch.to_pylist():
                    name = row[names[0]] if names else None
                    yield name, NamedPicture(name or "picture", row["bytes"])


def is_film(path: str) -> bool:
    """Whether a path or URI has the suffix of a film."""
    return Path(_place(path)).suffix.lower() in FILM_SUFFIXES


def _lots(table: str, size: int) -> Iterator[tuple[int, ...]]:
    """Row groups of a Parquet file in lots of at least `size` rows, but for the last."""
    with _opened_parquet(table) as file:
        lot: list[int] = []
        rows = 0
        for group in range(file.metadata.num_row_groups):
            lot.append(group)
            rows += file.metadata.row_group(group).num_rows
            if rows >= size:
                yield tuple(lot)
                lot, rows = [], 0
        if lot:
            yield tuple(lot)


def _opened_parquet(table: str) -> Any:
    """A Parquet file, local or by its URI. Raises InputError: it cannot be read."""
    parquet = needed("pyarrow.parquet", "pcnn-predict --ray", "ray")
    try:
        filesystem, path = _located(table)
        return parquet.ParquetFile(path, filesystem=filesystem)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(
            f"{shown(table)}: not a Parquet file that can be read ({error})"
        ) from error


def _listed(source: str, suffixes: tuple[str, ...], kind: str) -> list[str]:
    """Sorted files of these suffixes: the source itself, or those below it; URIs as URIs.

    Raises InputError: there are none, or they cannot be listed.
    """
    fs = needed("pyarrow.fs", "pcnn-predict --ray", "ray")
    filesystem, path = _located(source)
    try:
        if filesystem.get_file_info(path).type == fs.FileType.File:
            return [source if _is_uri(source) else path]
        below = fs.FileSelector(path, recursive=True, allow_not_found=True)
        found = filesystem.get_file_info(below)
    except (OSError, UnicodeError) as error:  # a name that is not UTF-8 is no name for pyarrow
        raise InputError(f"{shown(source)}: cannot be listed ({error})") from error
    names = sorted(
        each.path
        for each in found
        if each.type == fs.FileType.File
        and each.path.lower().endswith(suffixes)
        and not each.base_name.startswith((".", "_"))
    )
    if not names:
        raise InputError(f"{shown(source)}: no {kind} there")
    if not _is_uri(source):
        return names
    parts, root = urlsplit(source), len(path.rstrip("/"))
    root_path = parts.path.rstrip("/")
    return [
        parts._replace(path=root_path + quote(name[root:], _PLAIN), fragment="").geturl()
        for name in names
    ]


def _located(source: str) -> tuple[Any, str]:
    """The pyarrow filesystem of a path or URI, and the path in it.

    Raises InputError: a URI of a kind that pyarrow does not read.
    """
    fs = needed("pyarrow.fs", "pcnn-predict --ray", "ray")
    if not _is_uri(source):
        return fs.LocalFileSystem(), str(Path(source).absolute())
    try:
        return fs.FileSystem.from_uri(source)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InputError(f"{shown(source)}: an address that cannot be read ({error})") from error


def _is_uri(source: str) -> bool:
    return "://" in source


def _place(source: str) -> str:
    """A URI without its query; a path as it is."""
    return urlsplit(source)._replace(query="", fragment="").geturl() if _is_uri(source) else source
