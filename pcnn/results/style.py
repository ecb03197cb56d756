"""Common style of drawings: colours, font, and stacking of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from PIL import Image, ImageFont

GROUND = (24, 24, 24)
TEXT = (255, 255, 255)
DIM = (190, 190, 190)
# Okabe and Ito, "Color Universal Design" (2008): colour-blind readers can distinguish them. Black
# is left out, and so is the blue that is hard to see on black.
SKY, ORANGE, GREEN = (86, 180, 233), (230, 159, 0), (0, 158, 115)
YELLOW, PURPLE, VERMILION = (240, 228, 66), (204, 121, 167), (213, 94, 0)

Colour: TypeAlias = tuple[int, int, int]
# Of the packaged weights' classes, in their order: neutral, happiness, surprise, sadness, anger,
# disgust, fear, contempt.
_OF_CLASSES: tuple[Colour, ...] = (DIM, YELLOW, ORANGE, SKY, VERMILION, GREEN, PURPLE, TEXT)


def class_colours(classes: Sequence[str]) -> dict[str, Colour]:
    """Name → colour on the ground; after eight classes colours come again."""
    return {name: _OF_CLASSES[i % len(_OF_CLASSES)] for i, name in enumerate(classes)}


def label_colour(colours: Mapping[str, Colour], label: str) -> Colour:
    """The colour of a label; that of text for "uncertain", which is no class."""
    return colours.get(label, TEXT)


def letters(size: float) -> Any:
    """Pillow's own font, which has no arrows and no typographic minus. size: in pixels."""
    return ImageFont.load_default(size)


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stack at least one picture into a column, aligned at the left."""
    width = max(picture.width for picture in pictures)
    whole = Image.new("RGB", (width, sum(each.height for each in pictures)), GROUND)
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    return whole
