"""Picture of an explained face: the answer, the heat map, and the effect of each region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pcnn.errors import counted
from pcnn.results.style import DIM, GROUND, SKY, TEXT, VERMILION, YELLOW, letters

# Okabe and Ito, "Color Universal Design" (2008): colour-blind readers can distinguish blue from
# orange and yellow. In black-and-white print yellow is lighter than vermilion.

_ROW = (40, 44, 48)
_TRACK = (72, 72, 72)
_HIDDEN = (128, 128, 128)
_HALO = (0, 0, 0)

_WIDTH, _MARGIN = 1000, 24
_FACE = 400  # side of the face, and height of the table
_TOP = 104  # upper edge of face and table
_HEIGHT = _TOP + _FACE + 58
_HEADER = 36
_TABLE = _MARGIN + _FACE + 24  # its left edge
_BAR = 180
_OPAQUE = 0.8  # opacity of the strongest heat, so that the face stays visible
_RISE = 0.75  # exponent of the opacity; below 1 weaker heat is visible, too

Scores = Mapping[str, float]


class DrawnExplanation(Protocol):
    """The attributes of an explanation that drawing uses (see values.Explanation)."""

    @property
    def label(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def regions(self) -> Mapping[str, Scores]: ...
    @property
    def without(self) -> Mapping[str, Scores]: ...
    @property
    def heat(self) -> NDArray[np.float32]: ...
    @property
    def boxes(self) -> Mapping[str, tuple[float, float, float, float]]: ...
    @property
    def picture(self) -> NDArray[np.uint8]: ...
    @property
    def decisive(self) -> str | None: ...


def draw_explanation(explained: DrawnExplanation, *, number: int | None = None) -> Image.Image:
    """Draw one explained face.

    number: the face's number, shown before the answer; None for the only face.
    The left half shows the grey face under its heat map, with outlined regions; the decisive
    region is blue. The right half has a row for each region: the face with the region hidden, the
    region's own answer, and a bar with the answer's remaining probability. A tick marks the
    probability for the whole face.
    Returns an RGB image of 1000 × 562 pixels.
    """
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), GROUND)
    draw = ImageDraw.Draw(picture)
    title = "" if number is None else f"{number}: "
    title += _title(explained)
    draw.text((_MARGIN, 18), title, font=letters(36), fill=SKY)
    _fitted(draw, (_MARGIN, 68), summary(explained), _WIDTH - 2 * _MARGIN)
    picture.paste(_heated(explained), (_MARGIN, _TOP))
    _outline(draw, explained)
    _legend(picture, draw, explained.answer)
    _header(draw, explained)
    height = (_FACE - _HEADER) / len(explained.without)
    for row, region in enumerate(explained.without):
        top = round(_TOP + _HEADER + row * height)
        _row(picture, draw, explained, region, (top, round(height) - 6))
    return picture


def summary(explained: DrawnExplanation) -> str:
    """The summary of an explanation in one sentence."""
    answer, region = explained.answer, explained.decisive
    if region is None:
        return f"No single region decides: hiding any one of them hardly lowers {answer}."
    best, probability = _best(explained.without[region])
    name = _spoken(region)
    if best != answer:
        return (
            f"The {name} decides: with it hidden, the answer would be {best} ({probability:.0%})."
        )
    return f"The {name} counts most: with it hidden, {answer} falls to {probability:.0%}."


def _title(explained: DrawnExplanation) -> str:
    """The answer and its probability, after "uncertain" if that is the label."""
    answer = f"{explained.answer} {explained.confidence:.0%}"
    return answer if explained.label == explained.answer else f"{explained.label} ({answer})"


def _heated(explained: DrawnExplanation) -> Image.Image:
    """The grey face with the heat map over it."""
    face = _resized(Image.fromarray(explained.picture), _FACE).convert("L").convert("RGB")
    heat = Image.fromarray((255 * explained.heat.clip(0, 1)).astype(np.uint8))
    share = np.asarray(_resized(heat, _FACE), np.float32)[..., None] / 255  # (side, side, 1)
    glow = np.array(VERMILION) + share * (np.array(YELLOW) - np.array(VERMILION))
    alpha = _OPAQUE * share**_RISE
    mixed = np.asarray(face) * (1 - alpha) + glow * alpha
    return Image.fromarray(mixed.round().astype(np.uint8))


def _outline(draw: ImageDraw.ImageDraw, explained: DrawnExplanation) -> None:
    """Draw boxes and names of the regions over the face, the decisive one last and in colour."""
    for region in sorted(explained.boxes, key=lambda name: name == explained.decisive):
        decisive = region == explained.decisive
        x1, y1, x2, y2 = (edge * _FACE for edge in explained.boxes[region])
        box = (_MARGIN + x1, _TOP + y1, _MARGIN + x2 - 1, _TOP + y2 - 1)
        draw.rectangle(box, outline=SKY if decisive else DIM, width=4 if decisive else 1)
        draw.text(
            (box[0] + 8, box[1] + 6),
            _spoken(region),
            font=letters(15),
            fill=SKY if decisive else TEXT,
            stroke_width=2,
            stroke_fill=_HALO,
        )


def _legend(picture: Image.Image, draw: ImageDraw.ImageDraw, answer: str) -> None:
    """Draw the legend of the heat map below the face."""
    y, font = _TOP + _FACE + 22, letters(15)
    draw.text((_MARGIN, y), f"speaks for {answer}:  little", font=font, fill=DIM, anchor="lm")
    left = round(_MARGIN + draw.textlength(f"speaks for {answer}:  little", font=font)) + 8
    share = np.linspace(0, 1, 90)[None, :, None]
    glow = np.array(VERMILION) + share * (np.array(YELLOW) - np.array(VERMILION))
    alpha = _OPAQUE * share**_RISE
    ramp = alpha * glow + (1 - alpha) * np.array(_HIDDEN)
    strip = Image.fromarray(ramp.round().astype(np.uint8)).resize((90, 12))
    picture.paste(strip, (left, y - 6))
    draw.text((left + 98, y), "much", font=font, fill=DIM, anchor="lm")
    note = "White tick: the whole face. Left and right as in the picture."
    draw.text((_WIDTH - _MARGIN, y), note, font=font, fill=DIM, anchor="rm")


def _header(draw: ImageDraw.ImageDraw, explained: DrawnExplanation) -> None:
    """Draw the column titles of the table."""
    y, font = _TOP + 12, letters(15)
    draw.text((_TABLE, y), "hidden", font=font, fill=DIM, anchor="lm")
    draw.text((_TABLE + 86, y), "on its own it says", font=font, fill=DIM, anchor="lm")
    right = _WIDTH - _MARGIN - 8
    text = f"{explained.answer} with it hidden"
    draw.text((right, y), text, font=font, fill=DIM, anchor="rm")


def _row(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    explained: DrawnExplanation,
    region: str,
    span: tuple[int, int],
) -> None:
    """Draw one region's row of the table. span: its upper edge and height."""
    top, height = span
    decisive = region == explained.decisive
    right, middle = _WIDTH - _MARGIN, top + height / 2
    if decisive:
        draw.rectangle((_TABLE - 8, top - 3, right, top + height + 2), fill=_ROW)
        draw.rectangle((_TABLE - 8, top - 3, _TABLE - 4, top + height + 2), fill=SKY)
    picture.paste(_without(explained, region, height), (_TABLE + 4, top))
    left = _TABLE + 86
    fill = SKY if decisive else TEXT
    draw.text((left, middle - 13), _spoken(region), font=letters(19), fill=fill, anchor="lm")
    own, own_share = _best(explained.regions[region])
    draw.text(
        (left, middle + 13), f"{own} {own_share:.0%}", font=letters(16), fill=DIM, anchor="lm"
    )
    remaining = explained.without[region][explained.answer]
    x, half = right - 8 - _BAR, 7
    bar = (x, middle - 13 - half, x + _BAR * remaining, middle - 13 + half)
    draw.rectangle((x, bar[1], x + _BAR, bar[3]), fill=_TRACK)
    if _BAR * remaining >= 1:
        draw.rectangle(bar, fill=SKY)
    tick = x + _BAR * explained.confidence
    draw.line((tick, bar[1] - 4, tick, bar[3] + 4), fill=TEXT, width=2)
    draw.text((x - 10, middle - 13), f"{remaining:.0%}", font=letters(19), fill=fill, anchor="rm")
    draw.text((x, middle + 13), _change(explained, region), font=letters(16), fill=DIM, anchor="lm")


