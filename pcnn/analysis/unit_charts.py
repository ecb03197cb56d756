"""Heat map and tables of the distances between maps and action units."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich import box
from rich.table import Table

from pcnn.analysis.units import Sensitivity
from pcnn.datasets.action_units import PARTS, UNITS
from pcnn.errors import InputError
from pcnn.results.style import DIM, GROUND, TEXT, letters

_CHANCE = (70, 70, 70)
# Colour-blind readers can distinguish blue from orange and yellow (Okabe and Ito 2008).
_MORE = np.array(((130, 60, 0), (240, 228, 66)))
_LESS = np.array(((0, 50, 90), (86, 180, 233)))
_MOST_MAPS = 9  # of a unit in the CSV
_FULL = 2.0  # the distance of the strongest colour
_ROW, _MARGIN, _LEFT, _GAP, _WIDTH = 22, 24, 230, 8, 1180


def draw_heat(sensitivity: Sensitivity, *, stage: str = "layer3", title: str = "") -> Image.Image:
    """Draw the distances between one stage's maps (columns, by trunk) and units (rows, by part).

    Within a trunk, maps are sorted by their own unit. Chance findings are grey.
    Returns an RGB image. Raises InputError: there is no map of that stage.
    """
    trunks = list(dict.fromkeys(each.trunk for each in sensitivity.maps if each.stage == stage))
    if not trunks:
        raise InputError(f"draw_heat: stage must be a stage of the maps, got {stage!r}")
    rows = _by_part(sensitivity.units)
    places = {name: _sorted_maps(sensitivity, name, stage, rows) for name in trunks}
    room = _WIDTH - _GAP * (len(trunks) - 1)
    scale = max(1, room // sum(map(len, places.values())))
    widths = [scale * len(each) for each in places.values()]
    width = _LEFT + sum(widths) + _GAP * (len(trunks) - 1) + _MARGIN
    top = 84
    bottom = top + _ROW * len(rows) + _GAP * (len(_parts(sensitivity.units)) - 1)
    picture = Image.new("RGB", (max(width, 700), bottom + 56), GROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 16), title or stage, font=letters(22), fill=TEXT)
    colours = _coloured(sensitivity)  # (M, K, 3)
    left = _LEFT
    for (name, maps), span in zip(places.items(), widths, strict=True):
        draw.text((left, top - 24), name.replace("_", " "), font=letters(15), fill=TEXT)
        for unit, y in _rows(sensitivity.units, top):
            strip = colours[maps, sensitivity.units.index(unit)][None]
            image = Image.fromarray(strip).resize((span, _ROW - 2), Image.Resampling.NEAREST)
            picture.paste(image, (left, y))
        left += span + _GAP
    for unit, y in _rows(sensitivity.units, top):
        text = f"{unit:>2} {UNITS[unit][0]}"
        draw.text((_MARGIN, y + _ROW / 2 - 1), text, font=letters(15), fill=TEXT, anchor="lm")
    _legend(picture, draw, bottom + 28)
    return picture


def unit_table(sensitivity: Sensitivity, *, count: int = 3) -> Table:
    """A table with the number of maps and the most sensitive maps for each unit."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("unit", "part", "faces", "maps", "most sensitive"):
        table.add_column(
            name, no_wrap=True, justify="right" if name in ("faces", "maps") else "left"
        )
    for unit in _by_part(sensitivity.units):
        column = sensitivity.units.index(unit)
        rows = sensitivity.sensitive_rows(unit)
        shown = ", ".join(
            f"{sensitivity.maps[row]} {sensitivity.distances[row, column]:.2f}"
            for row in rows[:count]
        )
        name, part = UNITS[unit]
        faces = str(sensitivity.shown[column])
        table.add_row(f"{unit} {name}", part, faces, str(len(rows)), shown or "none")
    return table


