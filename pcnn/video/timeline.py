"""A film in one picture: each person's expressions over time, and their face at clear moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pcnn.errors import counted
from pcnn.results.style import DIM, GROUND, TEXT, Colour, class_colours, label_colour, letters
from pcnn.video.curves import (
    MOST_PEOPLE,
    axis_ticks,
    clock,
    sampled,
    shown_people,
)
from pcnn.video.summaries import Summary, Thumbnail, TrackSummary

_WIDTH, _MARGIN = 1600, 32
_HEADER, _FOOTER = 128, 56
_NAMES = 300  # width of the column before the charts
_CHART, _STRIP, _GAP = 84, 76, 26  # heights in a row: the chart, the thumbnails above, and a gap
_FACE = 112  # the side of a person's clearest face
_SMALL = 64  # of the thumbnails above the chart
_EMPTY, _LINE = (40, 44, 48), (72, 72, 72)


def draw_timeline(summary: Summary, title: str) -> Image.Image:
    """An RGB picture 1600 pixels wide, with a row for each person.

    title: of the film. Of more than 40 people the 40 that were seen longest are shown.
    """
    tracks = summary.tracks()
    people = shown_people(tracks)
    row = _STRIP + _CHART + _GAP
    height = _HEADER + row * max(1, len(people)) + _FOOTER
    picture = Image.new("RGB", (_WIDTH, height), GROUND)
    draw = ImageDraw.Draw(picture)
    colours = class_colours(summary.classes)
    length = clock(summary.seconds, 0.1 if summary.seconds < 60 else 1)
    told = f"{counted(len(tracks), 'track')}, {length}"
    if len(tracks) > MOST_PEOPLE:
        told += f"; the {MOST_PEOPLE} seen longest are shown"
    draw.text((_MARGIN, 40), title, font=letters(28), fill=TEXT, anchor="lm")
    draw.text((_WIDTH - _MARGIN, 40), told, font=letters(18), fill=DIM, anchor="rm")
    _draw_legend(draw, colours)
    span = summary.begin, summary.begin + max(summary.seconds, 1e-3)
    for number, person in enumerate(people):
        top = _HEADER + row * number
        _draw_person(picture, draw, person, top, colours)
        _draw_chart(picture, person, top, span, list(colours.values()))
    if not people:
        middle = (_WIDTH / 2, _HEADER + row / 2)
        draw.text(middle, "no face found", font=letters(22), fill=DIM, anchor="mm")
    _draw_axis(draw, height - _FOOTER + 8, span)
    return picture


def _draw_legend(draw: ImageDraw.ImageDraw, colours: dict[str, Colour]) -> None:
    left = float(_MARGIN + _NAMES)
    font = letters(18)
    for name, colour in colours.items():
        draw.rectangle((left, 80, left + 18, 98), fill=colour)
        draw.text((left + 26, 89), name, font=font, fill=TEXT, anchor="lm")
        left += 26 + font.getlength(name) + 28


def _draw_person(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    person: TrackSummary,
    top: int,
    colours: dict[str, Colour],
) -> None:
    """The column before the chart: the clearest face, the number, the shares."""
    if person.best:
        face = person.best[0].picture().resize((_FACE, _FACE), Image.Resampling.BICUBIC)
        picture.paste(face, (_MARGIN, top + _STRIP + _CHART - _FACE))
    left, y = _MARGIN + _FACE + 14, top + _STRIP + _CHART - _FACE + 8
    draw.text((left, y), f"person {person.track}", font=letters(20), fill=TEXT, anchor="lm")
    seen = f"{clock(person.first, 0.1)} - {clock(person.last, 0.1)}"
    draw.text((left, y + 25), seen, font=letters(15), fill=DIM, anchor="lm")
    for place, (name, share) in enumerate(list(person.shares.items())[:3]):
        text = f"{name} {share:.0%}"
        at = (left, y + 51 + 22 * place)
        draw.text(at, text, font=letters(16), fill=label_colour(colours, name), anchor="lm")


def _draw_chart(
    picture: Image.Image,
    person: TrackSummary,
    top: int,
    span: tuple[float, float],
    colours: Sequence[Colour],
) -> None:
    """The shares of all expressions over time, piled up, and faces above their moments."""
    left, upper = _MARGIN + _NAMES, top + _STRIP
    width = _WIDTH - _MARGIN - left
    middles = span[0] + (np.arange(width) + 0.5) / width * (span[1] - span[0])
    scores = sampled(person, middles)  # (width, classes)
    ends = scores.cumsum(1)
    heights = (np.arange(_CHART)[::-1] + 0.5) / _CHART  # of each row, from below
    index = (heights[:, None, None] > ends[None]).sum(2)  # (height, width): the class there
    palette = np.array([*colours, _EMPTY], np.uint8)
    index = np.minimum(index, np.where(scores.any(1), len(colours) - 1, len(colours))[None])
    index[:, ~scores.any(1)] = len(colours)
    picture.paste(Image.fromarray(palette[index]), (left, upper))
    taken: list[tuple[float, float]] = []
    for thumbnail in person.best:
        place = left + (thumbnail.time - span[0]) / (span[1] - span[0]) * width
        start = min(max(place - _SMALL / 2, left), left + width - _SMALL)
        if any(start < end and begin < start + _SMALL for begin, end in taken):
            continue
        taken.append((start, start + _SMALL + 4))
        _draw_thumbnail(picture, thumbnail, (start, upper), place)


def _draw_thumbnail(
    picture: Image.Image,
    thumbnail: Thumbnail,
    place: tuple[float, int],
    moment: float,
) -> None:
    draw = ImageDraw.Draw(picture)
    small = thumbnail.picture().resize((_SMALL, _SMALL), Image.Resampling.BICUBIC)
    picture.paste(small, (round(place[0]), place[1] - _SMALL - 8))
    draw.line((moment, place[1] - 8, moment, place[1] + _CHART), fill=GROUND, width=2)
    draw.line((moment, place[1] - 8, moment, place[1]), fill=TEXT, width=2)


def _draw_axis(draw: ImageDraw.ImageDraw, top: int, span: tuple[float, float]) -> None:
    left, width = _MARGIN + _NAMES, _WIDTH - 2 * _MARGIN - _NAMES
    draw.line((left, top, left + width, top), fill=_LINE, width=2)
    for seconds, text in axis_ticks(*span):
        x = left + (seconds - span[0]) / (span[1] - span[0]) * width
        draw.line((x, top, x, top + 8), fill=_LINE, width=2)
        draw.text((x, top + 22), text, font=letters(16), fill=DIM, anchor="mm")
