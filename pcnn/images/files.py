"""Picture files: search, names for messages and outputs, and reasons for errors."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pcnn.errors import InputError

# Suffixes of pictures for find_images. HEIC is included, so that it is reported and not ignored.
JPEG_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"))
SUFFIXES = JPEG_SUFFIXES.union(
    (
        *(".png", ".apng", ".gif", ".webp"),
        *(".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif"),
    )
)

# Suffixes of films for find_images.
FILM_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv"),
        *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".ogv"),
        *(".mxf", ".y4m", ".h264", ".hevc"),
    )
)

# First bytes of files that are often passed instead of a picture (in lower case, after blanks).
_NOT_PICTURES = (
    ((b"<!doctype html", b"<html"), "an HTML page, not a picture: was the download an error page?"),
    ((b"%pdf",), "PDF documents are not supported: export the page as PNG"),
    ((b"version https://git-lfs",), "a Git LFS pointer, not the picture: run git lfs pull"),
    ((b"pk\x03\x04", b"\x1f\x8b", b"rar!"), "an archive, not a picture: unpack it first"),
)
# Major brands of ISO base media files (ISO/IEC 14496-12: bytes 8…11, after "ftyp").
_AVIF = (b"avif", b"avis")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def find_images(
    paths: Iterable[str | os.PathLike[str]], *, films: bool = False
) -> tuple[list[Path], list[InputError]]:
    """Find picture files from files, folders and glob patterns.

    paths: a file is returned with any suffix, even if it does not exist. A folder gives all files
        below it with one of SUFFIXES, without hidden files and linked folders. A name with *, ?
        or [ that is no file is a pattern (** for any depth).
    films: True also finds files with one of FILM_SUFFIXES.
    Returns the files, each once, in the order of `paths` and sorted within each. Also returns an
    InputError for each path without pictures and each unreadable folder, so that the others can
    still be used.
    """
    files: dict[Path, None] = {}
    errors: list[InputError] = []
    suffixes = SUFFIXES | FILM_SUFFIXES if films else SUFFIXES
    for each in paths:
        path = os.fspath(each)
        if not path or "\0" in path:
            errors.append(InputError(f"find_images: paths must be names, got {path!r}"))
        elif os.path.isdir(path):  # noqa: PTH112  (Path("") would be ".")
            files.update(dict.fromkeys(_found_in_folder(Path(path), errors, suffixes)))
        elif glob.has_magic(path) and not os.path.lexists(path):
            files.update(dict.fromkeys(_found_by_pattern(path, errors, suffixes)))
        else:
            files[Path(path)] = None
    return list(files), errors


def annotated_names(
    files: Sequence[Path],
    folder: Path,
    *,
    word: str = "annotated",
    jpeg: bool = True,
    suffix: str = "",
) -> dict[Path, Path]:
    """File → the path of its annotated copy in `folder`.

    word: added to the names. jpeg: copies of JPEG files are JPEG; False makes all of them PNG.
    suffix: replaces these suffixes, with its dot.
    Copies are named `stem.annotated.png` (`.jpg` for JPEG). They keep the files' subfolders below
    their common folder. If two names would still be equal (a.png and a.webp), or one of `files`
    has that name, a number is added.
    Returns one path for each of `files`; all differ, and none is in `files`.
    """
    absolute = [_absolute(file) for file in files]
    taken = set(absolute)
    common = _common_folder(absolute)
    names: dict[Path, Path] = {}
    for file, place in zip(files, absolute, strict=True):
        parent = folder / place.parent.relative_to(common) if common else folder
        end = ".jpg" if jpeg and file.suffix.lower() in JPEG_SUFFIXES else ".png"
        end = suffix or end
        target, number = parent / f"{file.stem}.{word}{end}", 1
        while _absolute(target) in taken:
            number += 1
            target = parent / f"{file.stem}-{number}.{word}{end}"
        taken.add(_absolute(target))
        names[file] = target
    return names


def what_instead(head: bytes) -> str:
    """The reason why a file is no readable picture, with a remedy.

    head: its first bytes, at least a hundred if it has them.
    """
    if not head:
        return "the file is empty (0 bytes)"
    if head[4:8] == b"ftyp":
        return _what_media(head[8:12])
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginnings, reason in _NOT_PICTURES:
        if start.startswith(beginnings):
            return reason
    if b"<svg" in start:
        return "SVG drawings are not supported: export it as PNG"
    if _is_text(head):
        return "text, not a picture"
    return "not a picture in a format that can be read (JPEG, PNG, GIF, WebP, TIFF, BMP, …)"


def file_error(error: OSError) -> str:
    """The reason why a file cannot be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError) or os.path.isdir(error.filename or ""):  # noqa: PTH112
        return "a folder, not a picture: pass the files in it"
    if isinstance(error, PermissionError):
        return "permission denied"
    return f"cannot be read ({error.strerror or error})"