def write_csv(sensitivity: Sensitivity, *, maps: Path, units: Path) -> None:
    """Write two CSV files.

    maps: for each map its own units, and all distances with their p-values.
    units: for each unit its most sensitive maps, at most nine.
    """
    numbers = sensitivity.units
    header = ["map", "unit", *(f"distance_{n}" for n in numbers), *(f"p_{n}" for n in numbers)]
    own = sensitivity.own_units()
    _write(
        maps,
        header,
        (
            [str(each), " ".join(map(str, own[row])), *_numbers(sensitivity, row)]
            for row, each in enumerate(sensitivity.maps)
        ),
    )
    header = ["unit", "name", "part", "faces", "rank", "map", "distance", "p"]
    _write(units, header, _unit_rows(sensitivity))


def _unit_rows(sensitivity: Sensitivity) -> Iterable[list[object]]:
    for column, unit in enumerate(sensitivity.units):
        for rank, row in enumerate(sensitivity.sensitive_rows(unit)[:_MOST_MAPS], 1):
            found = (sensitivity.distances[row, column], sensitivity.p_values[row, column])
            numbers = (f"{found[0]:.4f}", f"{found[1]:.4f}")
            yield [
                unit,
                *UNITS[unit],
                sensitivity.shown[column],
                rank,
                sensitivity.maps[row],
                *numbers,
            ]


def _numbers(sensitivity: Sensitivity, row: int) -> list[str]:
    found = (*sensitivity.distances[row], *sensitivity.p_values[row])
    return [f"{value:.4f}" for value in found]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _parts(units: Sequence[int]) -> list[str]:
    """The parts of the face that have one of the units, from the top down."""
    return [part for part in PARTS if any(UNITS[unit][1] == part for unit in units)]


def _by_part(units: Sequence[int]) -> list[int]:
    return [unit for part in PARTS for unit in units if UNITS[unit][1] == part]


def _rows(units: Sequence[int], top: int) -> list[tuple[int, int]]:
    """Each unit with the upper edge of its row. A gap separates the parts of the face."""
    parts = _parts(units)
    return [
        (unit, top + _ROW * place + _GAP * parts.index(UNITS[unit][1]))
        for place, unit in enumerate(_by_part(units))
    ]


def _sorted_maps(
    sensitivity: Sensitivity, trunk: str, stage: str, units: Sequence[int]
) -> NDArray[np.int64]:
    """Indices of a trunk's maps in a stage, sorted by the row of their unit, then by distance."""
    places = [index for index, each in enumerate(sensitivity.maps) if each[:2] == (trunk, stage)]
    own = sensitivity.own_units()

    def order(index: int) -> tuple[int, float]:
        row = min((units.index(unit) for unit in own[index]), default=len(units))
        return row, -float(sensitivity.distances[index].max())

    return np.array(sorted(places, key=order), np.int64)


def _coloured(sensitivity: Sensitivity) -> NDArray[np.uint8]:
    """The colour of each distance, (M, K, 3)."""
    share = (abs(sensitivity.distances) / _FULL).clip(0, 1)[..., None]
    more = _MORE[0] + share * (_MORE[1] - _MORE[0])
    less = _LESS[0] + share * (_LESS[1] - _LESS[0])
    colours = np.where(sensitivity.distances[..., None] > 0, more, less)
    colours = np.where(sensitivity.significant[..., None], colours, _CHANCE)
    return colours.round().astype(np.uint8)


def _legend(picture: Image.Image, draw: ImageDraw.ImageDraw, y: int) -> None:
    """Draw the legend of the colours."""
    font, left = letters(15), _MARGIN
    ramp = np.linspace(0, 1, 80)[None, :, None]
    for ends, text in ((_MORE, "more"), (_LESS, "less")):
        strip = (ends[0] + ramp * (ends[1] - ends[0])).round().astype(np.uint8)
        picture.paste(Image.fromarray(strip).resize((80, 12)), (left, y - 6))
        label = f"{text} with the unit: 0 … {_FULL:g} standard deviations"
        draw.text((left + 88, y), label, font=font, fill=DIM, anchor="lm")
        left += 88 + round(draw.textlength(label, font=font)) + 20
    draw.rectangle((left, y - 6, left + 12, y + 6), fill=_CHANCE)
    draw.text((left + 20, y), "chance", font=font, fill=DIM, anchor="lm")