def _change(explained: DrawnExplanation, region: str) -> str:
    """The effect of hiding a region, in a few words."""
    best, probability = _best(explained.without[region])
    if best != explained.answer:
        return f"answer: {best} {probability:.0%}"
    # The difference of the displayed percentages, so that it agrees with them.
    points = round(100 * explained.without[region][best]) - round(100 * explained.confidence)
    if not points:
        return "no change"
    return f"{'+' if points > 0 else '-'}{counted(abs(points), 'point')}"


def _without(explained: DrawnExplanation, region: str, side: int) -> Image.Image:
    """A small face with one region hidden."""
    face = _resized(Image.fromarray(explained.picture), side)
    x1, y1, x2, y2 = (round(edge * side) for edge in explained.boxes[region])
    draw = ImageDraw.Draw(face)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=_HIDDEN, outline=DIM)
    draw.line((x1, y1, x2 - 1, y2 - 1), fill=DIM)  # the cross is visible on a grey face, too
    draw.line((x1, y2 - 1, x2 - 1, y1), fill=DIM)
    return face


def _resized(image: Image.Image, side: int) -> Image.Image:
    """Resize to side × side pixels, bicubic."""
    return image.resize((side, side), Image.Resampling.BICUBIC)


def _fitted(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Draw text in the largest size that fits."""
    sizes = (21, 19, 17, 15)
    fitting = [size for size in sizes if draw.textlength(text, font=letters(size)) <= width]
    draw.text(place, text, font=letters((fitting or sizes)[0 if fitting else -1]), fill=TEXT)


def _best(scores: Scores) -> tuple[str, float]:
    """The likeliest class and its probability."""
    return max(scores.items(), key=lambda item: item[1])


def _spoken(region: str) -> str:
    """left_eye → left eye."""
    return region.replace("_", " ")