def shown(path: str | os.PathLike[str]) -> str:
    """A file name for a message, escaped if it is not printable on one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def as_unicode(name: str) -> str:
    """A file's name as text that any file can have: bytes that are no Unicode are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _absolute(path: Path) -> Path:
    """The absolute path without links and dots; it need not exist."""
    return Path(os.path.realpath(path))


def _common_folder(files: Sequence[Path]) -> Path | None:
    """The deepest folder that holds all files; None without files or across Windows drives."""
    try:
        return Path(os.path.commonpath([file.parent for file in files]))
    except ValueError:
        return None


def _what_media(brand: bytes) -> str:
    """The reason for an ISO base media file of this major brand."""
    if brand in _AVIF:
        return "AVIF pictures need Pillow 11.3 or later: upgrade it, or convert to JPEG"
    if brand in _HEIC:
        return "HEIC pictures must be converted to JPEG (in Python: pillow_heif reads them)"
    return "a video, not a picture: pcnn-predict reads it (in Python: Recognizer.predict_video)"


def _is_text(head: bytes) -> bool:
    """Whether a file's first bytes are UTF-8 text; the last character may be incomplete."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and b"\0" not in head
    return b"\0" not in head


def _found_in_folder(
    folder: Path, errors: list[InputError], suffixes: frozenset[str]
) -> list[Path]:
    """Sorted files below `folder` with one of the suffixes; errors are added to `errors`."""
    unread: dict[Path, InputError] = {}
    found = _files_below(folder, unread, suffixes)
    errors += unread.values()
    if not found and not unread:
        errors.append(InputError(f"{shown(folder)}: no pictures in this folder"))
    return found


def _found_by_pattern(
    pattern: str, errors: list[InputError], suffixes: frozenset[str]
) -> list[Path]:
    """Sorted files that match, and those below matching folders, with one of the suffixes."""
    found: list[Path] = []
    unread = _unread_folders(pattern)
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207  (it may be absolute)
    for match in sorted(map(Path, matches)):
        if os.path.isdir(match):  # noqa: PTH112  (Path.is_dir raises PermissionError)
            found += _files_below(match, unread, suffixes)
        elif _has_suffix(match.name, suffixes):
            found.append(match)
    errors += unread.values()
    if not found and not unread:
        errors.append(InputError(f"{shown(pattern)}: no pictures match this pattern"))
    return found


def _files_below(
    folder: Path, unread: dict[Path, InputError], suffixes: frozenset[str]
) -> list[Path]:
    """Sorted files below `folder` with one of the suffixes.

    unread: folders that cannot be read are added to it.
    """

    def report(error: OSError) -> None:
        unread[Path(error.filename)] = _not_read(error)

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += (Path(parent, each) for each in names if _has_suffix(each, suffixes))
    return sorted(found)


def _unread_folders(pattern: str) -> dict[Path, InputError]:
    """The folders in which a pattern looks for names, but which cannot be read: glob is silent."""
    unread: dict[Path, InputError] = {}
    parts = Path(pattern).parts
    # "a/*" looks into a; "a/**" into a and each folder below, and so does "a/**/*" once more.
    looked_into = dict.fromkeys(
        os.path.join(*parts[:place], *(["**"] if part == "**" else []), "")  # noqa: PTH118
        for place, part in enumerate(parts)
        if glob.has_magic(part)
    )
    for above in looked_into:
        for folder in glob.iglob(above, recursive=True) if above else (os.curdir,):  # noqa: PTH207
            try:
                os.scandir(folder).close()
            except OSError as error:
                unread[Path(folder)] = _not_read(error)
    return unread


def _not_read(error: OSError) -> InputError:
    reason = f"the folder cannot be read ({error.strerror})"
    return InputError(f"{shown(Path(error.filename))}: {reason}")


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Whether a file name in a folder has one of the suffixes and is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122
