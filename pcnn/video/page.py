"""A film as one HTML page that needs no other file: the timeline with a table of its people."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from pcnn.errors import counted
from pcnn.results.style import Colour, class_colours, label_colour
from pcnn.results.values import UNCERTAIN
from pcnn.video.curves import axis_ticks, clock, segments, shown_people
from pcnn.video.summaries import Summary, TrackSummary

_WIDTH, _HEIGHT = 1000, 90  # of a chart's own units; the page stretches them
_MOST_POINTS = 800  # of a curve, more than which a screen does not show

_STYLE = """\
:root { color-scheme: dark; }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1.5rem; background: #181818; color: #fff;
       font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } .dim { color: #bebebe; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em;
            vertical-align: -.08em; }
section { display: grid; grid-template-columns: 15rem 1fr; gap: 1rem; margin-top: 1.6rem; }
h2 { font-size: 1.05rem; margin: 0; } p { margin: .2rem 0; }
svg { display: block; width: 100%; height: 90px; background: #282c30; }
.faces { position: relative; height: 78px; } figure { position: absolute; margin: 0; width: 72px;
         transform: translateX(-50%); }
.wide { overflow-x: auto; } section > div { min-width: 0; }
img { display: block; border-radius: 4px; } .big img { width: 112px; height: 112px; }
.axis { position: relative; height: 1.6rem; } .axis span { position: absolute;
        transform: translateX(-50%); font-size: .85rem; color: #bebebe; }
table { border-collapse: collapse; margin-top: 2rem; } td, th { text-align: right;
        padding: .25rem .9rem .25rem 0; } th:first-child, td:first-child { text-align: left; }
@media (max-width: 45rem) { section { grid-template-columns: 1fr; } }
"""


def timeline_page(summary: Summary, title: str) -> str:
    """The page's text, UTF-8. title: of the film.

    Of more than 40 people the 40 that were seen longest have a chart; all are in the table.
    """
    tracks = summary.tracks()
    colours = class_colours(summary.classes)
    span = summary.begin, summary.begin + max(summary.seconds, 1e-3)
    charts = "".join(_person(each, span, colours) for each in shown_people(tracks))
    name = escape(title)
    told = f"{counted(len(tracks), 'track')}, {clock(summary.seconds, 0.1)}"
    legend = "".join(
        f'<span><i style="background:{_hex(colour)}"></i>{escape(each)}</span>'
        for each, colour in colours.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_STYLE}</style></head><body>\n"
        f'<h1>{name}</h1><p class="dim">{told}</p><p class="legend">{legend}</p>\n'
        f"{charts or '<p>no face found</p>'}\n{_table(tracks, summary.classes)}\n"
        "</body></html>\n"
    )


def _person(person: TrackSummary, span: tuple[float, float], colours: dict[str, Colour]) -> str:
    """One row: who, and their chart."""
    shares = "".join(
        f'<p style="color:{_hex(label_colour(colours, name))}">{escape(name)} {share:.0%}</p>'
        for name, share in list(person.shares.items())[:3]
    )
    big = f'<div class="big">{_image(person.best[0].jpeg)}</div>' if person.best else ""
    seen = f"{clock(person.first, 0.1)} – {clock(person.last, 0.1)}"
    ticks = "".join(
        f'<span style="left:{_percent(seconds, span)}">{text}</span>'
        for seconds, text in axis_ticks(*span)
    )
    return (
        f'<section><div>{big}<h2>person {person.track}</h2><p class="dim">{seen}</p>{shares}'
        f"</div><div>{_faces(person, span)}{_chart(person, span, colours)}"
        f'<div class="axis">{ticks}</div></div></section>\n'
    )


def _chart(person: TrackSummary, span: tuple[float, float], colours: dict[str, Colour]) -> str:
    """All expressions over time, piled up, as SVG."""
    paths = []
    for piece in segments(person):
        times, curve = person.times[piece], person.curve[piece]
        if len(times) == 1:  # an area needs two ends
            half = person.bin_s / 2
            times, curve = np.array([times[0] - half, times[0] + half]), np.repeat(curve, 2, 0)
        shown = np.linspace(0, len(times) - 1, min(len(times), _MOST_POINTS)).round().astype(int)
        x = (times[shown] - span[0]) / (span[1] - span[0]) * _WIDTH
        ends = curve[shown].cumsum(1)
        begins = ends - curve[shown]
        for index, (name, colour) in enumerate(colours.items()):
            upper = _points(x, ends[:, index])
            lower = _points(x[::-1], begins[::-1, index])
            share = f"{escape(name)}, {curve[:, index].mean():.0%} on average"
            paths.append(
                f'<polygon fill="{_hex(colour)}" points="{upper} {lower}">'
                f"<title>{share}</title></polygon>"
            )
    view = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none"'
    return f'<svg {view} role="img" aria-label="expressions over time">{"".join(paths)}</svg>'


def _faces(person: TrackSummary, span: tuple[float, float]) -> str:
    """Small pictures above their moments, as far as they do not cover each other."""
    figures: list[str] = []
    taken: list[float] = []
    for each in person.best:
        share = (each.time - span[0]) / (span[1] - span[0])
        if any(abs(share - other) < 0.07 for other in taken):
            continue
        taken.append(share)
        told = f"{clock(each.time, 0.1)}: {escape(each.label)} {each.confidence:.0%}"
        left = f"clamp(36px, {100 * share:.2f}%, 100% - 36px)"  # half of the picture's width
        figures.append(
            f'<figure style="left:{left}" title="{told}">{_image(each.jpeg, 72)}</figure>'
        )
    return f'<div class="faces">{"".join(figures)}</div>'


def _table(tracks: Sequence[TrackSummary], classes: Sequence[str]) -> str:
    names = [*classes, *([UNCERTAIN] if any(UNCERTAIN in each.shares for each in tracks) else [])]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><td>person {person.track}</td><td>{clock(person.first, 0.1)}</td>"
        f"<td>{clock(person.last, 0.1)}</td><td>{person.seconds:.1f} s</td>"
        + "".join(f"<td>{person.shares.get(name, 0):.0%}</td>" for name in names)
        + "</tr>\n"
        for person in tracks
    )
    heads = f"<th>share of time</th><th>first</th><th>last</th><th>seen</th>{head}"
    return f'<div class="wide"><table><tr>{heads}</tr>\n{rows}</table></div>'


def _image(jpeg: bytes, side: int = 112) -> str:
    data = base64.b64encode(jpeg).decode()
    return f'<img width="{side}" height="{side}" alt="" src="data:image/jpeg;base64,{data}">'


def _points(x: object, values: object) -> str:
    return " ".join(
        f"{place:.1f},{_HEIGHT * (1 - value):.1f}"
        for place, value in zip(np.asarray(x), np.asarray(values), strict=True)
    )


def _percent(seconds: float, span: tuple[float, float]) -> str:
    return f"{100 * (seconds - span[0]) / (span[1] - span[0]):.2f}%"


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
