"""What --resume must know of an output, in a file beside it: its options, and films that ended."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcnn.commands.outputs import STREAMED
from pcnn.commands.process import switch
from pcnn.commands.shared import recognizer_options
from pcnn.disk import keep_if_possible
from pcnn.errors import InputError
from pcnn.images.files import shown

RESUMABLE = STREAMED  # the formats that --resume continues

# Options that decide a film's rows.
FILM_OPTIONS = ("every", "start", "end", "smoothing", "search_every")
_SUFFIX = ".options"
# What decides the rows, beside the files of weights. Others, such as --device and --batch-size,
# change last digits alone.
_DECIDING = (
    *("format", "faces", "as_they_are", "movements", "all_rows", "precision"),
    *("labels", "prior", "min_score", "min_face", "min_confidence", "min_quality"),
    *FILM_OPTIONS,
)


class RunOptions:
    """What decides the rows of a run of `pcnn-predict`, and the file that says so.

    The file has the output's name and `.options`. It is there while the run is not complete, and
    stays after one with --resume. Without an --output of a format in RESUMABLE there is none.
    arguments: as `pcnn-predict` parses them.
    ended: film → how many rows it had when it ended. Rows alone do not say that it did.
    Raises WeightsError: as `choices.checksums`.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.ended: dict[str, int] = {}
        self._resume = arguments.resume
        self._output: Path | None = arguments.output if arguments.format in RESUMABLE else None
        if self._output is None:
            return
        from pcnn.recognition.choices import checksums

        self._file = self._output.with_name(f"{self._output.name}{_SUFFIX}")
        self._now = {
            "files": checksums(recognizer_options(arguments)),
            "options": {name: getattr(arguments, name) for name in _DECIDING},
        }

    def compare(self) -> str:
        """Compare with those of an output to --resume, and take over which of its films ended.

        Returns a hint where the output has rows, and no file says what decided them; else "".
        Raises InputError: other options wrote the output, or the file is damaged.
        """
        if not self._resume or self._output is None:
            return ""
        if not self._output.exists() or not self._output.stat().st_size:
            return ""
        try:
            before = json.loads(self._file.read_text(encoding="utf-8"))
            others = _differences(before, self._now)
            self.ended = dict(before.get("films", {}))
        except FileNotFoundError:
            return (
                f"hint: no {shown(self._file)} says which options wrote {shown(self._output)}: "
                "--resume takes them for the same"
            )
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise InputError(
                f"{shown(self._file)}: should say which options wrote {shown(self._output)}, but "
                f"cannot be read ({error}): delete it to take them for the same"
            ) from error
        if others:
            raise InputError(
                f"{shown(self._output)}: --resume cannot continue this file, because other options "
                f"wrote it: {', '.join(others)}: give the same options, or choose another --output"
            )
        return ""

    def keep(self) -> None:
        """Write the file, unless the output is no file on a disk; a warning if it cannot be."""
        if self._output is not None and self._output.is_file():
            text = json.dumps({**self._now, "films": self.ended}, indent=2) + "\n"
            keep_if_possible(self._file, lambda path: path.write_text(text, encoding="utf-8"))

    def end_film(self, film: str, rows: int) -> None:
        """A film ended, with so many rows: write that, too."""
        self.ended[film] = rows
        self.keep()

    def complete(self) -> None:
        """The run is complete: remove the file, but not after --resume."""
        if self._output is not None and not self._resume:
            with contextlib.suppress(OSError):
                self._file.unlink()


def _differences(before: Any, now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The options that differ, as told to the user. An option that either side lacks is left out.

    Raises TypeError, LookupError: `before` is not of the form of `now`.
    """
    files, options = dict(before["files"]), now["options"]
    told = [
        f"{_option(name)} (another file)"
        for name in {**files, **now["files"]}
        # Whether movements are read, the option itself says.
        if files.get(name, "") != now["files"].get(name, "")
        and (name not in options or name in files.keys() & now["files"].keys())
    ]
    for name, value in options.items():
        if name in before["options"] and before["options"][name] != value:
            told.append(f"{_option(name)} ({_told(before['options'][name])}, now {_told(value)})")
    return told


def _option(name: str) -> str:
    """The option of a name; the landmarks' network has none."""
    return "landmarks" if name == "landmarks" else switch(name)


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "given" if value else "not given"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
