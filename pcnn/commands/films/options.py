"""Arguments of `pcnn-predict` for films, and their checks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pcnn.commands.process import switch
from pcnn.commands.run_options import RESUMABLE
from pcnn.commands.shared import number
from pcnn.errors import InputError
from pcnn.images.files import FILM_SUFFIXES, find_images
from pcnn.video.sources import is_address, source_name

# The default of video.smoothing, repeated to avoid its import; a test compares both.
DEFAULT_SMOOTHING_S = 0.5
# The default of recognition.film_search, for the same reason.
DEFAULT_SEARCH_EVERY_S = 1 / 3
# Options for photographs alone and for films alone, with their defaults.
_PHOTOGRAPH_DEFAULTS = {"explain": None, "min_quality": 0.0}
_FILM_DEFAULTS = {
    **dict.fromkeys(("every", "start", "end", "timeline", "subtitles")),
    "smoothing": DEFAULT_SMOOTHING_S,
    "search_every": DEFAULT_SEARCH_EVERY_S,
}
_MOST_SIXTIES = 3  # hours, minutes, seconds


def add_film_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for films, in their own group."""
    add = parser.add_argument_group("films (pip install 'pcnn[video]')").add_argument
    add("--every", type=seconds, metavar="SECONDS", help="time between analysed frames")
    add("--start", type=clock, metavar="TIME", help="start time: seconds, 1:30 or 1:02:03")
    add("--end", type=clock, metavar="TIME", help="end time, not included")
    add(
        "--smoothing",
        type=seconds_or_none,
        default=DEFAULT_SMOOTHING_S,
        metavar="SECONDS",
        help="smoothing time of the scores [%(default)s]; 0 for raw scores",
    )
    add(
        "--search-every",
        type=seconds_or_zero,
        default=DEFAULT_SEARCH_EVERY_S,
        metavar="SECONDS",
        help="time between searches for new faces [0.33]; 0 searches the whole of each frame",
    )
    add("--timeline", type=Path, metavar="DIR", help="save expressions over time, PNG and HTML")
    add("--subtitles", type=Path, metavar="DIR", help="save changes as subtitles, SRT and WebVTT")
    add("--resume", action="store_true", help="continue an incomplete --output")


def wrong_film_arguments(arguments: argparse.Namespace) -> str:
    """The error in the combination of arguments, or ""."""
    if arguments.resume and (arguments.output is None or arguments.format not in RESUMABLE):
        return "--resume needs --output and --format jsonl or csv"
    if arguments.end is not None and arguments.end <= (arguments.start or 0):
        return "--end must be later than --start"
    return ""


def idle_hints(arguments: argparse.Namespace, *, films: bool) -> list[str]:
    """A hint on options that concern photographs alone, or films alone, and are given in vain.

    films: there are films among the inputs.
    """
    usual = _PHOTOGRAPH_DEFAULTS if films else _FILM_DEFAULTS
    given = [switch(name) for name, value in usual.items() if getattr(arguments, name) != value]
    if not given:
        return []
    where = "photographs, not films" if films else "films: there is none"
    return [f"hint: {' and '.join(given)} {'is' if len(given) == 1 else 'are'} for {where}"]


def find_inputs(arguments: argparse.Namespace) -> tuple[list[Path], list[str], list[InputError]]:
    """The pictures and films of the paths, and the errors of some paths.

    With --faces there are no films: they are among the errors.
    """
    addresses = [path for path in arguments.paths if is_address(path)]
    named = [path for path in arguments.paths if not is_address(path)]
    found, errors = find_images(named, films=not arguments.faces)
    # With --faces a missing film is passed on like any missing file, and reported as such.
    films = dict.fromkeys(
        file
        for file in found
        if file.suffix.lower() in FILM_SUFFIXES and (not arguments.faces or os.path.lexists(file))
    )
    pictures = [file for file in found if file not in films]
    sources = [str(film) for film in films] + addresses
    if not arguments.faces:
        return pictures, sources, errors
    cause = "a film, but --faces is for pictures of cut-out faces: omit it for films"
    return pictures, [], errors + [InputError(f"{source_name(each)}: {cause}") for each in sources]


def seconds(text: str) -> float:
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be seconds above 0, got {text}")
    return value


def seconds_or_none(text: str) -> float | None:
    return None if number(text) == 0 else seconds(text)


def seconds_or_zero(text: str) -> float:
    return 0.0 if number(text) == 0 else seconds(text)


def clock(text: str) -> float:
    """Seconds, or hours, minutes and seconds with colons between them."""
    parts = [number(part) for part in text.split(":")]
    if len(parts) > _MOST_SIXTIES or any(part < 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be like 90, 1:30 or 1:02:03.5, got {text!r}")
    total = 0.0
    for part in parts:
        total = 60 * total + part
    return total
